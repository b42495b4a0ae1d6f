"""`check` finds what is wrong in the files of a blueprint with file and line, without a server."""

from __future__ import annotations

import json

import pytest

from commands import run_here

BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint

HERE = Path(__file__).parent
BLUEPRINT = Blueprint("bp", "for tests", migrations=HERE / "migrations", cypher=HERE / "cypher")
"""
HEAD = (
    "from alembic import op\nimport sqlalchemy as sa\n\nrevision = {!r}\ndown_revision = {!r}\n\n\n"
)
RIGHT = "def upgrade():\n    op.create_table('t', sa.Column('a', sa.Integer), sa.Column('b', sa.Text))\n"
CYPHER = "// people\nCREATE CONSTRAINT a IF NOT EXISTS FOR (n:A) REQUIRE n.id IS UNIQUE;\n"


@pytest.fixture
def check(tmp_path):
    """Writes a blueprint with these upgrades and this Cypher, and checks it."""

    def run(*upgrades, cypher=CYPHER, arguments=()):
        (tmp_path / "blueprint.py").write_text(BLUEPRINT)
        for folder in ("migrations", "cypher"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "cypher" / "V001__a.cypher").write_text(cypher)
        before = None
        for number, body in enumerate(upgrades, 1):
            name = f"r{number}"
            path = tmp_path / "migrations" / f"{name}_x.py"
            path.write_text(HEAD.format(name, before) + body)
            before = name
        place = str(tmp_path)
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        return run_here(("check", "-b", place, *arguments), tmp_path, environment)

    return run


def test_a_typo_in_cypher_is_found_with_file_and_line(check):
    code, _, err = check(
        RIGHT, cypher=f"{CYPHER}\nCREATE CONSTRANT b FOR (n:B) REQUIRE n.id IS UNIQUE;\n"
    )
    assert code == 2
    assert "V001__a.cypher:4: `CREATE CONSTRANT` is no command: did you mean CONSTRAINT?" in err


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        ("def upgrade():\n    op.creat_table('t')\n", 9, "AttributeError"),
        ("def upgrade():\n    pass\n    op.execute(SQL)\n", 10, "NameError"),
        (
            "def upgrade():\n    op.execute('''\n    CREAT TABLE x (a int)\n    ''')\n",
            10,
            'near "CREAT"',
        ),
    ],
)
def test_a_broken_revision_is_found_with_file_and_line(check, body, line, said):
    code, _, err = check(RIGHT, body)
    assert code == 2
    assert f"r2_x.py:{line}: " in err
    assert said in err


def test_a_revision_that_needs_the_database_is_not_taken_for_broken(check):
    asks = "def upgrade():\n    row = op.get_bind().execute(sa.text('SELECT 1')).first()\n    print(row[0])\n"
    code, out, err = check(RIGHT, asks, arguments=("--output", "json"))
    document = json.loads(out)
    assert document["problems"] == []
    assert document["changes"][1]["is_code"]
    assert "r2 runs Python" in document["notes"][0]
    assert code == 3, err  # only catalogue.json is missing


def test_what_the_newest_files_drop_is_told_and_in_json_what_all_do(check):
    drop = "def upgrade():\n    op.drop_column('t', 'b')\n"
    later = "def upgrade():\n    op.execute('CLUSTER t')\n"
    cypher = "MATCH (n:A) DETACH DELETE n;\n"
    _, out, _ = check(RIGHT, drop, later, cypher=cypher)
    assert out.splitlines() == [
        (
            "look at r3: rewrites t: CLUSTER writes the table anew, and readers and writers wait until "
            "that is done."
        ),
        "look at V001__a.cypher: drops A: All nodes of A are deleted.",
    ]
    _, out, _ = check(RIGHT, drop, later, cypher=cypher, arguments=("--output", "json"))
    changes = json.loads(out)["changes"]
    assert [each["name"] for each in changes] == ["r1", "r2", "r3", "V001__a.cypher"]
    assert changes[1]["statements"] == ["ALTER TABLE t DROP COLUMN b;"]
    (danger,) = changes[1]["dangers"]
    assert (danger["kind"], danger["object"], danger["statement"]) == ("drops", "t.b", 0)

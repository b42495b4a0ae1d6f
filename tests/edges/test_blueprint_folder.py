"""What lies beside a blueprint's module.

Migrations that nobody reads are named, all else is normal.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError

REVISION = 'revision = "a"\ndown_revision = None\n'
CYPHER = "CREATE INDEX a IF NOT EXISTS FOR (n:A) ON (n.b);\n"
KEY = "keys=(KeyPattern('k', 'k:{id}', 'string', 60, 'me', 'test'),)"


def blueprint_text(arguments: str = KEY) -> str:
    return (
        "from pathlib import Path\nfrom is_db_bootstrap.blueprint import Blueprint, KeyPattern\n"
        f"BLUEPRINT = Blueprint('mine', 'test', {arguments})\n"
    )


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "mine", "blueprint.py", blueprint_text())
    return tmp_path / "mine"


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("Migrations/a.py", REVISION, "Migrations is not read: the folder is called migrations"),
        ("MIGRATIONS/README", "", "MIGRATIONS is not read: the folder is called migrations"),
        (
            "migrations /a.py",
            REVISION,
            "'migrations ' is not read: the folder is called migrations",
        ),
        ("Cypher/V001__a.cypher", CYPHER, "Cypher is not read: the folder is called cypher"),
        ("neo4j/V001__a.cypher", CYPHER, "neo4j has Cypher files, such as V001__a.cypher"),
        (
            "neo4j/migrations/v1_a.cql",
            CYPHER,
            "neo4j/migrations has Cypher files, such as v1_a.cql",
        ),
        ("graph/V001__a.cypher", CYPHER, "graph has Cypher files, such as V001__a.cypher"),
        ("alembic/versions/a.py", REVISION, "alembic/versions has Alembic revisions, such as a.py"),
        ("db/a.py", REVISION, "db has Alembic revisions, such as a.py"),
        ("db/migrations/a.py", REVISION, "db/migrations has Alembic revisions, such as a.py"),
        ("db/alembic/versions/a.py", REVISION, "db/alembic/versions has Alembic revisions"),
        ("db/cypher/V001__a.cypher", CYPHER, "db/cypher has Cypher files, such as V001__a.cypher"),
        (
            "V001__a.cypher",
            CYPHER,
            "V001__a.cypher is not read: Cypher files lie in the folder cypher",
        ),
        ("graph.CQL", CYPHER, "graph.CQL is not read: Cypher files lie in the folder cypher"),
        ("a.py", REVISION, "a.py is not read: Alembic revisions lie in the folder migrations"),
        ("migrations", "", "migrations is a file, not a folder"),
        ("cypher", "", "cypher is a file, not a folder"),
    ],
)
def test_migrations_beside_a_blueprint_that_are_not_read_are_named(folder, name, text, told):
    write(folder, name, text)
    with pytest.raises(ConfigurationError) as caught:
        load_blueprint(folder)
    assert told in caught.value.message
    assert caught.value.hint


def test_a_link_to_nowhere_and_a_pipe_in_place_of_a_folder_are_named_and_not_opened(folder):
    (folder / "migrations").symlink_to("nowhere")
    os.mkfifo(folder / "cypher")
    os.mkfifo(folder / "graph.cypher")
    command = [sys.executable, "-m", "is_db_bootstrap", "check", "-b", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 2
    assert "migrations is a link that leads nowhere, not a folder" in ended.stderr
    assert "cypher is a named pipe, socket or device, not a folder" in ended.stderr


@pytest.mark.parametrize("name", ["migrations", "cypher"])
def test_a_folder_without_any_migration_is_named_until_the_first_one_is_to_be_written(folder, name):
    write(folder, f"{name}/.gitkeep", "")
    with pytest.raises(ConfigurationError, match=f"{name} has no (Alembic revisions|Cypher files)"):
        load_blueprint(folder)
    assert getattr(load_blueprint(folder, may_have_no_files=True), name) == folder / name


def test_a_folder_that_the_blueprint_names_is_read_and_another_is_the_teams_own(folder):
    named = f"{KEY}, migrations=Path('db/versions'), cypher=Path('.')"
    write(folder, "blueprint.py", blueprint_text(named))
    write(folder, "db/versions/a.py", REVISION)
    write(folder, "archive/b.py", REVISION)
    write(folder, "V001__a.cypher", CYPHER)
    for path in (folder / "db" / "README.md", folder / "notes.md"):
        path.write_text("")
    assert load_blueprint(folder).migrations == folder / "db" / "versions"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("helpers.py", "import re\n"),
        ("revisions.py", "def revision_of(name):\n    revision = name\n    return revision\n"),
        ("neo4j/queries.py", "QUERY = 'MATCH (n) RETURN n'\n"),
        ("queries/find.cypher", "MATCH (n) RETURN n"),
        ("data/rows.csv", "a,b\n"),
        ("alembic.ini", "[alembic]\n"),
        ("tests/test_blueprint.py", "def test(): pass\n"),
        (".stack/cypher/V001__a.cypher", CYPHER),
        ("db/archive/a.py", REVISION),
        ("db/migrations/helpers.py", "import re\n"),
        ("another/blueprint.py", "nothing\n"),
        ("migration_notes.txt", "none yet\n"),
    ],
)
def test_modules_tests_and_data_of_a_team_are_normal(folder, name, text):
    write(folder, name, text)
    write(folder, "another/V001__a.cypher", CYPHER)
    write(folder, "another/blueprint.py", "")
    assert load_blueprint(folder).name == "mine"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("versions/b.py", 'revision = "b"\ndown_revision = "a"\n'),
        ("alembic/versions/b.py", 'revision = "b"\ndown_revision = ("a", "z")\n'),
        ("db/migrations/b.py", 'revision = "b"\ndown_revision = "a"\n'),
        ("migrations_2026/b.py", 'revision = "b"\ndown_revision = "a"\n'),
        ("neo4j/V002__b.cypher", CYPHER),
        ("cypher_2026/V002__b.cypher", CYPHER),
        ("graph/V001__b.cypher", CYPHER),
        ("graph/V2__cities.cql", "// in use\n" + CYPHER),
    ],
)
def test_migrations_that_go_on_from_those_that_are_read_are_named(folder, name, text):
    write(folder, "migrations/a.py", REVISION)
    write(folder, "cypher/V001__a.cypher", CYPHER)
    write(folder, name, text)
    place, _, file = name.rpartition("/")
    with pytest.raises(ConfigurationError, match=f"{place} has .*, such as {file}, and is not"):
        load_blueprint(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("db/migrations_2026/b.py", 'revision = "b"\ndown_revision = "a"\n'),
        ("db/b.py", 'revision = "b"\ndown_revision = "a"\n'),
        ("cypher/mine_2026/V002__b.cypher", CYPHER),
        ("cypher/V002__b.cypher", CYPHER),
    ],
)
def test_migrations_beside_a_deeper_folder_that_go_on_from_it_are_named(folder, name, text):
    named = f"{KEY}, migrations=Path('db/migrations'), cypher=Path('cypher/mine')"
    write(folder, "blueprint.py", blueprint_text(named))
    write(folder, "db/migrations/a.py", REVISION)
    write(folder, "cypher/mine/V001__a.cypher", CYPHER)
    write(folder, "db/another/b.py", 'revision = "x"\ndown_revision = None\n')
    write(folder, "cypher/another/V001__b.cypher", CYPHER)
    write(folder, "cypher/another/V002__b.cypher", CYPHER)
    assert load_blueprint(folder).name == "mine"  # folders of other blueprints are normal there
    write(folder, name, text)
    place, _, file = name.rpartition("/")
    with pytest.raises(ConfigurationError, match=f"{place} has .*, such as {file}, and is not"):
        load_blueprint(folder)


def test_another_environment_and_copies_beside_those_that_are_read_are_the_teams_own(folder):
    write(folder, "migrations/a.py", REVISION)
    write(folder, "migrations/b.py", 'revision = "b"\ndown_revision = "a"\n')
    write(folder, "cypher/V001__a.cypher", CYPHER)
    write(folder, "alembic/versions/a.py", REVISION)
    write(folder, "alembic/versions/c.py", 'revision = "c"\ndown_revision = "a"\n')
    write(folder, "alembic/versions/d.py", 'revision = "d"\ndown_revision = 4\n')
    write(folder, "alembic/env.py", "from alembic import context\n")
    write(folder, "build/migrations/b.py", 'revision = "b"\ndown_revision = "a"\n')
    write(folder, "build/cypher/V001__a.cypher", CYPHER)
    write(folder, "neo4j/queries.cypher", "MATCH (n) RETURN n")
    for name in ("tests/setup.cypher", "docs/schema.cypher", "scripts/reset.cypher"):
        write(folder, name, CYPHER)
    assert load_blueprint(folder).stores == ("postgres", "neo4j", "redis")


def test_packages_that_are_installed_in_a_folder_beside_are_normal(folder):
    write(folder, "vendor/alembic-1.dist-info/METADATA", "")
    write(folder, "vendor/alembic/command.py", "def revision(): pass\n")
    assert load_blueprint(folder).name == "mine"


def test_what_lies_beside_the_module_of_a_name_is_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "module_beside.py", blueprint_text())
    write(tmp_path, "Cypher/V001__a.cypher", CYPHER)
    with pytest.raises(ConfigurationError, match="Cypher is not read"):
        load_blueprint("module_beside:BLUEPRINT")

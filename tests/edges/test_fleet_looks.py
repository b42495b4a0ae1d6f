"""`plan`, `status` and `verify` with `--targets`: each target is told, and nothing is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid

import psycopg
import pytest

pytestmark = [pytest.mark.postgres, pytest.mark.acceptance]
BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("mine", "for tests", migrations=Path(__file__).parent / "migrations")
"""
REVISION = '''
"""One table."""
from alembic import op

revision = "m_0001"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE seen (id int)")


def downgrade():
    op.execute("DROP TABLE seen")
'''
DEAD = {"name": "dead", "postgres": {"url": "postgresql://127.0.0.1:1/x"}}


class Tenants:
    """Three databases, of which the first is at the blueprint and the others do not exist."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        prefix = f"looks_{uuid.uuid4().hex[:8]}"
        self.names = [f"{prefix}_{number}" for number in range(3)]
        self.targets = [{"name": n[-1], "postgres": {"database": n}} for n in self.names]
        (folder / "mine.py").write_text(BLUEPRINT)
        (folder / "migrations").mkdir()
        (folder / "migrations" / "m_0001_step.py").write_text(REVISION)

    def call(self, command, *options, targets=None, output="json", stdin=None):
        """Exit code, output and stderr of one call. A document is read from JSON."""
        kept = ("POSTGRES_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        env["POSTGRES_URL"] = self.server.url
        lines = [json.dumps(each) + "\n" for each in targets or self.targets]
        words = [sys.executable, "-m", "is_db_bootstrap", command, "-b", "mine:BLUEPRINT"]
        words += ["--targets", "-", "-o", output, *options]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=env,
            input=stdin or "".join(lines),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        is_document = output == "json" and done.stdout
        return done.returncode, json.loads(done.stdout) if is_document else done.stdout, done.stderr

    def databases(self):
        with psycopg.connect(f"{self.server.url}/postgres") as connection:
            rows = connection.execute("SELECT datname FROM pg_database").fetchall()
        return {name for (name,) in rows if name in self.names}

    def written(self):
        """What tells of any write in the first database: its objects and the row of its record."""
        with psycopg.connect(f"{self.server.url}/{self.names[0]}") as connection:
            objects = connection.execute(
                "SELECT oid, relname, xmin::text FROM pg_class WHERE oid > 16384 ORDER BY oid"
            ).fetchall()
            record = connection.execute("SELECT xmin::text, * FROM alembic_version").fetchall()
        return objects, record


@pytest.fixture(scope="module")
def tenants(farm, tmp_path_factory):
    made = Tenants(farm.shared("postgres"), tmp_path_factory.mktemp("looks"))
    code, _, err = made.call(
        "apply", "--resume", "outcomes.jsonl", "--jobs", "1", targets=made.targets[:1]
    )
    assert code == 0, err
    yield made
    with psycopg.connect(f"{made.server.url}/postgres", autocommit=True) as connection:
        for name in made.names:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def outcomes(document):
    return {target["name"]: target["outcome"] for target in document["targets"]}


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        ("plan", 0, ("unchanged", "planned", "planned")),
        ("status", 0, ("unchanged", "planned", "planned")),
        ("verify", 3, ("unchanged", "drifted", "drifted")),
    ],
)
def test_a_look_tells_each_target_and_changes_nothing(tenants, command, code, expected):
    before = tenants.written()
    ledger = (tenants.folder / "outcomes.jsonl").read_bytes()
    seen, document, err = tenants.call(command, "--jobs", "2")
    assert (seen, document["exit_code"]) == (code, code), err
    assert tuple(outcomes(document).values()) == expected
    assert document["mode"] == command
    assert [t["run"]["mode"] for t in document["targets"]] == [command] * 3
    assert tenants.databases() == {tenants.names[0]}
    assert tenants.written() == before
    assert (tenants.folder / "outcomes.jsonl").read_bytes() == ledger


def test_a_dead_target_keeps_no_look_from_the_others(tenants):
    targets = [DEAD, "oops", *tenants.targets]
    code, document, _ = tenants.call("verify", "--timeout", "0.5", targets=targets)
    assert (code, document["outcome"]) == (4, "failed")
    found = outcomes(document)
    assert (found["dead"], found["line 2"]) == ("failed", "failed")
    assert [found[name] for name in "012"] == ["unchanged", "drifted", "drifted"]
    assert tenants.databases() == {tenants.names[0]}


def test_what_failed_decides_the_exit_code_before_what_drifted(tenants):
    targets = [*reversed(tenants.targets), {"name": "x", "nothing": 1}]
    code, document, _ = tenants.call("verify", targets=targets)
    assert [target["exit_code"] for target in document["targets"]] == [3, 3, 0, 2]
    assert code == document["exit_code"] == 2


def test_pending_changes_of_any_target_are_exit_3_when_asked_for(tenants):
    code, document, _ = tenants.call("plan", "--exit-code")
    assert (code, document["exit_code"]) == (3, 3)
    code, document, _ = tenants.call("plan", "--exit-code", targets=tenants.targets[:1])
    assert (code, document["exit_code"]) == (0, 0)


def test_a_plan_of_many_targets_says_where_to_look_first(tenants):
    revision = tenants.folder / "migrations" / "m_0002_step.py"
    drop = REVISION.replace("CREATE TABLE seen (id int)", "ALTER TABLE seen DROP COLUMN id")
    drop = drop.replace("m_0001", "m_0002").replace(
        "down_revision = None", "down_revision = 'm_0001'"
    )
    revision.write_text(drop)
    _, out, _ = tenants.call("plan", output="text", targets=tenants.targets[:1])
    words = "0 postgres planned 1 revision planned, 1 to look at first (drops)"
    revision.unlink()
    assert " ".join(out.splitlines()[1].split()) == words


def test_the_text_of_a_look_is_a_table_with_each_store_of_each_target(tenants):
    _, out, _ = tenants.call("plan", output="text")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["TARGET", "STORE", "OUTCOME", "WHAT"]
    assert rows[1] == ["0", "postgres", "unchanged", "-"]
    assert " ".join(rows[2]) == "1 postgres planned 1 database planned, 1 revision planned"
    assert out.splitlines()[-1].startswith("mine: plan of 3 targets: 1 unchanged, 2 planned in ")
    _, out, _ = tenants.call("status", output="text", targets=tenants.targets[:1])
    assert "recorded m_0001, head m_0001, not locked" in out
    assert "mine: status of 1 target: 1 unchanged in " in out
    _, out, _ = tenants.call("verify", output="text", targets=[tenants.targets[1]])
    assert "drifted" in out.splitlines()[1]
    assert "database" in out.splitlines()[1]


@pytest.mark.parametrize("command", ["plan", "status", "verify"])
@pytest.mark.parametrize("option", [("--resume", "outcomes.jsonl"), ("--continue-on-error",)])
def test_a_look_is_nothing_to_resume_from(tenants, command, option):
    before = (tenants.folder / "outcomes.jsonl").read_bytes()
    code, _, err = tenants.call(command, *option, output="text")
    assert (code, option[0] in err) == (2, True)
    assert (tenants.folder / "outcomes.jsonl").read_bytes() == before


@pytest.mark.parametrize("command", ["plan", "status", "verify"])
def test_options_of_targets_need_targets(tmp_path, command):
    words = [sys.executable, "-m", "is_db_bootstrap", command, "--jobs", "2", "--shard", "1/2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--jobs and --shard without --targets" in done.stderr

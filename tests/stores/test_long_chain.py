"""No step of a long chain of revisions costs more than the one before it."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import subprocess
import sys

import psycopg
import pytest

from counted_wire import counted_wire
from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings
from is_db_bootstrap.stores.postgres.revisions import Chain
from team_project import TeamProject

pytestmark = pytest.mark.postgres

#: The steps that are compared stand around these. A heartbeat or a slow machine may add a
#: statement to single ones, so medians are compared.
EARLY, LATE, AROUND = 20, 60, 10
BODY = 'op.execute("CREATE TABLE {name} (id integer PRIMARY KEY)")'
ROW = "SELECT blueprint, revisions, planned FROM is_db_bootstrap.lineage"


class Own:
    """A folder of revisions without an `env.py`."""

    def __init__(self, folder):
        self.path = folder / "shop"
        self.folder = self.path / "migrations"
        self.folder.mkdir(parents=True)
        (self.path / "blueprint.py").write_text(
            "from is_db_bootstrap.blueprint import Blueprint\n"
            "BLUEPRINT = Blueprint('shop', 'a long chain')\n"
        )

    def add(self, name, before, body):
        text = (
            f'"""{name}"""\nfrom alembic import op\n\nrevision = {name!r}\n'
            f"down_revision = {before!r}\n\n\ndef upgrade():\n    {body}\n"
        )
        (self.folder / f"{name}.py").write_text(text)


class Team:
    """A project with an `env.py`, which leads to its database through SHOP_DATABASE."""

    def __init__(self, folder, url, options):
        self.project = TeamProject(folder, url)
        self.project.env(options)
        self.folder = folder / "db/versions"
        self.path = self.project.toml

    def add(self, name, before, body):
        self.project.revision(name, before, body)


KINDS = {
    "own folder": None,
    "team, a transaction per revision": "transaction_per_migration=True",
    "team, one transaction": "transaction_per_migration=False",
}


@pytest.fixture
def wire(postgres_url, monkeypatch):
    with counted_wire(postgres_url) as found:
        address = found.url.replace("postgresql://", "postgresql+psycopg://", 1)
        monkeypatch.setenv("SHOP_DATABASE", address)
        yield found


@pytest.fixture
def chain_of(tmp_path, wire):
    """`chain_of(kind, 3)`: a project of this kind with revisions `r001` to `r003`."""

    def make(kind, count):
        options = KINDS[kind]
        made = Own(tmp_path) if options is None else Team(tmp_path, wire.url, options)
        for number in range(1, count + 1):
            name = f"r{number:03}"
            before = f"r{number - 1:03}" if number > 1 else None
            made.add(name, before, BODY.format(name=name))
        return made

    return make


def apply(project, url, observer=lambda _: None, *, verify=False):
    blueprint = load_blueprint(project.path)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": url})
    options = RunOptions(verify=verify)
    result = orchestrator(blueprint, settings, options, observers=[observer]).run(Mode.APPLY)
    result.raise_for_failure()
    return result


def ask(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_sends_as_much_after_60_revisions_as_after_20(chain_of, wire, kind, monkeypatch):
    project = chain_of(kind, LATE + AROUND)
    walks = []
    until = Chain.until
    monkeypatch.setattr(Chain, "until", lambda *given: walks.append(1) or until(*given))
    sent = []

    def note(event):
        if event.kind == "change-started":
            sent.append((wire.statements, wire.bytes))

    apply(project, wire.url, note)
    names = [f"r{number:03}" for number in range(1, LATE + AROUND + 1)]
    assert ask(wire.url, ROW)[0][1:] == (names, None)
    steps = [
        (after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(sent)
    ]
    early, late = (steps[-AROUND - LATE + at :][:AROUND] for at in (EARLY, LATE))
    statements, size = zip(*early, strict=True)
    late_statements, late_size = zip(*late, strict=True)
    assert statistics.median(late_statements) == statistics.median(statements)
    assert statistics.median(late_size) == pytest.approx(statistics.median(size), abs=8)
    # The whole chain is walked a few times in a run, and not in each step.
    assert len(walks) < EARLY


@pytest.mark.parametrize("kind", ["own folder", "team, a transaction per revision"])
def test_a_run_that_is_killed_in_the_middle_leaves_what_led_to_its_revision(
    chain_of, wire, kind, postgres_url
):
    project = chain_of(kind, 5)
    code = f"{BODY.format(name='r004')}; import os; os.kill(os.getpid(), {signal.SIGKILL:d})"
    project.add("r004", "r003", code)
    killed = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", "apply", "--blueprint", project.path],
        check=False,
        env={**os.environ, "POSTGRES_URL": wire.url},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    names = [f"r{number:03}" for number in range(1, 6)]
    assert ask(postgres_url, ROW)[0][1:] == ([], names)
    for name in names[2:]:
        (project.folder / f"{name}.py").unlink()
    older = apply(project, wire.url).stores[0]
    assert any("newer than this version's r002" in note for note in older.notes)
    for before, name in itertools.pairwise(names[1:]):
        project.add(name, before, BODY.format(name=name))
    done = apply(project, wire.url)
    assert [change.name for change in done.stores[0].changes] == ["r004", "r005"]
    assert ask(postgres_url, ROW)[0][1:] == (names, None)


def test_the_plan_of_a_run_that_was_killed_after_its_last_revision_becomes_what_led_there(
    chain_of, wire, postgres_url
):
    project = chain_of("own folder", 2)
    names = ["r001", "r002"]
    apply(project, wire.url, verify=True)
    assert ask(postgres_url, ROW)[0][1:] == (names, None)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE is_db_bootstrap.lineage SET revisions = '{}', planned = '{r001,r002}'"
        )
        connection.execute("DELETE FROM is_db_bootstrap.memory")
    again = apply(project, wire.url, verify=True)
    assert [change.kind for change in again.stores[0].changes] == ["memory"]
    assert ask(postgres_url, ROW)[0][1:] == (names, None)


def test_the_plan_of_newer_code_is_left_by_an_older_run_that_remembers(
    chain_of, wire, postgres_url
):
    project = chain_of("own folder", 3)
    names = ["r001", "r002", "r003"]
    apply(project, wire.url, verify=True)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE is_db_bootstrap.lineage SET revisions = '{}', planned = '{r001,r002,r003}'"
        )
        connection.execute("DELETE FROM is_db_bootstrap.memory")
    (project.folder / "r003.py").unlink()
    apply(project, wire.url, verify=True)
    assert ask(postgres_url, ROW)[0][1:] == ([], names)

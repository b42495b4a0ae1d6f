"""All pending revisions are one run of Alembic. Each is told as done when its commit was read."""

from __future__ import annotations

import textwrap
from collections import Counter

import psycopg
import pytest
from alembic.script import ScriptDirectory
from alembic.util import pyfiles

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ChangeFailed
from is_db_bootstrap.results import Outcome
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.postgres import alembic as postgres_alembic
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.half_done import WorkingConnection
from is_db_bootstrap.stores.postgres.revisions import Chain

pytestmark = pytest.mark.postgres

#: An env.py with one transaction for all revisions, as `alembic init` writes it.
ONE_TRANSACTION = """\
from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
"""


@pytest.fixture
def team(tmp_path, postgres_url):
    return Team(tmp_path, postgres_url)


class Team:
    """A blueprint with a chain of revisions, and its database."""

    def __init__(self, folder, url):
        self.folder = folder
        self.url = url
        self.migrations = folder / "migrations"
        self.migrations.mkdir()
        self.events = []

    def chain(self, count, **code):
        """Write revisions r1 to rN. Each makes a table, and then runs its `code`."""
        for number in range(1, count + 1):
            before = f"r{number - 1}" if number > 1 else None
            then = code.get(f"r{number}", "pass")
            (self.migrations / f"r{number}.py").write_text(
                "from alembic import op\n\n"
                f"revision = 'r{number}'\n"
                f"down_revision = {before!r}\n\n\n"
                "def upgrade():\n"
                f"    op.execute('CREATE TABLE t{number} ()')\n"
                f"{textwrap.indent(then, '    ')}\n"
            )

    def apply(self, **options):
        blueprint = Blueprint("team", "A team.", migrations=self.migrations, **options)
        store = PostgreSQLBootstrapper(self.url, blueprint, timing=Timing(lock_timeout_s=1))
        run = BootstrapOrchestrator([store], blueprint="team", observers=[self.events.append])
        return run.run()

    def ask(self, query):
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [row[0] for row in connection.execute(query).fetchall()]

    @property
    def tables(self):
        return self.ask(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' "
            "AND tablename LIKE 't_' ORDER BY 1"
        )

    @property
    def recorded(self):
        return self.ask("SELECT version_num FROM alembic_version")

    @property
    def told(self):
        """What observers were told of revisions, in order."""
        kinds = {"change-started", "change-ran", "change"}
        return [
            (event.kind, event.change.name if event.change else event.message)
            for event in self.events
            if event.kind in kinds
            and (event.change is None or event.change.kind == "revision")
            and event.message != "team"
        ]


@pytest.fixture
def one_transaction(tmp_path, monkeypatch):
    """An env.py that runs all revisions in one transaction."""
    place = tmp_path / "environment"
    place.mkdir()
    (place / "env.py").write_text(ONE_TRANSACTION)
    (place / "script.py.mako").write_text("")
    config = postgres_alembic.config

    def with_other_environment(*args, **options):
        found = config(*args, **options)
        found.set_main_option("script_location", str(place))
        return found

    monkeypatch.setattr(postgres_alembic, "config", with_other_environment)


def outcomes(result):
    changes = result.stores[0].changes
    return {c.name: c.outcome for c in changes if c.kind == "revision"}


def test_each_revision_is_told_as_done_before_the_next_one_begins(team):
    team.chain(3)
    assert team.apply().ok
    assert team.told == [
        (kind, name) for name in ("r1", "r2", "r3") for kind in ("change-started", "change")
    ]
    assert (team.tables, team.recorded) == (["t1", "t2", "t3"], ["r3"])


def test_a_failure_leaves_what_was_told_as_done(team):
    team.chain(4, r3="op.execute('SELECT 1 / 0')")
    result = team.apply()
    assert outcomes(result) == {
        "r1": Outcome.CHANGED,
        "r2": Outcome.CHANGED,
        "r3": Outcome.FAILED,
        "r4": Outcome.PLANNED,
    }
    assert "revision r3 was refused: division by zero" in result.stores[0].error.message
    assert (team.tables, team.recorded) == (["t1", "t2"], ["r2"])


def noted(calls):
    """Code by which a revision notes that it runs."""
    return (
        "from pathlib import Path\n"
        f"calls = Path({str(calls)!r})\n"
        "calls.write_text(calls.read_text() + revision + ' ')"
    )


def test_a_busy_revision_is_tried_again_and_those_before_it_are_not(team):
    calls = team.folder / "calls"
    calls.touch()
    note = noted(calls)
    busy = (
        f"{note}\n"
        "if calls.read_text().count('r2') < 3:\n"
        "    op.execute(\"DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$\")"
    )
    team.chain(3, r1=note, r2=busy, r3=note)
    assert team.apply().ok
    assert calls.read_text().split() == ["r1", "r2", "r2", "r2", "r3"]
    assert (team.tables, team.recorded) == (["t1", "t2", "t3"], ["r3"])


def test_revisions_of_one_transaction_are_done_when_all_are_committed(team, one_transaction):
    team.chain(3)
    assert team.apply().ok
    assert team.told == [
        *[(kind, name) for name in ("r1", "r2", "r3") for kind in ("change-started", "change-ran")],
        *[("change", name) for name in ("r1", "r2", "r3")],
    ]
    assert (team.tables, team.recorded) == (["t1", "t2", "t3"], ["r3"])


@pytest.mark.parametrize("failure", ["op.execute('SELECT 1 / 0')", "1 / 0"])
def test_a_failure_undoes_all_revisions_of_one_transaction(team, one_transaction, failure):
    team.chain(4, r3=failure)
    result = team.apply()
    assert outcomes(result) == {
        "r1": Outcome.PLANNED,
        "r2": Outcome.PLANNED,
        "r3": Outcome.FAILED,
        "r4": Outcome.PLANNED,
    }
    refused = result.stores[0].exception
    assert isinstance(refused, ChangeFailed)
    assert "r1, r2 ran in the same transaction, so they are undone as well" in refused.message
    assert (team.tables, team.recorded) == ([], [])


def test_a_busy_revision_lets_all_of_one_transaction_run_again(team, one_transaction):
    calls = team.folder / "calls"
    calls.touch()
    note = noted(calls)
    busy = (
        f"{note}\n"
        "if calls.read_text().count('r2') < 2:\n"
        "    op.execute(\"DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$\")"
    )
    team.chain(2, r1=note, r2=busy)
    assert team.apply().ok
    assert calls.read_text().split() == ["r1", "r2", "r1", "r2"]
    assert (team.tables, team.recorded) == (["t1", "t2"], ["r2"])


def test_a_revision_that_commits_keeps_those_before_it_in_one_transaction(team, one_transaction):
    commits = "with op.get_context().autocommit_block():\n    op.execute('SELECT 1')"
    team.chain(4, r2=commits, r4="1 / 0")
    result = team.apply()
    assert outcomes(result) == {
        "r1": Outcome.CHANGED,
        "r2": Outcome.CHANGED,
        "r3": Outcome.PLANNED,
        "r4": Outcome.FAILED,
    }
    assert "r3 ran in the same transaction, so it is undone" in result.stores[0].error.message
    assert (team.tables, team.recorded) == (["t1", "t2"], ["r2"])


@pytest.mark.parametrize("end", ["op.get_bind().commit()", "op.execute('COMMIT')"])
def test_what_a_failed_revision_has_committed_before_it_is_done(team, one_transaction, end):
    team.chain(3, r3=f"{end}\n1 / 0")
    result = team.apply()
    assert outcomes(result) == {
        "r1": Outcome.CHANGED,
        "r2": Outcome.CHANGED,
        "r3": Outcome.FAILED,
    }
    assert "undone as well" not in result.stores[0].error.message
    assert team.recorded == ["r2"]


def test_an_apply_imports_no_models(team):
    team.chain(1)
    assert team.apply(models="no_such_module.models").ok


@pytest.fixture
def counted(monkeypatch):
    """How often files are read, environments are run, and the server is asked."""
    counts = Counter()

    def count(place, name, key):
        act = getattr(place, name)

        def counting(*args, **options):
            counts[key] += 1
            return act(*args, **options)

        monkeypatch.setattr(place, name, counting)

    from_config = ScriptDirectory.from_config
    monkeypatch.setattr(
        ScriptDirectory,
        "from_config",
        staticmethod(lambda config: counts.update(folders=1) or from_config(config)),
    )
    read = Chain.read
    monkeypatch.setattr(
        Chain, "read", staticmethod(lambda folder: counts.update(chains=1) or read(folder))
    )
    count(ScriptDirectory, "run_env", "environments")
    count(pyfiles, "load_module_py", "modules")
    count(psycopg.Connection, "wait", "questions")
    count(WorkingConnection, "run", "questions")
    return counts


def test_the_work_of_an_apply_grows_with_its_revisions_and_no_faster(team, counted):
    seen = []
    for count in (10, 20, 30):
        for path in team.migrations.glob("*.py"):
            path.unlink()
        team.chain(count)
        if seen:
            with psycopg.connect(team.url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
        counted.clear()
        assert team.apply().ok
        seen.append(Counter(counted))
    second, third = seen[1:]
    assert (third["folders"], third["environments"], third["chains"]) == (1, 1, 1)
    assert third["modules"] - second["modules"] == 10
    grown = third["questions"] - second["questions"]
    assert grown <= 10 * 10
    counted.clear()
    assert team.apply().ok
    assert (counted["folders"], counted["environments"]) == (0, 0)
    assert counted["questions"] < grown

"""An index that is built while others write: it waits, and what a killed build has left is known.

Each fact holds for a folder of ours, and for a team's `env.py` with its driver.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import HalfDone, StoreBusy, StoreConflict
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.concurrent_index import ConcurrentStatement
from is_db_bootstrap.stores.postgres.half_done import WorkingConnection
from team_project import OPTIONS, TeamProject

pytestmark = pytest.mark.postgres

LOCK_TIMEOUT_S = 0.3
TABLE = (
    'op.create_table("Account", sa.Column("cents", sa.Integer))\n'
    'op.execute("""INSERT INTO "Account" SELECT n % 3 FROM generate_series(1, 9) AS n""")'
)
BUILD = 'CREATE {}INDEX CONCURRENTLY IF NOT EXISTS "By cents" ON "Account" (cents)'
INDEXES = (
    "SELECT indexrelid::regclass::text, indisvalid FROM pg_index "
    """WHERE indrelid = '"Account"'::regclass"""
)


def outside(*statements):
    """A revision whose statements are outside of its transaction."""
    lines = [f"    op.execute('''{statement}''')" for statement in statements]
    return "\n".join(["with op.get_context().autocommit_block():", *lines])


class Shop:
    """A project whose revisions are run by us, or by the team's driver, and its database."""

    def __init__(self, folder, url, runner):
        self.team = TeamProject(folder, url, "psycopg" if runner == "ours" else runner)
        self.team.env(f"{OPTIONS}, transaction_per_migration=True")
        self.team.revision("a1", None, TABLE)
        self.url = url
        self.runner = runner

    def apply(self, *retry_changes):
        """The error of a run; None when it has none."""
        own = Blueprint("shop", "accounts", migrations=self.team.folder / "db/versions")
        blueprint = own if self.runner == "ours" else load_blueprint(self.team.toml)
        timing = Timing(lock_timeout_s=LOCK_TIMEOUT_S)
        store = PostgreSQLBootstrapper(self.url, blueprint, timing=timing)
        run = BootstrapOrchestrator(
            [store],
            blueprint="shop",
            retry=RetryPolicy(busy_attempts=1),
            retry_changes=retry_changes,
        )
        return run.run().stores[0].exception

    def ask(self, query):
        with psycopg.connect(self.url, autocommit=True) as session:
            found = session.execute(query)
            return found.fetchall() if found.description else []

    @property
    def indexes(self):
        return self.ask(INDEXES)

    @contextmanager
    def older_transaction(self):
        """While another session has written to the table and not committed. Gives that session."""
        with psycopg.connect(self.url) as session:
            session.execute('UPDATE "Account" SET cents = cents')
            yield session
            session.rollback()

    def builder(self):
        """The session that builds an index, once there is one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.ask(
                "SELECT pid FROM pg_stat_progress_create_index JOIN pg_locks USING (pid) "
                "WHERE NOT granted"
            )
            if found:
                return found[0][0]
            time.sleep(0.02)
        raise AssertionError("nobody builds an index")


@pytest.fixture(params=["ours", "psycopg2", "asyncpg"])
def shop(request, tmp_path, postgres_url, monkeypatch):
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    made = Shop(tmp_path, postgres_url, request.param)
    monkeypatch.setenv("SHOP_DATABASE", made.team.address)
    assert made.apply() is None
    return made


def applied_meanwhile(shop, act):
    """The error of a run, while whose build waits for an older transaction `act` is called."""
    found = []
    with shop.older_transaction():
        run = threading.Thread(target=lambda: found.append(shop.apply()))
        run.start()
        act(shop.builder())
    run.join(60)
    return found[0]


def test_a_build_waits_for_an_older_transaction_beyond_the_lock_timeout(shop):
    shop.team.revision("b2", "a1", outside(BUILD.format("")))
    error = applied_meanwhile(shop, lambda _: time.sleep(3 * LOCK_TIMEOUT_S))
    assert error is None
    assert shop.indexes == [('"By cents"', True)]


def test_what_an_exception_leaves_running_holds_nothing_up(postgres_url):
    """Such as the handler of a signal raises: libpq would wait for the end of the statement."""
    address = f"{postgres_url.rpartition('/')[0]}/postgres"
    with WorkingConnection.connect(address, autocommit=True) as connection:
        connection.pgconn.send_query(b"SELECT pg_sleep(600)")
        with pytest.raises(psycopg.OperationalError, match="another statement runs"):
            connection.ask("SELECT 1")
        connection.close()


def test_other_statements_wait_for_a_lock_as_long_as_the_lock_timeout_says(shop):
    """Also in the block in which an index was built: the limit is there again."""
    alter = 'ALTER TABLE "Account" ADD note text'
    shop.team.revision("b2", "a1", outside(BUILD.format(""), alter))
    with psycopg.connect(shop.url) as reader:
        reader.execute('SELECT count(*) FROM "Account"')
        error = shop.apply()
    assert isinstance(error, HalfDone)
    assert "55P03" in error.message
    assert shop.indexes == [('"By cents"', True)]


def test_what_a_build_that_was_ended_has_left_is_dropped_and_built_again(shop):
    shop.team.revision("b2", "a1", outside(BUILD.format("")))
    end = "SELECT pg_terminate_backend({}, 5000)"
    error = applied_meanwhile(shop, lambda pid: shop.ask(end.format(pid)))
    assert isinstance(error, HalfDone), error
    assert 'has left index public."By cents" INVALID' in error.message
    assert "rolled back" not in error.message
    assert shop.indexes == [('"By cents"', False)]
    assert isinstance(shop.apply(), StoreConflict)
    assert shop.apply("b2") is None
    assert shop.indexes == [('"By cents"', True)]


def test_an_invalid_index_that_is_not_known_to_be_ours_is_named_and_stays(shop):
    shop.ask('CREATE INDEX "By cents" ON "Account" (cents)')
    shop.ask("""UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"By cents"'::regclass""")
    shop.team.revision("b2", "a1", outside(BUILD.format("")))
    error = shop.apply()
    assert isinstance(error, StoreConflict)
    assert not isinstance(error, HalfDone)
    assert 'Index public."By cents" is there and INVALID' in error.message
    assert shop.indexes == [('"By cents"', False)]
    shop.ask('DROP INDEX "By cents"')
    assert shop.apply() is None
    assert shop.indexes == [('"By cents"', True)]


def test_an_index_that_another_session_builds_just_now_is_waited_for(shop):
    shop.team.revision("b2", "a1", outside(BUILD.format("")))
    errors = []
    with shop.older_transaction():
        other = threading.Thread(target=lambda: shop.ask(BUILD.format("")))
        other.start()
        shop.builder()
        errors.append(shop.apply())
    other.join(60)
    assert isinstance(errors[0], StoreBusy), errors
    assert "is building index" in errors[0].message
    assert shop.apply() is None


def test_what_a_rebuild_has_left_is_dropped_by_the_retry(shop):
    shop.team.revision("b2", "a1", outside(BUILD.format("")))
    assert shop.apply() is None
    shop.team.revision("c3", "b2", outside('REINDEX INDEX CONCURRENTLY "By cents"'))
    end = "SELECT pg_terminate_backend({}, 5000)"
    error = applied_meanwhile(shop, lambda pid: shop.ask(end.format(pid)))
    assert isinstance(error, HalfDone), error
    assert sorted(shop.indexes) == [('"By cents"', True), ('"By cents_ccnew"', False)]
    assert shop.apply("c3") is None
    assert shop.indexes == [('"By cents"', True)]


BUILT = {
    "create index concurrently i on t (a)": ("i", "t", ""),
    '-- why\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "I i" ON ONLY s.t USING gin (a)': (
        '"I i"',
        "s.t",
        "",
    ),
    "/* a */ CREATE INDEX CONCURRENTLY ON t (a)": ("", "t", ""),
    "REINDEX (VERBOSE) INDEX CONCURRENTLY s.i": ("", "", "s.i"),
    "REINDEX TABLE CONCURRENTLY t": ("", "", "t"),
    "REINDEX SCHEMA CONCURRENTLY s": ("", "", ""),
    "DROP INDEX CONCURRENTLY IF EXISTS i": ("", "", ""),
    "ALTER TABLE a DETACH PARTITION b CONCURRENTLY": ("", "", ""),
}


@pytest.mark.parametrize("text", BUILT)
def test_a_concurrent_statement_is_known_by_its_beginning(text):
    found = ConcurrentStatement.of(text)
    assert found is not None
    assert (found.index, found.table, found.rebuilt) == BUILT[text]


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX i ON t (a) -- not CONCURRENTLY",
        "ALTER TABLE t ADD c text DEFAULT 'CREATE INDEX CONCURRENTLY i ON t (a)'",
        "SELECT 1; CREATE INDEX CONCURRENTLY i ON t (a)",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
    ],
)
def test_any_other_statement_keeps_its_lock_timeout(text):
    assert ConcurrentStatement.of(text) is None

"""A pooler that gives sessions to other clients is recognised before anything is set on one.

A pool in session mode works.
"""

import json
import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import text

from commands import command, run_here
from is_db_bootstrap.access import Database
from is_db_bootstrap.blueprint import PoolProfile
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.blueprints.helpdesk import database as helpdesk
from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres import pooler
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import (
    connect,
    pool_mode,
    session_settings,
    statement_limit,
)
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing
from is_db_bootstrap.testing.postgres import PostgresIsolation
from pgbouncer import Poolers
from team_project import TeamProject

pytestmark = pytest.mark.postgres

MODES = ("transaction", "statement")
SHARED = [(mode, fifo) for mode in MODES for fifo in (0, 1)]
#: What a session of ours would have set, and what another client would then meet.
WATCHED = (
    "search_path",
    "TimeZone",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "client_connection_check_interval",
    "row_security",
)
COMMANDS = {
    "apply": ["apply", "--only", "postgres"],
    "plan": ["plan", "--only", "postgres"],
    "verify": ["verify", "--only", "postgres"],
    "status": ["status", "--only", "postgres"],
    "wait": ["wait", "--only", "postgres", "--timeout", "5"],
    "selftest": ["selftest", "--only", "postgres"],
    "setup": ["setup", "--yes", "--only", "postgres"],
    "init": ["migrate", "init"],
    "upgrade": ["migrate", "upgrade"],
    "downgrade": ["migrate", "downgrade", "--yes"],
    "current": ["migrate", "current"],
    "migrate check": ["migrate", "check"],
    "stamp": ["migrate", "stamp", "head", "--yes"],
    "refresh": ["revision", "--refresh"],
}


@pytest.fixture
def pools():
    poolers = Poolers()
    yield poolers
    poolers.close()


@pytest.fixture
def url(migrated):
    return StoreUrl.parse("postgres", migrated("context_service"))


class Watched:
    """The sessions of a pool of two, as any other client of the pool meets them."""

    def __init__(self, pooled, direct):
        self._pooled = pooled.reveal(scheme="postgresql")
        self._direct = direct.reveal(scheme="postgresql")
        with psycopg.connect(self._direct) as plain:
            self._plain = self._settings(plain)

    @staticmethod
    def _settings(connection):
        query = "SELECT name, setting FROM pg_settings WHERE lower(name) = ANY(%s)"
        return dict(connection.execute(query, [[name.lower() for name in WATCHED]]).fetchall())

    def assert_untouched(self, *, transactions=True):
        """Each session of the pool is as a new one: its settings, no lock, nothing prepared."""
        opened = [
            psycopg.connect(self._pooled, autocommit=not transactions, prepare_threshold=None)
            for _ in range(2)
        ]
        try:  # each holds a session of its own by its open transaction
            assert [self._settings(each) for each in opened] == [self._plain] * 2
            for each in opened:
                assert (
                    each.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0] == 0
                )
        finally:
            for each in opened:
                each.close()
        with psycopg.connect(self._direct) as plain:
            assert (
                plain.execute(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                ).fetchone()[0]
                == 0
            )


@pytest.mark.parametrize("mode", MODES)
def test_every_command_refuses_a_pooler_that_shares_sessions_and_sets_nothing_there(
    pools, url, mode, tmp_path
):
    pooled = pools.start(url, mode, default_pool_size=2)
    others = Watched(pooled, url)
    others.assert_untouched(transactions=mode == "transaction")
    (tmp_path / "targets.jsonl").write_text(
        json.dumps({"name": "a", "postgres": {"database": url.database}}) + "\n"
    )
    fleet = ["apply", "--only", "postgres", "--targets", str(tmp_path / "targets.jsonl")]
    tried = (
        {**COMMANDS, "fleet": fleet}
        if mode == "transaction"
        else {"apply": COMMANDS["apply"], "fleet": fleet}
    )
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": pooled.reveal()}
    for name, words in tried.items():
        code, out, err = run_here([*words, "-b", "context_service"], tmp_path, environ)
        shown = out + err
        assert code == 2, f"{name}: {shown}"
        assert f"is a connection pooler in {mode} mode" in shown, f"{name}: {shown}"
        assert pooled.hosts in shown, name
        assert "Give the server's own address" in shown, name
        others.assert_untouched(transactions=mode == "transaction")


@pytest.mark.parametrize(("mode", "fifo"), SHARED)
def test_a_shared_session_is_recognised_whatever_order_the_pool_gives_them_in(
    pools, url, mode, fifo
):
    pooled = pools.start(url, mode, server_round_robin=fifo, default_pool_size=4)
    for _ in range(5):
        assert pool_mode(pooled, 5) == mode


#: Looks at each kind of pool. One in 24 was wrong when the answer was a probable one.
LOOKS = 30


@contextmanager
def busy(pooled, clients):
    """Clients that use the pool without a pause."""
    ended = threading.Event()

    def work():
        with psycopg.connect(
            pooled.reveal(scheme="postgresql"), autocommit=True, prepare_threshold=None
        ) as connection:
            while not ended.is_set():
                connection.execute("SELECT pg_sleep(random() / 1000)")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("fifo", [0, 1])
def test_a_shared_session_is_recognised_while_other_clients_use_the_pool(pools, url, fifo):
    pooled = pools.start(url, "transaction", server_round_robin=fifo, default_pool_size=6)
    with busy(pooled, 5):
        found = [pool_mode(pooled, 60) for _ in range(LOOKS)]
    assert found == [pooler.Mode.TRANSACTION] * LOOKS


def test_a_session_pool_that_other_clients_use_is_no_shared_one(pools, url, monkeypatch):
    pooled = pools.start(url, "session", default_pool_size=7)
    monkeypatch.setattr(pooler, "_KNOWN_S", 0.0)
    with busy(pooled, 5):
        found = [pool_mode(pooled, 60) for _ in range(LOOKS)]
    assert found == [pooler.Mode.SESSION] * LOOKS


def test_a_mode_that_nothing_has_proven_is_not_guessed(pools, url):
    """Each time we look away, somebody else has used our session, as on a busy pool."""
    pooled = pools.start(url, "session", default_pool_size=4).reveal(scheme="postgresql")

    class Meddled:
        """A connection whose session another client uses too."""

        def __init__(self, connection):
            self._connection = connection

        def __getattr__(self, name):
            return getattr(self._connection, name)

        @property
        def pgconn(self):
            self._connection.pgconn.exec_(b"SELECT 1")
            return self._connection.pgconn

    def second():
        return psycopg.connect(pooled, autocommit=True)

    with (
        second() as first,
        pytest.raises(pooler.UndecidedError, match=r"nothing showed whether it shares sessions"),
    ):
        pooler.mode(Meddled(first), second, ("nobody else's",), 0.2)


def test_a_database_that_a_pooler_does_not_list_is_told_as_that(pools, url):
    only_one = pools.start(url, "session", only=url.database)
    assert _apply(only_one)[0] == 0
    code, shown = _apply(replace(only_one, database="other"))
    assert code == 2
    assert "is a connection pooler that does not list the database other." in shown
    missing = pools.start(replace(url, database="missing"), "session", only="missing")
    code, shown = _apply(missing)
    assert code == 2
    assert "Database missing does not exist, and we cannot create it: the pooler at" in shown
    assert "does not list the database postgres." in shown


def test_a_pooler_that_holds_us_for_a_missing_database_is_told_with_that_cause(pools, url):
    pooled = pools.start(replace(url, database="absent"), "session")
    with pytest.raises(DatabaseMissing):
        connect(pooled, 5)
    with pytest.raises(StoreUnavailable, match="just said that the database absent does not exist"):
        connect(pooled, 2)


def test_a_first_run_creates_its_database_behind_a_pooler_that_holds_us_for_it(pools, url):
    """It asks another database whether its own is there, so it waits only once, when it is."""
    pooled = pools.start(url, "session", server_login_retry=1)
    code, shown = _apply(pooled)
    assert code == 0, shown


def _apply(pooled):
    """Exit code and output of `apply`."""
    words = ("apply", "--only", "postgres", "-b", "context_service")
    code, out, err = command(*words, environ={"POSTGRES_URL": pooled.reveal()})
    return code, "\n".join([*out, err])


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_limit_that_stays_in_env_py_behind_a_pooler_is_named_as_the_cause(
    pools, postgres_url, tmp_path, monkeypatch, driver
):
    direct = StoreUrl.parse("postgres", postgres_url)
    pooled = pools.start(direct, "transaction")
    team = TeamProject(tmp_path, postgres_url, driver)
    monkeypatch.setenv("SHOP_DATABASE", pooled.reveal(scheme=f"postgresql+{driver}"))
    team.revision("a1", None, 'op.execute("SELECT pg_sleep(60)")')
    with psycopg.connect(direct.reveal(database="postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{direct.database}"')
        connection.execute(f"""ALTER DATABASE "{direct.database}" SET statement_timeout = '1s'""")
    words = ("apply", "--only", "postgres", "-b", str(team.toml))
    code, out, err = command(*words, environ={"POSTGRES_URL": postgres_url})
    said = "\n".join([*out, err])
    assert code == 1, said
    assert "The connection of env.py leads through a pooler" in said
    assert "such as statement_timeout, were not lifted" in said


def test_a_pool_of_one_session_is_recognised_as_shared(pools, url):
    pooled = pools.start(url, "transaction", default_pool_size=1)
    began = time.monotonic()
    assert pool_mode(pooled, 30) is pooler.Mode.TRANSACTION
    assert time.monotonic() - began < 5


def test_a_pool_without_a_second_session_is_told_and_not_waited_for(pools, url):
    pooled = pools.start(url, "session", default_pool_size=1)
    with pytest.raises(StoreUnavailable, match=r"no second session for us within 2 s"):
        connect(pooled, 2)


def test_the_mode_is_asked_once_so_that_a_small_session_pool_suffices(pools, url):
    """A run has three sessions: one that looks, one that locks, one that works."""
    pooled = pools.start(url, "session", default_pool_size=3)
    code, out, err = command(
        "migrate",
        "downgrade",
        "--yes",
        "-b",
        "context_service",
        environ={"POSTGRES_URL": pooled.reveal()},
    )
    assert (code, out) == (0, ["ctx_0003"]), err


def test_every_command_works_through_a_pool_in_session_mode(pools, url):
    pooled = pools.start(url, "session", default_pool_size=8)
    for name, words in COMMANDS.items():
        if name not in {"apply", "verify", "selftest", "upgrade", "stamp"}:
            continue
        code, out, err = command(
            *words, "-b", "context_service", environ={"POSTGRES_URL": pooled.reveal()}
        )
        assert code == 0, f"{name}: {out} {err}"


def test_a_team_s_env_py_applies_through_a_pool_in_session_mode(
    pools, postgres_url, tmp_path, monkeypatch
):
    """The pooler greets with a process that the server does not have, so that is no lock's."""
    direct = StoreUrl.parse("postgres", postgres_url)
    with psycopg.connect(direct.reveal(database="postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{direct.database}"')
    pooled = pools.start(direct, "session", default_pool_size=8)
    team = TeamProject(tmp_path, postgres_url)
    monkeypatch.setenv("SHOP_DATABASE", pooled.reveal(scheme="postgresql+psycopg"))
    team.revision("a1", None, 'op.execute("CREATE TABLE a1 (id int)")')
    words = ("apply", "--only", "postgres", "-b", str(team.toml))
    code, out, err = command(*words, environ={"POSTGRES_URL": pooled.reveal()})
    assert code == 0, [*out, err]


@pytest.mark.parametrize("is_pooled", [False, True])
def test_a_pooler_hides_which_sessions_are_left(pools, url, is_pooled):
    address = pools.start(url, "session", default_pool_size=4) if is_pooled else url
    store = PostgreSQLBootstrapper(address, load_blueprint("context_service"))
    try:
        store.ping(5)
        assert not store.plan().changes
        left = store.disconnect()
    finally:
        store.close()
    assert ("it is not known whether the server has ended" in left) == is_pooled, left
    assert bool(left) == is_pooled


def test_a_session_through_a_session_pool_has_its_settings(pools, url):
    pooled = pools.start(url, "session")
    settings, limits = session_settings("context"), statement_limit(5)
    with connect(pooled, 5, settings=settings, limits=limits) as connection:
        assert connection.execute("SHOW search_path").fetchone()[0] == '"context", public'
        # A pooler may hand the session on with its settings.
        assert connection.execute("SHOW statement_timeout").fetchone()[0] == "0"


def test_a_fixture_refuses_a_pooler_that_shares_sessions(pools, url):
    pooled = pools.start(url, "transaction", default_pool_size=2)
    blueprint = load_blueprint("context_service")
    with pytest.raises(ConfigurationError, match="connection pooler in transaction mode"):
        PostgresIsolation(
            replace(pooled, database="postgres"), blueprint, Settings({"postgres": pooled})
        )
    Watched(pooled, url).assert_untouched()


# --- applications


async def test_access_gives_its_settings_to_each_transaction_where_sessions_are_shared(pools, url):
    pooled = pools.start(url, "transaction", default_pool_size=2)
    others = Watched(pooled, url)
    profile = PoolProfile(min_size=2, max_size=3, command_timeout=7.0, prepare_threshold=1)
    async with Database(pooled, profile=profile, schema="other") as database:
        for _ in range(4):
            others.assert_untouched()
            assert await database.fetchval("SHOW search_path") == '"other", public'
            assert (
                await database.fetchval("SELECT current_setting($1)", "statement_timeout") == "7s"
            )
            assert (
                await database.fetchval("SELECT current_setting(:name)", name="TimeZone") == "UTC"
            )
            async with database.transaction() as session:
                assert (
                    await session.execute(text("SHOW search_path"))
                ).scalar() == '"other", public'
            others.assert_untouched()
        assert (await database.check()).ok
    others.assert_untouched()


async def test_access_finds_the_revision_through_a_shared_session(pools, url):
    pooled = pools.start(url, "transaction", default_pool_size=2)
    database = Database(
        pooled, profile=PoolProfile(min_size=1, max_size=1), blueprint="context_service"
    )
    assert (await database.check()).revision == "ctx_0003"


async def test_access_refuses_a_pooler_in_statement_mode(pools, url):
    database = Database(pools.start(url, "statement"), profile=PoolProfile(min_size=1, max_size=1))
    with pytest.raises(ConfigurationError, match="in statement mode"):
        await database.open()


def test_the_helpdesk_refuses_a_pooler_that_shares_sessions(pools, url):
    pooled = pools.start(url, "transaction", default_pool_size=2)
    others = Watched(pooled, url)
    engine = helpdesk.init_database(
        helpdesk.DatabaseConfig.from_env({"DATABASE_URL": pooled.reveal()})
    )
    try:
        with pytest.raises(ConfigurationError, match="in transaction mode"):
            engine.connect()
    finally:
        with suppress(Exception):
            helpdesk.reset_database()
    others.assert_untouched()

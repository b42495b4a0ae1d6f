"""A run that somebody holds up on PostgreSQL ends within its time, and says who that is."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from adapters.shop import SHOP
from commands import command
from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from mute import LOGGED_IN, MuteProxy, always
from pgbouncer import Poolers

pytestmark = pytest.mark.postgres

LIMIT_S = 2
#: What a slow machine may take besides, seconds.
SLOW_S = 5
BLOCKER = "a migration by hand"
VERSION_TABLE = (
    "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL"
    " CONSTRAINT alembic_version_pkc PRIMARY KEY)"
)


@pytest.fixture
def shop(postgres_url):
    """The address of a shop that is at its head, with its demo rows."""
    store = PostgreSQLBootstrapper(postgres_url, SHOP, seed=True)
    assert BootstrapOrchestrator([store]).run().ok
    return StoreUrl.parse("postgres", postgres_url)


def bounded(url, mode, *, retry=None, **timing):
    """A run within `LIMIT_S` a phase.

    Returns its result, its events, and the last phase that it entered.
    """
    events = []
    store = PostgreSQLBootstrapper(url, SHOP, timing=Timing(**timing), seed=True)
    engine = BootstrapOrchestrator(
        [store],
        retry=retry or RetryPolicy(),
        lock=LockPolicy(phase_timeout_s=LIMIT_S),
        observers=[events.append],
    )
    result = engine.run(mode)
    last = [event for event in events if event.kind == "phase"][-1]
    assert result.duration_s - last.elapsed_s < LIMIT_S + 2 + SLOW_S
    return result, events, last.phase


@contextmanager
def locked(url, table):
    where = url.reveal(scheme="postgresql")
    with psycopg.connect(where, application_name=BLOCKER) as holder:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield holder.info.backend_pid


def sessions_at_work(url):
    with psycopg.connect(url.reveal(scheme="postgresql")) as client:
        return client.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
            "AND state = 'active' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchall()


@pytest.mark.parametrize(
    ("mode", "table"),
    [
        (Mode.PLAN, "alembic_version"),
        (Mode.STATUS, "alembic_version"),
        (Mode.APPLY, "alembic_version"),  # with nothing to do
        (Mode.VERIFY, "alembic_version"),
        # A plan looks at no table but that one; a verify compares all that are declared.
        (Mode.APPLY, "orders"),
        (Mode.VERIFY, "orders"),
    ],
)
def test_a_look_that_meets_a_locked_table_ends_and_names_who_locked_it(shop, table, mode):
    with locked(shop, table) as pid:
        result, events, phase = bounded(shop, mode)
        assert sessions_at_work(shop) == []
    error = result.stores[0].error
    assert (result.exit_code, result.stores[0].exception.store) == (4, "postgres")
    assert f"{phase.value} did not end within {LIMIT_S} s." in error.message
    assert f"Session {pid} (user " in error.message
    assert f"{BLOCKER}, idle in transaction, since " in error.message
    assert f"holds a lock on {table}." in error.message
    assert "--phase-timeout" in error.hint
    told = [event for event in events if event.kind == "still-waiting"]
    began_s = next(event.elapsed_s for event in events if event.phase is phase)
    assert f"Session {pid}" in told[0].message
    assert told[0].elapsed_s - began_s < 2 + SLOW_S


def test_a_server_ends_a_look_by_itself_where_nobody_else_does(shop):
    """As after a kill of the process that looks."""
    store = PostgreSQLBootstrapper(shop, SHOP, timing=Timing(phase_timeout_s=0.1))
    store.ping(SLOW_S)
    with locked(shop, "alembic_version"), pytest.raises(StoreUnavailable, match="timeout"):
        store.plan()
    lock = store.try_lock("a run")
    limit = "SHOW statement_timeout"
    assert store.reader().execute(limit).fetchone() == ("0",)
    store.reader().close()
    assert store.reader().execute(limit).fetchone() == ("0",)
    assert lock.release()
    store.close()


def test_a_wait_is_told_on_stderr_also_with_json(shop):
    environ = {"POSTGRES_URL": shop.reveal(), "PYTHONPATH": str(Path(__file__).parent)}
    blueprint = ["--blueprint", "adapters.shop:SHOP"]
    with locked(shop, "alembic_version") as pid:
        code, out, told = command(
            "plan",
            *blueprint,
            "--only",
            "postgres",
            "-o",
            "json",
            "--phase-timeout",
            "2",
            environ=environ,
        )
    assert code == 4
    assert json.loads("\n".join(out))["stores"][0]["error"]["message"]
    first, *_, last = told.splitlines()
    assert "so far: " in first
    assert f"Session {pid}" in first
    assert "plan did not end within 2 s" in last


def test_a_run_that_has_the_lock_gives_it_up_when_its_plan_is_late(postgres_url):
    """The table is locked between the plan and the plan under the lock."""
    held = []
    store = PostgreSQLBootstrapper(postgres_url, SHOP)
    url = StoreUrl.parse("postgres", postgres_url)

    def lock_before_second_plan(event):
        if event.kind == "phase" and event.phase is Phase.REPLAN:
            with psycopg.connect(url.reveal(scheme="postgresql"), autocommit=True) as client:
                client.execute(VERSION_TABLE)
            held.append(locked(url, "alembic_version"))
            held[0].__enter__()

    engine = BootstrapOrchestrator(
        [store], lock=LockPolicy(phase_timeout_s=LIMIT_S), observers=[lock_before_second_plan]
    )
    try:
        result = engine.run()
    finally:
        held[0].__exit__(None, None, None)
    assert "plan again did not end within 2 s." in result.stores[0].error.message
    with psycopg.connect(url.reveal(scheme="postgresql")) as client:
        left = client.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()
    assert left == (0,)


def test_four_mute_hosts_end_the_wait(shop):
    proxies = [MuteProxy(shop.port(5432), until=always) for _ in range(4)]
    hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    try:
        result, events, phase = bounded(
            replace(shop, hosts=hosts), Mode.WAIT, retry=RetryPolicy(deadline_s=LIMIT_S)
        )
    finally:
        for proxy in proxies:
            proxy.close()
    assert (result.exit_code, phase) == (4, Phase.WAIT)
    error = result.stores[0].error
    assert "wait did not end within 2 s." in error.message
    assert hosts in error.message
    assert "--timeout" in error.hint
    assert [event for event in events if event.kind == "still-waiting"]


def test_a_server_that_is_mute_after_the_login_is_told_as_one(shop):
    proxy = MuteProxy(shop.port(5432), until=lambda answered: LOGGED_IN in answered)
    try:
        result, events, _ = bounded(
            replace(shop, hosts=f"127.0.0.1:{proxy.port}"),
            Mode.WAIT,
            retry=RetryPolicy(deadline_s=LIMIT_S),
        )
    finally:
        proxy.close()
    assert "took the login and has not answered since" in result.stores[0].error.message
    told = next(event for event in events if event.kind == "still-waiting")
    assert "took the login and has not answered since" in told.message


def test_a_session_pool_that_is_full_is_told_as_one_that_may_be(shop):
    pools = Poolers()
    try:
        pooled = pools.start(shop, "session", default_pool_size=1, query_wait_timeout=60)
        with psycopg.connect(pooled.reveal(scheme="postgresql")) as other:
            other.execute("SELECT 1")
            result, events, _ = bounded(pooled, Mode.WAIT, retry=RetryPolicy(deadline_s=LIMIT_S))
    finally:
        pools.close()
    assert result.exit_code == 4
    assert "connection pooler, its pool may be full" in result.stores[0].error.message
    assert any("pool may be full" in event.message for event in events)


def test_a_change_that_waits_for_a_lock_names_who_holds_it(postgres_url):
    store = PostgreSQLBootstrapper(postgres_url, SHOP, timing=Timing(lock_timeout_s=3))
    url = StoreUrl.parse("postgres", postgres_url)
    events, freed = [], threading.Event()
    holder = []

    def observe(event):
        events.append(event)
        if (event.kind, event.phase) == ("phase", Phase.APPLY):
            with psycopg.connect(url.reveal(scheme="postgresql"), autocommit=True) as client:
                client.execute(VERSION_TABLE)
            holder.append(locked(url, "alembic_version"))
            holder[0].__enter__()
        if event.kind == "still-waiting" and not freed.is_set():
            freed.set()
            holder[0].__exit__(None, None, None)

    BootstrapOrchestrator([store], observers=[observe]).run()
    assert freed.is_set()
    told = next(event for event in events if event.kind == "still-waiting")
    assert (told.phase, BLOCKER in told.message) == (Phase.APPLY, True)

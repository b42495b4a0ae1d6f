"""A run that died costs the next one seconds, and not its lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import neo4j
import pytest
import redis
from neo4j import exceptions as raised

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine.store import Anchor
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.results import LockHolder
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.lock import LABEL
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

SOON_S = 60
TIMING = Timing(connect_timeout_s=SOON_S)
MINE = Blueprint("mine", "test")
FIRST = Anchor("postgresql 1 00000001 5 7", "100 yesterday")
NEXT = replace(FIRST, session="200 today")
#: Anchors of a next run from which nothing follows for a run that recorded `FIRST`.
UNPROVEN = [None, FIRST, replace(NEXT, lock="postgresql 1 00000002 5 7")]
UNPROVEN_IDS = ["no anchor", "the same session", "another timeline"]


def wait_until(true) -> None:
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lock_soon(store, owner):
    """The lock, which is tried for as the engine does."""
    taken = []

    def is_taken() -> bool:
        taken[:] = [store.try_lock(owner)]
        return not isinstance(taken[0], LockHolder)

    wait_until(is_taken)
    return taken[0]


@pytest.fixture
def query(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    auth = (url.username, url.password)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=auth, notifications_min_severity="OFF"
    ) as driver:
        yield lambda text: [dict(r) for r in driver.execute_query(text).records]


@pytest.fixture
def graph(neo4j_url):
    """Opens stores on one Neo4j, each of which knows its anchor."""
    opened = []

    def build(anchor: Anchor | None) -> Neo4jBootstrapper:
        made = Neo4jBootstrapper(neo4j_url, MINE, timing=TIMING)
        opened.append(made)
        made.ping(SOON_S)
        made.know_anchor(anchor)
        return made

    yield build
    for each in opened:
        each.close()


# --- the anchor


@pytest.mark.postgres
def test_the_anchor_is_the_same_lock_in_another_session_for_each_run(migrated):
    url = migrated("novel_genesis")
    blueprint = replace(MINE, name="novel_genesis", migrations=files.migrations("novel_genesis"))

    def anchor_of(**options) -> Anchor:
        store = PostgreSQLBootstrapper(url, blueprint, timing=TIMING, **options)
        lock = store.try_lock("a run")
        anchor = store.anchor()
        assert lock.release()
        store.close()
        assert anchor is not None
        return anchor

    one, two, other_schema = anchor_of(), anchor_of(), anchor_of(schema="other")
    assert one.lock == two.lock
    assert one.session != two.session
    assert other_schema.lock != one.lock


# --- Neo4j


@pytest.mark.neo4j
@pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
def test_neo4j_takes_the_lease_of_a_run_that_lost_its_anchor_and_ends_what_is_left_of_it(
    graph, query
):
    first, following = graph(FIRST), graph(NEXT)
    lost = first.try_lock("the first run")
    with first._database.session() as session:
        transaction = session.begin_transaction(metadata=first._database.metadata)
        transaction.run("CREATE (:HalfDone)").consume()
        began = time.monotonic()
        lease = lock_soon(following, "the next run")
        assert time.monotonic() - began < TIMING.lease_s / 2
        with suppress(raised.Neo4jError, raised.DriverError):
            transaction.commit()  # the driver says nothing here, although the server has ended it
    assert query("MATCH (n:HalfDone) RETURN n") == []
    tag = first._database.tag
    agents = f"CALL dbms.listConnections() YIELD userAgent WHERE userAgent ENDS WITH '{tag}'"
    assert query(f"{agents} RETURN userAgent") == []
    assert lease.confirm()
    with suppress(BootstrapError):  # its connection was ended, so that it may not even ask
        assert not lost.confirm()
    assert query(f"MATCH (l:{LABEL}) RETURN l.owner AS owner") == [{"owner": "the next run"}]
    assert lease.release()


@pytest.mark.neo4j
@pytest.mark.parametrize("anchor", UNPROVEN, ids=UNPROVEN_IDS)
def test_neo4j_keeps_the_lease_of_a_run_that_did_not_provably_lose_its_anchor(graph, anchor):
    lease = graph(FIRST).try_lock("the first run")
    held = graph(anchor).try_lock("the next run")
    assert isinstance(held, LockHolder)
    assert held.who == "the first run"
    assert lease.confirm()


#: What a version without anchors sets when it takes a lapsed lease. Our properties stay.
OLDER = f"MATCH (l:{LABEL}) SET l.id = 'x', l.token = 'x', l.owner = 'an older version'"


@pytest.mark.neo4j
@pytest.mark.parametrize(
    "tampering",
    [OLDER, f"MATCH (l:{LABEL}) SET l.anchorUser = 'other', l.owner = 'another user'"],
    ids=["an older version", "another user"],
)
def test_neo4j_keeps_a_lease_whose_run_may_not_be_the_one_of_its_anchor(graph, query, tampering):
    graph(FIRST).try_lock("the first run")
    query(tampering)
    assert isinstance(graph(NEXT).try_lock("the next run"), LockHolder)


@pytest.mark.neo4j
def test_neo4j_waits_for_the_lease_where_what_is_left_cannot_be_ended(graph, query, monkeypatch):
    graph(FIRST).try_lock("the first run")
    following = graph(NEXT)
    monkeypatch.setattr(following._database, "end_runs", lambda _: False)
    held = following.try_lock("the next run")
    assert "of which something is left" in held.who
    query(f"MATCH (l:{LABEL}) SET l.until = datetime.realtime() - duration('PT1S')")
    assert not isinstance(following.try_lock("the next run"), LockHolder)


@pytest.mark.neo4j
def test_a_take_over_that_was_killed_is_taken_over_in_turn(graph, query, monkeypatch):
    first, killed = graph(FIRST), graph(NEXT)
    first.try_lock("the first run")
    monkeypatch.setattr(killed._database, "end_runs", lambda _: False)
    assert isinstance(killed.try_lock("the next run"), LockHolder)
    third = graph(replace(FIRST, session="300 tomorrow"))
    ended = []
    monkeypatch.setattr(third._database, "end_runs", lambda runs: ended.extend(runs) or True)
    assert not isinstance(third.try_lock("the third run"), LockHolder)
    assert ended == [first._database.tag, killed._database.tag]


# --- Redis


@pytest.fixture
def keys(redis_url):
    opened = []

    def build(anchor: Anchor | None) -> RedisBootstrapper:
        made = RedisBootstrapper(redis_url, MINE, timing=TIMING)
        opened.append(made)
        made.know_anchor(anchor)
        return made

    yield build
    for each in opened:
        each.close()


@pytest.mark.redis
def test_redis_takes_the_lease_of_a_run_that_lost_its_anchor(keys, redis_url):
    lost = keys(FIRST).try_lock("the first run")
    lease = keys(NEXT).try_lock("the next run")
    assert not isinstance(lease, LockHolder)
    assert not lost.confirm()
    assert not lost.release()
    assert lease.confirm()
    with redis.Redis.from_url(redis_url) as client:
        assert 0 < client.pttl("is-db-bootstrap:lock:mine") <= TIMING.lease_s * 1000
    assert lease.release()


@pytest.mark.redis
@pytest.mark.parametrize("anchor", UNPROVEN, ids=UNPROVEN_IDS)
def test_redis_keeps_the_lease_of_a_run_that_did_not_provably_lose_its_anchor(keys, anchor):
    lease = keys(FIRST).try_lock("the first run")
    held = keys(anchor).try_lock("the next run")
    assert isinstance(held, LockHolder)
    assert held.who == "the first run"
    assert lease.confirm()


# --- whole runs

#: One run over PostgreSQL, where nothing is pending, and Neo4j.
RUN = """
import sys
from pathlib import Path
from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

postgres, neo4j, folder, timeout = sys.argv[1:]
blueprint = Blueprint(
    "novel_genesis",
    "test",
    migrations=files.migrations("novel_genesis"),
    cypher=Path(folder),
)
timing = Timing(connect_timeout_s=60)
stores = [
    PostgreSQLBootstrapper(postgres, blueprint, timing=timing),
    Neo4jBootstrapper(neo4j, blueprint, timing=timing),
]
result = BootstrapOrchestrator(stores, retry=RetryPolicy(deadline_s=float(timeout))).run()
for store in result.stores:
    print(store.error or "", *store.notes, file=sys.stderr)
sys.exit(result.exit_code)
"""


@pytest.mark.neo4j
@pytest.mark.postgres
def test_a_killed_run_costs_seconds_and_a_stopped_one_keeps_its_locks(
    migrated, neo4j_url, query, tmp_path
):
    url = StoreUrl.parse("neo4j", neo4j_url)
    (tmp_path / "V1__rows.cypher").write_text(
        "CREATE (:Row {n: 1});\nMATCH (g:Gate) SET g.n = 1;\n"
    )
    query("CREATE (:Gate)")
    arguments = [sys.executable, "-c", RUN, migrated("novel_genesis"), neo4j_url, str(tmp_path)]

    def run(timeout_s: float) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*arguments, str(timeout_s)], check=False, capture_output=True, text=True, timeout=300
        )

    def is_blocked() -> bool:
        text = "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN status"
        return bool(query(text))

    auth = (url.username, url.password)
    with (
        neo4j.GraphDatabase.driver(f"bolt://{url.hosts}", auth=auth) as driver,
        driver.session() as session,
        session.begin_transaction() as gate,
    ):
        gate.run("MATCH (g:Gate) SET g.n = 0").consume()
        first = subprocess.Popen([*arguments, "60"], stderr=subprocess.DEVNULL)
        try:
            wait_until(is_blocked)
            os.kill(first.pid, signal.SIGSTOP)
            second = run(1)
        finally:
            first.kill()
            first.wait()
        gate.rollback()
    assert second.returncode == 7, second.stderr
    assert query(f"MATCH (l:{LABEL}) RETURN l.until > datetime.realtime() AS held") == [
        {"held": True}
    ]
    began = time.monotonic()
    third = run(TIMING.lease_s)
    took_s = time.monotonic() - began
    assert third.returncode == 0, third.stderr
    assert took_s < TIMING.lease_s / 2
    assert query("MATCH (r:Row) RETURN count(r) AS n") == [{"n": 1}]
    recorded = "MATCH (m:__Neo4jMigration {source: 'V1__rows.cypher'}) RETURN count(m) AS n"
    assert query(recorded) == [{"n": 1}]
    assert query(f"MATCH (l:{LABEL}) RETURN l") == []

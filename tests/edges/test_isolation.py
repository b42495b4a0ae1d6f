"""Isolated stores: what a test finds, what it leaves, and whose stores are never touched."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import psycopg
import pytest
import redis as redis_client

from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError, LockTimeout, StoreUnavailable
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.testing import neo4j as neo4j_isolation
from is_db_bootstrap.testing import redis as redis_isolation
from is_db_bootstrap.testing import sources
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, is_dead, process_mark
from is_db_bootstrap.testing.milvus import MilvusIsolation
from is_db_bootstrap.testing.neo4j import Neo4jIsolation
from is_db_bootstrap.testing.neo4j_turn import MARK, Turn
from is_db_bootstrap.testing.postgres import PostgresIsolation
from is_db_bootstrap.testing.redis import RedisIsolation
from is_db_bootstrap.testing.session import TestSession
from is_db_bootstrap.testing.sources import GivenServers
from servers import milvus_client

NOVEL = load_blueprint("novel_genesis")
KINDS = {
    "postgres": PostgresIsolation,
    "neo4j": Neo4jIsolation,
    "milvus": MilvusIsolation,
    "redis": RedisIsolation,
}
on = {store: getattr(pytest.mark, store) for store in KINDS}


def settings(blueprint=NOVEL):
    return replace(Settings.load(blueprint, environ={}), stores={})


@pytest.fixture
def begin():
    """`begin("redis", url)`: an isolation that is closed at the end."""
    begun = []

    def one(store, url, blueprint=NOVEL, **options):
        begun.append(
            KINDS[store](StoreUrl.parse(store, url), blueprint, settings(blueprint), **options)
        )
        return begun[-1]

    yield one
    for each in reversed(
        begun
    ):  # who has the turn gives it up before others end, which wait for it
        each.close()


def databases(url):
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}


@pytest.fixture
def server(farm):
    """A PostgreSQL without templates and copies of earlier tests."""
    shared = farm.shared("postgres")
    yield shared
    with psycopg.connect(f"{shared.url}/postgres", autocommit=True) as connection:
        for name in databases(shared.url):
            if name.startswith(PREFIX):
                connection.execute(f'ALTER DATABASE "{name}" WITH IS_TEMPLATE false')
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


# --- PostgreSQL


@on["postgres"]
def test_each_test_has_a_database_of_its_own_at_the_head(server, begin):
    isolation = begin("postgres", server.url)
    first, second = isolation.take(), isolation.take()
    with psycopg.connect(first.reveal()) as one, psycopg.connect(second.reveal()) as other:
        one.execute("CREATE TABLE mine (id int)")
        one.commit()
        assert other.execute("SELECT to_regclass('mine')").fetchone() == (None,)
        assert other.execute("SELECT version_num FROM alembic_version").fetchone() == ("ng_0004",)


@on["postgres"]
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
def test_a_database_is_dropped_after_its_test_whoever_is_connected(server, begin, given):
    isolation = begin("postgres", server.url, given=given)
    url = isolation.take()
    with psycopg.connect(url.reveal()):
        isolation.give_back(url)
        isolation.close()
    template = set() if given else {f"{PREFIX}_template_{fingerprint(NOVEL, settings())}"}
    assert {n for n in databases(server.url) if n.startswith(PREFIX)} == template


@on["postgres"]
def test_many_processes_make_one_template(server):
    code = (
        "import sys; from dataclasses import replace; from is_db_bootstrap import app; from is_db_bootstrap.blueprint.load import load_blueprint;"
        "from is_db_bootstrap.settings import Settings, StoreUrl; from is_db_bootstrap.testing.postgres import PostgresIsolation;"
        "b = load_blueprint('novel_genesis'); made = [];"
        "PostgresIsolation.apply = lambda self, url, real=PostgresIsolation.apply: (made.append(1), real(self, url));"
        "i = PostgresIsolation(StoreUrl.parse('postgres', sys.argv[1]), b, replace(Settings.load(b, environ={}), stores={}), given=False);"
        "i.give_back(i.take()); i.close(); print(len(made))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, server.url], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert sorted(p.communicate(timeout=60)[0] for p in running) == ["0\n", "0\n", "0\n", "1\n"]


@on["postgres"]
def test_a_half_made_template_is_made_anew(server, begin):
    name = f"{PREFIX}_template_{fingerprint(NOVEL, settings())}"
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = begin("postgres", server.url).take()
    with psycopg.connect(url.reveal()) as connection:
        assert connection.execute("SELECT to_regclass('domain_events')").fetchone() != (None,)


@on["postgres"]
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
def test_a_half_made_template_goes_when_its_maker_is_dead(server, begin, given):
    dead, living = (f"{PREFIX}_template_{digits * 12}" for digits in "ab")
    making = 0x69736474
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as maker:
        maker.execute("SELECT pg_advisory_lock(%s, %s)", (making, 0xBBBBBBB))
        for name in (dead, living):
            maker.execute(f'CREATE DATABASE "{name}"')
        begin("postgres", server.url, given=given)
        assert databases(server.url) & {dead, living} == {living}


@on["postgres"]
def test_a_database_whose_name_only_begins_like_a_template_stays(server, begin):
    names = {f"{PREFIX}_template_backup": "(keep)", f"{PREFIX}_template_aaaaaaaaaaaa": "(keep)"}
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        for name, comment in names.items():
            connection.execute(f'CREATE DATABASE "{name}"')
            connection.execute(f"COMMENT ON DATABASE \"{name}\" IS '{comment}'")
    try:
        begin("postgres", server.url)
        assert set(names) <= databases(server.url)
    finally:
        with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
            for name in names:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}"')


@on["postgres"]
def test_a_template_that_was_not_used_for_a_week_is_dropped(server, begin):
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        for name, day, opened in (
            (f"{PREFIX}_template_0123456789ab", "2020-01-01", "false"),
            (f"{PREFIX}_template_ba9876543210", "2999-01-01", "false"),
            (f"{PREFIX}_template_aaaaaaaaaaaa", "2020-01-01", "true"),
        ):
            connection.execute(
                f'CREATE DATABASE "{name}" IS_TEMPLATE true ALLOW_CONNECTIONS {opened}'
            )
            connection.execute(f"COMMENT ON DATABASE \"{name}\" IS '{day}'")
    begin("postgres", server.url)
    assert f"{PREFIX}_template_0123456789ab" not in databases(server.url)
    assert f"{PREFIX}_template_ba9876543210" in databases(server.url)
    # Somebody has opened it, and may have written to it.
    assert f"{PREFIX}_template_aaaaaaaaaaaa" in databases(server.url)


_HOLD = (
    "import sys, time; from dataclasses import replace; from is_db_bootstrap.blueprint.load import load_blueprint;"
    "from is_db_bootstrap.settings import Settings, StoreUrl; from is_db_bootstrap.testing.session import TestSession, _ISOLATIONS;"
    "import importlib; store, url = sys.argv[1:]; b = load_blueprint('novel_genesis');"
    "kind = getattr(importlib.import_module('is_db_bootstrap.testing.' + store), _ISOLATIONS[store]);"
    "i = kind(StoreUrl.parse(store, url), b, replace(Settings.load(b, environ={}), stores={}));"
    "print(i.take().database, flush=True); time.sleep(60)"
)


@pytest.fixture
def holder():
    """`holder("redis", url)`: another process that has taken a store, and the store's name."""
    running = []

    def hold(store, url):
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", _HOLD, store, url], stdout=subprocess.PIPE, text=True
            )
        )
        return running[-1], running[-1].stdout.readline().strip()

    yield hold
    for each in running:
        each.kill()
        each.communicate()


@on["postgres"]
def test_what_a_killed_process_left_is_dropped_and_what_a_living_one_has_is_not(
    server, begin, holder
):
    killed, left = holder("postgres", server.url)
    _, held = holder("postgres", server.url)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60
    begin("postgres", server.url)
    while left in databases(server.url):
        # Its session may still copy a database, and notices only then that its client has died.
        assert time.monotonic() < deadline
        begin("postgres", server.url)
    assert held in databases(server.url)


@on["postgres"]
def test_a_server_whose_named_database_is_in_use_is_refused(server, begin, postgres_url):
    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE customers (id int)")
    with pytest.raises(
        ConfigurationError,
        match=f"postgres: database {name} at .* is not empty and was not made by a test run",
    ):
        begin("postgres", postgres_url)
    assert name in databases(server.url)
    assert f"{PREFIX}_template_{fingerprint(NOVEL, settings())}" not in databases(server.url)


@on["postgres"]
def test_a_contract_is_the_same_in_every_process_and_follows_settings_and_files():
    code = (
        "from dataclasses import replace; from is_db_bootstrap.blueprint.load import load_blueprint; from is_db_bootstrap.settings import Settings;"
        "from is_db_bootstrap.blueprint.fingerprint import fingerprint; b = load_blueprint('novel_genesis');"
        "print(fingerprint(b, Settings.load(b, environ={})))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in "123"
    }
    assert seen == {fingerprint(NOVEL, settings())}
    other = replace(settings(), values={**settings().values, "EMBEDDING_MODEL": "another"})
    assert fingerprint(NOVEL, other) not in seen
    assert fingerprint(NOVEL, replace(settings(), schema="other")) not in seen


# --- Neo4j


@pytest.fixture
def graph(neo4j_url):
    with neo4j_isolation.driver(StoreUrl.parse("neo4j", neo4j_url)) as driver:
        yield lambda text, **values: [dict(r) for r in driver.execute_query(text, values).records]


@on["neo4j"]
def test_a_graph_is_wiped_and_its_schema_stays(neo4j_url, graph, begin):
    isolation = begin("neo4j", neo4j_url)
    url = isolation.take()
    before = graph("SHOW CONSTRAINTS YIELD name RETURN collect(name) AS names")
    graph("UNWIND range(1, 25000) AS i CREATE (:Page {i: i})-[:NEXT]->(:Page {i: -i})")
    isolation.give_back(url)
    assert graph("MATCH (n:Page) RETURN count(n) AS n") == [{"n": 0}]
    assert graph("SHOW CONSTRAINTS YIELD name RETURN collect(name) AS names") == before
    assert len(before[0]["names"]) > 8


@on["neo4j"]
@pytest.mark.parametrize(
    "damage",
    ["DROP CONSTRAINT", "MATCH (n) DETACH DELETE n", "CREATE INDEX stray FOR (n:Stray) ON (n.x)"],
)
def test_a_schema_or_history_that_a_test_has_changed_is_made_anew(neo4j_url, graph, begin, damage):
    isolation = begin("neo4j", neo4j_url)
    url = isolation.take()
    names = "SHOW INDEXES YIELD name ORDER BY name RETURN collect(name) AS names"
    before = graph(names)
    if damage.startswith("DROP"):
        constraint = graph(
            "SHOW CONSTRAINTS YIELD name WHERE NOT name STARTS WITH '__' RETURN name LIMIT 1"
        )[0]["name"]
        damage = f"{damage} `{constraint}`"
    graph(damage)
    isolation.give_back(url)
    isolation.take()
    assert graph(names) == before
    assert graph("MATCH (n:__Neo4jMigration) RETURN count(n) > 1 AS whole") == [{"whole": True}]


@on["neo4j"]
def test_a_graph_with_somebodys_nodes_is_refused_and_kept(neo4j_url, graph, begin):
    graph("CREATE (:Customer)")
    with pytest.raises(ConfigurationError, match=r"neo4j: the database at .* is not empty"):
        begin("neo4j", neo4j_url).take()
    assert graph("MATCH (n) RETURN labels(n) AS labels") == [{"labels": ["Customer"]}]


@on["neo4j"]
def test_processes_that_share_a_graph_take_turns(neo4j_url, graph, begin):
    one, other = begin("neo4j", neo4j_url), begin("neo4j", neo4j_url)
    url = one.take()
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(other.take()))
    waiting.start()
    time.sleep(0.5)
    assert not taken
    graph("CREATE (:Page)")
    one.give_back(url)
    waiting.join(20)
    assert taken
    assert graph("MATCH (n:Page) RETURN count(n) AS n") == [{"n": 0}]


@on["neo4j"]
def test_who_waits_for_a_graph_says_so_and_ends_with_one_error(neo4j_url, begin):
    told = []
    url = begin("neo4j", neo4j_url).take()
    waiting = begin("neo4j", neo4j_url, patience_s=3, say=told.append)
    with pytest.raises(
        LockTimeout, match=r"was used by another test session for 3 s\. Give each session a server"
    ):
        waiting.take()
    assert told == [f"neo4j: waiting for {url}, which is used by another test session."]


@on["neo4j"]
@pytest.mark.parametrize(
    "case",
    [
        ("CREATE (:Customer {id: 1})", "1 node :Customer", "MATCH (n:Customer) RETURN 1 AS n"),
        (
            "CREATE INDEX of_customers FOR (n:Customer) ON (n.id)",
            r"1 index \(of_customers\)",
            "SHOW INDEXES YIELD name WHERE name = 'of_customers' RETURN 1 AS n",
        ),
        (
            "CREATE (:__Neo4jMigration {version: '99', source: 'by hand'})",
            "1 node :__Neo4jMigration",
            "MATCH (n:__Neo4jMigration {version: '99'}) RETURN 1 AS n",
        ),
    ],
    ids=["node", "schema", "history"],
)
def test_what_is_written_between_two_tests_is_named_and_stays(neo4j_url, graph, begin, case):
    write, named, look = case
    isolation = begin("neo4j", neo4j_url)
    isolation.give_back(isolation.take())
    graph(write)
    with pytest.raises(ConfigurationError, match=named):
        isolation.take()
    isolation.close()
    assert graph(look) == [{"n": 1}]


@on["neo4j"]
def test_what_is_removed_between_two_tests_is_made_anew(neo4j_url, graph, begin):
    isolation = begin("neo4j", neo4j_url)
    isolation.give_back(isolation.take())
    names = "SHOW INDEXES YIELD name ORDER BY name RETURN collect(name) AS names"
    before = graph(names)
    graph("DROP CONSTRAINT unique_novel_novel_id")
    isolation.take()
    assert graph(names) == before


@on["neo4j"]
def test_a_ticket_that_was_given_back_is_not_written_again(neo4j_url, graph):
    """Its process would be waited for, or be relied on to clean."""
    turn = Turn(graph, "of-a-test", target=neo4j_url, say=print, patience_s=60)
    turn.enter(was_wiped=lambda: False, claim=lambda: True)
    turn.leave()
    turn.step_aside()  # as a thread does that saw others wait a moment ago
    turn.renew()
    assert graph(f"MATCH (t:{MARK}) RETURN t.name AS name") == []


@on["neo4j"]
def test_of_many_that_leave_at_once_the_last_one_cleans(neo4j_url, graph, begin):
    for _ in range(2):
        isolations = [begin("neo4j", neo4j_url) for _ in range(4)]
        for isolation in isolations:
            isolation.give_back(isolation.take())
            isolation.make_way()
        threads = [threading.Thread(target=isolation.close) for isolation in isolations]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(240)
        assert graph("MATCH (n) RETURN labels(n) AS labels") == []
        assert graph("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name") == []


@on["neo4j"]
def test_the_mark_of_an_earlier_version_is_carried_on(neo4j_url, graph, begin):
    graph(
        "CREATE CONSTRAINT __IsDbBootstrapTesting_unique FOR (m:__IsDbBootstrapTesting) REQUIRE m.name IS UNIQUE"
    )
    graph(
        "CREATE (:__IsDbBootstrapTesting {name: 'testing', contract: 'of 0.1', owner: 'x', until: datetime.realtime()})"
    )
    graph("CREATE (:__Neo4jMigration {version: 'BASELINE'})")
    isolation = begin("neo4j", neo4j_url)
    isolation.give_back(isolation.take())
    isolation.close()
    assert graph("MATCH (n) RETURN labels(n) AS labels") == []
    assert graph("SHOW INDEXES YIELD type WHERE type <> 'LOOKUP' RETURN count(*) AS n") == [
        {"n": 0}
    ]


# --- Milvus


@on["milvus"]
def test_each_test_has_a_milvus_database_with_the_names_of_production(milvus_url, begin):
    isolation = begin("milvus", milvus_url)
    first, second = isolation.take(), isolation.take()
    one, other = (milvus_client(milvus_url, db_name=u.database) for u in (first, second))
    fields = {f["name"]: f for f in one.describe_collection("novel_embeddings")["fields"]}
    row = {name: _value(field) for name, field in fields.items() if not field.get("auto_id")}
    one.insert("novel_embeddings", [row])
    assert (
        one.query(
            "novel_embeddings", filter="", output_fields=["count(*)"], consistency_level="Strong"
        )[0]["count(*)"]
        == 1
    )
    assert (
        other.query(
            "novel_embeddings", filter="", output_fields=["count(*)"], consistency_level="Strong"
        )[0]["count(*)"]
        == 0
    )
    isolation.give_back(first)
    isolation.give_back(second)
    isolation.close()
    assert [n for n in one.list_databases() if n.startswith(PREFIX)] == []


def _value(field):
    kind = field["type"].name
    if "VECTOR" in kind:
        return [0.1] * int(field["params"]["dim"])
    return {"INT64": 1, "INT32": 1, "JSON": {}, "BOOL": True, "FLOAT": 0.5, "DOUBLE": 0.5}.get(
        kind, "x"
    )


@on["milvus"]
def test_a_milvus_with_somebodys_collection_is_refused(milvus_url, begin):
    client = milvus_client(milvus_url)
    client.create_collection("customers", dimension=4)
    with pytest.raises(ConfigurationError, match=r"milvus: database default at .* is not empty"):
        begin("milvus", milvus_url)
    assert client.list_collections() == ["customers"]


@on["milvus"]
def test_milvus_databases_of_a_killed_process_are_dropped(milvus_url, begin, holder):
    killed, left = holder("milvus", milvus_url)
    _, held = holder("milvus", milvus_url)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    begin("milvus", milvus_url)
    names = milvus_client(milvus_url).list_databases()
    assert left not in names
    assert held in names


# --- Redis


@on["redis"]
def test_a_logical_database_is_flushed_and_keeps_the_blueprints_record(redis_url, begin):
    isolation = begin("redis", redis_url.removesuffix("/0"))
    url = isolation.take()
    client = redis_client.Redis.from_url(url.reveal())
    before = set(client.keys())
    assert before == {b"is-db-bootstrap:conventions:novel_genesis", redis_isolation.MARK.encode()}
    client.set("a", 1)
    isolation.give_back(url)
    assert set(client.keys()) == before


@on["redis"]
def test_a_redis_with_somebodys_keys_is_refused_and_kept(redis_url, begin):
    client = redis_client.Redis.from_url(redis_url)
    client.set("customer:1", "x")
    with pytest.raises(ConfigurationError, match=r"redis: logical database 0 at .* is not empty"):
        begin("redis", redis_url).take()
    assert client.keys() == [b"customer:1"]
    assert client.info("keyspace").keys() == {"db0"}


@on["redis"]
def test_processes_on_one_redis_have_different_logical_databases(redis_url, begin, holder):
    server = redis_url.removesuffix("/0")
    client = redis_client.Redis.from_url(f"{server}/1")
    client.set("customer:1", "x")
    _, held = holder("redis", server)
    taken = begin("redis", server).take().database
    assert (held, taken) == ("0", "2")
    assert client.keys() == [b"customer:1"]


@on["redis"]
def test_the_logical_database_that_an_address_names_is_the_only_one_and_is_used_in_turns(
    redis_url, begin
):
    named = redis_url.replace("/0", "/3")
    one, other = begin("redis", named), begin("redis", named)
    held = one.take()
    impatient = begin("redis", named, patience_s=0.2)
    with pytest.raises(LockTimeout, match=r"logical database 3 at .* was used by another test"):
        impatient.take()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(other.take)
        wait_for(one._somebody_waits)
        one.give_back(held)
        again = pool.submit(one.take)  # leaves the turn to the one who waits
        assert waiting.result(60).database == "3"
        assert not again.done()
        other.give_back(waiting.result())
        again.result(60)
    server = redis_client.Redis.from_url(named)
    assert set(server.info("keyspace")) == {"db3"}
    assert set(server.keys()) == {
        b"is-db-bootstrap:conventions:novel_genesis",
        redis_isolation.MARK.encode(),
    }
    one.close()
    assert not server.info("keyspace")


@on["redis"]
def test_a_kept_logical_database_that_the_address_names_has_no_second_test(redis_url, begin):
    isolation = begin("redis", redis_url)
    isolation.give_back(isolation.take(), keep=True)
    with pytest.raises(ConfigurationError, match="no other logical database was given"):
        isolation.take()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@on["redis"]
def test_the_logical_database_of_a_killed_process_is_taken_over(redis_url, begin, holder):
    killed, left = holder("redis", redis_url)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60
    while (
        any(c["name"] for c in redis_client.Redis.from_url(redis_url).client_list())
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert begin("redis", redis_url).take().database == left


@on["redis"]
def test_a_kept_logical_database_is_left_and_the_next_test_has_another(redis_url, begin):
    isolation = begin("redis", redis_url.removesuffix("/0"))
    url = isolation.take()
    client = redis_client.Redis.from_url(url.reveal())
    client.set("a", 1)
    isolation.give_back(url, keep=True)
    assert isolation.take().database != url.database
    isolation.close()
    assert client.get("a") == b"1"


@on["redis"]
def test_a_redis_without_a_free_logical_database_is_told(make_server, begin):
    server = make_server("redis")
    for number in range(64):
        redis_client.Redis.from_url(f"{server.url}/{number}").set(
            "customer:1" if number else redis_isolation.MARK, "x"
        )
    others = [begin("redis", server.url).take().database]
    assert others == ["0"]
    with pytest.raises(ConfigurationError, match=r"every logical database at .* is in use"):
        begin("redis", server.url).take()


# --- all of them


def test_the_environment_without_an_address_is_told():
    with pytest.raises(ConfigurationError, match=r"redis: no address is set"):
        GivenServers({}).address("redis")
    with pytest.raises(ConfigurationError, match=r"postgres: no address is set"):
        GivenServers({}).address("postgres")


@on["redis"]
def test_a_server_that_is_gone_is_told_to_every_test_that_needs_it(free_address, monkeypatch):
    monkeypatch.setattr(sources, "ANSWER_S", 0.5)
    session = TestSession(GivenServers({"REDIS_URL": f"redis://{free_address}"}))
    for _ in range(2):
        with (
            session.stores("novel_genesis") as stores,
            pytest.raises(StoreUnavailable, match=r"redis: .*refused"),
        ):
            stores.url("redis")


class BrokenIsolation(RedisIsolation):
    """One whose end meets a bug."""

    def __init__(self):
        self.server = StoreUrl.parse("redis", "redis://h")

    def close(self):
        raise RuntimeError("a bug")


class NotedServers:
    """A source without servers, which notes that it was closed."""

    given = False
    closed = False

    def close(self, *, keep):
        self.closed = not keep


def test_a_session_that_ends_by_a_bug_stops_its_servers():
    source = NotedServers()
    session = TestSession(source)
    session.opened.append(BrokenIsolation())
    with pytest.raises(RuntimeError, match="a bug"):
        session.close()
    assert source.closed


#: Takes all stores of a blueprint, and prints the modules of ours that a thread has imported.
IMPORTS_OF_THREADS = """
import sys, threading

found = set()


class Finder:
    def find_spec(self, name, path=None, target=None):
        is_ours = name.startswith("is_db_bootstrap.")
        if is_ours and threading.current_thread() is not threading.main_thread():
            found.add(name)


sys.meta_path.insert(0, Finder())

from is_db_bootstrap.testing.session import TestSession
from is_db_bootstrap.testing.sources import GivenServers

session = TestSession(GivenServers())
with session.stores("novel_genesis") as stores:
    assert len(stores.environ) == 4
session.close()
assert not session.troubles
print(*sorted(found))
"""


@pytest.mark.postgres
@pytest.mark.neo4j
@pytest.mark.milvus
@pytest.mark.redis
def test_threads_of_a_session_do_not_import_beside_each_other(server, farm):
    """Two threads that import the same packages may meet half of one."""
    urls = {f"{store.upper()}_URL": farm.shared(store).url for store in KINDS}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_OF_THREADS],
        env=os.environ | urls,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    # Only the thread of PostgreSQL imports while it works: its own modules, and the models of
    # revisions.
    imported = done.stdout.split()
    assert [n for n in imported if ".postgres." not in n and ".blueprints." not in n] == []


@pytest.fixture
def free_address():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_process_is_dead_also_while_its_parent_takes_no_note_of_its_end():
    host = process_mark().partition("_")[0]
    with subprocess.Popen(["sleep", "60"]) as child:
        process = psutil.Process(child.pid)
        mark = f"{host}_{child.pid}_{int(process.create_time())}"
        assert not is_dead(mark)
        child.kill()
        deadline = time.monotonic() + 60
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert is_dead(mark)
    assert is_dead(mark)


def test_what_is_made_ahead_is_handed_out_and_all_is_removed():
    made, removed = [], []

    def make():
        made.append(uuid.uuid4().hex)
        return made[-1]

    ahead = Ahead(make, removed.append, size=2)
    first = ahead.take()
    ahead.done(first)
    names = {ahead.take() for _ in range(5)}
    assert len(names) == 5
    for name in names:
        ahead.done(name)
    ahead.close()
    assert sorted(removed) == sorted(made)


def test_an_error_while_making_ahead_is_met_by_the_caller():
    def make():
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("full")
        raise RuntimeError("full, ahead")

    ahead = Ahead(make, print, size=1)
    with pytest.raises(RuntimeError, match="full"):
        ahead.take()
    ahead.close()


def test_an_error_while_clearing_away_is_no_end_of_making_ahead():
    removed, failures = [], [OSError("busy")]

    def remove(name):
        if failures:
            raise failures.pop()
        removed.append(name)

    numbers = itertools.count()
    ahead = Ahead(lambda: str(next(numbers)), remove, size=1)
    ahead.done(ahead.take())
    deadline = time.monotonic() + 60
    while not removed and time.monotonic() < deadline:
        ahead.take()
        time.sleep(0.02)
    assert removed
    ahead.close()

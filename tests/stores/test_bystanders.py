"""A run of one store asks those that it leaves out, before it makes that store anew."""

from __future__ import annotations

import socket
import time
from contextlib import closing

import neo4j
import psycopg
import pytest
import redis

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern
from is_db_bootstrap.engine import bystanders
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from mute import MuteProxy, always
from servers import milvus_client

pytestmark = [pytest.mark.postgres, pytest.mark.neo4j, pytest.mark.milvus, pytest.mark.redis]
STORES = ("postgres", "neo4j", "milvus", "redis")
CLASSES = {
    "postgres": PostgreSQLBootstrapper,
    "neo4j": Neo4jBootstrapper,
    "milvus": MilvusBootstrapper,
    "redis": RedisBootstrapper,
}
REVISION = '''"""A table."""
from alembic import op

revision = "a1"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE t (id integer PRIMARY KEY)")


def downgrade():
    op.execute("DROP TABLE t")
'''


class Four:
    """A blueprint of four stores on real servers, each of which a test can lose."""

    def __init__(self, folder, urls):
        self.urls = urls
        for name in ("migrations", "cypher"):
            (folder / name).mkdir()
        (folder / "migrations" / "a1.py").write_text(REVISION)
        (folder / "cypher" / "V1__a.cypher").write_text("CREATE (:A {id: 1});\n")
        fields = (Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=8))
        self.blueprint = Blueprint(
            "mine",
            "for tests",
            migrations=folder / "migrations",
            cypher=folder / "cypher",
            collections=(Collection("docs", fields=fields, indexes=(Index("v", "FLAT", "IP"),)),),
            keys=(KeyPattern("k", "k:{x}", "string", 60, "app", "x"),),
            durable_keys=True,
        )

    def run(self, *known, mode=Mode.APPLY, urls=None, **options):
        """A run that is given the addresses of the stores `known` alone."""
        given = {**self.urls, **(urls or {})}
        flags = {f"{name}_url": given[name] for name in known or STORES}
        settings = Settings.load(self.blueprint, environ={}, flags=flags)
        return app.orchestrator(self.blueprint, settings, RunOptions(**options)).run(mode)

    def lose(self, store):
        getattr(self, f"_lose_{store}")()

    def _lose_postgres(self):
        server, _, name = self.urls["postgres"].rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _lose_neo4j(self):
        url = StoreUrl.parse("neo4j", self.urls["neo4j"])
        auth = (url.username, url.password)
        with neo4j.GraphDatabase.driver(f"bolt://{url.hosts}", auth=auth) as driver:
            driver.execute_query("MATCH (n) DETACH DELETE n")

    def _lose_milvus(self):
        client = milvus_client(self.urls["milvus"])
        with closing(client):
            client.drop_collection("docs")

    def _lose_redis(self):
        with redis.Redis.from_url(self.urls["redis"]) as client:
            client.flushdb()


@pytest.fixture
def four(tmp_path, postgres_url, neo4j_url, milvus_url, redis_url):
    urls = (postgres_url, neo4j_url, milvus_url, redis_url)
    found = Four(tmp_path, dict(zip(STORES, urls, strict=True)))
    first = found.run()
    assert first.exit_code == 0, first
    return found


@pytest.fixture
def asked(monkeypatch):
    """The stores whose bootstrapper was made to be asked."""
    names = []
    ask = bystanders.Bystander

    def noted(name, make):
        def make_and_note():
            names.append(name)
            return make()

        return ask(name, make_and_note)

    monkeypatch.setattr(bystanders, "Bystander", noted)
    return names


def notes(result, name):
    return " ".join(result.store(name).notes)


@pytest.mark.parametrize("lost", STORES)
def test_a_lost_store_is_not_made_anew_where_only_a_store_that_is_left_out_remembers_it(four, lost):
    four.lose(lost)
    for witness in (name for name in STORES if name != lost):
        result = four.run(lost, witness, only=(lost,))
        assert result.exit_code == 8, (witness, result)
        error = result.store(lost).error
        assert (error.kind, f"as {witness} remembers" in error.message) == ("reset", True), error
    # A store that nobody can ask leaves a first run.
    alone = four.run(lost, mode=Mode.PLAN, only=(lost,))
    assert (alone.exit_code, alone.store(lost).outcome) == (0, "planned")
    others = tuple(name for name in STORES if name != lost)
    assert four.run(skip=others).exit_code == 8
    for mode in (Mode.PLAN, Mode.VERIFY):
        assert four.run(mode=mode, only=(lost,)).exit_code == 8
    status = four.run(mode=Mode.STATUS, only=(lost,))
    assert "though it was converged on" in notes(status, lost)
    accepted = four.run(only=(lost,), accept_reset=(lost,))
    assert (accepted.exit_code, accepted.store(lost).outcome) == (0, "changed"), accepted
    whole = four.run()
    assert whole.exit_code == 0, whole
    assert four.run().outcome == "unchanged"


def test_a_lost_part_is_told_by_the_stores_that_are_left_out(four):
    client = milvus_client(four.urls["milvus"])
    with closing(client):
        client.drop_collection("docs")
        client.create_collection("tags", dimension=8)
    result = four.run("postgres", "milvus", only=("milvus",))
    assert (result.exit_code, result.store("milvus").error.kind) == (8, "reset")


def test_a_run_that_makes_nothing_anew_asks_no_store_that_it_leaves_out(four, asked):
    for mode in (Mode.APPLY, Mode.PLAN, Mode.VERIFY, Mode.STATUS):
        assert four.run(mode=mode, only=("neo4j",)).exit_code == 0
    assert asked == []
    four.lose("neo4j")
    assert four.run(only=("neo4j",)).exit_code == 8
    assert asked == ["postgres", "milvus", "redis"]


def test_the_stores_that_are_left_out_are_only_read(four, monkeypatch):
    four.lose("neo4j")
    written = []
    for name in ("postgres", "milvus", "redis"):
        monkeypatch.setattr(CLASSES[name], "remember", lambda *_: written.append("memory"))
        monkeypatch.setattr(CLASSES[name], "apply", lambda *_: written.append("change"))
    result = four.run(only=("neo4j",), accept_reset=("neo4j",))
    assert (result.exit_code, written) == (0, [])
    assert [store.store for store in result.stores] == ["neo4j"]


@pytest.mark.parametrize("mute", [False, True], ids=["closed port", "mute server"])
def test_a_store_that_is_left_out_and_down_is_a_note_and_delays_the_run_little(
    four, mute, monkeypatch
):
    monkeypatch.setattr(bystanders, "ANSWER_S", 3.0)
    four.lose("redis")
    four.lose("neo4j")
    if mute:
        real = four.urls["redis"].rpartition(":")[2].partition("/")[0]
        with closing(MuteProxy(int(real), always)) as proxy:
            _see_note(four, proxy.port)
    else:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        _see_note(four, port)


def _see_note(four, port):
    began = time.monotonic()
    down = {"redis": f"redis://127.0.0.1:{port}/0"}
    result = four.run("neo4j", "redis", urls=down, only=("neo4j",))
    assert result.exit_code == 0, result
    told = notes(result, "neo4j")
    assert "redis, which this run leaves out, could not be asked" in told
    assert "nobody knows whether this store was lost" in told
    assert time.monotonic() - began < 30


def test_a_store_that_is_left_out_with_a_broken_record_is_a_note(four):
    four.lose("neo4j")
    with redis.Redis.from_url(four.urls["redis"]) as client:
        client.set("is-db-bootstrap:memory:mine", "not a record")
    result = four.run("neo4j", "redis", only=("neo4j",))
    assert result.exit_code == 0
    assert "could not be asked whether it remembers this store" in notes(result, "neo4j")


def test_a_store_that_is_made_first_is_joined_under_one_key(tmp_path, postgres_url, redis_url):
    urls = {"postgres": postgres_url, "redis": redis_url}
    two = Four(tmp_path, urls)
    for name in urls:
        assert two.run("postgres", "redis", only=(name,)).exit_code == 0
    with redis.Redis.from_url(redis_url) as client:
        [line] = client.get("is-db-bootstrap:memory:mine").decode().split("\n")
    assert '"postgres": {' in line
    assert '"redis": {' in line

"""What is told below a drift mends it: Neo4j, Milvus and Redis.

PostgreSQL has a file of its own.
"""

from __future__ import annotations

import subprocess

import neo4j
import pytest
import redis

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.cypher_schema import recognise
from is_db_bootstrap.stores.neo4j.cypher_text import split
from is_db_bootstrap.stores.neo4j.mending import creation
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.mending import written_key
from is_db_bootstrap.wording import visible_lines
from servers import milvus_client


def findings(store):
    """What a strict verify tells, as drift."""
    return BootstrapOrchestrator([store], strict=True).run(Mode.VERIFY).stores[0].drifts


def applied(store):
    BootstrapOrchestrator([store]).run().raise_for_failure()


# --- Neo4j

CYPHER = """
CREATE CONSTRAINT `one ``odd`` name` IF NOT EXISTS FOR (b:`Odd ``Label`) REQUIRE b.`p q` IS UNIQUE;
CREATE CONSTRAINT two IF NOT EXISTS FOR (b:Page) REQUIRE (b.book, b.number) IS UNIQUE;
CREATE CONSTRAINT of_rel IF NOT EXISTS FOR ()-[l:LENT]-() REQUIRE l.ticket IS UNIQUE;
CREATE INDEX several IF NOT EXISTS FOR (b:Book) ON (b.year, b.month);
CREATE INDEX lent_on IF NOT EXISTS FOR ()-[l:LENT]-() ON (l.day);
CREATE TEXT INDEX title IF NOT EXISTS FOR (b:Book) ON (b.title);
CREATE POINT INDEX place IF NOT EXISTS FOR (b:Shop) ON (b.place);
CREATE FULLTEXT INDEX words IF NOT EXISTS FOR (n:Book|Page) ON EACH [n.title, n.text];
CREATE VECTOR INDEX meaning IF NOT EXISTS FOR (b:Book) ON (b.embedding)
  OPTIONS {indexConfig: {`vector.dimensions`: 8, `vector.similarity_function`: 'cosine'}};
CREATE LOOKUP INDEX by_label IF NOT EXISTS FOR (n) ON EACH labels(n);
"""
GRAPH_BROKEN = {
    "constraint": "DROP CONSTRAINT `one ``odd`` name`",
    "constraint of two": "DROP CONSTRAINT two",
    "constraint of relationships": "DROP CONSTRAINT of_rel",
    "index": "DROP INDEX several",
    "index of relationships": "DROP INDEX lent_on",
    "text": "DROP INDEX title",
    "point": "DROP INDEX place",
    "fulltext": "DROP INDEX words",
    "vector": "DROP INDEX meaning",
    "other": "DROP INDEX several; CREATE INDEX several FOR (b:Book) ON (b.year)",
    "index instead of a constraint": (
        "DROP CONSTRAINT two; CREATE INDEX two FOR (b:Page) ON (b.book)"
    ),
    "undeclared": "CREATE INDEX `stray ``one\x1b[31m\n\u202e` FOR (b:Book) ON (b.stray)",
}


@pytest.fixture(scope="module")
def graph(farm, tmp_path_factory):
    """A Neo4j that the file above has filled, and a function that runs statements on it."""
    from servers import empty_neo4j

    server = farm.shared("neo4j")
    empty_neo4j(server)
    folder = tmp_path_factory.mktemp("mending")
    (folder / "V1__a.cypher").write_text(CYPHER, encoding="utf-8")
    store = Neo4jBootstrapper(server.url, Blueprint("mending", "for tests", cypher=folder))
    applied(store)
    url = StoreUrl.parse("neo4j", server.url)
    address = f"{url.scheme}://{url.host}:{url.port(0)}"
    with neo4j.GraphDatabase.driver(address, auth=(url.username, url.password)) as driver:

        def execute(statements):
            for statement in filter(str.strip, statements.split(";")):
                driver.execute_query(statement)

        yield store, execute
    store.close()


@pytest.mark.neo4j
@pytest.mark.parametrize("what", GRAPH_BROKEN)
def test_the_cypher_below_a_drift_mends_it(graph, what):
    store, execute = graph
    assert findings(store) == ()
    execute(GRAPH_BROKEN[what])
    [drift] = findings(store)
    assert visible_lines(drift.fix) == drift.fix
    execute(drift.fix)
    assert findings(store) == ()


@pytest.mark.parametrize(
    ("statement", "is_written"),
    [
        ("CREATE CONSTRAINT a FOR (n:X) REQUIRE n.p IS NOT NULL", True),
        ("CREATE CONSTRAINT a FOR (n:X) REQUIRE n.p IS :: LIST<STRING NOT NULL>", True),
        ("CREATE CONSTRAINT a FOR ()-[r:R]-() REQUIRE (r.p, r.q) IS RELATIONSHIP KEY", True),
        ("CREATE LOOKUP INDEX a FOR ()-[r]-() ON EACH type(r)", True),
        (
            (
                "CREATE FULLTEXT INDEX a FOR (n:X) ON EACH [n.p] OPTIONS {indexConfig: "
                "{`fulltext.analyzer`: 'english'}}"
            ),
            False,
        ),
    ],
)
def test_a_statement_that_is_written_again_declares_the_same(statement, is_written):
    """Where the server has the Enterprise Edition only, this reads what was written again."""
    [declared] = [recognise(each.tokens) for each in split(f"{statement};")]
    again = creation(declared)
    assert (again is not None) == is_written
    if again is not None:
        [read] = [recognise(each.tokens) for each in split(f"{again};")]
        assert (read.definition, read.name) == (declared.definition, declared.name)


# --- Milvus

DOCS = Collection(
    "mend_v1",
    (Field("id", "INT64", primary=True), Field("meaning", "FLOAT_VECTOR", dim=4)),
    (Index("meaning", "HNSW", "COSINE", {"M": 8, "efConstruction": 32}),),
    alias="mend",
    partition_names=("old",),
    ttl_seconds=3600,
    load=True,
)
VECTORS_BROKEN = {
    "index": lambda c: [c.release_collection("mend_v1"), c.drop_index("mend_v1", "meaning")],
    "alias": lambda c: c.drop_alias("mend"),
    "alias elsewhere": lambda c: [
        c.create_collection("mend_other", dimension=4),
        c.alter_alias("mend_other", "mend"),
    ],
    "load": lambda c: c.release_collection("mend_v1"),
    "property": lambda c: c.alter_collection_properties("mend_v1", {"collection.ttl.seconds": "7"}),
    "partition": lambda c: [
        c.release_collection("mend_v1"),
        c.drop_partition("mend_v1", "old"),
        c.load_collection("mend_v1"),
    ],
    "collection": lambda c: [
        c.release_collection("mend_v1"),
        c.drop_alias("mend"),
        c.drop_collection("mend_v1"),
    ],
}


@pytest.mark.milvus
@pytest.mark.parametrize("what", VECTORS_BROKEN)
def test_the_call_below_a_drift_mends_it(milvus_url, what):
    store = MilvusBootstrapper(milvus_url, Blueprint("mending", "for tests", collections=(DOCS,)))
    applied(store)
    client = milvus_client(milvus_url)
    VECTORS_BROKEN[what](client)
    told = store.verify()
    assert told
    for drift in told:
        for line in drift.fix.splitlines():
            if line == "is-db-bootstrap apply":
                applied(store)
            else:
                exec(line, {"client": client})
    client.close()
    assert store.verify() == []
    store.close()


@pytest.mark.milvus
def test_an_index_of_another_kind_is_dropped_and_built_again(milvus_url):
    other = Index("meaning", "FLAT", "COSINE")
    first = Collection(DOCS.name, DOCS.fields, (other,), alias=DOCS.alias, load=True)
    applied(MilvusBootstrapper(milvus_url, Blueprint("a", "b", collections=(first,))))
    store = MilvusBootstrapper(milvus_url, Blueprint("a", "b", collections=(DOCS,)))
    [drift] = [each for each in store.verify() if each.kind == "index"]
    client = milvus_client(milvus_url)
    *calls, last = drift.fix.splitlines()
    for call in calls:
        exec(call, {"client": client})
    client.close()
    assert last == "is-db-bootstrap apply"
    applied(store)
    assert store.verify() == []
    store.close()


# --- Redis

KEYS = Blueprint(
    "mending",
    "for tests",
    keys=(
        KeyPattern("cart", "cart:{id}", "string", 60, "app", "for tests"),
        KeyPattern("price", "price:{id}", "string", None, "app", "for tests", reason="for tests"),
    ),
)
NAMES = {
    "plain": b"1",
    "blanks and quotes": b"a b\"c\\d'e",
    "control characters": b"\x1b[31mred\n\x00\x7f",
    "no text": b"\xff\xfe",
    "umlaut": "ä".encode(),
}


@pytest.mark.redis
@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize(
    ("prefix", "lifetime"), [(b"cart:", None), (b"cart:", 500), (b"price:", 500)]
)
def test_the_command_below_a_finding_mends_it(redis_url, what, prefix, lifetime):
    store = RedisBootstrapper(redis_url, KEYS)
    applied(store)
    name = prefix + NAMES[what]
    with redis.Redis.from_url(redis_url) as client:
        client.set(name, "x", ex=lifetime)
    [drift] = findings(store)
    url = StoreUrl.parse("redis", redis_url)
    typed = subprocess.run(
        ["redis-cli", "-h", url.host, "-p", str(url.port(0))],
        input=f"{drift.fix}\n".encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert typed.stdout.strip() == b"1", typed
    assert findings(store) == ()
    store.close()


@pytest.mark.redis
def test_a_key_of_another_type_is_mended_by_its_program(redis_url):
    store = RedisBootstrapper(redis_url, KEYS)
    applied(store)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("cart:a b", "x")
    [drift] = findings(store)
    assert drift.fix is None
    assert 'DEL "cart:a b"' in drift.reason
    store.close()


def test_a_name_is_written_so_that_redis_cli_reads_it():
    assert written_key(b"a:1-{x}") == "a:1-{x}"
    assert written_key(b"") == '""'
    assert written_key(b'"\x00\xff') == r'"\"\x00\xff"'

"""`new --from-stores`: what running stores hold becomes a blueprint that loads, and that finds
nothing to do on the same stores.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import neo4j
import psycopg
import pytest
import redis
from pymilvus import DataType

import is_db_bootstrap.blueprint as declarations
from commands import run_here
from is_db_bootstrap.blueprint import Collection, Field, Index
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode
from is_db_bootstrap.scaffold.source import source_of
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.neo4j.cypher_file import load as load_cypher
from is_db_bootstrap.stores.neo4j.schema_forecast import declared as declared_schema
from servers import milvus_client

CONSTRAINTS = """
CREATE CONSTRAINT one_book FOR (b:Book) REQUIRE b.isbn IS UNIQUE;
CREATE CONSTRAINT `page of a book` FOR (p:Page) REQUIRE (p.book, p.number) IS UNIQUE;
CREATE CONSTRAINT one_loan FOR ()-[l:LENT]-() REQUIRE l.ticket IS UNIQUE;
"""
INDEXES = """
CREATE INDEX book_year FOR (b:Book) ON (b.year, b.month);
CREATE INDEX FOR (b:Book) ON (b.shelf);
CREATE INDEX lent_on FOR ()-[l:LENT]-() ON (l.day);
CREATE TEXT INDEX book_title FOR (b:Book) ON (b.title);
CREATE POINT INDEX shop_place FOR (s:Shop) ON (s.place);
CREATE FULLTEXT INDEX words FOR (n:Book|Page) ON EACH [n.title, n.text]
  OPTIONS {indexConfig: {`fulltext.analyzer`: 'english', `fulltext.eventually_consistent`: true}};
CREATE VECTOR INDEX meaning FOR (b:Book) ON (b.embedding)
  OPTIONS {indexConfig: {`vector.dimensions`: 8, `vector.similarity_function`: 'cosine'}};
"""
UUIDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(3)]


def new_from(folder, stores, *words, **environ):
    """`new taken --from-stores` in `folder`: exit code, stdout, stderr."""
    words = ["new", "taken", "--from-stores", "--stores", stores, *words]
    return run_here(words, folder, environ)


def needs_nothing(store):
    """Whether a plan lists nothing but the record of what was converged together."""
    return {change["kind"] for change in store["changes"]} <= {"memory"} and not store["error"]


def planned(folder, **environ):
    """Exit code and the stores of a plan of the blueprint that was written."""
    words = ["plan", "--blueprint", "taken", "--output", "json"]
    code, out, err = run_here(words, folder, environ)
    assert code == 0, err
    return json.loads(out)["stores"]


# --- source


@pytest.mark.parametrize("name", blueprint_names())
def test_the_source_of_a_declaration_makes_that_declaration(name):
    blueprint = load_blueprint(name)
    for value in (blueprint.collections, blueprint.keys, blueprint.channels):
        made = eval(source_of(value), vars(declarations))
        assert made == value


def test_a_line_of_the_source_is_at_most_100_columns_wide():
    blueprint = load_blueprint("novel_genesis")
    text = source_of(blueprint.collections, before=12)
    assert max(map(len, text.splitlines())) <= 100


# --- Milvus


@pytest.mark.milvus
def test_what_langchain_and_llamaindex_make_is_declared_and_needs_nothing(tmp_path, milvus_url):
    """The calls are those that langchain-milvus 0.3.3 and llama-index-vector-stores-milvus 1.2.0
    were seen to send.
    """
    client = milvus_client(milvus_url)
    with contextlib.closing(client):
        schema = client.create_schema(enable_dynamic_field=True)
        schema.add_field("text", DataType.VARCHAR, max_length=65_535)
        schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=65_535)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
        indexes = client.prepare_index_params()
        indexes.add_index("vector", index_type="AUTOINDEX", metric_type="L2")
        client.create_collection("LangChainCollection", schema=schema, index_params=indexes)
        schema = client.create_schema(enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=65_535)
        schema.add_field("doc_id", DataType.VARCHAR, max_length=65_535)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=8)
        indexes = client.prepare_index_params()
        indexes.add_index("embedding", index_type="FLAT", metric_type="IP")
        client.create_collection("llamacollection", schema=schema, index_params=indexes)
        client.create_alias("llamacollection", "documents")
    code, _, err = new_from(tmp_path, "milvus", MILVUS_URL=milvus_url)
    assert code == 0, err
    assert "2 of 2 collections" in err
    written = {c.name: c for c in load_blueprint(str(tmp_path / "taken")).collections}
    assert written["llamacollection"].alias == "documents"
    assert written["LangChainCollection"].indexes == (Index("vector", "AUTOINDEX", "L2"),)
    (store,) = planned(tmp_path, MILVUS_URL=milvus_url)
    assert needs_nothing(store)


@pytest.mark.milvus
def test_every_part_of_a_collection_is_read_back(tmp_path, milvus_url):
    wanted = Collection(
        "shelf_v3",
        fields=(
            Field("id", "VARCHAR", primary=True, max_length=36),
            Field("embedding", "FLOAT_VECTOR", dim=8),
            Field("tenant", "VARCHAR", max_length=20, partition_key=True),
            Field("tags", "ARRAY", element_type="VARCHAR", max_capacity=4, max_length=9),
            Field("note", "VARCHAR", max_length=90, nullable=True),
            Field("price", "DOUBLE", default=0.5),
            Field("is_new", "BOOL", default=False),
            Field("extra", "JSON", nullable=True),
        ),
        indexes=(Index("embedding", "HNSW", "COSINE", {"M": 8, "efConstruction": 64}),),
        alias="shelf",
        ttl_seconds=3600,
        model="mini-3",
    )
    blueprint = declarations.Blueprint("shop", "for tests", collections=(wanted,))
    assert applied(blueprint, milvus_url) == "changed"
    code, _, err = new_from(tmp_path, "milvus", MILVUS_URL=milvus_url)
    assert code == 0, err
    (found,) = load_blueprint(str(tmp_path / "taken")).collections
    told = {each.name: each for each in wanted.fields}
    told["tags"] = replace(told["tags"], max_length=None)  # Milvus Lite does not tell it
    assert {each.name: each for each in found.fields} == told
    assert "shelf_v3.tags: the server does not tell the max_length" in err
    assert (found.alias, found.ttl_seconds, found.model) == ("shelf", 3600, "mini-3")
    (store,) = planned(tmp_path, MILVUS_URL=milvus_url)
    assert needs_nothing(store)


def applied(blueprint, url):
    """The outcome of an apply of a Milvus blueprint."""
    store = MilvusBootstrapper(url, blueprint)
    result = BootstrapOrchestrator([store]).run(Mode.APPLY)
    result.raise_for_failure()
    return result.stores[0].outcome.value


# --- Neo4j


@pytest.mark.neo4j
@pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
def test_constraints_and_indexes_become_files_that_declare_the_same(tmp_path, neo4j_url):
    with graph(neo4j_url) as session:
        for statement in (CONSTRAINTS + INDEXES).split(";\n"):
            if statement.strip():
                session.run(statement).consume()
    code, out, err = new_from(tmp_path, "neo4j", NEO4J_URL=neo4j_url)
    assert code == 0, err
    assert "3 constraints and 7 indexes" in err
    assert "not declared" not in err
    assert "taken/cypher/V001__constraints.cypher" in out
    files = load_cypher(tmp_path / "taken" / "cypher")
    names = set(declared_schema(files))
    assert {"one_book", "page of a book", "one_loan", "words", "meaning"} <= names
    (store,) = planned(tmp_path, NEO4J_URL=neo4j_url)
    assert [change["name"] for change in store["changes"]] == [file.name for file in files]
    code, _, err = run_here(["apply", "--blueprint", "taken"], tmp_path, {"NEO4J_URL": neo4j_url})
    assert code == 0, err
    code, out, err = run_here(
        ["verify", "--blueprint", "taken"], tmp_path, {"NEO4J_URL": neo4j_url}
    )
    assert code == 0, out + err


@pytest.mark.neo4j
def test_names_with_spaces_and_backticks_stay_what_they_are(tmp_path, neo4j_url):
    with graph(neo4j_url) as session:
        session.run("CREATE INDEX reli FOR ()-[r:`T``x`]-() ON (r.`a  b`)").consume()
        session.run("CREATE INDEX `a  b` FOR (n:`Two  Spaces`) ON (n.k)").consume()
        session.run("CREATE CONSTRAINT `we``ird \"name'` FOR (n:L) REQUIRE n.k IS UNIQUE").consume()
    code, _, err = new_from(tmp_path, "neo4j", NEO4J_URL=neo4j_url)
    assert code == 0, err
    environ = {"NEO4J_URL": neo4j_url}
    code, _, err = run_here(["apply", "--blueprint", "taken"], tmp_path, environ)
    assert code == 0, err
    with graph(neo4j_url) as session:
        rows = session.run("SHOW INDEXES YIELD name, type, owningConstraint WHERE type <> 'LOOKUP'")
        names = {row["name"] for row in rows if "__Neo4jMigration" not in row["name"]}
    assert names == {"reli", "a  b", "we`ird \"name'"}


@pytest.mark.neo4j
def test_a_graph_with_recorded_migrations_is_declared_by_their_files(tmp_path, neo4j_url):
    with graph(neo4j_url) as session:
        session.run("CREATE (:__Neo4jMigration {version: 'BASELINE'})").consume()
    code, _, err = new_from(tmp_path, "neo4j", NEO4J_URL=neo4j_url)
    assert code == 2
    assert "records migrations" in err


def graph(url):
    address = StoreUrl.parse("neo4j", url)
    auth = (address.username, address.password)
    driver = neo4j.GraphDatabase.driver(f"bolt://{address.hosts}", auth=auth)

    @contextlib.contextmanager
    def opened():
        with driver, driver.session() as session:
            yield session

    return opened()


# --- Redis


@pytest.mark.redis
def test_what_celery_keeps_in_redis_becomes_key_patterns(tmp_path, redis_url):
    """The keys are those that Celery 5.7.0 was seen to make with Redis as broker and backend."""
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        client.sadd("_kombu.binding.celery", "celery")
        client.sadd("_kombu.binding.celery.pidbox", "celery")
        client.hset("unacked", "1", "x")
        client.zadd("unacked_index", {"1": 1})
        for each in UUIDS:
            client.set(f"celery-task-meta-{each}", "{}", ex=86_395)
    code, _, err = new_from(tmp_path, "redis", REDIS_URL=redis_url)
    assert code == 0, err
    keys = {key.pattern: key for key in load_blueprint(str(tmp_path / "taken")).keys}
    assert set(keys) == {
        "_kombu.binding.celery",
        "_kombu.binding.celery.pidbox",
        "celery-task-meta-{uuid}",
        "unacked",
        "unacked_index",
    }
    meta = keys["celery-task-meta-{uuid}"]
    assert (meta.type, meta.ttl) == ("string", 86_400)
    assert all(meta.matches(f"celery-task-meta-{each}") for each in UUIDS)
    environ = {"REDIS_URL": redis_url}
    code, _, err = run_here(["apply", "--blueprint", "taken"], tmp_path, environ)
    assert code == 0, err
    assert [needs_nothing(store) for store in planned(tmp_path, **environ)] == [True]
    code, out, _ = run_here(["verify", "--strict", "--blueprint", "taken"], tmp_path, environ)
    assert code == 0, out


@pytest.mark.redis
def test_no_name_of_a_key_becomes_code_or_another_line(tmp_path, redis_url):
    bad = "job\nimport os; os.mkdir('broken') #:7"
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        client.set(bad, "x", ex=600)
        client.set("unacked.1\n", "x", ex=500)
        client.set("red \x1b[31m", "x", ex=500)
        client.set("", "x", ex=500)
    code, _, err = new_from(tmp_path, "redis", REDIS_URL=redis_url)
    assert code == 0, err
    assert "\x1b" not in err
    patterns = {key.pattern for key in load_blueprint(str(tmp_path / "taken")).keys}
    assert patterns == {bad.replace("7", "{id}"), "red \x1b[31m"}
    assert "has a blank at its end" in err
    assert not (tmp_path / "broken").exists()
    assert "1 key left out: the name is empty" in err


@pytest.mark.redis
def test_values_in_front_of_a_key_are_put_together_or_left_out(tmp_path, redis_url):
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        for number in range(40):
            word = f"{chr(97 + number % 26)}{'abcdefgh'[number % 8]}{'z' * (number // 26)}q"
            client.set(f"tok_{word}", "x", ex=600)
            client.set(f"{word}x@mail", "x")
            client.set(f"{{acme{number}}}:cart:{number}", "x")
        client.set("f3Zk20aaQQ7712hhBBcc", "x")
    code, _, err = new_from(tmp_path, "redis", REDIS_URL=redis_url)
    assert code == 0, err
    keys = {key.pattern: key for key in load_blueprint(str(tmp_path / "taken")).keys}
    assert set(keys) == {"tok_{id}", "{tag}:cart:{id}", "{id}"}
    assert keys["{tag}:cart:{id}"].matches("{acme7}:cart:7")
    assert not keys["{id}"].matches("tok_a")
    assert "40 keys left out: their first words have nothing in common" in err


@pytest.mark.redis
def test_words_that_differ_in_one_place_become_a_placeholder(tmp_path, redis_url):
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        for number, word in enumerate(["anna", "ben", "cleo", "dora", "emil", "finn", "gus"]):
            client.set(f"shop:cart:{word}:{number}", "x", ex=600)
        for day in ("2026-01-01", "2026-01-02"):
            client.zadd(f"shop:top:{day}", {"a": 1})
        client.set("shop:mode:on", "x")
        client.set("shop:mode:off", "x")
        client.set(b"shop:\xff", "x")
    code, _, err = new_from(tmp_path, "redis", REDIS_URL=redis_url)
    assert code == 0, err
    keys = {key.pattern: key.ttl for key in load_blueprint(str(tmp_path / "taken")).keys}
    assert keys == {
        "shop:cart:{id}:{id2}": 600,
        "shop:top:{date}": None,
        "shop:mode:on": None,
        "shop:mode:off": None,
    }
    assert "1 key left out: the name is not UTF-8" in err


# --- the folder


@pytest.mark.redis
def test_empty_stores_leave_no_folder(tmp_path, redis_url):
    code, _, err = new_from(tmp_path, "redis", REDIS_URL=redis_url)
    assert code == 2
    assert "There is nothing to declare" in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_before_a_store_is_asked(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "kept.txt").write_text("kept")
    code, _, err = new_from(tmp_path, "redis", REDIS_URL="redis://127.0.0.1:1/0")
    assert code == 2
    assert "is not empty" in err


@pytest.mark.postgres
def test_an_alembic_ini_beside_is_named(tmp_path, migrated):
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    address = migrated("context_service")
    code, _, err = new_from(tmp_path, "postgres", POSTGRES_URL=address)
    assert code == 0, err
    source = (tmp_path / "taken" / "blueprint.py").read_text()
    assert 'AlembicEnvironment(ini=Path("../alembic.ini"))' in source
    assert str(Path(tmp_path)) not in source


# --- PostgreSQL


MADE_BY_HAND = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE author (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (name <> ''),
    feels mood NOT NULL DEFAULT 'good',
    said_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE book (
    id serial PRIMARY KEY,
    author bigint NOT NULL REFERENCES author ON DELETE CASCADE,
    title varchar(200) NOT NULL,
    title_length integer GENERATED ALWAYS AS (length(title)) STORED,
    feels mood,
    UNIQUE (author, title)
);
CREATE INDEX book_long ON book (title) WHERE length(title) > 100;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.said_at = now(); RETURN NEW; END';
CREATE TRIGGER author_touched BEFORE UPDATE ON author FOR EACH ROW EXECUTE FUNCTION touch();
CREATE SCHEMA audit;
CREATE TABLE audit.entry (id bigint PRIMARY KEY, told jsonb NOT NULL DEFAULT '{}');
"""


@pytest.mark.postgres
def test_tables_made_by_hand_become_a_first_revision_that_makes_the_same(tmp_path, migrated):
    address = migrated("context_service").rpartition("/")[0]
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE by_hand")
    address = f"{address}/by_hand"
    environ = {"POSTGRES_URL": address}
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(MADE_BY_HAND)
        code, out, err = new_from(tmp_path, "postgres", **environ)
        assert code == 0, err
        assert "taken/migrations/taken_0001.py" in out
        assert "not declared" not in err
        stamp = [
            "migrate",
            "stamp",
            "taken_0001",
            "--blueprint",
            "taken",
            "--yes",
            "--url",
            address,
        ]
        code, _, err = run_here(stamp, tmp_path, environ)
        assert code == 0, err
        assert [needs_nothing(store) for store in planned(tmp_path, **environ)] == [True]
        code, out, err = run_here(["verify", "--blueprint", "taken"], tmp_path, environ)
        assert code == 0, out + err
    finally:
        with psycopg.connect(address.replace("by_hand", "postgres"), autocommit=True) as connection:
            connection.execute("DROP DATABASE by_hand WITH (FORCE)")


@pytest.mark.postgres
def test_a_type_that_sqlalchemy_does_not_know_is_named_with_its_column(tmp_path, postgres_url):
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE place (id int PRIMARY KEY, spot point)")
    code, _, err = new_from(tmp_path, "postgres", POSTGRES_URL=postgres_url)
    assert code == 2
    assert "the type of place.spot" in err
    assert not (tmp_path / "taken").exists()

"""One memory for each target of a fleet, in stores of its own and in stores that all share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid

import neo4j
import psycopg
import pytest

from is_db_bootstrap.settings import StoreUrl
from servers import milvus_client

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
    pytest.mark.acceptance,
]
BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern

HERE = Path(__file__).parent
FIELDS = (Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=8))
BLUEPRINT = Blueprint(
    "mine", "for tests", migrations=HERE / "migrations", cypher=HERE / "cypher",
    collections=(Collection("docs_v1", fields=FIELDS, indexes=(Index("v", "FLAT", "IP"),)),),
    keys=(KeyPattern("k", "k:{x}", "string", 60, "app", "x"),),
)
"""
REVISION = '''
"""A table."""
from alembic import op

revision = "m_000{n}"
down_revision = {before}


def upgrade():
    op.execute("CREATE TABLE t{n} (id int)")


def downgrade():
    op.execute("DROP TABLE t{n}")
'''


@pytest.fixture
def databases(farm):
    server = farm.shared("postgres")
    prefix = f"fleet_{uuid.uuid4().hex[:8]}"
    made = [f"{prefix}_a", f"{prefix}_b"]
    yield made
    for name in made:
        _drop(server.url, name)


def _drop(url, name):
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _exists(url, name):
    with psycopg.connect(f"{url}/postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        return connection.execute(query, [name]).fetchone() == (1,)


@pytest.fixture
def shared(farm, neo4j_url, milvus_url, redis_url):
    """The addresses of the stores that all targets share."""
    return {
        "POSTGRES_URL": farm.shared("postgres").url,
        "NEO4J_URL": neo4j_url,
        "MILVUS_URL": milvus_url,
        "REDIS_URL": redis_url,
    }


@pytest.fixture
def call(tmp_path, databases, shared):
    """`call("apply", "--targets", …)` on the shared stores: exit code and document."""
    (tmp_path / "mine.py").write_text(BLUEPRINT)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "cypher").mkdir()
    (tmp_path / "cypher" / "V1__a.cypher").write_text("CREATE (:A {id: 1});\n")
    (tmp_path / "migrations" / "m_0001_t.py").write_text(REVISION.format(n=1, before=None))
    targets = [{"name": each[-1], "postgres": {"database": each}} for each in databases]
    (tmp_path / "targets").write_text("".join(json.dumps(each) + "\n" for each in targets))
    prefixes = ("POSTGRES", "DB_", "DATABASE", "NEO4J", "MILVUS", "REDIS", "IS_DB_BOOTSTRAP_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    env |= shared | {"PYTHONDONTWRITEBYTECODE": "1"}

    def run(command, *options, **environ):
        line = [sys.executable, "-m", "is_db_bootstrap", command, "-b", "mine:BLUEPRINT"]
        done = subprocess.run(
            [*line, "-o", "json", *options],
            cwd=tmp_path,
            env=env | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


#: Both targets at a time.
FLEET = ("--targets", "targets", "--jobs", "2")
GO_ON = "--continue-on-error"


def ends(document):
    return {each["name"]: (each["outcome"], each["exit_code"]) for each in document["targets"]}


def errors(document, target):
    """Kind and message of each store of a target that failed."""
    (found,) = [each for each in document["targets"] if each["name"] == target]
    return {
        each["store"]: (each["error"]["kind"], each["error"]["message"])
        for each in found["run"]["stores"]
        if each["error"]
    }


def keys_in_graph(url):
    """The places in PostgreSQL that records in Neo4j tell of, by key."""
    url = StoreUrl.parse("neo4j", url)
    auth = (url.username, url.password)
    with neo4j.GraphDatabase.driver(f"bolt://{url.hosts}", auth=auth) as driver:
        rows = driver.execute_query("MATCH (m:__IsDbBootstrapMemory) RETURN m.record").records
    records = [json.loads(row[0]) for row in rows]
    return {each["key"]: each["members"]["postgres"]["place"] for each in records}


def keys_in_database(url):
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT key FROM is_db_bootstrap.memory")]


def test_each_target_has_its_own_memory_also_where_targets_share_stores(
    call, databases, tmp_path, shared
):
    for outcome in ("changed", "unchanged"):
        code, document = call("apply", *FLEET, GO_ON)
        assert (code, ends(document)) == (0, {"a": (outcome, 0), "b": (outcome, 0)}), document
    in_graph = keys_in_graph(shared["NEO4J_URL"])
    assert len(in_graph) == len({*in_graph.values()}) == 2
    client = milvus_client(shared["MILVUS_URL"])
    properties = client.describe_collection("docs_v1")["properties"]
    own = {name for name in properties if name.startswith("is_db_bootstrap.memory.")}
    assert own == {f"is_db_bootstrap.memory.{key}" for key in in_graph}
    urls = [f"{shared['POSTGRES_URL']}/{name}" for name in databases]
    in_databases = [keys_in_database(url) for url in urls]
    assert sorted(key for keys in in_databases for key in keys) == sorted(in_graph)
    assert [len(keys) for keys in in_databases] == [1, 1]

    _drop(shared["POSTGRES_URL"], databases[0])
    (tmp_path / "migrations" / "m_0002_t.py").write_text(REVISION.format(n=2, before="'m_0001'"))
    _only_one_is_lost(call)
    assert not _exists(shared["POSTGRES_URL"], databases[0])

    # The target by itself says that it is to be made anew.
    code, document = call("apply", "--accept-reset", "postgres", POSTGRES_URL=urls[0])
    assert code == 0, document
    code, document = call("apply", *FLEET, GO_ON)
    assert (code, ends(document)) == (0, {"a": ("unchanged", 0), "b": ("unchanged", 0)}), document

    client.drop_collection("docs_v1")
    code, document = call("apply", *FLEET, GO_ON)
    assert (code, ends(document)) == (8, {"a": ("failed", 8), "b": ("failed", 8)}), document
    assert list(errors(document, "b")) == ["milvus"]
    assert client.list_collections() == []
    client.close()


def _only_one_is_lost(call):
    """The target that has lost its database says so, and the other one is brought further."""
    for command, other in (("plan", "planned"), ("apply", "changed"), ("verify", "unchanged")):
        more = [GO_ON] if command == "apply" else []
        code, document = call(command, *FLEET, *more)
        assert code == 8, document
        assert ends(document) == {"a": ("failed", 8), "b": (other, 0)}, document
        ((store, (kind, message)),) = errors(document, "a").items()
        assert (store, kind) == ("postgres", "reset")
        assert "neo4j" in message

"""What a clean store costs a test: 200 tests a way, the time of their set-up and tear-down as pytest measures it.

    pip install pytest-postgresql
    python benchmarks/isolation.py [--tests 200]

starts servers of its own, runs each way in a pytest of its own, prints a table in Markdown and ends the servers. The way beside
ours is what a team writes by hand or takes from PyPI today, on the same servers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from is_db_bootstrap import local
from is_db_bootstrap.settings import StoreUrl

SCHEMA = Path(__file__).parent.parent / "migrations" / "novel_genesis" / "schema.sql"

CONFTEST = """
import collections, json, os, pytest
spent = collections.defaultdict(float)
def pytest_runtest_logreport(report):
    if report.when != "call":
        spent[report.nodeid] += report.duration
def pytest_sessionfinish(session):
    with open(os.environ["SPENT"], "w") as file:
        json.dump(list(spent.values())[1:], file)  # the first one starts servers
"""

#: One row written, and nothing else; `{body}` is slept before.
WAYS = {
    "PostgreSQL: `postgres`, tests back to back": """
def test_it(postgres, n):
    with postgres.begin() as c: c.exec_driver_sql("INSERT INTO domain_events (event_type) SELECT 'x' WHERE false")
""",
    "PostgreSQL: `postgres`, tests of 100 ms": """
import time
def test_it(postgres, n):
    time.sleep(0.1)
    with postgres.begin() as c: c.exec_driver_sql("INSERT INTO domain_events (event_type) SELECT 'x' WHERE false")
""",
    "PostgreSQL: pytest-postgresql, template": """
import psycopg, os
from pytest_postgresql import factories
def load(host, port, user, dbname, password, **_):
    with psycopg.connect(host=host, port=port, user=user, dbname=dbname, password=password) as c:
        c.execute("\\n".join(line for line in open(os.environ["SCHEMA"]) if not line.startswith("\\\\")))
server = factories.postgresql_noproc(host="127.0.0.1", port=int(os.environ["PGPORT"]), user="postgres",
                                     password=os.environ["PGPASSWORD"], load=[load])
postgresql = factories.postgresql("server")
def test_it(postgresql, n):
    with postgresql.cursor() as c: c.execute("INSERT INTO domain_events (event_type) SELECT 'x' WHERE false")
""",
    "PostgreSQL: one database, TRUNCATE of all tables": """
import pytest, sqlalchemy
@pytest.fixture(scope="session")
def engine():
    from is_db_bootstrap.testing import isolated_stores
    with isolated_stores("novel_genesis") as stores: yield stores.postgres
@pytest.fixture
def truncated(engine):
    yield engine
    with engine.begin() as c:
        names = c.exec_driver_sql("SELECT string_agg(quote_ident(tablename), ',') FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'").scalar()
        c.exec_driver_sql("SET LOCAL session_replication_role = replica")  # an append-only table refuses otherwise
        c.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
def test_it(truncated, n):
    with truncated.begin() as c: c.exec_driver_sql("INSERT INTO domain_events (event_type) SELECT 'x' WHERE false")
""",
    "Neo4j: `neo4j`, 1,000 nodes written": """
def test_it(neo4j, n):
    neo4j.execute_query("UNWIND range(1, 1000) AS i CREATE (:Page {i: i})")
""",
    "Neo4j: `MATCH (n) DETACH DELETE n` by hand, 1,000 nodes written": """
import pytest
@pytest.fixture(scope="session")
def driver():
    from is_db_bootstrap.testing import isolated_stores
    with isolated_stores("novel_genesis") as stores: yield stores.neo4j
@pytest.fixture
def wiped(driver):
    yield driver
    driver.execute_query("MATCH (n) WHERE NOT n:__Neo4jMigration DETACH DELETE n")
def test_it(wiped, n):
    wiped.execute_query("UNWIND range(1, 1000) AS i CREATE (:Page {i: i})")
""",
    "Milvus: `milvus`, tests back to back": """
def test_it(milvus, n):
    assert milvus.list_collections()
""",
    "Milvus: `milvus`, tests of 500 ms": """
import time
def test_it(milvus, n):
    time.sleep(0.5)
    assert milvus.list_collections()
""",
    "Milvus: the collection dropped and made by hand": """
import pytest
from is_db_bootstrap.blueprints.novel_genesis import vectors
from is_db_bootstrap.stores.milvus.schema import schema
declared = vectors.collection()
@pytest.fixture(scope="session")
def client():
    from is_db_bootstrap.testing import isolated_stores
    with isolated_stores("novel_genesis") as stores:
        stores.milvus.drop_alias("novel_embeddings"); stores.milvus.drop_collection(declared.name)
        yield stores.milvus
@pytest.fixture
def made(client):
    client.create_collection(declared.name, schema=schema(declared))
    params = client.prepare_index_params()
    for index in declared.indexes:
        params.add_index(index.field, index_type="FLAT" if index.metric else "INVERTED", index_name=index.field, **({"metric_type": index.metric} if index.metric else {}))
    client.create_index(declared.name, params)
    client.load_collection(declared.name)
    client.create_alias(declared.name, "novel_embeddings")
    yield client
    client.drop_alias("novel_embeddings")
    client.drop_collection(declared.name)
def test_it(made, n):
    assert made.list_collections()
""",
    "Redis: `redis`": """
def test_it(redis, n):
    redis.set("a", n)
""",
    "Redis: FLUSHDB by hand": """
import pytest
@pytest.fixture(scope="session")
def client():
    from is_db_bootstrap.testing import isolated_stores
    with isolated_stores("novel_genesis") as stores: yield stores.redis
@pytest.fixture
def flushed(client):
    yield client
    client.flushdb()
def test_it(flushed, n):
    flushed.set("a", n)
""",
}


def measure(name, text, tests, environ, folder):
    """Milliseconds of each test's set-up and tear-down."""
    number = min(tests, 40) if "500 ms" in name else tests
    (folder / "test_it.py").write_text(
        f"{text}\ndef pytest_generate_tests(metafunc): metafunc.parametrize('n', range({number}))\n"
    )
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\nis_db_blueprint = novel_genesis\n")
    spent = folder / "spent.json"
    plugins = [
        "-p",
        "no:asyncio",
        *([] if "pytest-postgresql" in name else ["-p", "no:postgresql"]),
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        "--keep-servers",
        *plugins,
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ | {"SPENT": str(spent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name}:\n{done.stdout[:3000]}{done.stderr[-1000:]}")
    return [seconds * 1000 for seconds in json.loads(spent.read_text())]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--tests", type=int, default=200, help="tests a way (those of 500 ms: at most 40)"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="is-db-bootstrap-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        shared = folder / "data" / "testing" / "local" / "shared"
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("DB_", "PG"))}
        environ |= {
            "IS_DB_BOOTSTRAP_DATA": str(folder / "data"),
            "SCHEMA": str(SCHEMA),
            "PYTHONWARNINGS": "ignore",
        }
        try:
            [server] = local.up(shared, stores=("postgres",), durable=False).servers
            url = StoreUrl.parse("postgres", server.url)
            environ |= {"PGPORT": str(url.port(5432)), "PGPASSWORD": url.password}
            print("| what | median, ms | 95th of 100 | slowest |\n|---|---|---|---|")
            for name, text in WAYS.items():
                took = measure(name, text, given.tests, environ, folder)
                cuts = statistics.quantiles(took, n=100)
                print(
                    f"| {name} | {statistics.median(took):.1f} | {cuts[94]:.1f} | {max(took):.1f} |",
                    flush=True,
                )
        finally:
            for stack in shared.parent.glob("*"):
                local.down(stack, durable=False)


if __name__ == "__main__":
    main()

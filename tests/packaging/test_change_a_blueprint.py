"""docs/how-to/change-a-blueprint.md, followed from its first line to its last on real servers."""

from __future__ import annotations

import neo4j
import psycopg
import pytest
import redis

from is_db_bootstrap.settings import StoreUrl
from pages import Reader, blocks
from servers import milvus_client

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
    pytest.mark.timeout(1200),
]
PAGE = "docs/how-to/change-a-blueprint.md"
#: What the reader of the page has: a model.
MODEL = """
def embed_notes(rows):
    return [{"embedding": [len(row["id"])] * 768} for row in rows]
"""


class Application:
    """Writes what an application of the first release would, and looks at it afterwards."""

    def __init__(self, addresses):
        self.sql = psycopg.connect(addresses["POSTGRES_URL"], autocommit=True)
        url = StoreUrl.parse("neo4j", addresses["NEO4J_URL"])
        self.graph = neo4j.GraphDatabase.driver(
            f"bolt://{url.hosts}",
            auth=(url.username, url.password),
            notifications_min_severity="OFF",
        )
        self.vectors = milvus_client(addresses["MILVUS_URL"])
        self.keys = redis.Redis.from_url(addresses["REDIS_URL"], decode_responses=True)

    def close(self):
        for client in (self.sql, self.graph, self.vectors, self.keys):
            client.close()

    def write(self):
        self.sql.execute("INSERT INTO notes (title) SELECT 'n' || n FROM generate_series(1, 9) n")
        self.graph.execute_query(
            "UNWIND range(1, 6) AS n CREATE (:Note {id: toString(n), title: 't' + n % 4})"
            "-[:HAS_TAG {at: n}]->(:Tag {name: 'g' + n})"
        )
        rows = [{"id": f"n{number}", "embedding": [0.5] * 384} for number in range(20)]
        self.vectors.insert("shop_notes", rows)
        self.keys.set("shop:session:1", "x", ex=3500)
        self.keys.set("shop:session:2", "x")

    def found(self):
        """What the second release is about, in each store."""
        titles = self.graph.execute_query(
            "MATCH (n:Note)-[r:HAS_TAG]->(t) "
            "RETURN count(DISTINCT n), count(DISTINCT n.title), count(r), count(DISTINCT t)"
        )
        [vector] = self.vectors.query("shop_notes", filter='id == "n7"', output_fields=["*"])
        return {
            "languages": self.sql.execute(
                "SELECT language, count(*) FROM notes GROUP BY language"
            ).fetchall(),
            "notes, titles, relationships, tags": titles.records[0].values(),
            "vectors": self.vectors.query("shop_notes", output_fields=["count(*)"])[0]["count(*)"],
            "dimension": len(vector["embedding"]),
            "older lifetime": 0 < self.keys.ttl("shop:session:1") <= 3500,
            "missing lifetime": 86_000 < self.keys.ttl("shop:session:2") <= 86_400,
        }


@pytest.fixture
def addresses(postgres_url, neo4j_url, milvus_url, redis_url):
    return {
        "POSTGRES_URL": postgres_url,
        "NEO4J_URL": neo4j_url,
        "MILVUS_URL": milvus_url,
        "REDIS_URL": redis_url,
    }


def test_the_page_leads_to_a_second_release_that_loses_nothing(tmp_path, addresses):
    reader = Reader(tmp_path, addresses)
    first, *others = blocks(PAGE)
    reader.follow(first)
    (reader.folder / "my_model.py").write_text(MODEL)
    application = Application(addresses)
    application.write()
    for block in others:
        reader.follow(block)
    found = application.found()
    application.close()
    assert found == {
        "languages": [("en", 9)],
        "notes, titles, relationships, tags": [4, 4, 6, 6],
        "vectors": 20,
        "dimension": 768,
        "older lifetime": True,
        "missing lifetime": True,
    }
    done = reader.type("is-db-bootstrap plan --exit-code && is-db-bootstrap check")
    assert done.returncode == 0, done.stdout + done.stderr

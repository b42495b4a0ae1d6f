import json
import subprocess

import jsonschema
import neo4j
import psycopg
import pymilvus
import pytest
import redis

from is_db_bootstrap.settings import StoreUrl
from servers import milvus_client
from wheel import ROOT, surroundings

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
]
STORES = ["postgres", "neo4j", "milvus", "redis"]
SCHEMA = json.loads((ROOT / "docs/reference/result.schema.json").read_text())


def by_store(document, what="outcome"):
    return {s["store"]: s[what] for s in document["stores"]}


def graph(url, text):
    address = StoreUrl.parse("neo4j", url)
    auth = (address.username, address.password)
    with neo4j.GraphDatabase.driver(
        f"bolt://{address.hosts}", auth=auth, notifications_min_severity="OFF"
    ) as driver:
        return [r.data() for r in driver.execute_query(text).records]


def plain_milvus(url):
    return milvus_client(url)


def fingerprint(four):
    """What plain clients see of all four stores; anything written shows here."""
    with psycopg.connect(four["POSTGRES_URL"]) as pg:
        tables = pg.execute(
            "SELECT relname, relfilenode FROM pg_class WHERE relnamespace = "
            "'public'::regnamespace ORDER BY 1"
        )
        rows = pg.execute(
            "SELECT schemaname, relname, n_tup_ins, n_tup_upd, n_tup_del FROM "
            "pg_stat_user_tables ORDER BY 2"
        )
        version = pg.execute("SELECT version_num, xmin::text FROM alembic_version")
        sql = [tables.fetchall(), rows.fetchall(), version.fetchall()]
    nodes = graph(
        four["NEO4J_URL"], "MATCH (n) RETURN elementId(n) AS id, properties(n) AS p ORDER BY id"
    )
    schema = graph(four["NEO4J_URL"], "SHOW INDEXES YIELD name, id RETURN name, id ORDER BY name")
    milvus = plain_milvus(four["MILVUS_URL"])
    collections = {c: str(milvus.describe_collection(c)) for c in milvus.list_collections()}
    milvus.close()
    with redis.Redis.from_url(four["REDIS_URL"]) as client:
        keys = {key: client.get(key) for key in sorted(client.scan_iter())}
    return repr([sql, nodes, schema, collections, keys])


def test_one_command_brings_four_empty_stores_to_the_blueprint_and_a_second_changes_nothing(
    shell, four
):
    first = shell.json()
    assert by_store(first) == dict.fromkeys(STORES, "changed"), first
    assert (first["outcome"], first["exit_code"]) == ("changed", 0)
    jsonschema.validate(first, SCHEMA)
    before = fingerprint(four)
    second = shell.json()
    assert by_store(second) == dict.fromkeys(STORES, "unchanged"), second
    assert second["exit_code"] == 0
    jsonschema.validate(second, SCHEMA)
    assert fingerprint(four) == before


def test_plain_clients_see_what_the_blueprint_says(shell, four):
    assert shell().returncode == 0
    with psycopg.connect(four["POSTGRES_URL"]) as pg:
        tables = {
            r[0] for r in pg.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }
    assert tables == {
        "alembic_version",
        "command_inbox",
        "conversation_rounds",
        "conversation_sessions",
        "domain_events",
        "event_outbox",
    }
    constraints = graph(four["NEO4J_URL"], "SHOW CONSTRAINTS YIELD name RETURN name")
    assert (
        len([c for c in constraints if c["name"].startswith("unique_") and "__" not in c["name"]])
        == 8
    )
    milvus = plain_milvus(four["MILVUS_URL"])
    assert milvus.describe_alias("novel_embeddings")["collection_name"] == "novel_embeddings_v1"
    milvus.close()
    with redis.Redis.from_url(four["REDIS_URL"]) as client:
        assert sorted(client.scan_iter()) == [
            b"is-db-bootstrap:conventions:novel_genesis",
            b"is-db-bootstrap:memory:novel_genesis",
        ]
        assert (
            len(json.loads(client.get("is-db-bootstrap:conventions:novel_genesis"))["patterns"])
            == 12
        )


def test_nothing_changes_while_a_store_is_down(shell, four):
    document = shell.json("--timeout", "1", REDIS_URL="redis://127.0.0.1:1")
    assert document["exit_code"] == 4
    assert by_store(document) == {
        "postgres": "skipped",
        "neo4j": "skipped",
        "milvus": "skipped",
        "redis": "failed",
    }
    error = by_store(document, "error")["redis"]
    assert error["kind"] == "unavailable"
    assert "127.0.0.1:1" in error["message"]
    assert error["hint"]
    jsonschema.validate(document, SCHEMA)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(four["POSTGRES_URL"])
    assert graph(four["NEO4J_URL"], "SHOW CONSTRAINTS YIELD name RETURN name") == []
    with redis.Redis.from_url(four["REDIS_URL"]) as client:
        assert client.dbsize() == 0


def test_ng_16_a_collection_of_another_dimension_is_exit_6_and_keeps_its_rows_and_no_store_is_touched(
    shell, four
):
    milvus = plain_milvus(four["MILVUS_URL"])
    schema = milvus.create_schema()
    schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("embedding", pymilvus.DataType.FLOAT_VECTOR, dim=512)
    index = milvus.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="IP")
    milvus.create_collection("novel_embeddings_v1", schema=schema, index_params=index)
    milvus.insert("novel_embeddings_v1", [{"id": i, "embedding": [1.0] * 512} for i in range(3)])
    document = shell.json()
    assert document["exit_code"] == 6
    error = by_store(document, "error")["milvus"]
    assert error["kind"] == "conflict"
    assert "dim is 512, declared 768" in error["message"], error
    assert "novel_embeddings_v2" in error["hint"]
    assert by_store(document)["postgres"] == "skipped"
    milvus.load_collection("novel_embeddings_v1")
    assert len(milvus.query("novel_embeddings_v1", filter="id >= 0", output_fields=["id"])) == 3
    milvus.close()
    with redis.Redis.from_url(four["REDIS_URL"]) as client:
        assert client.dbsize() == 0


def test_ng_19_demo_data_only_with_seed_and_once(shell, four):
    def counted():
        with psycopg.connect(four["POSTGRES_URL"]) as pg:
            tables = (
                "conversation_sessions",
                "conversation_rounds",
                "domain_events",
                "command_inbox",
                "event_outbox",
            )
            rows = [pg.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]
        ours = "NOT any(l IN labels(n) WHERE l STARTS WITH '__')"
        nodes = graph(four["NEO4J_URL"], f"MATCH (n) WHERE {ours} RETURN count(n) AS n")[0]["n"]
        edges = graph(four["NEO4J_URL"], f"MATCH (n)-[r]->() WHERE {ours} RETURN count(r) AS n")[0][
            "n"
        ]
        return rows, nodes, edges

    assert shell().returncode == 0
    assert counted() == ([0, 0, 0, 0, 0], 0, 0)
    first = shell.json("--seed")
    assert counted() == ([1, 2, 0, 0, 0], 6, 9)
    assert by_store(first) == {
        "postgres": "changed",
        "neo4j": "changed",
        "milvus": "unchanged",
        "redis": "unchanged",
    }
    with psycopg.connect(four["POSTGRES_URL"]) as pg:
        pg.execute("UPDATE conversation_sessions SET stage = 'MINE'")
    graph(four["NEO4J_URL"], "MATCH (n:Novel) SET n.title = 'Mine'")
    second = shell.json("--seed")
    assert by_store(second) == dict.fromkeys(STORES, "unchanged")
    assert counted() == ([1, 2, 0, 0, 0], 6, 9)
    with psycopg.connect(four["POSTGRES_URL"]) as pg:
        assert pg.execute("SELECT stage FROM conversation_sessions").fetchone() == ("MINE",)
    assert graph(four["NEO4J_URL"], "MATCH (n:Novel) RETURN n.title AS t") == [{"t": "Mine"}]


def test_two_runs_at_once_one_applies_and_the_other_finds_nothing_to_do(shell, four):
    runs = [shell.start() for _ in range(2)]
    documents = [json.loads(r.communicate(timeout=120)[0]) for r in runs]
    assert [d["exit_code"] for d in documents] == [0, 0], documents
    # The database is made before there is a lock in it, so either of the two may be the one that
    # made it.
    made = [
        (s["store"], c["kind"], c["name"])
        for d in documents
        for s in d["stores"]
        for c in s["changes"]
        if c["outcome"] == "changed"
    ]
    assert len(made) == len(set(made)) == 1 + 4 + 2 + 5 + 1
    for store in ("neo4j", "milvus", "redis"):
        assert sorted(by_store(d)[store] for d in documents) == ["changed", "unchanged"]


def test_progress_goes_to_stderr_and_the_table_to_stdout(shell):
    done = shell("--verbose")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:5] if line] == STORES
    assert "from POSTGRES_URL" in done.stderr
    assert "ng_0004" in done.stderr
    assert shell("--quiet").stdout == ""


def test_a_password_is_nowhere_in_the_output(shell, four):
    secret = StoreUrl.parse("postgres", four["POSTGRES_URL"]).password
    for args in (["--verbose"], ["--verbose", "--output", "json"], ["status"]):
        done = shell(*args)
        assert secret not in done.stdout + done.stderr
        assert "p%C3%A4" not in done.stdout + done.stderr


def test_the_python_module_is_the_command(shell, command, tmp_path):
    python = command.parent / "python"
    done = subprocess.run(
        [python, "-m", "is_db_bootstrap", "status", "-o", "json"],
        cwd=tmp_path,
        env=surroundings(**shell.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert by_store(json.loads(done.stdout), "status")["postgres"]["recorded"] == ""


def test_a_plan_of_four_empty_stores_says_what_each_would_be_sent_and_sends_nothing(shell, four):
    document = shell.json("plan")
    jsonschema.validate(document, SCHEMA)
    changes = by_store(document, "changes")
    for store in STORES:
        planned = [change for change in changes[store] if change["outcome"] == "planned"]
        assert planned, store
        assert all(change["statements"] for change in planned), planned
        assert not any(change["is_code"] for change in planned), planned
    told = {store: [s for c in changes[store] for s in c["statements"]] for store in STORES}
    assert any(s.startswith("CREATE TABLE conversation_sessions (") for s in told["postgres"])
    assert any("FOR (n:Novel) REQUIRE n.novel_id IS UNIQUE;" in s for s in told["neo4j"])
    assert any("Field('embedding', FLOAT_VECTOR, dim=768)" in s for s in told["milvus"])
    assert any("login_session: session:id:{login_session_id}" in s for s in told["redis"])
    server, _, name = four["POSTGRES_URL"].rpartition("/")
    with psycopg.connect(f"{server}/postgres") as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
        assert found.fetchall() == []
    assert graph(four["NEO4J_URL"], "MATCH (n) RETURN n") == []
    milvus = plain_milvus(four["MILVUS_URL"])
    assert milvus.list_collections() == []
    milvus.close()
    with redis.Redis.from_url(four["REDIS_URL"]) as client:
        assert client.dbsize() == 0

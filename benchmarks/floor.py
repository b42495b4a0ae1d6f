"""The floor: the statements of novel_genesis, sent by plain clients in one process, one thread a store.

    python benchmarks/floor.py cold|noop STATEMENTS.sql [postgres|neo4j|milvus|redis]...

Nothing is compared, locked, retried or reported: what is here, any tool must do. `noop` asks each store what is there, once an object.
STATEMENTS.sql is what `alembic upgrade head --sql` writes.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CYPHER = Path(__file__).parent.parent / "cypher" / "novel_genesis"
DATABASE = "novel_genesis"
COLLECTION, ALIAS = "novel_embeddings_v1", "novel_embeddings"
RECORD = "is-db-bootstrap:conventions:novel_genesis"


def postgres(mode, statements):
    import psycopg

    url = os.environ["POSTGRES_URL"]
    if mode == "cold":
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        with psycopg.connect(f"{url}/{DATABASE}", autocommit=True) as connection:
            connection.execute(Path(statements).read_text(encoding="utf-8"))
        return
    with psycopg.connect(f"{url}/{DATABASE}", autocommit=True) as connection:
        connection.execute("SELECT version_num FROM alembic_version").fetchone()
        for relation in (
            "pg_attribute",
            "pg_constraint",
            "pg_index",
            "pg_trigger",
            "pg_enum",
            "pg_proc",
        ):
            scope = "WHERE attrelid > 16383" if relation == "pg_attribute" else ""
            connection.execute(f"SELECT * FROM {relation} {scope}").fetchall()


def cypher_statements():
    for file in ("V001__constraints.cypher", "V002__indexes.cypher"):
        text = (CYPHER / file).read_text(encoding="utf-8")
        code = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
        yield from (s for s in code.split(";") if s.strip())


def neo4j(mode, _):
    from neo4j import GraphDatabase

    url, auth = os.environ["NEO4J_URL"], ("neo4j", os.environ.get("NEO4J_PASSWORD", ""))
    scheme, _, rest = url.partition("://")
    if "@" in rest:
        from urllib.parse import unquote

        login, _, rest = rest.rpartition("@")
        auth = tuple(map(unquote, login.split(":", 1)))
    with (
        GraphDatabase.driver(f"{scheme}://{rest}", auth=auth) as driver,
        driver.session(database="neo4j") as session,
    ):
        if mode == "cold":
            for statement in cypher_statements():
                session.run(statement).consume()
            session.run("CALL db.awaitIndexes(60)").consume()
        else:
            session.run("MATCH (m:__Neo4jMigration) RETURN m").consume()
            for statement in ("SHOW CONSTRAINTS", "SHOW INDEXES"):
                list(session.run(statement))


def milvus(mode, _):
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(os.environ["MILVUS_URL"])
    if mode == "noop":
        client.describe_alias(ALIAS)
        client.describe_collection(COLLECTION)
        for name in client.list_indexes(COLLECTION):
            client.describe_index(COLLECTION, name)
        client.get_load_state(COLLECTION)
        return
    schema = client.create_schema(enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True, auto_id=True)
    schema.add_field("novel_id", DataType.VARCHAR, max_length=100, is_partition_key=True)
    schema.add_field("chunk_id", DataType.VARCHAR, max_length=100)
    schema.add_field("content_type", DataType.VARCHAR, max_length=50)
    schema.add_field("content", DataType.VARCHAR, max_length=8192)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=768)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("created_at", DataType.INT64)
    client.create_collection(
        COLLECTION, schema=schema, num_shards=1, num_partitions=16, consistency_level="Bounded"
    )
    for field, params in (
        ("embedding", {"index_type": "IVF_FLAT", "metric_type": "IP", "params": {"nlist": 128}}),
        ("content_type", {"index_type": "INVERTED"}),
    ):
        indexes = client.prepare_index_params()
        indexes.add_index(field, index_name=field, **params)
        client.create_index(COLLECTION, indexes, sync=False)
    client.create_alias(COLLECTION, ALIAS)
    client.load_collection(COLLECTION)


def redis(mode, _):
    import redis

    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        if mode == "cold":
            client.set(RECORD, "x" * 4000)
            client.set("is-db-bootstrap:probe", "1", ex=5)
            client.get("is-db-bootstrap:probe")
            client.delete("is-db-bootstrap:probe")
        client.get(RECORD)
        client.info()


def main(mode, statements, *names):
    stores = {f.__name__: f for f in (postgres, neo4j, milvus, redis)}
    with ThreadPoolExecutor(len(stores)) as pool:
        for future in [pool.submit(stores[name], mode, statements) for name in names or stores]:
            future.result()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Stores that were converged and then lost, on four real servers: exit 8, and nothing made anew."""

from __future__ import annotations

import jsonschema
import pytest
from acceptance.test_four_stores import SCHEMA, STORES, by_store, fingerprint, graph, plain_milvus

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
]
TWO_COLLECTIONS = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index


def collection(name):
    fields = (Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=8))
    return Collection(name, fields=fields, indexes=(Index("v", "FLAT", "IP"),), alias=name[:-3])


BLUEPRINT = Blueprint(
    "mine", "for tests", cypher=Path(__file__).parent / "cypher",
    collections=(collection("docs_v1"), collection("tags_v1")),
)
"""


def wipe_milvus(four):
    client = plain_milvus(four["MILVUS_URL"])
    for name in client.list_collections():
        for alias in client.list_aliases(name)["aliases"]:
            client.drop_alias(alias)
        client.drop_collection(name)
    client.close()


def collections(four):
    client = plain_milvus(four["MILVUS_URL"])
    try:
        return sorted(client.list_collections())
    finally:
        client.close()


def wipe_nodes(four):
    graph(four["NEO4J_URL"], "MATCH (n) DETACH DELETE n")


def wipe_graph(four):
    wipe_nodes(four)
    for row in graph(four["NEO4J_URL"], "SHOW CONSTRAINTS YIELD name RETURN name"):
        graph(four["NEO4J_URL"], f"DROP CONSTRAINT `{row['name']}`")
    indexes = "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name"
    for row in graph(four["NEO4J_URL"], indexes):
        graph(four["NEO4J_URL"], f"DROP INDEX `{row['name']}`")


def refused(document, store):
    """The error of the store that was lost. No other store was touched."""
    assert document["exit_code"] == 8, document
    jsonschema.validate(document, SCHEMA)
    error = by_store(document, "error")[store]
    assert error["kind"] == "reset", error
    outcomes = {each["outcome"] for rows in by_store(document, "changes").values() for each in rows}
    assert outcomes <= {"planned", "skipped"}, document
    return error


def test_a_wiped_neo4j_ends_apply_plan_and_verify_with_8_and_an_accepted_reset_rebuilds_it(
    shell, four
):
    assert shell.json("apply", "--seed")["exit_code"] == 0
    ours = "NOT any(label IN labels(n) WHERE label STARTS WITH '__')"
    counted = graph(four["NEO4J_URL"], f"MATCH (n) WHERE {ours} RETURN count(n) AS n")
    assert counted == [{"n": 6}]
    recorded = graph(four["NEO4J_URL"], "MATCH (n:__IsDbBootstrapMemory) RETURN count(n) AS n")
    assert recorded == [{"n": 1}]
    assert shell.json("verify", "--strict")["exit_code"] == 0
    assert collections(four) == ["novel_embeddings_v1"]
    wipe_nodes(four)  # constraints and indexes stay
    before = fingerprint(four)
    for call in ("apply", "plan", "verify"):
        error = refused(shell.json(call), "neo4j")
        assert "is blank" in error["message"], error
        assert "as postgres, milvus and redis remember" in error["message"]
        assert "UTC" in error["message"]
        assert "--accept-reset neo4j" in error["hint"]
        assert "backup" in error["hint"]
    assert shell.json("apply", "--accept-reset", "milvus")["exit_code"] == 2
    assert fingerprint(four) == before
    accepted = shell.json("apply", "--accept-reset", "neo4j")
    assert accepted["exit_code"] == 0, accepted
    assert by_store(accepted)["neo4j"] == "changed"
    again = shell.json()
    assert by_store(again) == dict.fromkeys(STORES, "unchanged"), again


def test_two_lost_stores_are_both_named_and_both_must_be_accepted(shell, four):
    assert shell.json()["exit_code"] == 0
    wipe_milvus(four)
    wipe_graph(four)
    document = shell.json("apply")
    for store in ("neo4j", "milvus"):
        assert "is blank" in refused(document, store)["message"]
    refused(shell.json("apply", "--accept-reset", "milvus"), "neo4j")
    assert collections(four) == []
    status = shell.json("status")
    assert any("is blank" in note for note in by_store(status, "notes")["milvus"]), status
    both = shell.json("apply", "--accept-reset", "milvus", "--accept-reset", "neo4j")
    assert both["exit_code"] == 0, both
    assert collections(four) == ["novel_embeddings_v1"]
    assert by_store(shell.json()) == dict.fromkeys(STORES, "unchanged")


def test_one_dropped_collection_is_named_and_the_other_one_is_left_alone(shell, four):
    (shell.folder / "mine.py").write_text(TWO_COLLECTIONS)
    (shell.folder / "cypher").mkdir()
    (shell.folder / "cypher" / "V1__a.cypher").write_text("CREATE (:A {id: 1});\n")
    own = ("--blueprint", "mine:BLUEPRINT")
    first = shell.json("apply", *own)
    assert first["exit_code"] == 0, first
    client = plain_milvus(four["MILVUS_URL"])
    client.drop_alias("tags")
    client.drop_collection("tags_v1")
    client.close()
    document = shell.json("apply", *own)
    assert document["exit_code"] == 8
    error = by_store(document, "error")["milvus"]
    assert "alias tags and tags_v1 of" in error["message"], error
    assert "docs_v1" not in error["message"]
    assert "milvus" in error["message"]
    assert collections(four) == ["docs_v1"]
    accepted = shell.json("apply", *own, "--accept-reset", "milvus")
    assert accepted["exit_code"] == 0, accepted
    assert collections(four) == ["docs_v1", "tags_v1"]
    again = shell.json("apply", *own)
    assert set(by_store(again).values()) == {"unchanged"}

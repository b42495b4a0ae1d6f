"""Declared constraints and indexes against rows as the Cypher manual shows them.

The constraints are of the Enterprise Edition, which no server here has.
"""

from __future__ import annotations

import pytest

from is_db_bootstrap.stores.neo4j.compare import drifts
from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import split
from is_db_bootstrap.stores.neo4j.property_type import normal_type
from is_db_bootstrap.stores.neo4j.schema_proof import _unfinished


def declared(text: str) -> SchemaObject:
    (statement,) = split(text)
    found = recognise(statement.tokens)
    assert isinstance(found, SchemaObject)
    return found


def row(kind: str, *, entity: str = "NODE", on: str = "Movie", shown: str | None = None) -> dict:
    return {
        "name": "c",
        "type": kind,
        "entityType": entity,
        "labelsOrTypes": [on],
        "properties": ["p"],
        "propertyType": shown,
    }


def index_row(name: str, kind: str = "RANGE", **other) -> dict:
    return {
        "name": name,
        "type": kind,
        "state": "ONLINE",
        "entityType": "NODE",
        "labelsOrTypes": ["Movie"],
        "properties": ["p"],
        "owningConstraint": None,
        "failureMessage": "",
        "options": {"indexConfig": {}, "indexProvider": "range-1.0"},
    } | other


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("STRING", "STRING"),
        ("VARCHAR", "STRING"),
        ("INT", "INTEGER"),
        ("SIGNED INTEGER", "INTEGER"),
        ("bool", "BOOLEAN"),
        ("TIMESTAMP WITHOUT TIME ZONE", "LOCAL DATETIME"),
        ("TIMESTAMP WITH TIMEZONE", "ZONED DATETIME"),
        ("TIME WITHOUT TIMEZONE", "LOCAL TIME"),
        ("TIME WITH TIME ZONE", "ZONED TIME"),
        ("STRING | INTEGER", "INTEGER | STRING"),
        ("INT|BOOL|VARCHAR", "BOOLEAN | STRING | INTEGER"),
        ("ANY<STRING | INT>", "INTEGER | STRING"),
        ("LIST<STRING NOT NULL>", "LIST<STRING NOT NULL>"),
        ("ARRAY<VARCHAR NOT NULL>", "LIST<STRING NOT NULL>"),
        ("VARCHAR NOT NULL LIST", "LIST<STRING NOT NULL>"),
        ("POINT | LIST<INT NOT NULL> | DATE", "DATE | POINT | LIST<INTEGER NOT NULL>"),
        ("VECTOR<INT8>(1024)", "VECTOR<INTEGER8>(1024)"),
        ("VECTOR<FLOAT>(3)", "VECTOR<FLOAT64>(3)"),
    ],
)
@pytest.mark.parametrize("spelling", ["IS ::", "IS TYPED"])
def test_property_types_are_equal_in_any_order_and_spelling(written, shown, spelling):
    wanted = declared(f"CREATE CONSTRAINT c FOR (n:Movie) REQUIRE n.p {spelling} {written}")
    for kind in ("PROPERTY_TYPE", "NODE_PROPERTY_TYPE"):
        live = LiveSchema.read([row(kind, shown=shown)], [])
        assert list(drifts([wanted], live)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("STRING", "INTEGER"),
        ("STRING", "STRING | INTEGER"),
        ("LIST<STRING NOT NULL>", "LIST<INTEGER NOT NULL>"),
        ("LOCAL TIME", "ZONED TIME"),
        ("VECTOR<FLOAT>(3)", "VECTOR<FLOAT>(4)"),
        ("FLOAT32", "FLOAT"),
    ],
)
def test_other_property_types_differ(one, other):
    wanted = declared(f"CREATE CONSTRAINT c FOR (n:Movie) REQUIRE n.p IS :: {one}")
    live = LiveSchema.read([row("NODE_PROPERTY_TYPE", shown=other)], [])
    assert [drift.message for drift in drifts([wanted], live)] == ["differs"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("IS UNIQUE", ["UNIQUENESS", "NODE_PROPERTY_UNIQUENESS"]),
        ("IS NODE UNIQUE", ["UNIQUENESS", "NODE_PROPERTY_UNIQUENESS"]),
        ("IS KEY", ["NODE_KEY"]),
        ("IS NODE KEY", ["NODE_KEY"]),
        ("IS NOT NULL", ["NODE_PROPERTY_EXISTENCE"]),
    ],
)
def test_constraints_are_equal_under_each_name_of_their_type(written, shown):
    wanted = declared(f"CREATE CONSTRAINT c FOR (n:Movie) REQUIRE (n.p) {written}")
    for kind in shown:
        assert list(drifts([wanted], LiveSchema.read([row(kind)], []))) == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("IS RELATIONSHIP UNIQUE", "RELATIONSHIP_PROPERTY_UNIQUENESS"),
        ("IS REL KEY", "RELATIONSHIP_KEY"),
        ("IS NOT NULL", "RELATIONSHIP_PROPERTY_EXISTENCE"),
        ("IS :: INT", "RELATIONSHIP_PROPERTY_TYPE"),
    ],
)
def test_constraints_of_relationships_are_equal(written, shown):
    wanted = declared(f"CREATE CONSTRAINT c FOR ()-[r:Movie]-() REQUIRE r.p {written}")
    kind = "INTEGER" if "TYPE" in shown else None
    live = LiveSchema.read([row(shown, entity="RELATIONSHIP", shown=kind)], [])
    assert list(drifts([wanted], live)) == []


def test_constraints_of_a_graph_type_are_no_constraints_of_properties():
    """`NODE_LABEL_EXISTENCE` says that a node has a second label."""
    live = LiveSchema.read([row("NODE_LABEL_EXISTENCE")], [])
    wanted = declared("CREATE CONSTRAINT c FOR (n:Movie) REQUIRE n.p IS NOT NULL")
    assert [drift.message for drift in drifts([wanted], live)] == ["differs"]


def test_an_index_is_waited_for_under_the_name_that_it_has():
    """One without a name, and one that is there under another name."""
    unnamed = declared("CREATE INDEX FOR (n:Movie) ON (n.p)")
    renamed = declared("CREATE INDEX ours IF NOT EXISTS FOR (n:Movie) ON (n.q)")
    rows = [
        index_row("index_1", state="POPULATING"),
        index_row("theirs", properties=["q"], state="POPULATING"),
        index_row("not_ours", properties=["r"], state="POPULATING"),
    ]
    assert _unfinished(LiveSchema.read([], rows), [unnamed, renamed]) == ["index_1", "theirs"]


def test_text_that_is_no_type_stays_readable():
    assert normal_type("something new<of|which ,nobody knows") != ""
    assert normal_type("") == ""

"""What a Neo4j database holds: nodes, relationships, constraints and indexes, without the marks of test runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject
from is_db_bootstrap.testing.content import Content, Thing, digest
from is_db_bootstrap.testing.neo4j_turn import MARK

#: A constraint's own index is no object of its own, and token lookups are the server's.
_CONSTRAINTS = (
    "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties, propertyType"
)
_INDEXES = (
    "SHOW INDEXES YIELD name, state, type, entityType, labelsOrTypes, properties, owningConstraint, failureMessage, options "
    "WHERE type <> 'LOOKUP'"
)
_NODES = f"""
MATCH (n) WHERE NOT n:{MARK}
RETURN elementId(n) AS id, labels(n) AS labels, properties(n) AS properties LIMIT $limit
"""
_RELATIONSHIPS = """
MATCH (a)-[r]->(b)
RETURN elementId(r) AS id, type(r) AS type, properties(r) AS properties, elementId(a) AS start, elementId(b) AS end
LIMIT $limit
"""
#: From the server's own counts, without a scan.
_SIZE = "MATCH (n) WITH count(n) AS nodes OPTIONAL MATCH ()-[r]->() RETURN nodes, count(r) AS relationships"
#: Own rows of the last statement of an Enterprise server about the user who asks.
_PRIVILEGES = "SHOW USER PRIVILEGES YIELD access, action, segment, graph"
_EDITION = "CALL dbms.components() YIELD edition RETURN edition LIMIT 1"
#: Actions that let a user see that a node is there.
_SEEING = frozenset({"match", "traverse"})

Ask = Callable[..., list[dict[str, Any]]]


def everything(ask: Ask, limit: int) -> Content:
    """At most `limit` nodes and as many relationships, and all schema objects but the beacon of test runs."""
    schema = LiveSchema.read(ask(_CONSTRAINTS), ask(_INDEXES))
    things = [
        _schema_thing(thing) for thing in schema.objects.values() if not thing.name.startswith(MARK)
    ]
    nodes = ask(_NODES, limit=limit + 1)
    relationships = ask(_RELATIONSHIPS, limit=limit + 1)
    things += map(node, nodes[:limit])
    things += map(_relationship, relationships[:limit])
    kinds = [
        kind
        for kind, rows in (("nodes", nodes), ("relationships", relationships))
        if len(rows) > limit
    ]
    unseen = f"and more: only {limit} {' and '.join(kinds)} were looked at" if kinds else ""
    return Content(tuple(things), unseen)


def is_larger(ask: Ask, limit: int) -> bool:
    """Whether there are more nodes or relationships than `limit`."""
    size = ask(_SIZE)[0]
    return bool(size["nodes"] > limit or size["relationships"] > limit)


def hidden(ask: Ask) -> str:
    """Why nodes may be there that this user is not shown; empty when the user is shown all.

    Community shows everything to everybody. Enterprise answers a user who may not see a node as if
    it did not exist.
    """
    if ask(_EDITION)[0]["edition"] != "enterprise":
        return ""
    return unseen_for(ask(_PRIVILEGES))


def unseen_for(privileges: Iterable[Mapping[str, Any]]) -> str:
    """The same, from the rows of SHOW USER PRIVILEGES (columns as in the operations manual of Neo4j 5)."""
    seeing = [row for row in privileges if str(row["action"]).lower() in _SEEING]
    denied = [row for row in seeing if str(row["access"]).upper() != "GRANTED"]
    if denied:
        return f"the user is denied {denied[0]['action']} on {denied[0]['segment']}"
    shown = {
        str(row["segment"]).upper().partition("(")[0]
        for row in seeing
        if "*" in str(row["segment"])
    }
    missing = {"NODE", "RELATIONSHIP"} - shown
    return (
        f"the user is not granted traverse on all of {', '.join(sorted(missing))}"
        if missing
        else ""
    )


def _schema_thing(thing: SchemaObject) -> Thing:
    told = digest(thing.kind, thing.name, thing.definition, sorted(thing.options))
    return Thing(thing.kind, name=thing.name, digest=told, handle=thing)


def node(row: Mapping[str, Any]) -> Thing:
    """One node, from a row with `id`, `labels` and `properties`."""
    labels = sorted(row["labels"])
    told = digest(row["id"], labels, row["properties"])
    return Thing("node", _pattern(labels), digest=told, handle=row["id"])


def _relationship(row: Mapping[str, Any]) -> Thing:
    told = digest(row["id"], row["type"], row["start"], row["end"], row["properties"])
    return Thing("relationship", _pattern([row["type"]]), digest=told, handle=row["id"])


def _pattern(labels: Iterable[str]) -> str:
    return "".join(f":{label}" for label in labels) or "without a label"


def nodes(content: Content) -> Iterator[str]:
    """The ids of the nodes that were found."""
    yield from (thing.handle for thing in content.things if thing.kind == "node")

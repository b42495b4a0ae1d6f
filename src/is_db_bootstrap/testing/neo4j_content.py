"""What a Neo4j database holds: nodes, relationships, constraints and indexes.

The marks of test runs are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject
from is_db_bootstrap.testing.content import Content, Thing, digest
from is_db_bootstrap.testing.neo4j_turn import MARK

#: Properties of a constraint, as `LiveSchema.read` takes them.
_CONSTRAINTS = (
    "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties, propertyType"
)
#: Properties of an index, as `LiveSchema.read` takes them. Token lookups are the server's own.
_INDEXES = """
SHOW INDEXES
YIELD name, state, type, entityType, labelsOrTypes, properties, owningConstraint, failureMessage,
      options
WHERE type <> 'LOOKUP'
"""
_NODES = f"""
MATCH (n) WHERE NOT n:{MARK}
RETURN elementId(n) AS id, labels(n) AS labels, properties(n) AS properties LIMIT $limit
"""
_RELATIONSHIPS = """
MATCH (a)-[r]->(b)
RETURN elementId(r) AS id, type(r) AS type, properties(r) AS properties,
       elementId(a) AS start, elementId(b) AS end
LIMIT $limit
"""
#: The server answers from its own counts, without a scan.
_SIZE = """
MATCH (n) WITH count(n) AS nodes
OPTIONAL MATCH ()-[r]->()
RETURN nodes, count(r) AS relationships
"""
#: What an Enterprise server says of the user who asks.
_PRIVILEGES = "SHOW USER PRIVILEGES YIELD access, action, segment, graph"
_EDITION = "CALL dbms.components() YIELD edition RETURN edition LIMIT 1"
#: Actions that let a user see that a node is there.
_SEEING = frozenset({"match", "traverse"})

Ask = Callable[..., list[dict[str, Any]]]


def everything(ask: Ask, limit: int) -> Content:
    """At most `limit` nodes, at most `limit` relationships, and all schema objects.

    The beacon of test runs is left out.
    """
    schema = LiveSchema.read(ask(_CONSTRAINTS), ask(_INDEXES))
    objects = [each for each in schema.objects.values() if not each.name.startswith(MARK)]
    # One row more than is looked at tells that there are more.
    node_rows = ask(_NODES, limit=limit + 1)
    relationship_rows = ask(_RELATIONSHIPS, limit=limit + 1)
    things = (
        *(_schema_thing(each) for each in objects),
        *(node(row) for row in node_rows[:limit]),
        *(_relationship_thing(row) for row in relationship_rows[:limit]),
    )
    kinds = []
    if len(node_rows) > limit:
        kinds.append("nodes")
    if len(relationship_rows) > limit:
        kinds.append("relationships")
    unseen = f"and more: only {limit} {' and '.join(kinds)} were looked at" if kinds else ""
    return Content(things, unseen)


def is_larger(ask: Ask, limit: int) -> bool:
    """Whether there are more nodes or relationships than `limit`."""
    size = ask(_SIZE)[0]
    return bool(size["nodes"] > limit or size["relationships"] > limit)


def why_hidden(ask: Ask) -> str:
    """Why nodes may be there that this user is not shown. Empty when the user is shown all.

    Community shows everything to everybody. Enterprise answers a user who may not see a node as if
    it did not exist.
    """
    if ask(_EDITION)[0]["edition"] != "enterprise":
        return ""
    return unseen_for(ask(_PRIVILEGES))


def unseen_for(privileges: Iterable[Mapping[str, Any]]) -> str:
    """Why these privileges do not show all nodes. Empty when they do.

    `privileges` are rows of SHOW USER PRIVILEGES, with the columns that the operations manual of
    Neo4j 5 lists.
    """
    seeing = [row for row in privileges if str(row["action"]).lower() in _SEEING]
    denied = [row for row in seeing if str(row["access"]).upper() != "GRANTED"]
    if denied:
        return f"the user is denied {denied[0]['action']} on {denied[0]['segment']}"
    segments = [str(row["segment"]).upper() for row in seeing]
    # A segment is written as `NODE(*)`.
    whole = {segment.partition("(")[0] for segment in segments if "*" in segment}
    missing = {"NODE", "RELATIONSHIP"} - whole
    if not missing:
        return ""
    return f"the user is not granted traverse on all of {', '.join(sorted(missing))}"


def _schema_thing(found: SchemaObject) -> Thing:
    own_digest = digest(found.kind, found.name, found.definition, sorted(found.options))
    return Thing(found.kind, name=found.name, digest=own_digest, handle=found)


def node(row: Mapping[str, Any]) -> Thing:
    """One node, from a row with `id`, `labels` and `properties`."""
    labels = sorted(row["labels"])
    own_digest = digest(row["id"], labels, row["properties"])
    return Thing("node", _label_pattern(labels), digest=own_digest, handle=row["id"])


def _relationship_thing(row: Mapping[str, Any]) -> Thing:
    own_digest = digest(row["id"], row["type"], row["start"], row["end"], row["properties"])
    pattern = _label_pattern([row["type"]])
    return Thing("relationship", pattern, digest=own_digest, handle=row["id"])


def _label_pattern(labels: Iterable[str]) -> str:
    return "".join(f":{label}" for label in labels) or "without a label"

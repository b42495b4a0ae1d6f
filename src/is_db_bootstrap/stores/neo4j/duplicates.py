"""Values that would block a uniqueness constraint: how they are found, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import RepairPlan
from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject
from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.wording import counted

#: Nodes of a label up to which duplicates are looked for before anything is changed.
AFFORDABLE_NODES = 100_000
#: Groups of duplicates that an error lists.
GROUPS = 5
#: Characters of a value that an error shows.
_SHOWN = 120
#: The labels of nodes, and the types of relationships, that the database has.
USED_LABELS = "CALL db.labels() YIELD label AS n RETURN n"
_USED_TYPES = "CALL db.relationshipTypes() YIELD relationshipType AS n RETURN n"

#: Sends one statement, and returns its rows.
Rows = Callable[[str], list[dict[str, Any]]]


def refuse_duplicates(rows: Rows, new: Sequence[SchemaObject]) -> None:
    """Raise `StoreConflict` for what duplicates would block, where looking for them is cheap.

    Else the server finds them in `apply`.
    """
    for conflict in conflicts(rows, new):
        raise conflict


def conflicts(rows: Rows, new: Sequence[SchemaObject]) -> Iterator[StoreConflict]:
    """What duplicates would block, one conflict for each, where looking for them is cheap."""
    unique = [thing for thing in new if thing.type in {"UNIQUENESS", "KEY"}]
    if not unique:
        return
    entities = {thing.entity for thing in unique}
    used: set[str] = set()
    if "NODE" in entities:
        used |= {row["n"] for row in rows(USED_LABELS)}
    if "RELATIONSHIP" in entities:
        used |= {row["n"] for row in rows(_USED_TYPES)}
    counts: dict[str, int] = {}
    for thing in unique:
        if thing.labels[0] not in used:
            continue
        pattern = _pattern(thing)
        if pattern not in counts:
            counts[pattern] = rows(f"MATCH {pattern} RETURN count(n) AS n")[0]["n"]
        # A label has no nodes when only a constraint or an index is on it.
        groups = duplicates(rows, thing) if 0 < counts[pattern] <= AFFORDABLE_NODES else []
        if groups:
            yield blocked(thing, groups)


def without_blocked(plan: RepairPlan, blocked: Sequence[StoreConflict]) -> RepairPlan:
    """The repair without the constraints that duplicates block, which are left with the reason."""
    reasons = {each.subject: f"{each.message} {each.hint}" for each in blocked}
    refused = [each.drift(reasons[each.name]) for each in plan.changes if each.name in reasons]
    changes = tuple(each for each in plan.changes if each.name not in reasons)
    return RepairPlan(changes, (*plan.left, *refused))


def duplicates(rows: Rows, thing: SchemaObject) -> list[str]:
    """The largest groups of nodes or relationships that share values, one sentence each."""
    properties = [f"n.{quoted(name)}" for name in thing.properties]
    present = " AND ".join(f"{each} IS NOT NULL" for each in properties)
    found = rows(
        f"MATCH {_pattern(thing)} WHERE {present} "
        f"WITH [{', '.join(properties)}] AS v, count(*) AS c WHERE c > 1 "
        f"RETURN v, c ORDER BY c DESC, toStringOrNull(v[0]) LIMIT {GROUPS + 1}"
    )
    what = _noun(thing)
    return [f"{row['c']} {what} share {_values(thing.properties, row['v'])}" for row in found]


def blocked(thing: SchemaObject, groups: Sequence[str]) -> StoreConflict:
    """The conflict of a constraint that duplicates block; which they are is its detail."""
    number = counted(len(groups), "group")
    more = ""
    if len(groups) > GROUPS:
        number, more = f"more than {GROUPS} groups", "; and more"
    where = thing.definition.partition(" on ")[2]
    return StoreConflict(
        STORE,
        f"{thing} on {where} is blocked by data: {number} of {_noun(thing)} share "
        f"{', '.join(thing.properties)}.",
        hint=(
            "Remove or merge the duplicates, such as by a Cypher file with a number before it, "
            "and run again."
        ),
        subject=thing.name or thing.definition,
        detail=f"{'; '.join(groups[:GROUPS])}{more}.",
    )


def _noun(thing: SchemaObject) -> str:
    return "nodes" if thing.entity == "NODE" else "relationships"


def _pattern(thing: SchemaObject) -> str:
    label = quoted(thing.labels[0])
    return f"(n:{label})" if thing.entity == "NODE" else f"()-[n:{label}]->()"


def _values(names: Sequence[str], values: Sequence[Any]) -> str:
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{name} {value!r}"[:_SHOWN] for name, value in pairs)

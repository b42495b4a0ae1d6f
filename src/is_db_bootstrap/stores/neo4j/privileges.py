"""What a user of Neo4j may do, as far as the server tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neo4j import exceptions as raised

#: The privileges of the present user (Cypher manual, "Listing privileges").
QUERY = "SHOW USER PRIVILEGES YIELD access, action, graph"
#: Actions of `SHOW USER PRIVILEGES` that allow each kind of schema change.
_FOR_INDEXES = frozenset({"index", "create_index", "database_actions", "schema"})
_FOR_CONSTRAINTS = frozenset({"constraint", "create_constraint", "database_actions", "schema"})
#: Begins the edition that has no users' rights (`dbms.components`).
_COMMUNITY = "community"


@dataclass(frozen=True, slots=True)
class Privileges:
    """Whether the user may create indexes and constraints. None: that could not be seen.

    `told` says why.
    """

    may_change_schema: bool | None
    told: str


def privileges_of(
    edition: str, database: str, ask: Callable[[str], Sequence[Mapping[str, Any]]]
) -> Privileges:
    """The privileges of our user in `database`. `ask` sends a query to the database `system`."""
    if edition == _COMMUNITY:
        return Privileges(
            may_change_schema=True, told="every user may do everything in the Community Edition"
        )
    try:
        rows = ask(QUERY)
    except (raised.Neo4jError, raised.DriverError) as exc:
        return Privileges(None, f"the server does not tell the privileges ({type(exc).__name__})")
    return told_privileges(rows, database)


def told_privileges(rows: Sequence[Mapping[str, Any]], database: str) -> Privileges:
    """What these rows allow. Privileges that nobody knows here are never taken for missing."""
    here = [row for row in rows if str(row["graph"]).lower() in {"*", "default", database.lower()}]
    granted = {str(row["action"]).lower() for row in here if row["access"] == "GRANTED"}
    denied = {str(row["action"]).lower() for row in here if row["access"] == "DENIED"}
    lacking = [
        name
        for name, actions in (("indexes", _FOR_INDEXES), ("constraints", _FOR_CONSTRAINTS))
        if not granted & actions or denied & actions
    ]
    if not lacking:
        return Privileges(may_change_schema=True, told="may create indexes and constraints")
    return Privileges(
        None, f"no privilege that is known here to create {' and '.join(lacking)} was seen"
    )

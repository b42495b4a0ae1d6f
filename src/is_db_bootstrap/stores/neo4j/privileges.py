"""What a user of Neo4j may do, as far as the server tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neo4j import exceptions as raised

#: The privileges of the present user (operations manual, "Listing privileges").
QUERY = "SHOW USER PRIVILEGES YIELD access, action, graph"
#: Which database is the home database of the present user, and which one the default.
HOMES = "SHOW DATABASES YIELD name, home, default"
#: Actions of `SHOW USER PRIVILEGES` that allow each kind of schema change.
_FOR_INDEXES = frozenset({"index", "create_index", "database_actions", "schema"})
_FOR_CONSTRAINTS = frozenset({"constraint", "create_constraint", "database_actions", "schema"})
#: How the column `graph` names every graph, the user's home database, and the server's default
#: database (`GRANT … ON HOME DATABASE`, `ON DEFAULT DATABASE`).
_EVERY_GRAPH, _HOME, _DEFAULT = "*", "home", "default"
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
        words = words_for(database, ask(HOMES)) if _has_words(rows) else frozenset()
    except (raised.Neo4jError, raised.DriverError) as exc:
        return Privileges(None, f"the server does not tell the privileges ({type(exc).__name__})")
    return told_privileges(rows, database, words)


def _has_words(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether some privilege is one on a database that is named by what it is for somebody."""
    return any(str(row["graph"]).lower() in {_HOME, _DEFAULT} for row in rows)


def words_for(database: str, rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The words by which a privilege may mean `database`, by the rows of `SHOW DATABASES`.

    A cluster has one row for each server of a database.
    """
    ours = [row for row in rows if str(row["name"]).lower() == database.lower()]
    found = {_HOME} if any(row["home"] for row in ours) else set()
    return frozenset(found | ({_DEFAULT} if any(row["default"] for row in ours) else set()))


def told_privileges(
    rows: Sequence[Mapping[str, Any]], database: str, words: frozenset[str] = frozenset()
) -> Privileges:
    """What these rows allow. Privileges that nobody knows here are never taken for missing.

    `words` are those of `HOME` and `DEFAULT`, in small letters, that mean `database`.
    """
    places = {_EVERY_GRAPH, database.lower(), *words}
    here = [row for row in rows if str(row["graph"]).lower() in places]
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

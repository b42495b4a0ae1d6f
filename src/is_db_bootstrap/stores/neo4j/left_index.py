"""The index that a killed server has left of a constraint.

A server that is killed while it makes a uniqueness or key constraint keeps the index, and refuses
the constraint as long as that index is there. It shows such an index as one of its own, of the same
definition as an index that somebody has made. What differs is the state. The index of somebody
comes ONLINE once it has all entries. That of a constraint waits for its constraint, which nobody
makes any more: it stays POPULATING, at 100 percent (seen on Neo4j 5.26 and 2026.08).
"""

from __future__ import annotations

from contextlib import suppress

from neo4j import exceptions as raised

from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.stores.neo4j.seed import Run

_IS_WAITING = """
SHOW INDEXES YIELD name, type, state, populationPercent, owningConstraint
WHERE name = $name AND type = 'RANGE' AND owningConstraint IS NULL
  AND state = 'POPULATING' AND populationPercent = 100.0
RETURN count(*) AS found
"""
_AWAIT = "CALL db.awaitIndex($name, $seconds)"
#: Seconds that an index gets to come ONLINE once it has all entries.
_PATIENCE_S = 3


def drop_left_index(run: Run, name: str) -> bool:
    """Drop the index called `name` if a killed server has left it. Returns whether it was dropped.

    `run` sends a statement in a transaction of its own. If a constraint of that name is being made
    at this moment, the server lets the drop wait for it, and then refuses to drop its index.
    """
    if not _is_waiting(run, name):
        return False
    try:
        run(_AWAIT, name=name, seconds=_PATIENCE_S)
    except (raised.ClientError, raised.DatabaseError) as exc:
        if not neo4j_errors.code(exc).startswith(("ClientError.Procedure.", "DatabaseError.")):
            raise
    if not _is_waiting(run, name):
        return False
    with suppress(raised.ClientError):
        run(f"DROP INDEX {quoted(name)} IF EXISTS")
        return True
    return False


def _is_waiting(run: Run, name: str) -> bool:
    """Whether the index has all entries, and waits."""
    return bool(run(_IS_WAITING, name=name)[0]["found"])

"""Which revisions led a MariaDB or SQLite database to where it is: rows of a table of ours.

Alembic's table beside it holds the last revision only. The rows are written in the transaction that
writes Alembic's table. The table itself is made before that, since a schema statement of MariaDB
commits what was done before it. It goes with the last revision, so a downgrade leaves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

TABLE = "is_db_bootstrap_lineage"
_CREATE = f"""
    CREATE TABLE IF NOT EXISTS {TABLE} (
        place INTEGER NOT NULL PRIMARY KEY,
        revision VARCHAR(255) NOT NULL,
        blueprint VARCHAR(255) NOT NULL
    )
"""
_DELETE = f"DELETE FROM {TABLE}"  # noqa: S608 - a constant
_INSERT = f"INSERT INTO {TABLE} VALUES (:place, :revision, :blueprint)"  # noqa: S608 - a constant
_FIND = f"SELECT blueprint, revision FROM {TABLE} ORDER BY place"  # noqa: S608 - a constant
_DROP = f"DROP TABLE IF EXISTS {TABLE}"


def make(connection: Connection) -> None:
    """Make the table if it is missing."""
    if not inspect(connection).has_table(TABLE):
        connection.execute(text(_CREATE))


def record(connection: Connection, blueprint: str, revisions: Sequence[str]) -> None:
    """Write the revisions, in order, in the transaction that is open. The table must be there.

    Without revisions, it is dropped.
    """
    if not revisions:
        connection.execute(text(_DROP))
        return
    connection.execute(text(_DELETE))
    rows = [
        {"place": place, "revision": revision, "blueprint": blueprint}
        for place, revision in enumerate(revisions)
    ]
    connection.execute(text(_INSERT), rows)


def find(connection: Connection) -> tuple[str, tuple[str, ...]] | None:
    """Blueprint and revisions, in order. None when nobody has recorded them."""
    if not inspect(connection).has_table(TABLE):
        return None
    rows = connection.execute(text(_FIND)).all()
    return (rows[0][0], tuple(row[1] for row in rows)) if rows else None

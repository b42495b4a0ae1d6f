"""The column in which Alembic records a revision's id, and the ids that it can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.postgres.errors import NAME

if TYPE_CHECKING:
    import psycopg

#: Characters of the column that Alembic makes (`alembic.ddl.impl.version_table_impl`).
WIDTH = 32
#: Characters of the column that is there. NULL when there is no such table, -1 without a limit.
_WIDTH_OF = """
    SELECT CASE WHEN a.atttypmod < 0 THEN -1 ELSE a.atttypmod - 4 END
    FROM pg_attribute a WHERE a.attrelid = to_regclass(%s) AND a.attname = 'version_num'
"""


def refuse_long_ids(
    connection: psycopg.Connection[Any] | None, table: str, revisions: Sequence[str]
) -> None:
    """Raise `StoreConflict` for a revision whose id the version table `table` cannot hold.

    `table` is its quoted name. Without a connection, or without the table, it is going to be as
    Alembic makes it.
    """
    long_ids = [revision for revision in revisions if len(revision) > WIDTH]
    if not long_ids:
        return
    row = connection.execute(_WIDTH_OF, [table]).fetchone() if connection else None
    width = int(row[0]) if row else WIDTH
    too_long = [revision for revision in long_ids if width != -1 and len(revision) > width]
    if not too_long:
        return
    first = too_long[0]
    widen = f"ALTER TABLE {table} ALTER version_num TYPE varchar(255)"
    if row is None:
        widen = (
            f"CREATE TABLE {table} (version_num varchar(255) NOT NULL "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY)"
        )
    raise StoreConflict(
        NAME,
        f"Revision {first} has an id of {len(first)} characters, and {table} holds {width} in its "
        "column version_num.",
        subject=first,
        hint=f"Nothing was changed. Shorten the id, or run: {widen};",
    )

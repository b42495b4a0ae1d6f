"""Revisions of our chain that are recorded in another table of a MariaDB or SQLite database.

Teams give Alembic another `version_table`. Every table and view of the database with a column
`version_num` is looked into. Other databases of a MariaDB server are not: they are as separate as
other databases of PostgreSQL. SQLite keeps no list of the files that a program attaches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import String, column, inspect, select, table, text
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.exc import DBAPIError

from is_db_bootstrap.stores.postgres.elsewhere import IgnoredTables, VersionTable
from is_db_bootstrap.stores.postgres.revisions import TABLE

#: What SQLite calls the file of the address.
_MAIN = "main"
_COLUMN = "version_num"
#: Seconds that a look waits for a table which another session of MariaDB has locked. The server's
#: default is a day (MariaDB, Server System Variables, lock_wait_timeout).
_LOCK_S = 1
_CANDIDATES = text(
    """
    SELECT table_name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND lower(column_name) = 'version_num'
      AND data_type IN ('char', 'varchar', 'tinytext', 'text', 'mediumtext', 'longtext')
    ORDER BY table_name
    """
)


class UnreadableTable(Exception):
    """A table that may record revisions cannot be read."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place} ({why})")
        self.place = place


def find(
    connection: Connection, pending: Sequence[str], ignored: IgnoredTables
) -> VersionTable | None:
    """The first table but our own that records one of the `pending` revisions.

    The connection is not used for anything else afterwards. Raises `UnreadableTable`.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    schema = _MAIN if is_sqlite else str(connection.engine.url.database)
    if not is_sqlite:
        connection.detach()  # what is set here holds for the session
        connection.execute(text(f"SET SESSION lock_wait_timeout = {_LOCK_S}"))
    names = _of_sqlite(connection) if is_sqlite else connection.scalars(_CANDIDATES).all()
    for name in names:
        if name == TABLE or ignored.has(schema, name):
            continue
        recorded = _recorded(connection, schema, name, pending)
        again = tuple(revision for revision in pending if revision in recorded)
        if again:
            return VersionTable(schema, name, again)
    return None


def _of_sqlite(connection: Connection) -> Iterator[str]:
    """The tables and views with a column `version_num`. A view that is broken shows nothing."""
    inspector = inspect(connection)
    for name in sorted(inspector.get_table_names()):
        if _has_column(inspector.get_columns(name)):
            yield name
    for name in sorted(inspector.get_view_names()):
        try:
            columns = inspector.get_columns(name)
        except DBAPIError:
            continue
        if _has_column(columns):
            yield name


def _has_column(columns: Collection[ReflectedColumn]) -> bool:
    return any(each["name"].lower() == _COLUMN for each in columns)


def _recorded(connection: Connection, schema: str, name: str, pending: Sequence[str]) -> set[str]:
    """Which of the `pending` revisions a table records, and what its server takes for the same."""
    column_ = column(_COLUMN, String)
    query = select(column_).select_from(table(name)).where(column_.in_(pending)).distinct()
    try:
        return set(connection.scalars(query))
    except DBAPIError as exc:
        raise UnreadableTable(f"{schema}.{name}", " ".join(str(exc.orig).split())) from exc

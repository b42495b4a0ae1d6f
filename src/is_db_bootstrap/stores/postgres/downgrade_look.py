"""The tables of a database at one moment, and what two such looks tell of the rows in between.

Everything here is read from the server's own catalogue and its lock table. A transaction keeps each
lock on a table that it has read or written until it ends (manual, 13.3 Explicit Locking), whichever
way the statement was sent: as text, in a `DO` block, by a function or by a trigger. So the locks of
a session tell which tables its transaction has touched, without reading its SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from is_db_bootstrap.stores.postgres.revisions import TABLE

#: Schema and name.
Name = tuple[str, str]

#: What writes rows takes this lock, and nothing else that a downgrade does with a table takes it.
WRITES = "RowExclusiveLock"

_SCHEMAS = """
    SELECT oid::int8, nspname::text FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
"""
_RELATIONS = """
    SELECT c.oid::int8, c.relnamespace::int8, c.relname::text, c.relkind::text,
           CASE WHEN c.relkind = 'r' THEN pg_relation_filenode(c.oid)::int8 END,
           coalesce(pg_partition_root(c.oid), c.oid)::oid::int8
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
      AND NOT EXISTS (
          SELECT FROM pg_depend d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
      )
"""
_COLUMNS = """
    SELECT a.attrelid::int8, a.attnum::int, a.attname::text,
           format_type(a.atttypid, a.atttypmod), a.atttypid::int8, a.xmin::text
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""
_LOCKS = """
    SELECT l.relation::int8, l.mode FROM pg_locks l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `file` changes when the server writes all of its rows anew.

    `root` is the identity of the table at the top of a partition, else the table's own.
    """

    name: Name
    kind: str
    file: int | None
    root: int


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `version` is the transaction that has last changed its definition."""

    name: str
    type: str
    type_id: int
    version: str


@dataclass(frozen=True, slots=True)
class Look:
    """The tables of a database at one moment; identities are those of the server."""

    schemas: Mapping[int, str]
    tables: Mapping[int, Table]
    columns: Mapping[tuple[int, int], Column]


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the tables between two looks, by identities of the earlier one.

    `gone` are tables, `columns` are columns that went from tables that stay. `retyped` has the
    old and the new type of a column. `rewritten` are columns whose values the server has computed
    anew (`ALTER COLUMN … TYPE … USING`). `moved` are tables whose rows are in another file.
    """

    gone: frozenset[int] = frozenset()
    columns: frozenset[tuple[int, str]] = frozenset()
    retyped: Mapping[tuple[int, str], str] = field(default_factory=dict)
    rewritten: frozenset[tuple[int, str]] = frozenset()
    moved: frozenset[int] = frozenset()


def look(session: psycopg.Connection[Any], schema: str) -> Look:
    """Read the tables of every schema, without our own version table in `schema`."""
    schemas = dict(_rows(session, _SCHEMAS))
    tables = {
        oid: Table((schemas[space], name), kind, file, root)
        for oid, space, name, kind, file, root in _rows(session, _RELATIONS)
        if space in schemas and (schemas[space], name) != (schema, TABLE)
    }
    columns = {
        (oid, number): Column(*facts)
        for oid, number, *facts in _rows(session, _COLUMNS)
        if oid in tables
    }
    return Look(schemas, tables, columns)


def locks(session: psycopg.Connection[Any]) -> frozenset[tuple[int, str]]:
    """The relations that the session's transaction has locked, and how."""
    return frozenset(_rows(session, _LOCKS))


def _rows(session: psycopg.Connection[Any], query: str) -> Sequence[tuple[Any, ...]]:
    """Ask beside the cursors of the session, which may have a class that watches them."""
    return psycopg.Cursor(session).execute(query.encode()).fetchall()


def changes(before: Look, after: Look) -> Changes:
    """What became of the tables and columns of `before`."""
    gone = frozenset(oid for oid in before.tables if oid not in after.tables)
    moved = frozenset(
        oid
        for oid, table in before.tables.items()
        if oid not in gone and table.file != after.tables[oid].file
    )
    dropped: set[tuple[int, str]] = set()
    rewritten: set[tuple[int, str]] = set()
    retyped: dict[tuple[int, str], str] = {}
    for (oid, number), column in before.columns.items():
        if oid in gone:
            continue
        now = after.columns.get((oid, number))
        if now is None:
            dropped.add((oid, column.name))
        elif (now.type, now.type_id) != (column.type, column.type_id):
            made_anew = now.type == column.type
            new = f"{now.type}, which was made anew" if made_anew else now.type
            retyped[oid, column.name] = f"{column.type} to {new}"
        elif oid in moved and now.version != column.version:
            rewritten.add((oid, column.name))
    return Changes(gone, frozenset(dropped), retyped, frozenset(rewritten), moved)

"""The tables of a database at one moment, and what two such looks tell of the rows in between.

Everything here is read from the server's own catalogue and its lock table. A transaction keeps each
lock on a table that it has read or written until it ends (manual, 13.3 Explicit Locking), whichever
way the statement was sent: as text, in a `DO` block, by a function or by a trigger. So the locks of
a session tell which tables its transaction has touched, without reading its SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg

from is_db_bootstrap.stores.postgres import own_schema

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.any_session import AnySession

    #: A session of ours, or one of a team's driver.
    Session: TypeAlias = psycopg.Connection[Any] | AnySession

#: Schema and name.
Name = tuple[str, str]

#: What writes rows takes this lock, and nothing else that a downgrade does with a table takes it.
WRITES = "RowExclusiveLock"

_SCHEMAS = """
    SELECT oid::int8, nspname::text FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
"""
#: Where the server keeps large objects. What is dropped of them shows as a write.
LARGE_OBJECTS = {("pg_catalog", "pg_largeobject"), ("pg_catalog", "pg_largeobject_metadata")}
#: Tables of every kind, sequences that belong to no column, and what decides on rows in the
#: server's own catalogue. A schema statement gives back its locks on these at once. So a lock there
#: is one of a statement that writes the catalogue itself, such as `DELETE FROM pg_enum`.
_RELATIONS = """
    SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text,
           CASE WHEN c.relkind = 'r' AND n.nspname <> 'pg_catalog'
                THEN pg_relation_filenode(c.oid)::int8 END,
           coalesce(pg_partition_root(c.oid), c.oid)::oid::int8,
           EXISTS (
               SELECT FROM pg_depend d
               WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
           )
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'pg_catalog' AND c.relname IN (
              'pg_largeobject', 'pg_largeobject_metadata',
              'pg_class', 'pg_attribute', 'pg_type', 'pg_enum'
          )
       OR c.relkind IN ('r', 'p', 'm', 'S') AND c.relpersistence <> 't'
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND NOT EXISTS (
              SELECT FROM pg_depend d
              WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
          )
"""
_COLUMNS = """
    SELECT a.attrelid::int8, a.attnum::int, a.attname::text,
           format_type(a.atttypid, a.atttypmod), a.atttypid::int8, a.xmin::text
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped
"""
#: For each type of a column, the attributes of the composite types in it: of the type itself, of an
#: array's elements, under a domain or a range, and of attributes in turn. Types that the server
#: brings along, with identities below 16384, have none.
_PARTS = """
    WITH RECURSIVE held (type, part) AS (
        SELECT DISTINCT a.atttypid, a.atttypid
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
          AND a.atttypid >= 16384
        UNION
        SELECT held.type, inside.type
        FROM held CROSS JOIN LATERAL (
            SELECT unnest(ARRAY[t.typelem, t.typbasetype]) FROM pg_type t WHERE t.oid = held.part
            UNION ALL
            SELECT r.rngsubtype FROM pg_range r WHERE held.part IN (r.rngtypid, r.rngmultitypid)
            UNION ALL
            SELECT a.atttypid FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
            WHERE t.oid = held.part AND a.attnum > 0 AND NOT a.attisdropped
        ) AS inside (type)
        WHERE inside.type >= 16384
    )
    SELECT held.type::int8, a.attrelid::int8, a.attnum::int, a.atttypid::int8, a.attname::text
    FROM held
    JOIN pg_type t ON t.oid = held.part
    JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
"""
#: What is dropped and is no relation is locked under the catalogue that it is in.
_LOCKS = """
    SELECT l.relation::int8, l.mode FROM pg_locks l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION
    SELECT 'pg_largeobject_metadata'::regclass::int8, 'RowExclusiveLock' FROM pg_locks l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'object' AND l.granted
      AND l.classid = 'pg_largeobject'::regclass AND l.mode = 'AccessExclusiveLock'
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table, or a sequence. `file` changes when the server writes all of its rows anew.

    `kind` is that of `pg_class.relkind`. `root` is the identity of the table at the top of a
    partition, else the table's own. `is_member` says that it belongs to an extension.
    """

    name: Name
    kind: str
    file: int | None
    root: int
    is_member: bool

    @property
    def is_sequence(self) -> bool:
        """Whether it is a sequence."""
        return self.kind == "S"

    @property
    def is_catalogue(self) -> bool:
        """Whether the server keeps its own facts there."""
        return self.name[0] == "pg_catalog"

    def is_touched_by(self, *, writes: bool) -> bool:
        """Whether it is told that a statement reads or writes its rows.

        An extension writes its own tables by itself, an `INSERT` moves sequences, and everything
        reads the catalogue.
        """
        if self.is_catalogue:
            return writes or self.name in LARGE_OBJECTS
        return not self.is_sequence and not self.is_member


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
    #: Of each type of a column, the attributes inside: identity of the type, and name.
    parts: Mapping[int, Mapping[tuple[int, int], tuple[int, str]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the tables between two looks, by identities of the earlier one.

    - `gone` are tables, `columns` are columns that went from tables that stay.
    - `retyped` has the old and the new type of a column, or says which attributes its type has
      lost.
    - `rewritten` are columns whose values the server has computed anew
      (`ALTER COLUMN … TYPE … USING`).
    - `moved` are tables whose rows are in another file.
    """

    gone: frozenset[int] = frozenset()
    columns: frozenset[tuple[int, str]] = frozenset()
    retyped: Mapping[tuple[int, str], str] = field(default_factory=dict)
    rewritten: frozenset[tuple[int, str]] = frozenset()
    moved: frozenset[int] = frozenset()

    @property
    def tables(self) -> frozenset[int]:
        """The tables that something became of."""
        of_columns = {oid for oid, _ in (*self.columns, *self.retyped, *self.rewritten)}
        return self.gone | self.moved | of_columns


def look(session: Session, version_table: Name) -> Look:
    """Read the tables of every schema, without the `version_table` and our own ones."""
    schemas = dict(_rows(session, _SCHEMAS))
    tables = {
        oid: Table((space, name), *facts)
        for oid, space, name, *facts in _rows(session, _RELATIONS)
        if (space, name) != version_table and space != own_schema.SCHEMA
    }
    columns = {
        (oid, number): Column(*facts)
        for oid, number, *facts in _rows(session, _COLUMNS)
        if oid in tables
    }
    parts: dict[int, dict[tuple[int, int], tuple[int, str]]] = {}
    for type_id, of, number, part_type, name in _rows(session, _PARTS):
        parts.setdefault(type_id, {})[of, number] = (part_type, name)
    return Look(schemas, tables, columns, parts)


def locks(session: Session) -> frozenset[tuple[int, str]]:
    """The relations that the session's transaction has locked, and how."""
    return frozenset(_rows(session, _LOCKS))


def _rows(session: Session, query: str) -> Sequence[tuple[Any, ...]]:
    """Ask beside the cursors of the session, which may have a class that watches them."""
    if not isinstance(session, psycopg.Connection):
        return [tuple(row) for row in session.execute(query).fetchall()]
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
        elif lost := _lost_parts(before, after, column.type_id):
            retyped[oid, column.name] = f"{column.type} without {', '.join(lost)}"
        elif oid in moved and now.version != column.version:
            rewritten.add((oid, column.name))
    return Changes(gone, frozenset(dropped), retyped, frozenset(rewritten), moved)


def _lost_parts(before: Look, after: Look, type_id: int) -> list[str]:
    """The names of the attributes that a type has no more, or that have another type."""
    left = after.parts.get(type_id, {})
    return sorted(
        name
        for place, (part_type, name) in before.parts.get(type_id, {}).items()
        if left.get(place, (None, ""))[0] != part_type
    )

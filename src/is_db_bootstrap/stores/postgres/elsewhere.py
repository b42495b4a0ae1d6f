"""Revisions of our chain that are recorded in another table or schema than the one that we write.

Teams give Alembic another `version_table` or `version_table_schema`. To a run that only looks into
its own table such a database seems empty, and everything would be run a second time.

What another version table says is one of these:

* A revision that is pending here. It is ours, and has run already.
* A revision that nobody here knows. It is a newer one of our chain, or another application's. When
  a table that the pending revisions create is there too, it is taken for ours. Otherwise it is
  told.
* It is called `alembic_version`, lies in another schema and carries our mark. Then it is another
  deployment and stays beside this one. A table that both create in one place is a conflict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.errors import StoreBusy
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.revisions import TABLE, marked_blueprint

#: Alembic keeps one row for each head. A table with more rows than this is no version table and is
#: not searched.
_MOST_ROWS = 10_000
#: So many revisions of a version table are read.
_MOST_HEADS = 20
#: Every table with a column `version_num` of characters, also of a domain. `pg_class` may be read
#: by every role. Alembic's own tables have no other column.
_CANDIDATES = """
    SELECT n.nspname::text, c.relname::text, obj_description(c.oid, 'pg_class'),
           has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
               AND NOT (c.relrowsecurity AND row_security_active(c.oid)),
           NOT EXISTS (
               SELECT FROM pg_attribute o
               WHERE o.attrelid = c.oid AND o.attnum > 0 AND NOT o.attisdropped
                 AND o.attname <> a.attname
           )
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid AND t.typcategory = 'S'
    WHERE a.attname = 'version_num' AND a.attnum > 0 AND NOT a.attisdropped
      AND c.reltuples < %(most)s
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT (n.nspname = %(schema)s AND c.relname = %(table)s)
    ORDER BY 1, 2
"""
#: Seconds that one look at them waits for a lock.
_LOCK_S = 1
#: Every table of the database that a session has locked against readers, and who that is.
_LOCKED = """
    SELECT n.nspname::text, c.relname::text, l.pid FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.granted AND l.mode = 'AccessExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_PLACE = rf"(?P<name>{_NAME}(?:\s*\.\s*{_NAME})?)"
_CREATES = re.compile(
    rf"\bCREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?P<unless>IF\s+NOT\s+EXISTS\s+)?{_PLACE}", re.IGNORECASE
)
_CHANGES = re.compile(
    rf"\b(?:UPDATE|DELETE\s+FROM|INSERT\s+INTO|ALTER\s+TABLE)\s+(?:ONLY\s+)?{_PLACE}", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class VersionTable:
    """A version table that is not ours, and the revisions that it records."""

    schema: str
    table: str
    revisions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other version tables of the database say.

    `ours` has recorded revisions of our chain that are pending here; None when no table has.
    `unknown` have recorded revisions that are in nobody's chain here. `deployments` are the schemas
    in which our blueprint is recorded too. `unreadable` are tables that may be version tables and
    that we may not read.
    """

    ours: VersionTable | None = None
    unknown: tuple[VersionTable, ...] = ()
    deployments: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    schema: str
    table: str
    comment: str | None
    readable: bool
    alembics: bool

    @property
    def is_deployment(self) -> bool:
        """Whether it is the record of a deployment in another schema, which says so itself."""
        return self.table == TABLE and bool(marked_blueprint(self.comment))


def find(
    reader: psycopg.Connection[Any],
    schema: str,
    blueprint: str,
    *,
    done: Collection[str],
    pending: Collection[str],
) -> Elsewhere:
    """Look into every version table of the database but our own in `schema`.

    `done` and `pending` are the revisions of our chain that our own record has and lacks. One query
    names the tables that may be version tables, a second one reads those, if there are any. Raises
    `StoreBusy` for one that another session locks; a run looks again a few times then.
    """
    wanted = {"schema": schema, "table": TABLE, "most": _MOST_ROWS}
    found = [_Candidate(*row) for row in reader.execute(_CANDIDATES, wanted).fetchall()]
    others = [each for each in found if not each.is_deployment]
    readable = [each for each in others if each.readable]
    recorded = _recorded(reader, readable, list(pending))
    ours = None
    unknown: list[VersionTable] = []
    for each, revisions in recorded:
        again = tuple(r for r in revisions if r in pending)
        strange = tuple(r for r in revisions if r not in done and r not in pending)
        is_marked = marked_blueprint(each.comment) == blueprint  # renamed, or moved, by hand
        if again or (strange and is_marked):
            ours = ours or VersionTable(each.schema, each.table, again or strange)
        elif strange:
            unknown.append(VersionTable(each.schema, each.table, strange))
    return Elsewhere(
        ours,
        tuple(unknown),
        tuple(
            each.schema
            for each in found
            if each.is_deployment and marked_blueprint(each.comment) == blueprint
        ),
        tuple((each.schema, each.table) for each in others if not each.readable),
    )


def _recorded(
    reader: psycopg.Connection[Any], tables: Sequence[_Candidate], pending: list[str]
) -> Iterator[tuple[_Candidate, tuple[str, ...]]]:
    """What each table records.

    Of one that may be something else than a version table, only what is pending here.
    """
    if not tables:
        return
    parts = []
    for number, each in enumerate(tables):
        place = identifier(each.schema, each.table).replace("%", "%%")
        condition = "true" if each.alembics else "version_num::text = ANY(%(pending)s)"
        parts.append(
            f"(SELECT {number}, version_num::text FROM {place}"  # noqa: S608 - quoted
            f" WHERE {condition} LIMIT {_MOST_HEADS})"
        )
    query = f"{' UNION ALL '.join(parts)} ORDER BY 1, 2"
    found: dict[int, tuple[str, ...]] = {}
    try:
        with reader.transaction():
            reader.execute(f"SET LOCAL lock_timeout = '{_LOCK_S}s'".encode())
            rows = reader.execute(query.encode(), {"pending": pending}).fetchall()
    except psycopg.errors.LockNotAvailable as exc:
        raise _locked(reader, tables) from exc
    for number, revision in rows:
        found[number] = (*found.get(number, ()), revision.rstrip() if revision else "")
    for number, each in enumerate(tables):
        yield each, found.get(number, ())


def _locked(reader: psycopg.Connection[Any], tables: Sequence[_Candidate]) -> StoreBusy:
    """The error of a version table that another session has locked."""
    names = {(each.schema, each.table) for each in tables}
    found = [row for row in reader.execute(_LOCKED).fetchall() if row[:2] in names]
    where = ", ".join(f"{space}.{table}" for space, table, _ in found) or "another version table"
    sessions = ", ".join(str(pid) for *_, pid in found)
    by = f" by process {sessions}" if sessions else ""
    return StoreBusy(
        NAME,
        f"{where} may record revisions, and cannot be read: it is locked{by}.",
        hint="Another tool may be migrating. Run again when its session has ended "
        "(pg_stat_activity).",
        subject=where,
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """Tables that pending revisions create or change, and that are there already.

    `created` would be created, `unless` would be created with IF NOT EXISTS. `changed` lie in a
    schema that the revisions name, and would be changed. `unread` says why the revisions could not
    be read for that; empty when they could.
    """

    created: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unread: str = ""


def taken(
    reader: psycopg.Connection[Any],
    schemas: Collection[str],
    sql: Callable[[], str],
    *,
    only_qualified: bool,
) -> Taken:
    """Which tables of the `sql` of the pending revisions are there.

    A table that names no schema is looked for in each of `schemas`, and not at all with
    `only_qualified`.
    """
    try:
        text = sql()
    except Exception as exc:  # noqa: BLE001 - what a revision raises is its own
        return Taken(unread=str(getattr(exc, "message", exc)))
    made = {m["name"]: bool(m["unless"]) for m in _CREATES.finditer(text)}
    changed = [m["name"] for m in _CHANGES.finditer(text)]
    names = [
        name
        for name in dict.fromkeys([*made, *changed])
        if name.rpartition(".")[2].strip().strip('"') != TABLE
        and ("." in name or (name in made and not only_qualified))
        and any(_is_there(reader, place) for place in _places(name, schemas))
    ]
    return Taken(
        tuple(name for name in names if name in made and not made[name]),
        tuple(name for name in names if made.get(name)),
        tuple(name for name in names if name not in made),
    )


def _places(name: str, schemas: Collection[str]) -> Iterator[str]:
    """The qualified names that a name of a statement may stand for."""
    if "." in name:
        yield name
        return
    for schema in schemas:
        yield f"{identifier(schema)}.{name}"


def _is_there(reader: psycopg.Connection[Any], name: str) -> bool:
    row = reader.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone()
    return bool(row and row[0])

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
* Nothing, since it cannot be looked into. It may be any of the above. A table with more columns
  than Alembic's counts for that only when its name or its mark says what it is.
* Somebody has named it as not ours (`IgnoredTables`). Then it is not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres import lineage_table
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.revisions import TABLE, marked_blueprint

#: Alembic keeps one row for each head. A table with more rows than this is no version table and is
#: not searched.
_MOST_ROWS = 10_000
#: So many revisions of a version table are read.
_MOST_HEADS = 20
#: So many version tables are read in one transaction, since the server has a lock for each one and
#: a limit on locks (manual, 20.12 max_locks_per_transaction).
_AT_ONCE = 500
#: So many names of a longer list are told.
_MOST_NAMES = 5
#: Every table, materialised view, view and foreign table with a column `version_num` of characters,
#: also of a domain. `pg_class` may be read by every role. Alembic's own tables have no other
#: column. A view that shows nothing but columns of such tables says no more than they do.
_CANDIDATES = """
    SELECT n.nspname::text, c.relname::text, obj_description(c.oid, 'pg_class'), c.relkind::text,
           has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT'),
           c.relrowsecurity AND row_security_active(c.oid),
           c.relispopulated,
           NOT EXISTS (
               SELECT FROM pg_attribute o
               WHERE o.attrelid = c.oid AND o.attnum > 0 AND NOT o.attisdropped
                 AND o.attname <> a.attname
           ),
           has_schema_privilege(n.oid, 'USAGE') OR n.nspname IN ('public', %(schema)s)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
                   AND c.relpersistence <> 't'
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid AND t.typcategory = 'S'
    WHERE a.attname = 'version_num' AND a.attnum > 0 AND NOT a.attisdropped
      AND c.reltuples < %(most)s
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND c.oid IS DISTINCT FROM to_regclass(%(own)s)
      AND NOT (c.relkind = 'v' AND coalesce((
              SELECT bool_and(EXISTS (
                  SELECT FROM pg_attribute s
                  WHERE s.attrelid = d.refobjid AND s.attname = 'version_num'
              ))
              FROM pg_rewrite r
              JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
              WHERE r.ev_class = c.oid
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
          ), false))
    ORDER BY 1, 2
"""
#: Seconds that one look at them waits for a lock.
_LOCK_S = 1
#: Every table of the database that a session has locked against readers, or waits to lock so, and
#: who that is.
_LOCKED = """
    SELECT n.nspname::text, c.relname::text, string_agg(DISTINCT l.pid::text, ', ') FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.mode = 'AccessExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY 1, 2
"""
_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_QUALIFIED = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_PLACE = rf"(?P<name>{_QUALIFIED})"
_CREATES = re.compile(
    rf"\bCREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?P<unless>IF\s+NOT\s+EXISTS\s+)?{_PLACE}", re.IGNORECASE
)
_CHANGES = re.compile(
    rf"\b(?:UPDATE|DELETE\s+FROM|INSERT\s+INTO|ALTER\s+TABLE)\s+(?:ONLY\s+)?{_PLACE}", re.IGNORECASE
)
#: What takes a table away from its name.
_REMOVES = re.compile(
    rf"\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?P<dropped>{_QUALIFIED}(?:\s*,\s*{_QUALIFIED})*)"
    rf"|\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(?P<moved>{_QUALIFIED})"
    r"\s+(?:RENAME\s+TO|SET\s+SCHEMA)\b",
    re.IGNORECASE,
)


class IgnoredTables:
    """Version tables that somebody has named as not ours: backups, and those of other services.

    Each of `names` is `SCHEMA.TABLE`, with the letters as they are on the server. `*` in one of the
    two stands for any characters, as in `billing.*` or `tenant_*.alembic_version`. Raises
    `ConfigurationError`, which begins with `setting`, for a name of another form, and for one that
    has `*` on both sides of the dot.
    """

    def __init__(self, names: Collection[str], setting: str) -> None:
        self._places = [self._place(name, setting) for name in names]

    @staticmethod
    def _place(name: str, setting: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
        schema, _, table = name.partition(".")
        if not schema or not table or "." in table:
            raise ConfigurationError(
                f"{setting}: {name!r} is no SCHEMA.TABLE.",
                hint="Name a table with its schema, such as public.alembic_version_backup.",
            )
        if "*" in schema and "*" in table:
            raise ConfigurationError(
                f"{setting}: {name!r} has * in the schema and in the table.",
                hint="Write one of the two out, as in billing.* or tenant_*.alembic_version.",
            )
        return _expression(schema), _expression(table)

    def has(self, schema: str, table: str) -> bool:
        """Whether a table is named."""
        return any(s.fullmatch(schema) and t.fullmatch(table) for s, t in self._places)


def _expression(part: str) -> re.Pattern[str]:
    """The expression for a name in which `*` stands for any characters."""
    return re.compile(re.escape(part).replace(r"\*", ".*"), re.DOTALL)


@dataclass(frozen=True, slots=True)
class VersionTable:
    """A version table that is not ours, and the revisions that it records."""

    schema: str
    table: str
    revisions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


class Why(Enum):
    """Why a version table could not be looked into."""

    RIGHTS = "this role may not read it"
    #: Our role has never written there. Another role may have run our revisions.
    SCHEMA = "this role may not use its schema"
    ROWS = "row level security may hide its rows from this role"
    LOCKED = "locked"
    #: A view runs code of its owner with our rights, a foreign table asks another server.
    NO_TABLE = "a view or foreign table is not read"
    EMPTY_VIEW = "the materialized view has never been filled"


@dataclass(frozen=True, slots=True)
class UnseenTable:
    """A version table that could not be looked into. `by` are the processes that lock it."""

    schema: str
    table: str
    why: Why
    by: str = ""

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def reason(self) -> str:
        """Why it could not be looked into, with who locks it."""
        return f"{self.why.value} by process {self.by}" if self.by else self.why.value

    def way_to_see(self, role: str) -> str:
        """What lets `role` look into it."""
        place, user = identifier(self.schema, self.table), identifier(role)
        grants = (
            f"Let its owner run: GRANT USAGE ON SCHEMA {identifier(self.schema)} TO {user}; "
            f"GRANT SELECT ON {place} TO {user};"
        )
        return {
            Why.RIGHTS: grants,
            Why.SCHEMA: grants,
            Why.ROWS: f"Run once as the owner of {self}, or let its owner run: "
            f"ALTER TABLE {place} DISABLE ROW LEVEL SECURITY;",
            Why.LOCKED: "Run again when the session that locks it has ended (pg_stat_activity).",
            Why.NO_TABLE: "If it shows revisions of yours, record the newest one with "
            "`is-db-bootstrap migrate stamp`.",
            Why.EMPTY_VIEW: f"Let its owner run: REFRESH MATERIALIZED VIEW {place};",
        }[self.why]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other version tables of the database say.

    `ours` has recorded revisions of our chain that are pending here; None when no table has.
    `unknown` have recorded revisions that are in nobody's chain here. `deployments` are the schemas
    in which our blueprint is recorded too. `unseen` are tables that may be version tables and that
    we cannot look into. `ignored` are the names of those that were named as not ours.
    """

    ours: VersionTable | None = None
    unknown: tuple[VersionTable, ...] = ()
    deployments: tuple[str, ...] = ()
    unseen: tuple[UnseenTable, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    #: What our table of lineages says of it.
    recorded_blueprint: str
    schema: str
    table: str
    comment: str | None
    kind: str
    may_read: bool
    hides_rows: bool
    is_filled: bool
    #: Whether it has the column of Alembic's tables and no other.
    alembics: bool
    may_use_schema: bool

    @property
    def blueprint(self) -> str:
        """The blueprint that it is marked with, by our table or by its comment."""
        return self.recorded_blueprint or marked_blueprint(self.comment)

    @property
    def is_deployment(self) -> bool:
        """Whether it is the record of a deployment in another schema, which says so itself."""
        return self.kind == "r" and self.table == TABLE and bool(self.blueprint)

    @property
    def is_stored(self) -> bool:
        """Whether reading it runs no code of its owner and asks no other server."""
        return self.kind not in {"v", "f"}

    @property
    def may_be_ours(self) -> bool:
        """Whether it may be a version table of a deployment that does not say so itself.

        A view or foreign table with more columns than Alembic's is a report, and no record. A
        table with more columns is looked into when it can be.
        """
        if self.is_deployment:
            return False
        return self.alembics or (self.is_stored and (self.unseen is None or self.says_what_it_is))

    @property
    def says_what_it_is(self) -> bool:
        """Whether its name or its comment says that it is a version table."""
        return "alembic" in self.table.lower() or bool(self.blueprint)

    @property
    def unseen(self) -> UnseenTable | None:
        """Why it cannot be looked into; None when it can."""
        hindrances = (
            (not self.may_use_schema, Why.SCHEMA),
            (not self.may_read, Why.RIGHTS),
            (self.hides_rows, Why.ROWS),
            (not self.is_stored, Why.NO_TABLE),
            (not self.is_filled, Why.EMPTY_VIEW),
        )
        for is_so, why in hindrances:
            if is_so:
                return UnseenTable(self.schema, self.table, why)
        return None


@dataclass(slots=True)
class _Read:
    """What was read of version tables, and which of them were locked."""

    recorded: list[tuple[_Candidate, tuple[str, ...]]] = field(default_factory=list)
    locked: list[UnseenTable] = field(default_factory=list)


def names_of(things: Sequence[object]) -> str:
    """The names of `things` for a message: the first few, and how many more there are."""
    told = ", ".join(str(thing) for thing in things[:_MOST_NAMES])
    left = len(things) - _MOST_NAMES
    return f"{told} and {left} more" if left > 0 else told


def reasons_of(tables: Sequence[UnseenTable]) -> str:
    """The names of tables that could not be looked into, by the reason for it."""
    by_reason: dict[str, list[UnseenTable]] = {}
    for table in tables:
        by_reason.setdefault(table.reason, []).append(table)
    return "; ".join(f"{names_of(each)} ({reason})" for reason, each in by_reason.items())


def find(
    reader: psycopg.Connection[Any],
    schema: str,
    blueprint: str,
    *,
    done: Collection[str],
    pending: Collection[str],
    ignored: IgnoredTables,
    own: str = "",
) -> Elsewhere:
    """Look into every version table of the database but our own in `schema`.

    `own` is the quoted name of that table, where it has another one than Alembic's.

    `done` and `pending` are the revisions of our chain that our own record has and lacks. One query
    names the tables that may be version tables, others read those, if there are any. A look waits
    `_LOCK_S` for a table that another session has locked, and does without that table then.
    """
    own = own or identifier(schema, TABLE)
    wanted = {"schema": schema, "own": own, "most": _MOST_ROWS}
    rows = reader.execute(_CANDIDATES, wanted).fetchall()
    marks = lineage_table.blueprints(reader) if rows else {}
    found = [_Candidate(marks.get(row[:2], ""), *row) for row in rows]
    others = [each for each in found if each.may_be_ours]
    not_ours = {each for each in others if ignored.has(each.schema, each.table)}
    others = [each for each in others if each not in not_ours]
    readable = [each for each in others if each.unseen is None]
    read = _read_all(reader, readable, list(pending))
    ours = None
    unknown: list[VersionTable] = []
    for each, revisions in read.recorded:
        again = tuple(r for r in revisions if r in pending)
        strange = tuple(r for r in revisions if r not in done and r not in pending)
        is_marked = each.blueprint == blueprint  # renamed, or moved, by hand
        if again or (strange and is_marked):
            ours = ours or VersionTable(each.schema, each.table, again or strange)
        elif strange:
            unknown.append(VersionTable(each.schema, each.table, strange))
    return Elsewhere(
        ours,
        tuple(unknown),
        deployments=tuple(
            each.schema for each in found if each.is_deployment and each.blueprint == blueprint
        ),
        unseen=(*filter(None, (each.unseen for each in others)), *read.locked),
        ignored=tuple(sorted(f"{each.schema}.{each.table}" for each in not_ours)),
    )


def _read_all(
    reader: psycopg.Connection[Any], tables: Sequence[_Candidate], pending: list[str]
) -> _Read:
    """What each table records, a few hundred of them at once."""
    read = _Read()
    for start in range(0, len(tables), _AT_ONCE):
        _read_some(reader, tables[start : start + _AT_ONCE], pending, read)
    return read


def _read_some(
    reader: psycopg.Connection[Any],
    tables: Sequence[_Candidate],
    pending: list[str],
    read: _Read,
) -> None:
    """Add to `read` what each table records, or that it is locked."""
    try:
        read.recorded += _recorded(reader, tables, pending)
    except psycopg.errors.LockNotAvailable:
        lockers = {(row[0], row[1]): row[2] for row in reader.execute(_LOCKED).fetchall()}
        locked = [each for each in tables if (each.schema, each.table) in lockers]
        others = [each for each in tables if (each.schema, each.table) not in lockers]
        try:
            read.recorded += _recorded(reader, others, pending)
        except psycopg.errors.LockNotAvailable:  # yet another one was locked meanwhile
            locked = list(tables)
        for each in locked:
            if not (each.alembics or each.says_what_it_is):
                continue
            by = lockers.get((each.schema, each.table), "")
            read.locked.append(UnseenTable(each.schema, each.table, Why.LOCKED, by))


def _recorded(
    reader: psycopg.Connection[Any], tables: Sequence[_Candidate], pending: list[str]
) -> list[tuple[_Candidate, tuple[str, ...]]]:
    """What each table records.

    Of one that may be something else than a version table, only what is pending here.
    """
    if not tables:
        return []
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
    with reader.transaction():
        reader.execute(f"SET LOCAL lock_timeout = '{_LOCK_S}s'".encode())
        rows = reader.execute(query.encode(), {"pending": pending}).fetchall()
    for number, revision in rows:
        found[number] = (*found.get(number, ()), revision.rstrip() if revision else "")
    return [(each, found.get(number, ())) for number, each in enumerate(tables)]


@dataclass(frozen=True, slots=True)
class Taken:
    """Tables that pending revisions create or change, and that are there already.

    `created` would be created, `unless` would be created with IF NOT EXISTS. `changed` lie in a
    schema that the revisions name, and would be changed. `replaced` are those of `created` that the
    revisions first drop or rename, so they expect them. `unread` says why the revisions could not
    be read for that; empty when they could.
    """

    created: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
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
        text = lineage_table.without_records(sql())
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
    created = tuple(name for name in names if name in made and not made[name])
    return Taken(
        created,
        tuple(name for name in names if made.get(name)),
        tuple(name for name in names if name not in made),
        tuple(name for name in created if _is_removed_first(name, text, schemas)),
    )


def _is_removed_first(created: str, text: str, schemas: Collection[str]) -> bool:
    """Whether `text` drops or renames the table before it creates one of that name."""
    wanted = _plain(created, schemas)
    first = next(m.start() for m in _CREATES.finditer(text) if m["name"] == created)
    for found in _REMOVES.finditer(text, 0, first):
        for name in re.findall(_QUALIFIED, found["dropped"] or found["moved"]):
            if wanted & _plain(name, schemas):
                return True
    return False


def _plain(name: str, schemas: Collection[str]) -> set[str]:
    """The qualified names that `name` may stand for, in one way of writing."""
    return {re.sub(r'["\s]', "", place).lower() for place in _places(name, schemas)}


def has_tables(reader: psycopg.Connection[Any], schema: str) -> bool:
    """Whether a schema holds any table."""
    query = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = %s)"
    row = reader.execute(query, [schema]).fetchone()
    return bool(row and row[0])


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

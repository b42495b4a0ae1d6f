"""Trying every table: it takes a row, and gives it back by each index.

It refuses what each constraint refuses, and its triggers fire.

All of it happens in one transaction that is rolled back. Only numbers of sequences are used up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import sql

from is_db_bootstrap.results import Proof
from is_db_bootstrap.stores.postgres import sample_rows
from is_db_bootstrap.stores.postgres.catalogue import Catalogue, live
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.sample_rows import Constraint, Row, Samples, Table
from is_db_bootstrap.stores.postgres.server_words import told
from is_db_bootstrap.wording import noun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from is_db_bootstrap.stores.postgres.catalogue import Objects

NOT_NULL, FOREIGN_KEY, UNIQUE, CHECK, RESTRICT = "23502", "23503", "23505", "23514", "23001"
#: How the states begin that a row of ours may get from rules that nobody can foresee: a value or a
#: row that something else refuses, what a trigger raises, a limit of the server, a foreign table.
#: They say nothing about what was to be tried.
_NO_VERDICT = ("22", "23", "54", "55", "HV", "P0001", "0A000")
#: The source file of PostgreSQL whose errors are about settings of a session, such as one that a
#: policy reads and only the application sets. Such an error has no state of its own.
_SETTINGS_SOURCE = "guc.c"
EXCLUSION = "23P01"
#: So many columns of a table are tried without a value, one after the other.
_MOST_COLUMNS = 100
#: A statement of ours waits at most so long for a row that a running application holds.
LOCK_TIMEOUT = "5s"

_INDEXES = """
SELECT c.relname::text, x.relname::text, m.amname::text, pg_get_expr(i.indpred, i.indrelid),
       i.indisvalid, i.indisunique,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true)
             FROM generate_series(1, i.indnkeyatts) k),
       (SELECT array_agg(o.opcname::text ORDER BY n)
        FROM unnest(i.indclass::oid[]) WITH ORDINALITY u(oid, n)
        JOIN pg_opclass o ON o.oid = u.oid),
       i.indexrelid IN (SELECT conindid FROM pg_constraint)
FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_am m ON m.oid = x.relam
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s)
ORDER BY c.relname, x.relname
"""
_TRIGGERS = """
SELECT c.relname::text, t.tgname::text, t.tgtype::int, p.oid::int8, t.tgqual IS NOT NULL,
       ARRAY(SELECT a.attname::text FROM unnest(t.tgattr::int2[]) n
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = n)
FROM pg_class c
JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
JOIN pg_proc p ON p.oid = t.tgfoid
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s)
ORDER BY c.relname, t.tgname
"""
#: Bits of pg_trigger.tgtype.
_INSERT, _DELETE, _UPDATE = 4, 8, 16


@dataclass(frozen=True, slots=True)
class _Index:
    name: str
    method: str
    predicate: str | None
    valid: bool
    unique: bool
    keys: tuple[str, ...]
    operators: tuple[str, ...]
    of_constraint: bool


def _of_row(row: tuple[Any, ...]) -> _Index:
    return _Index(*row)


class Trial(Protocol):
    """A self-test in another place than the target."""

    def proofs(self, done: Collection[str], declared: Objects | None) -> Iterator[Proof]:
        """The checks at the revisions `done`, of the tables in `declared` or of all."""

    def cancel(self) -> None:
        """From another thread: end what runs on the server."""


def proofs_in(
    connection: psycopg.Connection[Any], schema: str, declared: Objects | None
) -> Iterator[Proof]:
    """The checks of the tables in `declared`, or of all in `schema`. All of it is rolled back."""
    with connection.transaction(force_rollback=True):
        objects = live(connection, schema) if declared is None else declared
        yield from SelfTest(connection, schema, Catalogue("", "", objects).tables()).proofs()


class SelfTest:
    """The checks of the tables `names` in `schema`.

    `connection` is in a transaction that nobody else uses.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], schema: str, names: Sequence[str]
    ) -> None:
        self._connection = connection
        self._wanted = {"schema": schema, "tables": list(names)}
        self._tables = sample_rows.read(connection, schema, names)
        self._samples = Samples(connection, self._tables)
        self._uniques: Mapping[str, list[_Index]] = {}

    def proofs(self) -> Iterator[Proof]:
        """One after the other, table by table; the caller rolls back."""
        self._connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'".encode())
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        indexes, triggers = self._read(_INDEXES), self._read(_TRIGGERS)
        self._uniques = {
            table: [index for index in map(_of_row, rows) if index.unique]
            for table, rows in indexes.items()
        }
        for table in self._tables.values():
            self._samples.prepare(table.name)
            yield self._tried(
                f"{table.name} takes a row and gives it back", self._round_trip, table
            )
            yield self._tried(
                f"{table.name} refuses NULL where it is not allowed", self._not_null, table
            )
            for found in table.of("p", "u"):
                yield self._tried(
                    f"{table.name}.{found.name} refuses a second row",
                    self._unique,
                    table,
                    found.name,
                    found.columns,
                )
            for found in table.of("x"):
                yield self._tried(
                    f"{table.name}.{found.name} refuses a second row",
                    self._exclusion,
                    table,
                    found,
                )
            for index in map(_of_row, indexes.get(table.name, ())):
                if index.unique and not index.of_constraint:
                    yield self._tried(
                        f"{table.name}.{index.name} refuses a second row",
                        self._unique_index,
                        table,
                        index,
                    )
                yield self._tried(
                    f"{table.name}.{index.name} finds a row", self._found, table, index
                )
            for key in table.of("f"):
                yield self._tried(
                    f"{table.name}.{key.name} refuses a reference to nothing",
                    self._no_parent,
                    table,
                    key,
                )
                yield self._tried(
                    f"{table.name}.{key.name} {_RULES[key.rule]}", self._parent_deleted, table, key
                )
            for check in table.of("c"):
                yield self._tried(
                    f"{table.name}.{check.name} refuses what breaks it", self._check, table, check
                )
            for name, kind, function, conditional, columns in triggers.get(table.name, ()):
                yield self._tried(
                    f"{table.name}.{name} fires",
                    self._trigger,
                    table,
                    kind,
                    function,
                    conditional,
                    columns,
                )

    def _read(self, query: str) -> Mapping[str, list[tuple[Any, ...]]]:
        found: dict[str, list[tuple[Any, ...]]] = {}
        for table, *row in self._connection.execute(query.encode(), self._wanted):
            found.setdefault(table, []).append(
                tuple(tuple(v) if isinstance(v, list) else v for v in row)
            )
        return found

    def _tried(self, name: str, check: Callable[..., str], *given: Any) -> Proof:
        """What the check says, within a savepoint of its own.

        A refusal that it did not expect is a failure.
        """
        try:
            with self._undone():
                return Proof(name, ok=True, detail=check(*given))
        except LookupError as exc:
            return Proof(name, ok=None, detail=str(exc))
        except _Wrong as exc:
            return Proof(name, ok=False, detail=str(exc))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege) as exc:
            return Proof(name, ok=None, detail=told(exc)[0])
        except psycopg.Error as exc:
            state = exc.sqlstate or ""
            if state.startswith(_NO_VERDICT) or exc.diag.source_file == _SETTINGS_SOURCE:
                return Proof(name, ok=None, detail=f"{state}: {told(exc)[0]}")
            if isinstance(exc, psycopg.OperationalError):
                raise
            return Proof(name, ok=False, detail=f"{state}: {told(exc)[0]}")

    @contextmanager
    def _undone(self) -> Iterator[None]:
        with self._connection.transaction(force_rollback=True):
            yield

    def _refused(
        self,
        states: Sequence[str],
        name: str,
        act: Callable[[], Any],
        parts: Collection[str] = (),
    ) -> str:
        """`act` must be refused with one of `states`, by the constraint `name`.

        Without `name`, by any. `parts` are names that the constraint has in partitions.
        """
        try:
            with self._undone():
                act()
        except psycopg.Error as exc:
            by = exc.diag.constraint_name or exc.diag.column_name or ""
            if exc.sqlstate not in states:
                raise
            if name and by and by != name and by not in parts:
                raise LookupError(f"{by} refused it first ({exc.sqlstate})") from exc
            return str(exc.sqlstate)
        raise _Wrong("was not refused")

    # --- rows and constraints

    def _round_trip(self, table: Table) -> str:
        row = self._samples.valid(table.name)
        needed = {column for bound in table.of("b") for column in bound.columns}
        least = {
            n: v
            for n, v in row.items()
            if n in needed or (table.columns[n].required and table.columns[n].initial is None)
        }
        try:
            with self._undone():
                self._samples.insert(table.name, least)
        except psycopg.errors.CheckViolation:  # a CHECK asks for more than NOT NULL does
            asked = {column for check in table.of("c") for column in check.columns}
            least |= {n: v for n, v in row.items() if n in asked}
            with self._undone():
                self._samples.insert(table.name, least)
        stored = self._samples.insert(table.name, row)
        if not self._count(table, stored):
            raise _Wrong("the row was not found again")
        are = noun(len(least), "column is", "columns are")
        return f"{len(least)} {are} required, {len(stored)} {noun(len(stored), 'was', 'were')} read"

    def _count(self, table: Table, row: Row) -> int:
        """How many rows have the primary key of `row`.

        Where there is no key, all of its values are compared.
        """
        key = next((k.columns for k in table.of("p")), tuple(row))
        conditions = sql.SQL(" AND ").join(
            sql.SQL("{}::text IS NOT DISTINCT FROM {}").format(sql.Identifier(c), sql.Placeholder())
            for c in key
        )
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
            sql.Identifier(table.name), conditions
        )
        found = self._connection.execute(query, [row[c] for c in key]).fetchone()
        return int(found[0]) if found else 0

    def _not_null(self, table: Table) -> str:
        row = self._samples.valid(table.name)
        required = [c.name for c in table.columns.values() if c.required]
        columns = required[:_MOST_COLUMNS]
        for column in columns:
            without = row | {column: None}
            # A row without a value for the key of the partitions may have no partition.
            bound = any(column in each.columns for each in table.of("b"))
            states = [NOT_NULL, CHECK] if bound else [NOT_NULL]
            self._refused(states, column, partial(self._samples.insert, table.name, without))
        if not columns:
            return "no such column"
        number = f"{len(columns)}" if columns == required else f"{len(columns)} of {len(required)}"
        return f"{number} {noun(len(required), 'column')} ({NOT_NULL})"

    def _unique(
        self, table: Table, name: str, columns: Sequence[str], holding: Sequence[str] = ()
    ) -> str:
        first = self._samples.new(table.name, holding)
        if any(first[c] is None for c in columns):
            raise LookupError(f"NULL in {', '.join(columns)}: nothing to repeat")
        others = [k.columns for k in table.of("p", "u", "x") if k.name != name]
        others += [
            tuple(k.strip('"') for k in i.keys)
            for i in self._uniques.get(table.name, ())
            if i.name != name
        ]
        elsewhere = {c for columns_ in others for c in columns_ if c in table.columns} - set(
            columns
        )
        given = {c for c in first if table.columns[c].given and c not in columns}
        second = self._samples.fresh(
            table.name, {c: v for c, v in first.items() if c not in given}, elsewhere
        )
        return self._refused(
            [UNIQUE],
            name,
            lambda: self._samples.insert(table.name, second),
            table.parts.get(name, ()),
        )

    def _exclusion(self, table: Table, found: Constraint) -> str:
        """A second row with the same values, which most exclusion constraints refuse."""
        first = self._samples.new(table.name)
        if not found.columns or any(first[c] is None for c in found.columns):
            raise LookupError("an expression or NULL: nothing to repeat")
        keys = {c for key in table.of("p", "u") for c in key.columns} - set(found.columns)
        given = {c for c in first if table.columns[c].given and c not in found.columns}
        kept = {c: v for c, v in first.items() if c not in given}
        second = self._samples.fresh(table.name, kept, keys - given)
        try:
            return self._refused(
                [EXCLUSION],
                found.name,
                lambda: self._samples.insert(table.name, second),
                table.parts.get(found.name, ()),
            )
        except _Wrong as exc:
            raise LookupError("the same values are no conflict for its operators") from exc

    def _unique_index(self, table: Table, index: _Index) -> str:
        columns = [key.strip('"') for key in index.keys]
        if not set(columns) <= set(table.columns):
            raise LookupError("an expression")
        return self._unique(
            table, index.name, columns, [index.predicate] if index.predicate else []
        )

    def _no_parent(self, table: Table, key: Constraint) -> str:
        self._samples.table(key.table)
        row = self._samples.valid(table.name)
        lost = row | {
            c: self._samples.absent(key.table, to)
            for c, to in zip(key.columns, key.to, strict=True)
        }
        return self._refused(
            [FOREIGN_KEY],
            key.name,
            lambda: self._samples.insert(table.name, lost),
            table.parts.get(key.name, ()),
        )

    def _parent_deleted(self, table: Table, key: Constraint) -> str:
        parent = self._samples.new(key.table)
        row = self._samples.valid(table.name) | {
            c: parent[to] for c, to in zip(key.columns, key.to, strict=True)
        }
        child = self._samples.insert(table.name, row)
        if key.rule in "ar":
            return self._refused([FOREIGN_KEY, RESTRICT], "", lambda: self._delete(key, parent))
        self._delete(key, parent)
        left = self._count(table, child)
        if key.rule == "c" and left:
            raise _Wrong("the row is still there")
        if key.rule != "c" and not left:
            raise _Wrong("the row went, too")
        return ""

    def _delete(self, key: Constraint, parent: Row) -> None:
        conditions = sql.SQL(" AND ").join(
            sql.SQL("{}::text = {}").format(sql.Identifier(c), sql.Placeholder()) for c in key.to
        )
        query = sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(key.table), conditions)
        self._connection.execute(query, [parent[c] for c in key.to])

    def _check(self, table: Table, check: Constraint) -> str:
        row = self._samples.breaking(table.name, check)
        shown = ", ".join(
            f"{c}={row[c]!r}" if row[c] is not None else f"{c} NULL"
            for c in check.columns
            if c in row
        )
        refused = self._refused([CHECK], check.name, lambda: self._samples.insert(table.name, row))
        return f"{refused}: {shown}"

    # --- triggers

    def _trigger(
        self, table: Table, kind: int, function: int, conditional: bool, columns: Sequence[str]
    ) -> str:
        """Called, refused, or seen by what it changed in the row."""
        counted = self._counting()
        before = self._calls(function)
        try:
            with self._undone():
                effect = self._effect(table, kind, columns)
                calls = self._calls(function) - before
        except psycopg.errors.RaiseException as exc:
            return f"{exc.sqlstate}: {told(exc)[0]}"
        except psycopg.Error as exc:
            if exc.sqlstate != RESTRICT:
                raise
            return f"{exc.sqlstate}: {told(exc)[0]}"
        if calls or effect:
            return effect
        if not counted:
            raise LookupError("only a superuser can see whether it was called")
        if conditional:
            raise LookupError("its WHEN did not hold for what was tried")
        raise _Wrong("was not called")

    def _counting(self) -> bool:
        """Let the server count calls of functions for the rest of this savepoint.

        Only a superuser may do that.
        """
        try:
            with self._connection.transaction():
                self._connection.execute("SET LOCAL track_functions = 'all'")
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    def _calls(self, function: int) -> int:
        found = self._connection.execute(
            "SELECT calls FROM pg_stat_xact_user_functions WHERE funcid = %s", [function]
        ).fetchone()
        return int(found[0]) if found else 0

    def _effect(self, table: Table, kind: int, columns: Sequence[str]) -> str:
        row = self._samples.new(table.name)
        key = next((k.columns for k in table.of("p")), tuple(table.columns))
        where = sql.SQL(" AND ").join(
            sql.SQL("{}::text = {}").format(sql.Identifier(c), sql.Placeholder()) for c in key
        )
        values = [row[c] for c in key]
        if kind & _UPDATE:
            return self._update(table, row, columns, where, values)
        if kind & _DELETE:
            self._connection.execute(
                sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table.name), where), values
            )
        elif not kind & _INSERT:
            raise LookupError("TRUNCATE is not tried: it would lock the table")
        return ""

    def _update(
        self,
        table: Table,
        row: Row,
        columns: Sequence[str],
        where: sql.Composed,
        key: Sequence[Any],
    ) -> str:
        changed = self._samples.other(table.name, row, columns)
        column = next(c for c in changed if changed[c] != row[c])
        query = sql.SQL("UPDATE {} SET {} = {} WHERE {} RETURNING {}").format(
            sql.Identifier(table.name),
            sql.Identifier(column),
            sample_rows.cast(table.columns[column]),
            where,
            sql.SQL(", ").join(
                sql.SQL("{}::text").format(sql.Identifier(c)) for c in table.columns
            ),
        )
        after = dict(
            zip(
                table.columns,
                self._connection.execute(query, [changed[column], *key]).fetchone() or (),
                strict=False,
            )
        )
        moved = [c for c in after if after[c] != row[c] and c != column]
        return f"moves {', '.join(moved)}" if moved else ""

    # --- indexes

    def _found(self, table: Table, index: _Index) -> str:
        """Ask by the index's own columns with sequential scans off.

        The plan must name it, or one that serves as well.
        """
        if not index.valid:
            raise _Wrong("is not valid")
        row = self._samples.new(table.name, [index.predicate] if index.predicate else [])
        conditions = [
            self._condition(table, row, key, index.operators[i], index.method)
            for i, key in enumerate(index.keys)
        ]
        text = " AND ".join([*conditions, *([f"({index.predicate})"] if index.predicate else [])])
        place = identifier(table.name)
        query = f"SELECT * FROM {place} WHERE {text}"  # noqa: S608 - names and literals are quoted
        bitmap = "off" if index.method == "btree" else "on"
        self._connection.execute(
            f"SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = {bitmap}".encode()
        )
        plan = self._connection.execute(f"EXPLAIN (FORMAT JSON) {query}".encode()).fetchone()
        used = re.findall(r'"Index Name": ("(?:[^"\\]|\\.)*")', json.dumps(plan[0] if plan else []))
        names = [json.loads(name) for name in used]
        if not names:
            raise _Wrong(f"no index serves {text}")
        # One row is enough: the condition may hold for millions.
        if self._connection.execute(f"{query} LIMIT 1".encode()).fetchone() is None:
            raise _Wrong(f"nothing was found by {text}")
        parts = {index.name, *table.parts.get(index.name, ())}
        return "" if parts & set(names) else f"served by {', '.join(names)}"

    def _condition(self, table: Table, row: Row, key: str, operators: str, method: str) -> str:
        name = key.strip('"')
        if name not in table.columns:
            return f"({key}) IS NOT NULL"
        value = row[name]
        if value is None:
            return f"{key} IS NULL"
        text = sql.Literal(value).as_string(self._connection)
        if operators.startswith("gin_trgm"):
            return f"{key} LIKE '%' || {text} || '%'"
        operator = "@>" if method == "gin" else "="
        return f"{key} {operator} {text}::{table.columns[name].type}"


_RULES = {
    "a": "keeps a parent that has rows",
    "r": "keeps a parent that has rows",
    "c": "deletes rows with their parent",
    "n": "becomes NULL with its parent",
    "d": "takes its default with its parent",
}


class _Wrong(Exception):
    """The store did something else than what was declared."""

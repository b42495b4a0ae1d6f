"""Rows that a live table takes or refuses, found by asking the server about its own constraints."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from is_db_bootstrap.stores.postgres.server_words import told

#: A value in the server's own text form; None is NULL.
Text = str | None
Row = dict[str, Text]

#: How many combinations of values are tried to satisfy or to break one CHECK.
TRIES = 500

_COLUMNS = """
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
       b.typname::text AS base, a.attnotnull,
       a.attidentity <> '' OR a.attgenerated <> ''
           OR coalesce(pg_get_expr(f.adbin, f.adrelid) LIKE 'nextval(%%', false) AS given,
       pg_get_expr(f.adbin, f.adrelid) AS initial, a.atttypmod,
       (
           SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
           FROM pg_enum e WHERE e.enumtypid = b.oid
       ) AS labels,
       t.typtype = 'd',
       (
           SELECT count(*)::int FROM pg_attribute p
           WHERE p.attrelid = b.typrelid AND p.attnum > 0 AND NOT p.attisdropped
       ) AS parts
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN LATERAL (
    WITH RECURSIVE layer AS (
        SELECT t.oid, t.typname, t.typtype, t.typrelid, t.typbasetype
        UNION ALL
        SELECT d.oid, d.typname, d.typtype, d.typrelid, d.typbasetype
        FROM layer JOIN pg_type d ON d.oid = layer.typbasetype AND layer.typtype = 'd'
    )
    SELECT * FROM layer WHERE typtype <> 'd'
) b ON true
LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s)
ORDER BY c.relname, a.attnum
"""
_CONSTRAINTS = """
SELECT c.relname::text, k.conname::text, k.contype::text, pg_get_expr(k.conbin, k.conrelid),
       ARRAY(
           SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, i)
           JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY i
       ),
       CASE WHEN r.relnamespace <> c.relnamespace THEN n.nspname || '.' ELSE '' END || r.relname,
       ARRAY(
           SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, i)
           JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY i
       ),
       k.confdeltype::text
FROM pg_class c
JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype IN ('c', 'f', 'p', 'u', 'x')
LEFT JOIN pg_class r ON r.oid = k.confrelid
LEFT JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s)
ORDER BY c.relname, k.conname
"""

#: What the rows of a table must meet so that a partition takes them: of a partition its own bounds,
#: of a partitioned table those of any partition that has rows itself. None where every row fits, as
#: in a default partition that is the only one.
_BOUNDS = """
SELECT c.relname::text, c.relkind = 'p',
       ARRAY(
           SELECT pg_get_partition_constraintdef(leaf.relid)
           FROM pg_partition_tree(c.oid) leaf WHERE leaf.isleaf
       ),
       ARRAY(
           SELECT DISTINCT a.attname::text
           FROM unnest(
               ARRAY(SELECT relid FROM pg_partition_tree(c.oid))
               || ARRAY(SELECT relid FROM pg_partition_ancestors(c.oid))
           ) part (id)
           JOIN pg_partitioned_table p ON p.partrelid = part.id
           JOIN pg_attribute k ON k.attrelid = p.partrelid
               AND k.attnum = ANY (p.partattrs::int2[]) AND k.attnum > 0
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = k.attname
       )
FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s)
  AND (c.relkind = 'p' OR c.relispartition)
"""
#: What a partition calls its part of an index or of a constraint.
_PARTS = """
SELECT c.relname::text, x.relname::text, ARRAY(
    SELECT k.relname::text
    FROM pg_partition_tree(x.oid) part JOIN pg_class k ON k.oid = part.relid
)
FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s)
  AND c.relkind = 'p'
UNION ALL
SELECT c.relname::text, k.conname::text, ARRAY(
    WITH RECURSIVE part AS (
        SELECT k.oid
        UNION ALL SELECT o.oid FROM pg_constraint o JOIN part ON o.conparentid = part.oid
    )
    SELECT o.conname::text FROM pg_constraint o JOIN part ON part.oid = o.oid
)
FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f'
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY(%(tables)s)
  AND c.relkind = 'p'
"""


@dataclass(frozen=True, slots=True)
class Column:
    """`type` as SQL writes it.

    `base` is the name of the type without its length, of a domain that below all domains. `parts`
    are the columns of a composite type, else 0. `given` means that the server fills it.
    """

    name: str
    type: str
    base: str
    required: bool
    given: bool
    initial: str | None
    modifier: int
    labels: list[str] | None
    is_domain: bool = False
    parts: int = 0

    @property
    def is_certain(self) -> bool:
        """Whether every candidate is a value of the type; else the server has to be asked."""
        known = bool(self.labels) or self.base.startswith("_") or self.base in _KINDS
        return known and not self.is_domain

    def candidates(self, hints: Sequence[str]) -> list[Text]:
        """Texts worth trying, the most ordinary first.

        `hints` are the literals of CHECKs on the column.
        """
        if self.labels:
            return [*self.labels, None]
        if self.base.startswith("_"):
            return ["{}", "{NULL}", *[f"{{{h}}}" for h in hints if h.isalnum()], None]
        if self.parts:
            return [*hints, f"({',' * (self.parts - 1)})", "(1,1)", None]
        kind = _KINDS.get(self.base)
        texts = _GENERATORS[kind](self, hints) if kind else [*hints, *_OF_ANY_TYPE]
        return [*dict.fromkeys(texts), None]

    @property
    def precision(self) -> tuple[int, int] | None:
        """Digits in all, and digits after the point, of a numeric that has a limit."""
        return (
            ((self.modifier - 4) >> 16, (self.modifier - 4) & 0xFFFF)
            if self.base == "numeric" and self.modifier > 0
            else None
        )


def _texts(column: Column, hints: Sequence[str]) -> Iterator[str]:
    length = column.modifier - 4 if column.modifier > 0 else 64
    yield f"selftest-{secrets.token_hex(6)}"[-length:]
    yield from (h for h in hints if len(h) <= length)
    yield from (
        t[:length]
        for t in ("A", "a", "1", "a1", "1.1", "a@example.org", "A_1", "", " ", "1..2", "-")
    )


def _numbers(column: Column, hints: Sequence[str]) -> Iterator[str]:
    limit = {"int2": 2**15, "int4": 2**31}.get(column.base, 2**63)
    step = Decimal(1) if column.base.startswith("int") else Decimal("0.01")
    told = [n for h in hints if (n := _number(h)) is not None]
    near = (m for n in told for m in (n, n - step, n + step))
    for number in (
        Decimal(secrets.randbelow(20_000) + 1),
        Decimal(1),
        Decimal(0),
        Decimal(-1),
        *near,
        Decimal(100),
    ):
        whole = number == number.to_integral_value()
        if column.precision:
            digits, scale = column.precision
            fits = abs(number) < Decimal(10) ** (digits - scale)
        else:
            fits = abs(number) < limit and (whole or not column.base.startswith("int"))
        if fits:
            yield format(number, "f")


def _number(text: str) -> Decimal | None:
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _times(column: Column, hints: Sequence[str]) -> Iterator[str]:
    now = datetime.now(UTC)
    shape = (
        "%Y-%m-%d"
        if column.base == "date"
        else "%Y-%m-%d %H:%M:%S.%f%z"
        if column.base == "timestamptz"
        else "%Y-%m-%d %H:%M:%S.%f"
    )
    for days in (0, 1, -1):
        yield (now + timedelta(days=days)).strftime(shape)
    for moment in filter(None, map(_moment, hints)):
        for days in (0, 1, -1):
            yield (moment + timedelta(days=days)).strftime(shape)


def _moment(text: str) -> datetime | None:
    """The time that a literal of the server names; in UTC, where it names no zone."""
    try:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError:
        return None


_GENERATORS: Mapping[str, Callable[[Column, Sequence[str]], Iterator[str]]] = {
    "text": _texts,
    "number": _numbers,
    "time": _times,
    "json": lambda _, __: iter(['{"selftest": true}', "[]", "{}", '"text"', "1", "null"]),
    "bool": lambda _, __: iter(["true", "false"]),
    "uuid": lambda _, __: iter([str(uuid4())]),
    "bytes": lambda _, __: iter(["\\x00", "\\x"]),
    "clock": lambda _, __: iter(["12:00:00", "00:00:01"]),
    "address": lambda _, __: iter(["192.0.2.1"]),
}
_KINDS = {
    **dict.fromkeys(("text", "varchar", "bpchar", "citext", "name"), "text"),
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8", "money"), "number"),
    **dict.fromkeys(("timestamptz", "timestamp", "date"), "time"),
    **dict.fromkeys(("json", "jsonb"), "json"),
    **dict.fromkeys(("time", "timetz", "interval"), "clock"),
    **dict.fromkeys(("inet", "cidr"), "address"),
    "bool": "bool",
    "uuid": "uuid",
    "bytea": "bytes",
}

#: Texts for types that have no generator. The server says which of them are values.
_OF_ANY_TYPE = (
    "1",
    "[1,2)",
    "[2026-01-01,2026-01-02)",
    "{[1,2)}",
    "(1,1)",
    "(1,1),(0,0)",
    "((0,0),(1,1),(1,0))",
    "<(0,0),1>",
    "{1,1,1}",
    "1010",
    "08:00:2b:01:02:03",
    "0/1",
    "a=>1",
    "a",
    "<a/>",
    "$",
    "pg_class",
    "empty",
    "{}",
)
#: How the states begin with which the input of a type refuses a text.
_OF_THE_INPUT = ("22", "42601", "XX")
#: Why a row cannot be made, which is no failure of the connection.
_UNMADE = (
    LookupError,
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.InternalError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
    psycopg.errors.LockNotAvailable,
)
#: From so many columns on, a row leaves out what it may leave out: PostgreSQL's row has to fit into
#: a page of 8 KiB, and a value outside of it takes 18 bytes there.
_WIDE = 200
#: Parameters of one statement; the protocol takes 65,535.
_PARAMETERS = 30_000


@dataclass(frozen=True, slots=True)
class Constraint:
    """`kind` is that of pg_constraint: c, f, p, u or x; `rule` is its confdeltype: a, r, c, n or d.

    Kind b are the bounds of partitions: what a row must meet so that there is one for it.
    The `table` that a foreign key leads to has its schema before it when that is another one.
    """

    name: str
    kind: str
    expression: str
    columns: tuple[str, ...]
    table: str = ""
    to: tuple[str, ...] = ()
    rule: str = ""


@dataclass(slots=True)
class Table:
    """A live table: its columns and constraints by name.

    `parts` maps an index or a foreign key to what partitions call it. `unfit` says why the table
    takes no row at all.
    """

    name: str
    parts: dict[str, frozenset[str]] = field(default_factory=dict)
    unfit: str = ""
    columns: dict[str, Column] = field(default_factory=dict)
    constraints: list[Constraint] = field(default_factory=list)

    def of(self, *kinds: str) -> list[Constraint]:
        """The constraints of these kinds."""
        return [c for c in self.constraints if c.kind in kinds]

    def hints(self, column: str, more: Iterable[str] = ()) -> list[str]:
        """The literals that CHECKs on the column, and `more` conditions, are written with."""
        texts = [c.expression for c in self.of("c", "b") if column in c.columns]
        return [hint for text in (*more, *texts) for hint in _literals(text)]


def _literals(expression: str) -> Iterator[str]:
    for text in re.findall(r"'((?:[^']|'')*)'", expression):
        yield text.replace("''", "'")
    yield from re.findall(
        r"(?<![\w'.])-?\d+(?:\.\d+)?(?![\w'])", re.sub(r"'(?:[^']|'')*'", "", expression)
    )


def read(
    connection: psycopg.Connection[Any], schema: str, names: Sequence[str]
) -> dict[str, Table]:
    """The named tables of a schema as they are."""
    tables = {name: Table(name) for name in names}
    wanted = {"schema": schema, "tables": list(names)}
    for table, *facts in connection.execute(_COLUMNS.encode(), wanted):
        tables[table].columns[facts[0]] = Column(*facts)
    for table, name, kind, expression, columns, other, to, rule in connection.execute(
        _CONSTRAINTS.encode(), wanted
    ):
        tables[table].constraints.append(
            Constraint(name, kind, expression or "", tuple(columns), other or "", tuple(to), rule)
        )
    for table, is_partitioned, bounds, columns in connection.execute(_BOUNDS.encode(), wanted):
        if is_partitioned and not bounds:
            tables[table].unfit = f"{table} has no partition that could take a row"
        elif None not in bounds:
            fits = " OR ".join(f"({bound})" for bound in bounds)
            tables[table].constraints.append(Constraint("", "b", fits, tuple(columns)))
    for found in tables.values():
        if not found.columns:
            found.unfit = f"{found.name} has no columns"
    for table, name, parts in connection.execute(_PARTS.encode(), wanted):
        tables[table].parts[name] = frozenset(parts)
    return tables


class Samples:
    """Finds rows within the transaction of `connection`; everything that is inserted goes with it.

    Rows hold every column that the server does not fill by itself; columns that refer to another
    table refer to a new row there.
    """

    def __init__(self, connection: psycopg.Connection[Any], tables: Mapping[str, Table]) -> None:
        self._connection = connection
        self.tables = tables
        self._making: list[str] = []
        self._accepted: dict[tuple[str, str], bool] = {}
        #: By type, what the server says of the first text that is no value of it.
        self._refusals: dict[str, str] = {}
        self._repairs: dict[tuple[str, tuple[str, ...]], Row] = {}
        #: By table and foreign key, a row to refer to that is there for all checks.
        self._ready: dict[tuple[str, str], Row] = {}
        self._prepared: set[str] = set()
        self._inserts: dict[tuple[str, tuple[str, ...]], str] = {}

    def table(self, name: str) -> Table:
        """The table of that name. `LookupError` when it is not among those that are tried."""
        if found := self.tables.get(name):
            return found
        if "." in name:
            raise LookupError(f"table {name} is in another schema, which is not tried")
        raise LookupError(f"table {name} is not of this blueprint")

    def new(self, name: str, holding: Sequence[str] = ()) -> Row:
        """A row that was inserted, as the server has stored it.

        `holding` are conditions that it also meets.
        """
        row = self.valid(name, holding)
        return self.insert(name, row)

    def prepare(self, name: str) -> None:
        """Make the rows once to which rows of the table refer, layer by layer from the last one.

        Each check would make all layers again, which are many in some schemas. A key that is unique
        takes a row of its own each time. A row that cannot be made is told by the check that needs
        it.
        """
        stack = [name]
        while stack:
            table = self.tables[stack[-1]]
            self._prepared.add(table.name)
            parents = [key.table for key in table.of("f")]
            left = [each for each in parents if each in self.tables and each not in self._prepared]
            if left:
                stack.append(left[0])
                continue
            stack.pop()
            self._make_ready(table)

    def _make_ready(self, table: Table) -> None:
        unique = {column for key in table.of("p", "u") for column in key.columns}
        for key in table.of("f"):
            is_shared = key.table in self.tables and unique.isdisjoint(key.columns)
            if not is_shared or (table.name, key.name) in self._ready:
                continue
            with suppress(*_UNMADE), self._connection.transaction():
                self._ready[table.name, key.name] = self.new(key.table)

    def valid(self, name: str, holding: Sequence[str] = ()) -> Row:
        """A row that meets every CHECK and each condition of `holding`.

        `LookupError` when none was found.
        """
        table = self.table(name)
        if table.unfit:
            raise LookupError(table.unfit)
        row = self._first_values(table, [c for c in table.columns.values() if not c.given])
        if len(table.columns) > _WIDE:
            row = self._narrow(table, row)
        row |= self._parents(table)
        fixed = {column for key in table.of("f") for column in key.columns}
        for column in table.columns.values():
            if column.required and not column.given and row[column.name] is None:
                unknown = f"no value is known for {name}.{column.name} ({column.type})"
                raise LookupError(unknown + self._why_unknown(column))
        return self._repaired(
            table, row | self._known_repair(table, fixed, holding), fixed, holding
        )

    @staticmethod
    def _narrow(table: Table, row: Row) -> Row:
        """NULL where that is allowed and no constraint asks for a value."""
        needed = {column for each in table.constraints for column in each.columns}
        return {
            name: value if name in needed or table.columns[name].required else None
            for name, value in row.items()
        }

    def _known_repair(self, table: Table, fixed: set[str], holding: Sequence[str]) -> Row:
        """The values with which an earlier row met the same conditions.

        To find them takes many tries. Those of a key are not repeated: its rows must differ.
        """
        unique = {column for key in table.of("p", "u") for column in key.columns}
        found = self._repairs.get((table.name, tuple(holding)), {})
        return {c: value for c, value in found.items() if c not in fixed | unique}

    def breaking(self, name: str, check: Constraint) -> Row:
        """A row that breaks this CHECK, and no other where that is possible.

        `LookupError` when none was found.
        """
        table = self.tables[name]
        row = self.valid(name)
        broken = [
            r
            for r in self._variants(table, row, check.columns)
            if not self._met(table, [r], [check.expression])[0][0]
        ]
        if not broken:
            raise LookupError(f"no value was found that {check.name} refuses")
        others = [c.expression for c in table.of("c", "b") if c is not check]
        met = self._met(table, broken, others) if others else [()] * len(broken)
        return min(zip(broken, met, strict=True), key=lambda pair: sum(not m for m in pair[1]))[0]

    def insert(self, name: str, row: Row) -> Row:
        """Insert it; the row as stored, in text form."""
        query = self._insert_statement(name, tuple(row))
        stored = self._connection.execute(query.encode(), list(row.values())).fetchone()
        return dict(zip(self.tables[name].columns, stored or (), strict=False))

    def _insert_statement(self, name: str, given: tuple[str, ...]) -> str:
        """The statement for a row with these columns. To put it together takes long."""
        known = self._inserts.get((name, given))
        if known is not None:
            return known
        columns = self.tables[name].columns
        values = sql.SQL("({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, given)),
            sql.SQL(", ").join(cast(columns[c]) for c in given),
        )
        query = sql.SQL("INSERT INTO {} {} RETURNING {}").format(
            sql.Identifier(name),
            values if given else sql.SQL("DEFAULT VALUES"),
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c in columns),
        )
        self._inserts[name, given] = query.as_string(self._connection)
        return self._inserts[name, given]

    def other(self, name: str, row: Row, columns: Sequence[str] = ()) -> Row:
        """The same row with one of `columns` at another value that every CHECK takes.

        Without `columns`, any one that is free.
        """
        table = self.tables[name]
        keys = {c for k in table.of("p", "u", "f") for c in k.columns}
        writable = {c: v for c, v in row.items() if not table.columns[c].given}
        for column in columns or [c for c in writable if c not in keys]:
            for changed in self._variants(table, writable, [column]):
                if changed[column] != row[column] and all(
                    self._met(table, [changed], self._checks(table))[0]
                ):
                    return row | changed
        raise LookupError("no column was found that takes another value")

    def fresh(self, name: str, row: Row, columns: Iterable[str]) -> Row:
        """The same row with another value in each of `columns`.

        But in those that the server fills, and in those that refer to another table.
        """
        foreign = {c for k in self.tables[name].of("f") for c in k.columns}
        for column in columns:
            if column in row and column not in foreign:
                row = self.other(name, row, [column])
        return row

    def absent(self, name: str, column: str) -> Text:
        """A value that no row of the table has in `column`, as far as chance can tell."""
        found = self.tables[name].columns[column]
        if found.given:
            return "0"
        return self._first_values(self.tables[name], [found])[column]

    def _parents(self, table: Table) -> Row:
        found: Row = {}
        self._making.append(table.name)
        try:
            for key in table.of("f"):
                optional = not any(table.columns[c].required for c in key.columns)
                if optional and (key.table in self._making or key.table not in self.tables):
                    found |= dict.fromkeys(key.columns)
                elif not set(key.columns) <= set(found):
                    parent = self._ready.get((table.name, key.name)) or self.new(key.table)
                    found |= {
                        column: parent[to] for column, to in zip(key.columns, key.to, strict=True)
                    }
        finally:
            self._making.pop()
        return found

    def _first_values(self, table: Table, columns: Sequence[Column]) -> Row:
        """A value for each column: what its expression gives, else the first one worth trying."""
        computed = [column for column in columns if column.initial is not None]
        texts = dict(zip((c.name for c in computed), self._computed(computed), strict=True))
        return {
            c.name: texts[c.name] if c.name in texts else self._candidates(table, c)[0]
            for c in columns
        }

    def _computed(self, columns: Sequence[Column]) -> Sequence[Text]:
        """What the expressions of the columns give, in text form."""
        if not columns:
            return ()
        # Expression and type are the server's own text.
        casts = (f"CAST({column.initial} AS {column.type})::text" for column in columns)
        query = sql.SQL("SELECT {}").format(sql.SQL(", ").join(map(sql.SQL, casts)))
        return self._connection.execute(query).fetchone() or ()

    def _candidates(self, table: Table, column: Column, more: Sequence[str] = ()) -> Sequence[Text]:
        """Values worth trying; only NULL for a type of which none is known."""
        found = column.candidates(table.hints(column.name, more))
        if column.is_certain:
            return found
        return [text for text in found if text is None or self._is_value(column, text)]

    def _is_value(self, column: Column, text: str) -> bool:
        """Whether the server takes `text` for a value of the column's type, and of its domain."""
        asked = column.type, text
        if asked not in self._accepted:
            query = sql.SQL("SELECT {}").format(cast(column))
            try:
                with self._connection.transaction(force_rollback=True):
                    self._connection.execute(query, [text])
                self._accepted[asked] = True
            except psycopg.OperationalError:
                raise
            except psycopg.DatabaseError as exc:
                # hstore of PostgreSQL 15 refuses a text with XX000, which is an internal error.
                self._accepted[asked] = False
                self._refusals.setdefault(column.type, _refusal(exc, text))
        return self._accepted[asked]

    def _why_unknown(self, column: Column) -> str:
        """What the server says of the first text that it did not take. Empty if it said nothing."""
        found = self._refusals.get(column.type)
        return f". Of the first text that was tried the server says {found}" if found else ""

    def _checks(self, table: Table) -> list[str]:
        return [c.expression for c in table.of("c", "b")]

    def _repaired(self, table: Table, row: Row, fixed: set[str], holding: Sequence[str]) -> Row:
        """Change columns until every condition is met, one condition after the other."""
        before = row
        conditions = [(c.expression, c.columns) for c in table.of("c", "b")]
        conditions += [
            (text, tuple(c for c in table.columns if re.search(rf"\b{re.escape(c)}\b", text)))
            for text in holding
        ]
        texts = [text for text, _ in conditions]
        for _ in range(len(conditions) + 1):
            met = self._met(table, [row], texts)[0] if texts else ()
            unmet = next((i for i, ok in enumerate(met) if not ok), None)
            if unmet is None:
                changed = {c: value for c, value in row.items() if value != before[c]}
                self._repairs.setdefault((table.name, tuple(holding)), {}).update(changed)
                return row
            free = [
                c for c in conditions[unmet][1] if c not in fixed and not table.columns[c].given
            ]
            variants = list(self._variants(table, row, free, holding))
            judged = zip(variants, self._met(table, variants, texts), strict=True)
            row = min(
                (pair for pair in judged if pair[1][unmet]),
                key=lambda pair: sum(not m for m in pair[1]),
                default=(row,),
            )[0]
        raise LookupError(f"no row was found that table {table.name} takes")

    def _variants(
        self, table: Table, row: Row, columns: Sequence[str], more: Sequence[str] = ()
    ) -> Iterator[Row]:
        free = [c for c in columns if c in row]
        values = [
            dict.fromkeys(
                [
                    row[c],
                    *self._candidates(table, table.columns[c], more),
                    *self._alike(table, row, c, free),
                ]
            )
            for c in free
        ]
        required = [table.columns[c].required for c in free]
        for combination in itertools.islice(itertools.product(*values), TRIES):
            if not any(
                value is None and needed
                for value, needed in zip(combination, required, strict=True)
            ):
                yield row | dict(zip(free, combination, strict=True))

    @staticmethod
    def _alike(table: Table, row: Row, column: str, columns: Sequence[str]) -> list[Text]:
        """The values of other columns of the same type, for conditions that compare two."""
        return [
            row[c]
            for c in columns
            if c != column and table.columns[c].base == table.columns[column].base
        ]

    def _met(
        self, table: Table, rows: Sequence[Row], conditions: Sequence[str]
    ) -> list[tuple[bool, ...]]:
        """For each row, whether it meets each condition; NULL counts as met, as in a CHECK."""
        if not rows:
            return []
        columns = _mentioned(table, rows[0], conditions)
        most = max(_PARAMETERS // max(len(columns), 1), 1)
        return [
            met
            for first in range(0, len(rows), most)
            for met in self._met_together(table, rows[first : first + most], columns, conditions)
        ]

    def _met_together(
        self,
        table: Table,
        rows: Sequence[Row],
        columns: Sequence[Column],
        conditions: Sequence[str],
    ) -> list[tuple[bool, ...]]:
        # The text of a row is the same for all, and there are hundreds: it is put together once.
        placeholders = "".join(f", {cast(c).as_string(self._connection)}" for c in columns)
        values = sql.SQL(", ").join(sql.SQL(f"({i}{placeholders})") for i in range(len(rows)))
        query = sql.SQL("SELECT {} FROM (VALUES {}) AS {} ({}) ORDER BY row_number").format(
            sql.SQL(", ").join(
                sql.SQL("({}) IS NOT FALSE").format(sql.SQL(c)) for c in conditions
            ),  # the server's own text
            values,
            sql.Identifier(table.name),
            sql.SQL(", ").join(map(sql.Identifier, ["row_number", *(c.name for c in columns)])),
        )
        return list(self._connection.execute(query, [row[c.name] for row in rows for c in columns]))


def _mentioned(table: Table, row: Row, conditions: Sequence[str]) -> list[Column]:
    """The columns of a row of which the conditions may say something. Others need not be sent."""
    text = " ".join(conditions)
    all_columns = [column for column in table.columns.values() if column.name in row]
    if ".*" in text:  # a condition on the row as a whole
        return all_columns
    return [column for column in all_columns if column.name.replace('"', '""') in text]


def _refusal(exc: psycopg.DatabaseError, text: str) -> str:
    """What the server says of a text that is no value of a type, without secrets.

    A text of ours is no secret. One that a condition is written with may be.
    """
    said = told(exc)[0]
    is_of_the_input = (exc.sqlstate or "").startswith(_OF_THE_INPUT)
    if text in _OF_ANY_TYPE and is_of_the_input and exc.diag.message_primary:
        said = exc.diag.message_primary
    return f"{exc.sqlstate}: {said}"


def cast(column: Column) -> sql.Composed:
    """A placeholder for a value of the column in text form."""
    kind = sql.SQL(column.type)  # format_type quotes it
    return sql.SQL("CAST({} AS {})").format(sql.Placeholder(), kind)

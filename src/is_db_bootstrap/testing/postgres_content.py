"""What a PostgreSQL database holds beside the objects that each new database has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.testing.content import BUDGET, Content, Thing, digest

Connection = psycopg.Connection[Any]

#: Not schemas of the server itself, nor ours. `information_schema` does not begin with `pg_`.
_OF_USERS = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'is_db_bootstrap')"
#: What an extension has brought is left out, because the extension may have come from template1.
_NO_EXTENSIONS = (
    "NOT EXISTS (SELECT FROM pg_depend d "
    "WHERE d.classid = '{catalogue}'::regclass AND d.objid = {oid} AND d.deptype = 'e')"
)
#: How many numbers transactions have before the numbers begin again.
_TURN = 2**32
#: The last of the special numbers, which no transaction has.
_LAST_SPECIAL = 2
#: Kinds of pg_class, in words. Indexes and TOAST tables belong to their tables.
_RELATIONS = {
    "r": "table",
    "p": "table",
    "v": "view",
    "m": "materialized view",
    "S": "sequence",
    "f": "foreign table",
    "c": "type",
}
_KINDS_WITH_ROWS = frozenset({"table", "materialized view"})
#: `{c}`, `{p}` and so on are conditions on a row of the catalogue of that name, as
#: `Since.condition` makes them.
_OBJECTS = f"""
SELECT c.relkind::text, n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OF_USERS} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
AND {_NO_EXTENSIONS.format(catalogue="pg_class", oid="c.oid")} AND {{c}}
UNION ALL
SELECT 'function', n.nspname, p.proname
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {_OF_USERS} AND {_NO_EXTENSIONS.format(catalogue="pg_proc", oid="p.oid")} AND {{p}}
UNION ALL
SELECT 'type', n.nspname, t.typname
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE {_OF_USERS} AND t.typtype IN ('e', 'd')
AND {_NO_EXTENSIONS.format(catalogue="pg_type", oid="t.oid")} AND {{t}}
UNION ALL
SELECT 'schema', n.nspname, '' FROM pg_namespace n
WHERE {_OF_USERS} AND n.nspname <> 'public'
AND {_NO_EXTENSIONS.format(catalogue="pg_namespace", oid="n.oid")} AND {{n}}
UNION ALL
SELECT 'large object', '', m.oid::text FROM pg_largeobject_metadata m WHERE {{m}}
ORDER BY 1, 2, 3 LIMIT {BUDGET + 1}
"""  # noqa: S608 - the text is made of constants only
#: The names that the catalogues have in `_OBJECTS`.
_CATALOGUES = ("c", "p", "t", "n", "m")
#: Tables that have rows of their own, each with its `xmin`.
_TABLES = f"""
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OF_USERS} AND c.relkind IN ('r', 'm') ORDER BY 1, 2
"""  # noqa: S608 - the text is made of constants only
_WRITTEN_ROWS = "SELECT count(*) FROM (SELECT FROM {table} t WHERE {written} LIMIT {limit}) AS w"
#: A row's text has its values in the order of the columns. The sum does not depend on the order of
#: the rows.
_ROWS = """
SELECT count(*), sum(hashtextextended(t::text, 0)::numeric)
FROM (SELECT * FROM {table} LIMIT {limit}) AS t
"""


@dataclass(frozen=True, slots=True)
class Since:
    """A moment of a PostgreSQL cluster: which transactions had ended then.

    `xmax` is the first number that no transaction had. `running` are the numbers below `xmax` of
    transactions that had not ended. Both are parts of `pg_current_snapshot()`.
    """

    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def read(cls, text: str) -> Since:
        """From the text of a `pg_snapshot`: `xmin:xmax:running,running`."""
        _, xmax, running = text.split(":")
        numbers = [int(number) for number in running.split(",") if number]
        return cls(int(xmax), tuple(numbers))

    def condition(self, alias: str) -> str:
        """SQL for whether a row was written by a transaction that had not ended at this moment.

        `alias` is the table's name in the statement. A row has only 32 bits of its transaction's
        number, so numbers are compared modulo 2^32, as the server compares them.
        """
        number = f"{alias}.xmin::text::bigint"
        ahead = f"({number} - {self.xmax % _TURN} + {_TURN}) % {_TURN}"
        later = f"({number} > {_LAST_SPECIAL} AND {ahead} < {_TURN // 2})"
        if not self.running:
            return later
        running = ", ".join(str(each % _TURN) for each in self.running)
        return f"({later} OR {number} IN ({running}))"


def now(connection: Connection) -> str:
    """The present moment of the cluster, as the text that `Since.read` takes."""
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    return str(row[0]) if row else ""


def objects(connection: Connection) -> Content:
    """Objects by name: tables, views, sequences, functions, types, schemas and large objects.

    What extensions brought is left out.
    """
    return _list_objects(connection, dict.fromkeys(_CATALOGUES, "true"))


def written_since(connection: Connection, since: Since) -> Content:
    """Objects that were made or changed since then, and tables with rows that were written."""
    connection.execute("SET row_security = off")  # an error is better than rows that are not shown
    conditions = {alias: since.condition(alias) for alias in _CATALOGUES}
    found = _list_objects(connection, conditions)
    tables = tuple(_tables_with_new_rows(connection, since))
    return Content((*found.things, *tables), found.unseen)


def _list_objects(connection: Connection, conditions: dict[str, str]) -> Content:
    """The objects for which the condition of their catalogue is true, up to `BUDGET` of them."""
    statement = _OBJECTS.format(**conditions)
    rows = connection.execute(statement.encode()).fetchall()
    things = tuple(_as_thing(*row) for row in rows[:BUDGET])
    is_more = len(rows) > BUDGET
    return Content(things, f"and more: only {BUDGET} objects were looked at" if is_more else "")


def _tables_with_new_rows(connection: Connection, since: Since) -> Iterator[Thing]:
    """The tables that hold rows that were written since then, with the number of these rows."""
    for schema, name in connection.execute(_TABLES.encode()).fetchall():
        statement = _WRITTEN_ROWS.format(
            table=identifier(schema, name), written=since.condition("t"), limit=BUDGET
        )
        [count] = connection.execute(statement.encode()).fetchone() or (0,)
        if count:
            many = f"at least {count}" if count == BUDGET else str(count)
            rows = f"{many} new row{'' if count == 1 else 's'}"
            yield Thing("table", name=f"{schema}.{name} with {rows}")


def objects_and_rows(connection: Connection) -> Content:
    """Objects as in `objects`, with digests of tables that follow up to `BUDGET` of their rows."""
    found = objects(connection)
    things = [
        _table_with_rows(connection, thing) if thing.kind in _KINDS_WITH_ROWS else thing
        for thing in found.things
    ]
    return Content(tuple(things), found.unseen)


def _as_thing(kind: str, schema: str, name: str) -> Thing:
    """One object, from a row of `_OBJECTS`."""
    kind = _RELATIONS.get(kind, kind)
    full_name = ".".join(filter(None, (schema, name)))
    return Thing(kind, name=full_name, digest=digest(kind, schema, name), handle=(schema, name))


def _table_with_rows(connection: Connection, table: Thing) -> Thing:
    """The table, with a digest of its rows. A table with too many rows has no digest."""
    statement = _ROWS.format(table=identifier(*table.handle), limit=BUDGET + 1)
    rows, total = connection.execute(statement.encode()).fetchone() or (0, None)
    if rows > BUDGET:
        name = f"{table.name} of more than {BUDGET} rows, which are not compared"
        return Thing("table", name=name)
    name = f"{table.name} with {rows} row{'' if rows == 1 else 's'}"
    return Thing(table.kind, name=name, digest=digest(table.digest, rows, str(total)))

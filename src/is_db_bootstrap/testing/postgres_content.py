"""What a PostgreSQL database holds beside what each new one has."""

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
#: What an extension has brought is the extension's: it may have come from template1.
_NO_EXTENSIONS = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalogue}'::regclass AND d.objid = {oid} AND d.deptype = 'e')"
#: How many numbers of transactions there are in a row, and the last one that is none.
_TURN, _LAST_SPECIAL = 2**32, 2
#: Kinds of pg_class, in words; indexes and TOAST tables belong to their tables.
_RELATIONS = {
    "r": "table",
    "p": "table",
    "v": "view",
    "m": "materialized view",
    "S": "sequence",
    "f": "foreign table",
    "c": "type",
}
#: `{written}` is a condition on the row of the catalogue, as `Since.condition` makes it.
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
"""  # noqa: S608 - of constants only
_CATALOGUES = "cptnm"
#: Tables that have rows of their own, each with its `xmin`.
_TABLES = f"""
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OF_USERS} AND c.relkind IN ('r', 'm') ORDER BY 1, 2
"""  # noqa: S608 - of constants only
_WRITTEN_ROWS = "SELECT count(*) FROM (SELECT FROM {table} t WHERE {written} LIMIT {limit}) AS w"
#: A row's text has its values in the order of the columns. The sum does not depend on the order of
#: the rows.
_ROWS = """
SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM (SELECT * FROM {table} LIMIT {limit}) AS t
"""


@dataclass(frozen=True, slots=True)
class Since:
    """A moment of a PostgreSQL cluster: which transactions had ended then.

    `xmax` is the first number that no transaction had, `running` are those below it that had not
    ended (the parts of `pg_current_snapshot()`).
    """

    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def read(cls, text: str) -> Since:
        """From the text of a `pg_snapshot`: `xmin:xmax:running,running`."""
        _, xmax, running = text.split(":")
        return cls(int(xmax), tuple(int(each) for each in running.split(",") if each))

    def condition(self, alias: str) -> str:
        """Whether a row was written later: by a transaction that had not ended at this moment.

        A row has 32 bits of the number only, which is compared as the server does: modulo 2^32.
        """
        number = f"{alias}.xmin::text::bigint"
        ahead = f"({number} - {self.xmax % _TURN} + {_TURN}) % {_TURN}"
        later = f"({number} > {_LAST_SPECIAL} AND {ahead} < {_TURN // 2})"
        running = ", ".join(str(each % _TURN) for each in self.running)
        return f"({later} OR {number} IN ({running}))" if running else later


def now(connection: Connection) -> str:
    """The present moment of the cluster, as the text that `Since.read` takes."""
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    return str(row[0]) if row else ""


def objects(connection: Connection) -> Content:
    """Objects by name: tables, views, sequences, functions, types, schemas and large objects.

    Without what extensions brought.
    """
    return _listed(connection, dict.fromkeys(_CATALOGUES, "true"))


def written_since(connection: Connection, since: Since) -> Content:
    """Objects that were made or changed since then, and tables with rows that were written."""
    connection.execute("SET row_security = off")  # an error is better than rows that are not shown
    found = _listed(connection, {alias: since.condition(alias) for alias in _CATALOGUES})
    rows = tuple(_with_written_rows(connection, since))
    return Content((*found.things, *rows), found.unseen)


def _listed(connection: Connection, written: dict[str, str]) -> Content:
    rows = connection.execute(_OBJECTS.format(**written).encode()).fetchall()
    things = tuple(_thing(*row) for row in rows[:BUDGET])
    return Content(
        things, f"and more: only {BUDGET} objects were looked at" if len(rows) > BUDGET else ""
    )


def _with_written_rows(connection: Connection, since: Since) -> Iterator[Thing]:
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
    """The same; the digest of a table follows its rows, up to `BUDGET` of them."""
    found = objects(connection)
    return Content(tuple(_with_rows(connection, found)), found.unseen)


def _thing(kind: str, schema: str, name: str) -> Thing:
    kind = _RELATIONS.get(kind, kind)
    full = ".".join(filter(None, (schema, name)))
    return Thing(kind, name=full, digest=digest(kind, schema, name), handle=(schema, name))


def _with_rows(connection: Connection, found: Content) -> Iterator[Thing]:
    for thing in found.things:
        if thing.kind not in {"table", "materialized view"}:
            yield thing
            continue
        table = identifier(*thing.handle)
        statement = _ROWS.format(table=table, limit=BUDGET + 1)
        rows, total = connection.execute(statement.encode()).fetchone() or (0, None)
        if rows > BUDGET:
            yield Thing(
                "table", name=f"{thing.name} of more than {BUDGET} rows, which are not compared"
            )
            continue
        told = f"{thing.name} with {rows} row{'' if rows == 1 else 's'}"
        yield Thing(thing.kind, name=told, digest=digest(thing.digest, rows, str(total)))

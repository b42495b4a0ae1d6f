"""What a PostgreSQL database holds beside what each new one has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.testing.content import BUDGET, Content, Thing, digest

Connection = psycopg.Connection[Any]

#: Not schemas of the server itself, nor ours. `information_schema` does not begin with `pg_`.
_OF_USERS = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'is_db_bootstrap')"
#: What an extension has brought is the extension's: it may have come from template1.
_NO_EXTENSIONS = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalogue}'::regclass AND d.objid = {oid} AND d.deptype = 'e')"
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
_OBJECTS = f"""
SELECT c.relkind::text, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OF_USERS} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
AND {_NO_EXTENSIONS.format(catalogue="pg_class", oid="c.oid")}
UNION ALL
SELECT 'function', n.nspname, p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {_OF_USERS} AND {_NO_EXTENSIONS.format(catalogue="pg_proc", oid="p.oid")}
UNION ALL
SELECT 'type', n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE {_OF_USERS} AND t.typtype IN ('e', 'd') AND {_NO_EXTENSIONS.format(catalogue="pg_type", oid="t.oid")}
UNION ALL
SELECT 'schema', n.nspname, '' FROM pg_namespace n
WHERE {_OF_USERS} AND n.nspname <> 'public' AND {_NO_EXTENSIONS.format(catalogue="pg_namespace", oid="n.oid")}
UNION ALL
SELECT 'large object', '', m.oid::text FROM pg_largeobject_metadata m
ORDER BY 1, 2, 3 LIMIT {BUDGET + 1}
"""  # noqa: S608 - of constants only
#: A row's text has its values in the order of the columns. The sum does not depend on the order of the rows.
_ROWS = """
SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM (SELECT * FROM {table} LIMIT {limit}) AS t
"""


def objects(connection: Connection) -> Content:
    """Tables, views, sequences, functions, types, schemas and large objects by name, without what extensions brought."""
    rows = connection.execute(_OBJECTS.encode()).fetchall()
    things = tuple(_thing(*row) for row in rows[:BUDGET])
    return Content(
        things, f"and more: only {BUDGET} objects were looked at" if len(rows) > BUDGET else ""
    )


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

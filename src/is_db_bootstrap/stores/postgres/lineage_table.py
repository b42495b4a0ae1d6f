"""Which revisions led a schema to where it is: a row in a schema of our own, `is_db_bootstrap`.

Alembic's table holds the last revision only. The row holds the blueprint and all revisions, in
order. It is written in the transaction that writes the version table, by every run of ours and by
the stock command through our `env.py`. A row whose last revision is not the recorded one is out of
date, because somebody stamped by other means, and is not believed (`revisions.Record`).

Commit 00863d4 and earlier versions kept the same in the comment of the version table. They read the
comment only, and refuse a database at a revision of newer code without it. So a comment that they
have left is kept up to date beside the row, and a rolling update may go back and forth. A database
that has no such comment gets none. Take it away when no earlier version is left:
`COMMENT ON TABLE alembic_version IS NULL`.

Where a role may not write the row, the comment is written as earlier versions did. It is left alone
when it says something else, or when another role owns the version table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from is_db_bootstrap.stores.postgres import own_schema
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA, literal

TABLE = "lineage"
PLACE = f"{SCHEMA}.{TABLE}"
#: Whether we may read every row. No row: there is no such table.
READABLE = own_schema.readable(TABLE)
_CREATE = (
    f"""
    CREATE TABLE IF NOT EXISTS {PLACE} (
        schema_name text NOT NULL,
        table_name text NOT NULL,
        blueprint text NOT NULL,
        revisions text[] NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (schema_name, table_name)
    )
""",
    f"""
    COMMENT ON TABLE {PLACE} IS
    'is-db-bootstrap: the revisions that led to what each version table records'
""",
)
_FIND = f"""
    SELECT blueprint, revisions FROM {PLACE} WHERE schema_name = %s AND table_name = %s
"""  # noqa: S608 - constants
#: What this version, and earlier ones, write into SQL that others run.
_RECORDS = re.compile(r"DO \$(do|is_db_bootstrap)\$.*?\$\1\$;?\n*", re.DOTALL)
_ALL = f"SELECT schema_name, table_name, blueprint FROM {PLACE}"  # noqa: S608 - constants


def mark(blueprint: str, lineage: Iterable[str]) -> str:
    """The comment of a version table, where there is one."""
    return f"is-db-bootstrap: blueprint {blueprint}; revisions {' '.join(lineage)}".strip()


def make(session: psycopg.Connection[Any]) -> bool:
    """Make our table if it is missing, in autocommit mode. Whether we may write it."""
    return own_schema.make(session, TABLE, _CREATE)


def find(
    reader: psycopg.Connection[Any], schema: str, version_table: str
) -> tuple[str, tuple[str, ...]] | None:
    """Blueprint and revisions of one version table. None where we have none that we may read."""
    readable = reader.execute(READABLE.encode()).fetchone()
    if not readable or not readable[0]:
        return None
    row = reader.execute(_FIND.encode(), [schema, version_table]).fetchone()
    return (row[0], tuple(row[1])) if row else None


def blueprints(reader: psycopg.Connection[Any]) -> dict[tuple[str, str], str]:
    """The blueprint of each version table, by schema and name. Empty when we may not read it."""
    row = reader.execute(READABLE.encode()).fetchone()
    if not row or not row[0]:
        return {}
    rows = reader.execute(_ALL.encode()).fetchall()
    return {(schema, table): blueprint for schema, table, blueprint in rows}


def make_statement() -> str:
    """One statement that makes our table where this role may, for SQL that others run."""
    body = "".join(
        f"\n    {' '.join(each.split())};" for each in own_schema.statements(TABLE, _CREATE)
    )
    return f"""
DO $is_db_bootstrap$
BEGIN{body}
EXCEPTION WHEN insufficient_privilege OR duplicate_table OR duplicate_schema THEN
    NULL;
END
$is_db_bootstrap$
"""


def without_records(sql: str) -> str:
    """SQL that others run, without the statements by which this or an earlier version records."""

    def kept(found: re.Match[str]) -> str:
        is_ours = PLACE in found[0] or "'is-db-bootstrap: blueprint " in found[0]
        return "" if is_ours else found[0]

    return _RECORDS.sub(kept, sql)


def record_statement(
    schema: str, version_table: str, blueprint: str, revisions: Sequence[str]
) -> str:
    """One statement, without parameters, that records the revisions of a version table, in order.

    It belongs into the transaction that writes the version table. It never fails for a lack of
    rights. Without revisions the row is deleted, and a comment of an earlier version too.
    """
    key = f"{literal(schema)}, {literal(version_table)}"
    names = ", ".join(literal(each) for each in revisions)
    if revisions:
        comment = literal(mark(blueprint, revisions))
        columns = "(schema_name, table_name, blueprint, revisions)"
        write = (
            f"INSERT INTO {PLACE} {columns}\n"  # noqa: S608 - quoted
            f"        VALUES ({key}, {literal(blueprint)}, ARRAY[{names}])\n"
            "        ON CONFLICT (schema_name, table_name) DO UPDATE SET blueprint = "
            "excluded.blueprint,\n"
            "            revisions = excluded.revisions, recorded_at = excluded.recorded_at"
        )
    else:
        comment = "''"
        row = f"(schema_name, table_name) = ({key})"
        write = f"DELETE FROM {PLACE} WHERE {row}"  # noqa: S608 - quoted
    return f"""
DO $is_db_bootstrap$
DECLARE
    place text := {literal(identifier(schema, version_table))};
    told text := coalesce(obj_description(to_regclass(place), 'pg_class'), '');
    kept text := regexp_replace(told, '(; )?begun (upgrade|downgrade) [^ ]+$', '');
    wanted text := kept;
    has_row boolean := false;
BEGIN
    BEGIN
        {write};
        has_row := true;
    EXCEPTION WHEN insufficient_privilege OR undefined_table OR invalid_schema_name THEN
        NULL;
    END;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := {comment};
    END IF;
    BEGIN
        IF wanted <> told THEN
            EXECUTE 'COMMENT ON TABLE ' || place || ' IS ' || quote_nullable(nullif(wanted, ''));
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
END
$is_db_bootstrap$
"""

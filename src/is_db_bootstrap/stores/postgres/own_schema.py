"""The schema `is_db_bootstrap`: where we keep our own records in a database.

No object of a team carries a record of ours, so nobody has to know of it. Every role may read the
tables, which hold names and numbers only. So a role with a schema of its own sees what was done
there, and a dump by a role with few rights does not fail at them.

Only the role that made a table may write it, until an administrator grants more.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg

from is_db_bootstrap.stores.postgres.connection import identifier

SCHEMA = "is_db_bootstrap"
#: Settings of one statement that writes a record: no flush, because the server writes its log in
#: order, and a bounded wait for another session's row.
SETTINGS = """
    SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', %(wait)s, true)
"""
_HAS_SCHEMA = f"SELECT FROM pg_namespace WHERE nspname = '{SCHEMA}'"
_CREATE_SCHEMA = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"
_LET_ALL_USE = f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC"
#: What is no failure: a right that the role lacks, with what is missing for that reason, and an
#: object that another session has just made. Of two `CREATE … IF NOT EXISTS` at once, one may get a
#: duplicate. Of two GRANTs, one may get XX000, "tuple concurrently updated". An event trigger that
#: forbids such statements raises P0001, which says as much as a missing right.
_LEFT_OUT = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
    psycopg.errors.UniqueViolation,
    psycopg.errors.InternalError_,
    psycopg.errors.RaiseException,
)


def rights(table: str) -> str:
    """The query whether we may read and write a table of ours. No row: there is none."""
    return f"""
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
               AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
               AND has_table_privilege(c.oid, 'DELETE')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = '{SCHEMA}' AND c.relname = '{table}'
"""  # noqa: S608 - constants


def readable(table: str) -> str:
    """The query whether every row of a table of ours may be read. No row: there is none."""
    return f"""
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
               AND NOT (c.relrowsecurity AND row_security_active(c.oid))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = '{SCHEMA}' AND c.relname = '{table}'
"""  # noqa: S608 - constants


def places(*tables: str) -> str:
    """The query where we may keep what: with each of `tables`, whether we may write or make it.

    Then whether the version table of the parameter may be commented on, or is still to be made;
    its comment; whether our schema is there; and who we are.
    """
    may_make = """
               CASE WHEN n.oid IS NULL
                    THEN has_database_privilege(current_database(), 'CREATE')
                    ELSE has_schema_privilege(n.oid, 'CREATE') END"""
    may_write = ",".join(
        f"""
           coalesce(({rights(table)}),{may_make})"""
        for table in tables
    )
    return f"""
    SELECT {may_write.lstrip()},
           coalesce((SELECT pg_has_role(v.relowner, 'USAGE') FROM pg_class v
                     WHERE v.oid = to_regclass(%(table)s)), true),
           coalesce(obj_description(to_regclass(%(table)s), 'pg_class'), ''),
           n.oid IS NOT NULL, current_user::text
    FROM (SELECT 1) AS always LEFT JOIN pg_namespace n ON n.nspname = '{SCHEMA}'
"""  # noqa: S608 - constants


def statements(table: str, create: Sequence[str]) -> tuple[str, ...]:
    """What makes the schema and a table of it, which `create` makes by itself."""
    let_all_read = f"GRANT SELECT ON {SCHEMA}.{table} TO PUBLIC"
    return (_CREATE_SCHEMA, *create, _LET_ALL_USE, let_all_read)


def make(session: psycopg.Connection[Any], table: str, create: Sequence[str]) -> bool:
    """Make the table if it is missing, in autocommit mode. Whether it is there and ours to write.

    What this role may not do is left out. Raises what psycopg raises for any other reason.
    """
    asked = rights(table)
    row = session.execute(asked.encode()).fetchone()
    if row is not None:
        return bool(row[0])
    wanted = statements(table, create)
    with suppress(*_LEFT_OUT):
        return _made_at_once(session, (*wanted, asked))
    # IF NOT EXISTS asks for the right to make schemas also when there is one. It is not atomic
    # either, so of two sessions one may fail: what counts is what is there afterwards.
    if session.execute(_HAS_SCHEMA.encode()).fetchone():
        wanted = wanted[1:]
    for statement in wanted:
        with suppress(*_LEFT_OUT):
            session.execute(statement.encode())
    row = session.execute(asked.encode()).fetchone()
    return bool(row and row[0])


def _made_at_once(session: psycopg.Connection[Any], wanted: Sequence[str]) -> bool:
    """Run statements in one message and one transaction. Returns what the last one answers.

    Each transaction of its own would wait for the disk. Raises what psycopg raises, and nothing is
    made then.
    """
    cursor = session.execute(";".join(wanted).encode())
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    return bool(row and row[0])


def literal(text: str) -> str:
    """A string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def remedy(role: str, *, has_schema: bool) -> str:
    """What an administrator runs so that `role` may write our records."""
    user = identifier(role)
    if not has_schema:
        return f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {user};"
    return (
        f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {user}; "
        f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {user};"
    )

"""Which revisions led a schema to where it is: a row in a schema of our own, `is_db_bootstrap`.

Alembic's table holds the last revision only. The row holds the blueprint and all revisions, in
order. A row whose last revision is not the recorded one is out of date, because somebody stamped by
other means, and is not believed (`revisions.Record`).

A run of ours does not write the row with each step, because it grows with the chain. It writes
before its first step which revisions it is about to lead to, in order (`planned`). So what led to a
recorded revision is the plan up to that revision, also when the run is killed. A run that ends lets
the plan become the revisions, or writes what it has reached. The stock command, through our
`env.py`, and a single step of ours write the revisions in the transaction of the version table.

The row also holds the digest of each applied revision's file (`revision_digests`). A run of ours
writes the digests of what it is about to apply with its plan, and takes the files of the moment for
revisions that had none. All others write the digests of what they record, with the row.

Commit a08580f and earlier versions know no plan. For them the row is out of date while a run is at
work, and after a run that was killed, until the next one ends.

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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import psycopg

from is_db_bootstrap.stores.postgres import own_schema
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.file_digest import as_json
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA, literal
from is_db_bootstrap.stores.postgres.revisions import RecordedLineage

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
        planned text[],
        digests jsonb,
        recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (schema_name, table_name)
    )
""",
    f"""
    COMMENT ON TABLE {PLACE} IS
    'is-db-bootstrap: the revisions that led to what each version table records'
""",
)
#: A table of an earlier version has no plan. As JSON, the row has whatever there is.
ROW = f"SELECT to_jsonb(found) FROM {PLACE} AS found"  # noqa: S608 - constants
_FIND = f"{ROW} WHERE schema_name = %s AND table_name = %s"
#: What a table of an earlier version lacks.
_ADD_COLUMNS = (
    f"ALTER TABLE {PLACE} ADD COLUMN IF NOT EXISTS planned text[],"
    " ADD COLUMN IF NOT EXISTS digests jsonb"
)
_HAS_DIGESTS = f"""
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('{PLACE}') AND attname = 'digests' AND NOT attisdropped
"""
#: `{schema}` is an expression. The answer is the comment of the version table.
_PLAN = f"""
    INSERT INTO {PLACE} (schema_name, table_name, blueprint, revisions, planned)
    SELECT {{schema}}, %(table)s, %(blueprint)s, '{{{{}}}}', %(planned)s
    FROM ({own_schema.SETTINGS}) AS settings
    ON CONFLICT (schema_name, table_name) DO UPDATE
    SET blueprint = excluded.blueprint, planned = excluded.planned
    RETURNING obj_description(to_regclass(%(quoted)s), 'pg_class')
"""  # noqa: S608 - constants
#: The same with digests. Those of the revisions that are `kept` stay as they were recorded.
_PLAN_WITH_DIGESTS = f"""
    INSERT INTO {PLACE} (schema_name, table_name, blueprint, revisions, planned, digests)
    SELECT {{schema}}, %(table)s, %(blueprint)s, '{{{{}}}}', %(planned)s, %(digests)s::jsonb
    FROM ({own_schema.SETTINGS}) AS settings
    ON CONFLICT (schema_name, table_name) DO UPDATE
    SET blueprint = excluded.blueprint, planned = excluded.planned,
        digests = excluded.digests || coalesce(
            (SELECT jsonb_object_agg(key, value) FROM jsonb_each(lineage.digests)
             WHERE key = ANY(%(kept)s)), '{{{{}}}}')
    RETURNING obj_description(to_regclass(%(quoted)s), 'pg_class')
"""  # noqa: S608 - constants
_ADD_DIGESTS = f"""
    UPDATE {PLACE} SET digests = coalesce(digests, '{{{{}}}}') || %(digests)s::jsonb
    WHERE schema_name = {{schema}} AND table_name = %(table)s
"""  # noqa: S608 - constants
_REACH = f"""
    UPDATE {PLACE} SET revisions = planned, planned = NULL, recorded_at = clock_timestamp()
    FROM ({own_schema.SETTINGS}) AS settings
    WHERE schema_name = {{schema}} AND table_name = %(table)s AND blueprint = %(blueprint)s
      AND cardinality(planned) = %(count)s AND planned[%(count)s] = %(last)s
    RETURNING true
"""  # noqa: S608 - constants
_FORGET_PLAN = f"""
    UPDATE {PLACE} SET planned = NULL WHERE schema_name = {{schema}} AND table_name = %(table)s
"""  # noqa: S608 - constants
#: How the comment of an earlier version begins.
_IS_OURS = "is-db-bootstrap: blueprint "
#: A plan is written after its table was made, and after its column was added.
_MOST_TRIES = 3
#: What this version, and earlier ones, write into SQL that others run.
_RECORDS = re.compile(r"DO \$(do|is_db_bootstrap)\$.*?\$\1\$;?\n*", re.DOTALL)
#: A dropped schema leaves its row behind. The tables are looked up by name, because `to_regclass`
#: fails for a schema that this role may not use, such as another tenant's.
_PRESENT = f"""
    SELECT DISTINCT l.blueprint
    FROM {PLACE} l JOIN pg_namespace n ON n.nspname = l.schema_name
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = l.table_name
"""  # noqa: S608 - constants
_ALL = f"SELECT schema_name, table_name, blueprint FROM {PLACE}"  # noqa: S608 - constants


def mark(blueprint: str, lineage: Iterable[str]) -> str:
    """The comment of a version table, where there is one."""
    return f"is-db-bootstrap: blueprint {blueprint}; revisions {' '.join(lineage)}".strip()


def make(session: psycopg.Connection[Any]) -> bool:
    """Make our table if it is missing, in autocommit mode. Whether we may write it.

    A table of an earlier version gets the columns that it lacks, where this role may add them.
    """
    is_ours = own_schema.make(session, TABLE, _CREATE)
    if is_ours and session.execute(_HAS_DIGESTS.encode()).fetchone() is None:
        with suppress(psycopg.errors.InsufficientPrivilege):
            session.execute(_ADD_COLUMNS.encode())
    return is_ours


def find(
    reader: psycopg.Connection[Any], schema: str, version_table: str
) -> RecordedLineage | None:
    """What our row says of one version table. None where we have none that we may read."""
    readable = reader.execute(READABLE.encode()).fetchone()
    if not readable or not readable[0]:
        return None
    row = reader.execute(_FIND.encode(), [schema, version_table]).fetchone()
    return from_row(row[0]) if row else None


def from_row(found: Mapping[str, Any] | None) -> RecordedLineage | None:
    """What a row says, which was read as JSON."""
    if found is None:
        return None
    planned = found.get("planned") or ()
    revisions = tuple(found["revisions"])
    digests = found.get("digests")
    if not isinstance(digests, dict):
        digests = {}
    return RecordedLineage(found["blueprint"], revisions, tuple(planned), digests)


def write_digests(
    session: psycopg.Connection[Any],
    schema: str,
    version_table: str,
    digests: Mapping[str, str],
) -> None:
    """Write digests into the row of a version table. Those of other revisions stay.

    `schema` is the SQL expression of its schema. Nothing is written where there is no such row, so
    a caller reads the record back. Raises what psycopg raises, as for a role that may not write it.
    """
    given = {"table": version_table, "digests": as_json(digests)}
    query = _ADD_DIGESTS.format(schema=schema.replace("%", "%%"))
    session.execute(query.encode(), given)


class Plan:
    """Writes what a run is about to lead to, from sessions that are in autocommit mode.

    `schema` is the SQL expression of the version table's schema, `table` the table's name, and
    `quoted` the quoted name of both. `wait` bounds how long a statement waits for a lock, in words
    of PostgreSQL. Methods raise what psycopg raises, except for a lack of rights.
    """

    def __init__(self, schema: str, table: str, quoted: str, blueprint: str, wait: str) -> None:
        self._schema = schema
        self._given = {"table": table, "quoted": quoted, "blueprint": blueprint, "wait": wait}
        #: The revisions that were written last, in order. Empty when there are none.
        self.revisions: tuple[str, ...] = ()
        #: Whether an earlier version has left a comment, which is to be kept true beside the row.
        self.has_comment = False

    def write(
        self,
        session: psycopg.Connection[Any],
        revisions: Sequence[str],
        digests: Mapping[str, str],
        kept: Iterable[str],
    ) -> bool:
        """Write the revisions that a run is about to lead to. Returns whether this role may.

        `digests` are those of the files of now. For the revisions that are `kept`, what is recorded
        stays.
        """
        self.revisions = ()
        statement = _PLAN_WITH_DIGESTS
        given = {"digests": as_json(digests), "kept": list(kept)}
        for _ in range(_MOST_TRIES):
            try:
                row = self._execute(session, statement, planned=list(revisions), **given).fetchone()
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                make(session)
            except psycopg.errors.UndefinedColumn:
                try:
                    session.execute(_ADD_COLUMNS.encode())
                except psycopg.errors.InsufficientPrivilege:
                    statement = _PLAN  # of a version that knew no digests
            except psycopg.errors.InsufficientPrivilege:
                break
            else:
                self.revisions = tuple(revisions)
                self.has_comment = str(row[0] if row else "").startswith(_IS_OURS)
                break
        return bool(self.revisions)

    def reach(self, session: psycopg.Connection[Any]) -> bool:
        """Let the plan become the revisions. Returns whether it was there, as it was written."""
        if not self.revisions:
            return False
        count, last = len(self.revisions), self.revisions[-1]
        return self._execute(session, _REACH, count=count, last=last).fetchone() is not None

    def forget(self, session: psycopg.Connection[Any]) -> None:
        """Take the plan away, where this role may. One that stays says no more than was applied."""
        with suppress(psycopg.errors.InsufficientPrivilege):
            self._execute(session, _FORGET_PLAN)

    def _execute(
        self, session: psycopg.Connection[Any], statement: str, **given: object
    ) -> psycopg.Cursor[Any]:
        query = statement.format(schema=self._schema.replace("%", "%%"))
        return session.execute(query.encode(), {**self._given, **given})


def blueprints(reader: psycopg.Connection[Any]) -> dict[tuple[str, str], str]:
    """The blueprint of each version table, by schema and name. Empty when we may not read it."""
    row = reader.execute(READABLE.encode()).fetchone()
    if not row or not row[0]:
        return {}
    rows = reader.execute(_ALL.encode()).fetchall()
    return {(schema, table): blueprint for schema, table, blueprint in rows}


def present_blueprints(reader: psycopg.Connection[Any]) -> set[str]:
    """The blueprints of the version tables that are there. Empty when we may not read our table."""
    row = reader.execute(READABLE.encode()).fetchone()
    if not row or not row[0]:
        return set()
    return {blueprint for (blueprint,) in reader.execute(_PRESENT.encode()).fetchall()}


def make_statement() -> str:
    """One statement that makes our table where this role may, for SQL that others run."""
    body = "".join(
        f"\n    {' '.join(each.split())};" for each in own_schema.statements(TABLE, _CREATE)
    )
    is_missing = f"NOT EXISTS ({' '.join(_HAS_DIGESTS.split())})"
    body += f"\n    IF {is_missing} THEN\n        {_ADD_COLUMNS};\n    END IF;"
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
    schema: str,
    version_table: str,
    blueprint: str,
    revisions: Sequence[str],
    digests: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """One statement, without parameters, that records the revisions of a version table, in order.

    It belongs into the transaction that writes the version table. It never fails for a lack of
    rights. Without revisions the row is deleted, and a comment of an earlier version too.
    `digests` are those of the files of revisions that are recorded anew. Those of other `revisions`
    stay.
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
        keep = (
            f"UPDATE {PLACE} SET digests = (\n"  # noqa: S608 - quoted
            "            SELECT jsonb_object_agg(key, value) FROM jsonb_each(\n"
            f"                coalesce(digests, '{{}}') || {literal(as_json(digests))})\n"
            "            WHERE key = ANY(revisions))\n"
            f"        WHERE (schema_name, table_name) = ({key})"
        )
    else:
        comment = "''"
        row = f"(schema_name, table_name) = ({key})"
        write = f"DELETE FROM {PLACE} WHERE {row}"  # noqa: S608 - quoted
        keep = "NULL"
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
    IF has_row THEN
        BEGIN
            {keep};
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
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

"""What our role may do, by what a role can be for: to apply, or to verify alone.

The privileges and the statements that grant them are those of the command `grants`. Everything is
read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import rows

from is_db_bootstrap.grant_list import Purpose
from is_db_bootstrap.results import Privilege
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.postgres import (
    begun,
    grant_statements,
    lineage_table,
    memory_table,
    own_schema,
)
from is_db_bootstrap.stores.postgres.connection import identifier

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.errors import AccessDenied
    from is_db_bootstrap.stores.postgres.record_place import RecordPlace

#: The version table is looked up by name, because `to_regclass` fails for a schema that the role
#: may not use.
_PRIVILEGES = """
    SELECT current_user::text AS role,
           has_database_privilege(current_database(), 'CREATE') AS database_create,
           to_regnamespace(%(schema)s) IS NOT NULL AS is_there,
           coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'CREATE'), false)
               AND coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE'), false)
               AS creates,
           coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE'), false) AS uses,
           has_table_privilege(record.oid, 'SELECT') AS reads_record,
           has_table_privilege(record.oid, 'SELECT')
               AND has_table_privilege(record.oid, 'INSERT')
               AND has_table_privilege(record.oid, 'UPDATE')
               AND has_table_privilege(record.oid, 'DELETE') AS writes_record,
           (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user) AS createdb
    FROM (SELECT 1) AS always LEFT JOIN (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = %(record_table)s
          AND CASE WHEN %(record_schema)s::text IS NULL THEN pg_table_is_visible(c.oid)
                   ELSE n.nspname = %(record_schema)s END
    ) AS record ON true
"""
#: Whether the role may write or make each table of ours. It ends with whether our schema is there,
#: and the name of the role.
_OUR_TABLES = own_schema.places(begun.TABLE, lineage_table.TABLE, memory_table.TABLE)
#: What a role is for that needs a privilege, as the command `grants` names it.
_APPLY, _VERIFY = Purpose.APPLY.value, Purpose.VERIFY.value


@dataclass(frozen=True, slots=True)
class Work:
    """What a role works with. `record` is the version table.

    `is_missing` says that the database is missing, so that the session is in `postgres`.
    `is_path_of_team` says that a team's `env.py` decides in which schema it works.
    """

    database: str
    schema: str
    record: RecordPlace
    is_missing: bool = False
    is_path_of_team: bool = False


def privileges_of(session: psycopg.Connection[Any], work: Work) -> Iterator[Privilege]:
    """What the role may do of what a role for verify, and one for apply, needs.

    The statements are those of the command `grants`. Raises what psycopg raises.
    """
    values = {
        "schema": identifier(work.schema),
        "record_schema": work.record.schema,
        "record_table": work.record.table,
    }
    cursor = session.cursor(row_factory=rows.dict_row)
    rights = cursor.execute(_PRIVILEGES.encode(), values).fetchone() or {}
    if work.is_missing:
        yield Privilege(
            f"create the database {work.database}",
            rights["createdb"],
            grant_statements.let_create_database(rights["role"]),
            _APPLY,
        )
        return
    yield from _for_verify(rights, work)
    yield from _for_apply(rights, work)
    yield _keeping_records(session)
    yield Privilege(
        "create scratch databases, for selftest, plan and downgrade only",
        rights["createdb"],
        grant_statements.let_create_database(rights["role"]),
        _APPLY,
    )


def rung_of_reader(
    session: psycopg.Connection[Any], work: Work, refusal: AccessDenied
) -> RungResult | None:
    """The highest rung of a role that may not create, and has all that a role for verify needs.

    None when something of that is lacking, or nothing has been applied yet, so that there is
    nothing to verify. The hint of `refusal` then says what each purpose needs. Raises what psycopg
    raises.
    """
    seen = [each for each in privileges_of(session, work) if each.purpose == _VERIFY]
    lacking = [each.statement for each in seen if not each.is_granted]
    refusal.hint = f"For apply: {refusal.hint} {_told_of_verify(seen, lacking)}"
    if lacking or not any(each.name == _reading(work) for each in seen):
        return None
    text = f"{refusal.message.removesuffix('.')}, which is enough for verify"
    return RungResult(Rung.SCHEMA, ok=False, text=text, hint=refusal.hint, is_permanent=True)


def _told_of_verify(seen: Sequence[Privilege], lacking: Sequence[str]) -> str:
    if lacking:
        return f"For verify alone: {' '.join(lacking)}"
    return "For verify alone, nothing is lacking." if seen else ""


def _reading(work: Work) -> str:
    """What reading the version table is called."""
    return f"read {work.record.quoted}"


def _for_verify(rights: dict[str, Any], work: Work) -> Iterator[Privilege]:
    """What is needed to look at what is there. Nothing is, where nothing is there yet."""
    role, schema = rights["role"], work.schema
    if not rights["is_there"]:
        return
    yield Privilege(
        f"use schema {schema}", rights["uses"], grant_statements.use_schema(schema, role), _VERIFY
    )
    if rights["reads_record"] is not None:
        yield Privilege(
            _reading(work),
            rights["reads_record"],
            grant_statements.read_table(work.record.quoted, role),
            _VERIFY,
        )


def _for_apply(rights: dict[str, Any], work: Work) -> Iterator[Privilege]:
    role = rights["role"]
    if not work.is_path_of_team:  # What a team's env.py creates, and where, nobody knows.
        yield _creating(rights, work.schema)
    if rights["writes_record"] is not None:
        yield Privilege(
            f"write to {work.record.quoted}",
            rights["writes_record"],
            grant_statements.write_records(work.record.quoted, role),
            _APPLY,
        )


def _creating(rights: dict[str, Any], schema: str) -> Privilege:
    role = rights["role"]
    if rights["is_there"]:
        return Privilege(
            f"create tables in schema {schema}",
            rights["creates"],
            grant_statements.create_in_schema(schema, role),
            _APPLY,
        )
    return Privilege(
        f"create schema {schema}",
        rights["database_create"],
        grant_statements.own_schema_of(schema, role),
        _APPLY,
    )


def _keeping_records(session: psycopg.Connection[Any]) -> Privilege:
    """Whether the role may write all tables of our own, or make those that are missing."""
    # Whether it may comment on the version table is not asked here.
    row = session.execute(_OUR_TABLES.encode(), {"table": None}).fetchone()
    *may_write, _, _, has_schema, role = row or (False, True, "", False, "")
    return Privilege(
        f"keep records of our own in schema {own_schema.SCHEMA}",
        all(may_write),
        own_schema.remedy(role, has_schema=has_schema),
        _APPLY,
    )

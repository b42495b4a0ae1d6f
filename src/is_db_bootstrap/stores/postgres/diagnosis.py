"""What `doctor` tells of a PostgreSQL server. Everything is read, and nothing is locked."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from is_db_bootstrap.grant_list import Purpose
from is_db_bootstrap.results import Diagnosis, Fact, Privilege
from is_db_bootstrap.stores.postgres import grants, own_schema, pooler
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.ladder import tls_text

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

_LOOK = """
    SELECT version() AS version, current_database() AS database, current_user AS user,
           session_user AS login, pg_encoding_to_char(encoding) AS encoding,
           datcollate AS collate, pg_is_in_recovery() AS standby,
           current_setting('default_transaction_read_only') AS read_only,
           current_setting('max_connections') AS connections,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
           current_setting('wal_level') AS wal, current_setting('search_path') AS path,
           host(inet_client_addr()) AS address, inet_client_port() AS port,
           extract(epoch FROM clock_timestamp())::float8 AS clock,
           extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS age_s
    FROM pg_database WHERE datname = current_database()
"""
_PRIVILEGES = """
    SELECT current_user::text AS role,
           has_database_privilege(current_database(), 'CREATE') AS database_create,
           to_regnamespace(%(schema)s) IS NOT NULL AS is_there,
           coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'CREATE'), false)
               AND coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE'), false)
               AS creates,
           coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE'), false) AS uses,
           has_table_privilege(to_regclass(%(record)s), 'SELECT') AS reads_record,
           has_table_privilege(to_regclass(%(record)s), 'SELECT')
               AND has_table_privilege(to_regclass(%(record)s), 'INSERT')
               AND has_table_privilege(to_regclass(%(record)s), 'UPDATE')
               AND has_table_privilege(to_regclass(%(record)s), 'DELETE') AS writes_record,
           to_regnamespace(%(own)s) IS NOT NULL AS has_own,
           has_schema_privilege(to_regnamespace(%(own)s), 'CREATE') AS creates_in_own,
           (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user) AS createdb
"""
#: What a role is for that needs a privilege, as the command `grants` names it.
_APPLY, _VERIFY = Purpose.APPLY.value, Purpose.VERIFY.value


@dataclass(frozen=True, slots=True)
class Work:
    """What a role works with. `record` is the quoted name of the version table.

    `is_missing` says that the database is missing, so that the session is in `postgres`.
    """

    database: str
    schema: str
    record: str
    is_missing: bool = False


def diagnosis(session: psycopg.Connection[Any], url: StoreUrl, work: Work) -> Diagnosis:
    """What a session sees."""
    with errors(str(url)):
        asked_at = time.time()
        row = _one_row(session, _LOOK, {})
        answered_at = time.time()
        between = tuple(_between(session, row))
        privileges = tuple(privileges_of(session, work))
    return Diagnosis(
        facts=tuple(_facts(session, row, work.schema)),
        clock_difference_s=row["clock"] - (asked_at + answered_at) / 2,
        between=between,
        mismatches=tuple(_mismatches(session)),
        privileges=privileges,
    )


def _one_row(
    session: psycopg.Connection[Any], query: str, values: dict[str, Any]
) -> dict[str, Any]:
    cursor = session.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute(query.encode(), values).fetchone() or {}


def _facts(session: psycopg.Connection[Any], row: dict[str, Any], schema: str) -> Iterator[Fact]:
    yield Fact("server", row["version"])
    yield Fact("client", _client_text())
    yield Fact("TLS", tls_text(session))
    yield Fact("database", f"{row['database']}, {row['encoding']}, {row['collate']}")
    yield Fact("schema", f"{schema}, search_path {row['path']}")
    login = "" if row["login"] == row["user"] else f", logged in as {row['login']}"
    yield Fact("role", f"{row['user']}{login}")
    role = "a standby" if row["standby"] else "a primary"
    yield Fact("kind", f"{role}, default_transaction_read_only {row['read_only']}")
    yield Fact("running for", f"{row['age_s']:.0f} s")
    yield Fact("connections", f"{row['used']} of {row['connections']} in use")
    yield Fact("wal_level", row["wal"])


def _client_text() -> str:
    number = pq.version()
    return f"psycopg {psycopg.__version__} ({pq.__impl__}), libpq {_release(number)}"


def _release(number: int) -> str:
    """A version as PostgreSQL writes it, such as 17.2 for 170002."""
    return f"{number // 10000}.{number % 10000}"


def _mismatches(session: psycopg.Connection[Any]) -> Iterator[str]:
    """Libpq talks to older and newer servers. It cannot do what was invented after it."""
    client, server = pq.version() // 10000, session.info.server_version // 10000
    if client < server:
        yield (
            f"libpq {client} is older than the server, {server}. It connects all the same. A new"
            " way to log in or an option of the address may be unknown to it."
        )


def _between(session: psycopg.Connection[Any], row: dict[str, Any]) -> Iterator[str]:
    """What stands between us and the server, as far as a session shows it."""
    if not pooler.is_direct(session):
        yield (
            "A connection pooler, such as PgBouncer, in session mode: the process that greeted us"
            " is not the one that answers."
        )
        return
    ours = _own_address(session)
    seen = (row["address"], row["port"])
    if ours and seen[0] and ours != seen:
        yield (
            f"A proxy, a port-forward or a NAT: the server sees us at {seen[0]}:{seen[1]}, and this"
            f" machine calls the same connection {ours[0]}:{ours[1]}."
        )


def _own_address(session: psycopg.Connection[Any]) -> tuple[str, int] | None:
    """Our end of the connection, as this machine sees it. None for a local socket."""
    # The number is copied, so that the connection stays open when the copy is closed.
    with socket.socket(fileno=os.dup(session.fileno())) as own:
        name = own.getsockname()
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None


def privileges_of(session: psycopg.Connection[Any], work: Work) -> Iterator[Privilege]:
    """What the role may do of what a role for verify, and one for apply, needs.

    The statements are those of the command `grants`. Raises what psycopg raises.
    """
    values = {
        "schema": identifier(work.schema),
        "record": work.record,
        "own": identifier(own_schema.SCHEMA),
    }
    rights = _one_row(session, _PRIVILEGES, values)
    if work.is_missing:
        yield Privilege(
            f"create the database {work.database}",
            rights["createdb"],
            grants.let_create_database(rights["role"]),
            _APPLY,
        )
        return
    yield from _for_verify(rights, work)
    yield from _for_apply(rights, work)


def hint_by_purpose(session: psycopg.Connection[Any], work: Work, for_apply: str) -> str:
    """The next step of a role that may not create, for each of what the role can be for.

    `for_apply` is what an administrator does for apply. Raises what psycopg raises.
    """
    seen = [each for each in privileges_of(session, work) if each.purpose == _VERIFY]
    lacking = [each.statement for each in seen if not each.is_granted]
    for_verify = "For verify alone, nothing is lacking."
    if lacking:
        for_verify = f"For verify alone: {' '.join(lacking)}"
    return f"For apply: {for_apply} {for_verify}"


def _for_verify(rights: dict[str, Any], work: Work) -> Iterator[Privilege]:
    """What is needed to look at what is there. Nothing is, where nothing is there yet."""
    role, schema = rights["role"], work.schema
    if not rights["is_there"]:
        return
    yield Privilege(
        f"use schema {schema}", rights["uses"], grants.use_schema(schema, role), _VERIFY
    )
    if rights["reads_record"] is not None:
        yield Privilege(
            f"read {work.record}",
            rights["reads_record"],
            grants.read_table(work.record, role),
            _VERIFY,
        )


def _for_apply(rights: dict[str, Any], work: Work) -> Iterator[Privilege]:
    role, schema = rights["role"], work.schema
    if rights["is_there"]:
        yield Privilege(
            f"create tables in schema {schema}",
            rights["creates"],
            grants.create_in_schema(schema, role),
            _APPLY,
        )
    else:
        yield Privilege(
            f"create schema {schema}",
            rights["database_create"],
            grants.own_schema_of(schema, role),
            _APPLY,
        )
    if rights["writes_record"] is not None:
        yield Privilege(
            f"write to {work.record}",
            rights["writes_record"],
            grants.write_records(work.record, role),
            _APPLY,
        )
    has_own = rights["has_own"]
    yield Privilege(
        f"keep records of our own in schema {own_schema.SCHEMA}",
        rights["creates_in_own"] if has_own else rights["database_create"],
        own_schema.remedy(role, has_schema=has_own),
        _APPLY,
    )
    yield Privilege(
        "create scratch databases, for selftest, plan and downgrade only",
        rights["createdb"],
        grants.let_create_database(role),
        _APPLY,
    )

"""What `doctor` tells of a PostgreSQL server. Everything is read, and nothing is locked."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from is_db_bootstrap.results import Diagnosis, Fact
from is_db_bootstrap.stores.postgres import pooler
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.ladder import tls_text
from is_db_bootstrap.stores.postgres.role_privileges import Work, privileges_of

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

_LOOK = """
    SELECT version() AS version, current_database() AS database, current_user AS user,
           session_user AS login, pg_encoding_to_char(encoding) AS encoding,
           datcollate AS collate, pg_is_in_recovery() AS standby,
           current_setting('default_transaction_read_only') AS read_only,
           current_setting('max_connections') AS connections,
           (SELECT sum(numbackends) FROM pg_stat_database) AS used,
           current_setting('wal_level') AS wal, current_setting('search_path') AS path,
           host(inet_client_addr()) AS address, inet_client_port() AS port,
           extract(epoch FROM clock_timestamp())::float8 AS clock,
           extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS age_s
    FROM pg_database WHERE datname = current_database()
"""


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

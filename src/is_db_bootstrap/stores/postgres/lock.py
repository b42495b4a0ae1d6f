"""The lock of a run: a session-level advisory lock, polled, on a connection that does nothing else.

Polled, because a waiting `pg_advisory_lock` is a running statement whose snapshot blocks CREATE
INDEX CONCURRENTLY for ever (flyway#1654). The key is the first eight bytes of SHA-256 of
`is-db-bootstrap:<schema>`, as a signed big-endian number: without the blueprint, since a schema
carries one, and a second must not race the first. Advisory locks belong to one database: the same
key in another database is another lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from is_db_bootstrap.engine.owner import OURS, host_of, process_of
from is_db_bootstrap.engine.store import Anchor, Life, PresentLock
from is_db_bootstrap.results import LockHolder
from is_db_bootstrap.stores.postgres.connection import TERMINATE_MS
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.session_roles import SessionRoles

#: What PostgreSQL keeps of an application_name, in bytes.
NAME_BYTES = 63

_HELD = (
    "FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (l.classid::bigint << 32 | l.objid::bigint) = %s"
)
_TAKE = "SELECT pg_try_advisory_lock(%s), pg_backend_pid()"
_CONFIRM = f"SELECT {_HELD} AND l.pid = pg_backend_pid()"
#: What tells this lock from those of other servers, databases and schemas, and its session from
#: every other one. A copy of a server has its system identifier, so the timeline is told too. It
#: stands in the name of the present WAL file (`pg_control_checkpoint` may lag behind).
_ANCHOR = """
    SELECT (SELECT system_identifier FROM pg_control_system()),
           left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid, a.pid, a.backend_start
    FROM pg_database d, pg_stat_activity a
    WHERE d.datname = current_database() AND a.pid = pg_backend_pid()
"""
#: When the session was last heard of. A run asks for its lock with every heartbeat.
_HEARD = "greatest(a.query_start, a.state_change)"
_HOLDER = f"""
    SELECT a.pid, a.application_name, a.backend_start,
           coalesce(host(a.client_addr), 'a local socket'), a.state, {_HEARD} AS heard_at,
           extract(epoch FROM clock_timestamp() - {_HEARD})::float8 AS silent_s
    FROM pg_stat_activity a WHERE a.pid IN (SELECT l.pid {_HELD})
"""  # noqa: S608 - constants
#: Ends the session if it still holds the lock, and was not heard of since it was looked at.
_END = f"""
    SELECT pg_terminate_backend(a.pid, %s) FROM pg_stat_activity a
    WHERE a.pid IN (SELECT l.pid {_HELD}) AND a.pid = %s AND a.backend_start = %s
      AND {_HEARD} IS NOT DISTINCT FROM %s
"""  # noqa: S608 - constants
#: A holder that was silent for so many leases is not at work. It asks six times in each.
_SILENT_LEASES = 2


def key(schema: str) -> int:
    """The advisory lock's number."""
    digest = hashlib.sha256(f"is-db-bootstrap:{schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def holder(connection: psycopg.Connection[Any], number: int) -> LockHolder | None:
    """Who holds the lock, by pg_locks and pg_stat_activity; None when nobody does."""
    row = connection.execute(_HOLDER.encode(), [number]).fetchone()
    return None if row is None else _holder(*row[:4])


def _holder(pid: int, application: str | None, since: datetime, address: str) -> LockHolder:
    name = application or ""
    return LockHolder(
        f"pid {pid} ({name or 'without a name'}, from {address})",
        since,
        host_of(name),
        process_of(name),
    )


def present(connection: psycopg.Connection[Any], number: int, lease_s: float) -> PresentLock | None:
    """The lock that is there now, and whether its holder is at work.

    Such a lock has no lease, so what counts is when its session was heard of. `lease_s` is what a
    run is given.
    """
    row = connection.execute(_HOLDER.encode(), [number]).fetchone()
    if row is None:
        return None
    pid, application, since, _, state, heard_at, silent_s = row
    life, why = _life(application or "", state, silent_s, _SILENT_LEASES * lease_s)
    return PresentLock(_holder(*row[:4]), life, why, (pid, since, heard_at))


def _life(
    application: str, state: str | None, silent_s: float | None, limit_s: float
) -> tuple[Life, str]:
    if silent_s is None:
        return Life.UNKNOWN, "This role may not see when its session was heard of (pg_monitor)."
    if state not in {None, "idle"}:
        return Life.ALIVE, f"Its session is {state}."
    heard = f"Its session was heard of {silent_s:.0f} s ago"
    if not application.startswith(OURS):
        return Life.UNKNOWN, f"{heard}, and is none of a run that asks for its lock."
    if silent_s < limit_s:
        return Life.ALIVE, f"{heard}. It counts as lost after {limit_s:g} s."
    return Life.DEAD, f"{heard}, and a run asks for its lock more often than that."


def remove(connection: psycopg.Connection[Any], number: int, seen: PresentLock) -> bool:
    """End the session that was seen to hold the lock, and wait until it is gone.

    False when it was heard of since, or does not hold the lock any more. Raises what psycopg
    raises, as for a role that may not end it.
    """
    token: Any = seen.token
    given = [TERMINATE_MS, number, *token]
    return connection.execute(_END.encode(), given).fetchone() is not None


@dataclass(frozen=True, slots=True)
class AdvisoryLock:
    """A held lock, and the connection whose session holds it.

    `pid` is the session's process, as the server calls it. A pooler greets with another number.
    """

    connection: psycopg.Connection[Any]
    number: int
    target: str
    pid: int

    def confirm(self) -> bool:
        """Whether the server still lists the lock as this very session's.

        False when the session is gone.
        """
        try:
            return self.connection.execute(_CONFIRM.encode(), [self.number]).fetchone() is not None
        except psycopg.Error:
            return False

    def anchor(self) -> Anchor | None:
        """Which lock this is, and in which session.

        None when this user may not read all of it.
        """
        try:
            row = self.connection.execute(_ANCHOR.encode()).fetchone()
        except psycopg.Error:
            return None
        if row is None or None in row:
            return None
        system, timeline, database, pid, started = row
        lock = f"postgresql {system} {timeline} {database} {self.number}"
        return Anchor(lock, f"{pid} {started.astimezone(UTC).isoformat()}")

    def release(self) -> bool:
        """Unlock and close.

        False when the lock was not ours any more, as behind a pooler that swaps sessions.
        """
        try:
            row = self.connection.execute("SELECT pg_advisory_unlock(%s)", [self.number]).fetchone()
        except psycopg.Error:
            return False
        finally:
            self.connection.close()
        return bool(row and row[0])


def take(
    sessions: SessionRoles,
    number: int,
    owner: str,
    opened: Callable[[psycopg.Connection[Any]], None],
) -> AdvisoryLock | LockHolder:
    """One try for the lock of `number`. `opened` is told of the connection as soon as it is there.

    Raises what `connect` raises: a pooler that gives our session to others is found out there.
    """
    name = owner.encode()[:NAME_BYTES].decode(errors="ignore")
    connection = sessions.locking(name, opened)
    target = str(sessions.url)
    try:
        with errors(target, f"advisory lock {number}"):
            row = connection.execute(_TAKE.encode(), [number]).fetchone()
            if row and row[0]:
                return AdvisoryLock(connection, number, target, row[1])
            found = holder(connection, number)
    except BaseException:
        connection.close()
        raise
    connection.close()
    return found or LockHolder("a run that has ended this moment")

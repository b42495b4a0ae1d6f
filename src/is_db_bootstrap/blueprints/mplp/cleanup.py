"""Cleaning up expired rows.

Expired contexts are terminated, expired shared states deleted, and expired sessions deactivated.
The application decides when: nothing in this package schedules a cleanup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, true, update

from is_db_bootstrap.blueprints.mplp.tables import metadata, utc_now

if TYPE_CHECKING:
    import datetime as dt

    from sqlalchemy import Connection

TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class ExpiredCleanup:
    """How many rows each step changed."""

    contexts: int
    shared_states: int
    sessions: int


def cleanup_expired_contexts(
    connection: Connection,
    *,
    now: dt.datetime | None = None,
) -> ExpiredCleanup:
    """Clean up the rows that expired before `now`, in the caller's transaction.

    `now` is UTC without time zone and defaults to the current time. A second call finds nothing.
    The statements work on PostgreSQL, MariaDB and SQLite.
    """
    now = now or utc_now()
    contexts = metadata.tables["mplp_contexts"]
    states = metadata.tables["mplp_shared_states"]
    sessions = metadata.tables["mplp_context_sessions"]

    terminated = connection.execute(
        update(contexts)
        .where(contexts.c.expires_at < now, contexts.c.status != TERMINATED)
        .values(status=TERMINATED, lifecycle_stage=TERMINATED)
    )
    deleted = connection.execute(delete(states).where(states.c.expires_at < now))
    deactivated = connection.execute(
        update(sessions)
        .where(sessions.c.expires_at < now, sessions.c.is_active == true())
        .values(is_active=False)
    )
    return ExpiredCleanup(
        contexts=terminated.rowcount,
        shared_states=deleted.rowcount,
        sessions=deactivated.rowcount,
    )

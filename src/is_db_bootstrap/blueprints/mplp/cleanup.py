"""What has expired: contexts are terminated, shared states deleted, sessions deactivated. Nothing schedules it."""

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


def cleanup_expired_contexts(connection: Connection, *, now: dt.datetime | None = None) -> ExpiredCleanup:
    """Clean up what expired before `now` (UTC without time zone; the current time), in the caller's transaction.

    A second call finds nothing. It works on PostgreSQL, MariaDB and SQLite.
    """
    now = now or utc_now()
    contexts, states, sessions = (metadata.tables[f"mplp_{name}"] for name in ("contexts", "shared_states", "context_sessions"))
    terminated = connection.execute(
        update(contexts)
        .where(contexts.c.expires_at < now, contexts.c.status != TERMINATED)
        .values(status=TERMINATED, lifecycle_stage=TERMINATED)
    )
    deleted = connection.execute(delete(states).where(states.c.expires_at < now))
    ended = connection.execute(
        update(sessions).where(sessions.c.expires_at < now, sessions.c.is_active == true()).values(is_active=False)
    )
    return ExpiredCleanup(terminated.rowcount, deleted.rowcount, ended.rowcount)

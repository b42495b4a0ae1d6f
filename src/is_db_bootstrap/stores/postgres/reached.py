"""Which server a session has reached, and that all sessions of a run reach one.

Several hosts, a name with several addresses or a pooler may lead two sessions to two servers, above
all during a fail-over. The lock of a run is held on one server only. So every session that is
opened while the lock is held has to reach that server.

A standby has the system identifier of its primary, and keeps it when it is promoted. The start of
the server tells the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.stores.postgres.hosts import place_of

#: What a session is asked with its first question.
QUESTION = ", pg_is_in_recovery(), extract(epoch FROM pg_postmaster_start_time())::text"
_SERVER = f"SELECT {QUESTION.removeprefix(', ')}"
_WAY_OUT = (
    "A fail-over or a restart may be going on. Run again, because what is recorded is read anew. "
    "If both servers can be written to, end the wrong one first."
)


class OtherServer(StoreUnavailable):
    """A session has reached another server than the one on which this run holds its lock."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A server. `place` is host and port as the session knows them, `started` tells it apart."""

    place: str
    started: str
    is_standby: bool


class OneServer:
    """Lets all sessions of a run reach the server of its lock, once that is held."""

    def __init__(self) -> None:
        #: The server on which the lock is held.
        self.held: Reached | None = None

    def hold(self, session: psycopg.Connection[Any]) -> Reached | None:
        """From now on, the server of this session is the only one. None when it has gone."""
        self.held = server_of(session)
        return self.held

    def release(self) -> None:
        """Sessions may reach any server again."""
        self.held = None

    def has(self, session: psycopg.Connection[Any]) -> bool:
        """Whether a session that is open has reached the one server, as it says itself."""
        found = server_of(session)
        return found is not None and found == self.held

    def check(self, found: Reached) -> None:
        """Raise `OtherServer` for a server that is not the one server."""
        if self.held is None or self.held.started == found.started:
            return
        if self.held.place == found.place:
            what = f"{found.place} was started again"
        else:
            what = f"A session of this run has reached {found.place}, which is another server"
        raise OtherServer(
            "postgres",
            f"{what}. The lock of this run was taken on {self.held.place} before, so nothing is "
            "changed there without a lock.",
            hint=_WAY_OUT,
        )


def server_of(session: psycopg.Connection[Any]) -> Reached | None:
    """The server of a session that is open. None when the session has gone."""
    try:
        row = session.execute(_SERVER.encode()).fetchone()
    except psycopg.Error:
        return None
    return None if row is None else Reached(place_of(session.info), row[1], row[0])

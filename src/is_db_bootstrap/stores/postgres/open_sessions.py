"""The sessions that a store has open, for another thread: what they wait for, and how they end.

All times are seconds.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import psycopg

from is_db_bootstrap.stores.postgres.connection import identity
from is_db_bootstrap.stores.postgres.errors import errors

#: Who holds what our sessions wait for, the longest first. `pg_blocking_pids` names process 0 for a
#: prepared transaction. A pooler makes up the process ids that it greets with, so the name and the
#: user of a session must fit too.
_BLOCKERS = """
    WITH waiting AS (
        SELECT pid, unnest(pg_blocking_pids(pid)) AS blocker FROM pg_stat_activity
        WHERE pid = ANY(%s) AND usename = current_user
        AND application_name = current_setting('application_name')
    )
    SELECT DISTINCT blocker, a.usename, a.application_name, a.state,
           coalesce(a.xact_start, a.backend_start) AS since,
           (SELECT min(l.relation::regclass::text) FROM pg_locks AS l
            WHERE l.pid = waiting.pid AND NOT l.granted AND l.relation IS NOT NULL)
    FROM waiting LEFT JOIN pg_stat_activity AS a ON a.pid = blocker
    WHERE blocker <> ALL(%s) ORDER BY since NULLS FIRST LIMIT 3
"""
#: What `waits_for` says of a server that took the login and is mute since.
_MUTE = (
    "{target} took the login and has not answered since. If it is a connection pooler, its pool"
    " may be full: every session of it is in use."
)

T = TypeVar("T")


class OpenSessions:
    """The connections of one store. Any thread may call this."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: list[psycopg.Connection[Any]] = []
        self._new: list[psycopg.Connection[Any]] = []

    def open(self, connect_with: Callable[[Callable[[psycopg.Connection[Any]], None]], T]) -> T:
        """What `connect_with` returns.

        It is given whom to tell of each connection that it opens.
        Such a connection counts as new until `connect_with` returns, which is when its session has
        answered.
        """
        opened: list[psycopg.Connection[Any]] = []

        def note(connection: psycopg.Connection[Any]) -> None:
            opened.append(connection)
            self.add(connection)
            with self._lock:
                self._new.append(connection)

        try:
            return connect_with(note)
        finally:
            with self._lock:
                self._new = [each for each in self._new if each not in opened]

    def add(self, connection: psycopg.Connection[Any]) -> None:
        """Note a connection. Closed ones are forgotten."""
        with self._lock:
            self._open = [each for each in self._open if not each.closed]
            self._open.append(connection)

    def forget(self, connection: psycopg.Connection[Any]) -> None:
        """Leave a connection to others from now on."""
        with self._lock:
            self._open = [each for each in self._open if each is not connection]

    def all(self) -> list[psycopg.Connection[Any]]:
        """The connections that are open."""
        with self._lock:
            return [each for each in self._open if not each.closed]

    def identities(self) -> list[list[Any]]:
        """By what the server knows each session that is open."""
        found = []
        for connection in self.all():
            with suppress(psycopg.Error):  # closed meanwhile
                found.append(identity(connection))
        return found

    def cancel(self, timeout_s: float) -> None:
        """End what runs in the sessions. Each server gets `timeout_s` to take the request."""
        for connection in self.all():
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=timeout_s)

    def hang_up(self) -> None:
        """Break the connections on our side, so that no call waits for an answer any more."""
        for connection in self.all():
            with suppress(psycopg.Error, OSError):
                wire = socket.socket(fileno=connection.fileno())
                try:
                    wire.shutdown(socket.SHUT_RDWR)
                finally:
                    wire.detach()  # the connection itself closes it

    @property
    def is_mute(self) -> bool:
        """Whether a server has taken a login and has answered nothing since."""
        with self._lock:
            return any(not each.closed for each in self._new)

    def what_is_mute(self) -> str:
        """What is known of a server that has taken a login and has answered nothing since."""
        return _MUTE.format(target=self._target)

    def blockers(self, connection: psycopg.Connection[Any]) -> str:
        """Who holds a lock that one of our sessions waits for, asked through `connection`.

        Empty when none of them waits for a lock.
        """
        own_pid = connection.info.backend_pid
        pids = [pid for pid, *_ in self.identities() if pid != own_pid]
        with errors(self._target, "what a session waits for"):
            rows = connection.execute(_BLOCKERS.encode(), [pids, pids]).fetchall()
        return " ".join(_blocker_sentence(row) for row in rows)


def _blocker_sentence(row: Sequence[Any]) -> str:
    """A sentence about a session that holds up one of ours."""
    pid, user, application, state, since, relation = row
    lock = f"a lock on {relation}" if relation else "a lock"
    if not pid:
        return f"A prepared transaction holds {lock} (see pg_prepared_xacts)."
    facts = [f"user {user}" if user else "", application or "", state or ""]
    if isinstance(since, datetime):
        facts.append(f"since {since:%Y-%m-%d %H:%M:%S} UTC")
    known = ", ".join(fact for fact in facts if fact)
    return f"Session {pid} ({known}) holds {lock}."

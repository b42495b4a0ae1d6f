"""What a session of ours sets on the server, by its role: looking, working, holding the lock.

Whatever the role, the server lifts the limits that it has been given for a user or a database
(`connection.unlimited`), and nothing is set before a pooler that shares sessions is recognised.
All times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import psycopg

from is_db_bootstrap.stores.postgres.connection import (
    connect,
    lock_limit,
    session_settings,
    statement_limit,
)
from is_db_bootstrap.stores.postgres.half_done import WorkingConnection, WorkingCursor
from is_db_bootstrap.stores.postgres.reached import OneServer

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl, Timing

Opened = Callable[[psycopg.Connection[Any]], None]

#: The server ends a wait for a lock so many seconds after the engine has ended the look.
_LOCK_LATER_S = 1.0
#: The server ends a look itself so many seconds after the engine has.
_LATER_S = 2.0


def _forget(_: psycopg.Connection[Any]) -> None:
    """Nobody wants to know of a connection."""


@dataclass(frozen=True, slots=True)
class SessionRoles:
    """Opens the sessions of one database, each with what its role needs.

    `schema` is the one with which their search path begins. Without it, the path stays that of the
    address, PGOPTIONS, the role or the database. While `one_server` holds a server, every session
    has to reach it. The methods raise what `connection.connect` does.
    """

    url: StoreUrl
    schema: str | None
    timing: Timing
    one_server: OneServer = field(default_factory=OneServer, compare=False)

    def looking(
        self,
        limit_s: float = 0,
        *,
        connect_timeout_s: float | None = None,
        opened: Opened = _forget,
        missing: Opened | None = None,
    ) -> psycopg.Connection[Any]:
        """A session that looks, whose looks and waits the server ends soon after `limit_s`.

        0: no limit. Behind a pooler there is none, because the next client might get it. `missing`
        is given the session that has found that there is no such database.
        """
        return connect(
            self.url,
            connect_timeout_s or self.timing.connect_timeout_s,
            settings=session_settings(self.schema),
            limits=look_limits(limit_s),
            opened=opened,
            missing=missing,
            reached=self.one_server.check,
        )

    def working(self) -> WorkingConnection:
        """A session for revisions: it waits `Timing.lock_timeout_s` for a lock.

        The server ends it within a second of our death.
        """
        timing = self.timing
        opened = connect(
            self.url,
            timing.connect_timeout_s,
            settings=session_settings(self.schema) | lock_limit(timing.lock_timeout_s),
            kind=WorkingConnection,
            cursor_factory=WorkingCursor,
            reached=self.one_server.check,
        )
        connection = cast("WorkingConnection", opened)
        with suppress(psycopg.errors.InvalidParameterValue):  # a platform that cannot tell
            connection.execute("SET client_connection_check_interval = '1s'")
        connection.autocommit = False
        return connection

    def locking(self, name: str, opened: Opened = _forget) -> psycopg.Connection[Any]:
        """A session that holds the lock of a run, idle for as long as that takes."""
        return connect(
            self.url,
            self.timing.connect_timeout_s,
            settings=session_settings(self.schema),
            opened=opened,
            reached=self.one_server.check,
            application_name=name,
        )


def look_limits(limit_s: float) -> dict[str, str]:
    """The limits of a session whose looks the engine ends after `limit_s`. 0: none."""
    if limit_s <= 0:
        return {}
    return lock_limit(limit_s + _LOCK_LATER_S) | statement_limit(limit_s + _LATER_S)


def no_look_limits() -> dict[str, str]:
    """What lifts the limits of a look from a session."""
    return lock_limit(0) | statement_limit(0)

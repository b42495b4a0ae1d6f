"""The sessions of one run of a store: the one that looks, the one of the lock, and those that work.

Whether this run holds the lock decides how long a look may take, and which server each session has
to reach. `session_roles` says what each of them sets, and `open_sessions` ends them from outside.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import BootstrapError, StoreConflict, StoreUnavailable
from is_db_bootstrap.stores.postgres import hosts, pooler
from is_db_bootstrap.stores.postgres import lock as postgres_lock
from is_db_bootstrap.stores.postgres.connection import settings_query, terminated
from is_db_bootstrap.stores.postgres.database import Database
from is_db_bootstrap.stores.postgres.errors import NAME, DatabaseMissing, errors
from is_db_bootstrap.stores.postgres.half_done import Watch
from is_db_bootstrap.stores.postgres.open_sessions import OpenSessions
from is_db_bootstrap.stores.postgres.session_roles import SessionRoles, no_look_limits

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.results import LockHolder
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.half_done import WorkingCursor
    from is_db_bootstrap.stores.postgres.team_connections import TeamConnections

#: What is told of sessions that the server has not ended.
_LEFT = "The server did not end session {pids} of this run; what it does may go on."
#: A pooler greets with numbers that the server does not know.
_HIDDEN = (
    "A connection pooler stands before the server, so it is not known whether the server has ended "
    "the sessions of this run; what they do may go on."
)


def _accept_session(_: psycopg.Connection[Any], *, is_new: bool) -> None:
    """Any session will do."""


def _accept_engine(_: Engine) -> None:
    """Any engine will do."""


class RunSessions:
    """Opens, keeps and ends the sessions of one database.

    `path_schema` is the one with which their search path begins. None: the path is the team's.
    """

    def __init__(self, url: StoreUrl, timing: Timing, path_schema: str | None) -> None:
        self.url = url
        self.timing = timing
        self.path_schema = path_schema
        #: How messages call the server.
        self.target = str(url)
        self.roles = SessionRoles(url, path_schema, timing)
        #: The lock of this run, once it was taken.
        self.held_lock: postgres_lock.AdvisoryLock | None = None
        #: The thread that has begun the last change.
        self.changing_in: int | None = None
        #: Is given each session that looks before it is used, and whether it is in another
        #: database, because ours is still to be made.
        self.when_opened: Callable[..., None] = _accept_session
        #: Is given the engine before it is used. A store with another plan sets this.
        self.when_engine_made: Callable[[Engine], None] = _accept_engine
        #: The cursors of sessions that work, if they are not the usual ones. A store with another
        #: plan sets this.
        self.work_cursor: type[WorkingCursor] | None = None
        self._open_sessions = OpenSessions(self.target)
        self.database = Database(url, timing.connect_timeout_s, self._open_sessions)
        self._looking: psycopg.Connection[Any] | None = None
        self._engine: Engine | None = None
        self._cancelled = threading.Event()

    # --- looking

    def begin(self, limit_s: float) -> psycopg.Connection[Any]:
        """Forget an earlier run, and open a session within `limit_s`.

        It is in the database `postgres` when ours does not exist.
        """
        self.close()
        self.held_lock = None
        self.roles.one_server.release()
        self._cancelled.clear()
        try:
            self._looking = self._opened_reader(limit_s, self.database.keep_maintenance)
        except DatabaseMissing:
            maintenance = self.database.maintenance(limit_s)
            self.when_opened(maintenance, is_new=True)
            return maintenance
        return self._looking

    def connected(
        self,
        connect_timeout_s: float | None = None,
        missing: Callable[[psycopg.Connection[Any]], None] | None = None,
    ) -> psycopg.Connection[Any]:
        """A new session that looks. `missing` is given the session that found no such database.

        A run that only looks has a limit for each phase, after which the engine has ended a look. A
        run that has the lock may wait for longer.
        """
        limit_s = 0 if self.held_lock is not None else self.timing.phase_timeout_s
        return self._open_sessions.open(
            lambda opened: self.roles.looking(
                limit_s,
                connect_timeout_s=connect_timeout_s,
                opened=opened,
                missing=missing,
            )
        )

    def _opened_reader(
        self,
        connect_timeout_s: float | None = None,
        missing: Callable[[psycopg.Connection[Any]], None] | None = None,
    ) -> psycopg.Connection[Any]:
        """A new session that looks, whose search path leads to the schema in which we work."""
        session = self.connected(connect_timeout_s, missing)
        try:
            self.when_opened(session, is_new=False)
        except BaseException:
            session.close()
            raise
        return session

    def reader(self) -> psycopg.Connection[Any]:
        """The session that looks; opened again when it was lost. Raises `DatabaseMissing`."""
        if self._looking is None or self._looking.closed:
            if self.database.is_still_missing():
                raise DatabaseMissing(self.url.database)
            self._looking = self._opened_reader()
        return self._looking

    def reader_if_there(self) -> psycopg.Connection[Any] | None:
        """The session that looks. None while the database does not exist."""
        try:
            return self.reader()
        except DatabaseMissing:
            return None

    def reader_or_maintenance(self) -> tuple[psycopg.Connection[Any], bool]:
        """A session that looks, and whether it is in the database `postgres` instead of ours."""
        try:
            return self.reader(), False
        except DatabaseMissing:
            return self.database.maintenance(), True

    # --- the lock

    def take_lock(self, number: int, owner: str) -> postgres_lock.AdvisoryLock | LockHolder:
        """One try for the advisory lock of this number, on a connection of its own."""
        try:
            taken = self._open_sessions.open(
                lambda opened: postgres_lock.take(self.roles, number, owner, opened)
            )
        except DatabaseMissing as exc:
            raise StoreConflict(
                NAME,
                f"Database {self.url.database} does not exist, so its lock cannot be taken.",
            ) from exc
        if isinstance(taken, postgres_lock.AdvisoryLock):
            # No cancel of a change may end the session of the lock.
            self._open_sessions.forget(taken.connection)
            self._stay_on_server(taken)
        self.held_lock = taken if isinstance(taken, postgres_lock.AdvisoryLock) else None
        if self.held_lock is not None:
            self._lift_limits()
        return taken

    def lock_of_run(self) -> tuple[int, int] | None:
        """The process that holds the lock of this run, and its number."""
        lock = self.held_lock
        return (lock.pid, lock.number) if lock else None

    def _stay_on_server(self, lock: postgres_lock.AdvisoryLock) -> None:
        """Let every session of this run reach the server of its lock from now on.

        The session that looks may be an earlier one, of a server that was the primary then.
        Raises `StoreUnavailable` for a standby, whose lock would be worth nothing, or
        `ConfigurationError` when the address asks for standbys only.
        """
        one_server = self.roles.one_server
        server = one_server.hold(lock.connection)
        if server is None or server.is_standby:
            one_server.release()  # the next try may reach the primary
            lock.release()
        if server is None:
            raise StoreUnavailable(
                NAME,
                f"The connection to {self.target} was lost right after its lock was taken.",
                hint="Run again.",
            )
        if server.is_standby:
            raise hosts.standby_reached(self.url, server.place, is_to_change=True)
        session = self._looking
        if session is not None and not one_server.has(session):
            self._looking = None
            session.close()

    def _lift_limits(self) -> None:
        """Let the session that looks wait, because this run changes something from now on.

        A session that was lost is opened again, without a limit.
        """
        if self._looking is not None:
            with suppress(psycopg.Error):
                self._looking.execute(*settings_query(no_look_limits()))

    # --- working

    def engine(self, watch: object) -> Engine:
        """The engine whose sessions do the work, which `watch` sees. It is made once."""
        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic

        if self._engine is None:
            self._engine = postgres_alembic.engine(
                self.url,
                self.path_schema,
                self.timing,
                self.note_working,
                watch if isinstance(watch, Watch) else None,
                one_server=self.roles.one_server,
            )
            self.when_engine_made(self._engine)
        return self._engine

    def note_working(self, connection: psycopg.Connection[Any]) -> None:
        """Note a session of a revision, which gets no second one after it was cancelled.

        It may hang, or swallow what it is told.
        """
        if self.has_ended():
            connection.close()
            raise StoreUnavailable(
                NAME, "The run that this session was for has ended.", hint="Run again."
            )
        self._open_sessions.add(connection)
        if self.work_cursor is not None:
            connection.cursor_factory = self.work_cursor

    # --- ending

    def has_ended(self) -> bool:
        """Whether another thread has ended what runs here."""
        return self._cancelled.is_set()

    def what_it_waits_for(self) -> str:
        """From another thread: whose locks our sessions wait for, or that the server is mute.

        Asked on a connection of its own.
        """
        if self._open_sessions.is_mute:
            return self._open_sessions.what_is_mute()
        try:
            asking = self.connected()
        except DatabaseMissing:
            return ""
        with asking:
            return self._open_sessions.blockers(asking)

    def cancel(self, guests: Callable[[], Sequence[TeamConnections]]) -> None:
        """From another thread: end what runs on the server, also in connections of `guests`."""
        self._cancelled.set()
        self._open_sessions.cancel(self.timing.connect_timeout_s)
        for connections in guests():
            hindered = suppress(psycopg.Error, BootstrapError, DatabaseMissing)
            with hindered, self.connected() as asking:
                connections.cancel(asking)

    def disconnect(self, guests: Callable[[], Sequence[TeamConnections]]) -> str:
        """From another thread: break our connections, and terminate them and those of `guests`.

        Returns which sessions are still there, as a sentence; empty when there are none. Behind a
        pooler, our own sessions cannot be told from those of others.
        """
        self._cancelled.set()
        alembic = sys.modules.get("is_db_bootstrap.stores.postgres.alembic_turn")
        turn = getattr(alembic, "ALEMBIC", None)  # another thread may be importing it right now
        if turn is not None:
            turn.give_up(self.changing_in)
        ours = self._open_sessions.identities()
        self._open_sessions.hang_up()
        with self.connected() as connection, errors(self.target):
            gone = [terminated(connection, session) for session in ours]
            is_hidden = None in gone and not pooler.is_direct(connection)
            left = [each[0] for each, has_gone in zip(ours, gone, strict=True) if has_gone is False]
            for connections in guests():
                left += connections.terminate(connection)
        told = [_HIDDEN] if is_hidden else []
        if left:
            told.append(_LEFT.format(pids=", ".join(map(str, left))))
        return " ".join(told)

    def close(self) -> None:
        """Release every connection."""
        engine, self._engine = self._engine, None
        session, self._looking = self._looking, None
        self.database.close()
        if engine is not None:
            engine.dispose()
        if session is not None:
            session.close()

"""The connections that a team's `env.py` opens while a run of ours is at work.

A host's name says nothing of which database answers: it may be a copy, a tunnel or a pooler. So
each connection is asked on itself, before its first statement, which server and database it has
reached, and whether it sees the lock that our run holds. Any other one is closed and refused.

Only connections of SQLAlchemy's pools are seen. One that `env.py` or a revision opens with a driver
by itself is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.pool import Pool

from is_db_bootstrap.errors import StoreConflict, StoreUnavailable
from is_db_bootstrap.stores.postgres.connection import (
    LIMITS_OF_ALL_VERSIONS,
    LIMITS_SINCE,
    SERVER_KEEPALIVE,
    TERMINATE_MS,
    search_path,
)
from is_db_bootstrap.stores.postgres.errors import NAME, UNAVAILABLE
from is_db_bootstrap.stores.postgres.guest_threads import GuestThreads
from is_db_bootstrap.stores.postgres.own_schema import literal

#: Which database answers, in which session, and whether its role may read the system identifier. A
#: physical copy has that identifier and the numbers of its databases, but not the start of the
#: server. The start is a number, because a session writes a time in its own way.
_IDENTITY = """
    SELECT (SELECT oid::text FROM pg_database WHERE datname = current_database()),
           extract(epoch FROM pg_postmaster_start_time())::text,
           pg_is_in_recovery()::text,
           has_function_privilege('pg_control_system()', 'EXECUTE')::text,
           pg_backend_pid()::text,
           (SELECT extract(epoch FROM backend_start)::text
            FROM pg_stat_activity WHERE pid = pg_backend_pid())
"""
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
#: Whether a session holds an advisory lock, as every session of the same server sees it.
_SEES_LOCK = """
    SELECT count(*)::text FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid = {pid}
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = {number}
"""
_THIS_SESSION = (
    "FROM pg_stat_activity WHERE pid = %s AND extract(epoch FROM backend_start)::text = %s"
)
_CANCEL = f"SELECT pg_cancel_backend(pid) {_THIS_SESSION}"
_TERMINATE = f"SELECT pg_terminate_backend(pid, %s) {_THIS_SESSION}"
#: The way out where env.py and we have reached two databases.
_ONE_DATABASE = (
    "Let the address of {opener} and that of is-db-bootstrap (POSTGRES_URL, DATABASE_URL) lead to "
    "one database. With several targets, let env.py take the address of each from `alembic -x`: "
    'x = ["url={{url}}"] in [postgres]. Nothing was changed through that connection.'
)
#: Lifts the limits of which neither the client nor a statement of this session has said anything.
_LIMITS = ", ".join(f"'{name}'" for name in (*LIMITS_OF_ALL_VERSIONS, *LIMITS_SINCE))
_LIFT_LIMITS = f"""(
    SELECT count(set_config(name, '0', false)) FROM pg_settings
    WHERE name IN ({_LIMITS}) AND setting <> '0' AND source NOT IN ('client', 'session')
)"""  # noqa: S608 - constants
#: SQLSTATEs with which the server ends what lasts longer than a limit: statement_timeout,
#: idle_in_transaction_session_timeout, transaction_timeout, idle_session_timeout.
_BY_LIMITS = {"57014", "25P03", "25P04", "57P05"}
_LIMITS_HOLD = (
    " The connection of {opener} leads through a pooler (or its driver is not known here), so the "
    "limits that its role, its database or the server sets, such as statement_timeout, were not "
    "lifted. Let {opener} reach the server itself, or lift them where they are set."
)
#: Opens no transaction that stays: the query of a row, on a connection of any driver.
_Ask = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which database a session has reached.

    `system` is None where the role may not read it. `started` is the start of the server.
    """

    system: str | None
    database: str
    started: str
    in_recovery: bool

    def is_same(self, other: Identity) -> bool:
        """Whether both sessions have reached one database."""
        is_told = self.system is not None and other.system is not None
        if is_told and self.system != other.system:
            return False
        return (self.database, self.started, self.in_recovery) == (
            other.database,
            other.started,
            other.in_recovery,
        )

    def is_same_server(self, other: Identity) -> bool:
        """Whether both sessions have reached one server, in whichever of its databases."""
        return self.is_same(replace(other, database=self.database))


@dataclass(frozen=True, slots=True)
class HeldLock:
    """The advisory lock of our run: the process of its session, and its number."""

    pid: int
    number: int


@dataclass(frozen=True, slots=True)
class _Session:
    """A session by which its server knows it."""

    pid: int
    started: str


class TeamConnections:
    """Watches the connections that are opened while it is `watching`.

    `target` is how messages call the database of the plan. `lock_timeout_s` is, in seconds, how
    long a statement of a revision waits for a lock, unless the connection has a limit of its own.
    `schema` is that of DB_SCHEMA, if it is given. `opener` is how messages call what opens them.

    `settings` are set on each connection. `way_out` is what to do about one that has reached
    another database, which is said in the place of the usual.
    """

    def __init__(
        self,
        target: str,
        lock_timeout_s: float,
        schema: str | None = None,
        opener: str = "env.py",
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        way_out: str = "",
    ) -> None:
        self._target = target
        self._settings = settings
        self._opener = opener
        self._way_out = way_out or _ONE_DATABASE.format(opener=opener)
        self._schema = schema
        self._lock_timeout = f"{round(lock_timeout_s * 1000)}ms"
        self._planned: Identity | None = None
        self._lock: HeldLock | None = None
        self._sessions: list[_Session] = []
        self._one_at_a_time = threading.Lock()
        #: Why a connection was refused. An `env.py` may catch the error.
        self.refusal: StoreConflict | None = None
        #: Whether a connection has kept the limits that it was given.
        self._holds_limits = False

    @contextmanager
    def watching(
        self, reader: psycopg.Connection[Any], lock: HeldLock | None, ended: Callable[[], bool]
    ) -> Iterator[None]:
        """While inside, each connection of this thread, and of threads that begin, is asked.

        `reader` is a session of the planned database, `lock` the lock of our run. `ended` says
        whether our run has ended, after which no connection is opened. Threads that are there
        already belong to the program around us.
        """
        self.refusal = None
        self._planned, _ = _identity(partial(_ask_ours, reader))
        self._lock = lock
        threads = GuestThreads()

        def look(connection: Any, _: Any) -> None:
            if not threads.is_here():
                return
            try:
                self._look_at(connection, ended=ended())
            except BaseException:
                with suppress(Exception):
                    connection.close()
                raise

        event.listen(Pool, "connect", look)
        try:
            yield
        finally:
            event.remove(Pool, "connect", look)

    def _look_at(self, connection: Any, *, ended: bool) -> None:
        """Refuse a connection that has reached another database, before its first statement.

        Raises `StoreUnavailable` when it is lost meanwhile.
        """
        try:
            self._compare(connection, ended=ended)
        except StoreConflict:
            raise
        except Exception as exc:
            if _is_lost(connection, exc):
                raise self._lost(exc) from exc
            raise self._refused("cannot be asked which database it has reached") from exc

    def _compare(self, connection: Any, *, ended: bool) -> None:
        ask = partial(_ask, connection)
        found, session = _identity(ask)
        if ended:
            raise self._refused("was opened after the run had ended")
        if self._planned is None or not found.is_same(self._planned):
            raise self._refused("has reached another database than the planned one")
        if self._lock is not None:
            query = _SEES_LOCK.format(pid=self._lock.pid, number=self._lock.number)
            if ask(query) != ["1"]:
                raise self._refused("does not see the lock of this run")
        with self._one_at_a_time:
            self._sessions.append(session)
        self._prepare(connection, session.pid)

    def _lost(self, exc: Exception) -> StoreUnavailable:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        return StoreUnavailable(
            NAME,
            f"{self._target} has ended a connection of {self._opener} before its first statement: "
            f"{reason}",
            hint="Run again.",
        )

    def _refused(self, what: str) -> StoreConflict:
        self.refusal = StoreConflict(
            NAME,
            f"A connection of {self._opener} {what}. The plan is for {self._target}.",
            hint=self._way_out,
        )
        return self.refusal

    def _prepare(self, connection: Any, pid: int) -> None:
        """Let the server notice that we have gone, and let no statement wait without a limit.

        The limits that a role, a database or the server's configuration gives are lifted, because
        they are for an application's short statements. What the address, the driver's arguments or
        `env.py` itself sets holds.

        Nothing is set where the driver greets with another process than the one that answers: that
        is a pooler, and what is set there reaches other clients.
        """
        if self._settings:
            given = ", ".join(
                f"set_config('{name}', {literal(value)}, false)"
                for name, value in self._settings.items()
            )
            _ask(connection, f"SELECT {given}")
        if _greeted_pid(connection) != pid:
            self._holds_limits = True
            if self._schema is not None:
                raise self._refused(
                    "leads through a pooler, or uses a driver that is not known here, so its "
                    f"search path is not set to DB_SCHEMA={self._schema}"
                )
            return
        settings = [
            f"set_config('{name}', '{value}', false)" for name, value in SERVER_KEEPALIVE.items()
        ]
        limit = (
            "set_config('lock_timeout', CASE current_setting('lock_timeout') "
            f"WHEN '0' THEN '{self._lock_timeout}' ELSE current_setting('lock_timeout') END, false)"
        )
        if self._schema is not None:
            path = literal(search_path(self._schema))
            settings.append(f"set_config('search_path', {path}, false)")
        _ask(connection, f"SELECT {', '.join([*settings, limit, _LIFT_LIMITS])}")

    def told_limits(self, failure: BaseException) -> str:
        """Why a limit of the server has ended what failed: a sentence with a blank before it.

        Empty where no limit has, and where every connection had its limits lifted.
        """
        cause: BaseException | None = failure
        while cause is not None and not isinstance(cause, psycopg.Error):
            cause = cause.__cause__
        if not self._holds_limits or cause is None or cause.sqlstate not in _BY_LIMITS:
            return ""
        return _LIMITS_HOLD.format(opener=self._opener)

    # --- from other threads

    @property
    def are_open(self) -> bool:
        """Whether any connection was opened; it may be closed by now."""
        with self._one_at_a_time:
            return bool(self._sessions)

    def cancel(self, asking: psycopg.Connection[Any]) -> None:
        """End what runs in the sessions, asked through a session of our own."""
        for each in self._known():
            with suppress(psycopg.errors.InsufficientPrivilege):
                asking.execute(_CANCEL.encode(), [each.pid, each.started])

    def terminate(self, asking: psycopg.Connection[Any]) -> list[int]:
        """End the sessions. Returns the processes of those that are still there."""
        left = []
        for each in self._known():
            try:
                given = [TERMINATE_MS, each.pid, each.started]
                found = asking.execute(_TERMINATE.encode(), given).fetchone()
            except psycopg.errors.InsufficientPrivilege:
                left.append(each.pid)
            else:
                left += [] if found is None or found[0] else [each.pid]
        return left

    def _known(self) -> list[_Session]:
        with self._one_at_a_time:
            return list(self._sessions)


def _ask(connection: Any, query: str) -> list[str]:
    """The row of a query on a connection of any driver, and no transaction that stays open."""
    cursor = connection.cursor()
    try:
        cursor.execute(query)
        found = cursor.fetchone()
    finally:
        cursor.close()
    connection.commit()  # a rollback would take settings back
    return [str(value) for value in found]


def _ask_ours(reader: psycopg.Connection[Any], query: str) -> list[str]:
    """The row of a query on a session of our own, which begins no transaction."""
    found = reader.execute(query.encode()).fetchone()
    return [str(value) for value in found or ()]


def identity_of(session: psycopg.Connection[Any]) -> Identity:
    """Which database a session of our own has reached."""
    found, _ = _identity(partial(_ask_ours, session))
    return found


def _identity(ask: _Ask) -> tuple[Identity, _Session]:
    """Which database a session has reached, and the session."""
    database, started, in_recovery, may_read_system, pid, session_started = ask(_IDENTITY)
    system = ask(_SYSTEM)[0] if may_read_system == "true" else None
    found = Identity(system, database, started, in_recovery == "true")
    return found, _Session(int(pid), session_started)


def _greeted_pid(connection: Any) -> int | None:
    """The process with which the server has greeted the driver. None for an unknown driver."""
    driver = getattr(connection, "driver_connection", connection)
    with suppress(Exception):
        return int(driver.info.backend_pid)  # psycopg, psycopg2
    with suppress(Exception):
        return int(driver.get_server_pid())  # asyncpg
    return None


def _is_lost(connection: Any, exc: Exception) -> bool:
    """Whether a question failed because the connection is lost, by what its driver knows."""
    causes: list[Any] = [exc, getattr(exc, "orig", None), exc.__cause__]
    states = [getattr(each, "sqlstate", None) or getattr(each, "pgcode", None) for each in causes]
    if any(state and state.startswith(UNAVAILABLE) for state in states):
        return True
    if any(isinstance(each, OSError) for each in causes):
        return True
    driver = getattr(connection, "driver_connection", connection)
    with suppress(Exception):
        return bool(driver.is_closed())  # asyncpg
    return bool(getattr(driver, "closed", False))  # psycopg, psycopg2

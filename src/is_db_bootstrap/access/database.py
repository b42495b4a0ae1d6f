"""One database and its pool."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import BootstrapError, ConfigurationError, StoreUnavailable
from is_db_bootstrap.settings import Settings, StoreUrl, echo, pool_profile
from is_db_bootstrap.settings.timing import DEFAULT
from is_db_bootstrap.stores.postgres.connection import (
    MAINTENANCE,
    client_arguments,
    pool_mode,
    refused,
    session_settings,
    settings_if_direct,
    settings_query,
    shared_sessions,
)
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing
from is_db_bootstrap.stores.postgres.pooler import Mode
from is_db_bootstrap.stores.postgres.revisions import TABLE, Chain
from is_db_bootstrap.stores.postgres.server_words import told

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult
    from sqlalchemy.pool import AsyncAdaptedQueuePool

    from is_db_bootstrap.blueprint import Blueprint, PoolProfile

#: A place of a statement that a positional value fills.
_POSITIONAL = re.compile(r"\$\d+")
_VERSION_AND_TABLE = "SELECT current_setting('server_version'), to_regclass(%s)::text"


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """How many connections a pool has: open, idle, in use, and beyond `min_size`.

    `max_size` is the most that the pool may have. All other numbers are 0 when the pool is closed.
    """

    size: int
    checked_in: int
    checked_out: int
    overflow: int
    max_size: int


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the server answered, and what the server said.

    `revision` is the database's migration revision, and `head` is the newest known revision.
    Pending migrations do not make `ok` false. `latency_ms` is milliseconds. `error` is text without
    secrets.
    """

    ok: bool
    latency_ms: float | None = None
    database: str = ""
    server_version: str | None = None
    revision: str | None = None
    head: str | None = None
    error: str | None = None


class Database:
    """A pool of connections to one database. Nothing is opened before `open`.

    Every connection has the time zone UTC, `search_path` on `schema` and the application name
    `is-db-bootstrap:<blueprint>`. jsonb arrives as Python objects, numeric as Decimal, uuid as
    UUID, and times are aware. A `dict` is sent as jsonb and a `list` as an array, so a JSON list
    has to be wrapped in psycopg's `Jsonb`. A connection is tested before it is used, so a restarted
    server costs no failed request.
    """

    def __init__(
        self,
        url: str | StoreUrl,
        *,
        profile: PoolProfile,
        echo: bool = False,
        blueprint: str = "",
        schema: str | None = "public",
    ) -> None:
        self._url = StoreUrl.parse("postgres", url) if isinstance(url, str) else url
        self._profile = profile
        self._echo = echo
        self._blueprint = blueprint
        self._schema = schema
        self._engine: AsyncEngine | None = None
        #: Whether a pooler gives each transaction another session of the server.
        self._is_shared = False
        self._opening = asyncio.Lock()
        #: The health checks that are under way.
        self._questions: set[asyncio.Task[Health]] = set()

    @classmethod
    def for_blueprint(cls, name: str | Blueprint, environ: Mapping[str, str] | None = None) -> Self:
        """The database of a blueprint, or of one of that name, at its configured address.

        `environ` replaces the environment of the process.
        """
        blueprint = load_blueprint(name) if isinstance(name, str) else name
        settings = Settings.load(blueprint, environ=environ)
        return cls(
            settings.need("postgres"),
            profile=pool_profile(blueprint.pool, environ),
            echo=echo(environ),
            blueprint=blueprint.name,
            schema=settings.named_schema,
        )

    def __repr__(self) -> str:
        return f"Database({self._url}, profile={self._profile})"

    @property
    def is_open(self) -> bool:
        """Whether `open` has made the pool, and `close` has not closed it."""
        return self._engine is not None

    # --- opening and closing

    async def open(self) -> None:
        """Open `min_size` connections. A second or concurrent call finds the pool.

        Raises `StoreUnavailable`, `AccessDenied` or `ConfigurationError` that names the address
        without its password, and leaves nothing open.
        """
        async with self._opening:
            if self._engine is None:
                self._engine = await self._filled_engine()

    async def _filled_engine(self) -> AsyncEngine:
        """An engine with `min_size` open connections."""
        engine = self._new_engine()
        try:
            async with AsyncExitStack() as stack:
                for _ in range(self._profile.min_size):
                    await stack.enter_async_context(engine.connect())
        except BaseException as exc:
            await engine.dispose()
            if isinstance(exc, DBAPIError) and isinstance(exc.orig, psycopg.Error):
                message = f"{self._url} does not answer: {exc.orig}."
                raise StoreUnavailable("postgres", message) from exc
            raise
        return engine

    def _new_engine(self) -> AsyncEngine:
        profile = self._profile
        kept = max(profile.min_size, 1)  # to SQLAlchemy, a pool of 0 is a pool without limit
        engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._open_connection,
            pool_size=kept,
            max_overflow=profile.max_size - kept,
            pool_timeout=profile.acquire_timeout,
            pool_recycle=profile.recycle,
            pool_pre_ping=True,
            use_native_hstore=False,
            echo=self._echo,
            hide_parameters=True,  # neither errors nor DB_ECHO show what a statement carries
        )
        event.listen(engine.sync_engine, "begin", self._set_transaction)
        return engine

    async def _open_connection(self) -> psycopg.AsyncConnection[Any]:
        """One connection with everything set. Its errors are those of the bootstrap."""
        timeout_s = DEFAULT.connect_timeout_s
        connection = await self._connect_plainly(timeout_s)
        try:
            await self._prepare_session(connection, timeout_s)
            await connection.set_autocommit(False)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect_plainly(self, timeout_s: float) -> psycopg.AsyncConnection[Any]:
        """One connection in autocommit, because PgBouncer in statement mode takes no other one."""
        role = f"is-db-bootstrap:{self._blueprint or 'access'}"
        arguments = client_arguments(self._url, role, connect_timeout_s=timeout_s)
        threshold = self._profile.prepare_threshold
        # psycopg counts the uses before the one that prepares.
        arguments["prepare_threshold"] = None if threshold is None else max(0, threshold - 1)
        try:
            return await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
        except psycopg.OperationalError as exc:
            refusal = await asyncio.to_thread(self._translate_refusal, exc, timeout_s)
            raise self._url.masking(refusal, exc) from exc
        except (psycopg.ProgrammingError, UnicodeError) as exc:
            message = f"postgres: the address {self._url} is not valid: {str(exc).strip()}."
            raise self._url.masking(ConfigurationError(message), exc) from exc

    async def _prepare_session(
        self, connection: psycopg.AsyncConnection[Any], timeout_s: float
    ) -> None:
        """Give the session its settings.

        Behind a pooler in transaction mode, each transaction gets the settings instead.
        """
        query, values = settings_if_direct(connection.info.backend_pid, self._session_settings)
        answer = await connection.execute(query, values, prepare=False)
        row = await answer.fetchone()
        is_direct = row is not None and row[0]
        if is_direct:
            self._is_shared = False
            return
        mode = await asyncio.to_thread(pool_mode, self._url, timeout_s)
        if mode is Mode.STATEMENT:
            raise shared_sessions(self._url, mode)
        self._is_shared = mode is Mode.TRANSACTION
        if self._is_shared:
            # A prepared statement stays on the session too, so nothing is prepared.
            connection.prepare_threshold = None
            return
        query, values = settings_query(self._session_settings)
        await connection.execute(query, values, prepare=False)

    @property
    def _session_settings(self) -> dict[str, str]:
        """What a session gets before its first statement."""
        settings = session_settings(self._schema)
        if self._profile.command_timeout is not None:
            settings["statement_timeout"] = f"{round(self._profile.command_timeout * 1000)}ms"
        return settings

    def _set_transaction(self, connection: Connection) -> None:
        """Give a transaction that has begun its settings, where its session is not ours."""
        if self._is_shared:
            query, values = settings_query(self._session_settings, in_transaction=True)
            connection.exec_driver_sql(query.decode(), tuple(values))

    def _translate_refusal(self, exc: psycopg.OperationalError, timeout_s: float) -> BootstrapError:
        """The bootstrap's error for a connection that the server refused."""
        database = self._url.database or self._url.username or MAINTENANCE  # as libpq does
        error = refused(self._url, exc, database, timeout_s)
        if not isinstance(error, DatabaseMissing):
            return cast("BootstrapError", error)
        hint = "Create it."
        if self._blueprint:
            hint = f"Run: is-db-bootstrap migrate init --blueprint {self._blueprint}"
        message = f"Database {database} of {self._url} does not exist."
        return StoreUnavailable("postgres", message, hint=hint)

    async def close(self) -> None:
        """Close every connection. A connection in use is closed when its block ends.

        A second call does nothing. `open` works afterwards.
        """
        async with self._opening:
            engine, self._engine = self._engine, None
            if engine is not None:
                # A disposed pool would keep a connection that is given back.
                pool = engine.sync_engine.pool
                event.listen(pool, "checkin", lambda _, record: record.invalidate())
                await engine.dispose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- sessions and connections

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One session, which never commits by itself. An exception rolls the session back.

        Objects stay readable after a commit.
        """
        async with AsyncSession(self._open_engine(), expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Like `session`, but commits when the block ends normally."""
        async with self.session() as session, session.begin():
            yield session

    async def sessions(self) -> AsyncIterator[AsyncSession]:
        """Yield one session, for frameworks that inject dependencies."""
        async with self.session() as session:
            yield session

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[AsyncConnection]:
        """One connection.

        Raises `sqlalchemy.exc.TimeoutError` when no connection is free within `acquire_timeout`.
        """
        async with self._open_engine().connect() as connection:
            yield connection

    def _open_engine(self) -> AsyncEngine:
        """The engine that has the pool. Raises `RuntimeError` before `open`."""
        if self._engine is None:
            raise RuntimeError("The database is not open: await open() first.")
        return self._engine

    # --- single statements

    async def execute(self, sql: str, /, *positional: Any, **values: Any) -> int:
        r"""Run one statement and commit. Returns the number of affected rows.

        `values` fill `:name`. A colon of the SQL itself is written `\:`. Positional values fill
        `$1 … $n`, through psycopg's raw cursor. Raises `ValueError` for both in one call.
        """
        count, _ = await self._run_statement(sql, positional, values)
        return count

    async def fetch(self, sql: str, /, *positional: Any, **values: Any) -> list[Mapping[str, Any]]:
        """Run one statement and commit. Returns its rows as mappings."""
        _, rows = await self._run_statement(sql, positional, values)
        return rows

    async def fetchrow(
        self, sql: str, /, *positional: Any, **values: Any
    ) -> Mapping[str, Any] | None:
        """The first row, or None."""
        rows = await self.fetch(sql, *positional, **values)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, /, *positional: Any, **values: Any) -> Any:
        """The first value of the first row, or None."""
        row = await self.fetchrow(sql, *positional, **values)
        return next(iter(row.values()), None) if row else None

    async def _run_statement(
        self, sql: str, positional: Sequence[Any], values: Mapping[str, Any]
    ) -> tuple[int, list[Mapping[str, Any]]]:
        """Run one statement and commit: the number of affected rows, and the rows."""
        if positional and values:
            raise ValueError("Give named values or positional ones, not both.")
        is_positional = bool(positional) or (not values and _POSITIONAL.search(sql) is not None)
        async with self.acquire() as connection:
            if is_positional:
                if self._is_shared:
                    await connection.begin()  # which gives the transaction its settings
                return await _run_positional(connection, sql, positional)
            sent = {name: _sent_value(value) for name, value in values.items()}
            result = await connection.execute(text(sql), sent)
            rows: list[Mapping[str, Any]] = []
            if result.returns_rows:
                rows = [dict(row) for row in result.mappings()]
            count = cast("CursorResult[Any]", result).rowcount
            await connection.commit()
            return count, rows

    # --- looking at the database

    def pool_status(self) -> PoolStatus:
        """What the pool holds at this moment."""
        if self._engine is None:
            return PoolStatus(0, 0, 0, 0, self._profile.max_size)
        pool = cast("AsyncAdaptedQueuePool", self._engine.pool)
        idle = pool.checkedin()
        used = pool.checkedout()
        size = idle + used
        return PoolStatus(
            size=size,
            checked_in=idle,
            checked_out=used,
            overflow=max(0, size - self._profile.min_size),
            max_size=self._profile.max_size,
        )

    async def check(self, timeout: float = 5) -> Health:  # noqa: ASYNC109 - the contract's name
        """Ask the database how it is, on a connection of its own, within `timeout` seconds.

        This works before `open` too. A database that is down raises nothing. Then `error` says so.
        """
        question = asyncio.create_task(self._ask_health())
        self._questions.add(question)
        question.add_done_callback(self._forget_question)
        try:
            # psycopg takes up to ten seconds to give up a query on a dead path. So the question is
            # cancelled, and not waited for.
            done, _ = await asyncio.wait({question}, timeout=timeout)
            if done:
                return question.result()
            return self._bad_health(f"{self._url} did not answer within {timeout:g} s.")
        except BootstrapError as exc:
            return self._bad_health(str(exc))
        except psycopg.Error as exc:
            return self._bad_health(f"{self._url}: {str(exc).strip()}")
        finally:
            question.cancel()

    def _forget_question(self, question: asyncio.Task[Health]) -> None:
        """Drop a question that has ended, and read its error, which asyncio would log otherwise."""
        self._questions.discard(question)
        if not question.cancelled():
            question.exception()

    async def _ask_health(self) -> Health:
        began = time.perf_counter()
        revision: str | None = None
        error: str | None = None
        connection = await self._open_connection()
        try:
            if self._is_shared:
                query, values = settings_query(self._session_settings, in_transaction=True)
                await connection.execute(query, values)
            cursor = await connection.execute(_VERSION_AND_TABLE, [TABLE])
            row = await cursor.fetchone()
            latency_ms = (time.perf_counter() - began) * 1000
            version, table = row or ("", None)
            if table:
                revision, error = await self._recorded_revision(connection)
        finally:
            await connection.close()
        return replace(
            self._bad_health(error),
            ok=True,
            latency_ms=latency_ms,
            server_version=str(version).split()[0],
            revision=revision,
        )

    async def _recorded_revision(
        self, connection: psycopg.AsyncConnection[Any]
    ) -> tuple[str | None, str | None]:
        """The recorded revision, and why the revision cannot be read.

        A server that refuses us has answered all the same.
        """
        try:
            query = f"SELECT version_num FROM {TABLE}"  # noqa: S608 - a name of ours
            cursor = await connection.execute(query.encode())
            rows = await cursor.fetchall()
        except psycopg.errors.InsufficientPrivilege as exc:
            return None, f"{self._url}: {told(exc, query)[0]}"
        revisions = sorted(row[0] for row in rows)
        return ", ".join(revisions) or None, None

    def _bad_health(self, error: str | None) -> Health:
        """What is known of the database without an answer of the server."""
        chain = chain_of(load_blueprint(self._blueprint)) if self._blueprint else Chain()
        return Health(
            ok=False,
            database=self._url.database,
            head=chain.head or None,
            error=error,
        )


async def _run_positional(
    connection: AsyncConnection, sql: str, values: Sequence[Any]
) -> tuple[int, list[Mapping[str, Any]]]:
    """Run one statement with `$n` on the driver's own connection, and commit.

    The errors of this statement come as SQLAlchemy's, as those of all other statements do.
    """
    raw = await connection.get_raw_connection()
    driver = cast("psycopg.AsyncConnection[Any]", raw.driver_connection)
    rows: list[Mapping[str, Any]] = []
    try:
        async with psycopg.AsyncRawCursor(driver, row_factory=dict_row) as cursor:
            await cursor.execute(sql.encode(), [_sent_value(value) for value in values])
            if cursor.description:
                rows = list(await cursor.fetchall())
            count = cursor.rowcount
        await driver.commit()
    except psycopg.Error as exc:
        wrapped = DBAPIError.instance(sql, tuple(values), exc, psycopg.Error, hide_parameters=True)
        raise wrapped from exc
    return count, rows


def _sent_value(value: Any) -> Any:
    """A value as the driver takes it: a `dict` becomes jsonb."""
    return Jsonb(value) if isinstance(value, dict) else value

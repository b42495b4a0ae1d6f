"""The database of the desk: one connection pool per process, its sessions and its status.

Everything is synchronous.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from is_db_bootstrap.blueprints.helpdesk import BLUEPRINT
from is_db_bootstrap.settings import Settings, StoreUrl, echo, number
from is_db_bootstrap.stores.postgres.connection import (
    client_arguments,
    prepare,
    session_settings,
)

#: Seconds that an attempt to connect may take.
CONNECT_TIMEOUT_S = 10

#: Each number of `DatabaseConfig`: its variable, its type and its least value.
_NUMBERS = {
    "pool_size": ("DB_POOL_SIZE", int, 1),
    "max_overflow": ("DB_MAX_OVERFLOW", int, -1),
    "pool_timeout": ("DB_POOL_TIMEOUT", float, 0),
    "pool_recycle": ("DB_POOL_RECYCLE", float, -1),
}


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """The address of the database, and the limits of the connection pool.

    `pool_timeout` and `pool_recycle` are seconds.
    """

    url: str | StoreUrl
    pool_size: int = 10
    max_overflow: int = 20
    pool_timeout: float = 30
    pool_recycle: float = 1800
    echo: bool = False
    schema: str = "public"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> DatabaseConfig:
        """The configuration of the environment.

        The address comes from POSTGRES_URL, DATABASE_URL or DB_*. The rest comes from DB_POOL_SIZE,
        DB_MAX_OVERFLOW, DB_POOL_TIMEOUT, DB_POOL_RECYCLE, DB_ECHO and DB_SCHEMA. `environ` replaces
        the environment of the process. Raises `ConfigurationError`, which names the variable.
        """
        settings = Settings.load(BLUEPRINT, environ=environ)
        numbers: dict[str, Any] = {}
        for name, (variable, kind, least) in _NUMBERS.items():
            value = number(variable, kind, least, environ)
            if value is not None:
                numbers[name] = value
        return cls(
            settings.need("postgres"),
            echo=echo(environ),
            schema=settings.schema,
            **numbers,
        )

    @property
    def address(self) -> StoreUrl:
        """The parsed address, which masks its password as text."""
        if isinstance(self.url, str):
            return StoreUrl.parse("postgres", self.url)
        return self.url

    def __repr__(self) -> str:
        names = (*_NUMBERS, "echo", "schema")
        rest = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"DatabaseConfig(url={str(self.address)!r}, {rest})"


@dataclass(slots=True)
class _State:
    """What the process has."""

    engine: Engine | None = None
    #: How many connections the pool has invalidated since the engine was built.
    invalidated: int = 0


_state = _State()
_lock = threading.RLock()


def init_database(config: DatabaseConfig | None = None) -> Engine:
    """The engine of the process, which the first call builds.

    Without `config` the environment configures the engine. Later calls, from any thread, return the
    first engine and ignore `config`. The function opens no connection and runs no migration.
    """
    with _lock:
        if _state.engine is None:
            _state.invalidated = 0
            _state.engine = _build_engine(config or DatabaseConfig.from_env())
        return _state.engine


def _build_engine(config: DatabaseConfig) -> Engine:
    arguments = client_arguments(config.address, connect_timeout_s=CONNECT_TIMEOUT_S)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=partial(_open_connection, config.address, arguments, config.schema),
        poolclass=QueuePool,
        pool_pre_ping=True,
        pool_size=config.pool_size,
        max_overflow=config.max_overflow,
        pool_timeout=config.pool_timeout,
        pool_recycle=round(config.pool_recycle),
        echo=config.echo,
        use_native_hstore=False,
        # Otherwise the text of an error would hold a password hash.
        hide_parameters=True,
    )
    event.listen(engine, "invalidate", _count_invalidated)
    event.listen(engine, "soft_invalidate", _count_invalidated)
    return engine


def _open_connection(
    address: StoreUrl, arguments: dict[str, Any], schema: str
) -> psycopg.Connection[Any]:
    """A connection with the settings of the session, such as the schema and the time zone."""
    connection = psycopg.connect(**arguments, autocommit=True)
    try:
        prepare(address, connection, arguments, session_settings(schema))
    except BaseException:
        connection.close()
        raise
    connection.autocommit = False
    return connection


def _count_invalidated(*_: Any) -> None:
    _state.invalidated += 1


@contextmanager
def get_db_session() -> Iterator[Session]:
    """A session, which is always closed at the end of the block.

    The session commits at the end of the block. After an exception the session rolls back, and the
    exception is raised again. The session does not autoflush and does not expire on commit.
    """
    with Session(init_database(), autoflush=False, expire_on_commit=False) as session:
        try:
            yield session
        except BaseException:
            session.rollback()
            raise
        session.commit()


def is_database_initialized() -> bool:
    """Whether the process has an engine. The function does not connect."""
    return _state.engine is not None


def get_database_status() -> dict[str, Any]:
    """The status of the database as data. The function never raises an error of the database.

    Before `init_database` the status is `not_initialized`. Afterwards the status is `ok` or `error`
    by the outcome of `SELECT 1`, and `pool` counts the connections.
    """
    engine = _state.engine
    if engine is None:
        return {"status": "not_initialized"}
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except (SQLAlchemyError, psycopg.Error, OSError):
        outcome = {"status": "error", "connection": "failed"}
    else:
        outcome = {"status": "ok", "connection": "ok"}
    return {**outcome, "pool": _pool_status(engine)}


def _pool_status(engine: Engine) -> dict[str, Any]:
    pool: Any = engine.pool
    return {
        "status": "ok",
        "pool_size": pool.size(),
        "checked_in": pool.checkedin(),
        "checked_out": pool.checkedout(),
        "overflow": max(0, pool.overflow()),
        "invalid": _state.invalidated,
    }


def reset_database() -> None:
    """Dispose of the engine, so that `init_database` builds a new engine."""
    with _lock:
        engine = _state.engine
        _state.engine = None
        if engine is not None:
            engine.dispose()

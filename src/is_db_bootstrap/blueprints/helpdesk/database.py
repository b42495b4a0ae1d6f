"""The database of the desk, one for the process: a pool, sessions, and what can be said of them. Everything is synchronous."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from is_db_bootstrap.blueprints.helpdesk import BLUEPRINT
from is_db_bootstrap.settings import Settings, StoreUrl, echo, number
from is_db_bootstrap.stores.postgres.connection import parameters, prepare, session_settings

#: Seconds that an attempt to connect may take.
CONNECT_TIMEOUT_S = 10

_VARIABLES = {
    "pool_size": ("DB_POOL_SIZE", int, 1),
    "max_overflow": ("DB_MAX_OVERFLOW", int, -1),
    "pool_timeout": ("DB_POOL_TIMEOUT", float, 0),
    "pool_recycle": ("DB_POOL_RECYCLE", float, -1),
}


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """Where the database is and how many connections there may be; `pool_timeout` and `pool_recycle` are seconds."""

    url: str | StoreUrl
    pool_size: int = 10
    max_overflow: int = 20
    pool_timeout: float = 30
    pool_recycle: float = 1800
    echo: bool = False
    schema: str = "public"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> DatabaseConfig:
        """From POSTGRES_URL, DATABASE_URL or DB_*, and DB_POOL_SIZE, DB_MAX_OVERFLOW, DB_POOL_TIMEOUT, DB_POOL_RECYCLE, DB_ECHO.

        `environ` replaces the process's environment. Raises `ConfigurationError` that names the variable.
        """
        settings = Settings.load(BLUEPRINT, environ=environ)
        given = {
            name: value
            for name, (variable, kind, least) in _VARIABLES.items()
            if (value := number(variable, kind, least, environ)) is not None
        }
        return cls(settings.need("postgres"), echo=echo(environ), schema=settings.schema, **given)  # type: ignore[arg-type]  # each has its own type

    @property
    def address(self) -> StoreUrl:
        """The parsed address."""
        return StoreUrl.parse("postgres", self.url) if isinstance(self.url, str) else self.url

    def __repr__(self) -> str:
        rest = ", ".join(f"{name}={getattr(self, name)!r}" for name in (*_VARIABLES, "echo", "schema"))
        return f"DatabaseConfig(url={str(self.address)!r}, {rest})"


@dataclass(slots=True)
class _State:
    engine: Engine | None = None
    invalid: int = 0


_state = _State()
_lock = threading.RLock()


def init_database(config: DatabaseConfig | None = None) -> Engine:
    """The engine of the process; opens no connection and runs no migration.

    Without `config` it is configured by the environment. A second call, from any thread, returns the first engine.
    """
    with _lock:
        if _state.engine is None:
            _state.invalid = 0
            _state.engine = _new_engine(config or DatabaseConfig.from_env())
        return _state.engine


def _new_engine(config: DatabaseConfig) -> Engine:
    known = parameters(config.address, CONNECT_TIMEOUT_S)

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(**known, autocommit=True)
        try:
            prepare(config.address, connection, known, session_settings(config.schema))
        except BaseException:
            connection.close()
            raise
        connection.autocommit = False
        return connection

    engine = create_engine(
        "postgresql+psycopg://", creator=connect, poolclass=QueuePool, pool_pre_ping=True, pool_size=config.pool_size,
        max_overflow=config.max_overflow, pool_timeout=config.pool_timeout, pool_recycle=round(config.pool_recycle), echo=config.echo,
        use_native_hstore=False, hide_parameters=True,  # an error would print a password hash otherwise
    )  # fmt: skip

    @event.listens_for(engine, "invalidate")
    @event.listens_for(engine, "soft_invalidate")
    def count(*_: Any) -> None:
        _state.invalid += 1

    return engine


@contextmanager
def get_db_session() -> Iterator[Session]:
    """A session that commits on normal exit, rolls back and raises again on an exception, and is always closed."""
    with Session(init_database(), autoflush=False, expire_on_commit=False) as session:
        try:
            yield session
        except BaseException:
            session.rollback()
            raise
        session.commit()


def is_database_initialized() -> bool:
    """Whether there is an engine; does not connect."""
    return _state.engine is not None


def get_database_status() -> dict[str, Any]:
    """How the database is, as data; never raises."""
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
    return {**outcome, "pool": _pool(engine)}


def _pool(engine: Engine) -> dict[str, Any]:
    pool: Any = engine.pool
    return {
        "status": "ok",
        "pool_size": pool.size(),
        "checked_in": pool.checkedin(),
        "checked_out": pool.checkedout(),
        "overflow": max(0, pool.overflow()),
        "invalid": _state.invalid,
    }


def reset_database() -> None:
    """Dispose of the engine, so that `init_database` starts afresh."""
    with _lock:
        engine, _state.engine = _state.engine, None
        if engine is not None:
            engine.dispose()

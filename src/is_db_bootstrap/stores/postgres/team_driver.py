"""The driver of a team, with which trials run the team's revisions in a scratch database.

A revision may hold with one driver only: psycopg2 sends values as literals, asyncpg takes a single
`%`. So a trial sends what the team's `env.py` would send, by the same driver, but to a scratch
database and without that `env.py`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import NullPool

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres.connection import client_arguments
from is_db_bootstrap.stores.postgres.hosts import hosts_of
from is_db_bootstrap.stores.postgres.team_environment import read_environment

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import AlembicEnvironment
    from is_db_bootstrap.settings import StoreUrl

Found = TypeVar("Found")

#: The driver where nothing says which one it is.
USUAL = "psycopg"
#: Drivers that take the words of libpq. The second name of psycopg is the asynchronous one.
_OF_LIBPQ = {"psycopg": "psycopg", "psycopg_async": "psycopg", "psycopg2": "psycopg2"}
#: What asyncpg understands in an address, of the words of libpq.
_ASYNCPG_WORDS = (
    "application_name",
    "options",
    "passfile",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
)
#: What an address asks for when it wants TLS.
_TLS_MODES = {"require", "verify-ca", "verify-full"}


@dataclass(frozen=True, slots=True)
class TeamDriver:
    """A driver by SQLAlchemy's `name`. `is_known` says whether the team has told it."""

    name: str
    is_known: bool

    @classmethod
    def of(cls, declared: AlembicEnvironment) -> TeamDriver:
        """The driver of an environment, or psycopg where it does not say one."""
        name = read_environment(declared).driver
        return cls(name or USUAL, bool(name))

    def run(
        self, url: StoreUrl, connect_timeout_s: float, act: Callable[[Connection], Found]
    ) -> Found:
        """What `act` returns, which gets a connection to `url` by this driver.

        `connect_timeout_s` bounds each attempt to connect, in seconds, where the driver knows how.
        Raises what `act` raises, and `ConfigurationError` when the driver is not installed.
        """
        try:
            if self.name == "asyncpg":
                return asyncio.run(_run_on_asyncpg(url, connect_timeout_s, act))
            engine = self._engine(url, connect_timeout_s)
        except ImportError as exc:
            raise ConfigurationError(
                f"The driver {self.name} is not installed here: {exc}.",
                hint="Install it, or name another one: driver, beside alembic in [postgres].",
            ) from exc
        try:
            with engine.connect() as connection:
                return act(connection)
        finally:
            engine.dispose()

    def _engine(self, url: StoreUrl, connect_timeout_s: float) -> Engine:
        known = client_arguments(url, connect_timeout_s=connect_timeout_s)
        name = _OF_LIBPQ.get(self.name)
        if name is not None:
            if name == "psycopg":
                known["prepare_threshold"] = None
            address, arguments = URL.create(f"postgresql+{name}"), known
        else:
            address, arguments = _plain_address(self.name, url, known)
        return create_engine(
            address, connect_args=arguments, poolclass=NullPool, hide_parameters=True
        )


async def _run_on_asyncpg(
    url: StoreUrl, connect_timeout_s: float, act: Callable[[Connection], Found]
) -> Found:
    from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet, which may be missing

    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args={
            "dsn": _asyncpg_address(url),
            "timeout": connect_timeout_s,
            "statement_cache_size": 0,  # a name of a statement means nothing behind a pooler
            "prepared_statement_cache_size": 0,
        },
        poolclass=NullPool,
        hide_parameters=True,
    )
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(act)
    finally:
        await engine.dispose()


def _asyncpg_address(url: StoreUrl) -> str:
    """An address as asyncpg reads it, with the TLS files of libpq."""
    known = client_arguments(url)
    user = quote(known.get("user", ""), safe="")
    password = quote(known.get("password", ""), safe="")
    login = f"{user}{f':{password}' if password else ''}@" if user else ""
    hosts = str(known.get("host", "")).split(",")
    ports = str(known.get("port", "")).split(",")
    places = ",".join(
        f"{quote(host, safe=':[]')}:{port}" for host, port in zip(hosts, ports, strict=True) if host
    )
    options = {name: known[name] for name in _ASYNCPG_WORDS if name in known}
    database = quote(str(known.get("dbname", "")), safe="")
    return f"postgresql://{login}{places}/{database}?{urlencode(options, quote_via=quote)}"


def _plain_address(driver: str, url: StoreUrl, known: dict[str, Any]) -> tuple[URL, dict[str, Any]]:
    """The address and the arguments of a driver of which only SQLAlchemy knows how it is called."""
    if len(hosts_of(url)) > 1:
        raise ConfigurationError(
            f"A trial with the driver {driver} needs an address with one host.",
            hint="Give one, or name another driver: driver, beside alembic in [postgres].",
        )
    address = URL.create(
        f"postgresql+{driver}",
        username=known.get("user"),
        password=known.get("password"),
        host=known.get("host"),
        port=int(known["port"]) if known.get("port") else None,
        database=known.get("dbname"),
    )
    arguments: dict[str, Any] = {}
    if driver == "pg8000" and known.get("sslmode") in _TLS_MODES:
        authorities = known.get("sslrootcert")
        context = ssl.create_default_context(
            cafile=None if authorities == "system" else authorities
        )
        context.check_hostname = known["sslmode"] == "verify-full"
        if known["sslmode"] == "require" and "sslrootcert" not in known:
            context.verify_mode = ssl.CERT_NONE
        if "sslcert" in known:
            context.load_cert_chain(
                known["sslcert"], known.get("sslkey"), password=known.get("sslpassword")
            )
        arguments["ssl_context"] = context
    return address, arguments

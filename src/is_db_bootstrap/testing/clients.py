"""The clients that a test gets, opened as an application would open them.

Each is given what the engine gives its own client. PostgreSQL is told no application name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.connection import client_arguments, search_path
from is_db_bootstrap.stores.postgres.kind import KIND

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncEngine


def open_client(store: StoreName, url: StoreUrl, schema: str) -> tuple[Any, Callable[[], None]]:
    """The client of `store`, and the function that closes it.

    Only the client of Milvus connects at once. `schema` is where tables of PostgreSQL are.
    """
    if store == "postgres":
        engine = _open_engine(url, schema)
        return engine, engine.dispose
    if store == "neo4j":
        from is_db_bootstrap.testing import neo4j

        driver = neo4j.driver(url)
        return driver, driver.close
    if store == "milvus":
        from is_db_bootstrap.testing import milvus

        client = milvus.client(url)
        return client, client.close
    import redis

    from is_db_bootstrap.stores.redis.connection import open_client as open_redis

    connection = open_redis(url, redis)
    return connection, connection.close


def open_async_client(
    store: StoreName, url: StoreUrl, schema: str
) -> tuple[Any, Callable[[], Any]]:
    """The client of `store` for asyncio, and the coroutine function that closes it.

    The client must be closed in the event loop in which it was used. `schema` is where tables of
    PostgreSQL are.
    """
    if store == "postgres":
        engine = _open_async_engine(url, schema)
        return engine, engine.dispose
    if store == "neo4j":
        from is_db_bootstrap.testing import neo4j

        driver = neo4j.async_driver(url)
        return driver, driver.close
    if store == "milvus":
        from is_db_bootstrap.testing import milvus

        client = milvus.async_client(url)
        return client, client.close
    import redis.asyncio.sentinel

    from is_db_bootstrap.stores.redis.connection import open_client as open_redis

    connection = open_redis(url, redis.asyncio)
    return connection, connection.aclose


def _open_engine(url: StoreUrl, schema: str) -> sa.Engine:
    from sqlalchemy import create_engine

    return create_engine(_engine_url(url), connect_args=_psycopg_arguments(url, schema))


def _open_async_engine(url: StoreUrl, schema: str) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(_engine_url(url), connect_args=_psycopg_arguments(url, schema))


def _engine_url(url: StoreUrl) -> sa.URL:
    """The address that an engine shows as `engine.url`, for a test that reads host or database.

    psycopg takes the arguments of `_psycopg_arguments` instead, where both say something.
    """
    from sqlalchemy import URL

    return URL.create(
        "postgresql+psycopg",
        username=url.username or None,
        password=url.password or None,
        host=url.host or None,
        port=url.port(KIND.default_port),
        database=url.database or None,
    )


def _psycopg_arguments(url: StoreUrl, schema: str) -> dict[str, Any]:
    """The engine's client arguments, and the blueprint's schema as the search path."""
    arguments = client_arguments(url, role="")
    if schema == "public":
        return arguments
    # libpq reads a backslash in `options` as the escape of the next character.
    path = search_path(schema).replace("\\", "\\\\").replace(" ", "\\ ")
    own_options = arguments.get("options", "")
    return arguments | {"options": f"{own_options} -c search_path={path}".strip()}

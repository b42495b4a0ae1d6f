"""The clients that a test gets: as an application would open them, each with its store's address only."""

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
    """The client of `store`, and what closes it. Nothing is connected yet, but for Milvus."""
    if store == "postgres":
        engine = _engine(url, schema)
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

    from is_db_bootstrap.stores.redis.connection import client_arguments as redis_arguments

    connection = redis.Redis.from_url(**redis_arguments(url))
    return connection, connection.close


def open_async_client(
    store: StoreName, url: StoreUrl, schema: str
) -> tuple[Any, Callable[[], Any]]:
    """The client of `store` for asyncio, and the coroutine function that closes it, to be called in the same loop."""
    if store == "postgres":
        engine = _async_engine(url, schema)
        return engine, engine.dispose
    if store == "neo4j":
        from is_db_bootstrap.testing import neo4j

        driver = neo4j.async_driver(url)
        return driver, driver.close
    if store == "milvus":
        from is_db_bootstrap.testing import milvus

        client = milvus.async_client(url)
        return client, client.close
    import redis.asyncio

    from is_db_bootstrap.stores.redis.connection import client_arguments as redis_arguments

    connection = redis.asyncio.Redis.from_url(**redis_arguments(url))
    return connection, connection.aclose


def _engine(url: StoreUrl, schema: str) -> sa.Engine:
    from sqlalchemy import create_engine

    return create_engine(_shown_url(url), connect_args=_connect_args(url, schema))


def _async_engine(url: StoreUrl, schema: str) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(_shown_url(url), connect_args=_connect_args(url, schema))


def _shown_url(url: StoreUrl) -> sa.URL:
    """The engine's own address. What psycopg is given stands in the arguments, which win."""
    from sqlalchemy import URL

    return URL.create(
        "postgresql+psycopg",
        username=url.username or None,
        password=url.password or None,
        host=url.host or None,
        port=url.port(KIND.default_port),
        database=url.database or None,
    )


def _connect_args(url: StoreUrl, schema: str) -> dict[str, Any]:
    """What psycopg is given: as the engine gives it, with the blueprint's schema to look in."""
    given = client_arguments(url, role="")
    if schema == "public":
        return given
    path = search_path(schema).replace("\\", "\\\\").replace(" ", "\\ ")
    options = f"{given.get('options', '')} -c search_path={path}".strip()
    return given | {"options": options}

"""The clients that a test gets: as an application would open them, each with its store's address only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.results import StoreName
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.connection import checked_tls, search_path

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

    connection = redis.Redis.from_url(url.reveal(), **_ca(url))
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

    connection = redis.asyncio.Redis.from_url(url.reveal(), **_ca(url))
    return connection, connection.aclose


def _engine(url: StoreUrl, schema: str) -> sa.Engine:
    from sqlalchemy import create_engine

    return create_engine(
        url.reveal(scheme="postgresql+psycopg"), connect_args=_connect_args(url, schema)
    )


def _async_engine(url: StoreUrl, schema: str) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(
        url.reveal(scheme="postgresql+psycopg"), connect_args=_connect_args(url, schema)
    )


def _connect_args(url: StoreUrl, schema: str) -> dict[str, str]:
    given = checked_tls(url)
    path = search_path(schema).replace("\\", "\\\\").replace(" ", "\\ ")
    return given if schema == "public" else given | {"options": f"-c search_path={path}"}


def _ca(url: StoreUrl) -> dict[str, Any]:
    return {"ssl_ca_certs": url.ca_file} if url.ca_file else {}

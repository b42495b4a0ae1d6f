"""Fixtures for asyncio, beside those of the plugin.

They are loaded when pytest-asyncio is there. Its event loop opens and closes their clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.testing.session import Stores


async def _open_client(stores: Stores, store: StoreName) -> AsyncIterator[Any]:
    """The test's client of a store, closed after the test. The test fails without a clean store."""
    from is_db_bootstrap.errors import BootstrapError

    try:
        client, close = stores.open_async(store)
    except BootstrapError as exc:
        line = " ".join(str(exc).split())
        pytest.fail(f"no clean store: {line}", pytrace=False)
    yield client
    await close()


@pytest_asyncio.fixture
async def async_postgres(_is_db_stores: Stores) -> AsyncIterator[Any]:
    """A SQLAlchemy `AsyncEngine` on the same database as `postgres`."""
    async for client in _open_client(_is_db_stores, "postgres"):
        yield client


@pytest_asyncio.fixture
async def async_neo4j(_is_db_stores: Stores) -> AsyncIterator[Any]:
    """A `neo4j.AsyncDriver` on the same database as `neo4j`."""
    async for client in _open_client(_is_db_stores, "neo4j"):
        yield client


@pytest_asyncio.fixture
async def async_milvus(_is_db_stores: Stores) -> AsyncIterator[Any]:
    """A `pymilvus.AsyncMilvusClient` on the same database as `milvus`."""
    async for client in _open_client(_is_db_stores, "milvus"):
        yield client


@pytest_asyncio.fixture
async def async_redis(_is_db_stores: Stores) -> AsyncIterator[Any]:
    """A `redis.asyncio.Redis` on the same logical database as `redis`."""
    async for client in _open_client(_is_db_stores, "redis"):
        yield client

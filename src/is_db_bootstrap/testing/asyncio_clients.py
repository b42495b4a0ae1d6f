"""The clients for tests that pytest-asyncio runs, opened and closed in its event loop.

`async_plugin.py` asks for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from is_db_bootstrap.testing.async_plugin import open_async_client

if TYPE_CHECKING:
    from is_db_bootstrap.testing.session import Stores


@pytest_asyncio.fixture
async def _is_db_asyncio_postgres(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "postgres"):
        yield client


@pytest_asyncio.fixture
async def _is_db_asyncio_neo4j(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "neo4j"):
        yield client


@pytest_asyncio.fixture
async def _is_db_asyncio_milvus(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "milvus"):
        yield client


@pytest_asyncio.fixture
async def _is_db_asyncio_redis(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "redis"):
        yield client

"""Fixtures for asyncio, beside those of the plugin.

They are loaded when pytest-asyncio or anyio is there. The event loop of the plugin that runs the
test opens and closes their clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.testing.session import Stores


@pytest.fixture
def async_postgres(request: pytest.FixtureRequest) -> Any:
    """A SQLAlchemy `AsyncEngine` on the same database as `postgres`."""
    return _client_of_loop(request, "postgres")


@pytest.fixture
def async_neo4j(request: pytest.FixtureRequest) -> Any:
    """A `neo4j.AsyncDriver` on the same database as `neo4j`."""
    return _client_of_loop(request, "neo4j")


@pytest.fixture
def async_milvus(request: pytest.FixtureRequest) -> Any:
    """A `pymilvus.AsyncMilvusClient` on the same database as `milvus`."""
    return _client_of_loop(request, "milvus")


@pytest.fixture
def async_redis(request: pytest.FixtureRequest) -> Any:
    """A `redis.asyncio.Redis` on the same logical database as `redis`."""
    return _client_of_loop(request, "redis")


def _client_of_loop(request: pytest.FixtureRequest, store: StoreName) -> Any:
    """The client of a store, from the fixture of the plugin that runs the test.

    pytest-asyncio marks the tests that it runs, also those without a marker in its mode "auto".
    anyio gives its tests the fixture `anyio_backend`.
    """
    is_of_asyncio = request.node.get_closest_marker("asyncio") is not None
    is_of_anyio = "anyio_backend" in request.fixturenames
    if is_of_anyio and not is_of_asyncio:
        _refuse_trio(request, store)
        return request.getfixturevalue(f"_is_db_anyio_{store}")
    if request.config.pluginmanager.hasplugin("is_db_bootstrap_asyncio"):
        return request.getfixturevalue(f"_is_db_asyncio_{store}")
    pytest.fail(
        f"async_{store} needs a test that anyio runs: mark it with pytest.mark.anyio.",
        pytrace=False,
    )


def _refuse_trio(request: pytest.FixtureRequest, store: StoreName) -> None:
    backend = request.getfixturevalue("anyio_backend")
    name = backend if isinstance(backend, str) else backend[0]
    if name != "asyncio":
        pytest.fail(
            f"async_{store}: the client of {store} runs on asyncio, and not on {name}. "
            'Let the fixture anyio_backend return "asyncio".',
            pytrace=False,
        )


async def open_async_client(stores: Stores, store: StoreName) -> AsyncIterator[Any]:
    """The test's client of a store, closed after the test. The test fails without a clean store."""
    from is_db_bootstrap.errors import BootstrapError
    from is_db_bootstrap.testing.fixture_stores import fail_test

    try:
        client, close = stores.open_async(store)
    except BootstrapError as exc:
        fail_test(exc)
    yield client
    await close()


# anyio runs an async fixture of pytest's own for a test that it runs.


@pytest.fixture
async def _is_db_anyio_postgres(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "postgres"):
        yield client


@pytest.fixture
async def _is_db_anyio_neo4j(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "neo4j"):
        yield client


@pytest.fixture
async def _is_db_anyio_milvus(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "milvus"):
        yield client


@pytest.fixture
async def _is_db_anyio_redis(_is_db_stores: Stores) -> AsyncIterator[Any]:
    async for client in open_async_client(_is_db_stores, "redis"):
        yield client

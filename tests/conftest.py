"""Servers as fixtures. Each `…_url` is a plain address; `parametrize(..., indirect=True)` chooses the version."""

from __future__ import annotations

import atexit
import signal
import uuid

import pytest

from servers import Farm, drop_database, empty_milvus, empty_neo4j, empty_redis


def pytest_configure():
    """A terminated session ends as an interrupted one: fixtures are torn down, servers with them."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@pytest.fixture(scope="session")
def farm():
    farm = Farm()
    atexit.register(farm.close)
    yield farm
    farm.close()
    atexit.unregister(farm.close)


@pytest.fixture
def make_server(farm):
    """`make_server("redis", version="6", **options)`: a server of one's own with `.url .pid .stop() .kill() .start()`."""
    made = []

    def make(store, version=None, **options):
        server = farm.make(store, version, **options)
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def postgres_url(request, farm):
    """With the name of a database that does not exist yet."""
    server = farm.shared("postgres", getattr(request, "param", None))
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield f"{server.url}/{name}"
    if server.alive():
        drop_database(server, name)


@pytest.fixture
def neo4j_url(request, farm):
    """Without nodes, constraints and indexes."""
    server = farm.shared("neo4j", getattr(request, "param", None))
    empty_neo4j(server)
    return server.url


@pytest.fixture
def milvus_url(request, farm):
    """Without aliases and collections."""
    server = farm.shared("milvus", getattr(request, "param", None))
    empty_milvus(server)
    return server.url


@pytest.fixture
def redis_url(request, farm):
    """Without keys."""
    server = farm.shared("redis", getattr(request, "param", None))
    empty_redis(server)
    return f"{server.url}/0"

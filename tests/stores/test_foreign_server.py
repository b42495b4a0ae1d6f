"""Each store's address given to each other store: a wrong address is told at once instead of being
waited for.
"""

from __future__ import annotations

import itertools
import socket
import time

import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.foreign_server import recognised
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

pytestmark = [pytest.mark.postgres, pytest.mark.neo4j, pytest.mark.milvus, pytest.mark.redis]

STORES = {
    "postgres": (PostgreSQLBootstrapper, "postgresql://app:x@{}/app"),
    "neo4j": (Neo4jBootstrapper, "bolt://neo4j:x@{}"),
    "milvus": (MilvusBootstrapper, "http://{}"),
    "redis": (RedisBootstrapper, "redis://{}/0"),
}
KINDS = {
    "postgres": "PostgreSQL",
    "neo4j": "an HTTP server",
    "milvus": "a gRPC server",
    "redis": "Redis",
}


@pytest.fixture(params=STORES)
def there(request):
    """A real server: its store and its host and port."""
    url = request.getfixturevalue(f"{request.param}_url")
    return request.param, StoreUrl.parse(request.param, url).hosts


def test_each_kind_of_server_is_recognised(there):
    store, hosts = there
    host, _, port = hosts.partition(":")
    assert recognised(host, int(port), 1.0) == KINDS[store]
    if store != "neo4j":
        assert recognised(host, int(port), 1.0, own=KINDS[store]) == ""


@pytest.mark.parametrize(
    ("there", "asked"), list(itertools.permutations(STORES, 2)), indirect=["there"]
)
def test_a_server_of_another_kind_is_a_wrong_address(there, asked):
    _, hosts = there
    kind, address = STORES[asked]
    made = kind(
        address.format(hosts), Blueprint("mine", "test"), timing=Timing(connect_timeout_s=4)
    )
    began = time.monotonic()
    with pytest.raises(ConfigurationError) as caught:
        made.ping(4)
    made.close()
    assert hosts in caught.value.message
    assert caught.value.hint
    assert time.monotonic() - began < 10


def test_nobody_and_a_socket_file_are_no_kind_of_server(closed_port):
    assert recognised("127.0.0.1", closed_port, 0.2) == ""
    assert recognised("/run/redis.sock", 6379, 0.2) == ""


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]

"""Servers as fixtures. Each `…_url` is a plain address; `parametrize(..., indirect=True)` chooses
the version.
"""

from __future__ import annotations

import atexit
import signal
import uuid
from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

from servers import Farm, clone, drop_database, empty_milvus, empty_neo4j, empty_redis

#: What waits for minutes.
_WAITING = ("tests/packaging/kubernetes/", "tests/packaging/test_image.py")
#: What takes minutes, though it has few tests.
_LONG = (
    "tests/acceptance/",
    "tests/edges/test_fleet.py",
    "tests/edges/test_fixture_scopes.py",
    "tests/edges/test_given_stores.py",
    "tests/edges/test_isolation.py",
    "tests/edges/test_local.py",
    "tests/edges/test_local_stores.py",
    "tests/edges/test_migrate.py",
    "tests/edges/test_plugin.py",
    "tests/packaging/test_blueprint_docs.py",
    "tests/packaging/test_change_a_blueprint.py",
    "tests/stores/test_neo4j_lease.py",
    "tests/stores/test_selftest",
)
#: What comes last. Its threads enter a network namespace. Twice, gRPC of the same process reached
#: no server outside of it afterwards.
_LAST = "tests/stores/test_postgres_vanished.py"


def pytest_configure():
    """A terminated session ends as an interrupted one: fixtures are torn down, servers with them.

    A shell starts a background job with SIGINT ignored, and `nohup` ignores SIGHUP. Every process
    below inherits that. Tests of Ctrl-C and of a closed terminal need the ordinary handlers.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def pytest_addoption(parser):
    parser.addoption(
        "--soak", action="store_true", help="also the tests that take minutes (make soak)"
    )


def pytest_collection_modifyitems(config, items):
    """Leave out what takes minutes; put the rest in the order in which workers take it."""
    if not config.getoption("soak"):
        left_out = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    sizes = Counter(scope_of(item.nodeid) for item in items)

    def place(item):
        """Long groups come first and short ones last, so that workers end together."""
        waits, is_long = item.nodeid.startswith(_WAITING), item.nodeid.startswith(_LONG)
        is_last = item.nodeid.startswith(_LAST)
        return is_last, not waits, not is_long, -sizes[scope_of(item.nodeid)]

    items.sort(key=place)


def scope_of(nodeid):
    """Tests that share a server are done by one worker: a version's contract, else a module."""
    module, _, test = nodeid.partition("::")
    suite, _, parameters = test.partition("[")
    # Only one Milvus 2.3 runs at a time.
    has_its_own = "milvus_guarded" in module or module.endswith("test_tls.py")
    if has_its_own or ("2.3" in parameters and "milvus" in nodeid.lower()):
        return "milvus-2.3"
    return (
        f"{suite.rpartition('::')[0]} {parameters}"
        if module.endswith("test_contract.py") and parameters
        else module
    )


class OneServerOneWorker(LoadScopeScheduling):
    def __init__(self, config, log):
        config.option.loadscopereorder = False  # they are in order
        super().__init__(config, log)

    def _split_scope(self, nodeid):
        return scope_of(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return OneServerOneWorker(config, log)


@pytest.fixture(scope="session")
def farm():
    farm = Farm()
    atexit.register(farm.close)
    yield farm
    farm.close()
    atexit.unregister(farm.close)


@pytest.fixture
def make_server(farm):
    """`make_server("redis", version="6", **options)`: a server of one's own with `.url .pid .stop()
    .kill() .start()`.
    """
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
def migrated(farm):
    """`migrated("context_service", version=None)`: the address of a database of one's own that is
    at the blueprint's head.
    """
    made = []

    def make(blueprint, version=None):
        server = farm.shared("postgres", version)
        url = clone(farm, server, blueprint)
        made.append((server, url.rpartition("/")[2]))
        return url

    yield make
    for server, name in made:
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

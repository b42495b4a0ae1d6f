"""A Milvus that asks for a password and limits the rate of calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pymilvus import MilvusClient

from is_db_bootstrap.blueprints import novel_genesis
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import AccessDenied
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from servers import NO_IDLE_PINGS

pytestmark = pytest.mark.milvus


def run(url, mode=Mode.APPLY, **options):
    return BootstrapOrchestrator([MilvusBootstrapper(url, novel_genesis.BLUEPRINT)], **options).run(
        mode
    )


@pytest.fixture(scope="module")
def start(farm):
    """A server that is starting, what was told while waiting for it, and how that ended.

    Two servers of 2.3 cannot run beside each other: the peer port of their etcd is fixed.
    """
    farm.shared("milvus", "2.3").stop()
    server = farm.make("milvus", "2.3-guarded", start=False)
    server.start()
    told = []
    yield (
        StoreUrl.parse("milvus", server.url),
        told,
        run(server.url, Mode.WAIT, observers=[told.append]),
    )
    server.kill()


@pytest.fixture(scope="module")
def guarded(start):
    return start[0]


@pytest.fixture(scope="module")
def root(guarded):
    client = MilvusClient(guarded.reveal(), dedicated=True, grpc_options=NO_IDLE_PINGS)
    yield client
    client.close()


def test_a_server_that_is_starting_is_waited_for(start):
    _, told, result = start
    assert result.ok, result
    waits = [e.message for e in told if e.kind == "waiting"]
    assert waits
    assert all("does not answer" in message or "not ready yet" in message for message in waits)


@pytest.mark.parametrize(
    ("username", "password"), [("root", "wrong"), ("nobody", "x"), ("", ""), ("", "token")]
)
def test_wrong_credentials_are_denied_and_tried_once(guarded, username, password):
    events = []
    result = run(replace(guarded, username=username, password=password), observers=[events.append])
    assert result.exit_code == 5
    assert isinstance(result.stores[0].exception, AccessDenied)
    assert "MILVUS_PASSWORD" in result.stores[0].error.hint
    assert not [e for e in events if e.kind == "waiting"]


def test_a_missing_privilege_is_told_with_those_that_are_needed(guarded, root):
    root.create_user("weak", "weak-password")
    result = run(replace(guarded, username="weak", password="weak-password"))
    assert result.exit_code == 5
    assert "PrivilegeDescribeAlias: permission deny to weak" in result.stores[0].error.message
    assert "needs ShowCollections" in result.stores[0].error.hint


@pytest.mark.parametrize("password", ["p%ss@:/#?word", "pä ss wörd"])
def test_a_password_may_hold_any_character(guarded, root, password):
    root.create_user("odd", password)
    try:
        url = replace(guarded, username="odd", password=password)
        assert MilvusBootstrapper(url, novel_genesis.BLUEPRINT).ping(5)
        assert MilvusBootstrapper(url.reveal(), novel_genesis.BLUEPRINT).ping(5)
    finally:
        root.drop_user("odd")


@pytest.mark.parametrize("form", ["http://:root%3AMilvus@{}", "http://root%3AMilvus@{}"])
def test_a_token_is_taken_alone_and_never_shown(guarded, form):
    store = MilvusBootstrapper(form.format(guarded.hosts), novel_genesis.BLUEPRINT)
    assert store.ping(5)
    assert "Milvus" not in store.target


def test_a_limited_rate_is_waited_for(guarded):
    events = []
    result = run(guarded, observers=[events.append])
    assert result.stores[0].outcome is Outcome.CHANGED, result
    assert any("limits the rate of such calls" in e.message for e in events)
    assert run(guarded).stores[0].outcome is Outcome.UNCHANGED

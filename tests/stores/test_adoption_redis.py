"""Keys that programs have written, and that `adopt` takes over as they are."""

from __future__ import annotations

import pytest
import redis

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

pytestmark = pytest.mark.redis

RECORD = b"is-db-bootstrap:conventions:shop"
SHOP = Blueprint(
    "shop",
    "test",
    keys=(KeyPattern("session", "session:{id}", "string", 3600, "web", "sessions"),),
)


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def run(redis_url):
    def run_mode(mode=Mode.ADOPT, *, foresees=False, accepted=()):
        store = RedisBootstrapper(redis_url, SHOP)
        engine = BootstrapOrchestrator([store], blueprint="shop", accepted=accepted)
        return engine.run(mode, foresees=foresees)

    return run_mode


def everything(client):
    return {
        key: (client.dump(key), client.ttl(key) > 0) for key in client.scan_iter() if key != RECORD
    }


def test_keys_of_scripts_are_told_and_their_conventions_recorded(client, run):
    client.set("session:1", "a", ex=600)
    client.set("session:2", "b")
    client.rpush("queue", "c")
    before = everything(client)
    foreseen = run(foresees=True)
    assert [each.kind for each in foreseen.stores[0].changes] == ["record"]
    assert client.get(RECORD) is None
    result = run()
    assert (result.exit_code, result.outcome) == (0, Outcome.CHANGED), result
    notes = " ".join(result.stores[0].notes)
    assert "session:2" in notes
    assert "queue" in notes
    assert everything(client) == before
    assert client.get(RECORD)
    assert run(Mode.VERIFY).exit_code == 0
    assert run(Mode.APPLY).stores[0].changes == ()
    assert run().outcome is Outcome.UNCHANGED


def test_a_redis_without_keys_holds_nothing_to_adopt(client, run):
    result = run()
    assert result.exit_code == 6
    assert "`apply`" in result.stores[0].error.hint
    assert client.keys() == []


def test_nothing_differs_on_redis_so_nothing_can_be_accepted(client, run):
    client.set("session:1", "a", ex=600)
    result = run(accepted=["session:1"])
    assert result.exit_code == 2
    assert "session:1 does not differ" in result.stores[0].error.message
    assert client.get(RECORD) is None

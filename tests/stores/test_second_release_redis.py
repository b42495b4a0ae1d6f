"""The second release of a blueprint on Redis: ten kinds of changes of its declaration.

Each is applied and verified, or refused with what to type. Keys that the first release has written
are in the store.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace

import pytest
import redis

from is_db_bootstrap.blueprint import Blueprint, Channel, KeyPattern
from is_db_bootstrap.blueprint.check import check
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.memory_text import to_text
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.keyspace import Keyspace
from memories import record

pytestmark = pytest.mark.redis

CART = KeyPattern("cart", "cart:{id}", "string", 3600, "shop", "a cart")
PRICE = KeyPattern("price", "price:{id}", "string", None, "shop", "a price", reason="the source")
RELEASE = Blueprint("shop", "", keys=(CART, PRICE))


@dataclass(frozen=True)
class Change:
    """What the second release declares, what is pending, and what is found in the store then.

    `found` are findings by object, each with a part of its message.
    """

    keys: tuple[KeyPattern, ...]
    pending: str
    found: dict[str, str]
    channels: tuple[Channel, ...] = ()


TOKEN = KeyPattern("token", "token:{id}", "hash", 60, "shop", "a token")
FITS_NONE = "no declared pattern"
CHANGES = {
    "a lifetime is added": Change(
        (CART, replace(PRICE, ttl=600, reason="")), "change price", {"price:1": "has no lifetime"}
    ),
    "a lifetime becomes longer": Change((replace(CART, ttl=7200), PRICE), "change cart", {}),
    "a lifetime becomes shorter": Change(
        (replace(CART, ttl=60), PRICE), "change cart", {"cart:1": "declared are at most 60 s"}
    ),
    "a lifetime becomes a range": Change((replace(CART, ttl=(60, 7200)), PRICE), "change cart", {}),
    "a lifetime is removed": Change(
        (replace(CART, ttl=None, reason="kept"), PRICE),
        "change cart",
        {"cart:1": "declared as persistent"},
    ),
    "the type changes": Change(
        (replace(CART, type="hash"), PRICE), "change cart", {"cart:1": "is a string"}
    ),
    "a pattern is renamed": Change(
        (replace(CART, pattern="basket:{id}"), PRICE), "change cart", {"cart:": FITS_NONE}
    ),
    "a name is changed": Change(
        (replace(CART, name="basket"), PRICE), "add basket; remove cart", {}
    ),
    "a pattern is new": Change((CART, PRICE, TOKEN), "add token", {}),
    "a pattern is removed": Change((CART,), "remove price", {"price:": FITS_NONE}),
    "an expression becomes narrower": Change(
        (replace(CART, placeholders={"id": "[a-f]+"}), PRICE), "change cart", {"cart:": FITS_NONE}
    ),
    "an expression becomes wider": Change(
        (replace(CART, placeholders={"id": ".+"}), PRICE), "change cart", {}
    ),
    "the owner changes": Change((replace(CART, owner="web"), PRICE), "change cart", {}),
    "a channel is new": Change(
        (CART, PRICE), "add news", {}, channels=(Channel("news", "news:{id}", "news"),)
    ),
}


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.set("cart:1", "x", ex=3600)
        client.set("price:1", "x")
        yield client


def orchestrator(url, blueprint, **options):
    return BootstrapOrchestrator([RedisBootstrapper(url, blueprint)], **options)


def let_time_pass(client):
    """As if the first release had been applied an hour ago, and not in the same roll-out."""
    key = "is-db-bootstrap:conventions:shop"
    record = client.get(key)
    recorded_at = record.partition('"recorded_at": ')[2].partition(",")[0]
    client.set(key, record.replace(recorded_at, str(float(recorded_at) - 3600)))


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_of_the_declaration_is_planned_applied_and_verified(redis_url, client, kind):
    change = CHANGES[kind]
    orchestrator(redis_url, RELEASE).run().raise_for_failure()
    let_time_pass(client)
    before = {key: (client.get(key), client.pttl(key) // 60_000) for key in ("cart:1", "price:1")}
    second = replace(RELEASE, keys=change.keys, channels=change.channels)
    check(second)

    planned = orchestrator(redis_url, second).run(Mode.PLAN)
    assert [each.detail for each in planned.stores[0].changes] == [change.pending]
    pending = orchestrator(redis_url, second).run(Mode.VERIFY)
    assert pending.exit_code == 3
    applied = orchestrator(redis_url, second).run()
    assert applied.outcome is Outcome.CHANGED, applied
    assert orchestrator(redis_url, second).run().outcome is Outcome.UNCHANGED

    store = RedisBootstrapper(redis_url, second)
    found = {drift.object: drift.message for drift in store.audit()}
    assert found.keys() == change.found.keys()
    assert all(change.found[key] in message for key, message in found.items())
    strict = orchestrator(redis_url, second, strict=True).run(Mode.VERIFY)
    assert strict.exit_code == (3 if change.found else 0)
    after = {key: (client.get(key), client.pttl(key) // 60_000) for key in before}
    assert after == before, "an apply has touched a key of the application"

    first = orchestrator(redis_url, RELEASE).run()
    assert first.exit_code == 0
    assert first.outcome is Outcome.UNCHANGED, "the older release has written over the newer one"


def test_a_lifetime_that_is_added_is_set_by_the_command_that_the_finding_leads_to(
    redis_url, client
):
    orchestrator(redis_url, RELEASE).run().raise_for_failure()
    let_time_pass(client)
    second = replace(RELEASE, keys=(CART, replace(PRICE, ttl=600, reason="")))
    result = orchestrator(redis_url, second).run()
    assert any("is-db-bootstrap redis fix-ttl" in note for note in result.stores[0].notes)
    with Keyspace(StoreUrl.parse("redis", redis_url), second, Timing()) as keyspace:
        assert keyspace.mend_missing().done == {"price": 1}
    assert orchestrator(redis_url, second, strict=True).run(Mode.VERIFY).exit_code == 0
    assert 590 < client.ttl("price:1") <= 600
    assert client.ttl("cart:1") > 3000


def test_another_database_number_is_another_store_and_the_first_one_stays(redis_url, client):
    orchestrator(redis_url, RELEASE).run().raise_for_failure()
    elsewhere = f"{redis_url.rpartition('/')[0]}/5"
    status = RedisBootstrapper(elsewhere, RELEASE).status()
    assert status.recorded in {"", None}
    assert orchestrator(elsewhere, RELEASE).run().outcome is Outcome.CHANGED
    assert orchestrator(redis_url, RELEASE).run().outcome is Outcome.UNCHANGED
    assert client.get("cart:1") == "x"


@pytest.mark.parametrize(
    ("key", "right"),
    [
        (replace(CART, pattern="cart:*"), "cart:{id}"),
        (replace(CART, pattern="cart:{cart-id}"), "cart:{cart_id}"),
        (replace(CART, ttl=None), "a persistent key needs a reason"),
        (replace(CART, placeholders={"id": "["}), "unterminated character set"),
        (replace(CART, ttl=(60, 1)), "is no range of seconds"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused_with_the_right_spelling(key, right):
    with pytest.raises(ConfigurationError) as refusal:
        check(replace(RELEASE, keys=(key, PRICE)))
    assert right in str(refusal.value)


def test_a_version_between_two_others_is_a_conflict_that_says_what_to_type(redis_url, client):
    second = replace(RELEASE, keys=(CART, PRICE, TOKEN))
    hotfix = replace(RELEASE, keys=(replace(CART, ttl=60), PRICE))
    for blueprint in (RELEASE, second):
        orchestrator(redis_url, blueprint).run().raise_for_failure()
    refused = orchestrator(redis_url, hotfix).run()
    assert refused.exit_code == 6
    error = refused.stores[0].error
    assert "Recorded since then: add key token. Declared instead: change key cart" in error.message
    assert "redis-cli DEL is-db-bootstrap:conventions:shop" in error.hint


def test_the_way_out_of_a_record_that_cannot_be_read_removes_that_record_alone(redis_url):
    """The command is run as it is told, in the database of the address."""
    url = redis_url.removesuffix("/0") + "/3"
    key = "is-db-bootstrap:memory:shop"
    other = to_text(record("redis", "b" * 32))
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.flushdb()
        client.set(key, f"{other}\n\nno record")
        refused = orchestrator(url, RELEASE).run()
        assert (refused.exit_code, refused.stores[0].outcome) == (6, Outcome.FAILED)
        assert f"line 3 of {key}" in refused.stores[0].error.message
        run_as_told(refused.stores[0].error.hint, url)
        assert [line for line in client.get(key).split("\n") if line] == [other]
        assert orchestrator(url, RELEASE).run(Mode.PLAN).ok
        client.set(key, "no record")
        run_as_told(orchestrator(url, RELEASE).run().stores[0].error.hint, url)
        assert not client.exists(key)


def run_as_told(hint, url):
    """Run what a hint ends with, on the server of the address."""
    command = hint.rpartition(": ")[2].removesuffix(".")
    assert command.startswith("redis-cli -n 3 "), command
    parsed = StoreUrl.parse("redis", url)
    client = f"redis-cli -h {parsed.host} -p {parsed.port(6379)} "
    subprocess.run(["sh", "-c", command.replace("redis-cli ", client)], check=True)

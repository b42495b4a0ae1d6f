"""The audit of keys on real servers: what it finds, and how it sees a whole store."""

from __future__ import annotations

import pytest
import redis

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.key_patterns import EMPTY_NAME, PatternTable, prefix_of
from is_db_bootstrap.stores.redis.keyspace import Keyspace

pytestmark = pytest.mark.redis

both_versions = pytest.mark.parametrize("redis_url", ["6", "7"], indirect=True)


def pattern(name, ttl=60, kind="string", **more):
    reason = "" if ttl else "for tests"
    return KeyPattern(name, f"{name}:{{id}}", kind, ttl, "app", "for tests", reason=reason, **more)


SHOP = Blueprint("shop", "for tests", keys=(pattern("cart"), pattern("price", None)))


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def audit(url, blueprint=SHOP, **timing):
    store = RedisBootstrapper(url, blueprint, timing=Timing(**timing))
    try:
        return store.audit()
    finally:
        store.close()


@both_versions
def test_a_persistent_key_with_a_lifetime_is_a_finding(redis_url, client):
    client.set("price:1", "x")
    client.set("price:2", "x", ex=500)
    [found] = audit(redis_url)
    assert (found.object, found.finding) == ("price:2", True)
    assert "declared as persistent" in found.message


@both_versions
def test_keys_that_fit_no_pattern_are_told_by_prefix_and_only_strict_takes_them_for_drift(
    redis_url, client
):
    client.mset({f"celery-task-meta-{n:032x}": "x" for n in range(300)})
    client.mset({f"other:{n}": "x" for n in range(7)} | {"lonely": "x"})
    client.set("cart:1", "x", ex=30)
    found = {drift.object: drift.message for drift in audit(redis_url)}
    assert found == {
        "celery-task-meta-": "300 keys that begin so fit no declared pattern",
        "other:": "7 keys that begin so fit no declared pattern",
        "lonely": "1 key that begins so fits no declared pattern",
    }
    codes = []
    for strict in (False, True):
        store = RedisBootstrapper(redis_url, SHOP)
        BootstrapOrchestrator([store]).run().raise_for_failure()
        codes.append(BootstrapOrchestrator([store], strict=strict).run(Mode.VERIFY).exit_code)
    assert codes == [0, 3]


@both_versions
def test_the_key_with_an_empty_name_is_told_as_that(redis_url, client):
    client.mset({"": "x", "other:1": "x"})
    found = {drift.object: drift.message for drift in audit(redis_url)}
    assert found == {
        EMPTY_NAME: "a key with an empty name fits no declared pattern",
        "other:": "1 key that begins so fits no declared pattern",
    }
    with Keyspace(StoreUrl.parse("redis", redis_url), SHOP, Timing()) as keyspace:
        rows = {row.name: row.keys for row in keyspace.table().undeclared}
    assert rows == {EMPTY_NAME: 1, "other:": 1}


@both_versions
def test_a_placeholder_fits_a_hash_tag_with_its_braces(redis_url, client):
    """As docs/reference/declarations.md says of these two."""
    key = KeyPattern("cart", "{tenant}:cart:{id}", "hash", 60, "app", "for tests")
    shop = Blueprint("shop", "for tests", keys=(key,))
    client.hset("{acme}:cart:7", "a", "1")
    client.expire("{acme}:cart:7", 30)
    assert audit(redis_url, shop) == []
    client.persist("{acme}:cart:7")
    [found] = audit(redis_url, shop)
    assert (found.object, "has no lifetime" in found.message) == ("{acme}:cart:7", True)
    with Keyspace(StoreUrl.parse("redis", redis_url), shop, Timing()) as keyspace:
        assert keyspace.mend_missing().done == {"cart": 1}
    assert 0 < client.ttl("{acme}:cart:7") <= 60


@both_versions
def test_repeated_runs_with_a_small_budget_see_the_whole_store(redis_url, client):
    client.mset({f"cart:{n}": "x" for n in range(2000)})
    client.mset({f"price:{n}": "x" for n in range(10)})
    for key in (f"price:{n}" for n in range(10)):
        client.expire(key, 500)
    runs, mended = 0, 0
    while mended < 10:
        named = [drift.object for drift in audit(redis_url, scan_budget=500)]
        mended += client.delete(*[each for each in named if each.startswith("price:")] or ["none"])
        runs += 1
        assert runs < 500
    assert runs > 1


@both_versions
def test_a_budget_that_holds_every_key_sees_each_once(redis_url, client):
    client.mset({f"cart:{n}": "x" for n in range(3_000)})
    *_, last = audit(redis_url, scan_budget=3_000)
    assert last.message == "2995 more keys of cart break it"


@both_versions
def test_a_user_of_one_prefix_is_told_how_many_keys_were_not_looked_at(redis_url, client):
    client.mset({"cart:1": "x", "cart:2": "x", "price:1": "x", "elsewhere": "x"})
    client.execute_command(
        "ACL", "SETUSER", "narrow", "reset", "on", ">pw", "~cart:*", "~is-db-bootstrap:*", "+@all"
    )
    try:
        found = audit(redis_url.replace("//", "//narrow:pw@"))
    finally:
        client.execute_command("ACL", "DELUSER", "narrow")
    assert {drift.object for drift in found} == {"cart:1", "cart:2", "elsewhere", "keyspace"}
    assert found[-1].message == "1 key was not looked at: this user may not read them"
    assert found[-1].finding


@pytest.mark.parametrize("expression", ["[a-z]+", "([a-z])+", r"([a-z])\1"])
def test_the_closest_pattern_applies_with_and_without_groups_in_an_expression(expression):
    general = KeyPattern("general", "{kind}:{id}", "string", 60, "app", "x")
    close = KeyPattern("close", "cart:{id}", "string", 60, "app", "x", {"id": expression})
    find = PatternTable([general, close]).find
    assert find("cart:aa") is close
    assert find("cart:11") is general
    assert find("cart") is None
    assert PatternTable([]).find("cart") is None


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("session:7", "session:"),
        ("celery-task-meta-0af3", "celery-task-meta-"),
        ("_kombu.binding.celery", "_kombu.binding.celery"),
        ("unacked", "unacked"),
        (":1:views", ":"),
        ("", EMPTY_NAME),
    ],
)
def test_a_prefix_tells_whose_a_key_is(key, prefix):
    assert prefix_of(key) == prefix

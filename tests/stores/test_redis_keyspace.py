"""`redis audit` and `redis fix-ttl`, through the installed command, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
import redis

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis.keyspace import Keyspace

pytestmark = pytest.mark.redis

both_versions = pytest.mark.parametrize("redis_url", ["6", "7"], indirect=True)
DECLARED = """
from is_db_bootstrap.blueprint import Blueprint, KeyPattern

BLUEPRINT = Blueprint("shop", "Keys.", keys=(
    KeyPattern("cart", "cart:{id}", "string", (60, 3600), "app", "a cart"),
    KeyPattern("token", "token:{id}", "hash", 600, "app", "a token"),
    KeyPattern("price", "price:{id}", "string", None, "app", "a price", reason="for tests"),
))
"""


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def run(tmp_path, redis_url):
    """Runs a command on keys; gives its exit code, what it printed, and what it said."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "blueprint.py").write_text(DECLARED, encoding="utf-8")

    def call(*words):
        command = [sys.executable, "-m", "is_db_bootstrap", "redis", *words]
        ended = subprocess.run(
            [*command, "-b", str(folder), "--redis-url", redis_url],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return call


@both_versions
def test_the_whole_store_is_a_table_and_a_document(client, run):
    for number in range(1200):
        client.set(f"cart:{number}", "x" * 100, ex=50)
    client.set("cart:eternal", "x")
    client.set("cart:long", "x", ex=90_000)
    client.rpush("cart:list", "x")
    client.set("price:1", "x", ex=50)
    client.set("celery-task-meta-00ff", "x", ex=7200)
    code, text, _ = run("audit")
    assert code == 3
    assert "1 no lifetime, 1 other type, 1 too long" in text
    assert "1 mortal" in text
    assert "celery-task-meta-" in text
    code, text, _ = run("audit", "-o", "json")
    document = json.loads(text)
    assert (code, document["exit_code"], document["complete"]) == (3, 3, True)
    assert document["looked_at"] == document["total"] == 1205
    cart, token, price = document["patterns"]
    assert cart["keys"] == 1203
    assert cart["lifetimes"] == {"1 min": 1200, "persistent": 2, "7 d": 1}
    assert cart["types"] == {"string": 1202, "list": 1}
    assert 1203 * 100 < cart["memory_bytes"] < 1203 * 400
    assert (token["keys"], token["memory_bytes"]) == (0, None)
    assert price["faults"] == {"mortal": 1}
    [other] = document["undeclared"]
    assert (other["prefix"], other["keys"], other["lifetimes"]) == (
        "celery-task-meta-",
        1,
        {"1 d": 1},
    )
    code, text, _ = run("audit", "--budget", "100", "--no-memory", "-o", "json")
    document = json.loads(text)
    assert (document["looked_at"], document["complete"]) == (100, False)
    assert all(row["memory_bytes"] is None for row in document["patterns"])


@both_versions
def test_missing_lifetimes_are_set_and_no_other_is_touched(client, run):
    client.mset({f"cart:{number}": "x" for number in range(1500)})
    client.hset("token:1", "a", "1")
    client.set("cart:short", "x", ex=50)
    client.set("cart:long", "x", ex=90_000)
    client.rpush("cart:list", "x")
    client.mset({"price:1": "x", "elsewhere": "x"})
    before = client.info("persistence")["rdb_changes_since_last_save"]
    code, text, _ = run("fix-ttl", "--dry-run", "-o", "json")
    found = {row["name"]: (row["missing"], row["set"]) for row in json.loads(text)["patterns"]}
    assert (code, found) == (0, {"cart": (1500, None), "token": (1, None)})
    code, text, said = run("fix-ttl")
    assert code == 2
    assert "Say --yes" in said
    assert client.info("persistence")["rdb_changes_since_last_save"] == before
    code, text, _ = run("fix-ttl", "--yes", "--pattern", "token")
    assert (code, client.ttl("token:1") > 590, client.ttl("cart:1")) == (0, True, -1)
    code, text, _ = run("fix-ttl", "--yes")
    assert code == 0
    assert "1500 of 1500 keys" in text
    assert all(3500 < client.ttl(f"cart:{number}") <= 3600 for number in range(0, 1500, 100))
    assert 0 < client.ttl("cart:short") <= 50
    assert client.ttl("cart:long") > 89_000
    assert [client.ttl(key) for key in ("cart:list", "price:1", "elsewhere")] == [-1, -1, -1]
    code, text, _ = run("fix-ttl", "--yes")
    assert (code, "no key" in text) == (0, True)
    code, _, said = run("fix-ttl", "--pattern", "price")
    assert code == 2
    assert "There are cart, token." in said


CART = Blueprint("b", "", keys=(KeyPattern("cart", "cart:{id}", "string", 3600, "app", "x"),))


def opened(redis_url):
    return Keyspace(StoreUrl.parse("redis", redis_url), CART, Timing())


@both_versions
def test_a_lifetime_that_is_set_between_the_look_and_the_change_stays(redis_url, client):
    client.mset({f"cart:{number}": "x" for number in range(40)})
    with opened(redis_url) as keyspace:
        missing = keyspace._missing(())
        walk = missing._walk

        def walk_slowly(master, take):
            def take_later(looks):
                client.expire("cart:7", 5)
                take(looks)

            walk(master, take_later)

        missing._walk = walk_slowly
        assert missing.mend(keyspace._masters, is_cluster=False) == {"cart": 39}
    assert 0 < client.ttl("cart:7") <= 5
    assert client.ttl("cart:8") > 3500


def test_keys_that_are_written_all_the_time_do_not_keep_others_from_a_lifetime(redis_url, client):
    client.mset({f"cart:{number}": "x" for number in range(64)})
    ending, begun = threading.Event(), threading.Event()

    def write():
        while not ending.is_set():
            client.set("cart:7", "y", keepttl=True)
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait(60)
    try:
        with opened(redis_url) as keyspace:
            missing = keyspace._missing(())
            missing._has_nx = False
            mended = missing.mend(keyspace._masters, is_cluster=False)
    finally:
        ending.set()
        writer.join()
    assert mended["cart"] in {63, 64}
    assert all(client.ttl(f"cart:{number}") > 3500 for number in range(64) if number != 7)

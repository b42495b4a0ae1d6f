"""`redis audit` and `redis fix-ttl`, through the installed command, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
import redis
from click.testing import CliRunner

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.cli.redis.fix_ttl import command as fix_ttl
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis import lifetimes
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


@pytest.fixture
def address_of(redis_url, client):
    """The address of a user who may use scripts, or only transactions."""

    def make(way):
        if way == "scripts":
            return redis_url
        rules = ["~*", "&*", "+@all", "-eval", "-evalsha"]
        if client.info("server")["redis_version"].startswith("6"):
            rules.remove("&*")
        client.execute_command("ACL", "SETUSER", "little", "reset", "on", ">pw", *rules)
        return redis_url.replace("//", "//little:pw@")

    yield make
    client.execute_command("ACL", "DELUSER", "little")


both_ways = pytest.mark.parametrize("way", ["scripts", "transactions"])


@both_versions
@both_ways
def test_a_key_that_is_changed_between_the_look_and_the_step_keeps_what_it_got(
    client, address_of, way
):
    """A lifetime of its own, another type, or its end."""
    client.mset({f"cart:{number}": "x" for number in range(40)})
    with opened(address_of(way)) as keyspace:
        missing = keyspace._missing(())
        walk = missing._walk

        def walk_slowly(master, take):
            def take_later(looks):
                client.expire("cart:7", 5)
                client.delete("cart:8", "cart:9")
                client.sadd("cart:8", "a set")
                take(looks)

            walk(master, take_later)

        missing._walk = walk_slowly
        mended = missing.mend(keyspace._masters, is_cluster=False)
    assert mended.done == {"cart": 37}
    assert mended.passed == {"cart": {"given a lifetime": 1, "of another type": 1, "gone": 1}}
    assert not mended.left
    assert 0 < client.ttl("cart:7") <= 5
    assert (client.type("cart:8"), client.ttl("cart:8"), client.exists("cart:9")) == ("set", -1, 0)
    assert client.ttl("cart:10") > 3500


@both_versions
def test_a_key_that_becomes_another_type_while_it_is_watched_gets_no_lifetime(
    client, address_of, monkeypatch
):
    client.mset({f"cart:{number}": "x" for number in range(8)})
    look_again = lifetimes.look_again

    def change_afterwards(connection, looks):
        found = look_again(connection, looks)
        if client.type("cart:3") == "string":
            client.delete("cart:3")
            client.sadd("cart:3", "a set")
        return found

    monkeypatch.setattr(lifetimes, "look_again", change_afterwards)
    with opened(address_of("transactions")) as keyspace:
        mended = keyspace.mend_missing()
    assert (mended.done, mended.passed) == ({"cart": 7}, {"cart": {"of another type": 1}})
    assert (client.type("cart:3"), client.ttl("cart:3")) == ("set", -1)


def test_keys_that_are_written_all_the_time_do_not_keep_others_from_a_lifetime(address_of, client):
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
        with opened(address_of("transactions")) as keyspace:
            mended = keyspace.mend_missing()
    finally:
        ending.set()
        writer.join()
    left = 64 - mended.done["cart"]
    assert left in {0, 1}
    assert mended.left["cart"] == left
    assert mended.passed == ({"cart": {"written all the time": 1}} if left else {})
    assert all(client.ttl(f"cart:{number}") > 3500 for number in range(64) if number != 7)


def test_the_end_says_why_keys_got_no_lifetime_and_what_to_do(client, redis_url, monkeypatch):
    """Keys change after they were counted, and one is written once more at the end."""
    client.mset({f"cart:{number}": "x" for number in range(10)})
    mend = Keyspace.mend_missing

    def change_and_mend(keyspace, names=()):
        client.delete("cart:1", "cart:2")
        with monkeypatch.context() as patched:
            patched.setattr(lifetimes, "_set_by_script", written_once_more)
            return mend(keyspace, names)

    set_by_script = lifetimes._set_by_script

    def written_once_more(master, looks):
        client.expire("cart:3", 5)
        ends = set_by_script(master, looks)
        client.set("cart:4", "without a lifetime")
        return ends

    monkeypatch.setattr(Keyspace, "mend_missing", change_and_mend)
    loaded = "is_db_bootstrap.cli._options.Options.load_blueprint"
    monkeypatch.setattr(loaded, lambda *_, **__: CART)
    words = ["-b", "b", "--redis-url", redis_url, "--yes"]
    told = CliRunner().invoke(fix_ttl, words, standalone_mode=False)
    text = told.output
    assert "7 of 10 keys" in text
    assert "1 key got none: given a lifetime meanwhile." in text
    assert "2 keys got none: gone" in text
    assert "1 key lacks a lifetime now" in text
    assert "Run fix-ttl again" in text
    assert told.return_value == 3

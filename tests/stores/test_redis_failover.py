"""A replica of Redis, and a fail-over in the middle of what a run or a command does."""

from __future__ import annotations

import subprocess
import time

import pytest
import redis

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.keyspace import Keyspace
from is_db_bootstrap.stores.redis.lifetimes import MissingLifetimes
from pages import Reader, blocks, commands
from sentinels import PROGRAM, Starter, Watched, client_at, free_port, until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(PROGRAM is None, reason="Debian's redis-server is not installed"),
]

RECORD = "is-db-bootstrap:conventions:shop"
SHOP = Blueprint(
    "shop", "for tests", keys=(KeyPattern("cart", "cart:{id}", "string", 60, "app", "for tests"),)
)
#: The lease is short, because a lock that a fail-over has kept has to lapse before the next run.
TIMING = Timing(
    timeout_s=30, connect_timeout_s=5, lease_s=2, retry_initial_s=0.05, retry_maximum_s=0.2
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    start = Starter(tmp_path_factory.mktemp("redis-failover"))
    yield Watched(start)
    start.close()


@pytest.fixture
def watched(servers):
    """A master and its replica, without keys, and their Sentinel."""
    servers.settle()
    servers.ask(servers.master, "FLUSHALL")
    return servers


def run(watched, at=None, happen=lambda: None):
    """The result of a run. `happen` is called at the first event of this kind and phase."""
    left = [at] if at else []

    def observe(event):
        if left and (event.kind, getattr(event.phase, "value", None)) == left[0]:
            left.clear()
            happen()

    store = RedisBootstrapper(watched.url, SHOP, timing=TIMING)
    policy = RetryPolicy.of(TIMING)
    return BootstrapOrchestrator([store], observers=[observe], retry=policy).run()


def is_recorded(watched):
    return watched.ask(watched.master, "EXISTS", RECORD) == 1


def test_a_replica_names_its_master_and_is_not_waited_for_in_vain(watched):
    url = f"redis://:right@127.0.0.1:{watched.replica}/0"
    with pytest.raises(StoreUnavailable, match="is a read-only replica") as refusal:
        RedisBootstrapper(url, SHOP).ping(5)
    assert f"its master is 127.0.0.1:{watched.master}" in refusal.value.message
    assert "address of the master" in refusal.value.hint
    assert refusal.value.exit_code == 4


MOMENTS = {
    "before the plan": ("phase", "plan"),
    "before the lock": ("phase", "lock"),
    "under the lock": ("phase", "plan again"),
    "before the record": ("change-started", "apply"),
    "after the record": ("change", "apply"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fail_over_in_the_middle_ends_the_run_or_is_followed(watched, moment):
    first = run(watched, MOMENTS[moment], watched.fail_over)
    error = first.stores[0].exception
    assert first.exit_code in {0, 4}, first
    if first.exit_code == 0:
        assert is_recorded(watched)
    else:
        assert isinstance(error, StoreUnavailable), first
    second = run(watched)
    assert second.ok, second
    assert is_recorded(watched)
    assert run(watched).outcome is Outcome.UNCHANGED


def test_a_master_that_is_cut_off_from_the_sentinels_is_not_told_as_done(watched):
    """It goes on as a master, and takes the record that is lost with it."""
    old, new = watched.master, watched.replica

    def cut_off():
        watched.fail_over()
        watched.ask(old, "REPLICAOF", "NO", "ONE")

    result = run(watched, ("phase", "verify"), cut_off)
    assert result.exit_code == 4, result
    error = result.stores[0].exception
    assert f"call 127.0.0.1:{new} the master now" in error.message
    assert f"has worked on 127.0.0.1:{old}" in error.message
    watched.ask(old, "REPLICAOF", "127.0.0.1", new)


@pytest.mark.parametrize("when", ["between two batches", "before the last look"])
def test_lifetimes_that_a_fail_over_interrupts_are_set_by_the_next_call(watched, monkeypatch, when):
    with client_at(watched.master, password="right") as client:
        client.mset({f"cart:{number}": "x" for number in range(3000)})
        client.wait(1, 20_000)
    looks = []
    plain_count = MissingLifetimes.count

    def counted_then(self, masters):
        if when == "before the last look":
            watched.fail_over()
        return plain_count(self, masters)

    plain_walk = MissingLifetimes._walk

    def walked(self, master, take):
        def taken(batch):
            take(batch)
            looks.append(len(batch))
            if len(looks) == 1 and when == "between two batches":
                watched.fail_over()

        plain_walk(self, master, taken)

    url = StoreUrl.parse("redis", watched.url)
    with monkeypatch.context() as patch:
        patch.setattr(MissingLifetimes, "count", counted_then)
        patch.setattr(MissingLifetimes, "_walk", walked)
        with Keyspace(url, SHOP, TIMING) as keyspace, pytest.raises(StoreUnavailable) as refusal:
            keyspace.mend_missing()
    assert "had got a lifetime on that server before" in refusal.value.message
    assert "Run fix-ttl again" in refusal.value.hint
    watched.settle()
    with Keyspace(url, SHOP, TIMING) as keyspace:
        mended = keyspace.mend_missing()
        assert mended.left.total() == 0
        assert keyspace.count_missing() == {}
    with client_at(watched.master, password="right") as client:
        assert all(0 < client.ttl(f"cart:{number}") <= 60 for number in (0, 1500, 2999))
        assert isinstance(client, redis.Redis)


def cut_off(watched):
    """Let the Sentinel choose another master, and the old one go on as a master."""
    old = watched.master
    watched.fail_over()
    watched.ask(old, "REPLICAOF", "NO", "ONE")
    return old


def test_a_repair_on_a_master_that_is_cut_off_is_not_told_as_done(watched, monkeypatch):
    assert run(watched).ok
    with client_at(watched.master, password="right") as client:
        client.mset({f"cart:{number}": "x" for number in range(3)})
        client.wait(1, 20_000)
    store = RedisBootstrapper(watched.url, SHOP, timing=TIMING)
    policy = RetryPolicy.of(TIMING)
    look = BootstrapOrchestrator([store], retry=policy).run(Mode.REPAIR)
    assert [change.name for change in look.stores[0].changes] == ["cart"]
    plain_mend, old = MissingLifetimes.mend, []

    def mended_then(self, masters, **given):
        found = plain_mend(self, masters, **given)
        old.append(cut_off(watched))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(MissingLifetimes, "mend", mended_then)
        done = BootstrapOrchestrator([store], retry=policy).run(Mode.REPAIR, approved=look)
    error = done.stores[0].error
    assert done.exit_code == 4, done
    assert f"call 127.0.0.1:{watched.master} the master now" in error.message
    assert "3 keys had got a lifetime on that server before" in error.message
    assert "Run repair again" in error.hint
    watched.ask(old[0], "REPLICAOF", "127.0.0.1", watched.master)


def test_a_master_that_is_cut_off_keeps_no_record_that_is_told_as_written(watched):
    """The run has proved and verified everything, and is about to remember it."""
    old, left = [], [True]

    def observe(event):
        if left and event.kind == "store-done" and event.phase is Phase.VERIFY:
            left.clear()
            old.append(cut_off(watched))

    store = RedisBootstrapper(watched.url, SHOP, timing=TIMING)
    engine = BootstrapOrchestrator(
        [store],
        observers=[observe],
        retry=RetryPolicy.of(TIMING),
        blueprint="shop",
        fingerprint="f" * 12,
    )
    result = engine.run()
    assert result.exit_code == 4, result
    assert f"call 127.0.0.1:{watched.master} the master now" in result.stores[0].error.message
    for port in watched.ports:
        assert watched.ask(port, "EXISTS", "is-db-bootstrap:memory:shop") == 0
    watched.ask(old[0], "REPLICAOF", "127.0.0.1", watched.master)


def test_the_line_of_sentinels_is_typed(watched, tmp_path):
    [(line, _)] = commands(list(blocks("docs/how-to/standbys.md"))[4])
    found = "redis+sentinel://:secret@redis-1:26379,redis-2:26379/mymaster/0"
    assert found in line
    done = Reader(tmp_path, {}).type(line.replace(found, watched.url))
    assert done.returncode == 0, done.stderr
    assert watched.ask(watched.master, "EXISTS", "is-db-bootstrap:conventions:novel_genesis")


# --- a cluster

#: A server gives a fail-over up that has taken so many seconds (CLUSTER_MF_TIMEOUT), and one more.
GIVEN_UP_S = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The ports of three masters and three replicas."""
    start = Starter(tmp_path_factory.mktemp("redis-cluster"))
    ports = [free_port() for _ in range(6)]
    for port in ports:
        start("--port", str(port), "--save", "", "--cluster-enabled", "yes")
    for port in ports:
        until(lambda port=port: client_at(port).ping(), "a node did not start")
    nodes = [f"127.0.0.1:{port}" for port in ports]
    create = ["redis-cli", "--cluster", "create", *nodes, "--cluster-replicas", "1"]
    subprocess.run([*create, "--cluster-yes"], check=True, capture_output=True, timeout=120)

    def is_linked():
        roles = [client_at(port).role() for port in ports]
        replicas = [role for role in roles if role[0] == "slave"]
        return len(replicas) == 3 and all(role[3] == "connected" for role in replicas)

    until(is_linked, "the replicas were not linked")
    yield ports
    start.close()


def promote_replica_of(ports, key):
    """Let the replica of the master that holds `key` take its place."""
    with redis.RedisCluster("127.0.0.1", ports[0], decode_responses=True) as client:
        master = client.get_node_from_key(key)
        replica = next(
            port
            for port in ports
            if client_at(port).role()[:3] == ["slave", master.host, master.port]
        )
    asked_at = [0.0]

    def is_promoted():
        if client_at(replica).role()[0] == "master":
            return True
        if time.monotonic() - asked_at[0] > GIVEN_UP_S:
            asked_at[0] = time.monotonic()
            client_at(replica).execute_command("CLUSTER FAILOVER")
        return False

    until(is_promoted, "the replica was not promoted")
    until(lambda: client_at(master.port).role()[0] == "slave", "the master was not demoted")


@pytest.mark.parametrize("moment", ["before the record", "after the record"])
def test_a_master_of_a_cluster_that_is_replaced_is_followed(cluster, moment):
    url = f"redis+cluster://127.0.0.1:{cluster[0]}"
    with redis.RedisCluster("127.0.0.1", cluster[0]) as client:
        client.delete(RECORD)
    left = [MOMENTS[moment]]

    def observe(event):
        if left and (event.kind, getattr(event.phase, "value", None)) == left[0]:
            left.clear()
            promote_replica_of(cluster, RECORD)

    store = RedisBootstrapper(url, SHOP, timing=TIMING)
    policy = RetryPolicy.of(TIMING)
    first = BootstrapOrchestrator([store], observers=[observe], retry=policy).run()
    assert first.exit_code in {0, 4}, first
    again = RedisBootstrapper(url, SHOP, timing=TIMING)
    second = BootstrapOrchestrator([again], retry=policy).run()
    assert second.ok, second
    told = {first.outcome, second.outcome}
    assert Outcome.CHANGED in told, (first, second)
    with redis.RedisCluster("127.0.0.1", cluster[0]) as client:
        assert client.exists(RECORD)

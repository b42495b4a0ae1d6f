"""`neo4j://` and clusters: what a run makes of routing tables and of rows as a cluster gives them.

A cluster needs Neo4j Enterprise, so its rows are written down here as the manual shows them ("Show
databases", "Clustering glossary"). The routing is real: a front tells other addresses than the
server, so the driver is led as behind NAT, or by a cluster whose leader changes.
"""

from __future__ import annotations

import itertools
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from neo4j import exceptions as raised

from bolt_front import BoltFront
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import BootstrapError, StoreUnavailable
from is_db_bootstrap.results import Change, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.errors import translated
from is_db_bootstrap.stores.neo4j.members import refuse_members, writers_told
from pages import Reader, blocks, commands

pytestmark = pytest.mark.neo4j

CHANGE = Change("V001__a.cypher", "cypher")
TIMING = Timing(timeout_s=30, connect_timeout_s=10, retry_initial_s=0.05, retry_maximum_s=0.3)


# --- rows of a cluster


def member(address, *, writer=False, status="online", access="read-write", said=""):
    """A row of `SHOW DATABASE shop` on a cluster."""
    return {
        "name": "shop",
        "address": address,
        "role": "primary",
        "writer": writer,
        "access": access,
        "currentStatus": status,
        "statusMessage": said,
    }


LEADER, FOLLOWER, THIRD = "one:7687", "two:7687", "three:7687"
HEALTHY = [member(LEADER, writer=True), member(FOLLOWER), member(THIRD)]
NO_LEADER = [member(LEADER), member(FOLLOWER), member(THIRD)]


@pytest.mark.parametrize(
    ("address", "rows"),
    [
        ("neo4j://two:7687", HEALTHY),
        ("neo4j+s://front:7687", HEALTHY),
        ("bolt://one:7687", HEALTHY),
        ("bolt://tunnel:17687", HEALTHY),
        ("neo4j://one:7687", [*HEALTHY[:2], member(THIRD, status="offline")]),
        ("neo4j://one:7687", [*HEALTHY[:2], member(THIRD, status="store copying")]),
        ("bolt://anywhere:7687", [member(LEADER, writer=True)]),
        ("neo4j://one:7687", []),
    ],
)
def test_a_database_whose_writer_can_be_reached_is_taken(address, rows):
    refuse_members(StoreUrl.parse("neo4j", address), rows)


REFUSED = [
    ("bolt://two:7687", HEALTHY, "Its writer is one:7687", "Write neo4j:// instead of bolt://"),
    (
        "neo4j://one:7687",
        NO_LEADER,
        "No member of the cluster .* one:7687 online, two:7687 online",
        "becoming the leader",
    ),
    (
        "neo4j://one:7687",
        [member(LEADER, writer=True, status="starting"), *NO_LEADER[1:]],
        "one:7687 starting",
        "becoming the leader",
    ),
    (
        "neo4j://one:7687",
        [member(each, writer=each == LEADER, access="read-only") for each in (LEADER, FOLLOWER)],
        "or it is read-only",
        "",
    ),
    (
        "bolt://two:7687",
        [HEALTHY[0], member(FOLLOWER, status="offline", said="out of disk"), HEALTHY[2]],
        "is offline: out of disk",
        "START DATABASE",
    ),
    ("bolt://x:7687", [member(LEADER, status="quarantined")], "is quarantined", "see its log"),
]


@pytest.mark.parametrize(("address", "rows", "words", "way_out"), REFUSED)
def test_a_database_without_a_writer_for_us_is_waited_for_and_says_why(
    address, rows, words, way_out
):
    with pytest.raises(StoreUnavailable, match=words) as refusal:
        refuse_members(StoreUrl.parse("neo4j", address), rows)
    assert way_out in refusal.value.hint


def test_the_writers_of_a_routing_table_are_read():
    table = [
        {"addresses": [LEADER], "role": "WRITE"},
        {"addresses": [FOLLOWER, THIRD], "role": "READ"},
        {"addresses": [LEADER, FOLLOWER, THIRD], "role": "ROUTE"},
    ]
    assert writers_told(table) == [LEADER]
    assert writers_told(table[1:]) == []


# --- errors of a cluster


def of(target, code, message):
    exc = raised.Neo4jError._hydrate_neo4j(code=f"Neo.{code}", message=message)
    return translated(exc, target, "V001__a.cypher, statement 1 (line 1)", CHANGE)


FOLLOWER_SAYS = (
    "No write operations are allowed directly on this database. Connect to the leader, or use "
    "the neo4j:// scheme."
)
CLUSTER_ERRORS = [
    ("ClientError.Cluster.NotALeader", FOLLOWER_SAYS),
    ("TransientError.Cluster.NotALeader", FOLLOWER_SAYS),
    ("ClientError.General.ForbiddenOnReadOnlyDatabase", "Writing in read access mode"),
    ("TransientError.General.DatabaseUnavailable", "Database 'shop' is unavailable."),
    ("TransientError.Cluster.ReplicationFailure", "Failed to replicate"),
    ("TransientError.Transaction.LeaseExpired", "The lease used by this transaction has expired"),
]


@pytest.mark.parametrize(("code", "message"), CLUSTER_ERRORS)
@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_an_error_of_a_cluster_is_no_fault_of_the_file(scheme, code, message):
    error = of(f"{scheme}://two:7687", code, message)
    assert isinstance(error, StoreUnavailable), error
    assert error.exit_code == 4
    if "NotALeader" in code and code.startswith("Client"):
        says_neo4j = "Write neo4j:// instead of bolt://" in error.hint
        assert says_neo4j is (scheme == "bolt")


@pytest.mark.parametrize(
    "exc",
    [
        raised.SessionExpired("Failed to obtain connection towards 'WRITE' server."),
        raised.ServiceUnavailable("Unable to retrieve routing information"),
        raised.ReadServiceUnavailable("No read service currently available"),
        raised.WriteServiceUnavailable("No write service currently available"),
        raised.SessionExpired("Server at one:7687 is not the leader any more"),
    ],
)
def test_what_the_driver_says_of_routing_is_transient(exc):
    error = translated(exc, "neo4j://one:7687", "", CHANGE)
    assert isinstance(error, StoreUnavailable)
    assert isinstance(error, BootstrapError)


# --- real routing


@pytest.fixture
def fronts(neo4j_url):
    """`fronts()`: a front of the server, which has no constraints and no nodes."""
    parts = urlsplit(neo4j_url)
    made = []

    def make(told=None):
        """A front that tells `told` for each address of the server. None: the server's own."""
        front = BoltFront((parts.hostname, parts.port))
        tell(front, told)
        made.append(front)
        return front

    def tell(front, told):
        own = [parts.netloc.rpartition("@")[2], f"localhost:{parts.port}", front.address]
        front.tells = dict.fromkeys(own, told) if told else {}

    make.tell = tell
    make.url = lambda front, scheme: neo4j_url.replace("bolt:", f"{scheme}:").replace(
        parts.netloc.rpartition("@")[2], front.address
    )
    yield make
    for front in made:
        front.close()


@pytest.fixture
def store(tmp_path):
    """`store(url)`: a bootstrapper of one constraint and one node."""
    folder = tmp_path / "cypher"
    folder.mkdir()
    constraint = "CREATE CONSTRAINT shop_id IF NOT EXISTS FOR (n:Shop) REQUIRE n.id IS UNIQUE;\n"
    (folder / "V001__shop.cypher").write_text(constraint)
    (folder / "V002__first.cypher").write_text("MERGE (:Shop {id: 1});\n")
    blueprint = Blueprint("shop", "for tests", cypher=folder)
    return lambda url: Neo4jBootstrapper(url, blueprint, timing=TIMING)


def run(store, at=None, happen=lambda: None):
    left = [at] if at else []

    def observe(event):
        if left and (event.kind, getattr(event.phase, "value", None)) == left[0]:
            left.clear()
            happen()

    policy = RetryPolicy.of(TIMING)
    return BootstrapOrchestrator([store], observers=[observe], retry=policy).run()


def test_a_single_server_is_brought_up_through_routing(fronts, store):
    front = fronts()
    url = fronts.url(front, "neo4j")
    first = run(store(url))
    assert first.outcome is Outcome.CHANGED, first
    assert front.routed
    assert run(store(url)).outcome is Outcome.UNCHANGED


def test_a_writer_that_is_told_and_cannot_be_reached_is_named(fronts, store):
    """As behind NAT, or through a port-forward."""
    front = fronts("neo4j-0.invalid:7687")
    with pytest.raises(StoreUnavailable, match=r"names cannot be reached.*neo4j-0\.invalid:7687"):
        store(fronts.url(front, "neo4j")).ping(10)
    with pytest.raises(StoreUnavailable) as refusal:
        store(fronts.url(front, "neo4j")).ping(10)
    assert "server.bolt.advertised_address" in refusal.value.hint
    assert "Write bolt:// instead of neo4j://" in refusal.value.hint
    with closing(store(fronts.url(front, "bolt"))) as direct:
        assert direct.ping(10).version


MOMENTS = {
    "before the plan": (("phase", "plan"), {0, 4}),
    "before the lock": (("phase", "lock"), {0, 4}),
    "before a file": (("change-started", "apply"), {4}),
    "after a file": (("change", "apply"), {4}),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_leader_that_changes_in_the_middle_doubles_nothing(fronts, store, moment):
    """The members share one store here, so nothing that was committed is lost, as in a cluster."""
    router, leader, next_leader = fronts(), fronts(), fronts()
    fronts.tell(router, leader.address)
    url = fronts.url(router, "neo4j")

    def change_leader():
        fronts.tell(router, next_leader.address)
        leader.close()

    at, codes = MOMENTS[moment]
    first = run(store(url), at, change_leader)
    assert first.exit_code in codes, first
    second = run(store(url))
    assert second.ok, second
    both = itertools.chain(first.stores[0].changes, second.stores[0].changes)
    done = [each.name for each in both if each.outcome is Outcome.CHANGED]
    assert done == ["V001__shop.cypher", "V002__first.cypher"]
    assert run(store(url)).outcome is Outcome.UNCHANGED


def test_the_line_of_routing_is_typed(neo4j_url, tmp_path):
    [(line, _)] = commands(list(blocks("docs/how-to/standbys.md"))[5])
    found = "neo4j://neo4j:secret@graph-1:7687"
    assert found in line
    line = line.replace(found, neo4j_url.replace("bolt:", "neo4j:"))
    done = Reader(tmp_path, {}).type(line)
    assert done.returncode == 0, done.stderr

"""A change that somebody else's transaction blocks on Neo4j, which has no limit for that."""

from __future__ import annotations

import threading

import neo4j
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.waiting import read_look

pytestmark = pytest.mark.neo4j
both = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
SOON_S = 60
CONSTRAINT = "CREATE CONSTRAINT x_p IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE;"
#: The index of the first stays POPULATING until both are committed.
BEHIND = f"CREATE CONSTRAINT y_p IF NOT EXISTS FOR (n:Y) REQUIRE n.p IS UNIQUE;\n{CONSTRAINT}"
DATA = "MATCH (n:X) SET n.seen = true;"
BATCHES = "MATCH (n:X) CALL (n) { SET n.seen = true } IN TRANSACTIONS OF 2 ROWS;"
#: Neo4j takes longer than the patience of its test to build the index of the constraint.
MANY = 400_000


@pytest.fixture
def driver(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=(url.username, url.password), notifications_min_severity="OFF"
    ) as made:
        yield made


@pytest.fixture
def held(driver):
    """A plain client's transaction, open until the test ends."""
    driver.execute_query("CREATE (:X {p: 1})")
    with driver.session() as session, session.begin_transaction() as transaction:
        yield transaction


@pytest.fixture
def apply(neo4j_url, tmp_path):
    """Applies one file, and returns the result and the events."""
    opened = []

    def run(text, *, patience_s, attempts=1, observe=lambda _: None):
        (tmp_path / "V1__a.cypher").write_text(text)
        blueprint = Blueprint("mine", "test", cypher=tmp_path)
        store = Neo4jBootstrapper(neo4j_url, blueprint, timing=Timing(connect_timeout_s=SOON_S))
        opened.append(store)
        events = []

        def note(event):
            events.append(event)
            observe(event)

        retry = RetryPolicy(
            deadline_s=SOON_S,
            lock_timeout_s=patience_s,
            busy_attempts=attempts,
            busy_initial_s=0.1,
            busy_maximum_s=0.1,
        )
        return BootstrapOrchestrator([store], retry=retry, observers=[note]).run(), events

    yield run
    for each in opened:
        each.close()


def told_in_apply(events):
    return [
        event.message
        for event in events
        if event.kind == "still-waiting" and event.phase is Phase.APPLY
    ]


def rows(*, hits=1, status="Running", others_locks=5):
    """What `SHOW TRANSACTIONS` says of a schema statement of ours, and of somebody else."""
    ours = {"id": "t-2", "status": status, "meta": {"tag": "us"}, "locks": 2, "hits": hits}
    other = {"id": "t-1", "status": "Running", "meta": {}, "locks": others_locks, "hits": 9}
    facts = {"user": "bob", "client": "10.0.0.1:5", "since": "now", "faults": 0, "outer": ""}
    return [ours | facts, other | facts]


def look(*, schema=True, **facts):
    return read_look(rows(**facts), {"tag": "us"}, schema=schema)


@pytest.mark.parametrize(
    ("first", "second", "is_told", "is_ended"),
    [
        (look(), look(), True, True),
        (look(), look(hits=2), False, False),
        (look(), look(others_locks=0), False, False),
        (look(schema=False), look(schema=False), False, False),
        (None, look(), True, False),
        (None, look(schema=False, status="Blocked by: [t-1]"), True, True),
        (None, look(schema=False, status="Blocked by: [t-2]"), False, False),
    ],
    ids=["rests", "works", "alone", "index is built", "first look", "blocked", "by ourselves"],
)
def test_a_statement_counts_as_blocked_by_what_two_looks_say(first, second, is_told, is_ended):
    assert ("t-1 (user bob, from 10.0.0.1:5, open since now)" in second.sentence(first)) is is_told
    assert (second.stuck(first) == ["t-2"]) is is_ended


@both
@pytest.mark.parametrize(
    "text", [CONSTRAINT, BEHIND, DATA], ids=["schema", "behind another", "data"]
)
def test_a_statement_that_an_open_transaction_blocks_is_ended_and_names_it(
    held, apply, driver, text
):
    held.run("MATCH (n:X) SET n.p = 2 CREATE (:X {p: 3})").consume()
    result, events = apply(text, patience_s=1)
    error = result.stores[0].error
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 4)
    assert "waited for 1 s and was ended." in error.message
    assert "blocked by" in error.message
    assert "(user neo4j, from 127.0.0.1:" in error.message
    assert "open since " in error.message
    assert any("blocked by" in message for message in told_in_apply(events))
    held.rollback()
    left = driver.execute_query(
        "SHOW TRANSACTIONS YIELD metaData WHERE metaData.isDbBootstrap IS NOT NULL RETURN 1"
    )
    assert left.records == []
    assert apply(text, patience_s=SOON_S)[0].outcome is Outcome.CHANGED


def test_a_statement_that_was_ended_is_tried_again_and_goes_through(held, apply):
    held.run("CREATE (:X {p: 3})").consume()

    def free_after_first_try(event):
        if event.kind == "waiting" and "was ended" in event.message:
            held.rollback()

    result, _ = apply(CONSTRAINT, patience_s=1, attempts=5, observe=free_after_first_try)
    assert result.outcome is Outcome.CHANGED


def test_batches_that_a_transaction_blocks_are_left_to_wait(held, apply):
    """What one has committed already, nobody may begin again."""
    held.run("MATCH (n:X) SET n.p = 2").consume()
    patience_s = 0.5
    timers = []

    def free_long_after_the_patience(event):
        if event.kind == "still-waiting" and "blocked by" in event.message and not timers:
            timers.append(threading.Timer(4 * patience_s, held.rollback))
            timers[0].start()

    result, events = apply(BATCHES, patience_s=patience_s, observe=free_long_after_the_patience)
    assert result.outcome is Outcome.CHANGED, result
    assert any("blocked by" in message for message in told_in_apply(events))


@pytest.mark.soak
def test_a_constraint_whose_index_is_being_built_is_not_ended(held, apply, driver):
    """Although a transaction that holds other locks is open all the time."""
    with driver.session() as session:
        fill = "UNWIND range(1, $n) AS i CALL (i) { CREATE (:X {p: i + 10}) } IN TRANSACTIONS"
        session.run(fill, n=MANY).consume()
    held.run("CREATE (:Other)").consume()
    result, events = apply(CONSTRAINT, patience_s=0.3)
    assert result.outcome is Outcome.CHANGED, result
    assert [event for event in events if event.kind == "waiting"] == []

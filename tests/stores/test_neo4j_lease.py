"""What a run that lost its lock can still do to Neo4j: nothing that another run may have begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import neo4j
import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint, SeedNode
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import (
    BootstrapError,
    ChangeFailed,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change, LockHolder
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.begun import facts
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.lock import LABEL as LOCK_LABEL
from is_db_bootstrap.stores.neo4j.own_schema import OWN_SCHEMA

pytestmark = pytest.mark.neo4j
#: These tests wait for leases to lapse, so `make soak` has them for the older release.
both = pytest.mark.parametrize(
    "neo4j_url", [pytest.param("5.26", marks=pytest.mark.soak), "2026.08"], indirect=True
)
SOON_S = 60
#: Long enough for a busy machine to renew it, short enough to wait until it has lapsed.
SHORT_S = 0.3


def client(address: str) -> neo4j.Driver:
    url = StoreUrl.parse("neo4j", address)
    return neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=(url.username, url.password), notifications_min_severity="OFF"
    )


@contextmanager
def querying(address):
    with client(address) as driver:
        yield lambda text, **p: [dict(r) for r in driver.execute_query(text, p).records]


@pytest.fixture
def query(neo4j_url):
    with querying(neo4j_url) as found:
        yield found


@pytest.fixture
def held(neo4j_url):
    """A plain client's transaction, open until the test ends."""
    with (
        client(neo4j_url) as driver,
        driver.session() as session,
        session.begin_transaction() as transaction,
    ):
        yield transaction


@pytest.fixture
def store(neo4j_url, tmp_path):
    """A bootstrapper over the files that a test names, which are added to those of earlier calls."""
    opened = []

    def build(files: dict[str, str], *, lease_s: float = 60, **options) -> Neo4jBootstrapper:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        blueprint = Blueprint("mine", "test", cypher=tmp_path, **options)
        made = Neo4jBootstrapper(
            neo4j_url,
            blueprint,
            timing=Timing(lease_s=lease_s, connect_timeout_s=SOON_S),
            seed=True,
        )
        opened.append(made)
        made.ping(SOON_S)
        return made

    yield build
    for each in opened:
        each.close()


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 3 * SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_blocked(query) -> bool:
    return bool(
        query("SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN status")
    )


def long_running(query) -> list[str]:
    """Transactions of ours that are there for half a second: a constraint that waits is not shown
    as blocked.
    """
    rows = query(
        "SHOW TRANSACTIONS YIELD transactionId, metaData, elapsedTime "
        "WHERE metaData.isDbBootstrap IS NOT NULL AND elapsedTime.milliseconds > 500 RETURN "
        "transactionId AS id"
    )
    return [row["id"] for row in rows]


def waiting_constraints(query) -> list[str]:
    """The transaction of a marked file's second statement, which a held node keeps from ending."""
    if marks(query) != [{"version": "1", "begun": 2, "running": True}]:
        return []
    return long_running(query)


def recorded(query) -> list[str]:
    rows = query(
        "MATCH (m:__Neo4jMigration) WHERE m.source IS NOT NULL RETURN m.source AS s ORDER BY "
        "m.version, s"
    )
    return [row["s"] for row in rows]


def count(query, label: str) -> int:
    return query(f"MATCH (n:{label}) RETURN count(n) AS n")[0]["n"]


# --- a lease that another run has taken over

SCHEMA = "CREATE CONSTRAINT c IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE;"
BATCHES = "UNWIND range(1, 4) AS i CALL (i) { CREATE (:Row {i: i}) } IN TRANSACTIONS OF 2 ROWS;"


def taken_over(store, files: dict[str, str], **options) -> Neo4jBootstrapper:
    """A store that planned under its lock, and whose lock another run has by now."""
    loser = store(files, lease_s=SHORT_S, **options)
    assert not isinstance(loser.try_lock("the loser"), LockHolder)
    time.sleep(SHORT_S + 0.2)
    assert not isinstance(store({}, **options).try_lock("the winner"), LockHolder)
    return loser


@both
@pytest.mark.parametrize(
    "text", ["CREATE (:Row);", SCHEMA, BATCHES], ids=["data", "schema", "batches"]
)
def test_a_run_that_lost_its_lease_commits_nothing_and_records_nothing(store, query, text):
    loser = taken_over(store, {"V1__a.cypher": text})
    with pytest.raises(
        StoreUnavailable, match=r"lock of this run was lost .* the winner holds it now"
    ) as caught:
        loser.apply(Change("V1__a.cypher", "cypher"))
    assert caught.value.exit_code == 4
    assert count(query, "Row") == 0
    assert query("SHOW CONSTRAINTS YIELD name WHERE name = 'c'") == []
    assert recorded(query) == []


def test_a_run_that_lost_its_lease_creates_no_seed(store, query):
    seeds = (SeedNode("Row", {"id": 1}, {}),)
    loser = taken_over(store, {}, seed_nodes=seeds)
    with pytest.raises(StoreUnavailable, match="lock of this run was lost"):
        loser.apply(Change("Row 1", "seed"))
    assert count(query, "Row") == 0


@both
def test_a_lease_that_was_lost_during_a_schema_statement_keeps_the_file_out_of_the_history(
    store, query, held
):
    held.run("CREATE (:X {p: 1})").consume()  # keeps the constraint waiting
    loser = store({"V1__a.cypher": SCHEMA}, lease_s=SHORT_S)
    assert not isinstance(loser.try_lock("the loser"), LockHolder)
    (change,) = loser.plan().changes
    raised = []

    def apply() -> None:
        try:
            loser.apply(change)
        except BootstrapError as exc:
            raised.append(exc)

    thread = threading.Thread(target=apply)
    thread.start()
    wait_until(lambda: long_running(query))
    time.sleep(SHORT_S + 0.2)
    assert not isinstance(store({}).try_lock("the winner"), LockHolder)
    held.rollback()
    thread.join(SOON_S)
    assert isinstance(raised[0], StoreUnavailable)
    assert "the winner holds it now" in raised[0].message
    assert recorded(query) == []


@both
def test_a_lapsed_lease_is_not_taken_over_while_its_run_commits(store, neo4j_url):
    """From the comparison of the token to the end of the transaction, the lease's node is locked."""
    first, second = store({}, lease_s=SHORT_S), store({})
    lease = first.try_lock("the first run")
    time.sleep(SHORT_S + 0.2)
    taken = []
    with (
        client(neo4j_url) as driver,
        driver.session() as session,
        session.begin_transaction() as transaction,
    ):
        assert lease.holds_in(
            lambda text, parameters: [dict(r) for r in transaction.run(text, parameters)]
        )
        thread = threading.Thread(target=lambda: taken.append(second.try_lock("the second run")))
        thread.start()
        time.sleep(0.1)
        assert taken == []
        transaction.commit()
    thread.join(SOON_S)
    assert not isinstance(taken[0], LockHolder)


def test_a_lease_that_was_given_back_is_asked_for_no_more(store, query):
    mine = store({"V1__a.cypher": "CREATE (:Row);"})
    assert mine.try_lock("me").release()
    mine.apply(Change("V1__a.cypher", "cypher"))
    assert recorded(query) == ["V1__a.cypher"]


# --- two writers of one version


@both
@pytest.mark.parametrize("kind", ["V", "R"])
def test_two_writers_record_one_version_once(store, query, kind):
    """Without any lock; the constraint of neo4j-migrations would let both through."""
    name = f"{kind}1__a.cypher"
    text = "UNWIND range(1, 3000000) AS i WITH count(i) AS n CREATE (:Row {n: n});"
    stores = [store({name: text}) for _ in range(3)]
    change = Change(name, "cypher")
    #: What each thread got, try by try: None, a remark, or what was raised.
    told: dict[int, list[object]] = {number: [] for number in range(len(stores))}

    def apply(number: int) -> None:
        """As the engine does: again while the store is busy, and never after anything else."""
        deadline = time.monotonic() + SOON_S
        while time.monotonic() < deadline:
            try:
                told[number].append(stores[number].apply(change))
            except StoreBusy as exc:
                told[number].append(exc)
                time.sleep(0.1 * number)
            except BaseException as exc:  # noqa: BLE001 - a thread keeps whatever it ended with
                told[number].append(exc)
                return
            else:
                return

    threads = [threading.Thread(target=apply, args=(number,)) for number in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SOON_S)
    assert not any(thread.is_alive() for thread in threads), told
    already = f"{name} is recorded as applied already."
    ends = [tries[-1] for tries in told.values()]
    assert sorted(map(str, ends)) == sorted(["None", already, already]), told
    refused = [each for tries in told.values() for each in tries[:-1]]
    assert all(isinstance(each, StoreBusy) for each in refused), told
    assert recorded(query) == [name]
    assert count(query, "Row") == 1
    assert query("MATCH (b:__Neo4jMigration {version: 'BASELINE'}) RETURN count(b) AS n") == [
        {"n": 1}
    ]
    assert query("MATCH ()-[m:MIGRATED_TO|REPEATED]->() RETURN count(m) AS n") == [{"n": 1}]


@both
def test_runs_that_make_our_own_schema_at_once_are_at_most_busy(store, query):
    """`CREATE INDEX … IF NOT EXISTS` is refused when another session makes the same index."""
    ends: list[object] = []
    stores = [store({}) for _ in range(4)]
    for _ in range(6):
        for row in query("SHOW CONSTRAINTS YIELD name"):
            query(f"DROP CONSTRAINT {row['name']} IF EXISTS")
        query("DROP INDEX repeated_at__Neo4jMigration IF EXISTS")
        gate = threading.Barrier(len(stores))

        def make(one: Neo4jBootstrapper, gate: threading.Barrier = gate) -> None:
            gate.wait()
            try:
                with one._errors("our schema"), one._database.session() as session:
                    one._own.make(session, OWN_SCHEMA)
            except BaseException as exc:  # noqa: BLE001 - a thread keeps whatever it ended with
                ends.append(exc)
            else:
                ends.append(None)

        threads = [threading.Thread(target=make, args=(each,)) for each in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON_S)
    assert len(ends) == 24
    others = [str(end) for end in ends if end is not None and not isinstance(end, StoreBusy)]
    assert others == []
    assert None in ends, ends


# --- taking the lock


def test_a_lock_makes_no_constraint_beside_a_run_that_holds_a_lease(store, query):
    assert not isinstance(store({}).try_lock("the first run"), LockHolder)
    for row in query("SHOW CONSTRAINTS YIELD name"):
        query(f"DROP CONSTRAINT {row['name']}")
    holder = store({}).try_lock("the second run")
    assert isinstance(holder, LockHolder)
    assert holder.who == "the first run"
    assert query("SHOW CONSTRAINTS YIELD name") == []


def test_constraints_that_go_between_plan_and_lock_are_missed_under_the_lock(store, query):
    """The plan's look serves the lock, and the plan under the lock finds that it was too old."""
    made = store({"V1__a.cypher": "CREATE (:X);"})
    lock = made.try_lock("the first")
    assert lock.release()
    made.plan()
    for row in query("SHOW CONSTRAINTS YIELD name"):
        query(f"DROP CONSTRAINT {row['name']}")
    lock = made.try_lock("the second")
    with pytest.raises(StoreBusy, match="are gone"):
        made.plan()
    assert lock.release()
    assert not isinstance(made.try_lock("the third"), LockHolder)
    assert [change.name for change in made.plan().changes] == ["V1__a.cypher"]


def test_a_lapsed_lease_without_its_constraints_is_taken_over_with_them(store, query):
    assert not isinstance(store({}, lease_s=SHORT_S).try_lock("dead"), LockHolder)
    for row in query("SHOW CONSTRAINTS YIELD name"):
        query(f"DROP CONSTRAINT {row['name']}")
    time.sleep(SHORT_S + 0.2)
    assert not isinstance(store({}).try_lock("alive"), LockHolder)
    assert len(query("SHOW CONSTRAINTS YIELD name")) == 2


def test_constraints_of_the_lease_under_other_names_are_good_enough(store, query):
    query("CREATE CONSTRAINT theirs FOR (n:__Neo4jMigrationsLock) REQUIRE n.name IS UNIQUE")
    query("CREATE CONSTRAINT other FOR (n:__Neo4jMigrationsLock) REQUIRE n.id IS UNIQUE")
    assert not isinstance(store({}).try_lock("me"), LockHolder)
    names = query("SHOW CONSTRAINTS YIELD name RETURN name ORDER BY name")
    assert [row["name"] for row in names] == ["other", "theirs"]


def test_a_name_of_the_lease_that_stands_for_something_else_is_a_conflict(store, query):
    name = "__Neo4jMigrationsLock__has_unique_name"
    query(f"CREATE CONSTRAINT {name} FOR (n:Other) REQUIRE n.name IS UNIQUE")
    with pytest.raises(StoreConflict, match=name) as caught:
        store({}).try_lock("me")
    assert "DROP CONSTRAINT" in caught.value.hint


def test_a_version_that_is_written_with_other_zeros_is_the_same_version(store, query):
    first, second = store({"V1__a.cypher": "CREATE (:Row);"}), store({})
    first.apply(Change("V1__a.cypher", "cypher"))
    query("MATCH (m:__Neo4jMigration {version: '1'}) SET m.version = '001'")
    with (
        pytest.raises(StoreBusy, match="was recorded by another run meanwhile"),
        second._database.session() as session,
        second._fence.transaction(session, Change("V1__a.cypher", "cypher")) as run,
    ):
        second._recorder.record(run, second._files[0], History(), 0)
    assert recorded(query) == ["V1__a.cypher"]


def test_a_history_of_another_target_does_not_stand_in_for_ours(store, query):
    query("CREATE (:__Neo4jMigration {version: 'BASELINE', migrationTarget: 'other'})")
    query(
        "CREATE (:__Neo4jMigration {version: '1', migrationTarget: 'other', source: "
        "'V1__theirs.cypher'})"
    )
    mine = store({"V1__a.cypher": "CREATE (:Row);"})
    for change in mine.plan().changes:
        mine.apply(change)
    rows = query(
        "MATCH (m:__Neo4jMigration) WHERE m.migrationTarget IS NULL RETURN m.version AS v "
        "ORDER BY v"
    )
    assert [row["v"] for row in rows] == ["1", "BASELINE"]
    assert query("MATCH (m {migrationTarget: 'other'}) RETURN m.isDbBootstrapBlueprint AS b") == [
        {"b": None},
        {"b": None},
    ]


def test_a_first_file_that_failed_leaves_no_history(store, query):
    broken = store({"V1__a.cypher": "CREATE (:Row {n: 1 / 0});"})
    with pytest.raises(ChangeFailed):
        broken.apply(Change("V1__a.cypher", "cypher"))
    assert query("MATCH (n) RETURN n") == []


# --- statements that commit in batches

QUICK = RetryPolicy(deadline_s=SOON_S, busy_initial_s=0.01, busy_maximum_s=0.02)


@contextmanager
def in_background(call: Callable[[], object]):
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(call()))
    thread.start()
    yield done
    thread.join(SOON_S)
    assert done


@both
def test_batches_that_are_a_deadlocks_victim_are_not_tried_again(store, query, held):
    query("UNWIND range(1, 3) AS n CREATE (:X {n: n})")
    query("UNWIND range(1, 50) AS n CREATE (:Y {n: n})")
    held.run("MATCH (y:Y) SET y.by = 'held'").consume()  # whoever has fewer locks is the victim
    held.run("MATCH (x:X {n: 1}) SET x.by = 'held'").consume()
    ours = store(
        {
            "V1__a.cypher": "UNWIND [3, 3, 2, 1] AS i "
            "CALL (i) { MATCH (x:X {n: i}) SET x.by = 'us' CREATE (:Row {i: i}) } "
            "IN TRANSACTIONS OF 2 ROWS;"
        }
    )
    with in_background(BootstrapOrchestrator([ours], retry=QUICK).run) as done:
        wait_until(lambda: is_blocked(query))
        held.run("MATCH (x:X {n: 2}) SET x.by = 'held'").consume()
        held.commit()
    (result,) = done
    assert result.exit_code == 1
    assert "DeadlockDetected" in result.stores[0].error.message
    assert "Batches of V1__a.cypher may have been committed" in result.stores[0].error.message
    assert "ends with a conflict that names the two ways out" in result.stores[0].error.hint
    assert BootstrapOrchestrator([ours], retry=QUICK).run().exit_code == 6
    assert query("MATCH (r:Row) RETURN r.i AS i") == [{"i": 3}, {"i": 3}]
    assert recorded(query) == []


@both
def test_a_run_goes_on_behind_batches_that_an_earlier_run_has_ended(store, query, held):
    held.run("CREATE (:X {p: 1})").consume()  # keeps the constraint waiting
    files = {"V1__a.cypher": f"{BATCHES}\n{SCHEMA}"}
    ours = store(files)
    with in_background(BootstrapOrchestrator([ours], retry=QUICK).run) as done:
        wait_until(lambda: waiting_constraints(query))
        query("TERMINATE TRANSACTIONS $ids", ids=waiting_constraints(query))
        held.rollback()
    (result,) = done
    if (
        result.exit_code == 4
    ):  # some versions call what was terminated transient, and the run goes on
        result = BootstrapOrchestrator([ours], retry=QUICK).run()
    assert result.exit_code == 0, result
    assert any("went on at statement 2" in note for note in result.stores[0].notes)
    assert count(query, "Row") == 4
    assert recorded(query) == list(files)
    assert marks(query) == []


def test_batches_that_the_server_refuses_unread_are_refused_as_any_other_statement(store, query):
    """They leave no mark, so the file may be corrected and run again."""
    wrong = store(
        {
            "V1__a.cypher": "UNWIND [1] AS i CALL (i) { CREATE (:Row {i: j}) } IN TRANSACTIONS OF 1 ROWS;"
        }
    )
    with pytest.raises(ChangeFailed, match="was refused") as caught:
        wrong.apply(Change("V1__a.cypher", "cypher"))
    assert "committed" not in caught.value.message
    assert marks(query) == []
    right = store({"V1__a.cypher": BATCHES})
    assert right.apply(right.plan().changes[0]) is None
    assert count(query, "Row") == 4


# --- a file that cannot share a transaction with its record, and whose run was killed

#: The third row of the second batch waits until nobody holds the node.
SLOW_BATCHES = (
    "UNWIND range(1, 4) AS i CALL (i) { MATCH (g:Gate) WHERE i = 3 SET g.passed = true "
    "WITH count(*) AS n CREATE (:Row {i: i}) } IN TRANSACTIONS OF 2 ROWS;"
)


def marks(query) -> list[dict[str, object]]:
    return query(
        "MATCH (m:__IsDbBootstrapBegun) "
        "RETURN m.version AS version, m.begun AS begun, m.running AS running"
    )


def killed_in(neo4j_url: str, folder, wait: Callable[[], object]) -> None:
    """Apply the first planned file in a process, under a lease, and kill it when `wait` returns."""
    script = f"""
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
store = Neo4jBootstrapper(
    {neo4j_url!r}, Blueprint("mine", "", cypher=Path({str(folder)!r})), timing=Timing(lease_s=60)
)
change = store.plan().changes[0]
store.try_lock("the killed run")
store.apply(change)
"""
    child = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait()
    finally:
        child.kill()
        child.wait()


def end_ours(query) -> None:
    """End what a killed run has left on the server, and wait until nothing of it is left."""

    def none_left() -> bool:
        rows = query(
            "SHOW TRANSACTIONS YIELD transactionId, metaData "
            "WHERE metaData.isDbBootstrap IS NOT NULL RETURN transactionId AS id"
        )
        for row in rows:  # one that has ended meanwhile is no error
            query("TERMINATE TRANSACTIONS $id", id=row["id"])
        return not rows

    wait_until(none_left)


def lapse(query) -> None:
    query(f"MATCH (l:{LOCK_LABEL}) SET l.until = datetime.realtime() - duration('PT1S')")


@pytest.fixture
def half_done(store, query, held, neo4j_url, tmp_path):
    """A file of batches whose run was killed in the second batch, and still has its lease."""
    ours = store({"V1__a.cypher": SLOW_BATCHES})
    query("CREATE (:Gate)")
    held.run("MATCH (g:Gate) SET g.closed = true").consume()
    killed_in(neo4j_url, tmp_path, lambda: wait_until(lambda: is_blocked(query)))
    end_ours(query)
    held.rollback()
    assert marks(query) == [{"version": "1", "begun": 1, "running": True}]
    return ours


@both
def test_batches_whose_run_was_killed_are_a_conflict_and_run_no_second_time(half_done, query):
    assert half_done.plan().changes, "while the lease holds, the other run may be at work"
    lapse(query)
    before = count(query, "Row")
    assert before == 2
    with pytest.raises(
        StoreConflict, match=r"V1__a\.cypher was begun and is not recorded"
    ) as caught:
        half_done.plan()
    assert "Statement 1 of 1 (line 1) was running" in caught.value.message
    assert "the killed run" in caught.value.message
    result = BootstrapOrchestrator([half_done], retry=QUICK).run()
    assert result.exit_code == 6
    with pytest.raises(StoreConflict):
        half_done.apply(Change("V1__a.cypher", "cypher"))
    assert count(query, "Row") == before


def cypher_of_hint(hint: str, end: str) -> str:
    """The statement of the hint that ends with `end`."""
    return next(
        f"MATCH{part[: part.index(end)]}{end}" for part in hint.split("MATCH")[1:] if end in part
    )


@pytest.mark.parametrize(("is_retried", "rows"), [(False, 2), (True, 4)], ids=["record", "retry"])
def test_both_ways_out_of_half_done_batches_work_as_they_are_told(
    half_done, query, is_retried, rows
):
    lapse(query)
    with pytest.raises(StoreConflict) as caught:
        half_done.plan()
    if is_retried:
        assert "from statement 1 on: `is-db-bootstrap apply --retry V1__a.cypher`" in str(
            caught.value
        )
        query("MATCH (r:Row) DELETE r")
    else:
        query(cypher_of_hint(caught.value.hint, "SET m.done = true"))
    retried = ["V1__a.cypher"] if is_retried else []
    result = BootstrapOrchestrator([half_done], retry=QUICK, retry_changes=retried).run()
    assert result.exit_code == 0, result
    assert count(query, "Row") == rows
    assert recorded(query) == ["V1__a.cypher"]
    assert marks(query) == []
    assert BootstrapOrchestrator([half_done], retry=QUICK).run().outcome == "unchanged"


def test_half_done_batches_with_another_text_are_a_conflict_too_and_a_retry_begins_anew(
    half_done, query, store
):
    lapse(query)
    changed = store({"V1__a.cypher": "MERGE (:Row {i: 1});"})
    with pytest.raises(StoreConflict, match="their text has been changed since") as caught:
        changed.plan()
    assert "from its first statement on: `is-db-bootstrap apply --retry" in caught.value.hint
    retried = ["V1__a.cypher"]
    result = BootstrapOrchestrator([changed], retry=QUICK, retry_changes=retried).run()
    assert result.exit_code == 0, result
    assert result.stores[0].changes[0].nature == "neither"
    assert (recorded(query), marks(query)) == (retried, [])
    assert count(query, "Row") == 2


def test_a_retry_that_the_server_refuses_unread_keeps_the_mark_of_the_first_try(
    half_done, query, store
):
    lapse(query)
    half_done.allow_retry(["V1__a.cypher"])
    (change,) = half_done.plan().changes
    broken = "UNWIND [1] AS i CALL (i) { CREATE (:Row {i: j}) } IN TRANSACTIONS OF 1 ROWS;"
    changed = store({"V1__a.cypher": broken})
    changed.allow_retry(["V1__a.cypher"])
    with pytest.raises(ChangeFailed):
        changed.apply(change)
    assert marks(query) == [{"version": "1", "begun": 1, "running": True}]
    with pytest.raises(StoreConflict, match="was running"):
        store({}).plan()


def test_a_retry_covers_no_try_that_another_run_has_made_meanwhile(half_done, query):
    lapse(query)
    half_done.allow_retry(["V1__a.cypher"])
    assert half_done.plan().begun == ("V1__a.cypher",)
    query("MATCH (m:__IsDbBootstrapBegun) SET m.since = datetime.realtime(), m.token = 'another'")
    with pytest.raises(StoreConflict, match="was running"):
        half_done.plan()


def test_each_file_says_what_it_is(store):
    files = {
        "V1__a.cypher": "CREATE (:X);",
        "V2__b.cypher": f"{SCHEMA}\nDROP INDEX i IF EXISTS;",
        "V3__c.cypher": "DROP CONSTRAINT c;",
        "V4__d.cypher": BATCHES,
    }
    natures = [change.nature for change in store(files).plan().changes]
    assert natures == ["atomic", "repeatable", "neither", "neither"]


@both
def test_a_drop_that_was_done_before_its_run_was_killed_is_passed_over(
    store, query, neo4j_url, tmp_path, held
):
    """A constraint waits behind a drop without IF EXISTS. Then the whole file is there once."""
    query("CREATE INDEX old FOR (n:Y) ON (n.q)")
    held.run("CREATE (:X {p: 1})").consume()
    files = {"V1__a.cypher": f"DROP INDEX old;\n{SCHEMA}"}
    ours = store(files)
    killed_in(neo4j_url, tmp_path, lambda: wait_until(lambda: waiting_constraints(query)))
    end_ours(query)
    held.rollback()
    lapse(query)
    # As if the run had been killed before it could say that the first statement has ended.
    digest = facts(ours._files[0], 1, running=True)["digest"]
    query(
        "MATCH (m:__IsDbBootstrapBegun) SET m.begun = 1, m.running = true, m.digest = $digest",
        digest=digest,
    )
    result = BootstrapOrchestrator([ours], retry=QUICK).run()
    assert result.exit_code == 0, result
    assert recorded(query) == list(files)
    assert marks(query) == []


def test_a_drop_of_what_was_never_there_is_refused_each_time(store, query):
    ours = store({"V1__a.cypher": "DROP INDEX nothing;"})
    for _ in range(2):
        with pytest.raises(ChangeFailed, match="nothing"):
            ours.apply(ours.plan().changes[0])
        assert marks(query) == []


def test_a_file_of_guarded_schema_statements_is_never_marked(store, query):
    """A mark is gone once its file is recorded, so the server is told to refuse marks."""
    files = {
        "V1__a.cypher": f"{SCHEMA}\nDROP INDEX nothing IF EXISTS;",
        "V2__b.cypher": "DROP CONSTRAINT c;",
    }
    query("CREATE CONSTRAINT one_mark FOR (m:__IsDbBootstrapBegun) REQUIRE m.source IS UNIQUE")
    query(
        "UNWIND $names AS name CREATE (:__IsDbBootstrapBegun {version: '0', source: name})",
        names=list(files),
    )
    ours = store(files)
    guarded, unguarded = ours.plan().changes
    assert ours.apply(guarded) is None
    assert recorded(query) == ["V1__a.cypher"]
    with pytest.raises(ChangeFailed, match="__IsDbBootstrapBegun"):
        ours.apply(unguarded)


def test_a_file_that_lacks_only_its_record_is_recorded_and_runs_no_second_time(store, query):
    ours = store({"V1__a.cypher": BATCHES})
    (change,) = ours.plan().changes
    with ours._database.session() as session:
        ours._recorder.mark_begun(session, ours._files[0], change, 1, running=False)
    remark = ours.apply(change)
    assert remark is not None
    assert remark.endswith("and only its record was missing.")
    assert recorded(query) == ["V1__a.cypher"]
    assert count(query, "Row") == 0
    assert marks(query) == []


# --- a server that is killed

UNIQUE = "CREATE CONSTRAINT ours IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE;"


def is_building(query) -> bool:
    found = query("SHOW INDEXES YIELD name, owningConstraint WHERE name = 'ours' RETURN *")
    return [row["owningConstraint"] for row in found] == [None]


def killed_while_building(server, run: Callable[[], object], query) -> None:
    """Kill the server as soon as a run has begun to build, or fail when the build was quicker."""
    with in_background(run):
        deadline = time.monotonic() + SOON_S
        while not is_building(query):
            assert time.monotonic() < deadline
        server.kill()


@pytest.mark.parametrize(
    ("nodes", "text", "mark"),
    [(40_000, "", [{"version": "1", "begun": 1, "running": True}]), (9_000, "x" * 3000, [])],
    ids=["many nodes, with a mark", "few nodes, without"],
)
def test_a_constraint_whose_server_was_killed_while_it_was_built_is_completed_by_the_next_run(
    farm, neo4j_url, store, *, nodes, text, mark
):
    """The server keeps the index, and refuses the constraint as long as the index is there.

    The texts of few nodes are long, so that the build takes long enough to be seen.
    """
    server = farm.shared("neo4j")
    ours = store({"V1__a.cypher": UNIQUE})
    with querying(neo4j_url) as query:
        texts = [f"{number} {text}" for number in range(nodes)]
        query("UNWIND $texts AS p CREATE (:X {p: p})", texts=texts)
        killed_while_building(server, BootstrapOrchestrator([ours], retry=QUICK).run, query)
    assert farm.shared("neo4j") is server  # it was started again
    with querying(neo4j_url) as query:
        assert is_building(query)
        assert marks(query) == mark
        lapse(query)
        result = BootstrapOrchestrator([store({})], retry=QUICK).run()
        assert result.exit_code == 0, result
        assert (recorded(query), marks(query)) == (["V1__a.cypher"], [])
        assert [row["name"] for row in query("SHOW CONSTRAINTS YIELD name")].count("ours") == 1


def test_an_index_of_somebody_else_with_the_name_of_a_constraint_is_kept(store, query):
    query("CREATE INDEX theirs FOR (n:X) ON (n.p)")
    ours = store({"V1__a.cypher": UNIQUE.replace("ours", "theirs")})
    result = BootstrapOrchestrator([ours], retry=QUICK).run()
    assert (result.exit_code, recorded(query)) == (6, [])
    assert len(query("SHOW INDEXES YIELD name WHERE name = 'theirs'")) == 1


# --- whole runs, as processes

CYPHER_ONLY = (
    'from is_db_bootstrap import Blueprint\nBLUEPRINT = Blueprint("fenced", "three files")\n'
)
REVISION = '''"""One row."""
from alembic import op
revision = "0001"
down_revision = None
def upgrade():
    op.execute("CREATE TABLE entry (id int)")
    op.execute("INSERT INTO entry VALUES (1)")
def downgrade():
    op.execute("DROP TABLE entry")
'''
FILES = {
    "V001__first.cypher": "CREATE (:First);\n",
    "V002__rows.cypher": "CREATE (:Row);\nMATCH (g:Gate) SET g.passed = true;\n",
    "V003__last.cypher": "CREATE (:Last);\n",
}
LEASE_S = 5


@pytest.fixture
def blueprint(tmp_path):
    """A folder with three Cypher files, the second of which waits at a gate."""
    folder = tmp_path / "fenced"
    (folder / "cypher").mkdir(parents=True)
    (folder / "blueprint.py").write_text(CYPHER_ONLY)
    for name, text in FILES.items():
        (folder / "cypher" / name).write_text(text)
    return folder


@pytest.fixture
def apply(blueprint, neo4j_url):
    """Starts `apply` as a process, with a lease of five seconds."""
    started = []

    def start(
        *options: str, program: tuple[str, ...] = ("-m", "is_db_bootstrap")
    ) -> subprocess.Popen[str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("DB_", "POSTGRES", "DATABASE", "NEO4J", "REDIS"))
        }
        process = subprocess.Popen(
            [sys.executable, *program, "apply", "-b", str(blueprint), *options],
            env=kept | {"NEO4J_URL": neo4j_url, "IS_DB_BOOTSTRAP_LEASE": str(LEASE_S)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    told, _ = process.communicate(timeout=3 * SOON_S)
    return process.returncode, told


def assert_once(query) -> None:
    """Rows and history of the three files are there exactly once."""
    assert {label: count(query, label) for label in ("First", "Row", "Last")} == {
        "First": 1,
        "Row": 1,
        "Last": 1,
    }
    assert recorded(query) == list(FILES)
    (chain,) = query(
        "MATCH p = (:__Neo4jMigration {version: 'BASELINE'})-[:MIGRATED_TO*3]->() RETURN [n "
        "IN nodes(p) | n.version] AS v"
    )
    assert chain["v"] == ["BASELINE", "001", "002", "003"]


def end_sessions(postgres_url: str) -> int:
    """End every session of our runs on the database; how many there were."""
    server, _, database = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database]
        ).fetchall()
    return len(rows)


def test_a_run_whose_postgres_sessions_were_ended_is_taken_over_on_neo4j_and_fails(
    postgres_url, query, held, blueprint, apply
):
    (blueprint / "migrations").mkdir()
    (blueprint / "migrations" / "0001_entry.py").write_text(REVISION)
    query("CREATE (:Gate)")
    held.run("MATCH (g:Gate) SET g.closed = true").consume()
    first = apply("--postgres-url", postgres_url)
    wait_until(lambda: is_blocked(query))
    assert end_sessions(postgres_url) >= 1
    second = apply("--postgres-url", postgres_url, "--timeout", str(SOON_S))
    code, told = ended(first)
    assert code == 4, told
    assert second.poll() is None
    held.rollback()
    code, told = ended(second)
    assert code == 0, told
    assert_once(query)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM entry").fetchone() == (1,)


#: A run that stops itself when the server has done the statements of a file, uncommitted.
STOPS_ITSELF = """
import runpy, signal
from is_db_bootstrap.stores.neo4j.recording import Recorder

record = Recorder.record

def stopped(self, run, file, history, began):
    if file.name == "V002__rows.cypher":
        signal.raise_signal(signal.SIGSTOP)  # from this thread, which so sends nothing more
    record(self, run, file, history, began)

Recorder.record = stopped
runpy.run_module("is_db_bootstrap", run_name="__main__")
"""


def is_stopped(process: subprocess.Popen[str]) -> bool:
    status = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2]
    return status.split()[0] == "T"


def test_a_run_that_was_stopped_past_its_lease_commits_nothing_when_it_goes_on(
    query, blueprint, apply
):
    """The second run does the file meanwhile, and the server has done the first one's statements,
    uncommitted.
    """
    (blueprint / "cypher" / "V002__rows.cypher").write_text("CREATE (:Row);\n")
    first = apply(program=("-c", STOPS_ITSELF))
    wait_until(lambda: is_stopped(first))
    wait_until(
        lambda: query(f"MATCH (l:{LOCK_LABEL}) WHERE l.until < datetime.realtime() RETURN l.until")
    )
    code, told = ended(apply("--timeout", str(SOON_S)))
    assert code == 0, told
    assert_once(query)
    first.send_signal(signal.SIGCONT)
    code, told = ended(first)
    assert code == 4, told
    assert "lock of this run was lost" in told
    assert_once(query)


def test_of_two_runs_with_a_short_lease_one_applies_and_the_other_waits_in_vain(query, held, apply):
    query("CREATE (:Gate)")
    held.run("MATCH (g:Gate) SET g.closed = true").consume()
    first = apply()
    wait_until(lambda: is_blocked(query))
    code, told = ended(apply("--timeout", str(2 * LEASE_S)))
    assert code == 7, told
    held.rollback()
    code, told = ended(first)
    assert code == 0, told
    assert_once(query)

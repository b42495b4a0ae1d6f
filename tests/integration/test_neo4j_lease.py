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

import neo4j
import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint, SeedNode
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import BootstrapError, ChangeFailed, StoreBusy, StoreUnavailable
from is_db_bootstrap.results import Change, LockHolder
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.history import History

pytestmark = pytest.mark.neo4j
both = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
SOON_S = 60
#: Long enough for a busy machine to renew it, short enough to wait until it has lapsed.
SHORT_S = 0.3


def client(address: str) -> neo4j.Driver:
    url = StoreUrl.parse("neo4j", address)
    return neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=(url.username, url.password), notifications_min_severity="OFF"
    )


@pytest.fixture
def query(neo4j_url):
    with client(neo4j_url) as driver:
        yield lambda text, **p: [dict(r) for r in driver.execute_query(text, p).records]


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
        made = Neo4jBootstrapper(neo4j_url, blueprint, timing=Timing(lease_s=lease_s), seed=True)
        opened.append(made)
        made.ping(10)
        return made

    yield build
    for each in opened:
        each.close()


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_blocked(query) -> bool:
    return bool(
        query("SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN status")
    )


def long_running(query) -> list[str]:
    """Transactions of ours that are there for half a second: a constraint that waits is not shown as blocked."""
    rows = query(
        "SHOW TRANSACTIONS YIELD transactionId, metaData, elapsedTime "
        "WHERE metaData.isDbBootstrap IS NOT NULL AND elapsedTime.milliseconds > 500 RETURN transactionId AS id"
    )
    return [row["id"] for row in rows]


def recorded(query) -> list[str]:
    rows = query(
        "MATCH (m:__Neo4jMigration) WHERE m.source IS NOT NULL RETURN m.source AS s ORDER BY m.version, s"
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
        assert lease.confirm_in(
            lambda text, parameters: [dict(r) for r in transaction.run(text, parameters)]
        )
        thread = threading.Thread(target=lambda: taken.append(second.try_lock("the second run")))
        thread.start()
        time.sleep(0.1)
        assert taken == []
        transaction.commit()
    thread.join(SOON_S)
    assert isinstance(taken[0], LockHolder)
    assert taken[0].who == "the first run"


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
    told = []

    def apply(one: Neo4jBootstrapper) -> None:
        try:
            told.append(one.apply(change))
        except StoreBusy as exc:
            told.append(exc)

    threads = [threading.Thread(target=apply, args=(each,)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert recorded(query) == [name]
    assert count(query, "Row") == 1
    assert query("MATCH (b:__Neo4jMigration {version: 'BASELINE'}) RETURN count(b) AS n") == [
        {"n": 1}
    ]
    assert query("MATCH ()-[m:MIGRATED_TO|REPEATED]->() RETURN count(m) AS n") == [{"n": 1}]
    assert len(told) == 3
    assert told.count(None) == 1
    assert all(store.apply(change) == f"{name} is recorded as applied already." for store in stores)


def test_a_version_that_is_written_with_other_zeros_is_the_same_version(store, query):
    first, second = store({"V1__a.cypher": "CREATE (:Row);"}), store({})
    first.apply(Change("V1__a.cypher", "cypher"))
    query("MATCH (m:__Neo4jMigration {version: '1'}) SET m.version = '001'")
    with (
        pytest.raises(StoreBusy, match="was recorded by another run meanwhile"),
        second._session() as session,
        second._fenced(session, Change("V1__a.cypher", "cypher")) as run,
    ):
        second._record(run, second._files[0], History(), 0)
    assert recorded(query) == ["V1__a.cypher"]


def test_a_history_of_another_target_does_not_stand_in_for_ours(store, query):
    query("CREATE (:__Neo4jMigration {version: 'BASELINE', migrationTarget: 'other'})")
    query(
        "CREATE (:__Neo4jMigration {version: '1', migrationTarget: 'other', source: 'V1__theirs.cypher'})"
    )
    mine = store({"V1__a.cypher": "CREATE (:Row);"})
    for change in mine.plan().changes:
        mine.apply(change)
    rows = query(
        "MATCH (m:__Neo4jMigration) WHERE m.migrationTarget IS NULL RETURN m.version AS v ORDER BY v"
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
    ours = store({
        "V1__a.cypher": "UNWIND [3, 3, 2, 1] AS i "
        "CALL (i) { MATCH (x:X {n: i}) SET x.by = 'us' CREATE (:Row {i: i}) } IN TRANSACTIONS OF 2 ROWS;"
    })  # fmt: skip
    with in_background(BootstrapOrchestrator([ours], retry=QUICK).run) as done:
        wait_until(lambda: is_blocked(query))
        held.run("MATCH (x:X {n: 2}) SET x.by = 'held'").consume()
        held.commit()
    (result,) = done
    assert result.exit_code == 1
    assert "DeadlockDetected" in result.stores[0].error.message
    assert "Batches of V1__a.cypher may have been committed" in result.stores[0].error.message
    assert "begins the file anew" in result.stores[0].error.hint
    assert query("MATCH (r:Row) RETURN r.i AS i") == [{"i": 3}, {"i": 3}]
    assert recorded(query) == []


@both
def test_a_failure_behind_batches_says_that_they_may_be_there_and_is_final(store, query, held):
    """The whole file would be tried again, the batches in front of the statement that failed too."""
    held.run("CREATE (:X {p: 1})").consume()  # keeps the constraint waiting
    ours = store({"V1__a.cypher": f"{BATCHES}\n{SCHEMA}"})
    with in_background(BootstrapOrchestrator([ours], retry=QUICK).run) as done:
        wait_until(lambda: long_running(query))
        query("TERMINATE TRANSACTIONS $ids", ids=long_running(query))
        held.rollback()
    (result,) = done
    assert result.exit_code == 1
    assert "may have been committed" in result.stores[0].error.message
    assert count(query, "Row") == 4


def test_batches_that_the_server_refuses_unread_are_refused_as_any_other_statement(store):
    wrong = store(
        {
            "V1__a.cypher": "UNWIND [1] AS i CALL (i) { CREATE (:Row {i: j}) } IN TRANSACTIONS OF 1 ROWS;"
        }
    )
    with pytest.raises(ChangeFailed, match="was refused") as caught:
        wrong.apply(Change("V1__a.cypher", "cypher"))
    assert "committed" not in caught.value.message


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

    def start(*options: str) -> subprocess.Popen[str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("DB_", "POSTGRES", "DATABASE", "NEO4J", "REDIS"))
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "is_db_bootstrap", "apply", "-b", str(blueprint), *options],
            env=kept | {"NEO4J_URL": neo4j_url, "IS_DB_BOOTSTRAP_LEASE": str(LEASE_S)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    told, _ = process.communicate(timeout=SOON_S)
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
        "MATCH p = (:__Neo4jMigration {version: 'BASELINE'})-[:MIGRATED_TO*3]->() RETURN [n IN nodes(p) | n.version] AS v"
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


def test_a_run_whose_postgres_sessions_were_ended_keeps_its_lease_on_neo4j_and_fails(
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
    time.sleep(2 * LEASE_S)  # the lease of the first would have lapsed long ago
    assert (first.poll(), second.poll()) == (None, None)
    assert (
        len(
            query("SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN status")
        )
        == 1
    )
    held.rollback()
    code, told = ended(first)
    assert code == 4, told
    assert "lock of this run was lost" in told
    code, told = ended(second)
    assert code == 0, told
    assert_once(query)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM entry").fetchone() == (1,)


def test_a_run_that_was_stopped_past_its_lease_commits_nothing_when_it_goes_on(
    query, blueprint, apply
):
    """The second run does the file meanwhile, and the server has done the first one's statements, uncommitted."""
    slow = "UNWIND range(1, 20000000) AS i WITH count(i) AS n CREATE (:Row {n: n});\n"
    (blueprint / "cypher" / "V002__rows.cypher").write_text(slow)
    first = apply()
    running = "SHOW TRANSACTIONS YIELD currentQuery AS text WHERE text STARTS WITH 'UNWIND range(1, 20000000)' RETURN text"
    wait_until(lambda: query(running))
    first.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_S + 1)
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

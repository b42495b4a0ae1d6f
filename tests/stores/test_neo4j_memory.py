"""What a Neo4j database is recognised by, and what it remembers of the stores beside it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import timedelta

import neo4j
import pytest

from is_db_bootstrap.blueprint import Blueprint, SeedNode
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.memory import Member
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j import history, memory_node
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from memories import WHEN, record
from servers import neo4j_driver, wait_until_up

pytestmark = pytest.mark.neo4j
both = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
FILES = {
    "V1__schema.cypher": "CREATE CONSTRAINT a IF NOT EXISTS FOR (n:A) REQUIRE n.id IS UNIQUE;",
    "V2__rows.cypher": "CREATE (:A {id: 1});",
}


@pytest.fixture
def query(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=(url.username, url.password), notifications_min_severity="OFF"
    ) as driver:
        yield lambda text, **p: [dict(r) for r in driver.execute_query(text, p).records]


@pytest.fixture
def store(neo4j_url, tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    made = Neo4jBootstrapper(
        neo4j_url, Blueprint("mine", "test", cypher=tmp_path), timing=Timing(connect_timeout_s=60)
    )
    made.ping(60)
    yield made
    made.close()


def recalled(store):
    store.ping(60)
    store.plan()
    return store.recall()


def converge(store):
    result = BootstrapOrchestrator([store]).run()
    assert result.ok, result
    store.ping(60)


def run_remembered(store, fingerprint="f"):
    """A run that is remembered, as those of the command are."""
    return BootstrapOrchestrator([store], blueprint="mine", fingerprint=fingerprint).run()


@both
def test_a_new_database_is_blank_and_a_converged_one_holds_its_history(store):
    before = recalled(store)
    assert before.is_blank
    assert (before.place, before.holds) == ("neo4j", ())
    assert before.missing == (memory_node.HISTORY,)
    converge(store)
    after = recalled(store)
    assert not after.is_blank
    assert (after.holds, after.missing) == ((memory_node.HISTORY,), ())
    assert after.identity == before.identity != ""
    assert after.memories == ()


@both
def test_what_is_remembered_is_recalled_by_another_session(store, query):
    converge(store)
    ours, theirs = record("neo4j"), record("neo4j", "b" * 32)
    assert store.remember(ours) is None
    assert store.remember(theirs) is None
    later = replace(ours, recorded_at=WHEN + timedelta(days=1), fingerprint="g" * 12)
    assert store.remember(later) is None
    found = recalled(store).memories
    assert {each.key: each for each in found} == {ours.key: later, theirs.key: theirs}
    assert query("MATCH (n:__IsDbBootstrapMemory) RETURN count(n) AS n") == [{"n": 2}]


def test_a_record_is_written_under_the_lease_of_the_run(store, query):
    converge(store)
    lease = store.try_lock("a test")
    query("MATCH (l:__Neo4jMigrationsLock) SET l.token = 'of another run'")
    with pytest.raises(Exception, match="The lock of this run was lost"):
        store.remember(record("neo4j"))
    lease.release()
    query("MATCH (l:__Neo4jMigrationsLock) DELETE l")
    assert recalled(store).memories == ()


def test_records_of_another_blueprint_are_no_memories_of_this_one(store, query):
    converge(store)
    store.remember(record("neo4j", blueprint="theirs"))
    # The query leaves them out, so that one which is broken for others does not count here either.
    query("MATCH (n:__IsDbBootstrapMemory) SET n.record = 'broken'")
    assert recalled(store).memories == ()


def test_a_broken_record_is_a_conflict_that_names_the_node_and_its_removal(store, query):
    converge(store)
    store.remember(record("neo4j"))
    query("MATCH (n:__IsDbBootstrapMemory) SET n.record = '{\"format\": 1'")
    with pytest.raises(StoreConflict, match=f"__IsDbBootstrapMemory {'a' * 32}") as caught:
        recalled(store)
    removal = caught.value.hint.partition("run again: ")[2]
    query(removal)
    assert recalled(store).memories == ()


@pytest.mark.parametrize("value", ["{}", "{record: 1}", "{record: ''}"])
def test_a_node_without_a_readable_record_can_be_removed_as_well(store, query, value):
    converge(store)
    query(f"CREATE (n:__IsDbBootstrapMemory) SET n = {value}")
    with pytest.raises(StoreConflict) as caught:
        recalled(store)
    query(caught.value.hint.partition("run again: ")[2])
    assert not recalled(store).is_blank


def test_a_record_of_a_newer_version_is_told_and_stays(store, query):
    converge(store)
    newer = '{"format": 2, "key": "c", "version": "9.1.0"}'
    query("CREATE (n:__IsDbBootstrapMemory {key: 'c', record: $newer})", newer=newer)
    store.remember(record("neo4j"))
    found = recalled(store)
    assert [each.key for each in found.memories] == ["a" * 32]
    (remark,) = found.remarks
    assert "version 9.1.0" in remark
    kept = query("MATCH (n:__IsDbBootstrapMemory {key: 'c'}) RETURN n.record AS r")
    assert kept == [{"r": newer}]


@both
def test_a_database_whose_nodes_were_deleted_is_blank_although_its_constraints_are_there(
    store, query
):
    converge(store)
    store.remember(record("neo4j"))
    query("MATCH (n) DETACH DELETE n")
    found = recalled(store)
    assert found.is_blank
    assert found.missing == (memory_node.HISTORY,)


def test_a_lost_history_is_missing_and_the_database_is_not_blank(store, query):
    converge(store)
    query("MATCH (n:__Neo4jMigration) DETACH DELETE n")
    found = recalled(store)
    assert not found.is_blank
    assert (found.holds, found.missing) == ((), (memory_node.HISTORY,))


def test_files_that_this_server_passes_over_are_no_lost_history(neo4j_url, tmp_path):
    text = "// assume that edition is enterprise\nCREATE (:A);"
    (tmp_path / "V1__a.cypher").write_text(text)
    made = Neo4jBootstrapper(neo4j_url, Blueprint("mine", "test", cypher=tmp_path))
    found = recalled(made)
    assert found.is_blank
    assert (found.holds, found.missing) == ((), ())
    made.close()


def test_a_database_of_rows_without_any_file_is_not_lost_but_its_nodes_are(neo4j_url, query):
    seeds = Blueprint("mine", "test", seed_nodes=(SeedNode("A", {"id": 1}),))
    made = Neo4jBootstrapper(neo4j_url, seeds, seed=True)
    assert recalled(made).is_blank
    converge(made)
    made.remember(record("neo4j"))
    found = recalled(made)
    assert not found.is_blank
    assert (found.holds, found.missing) == ((), ())
    query("MATCH (n) DETACH DELETE n")
    assert recalled(made).is_blank
    made.close()


@both
def test_a_recall_after_a_plan_sends_no_query_of_its_own(store, monkeypatch):
    converge(store)
    store.remember(record("neo4j"))
    store.ping(60)
    texts = []
    run = neo4j.Session.run

    def note(session, text, *given, **more):
        texts.append(str(getattr(text, "text", text)))
        return run(session, text, *given, **more)

    monkeypatch.setattr(neo4j.Session, "run", note)
    store.plan()
    planned = len(texts)
    assert memory_node.READ_WITH_HISTORY in texts
    assert history.READ not in texts
    assert store.recall().memories == (record("neo4j"),)
    assert len(texts) == planned


def test_a_database_takes_so_many_records_and_renews_those_that_it_has(store, monkeypatch):
    monkeypatch.setattr(memory_node, "MOST_RECORDS", 1)
    converge(store)
    store.remember(record("neo4j", blueprint="theirs", key="c" * 32))
    assert recalled(store).full == ""
    assert run_remembered(store).outcome is Outcome.CHANGED
    store.ping(60)
    assert "Neo4j remembers 1 deployment and takes no more" in recalled(store).full
    renewed = run_remembered(store, "g")
    assert renewed.outcome is Outcome.CHANGED
    assert not any("takes no more" in note for note in renewed.stores[0].notes)
    assert run_remembered(store, "g").outcome is Outcome.UNCHANGED


def test_a_full_database_says_that_it_cannot_keep_a_new_record(store, query, monkeypatch):
    monkeypatch.setattr(memory_node, "MOST_RECORDS", 1)
    converge(store)
    members = {"neo4j": Member("elsewhere", "another database", "an address")}
    store.remember(record("neo4j", members=members))
    for _ in range(2):
        result = run_remembered(store)
        assert result.outcome is Outcome.UNCHANGED
        told = " ".join(result.stores[0].notes)
        assert "takes no more. This one is remembered by its other stores" in told
    assert query("MATCH (n:__IsDbBootstrapMemory) RETURN count(n) AS n") == [{"n": 1}]


def test_a_record_of_a_newer_version_under_our_key_is_left(store, query):
    assert run_remembered(store).outcome is Outcome.CHANGED
    query(
        "MATCH (n:__IsDbBootstrapMemory) "
        "SET n.record = replace(n.record, '\"format\": 1', '\"format\": 2')"
    )
    [before] = query("MATCH (n:__IsDbBootstrapMemory) RETURN n.key AS key, n.record AS record")
    store.ping(60)
    assert recalled(store).newer_keys == {before["key"]}
    result = run_remembered(store, "g")
    assert any("is newer. It is left alone" in note for note in result.stores[0].notes)
    kept = query("MATCH (n:__IsDbBootstrapMemory) RETURN n.key AS key, n.record AS record")
    assert before in kept
    assert len({row["key"] for row in kept}) == 2


def test_the_record_is_no_finding_and_changes_no_verdict(store):
    converge(store)
    store.remember(record("neo4j"))
    strict = BootstrapOrchestrator([store], strict=True).run(Mode.VERIFY)
    assert strict.ok, strict
    assert strict.stores[0].drifts == ()
    assert BootstrapOrchestrator([store]).run().outcome is Outcome.UNCHANGED


def _admin(server, *arguments):
    """Run neo4j-admin of a server that is stopped."""
    java, *rest = server.command()
    options = [each for each in rest if each.startswith(("--add-opens", "--enable", "@"))]
    done = subprocess.run(
        [java, *options, "org.neo4j.cli.AdminTool", "database", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NEO4J_HOME": str(server.home), "NEO4J_CONF": f"{server.home}/conf"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _identity(server):
    with neo4j_driver(server) as driver:
        (row,) = driver.execute_query(memory_node.READ, blueprint="").records
    return memory_node.identity_of(row)


@pytest.mark.soak
@pytest.mark.parametrize("version", ["5.26", "2026.08"])
def test_an_identity_stays_through_restart_and_restore_and_no_other_server_has_it(
    make_server, tmp_path, version
):
    original, other = make_server("neo4j", version), make_server("neo4j", version)
    first, second = _identity(original), _identity(other)
    assert first != second
    original.stop()
    other.stop()
    _admin(original, "dump", "neo4j", f"--to-path={tmp_path}")
    load = ["load", "neo4j", f"--from-path={tmp_path}", "--overwrite-destination=true"]
    for server in (original, other):
        _admin(server, *load)
        server.start()
        wait_until_up(server)
    assert _identity(original) == first
    copied = _identity(other)
    assert copied != first
    # The store id comes with the dump, so the server tells the copy apart.
    assert copied.partition("@")[0] == first.partition("@")[0]

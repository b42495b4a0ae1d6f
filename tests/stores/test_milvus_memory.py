"""What a Milvus holds, and what it remembers of the stores beside it, on both servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pymilvus import MilvusClient

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.memory import Member
from is_db_bootstrap.engine.memory_text import to_text
from is_db_bootstrap.errors import AccessDenied, StoreBusy, StoreConflict
from is_db_bootstrap.results import Change, Mode, Outcome
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.milvus import memory_collection, memory_properties
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.milvus.existing import read_existing
from memories import WHEN, record
from milvus_gateway import gateway
from servers import milvus_client

pytestmark = pytest.mark.milvus
KEY = "a" * 32
PROPERTY = f"{memory_properties.PREFIX}{KEY}"


def pytest_generate_tests(metafunc):
    if "milvus_url" in metafunc.fixturenames:
        servers = getattr(metafunc.function, "servers", ("lite", "2.3"))
        metafunc.parametrize("milvus_url", servers, indirect=True)


def on(*servers):
    """Run a test on these servers only."""

    def mark(test):
        test.servers = servers
        return test

    return mark


def collection(name, alias=""):
    return Collection(
        name,
        fields=(
            Field("id", "INT64", primary=True),
            Field("vector", "FLOAT_VECTOR", dim=8),
        ),
        indexes=(Index("vector", "FLAT", "IP"),),
        alias=alias,
        consistency="Strong",
    )


ONE = Blueprint("mine", "test", collections=(collection("docs_v1", "docs"),))
TWO = Blueprint("mine", "test", collections=(collection("docs_v2", "docs"),))
BOTH = Blueprint("mine", "test", collections=(collection("docs_v1", "docs"), collection("tags")))


@pytest.fixture
def client(milvus_url):
    plain = milvus_client(milvus_url)
    yield plain
    plain.close()


@pytest.fixture
def new(milvus_url):
    opened = []

    def open_one(blueprint=ONE, url=milvus_url):
        timing = Timing(connect_timeout_s=60, index_timeout_s=120)
        opened.append(MilvusBootstrapper(url, blueprint, timing=timing))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def recalled(store):
    store.ping(60)
    store.plan()
    return store.recall()


def converged(store):
    result = BootstrapOrchestrator([store]).run()
    assert result.ok, result
    store.ping(60)
    return store


def run_remembered(store, fingerprint="f"):
    """A run that is remembered, as those of the command are."""
    return BootstrapOrchestrator([store], blueprint="mine", fingerprint=fingerprint).run()


def fill(client, name):
    client.insert(name, [{"id": each, "vector": [1.0] * 8} for each in range(3)])


def test_a_new_milvus_is_blank_and_a_converged_one_holds_collections_and_aliases(new):
    before = recalled(new(BOTH))
    assert before.is_blank
    assert (before.place, before.identity, before.holds) == ("default", "", ())
    assert before.missing == ("docs_v1", "alias docs", "tags")
    after = recalled(converged(new(BOTH)))
    assert not after.is_blank
    assert after.holds == ("docs_v1", "alias docs", "tags")
    assert (after.missing, after.memories) == ((), ())


def test_each_collection_carries_the_records_of_all_deployments(new, client):
    store = converged(new(BOTH))
    before = {name: client.describe_collection(name)["properties"] for name in ("docs_v1", "tags")}
    ours, theirs = record("milvus"), record("milvus", "b" * 32)
    assert store.remember(ours) is None
    assert store.remember(theirs) is None
    later = replace(ours, recorded_at=WHEN + timedelta(days=1), fingerprint="ü" * 12)
    assert store.remember(later) is None
    found = recalled(new(BOTH)).memories
    assert {each.key: each for each in found} == {KEY: later, "b" * 32: theirs}
    client.drop_alias("docs")
    client.drop_collection("docs_v1")
    assert {each.key for each in recalled(new(BOTH)).memories} == {KEY, "b" * 32}
    kept = client.describe_collection("tags")["properties"]
    own = {name for name in kept if name.startswith("is_db_bootstrap.memory.")}
    assert {name: kept[name] for name in set(kept) - own} == before["tags"]


def test_nothing_but_properties_of_ours_is_added_and_no_verdict_changes(new, client):
    store = converged(new(BOTH))
    store.remember(record("milvus"))
    assert sorted(client.list_collections()) == ["docs_v1", "tags"]
    strict = BootstrapOrchestrator([new(BOTH)], strict=True).run(Mode.VERIFY)
    assert strict.ok, strict
    assert BootstrapOrchestrator([new(BOTH)]).run().outcome is Outcome.UNCHANGED


def test_one_dropped_collection_is_missing_and_the_other_still_remembers(new, client):
    converged(new(BOTH)).remember(record("milvus"))
    client.drop_collection("tags")
    found = recalled(new(BOTH))
    assert not found.is_blank
    assert found.holds == ("docs_v1", "alias docs")
    assert found.missing == ("tags",)
    assert [each.key for each in found.memories] == [KEY]


def test_a_dropped_alias_is_no_loss_and_the_collection_behind_it_is_one(new, client):
    store = converged(new())
    store.remember(record("milvus", holds=recalled(store).holds))
    client.drop_alias("docs")
    # The collection has no rows, and its own record says that it was the one behind the alias.
    found = recalled(new())
    assert (found.holds, found.missing) == (("docs_v1", "alias docs"), ())
    client.drop_collection("docs_v1")
    found = recalled(new())
    assert found.is_blank
    assert found.missing == ("docs_v1", "alias docs")


def test_a_new_version_without_rows_misses_the_earlier_one_that_was_dropped(new, client):
    """The alias of the dropped version would lead to a collection without rows, and say nothing."""
    store = converged(new(ONE))
    fill(client, "docs_v1")
    store.remember(record("milvus", holds=recalled(store).holds))
    result = BootstrapOrchestrator([new(TWO)]).run()
    assert result.outcome is Outcome.CHANGED
    found = recalled(new(TWO))
    assert found.holds == ("docs_v1", "alias docs")
    assert found.missing == ()
    assert [each.key for each in found.memories] == [KEY]
    client.drop_alias("docs")
    client.drop_collection("docs_v1")
    assert recalled(new(TWO)).missing == ("alias docs",)


@pytest.mark.parametrize("rows", [False, True])
def test_what_a_plan_is_to_leave_is_what_is_held_after_it(new, client, rows):
    """A second run would record it anew otherwise."""
    converged(new(ONE))
    if rows:
        fill(client, "docs_v1")
        client.flush("docs_v1")
    states = [lambda: None, lambda: client.drop_alias("docs")]
    for make_state in states:
        make_state()
        before = recalled(new(TWO))
        after = recalled(converged(new(TWO)))
        assert {*before.holds, *before.missing} == {*after.holds}
        assert after.missing == ()


def test_after_upgrade_and_prune_the_new_version_holds_the_data(new, client):
    store = converged(new(ONE))
    store.remember(record("milvus"))
    BootstrapOrchestrator([new(TWO)]).run()
    new(TWO).remember(record("milvus"))
    client.alter_alias("docs_v2", "docs")
    client.drop_collection("docs_v1")
    found = recalled(new(TWO))
    assert (found.holds, found.missing) == (("docs_v2", "alias docs"), ())
    assert [each.key for each in found.memories] == [KEY]


def test_runs_before_and_after_an_upgrade_end_with_nothing_left_to_record(new, client):
    def outcomes(blueprint, runs):
        return [run_remembered(new(blueprint)).outcome for _ in range(runs)]

    changed, unchanged = Outcome.CHANGED, Outcome.UNCHANGED
    assert outcomes(ONE, 2) == [changed, unchanged]
    fill(client, "docs_v1")
    assert outcomes(TWO, 2) == [changed, unchanged]
    assert outcomes(ONE, 1) == [unchanged]  # an older pod that restarts
    client.alter_alias("docs_v2", "docs")
    client.drop_collection("docs_v1")
    assert outcomes(TWO, 2) == [changed, unchanged]
    assert outcomes(ONE, 1) == [unchanged]
    client.drop_alias("docs")
    client.drop_collection("docs_v2")
    assert outcomes(TWO, 1) == [changed]  # no other store remembers it


def test_a_release_that_is_behind_misses_nothing_and_reads_the_later_version(new, client):
    store = converged(new(TWO))
    store.remember(record("milvus"))
    found = recalled(new(ONE))
    assert (found.holds, found.missing) == (("docs_v2", "alias docs"), ())
    assert [each.key for each in found.memories] == [KEY]
    client.drop_alias("docs")
    client.drop_collection("docs_v2")
    assert "alias docs" in recalled(new(ONE)).missing


def test_a_broken_record_is_a_conflict_with_the_call_that_removes_it(new, client):
    converged(new())
    client.alter_collection_properties("docs_v1", {PROPERTY: '{"format": "one"}'})
    with pytest.raises(StoreConflict, match=f"property {PROPERTY} of docs_v1") as caught:
        recalled(new())
    call = caught.value.hint.partition("run again: ")[2].removesuffix(".")
    _, _, arguments = call.partition("MilvusClient.alter_collection_properties")
    assert arguments == f"('docs_v1', {{'{PROPERTY}': ''}})"
    client.alter_collection_properties("docs_v1", {PROPERTY: ""})
    assert recalled(new()).memories == ()


def test_a_record_of_a_newer_version_is_told_and_stays(new, client):
    store = converged(new())
    newer = '{"format": 2, "key": "c", "version": "9.1.0"}'
    client.alter_collection_properties("docs_v1", {f"{memory_properties.PREFIX}c": newer})
    store.remember(record("milvus"))
    found = recalled(new())
    assert [each.key for each in found.memories] == [KEY]
    (remark,) = found.remarks
    assert "version 9.1.0" in remark
    kept = client.describe_collection("docs_v1")["properties"]
    assert kept[f"{memory_properties.PREFIX}c"] == newer


def test_records_of_another_blueprint_are_no_memories_of_this_one(new):
    converged(new()).remember(record("milvus", blueprint="theirs"))
    assert recalled(new()).memories == ()


def test_a_recall_after_a_plan_makes_no_call_of_its_own(new, monkeypatch):
    converged(new(BOTH)).remember(record("milvus"))
    store = new(BOTH)
    store.ping(60)
    store.plan()
    names = ("describe_collection", "describe_alias", "list_collections", "get_load_state")
    for name in names:
        monkeypatch.delattr(MilvusClient, name)
    assert store.recall().memories == (record("milvus"),)


def test_a_blueprint_made_from_what_exists_has_no_record_in_it(new, milvus_url):
    store = converged(new())
    store.remember(record("milvus"))
    memory_collection.write(store._server, KEY, "mine", "a record")
    found = read_existing(store._url, Timing(connect_timeout_s=60), None)
    (read,) = found.declared["collections"]
    assert read.name == "docs_v1"
    assert not any("memory" in name for name in read.properties)


@on("lite")
def test_each_collection_gets_the_record_also_after_another_one_was_made_anew(new, client):
    def run(**extra):
        return BootstrapOrchestrator([new(BOTH)], blueprint="mine", fingerprint="f", **extra).run()

    assert run().outcome is Outcome.CHANGED
    client.drop_collection("tags")
    assert run().exit_code == 8
    assert run(accept_reset=["milvus"]).outcome is Outcome.CHANGED
    assert run().outcome is Outcome.UNCHANGED
    client.drop_alias("docs")
    client.drop_collection("docs_v1")
    assert run().exit_code == 8
    # A run that is killed between the properties of two collections leaves one without its record.
    assert run(accept_reset=["milvus"]).outcome is Outcome.CHANGED
    [own] = [
        name
        for name in client.describe_collection("tags")["properties"]
        if name.startswith(memory_properties.PREFIX)
    ]
    client.alter_collection_properties("tags", {own: ""})
    completed = run()
    assert [change.kind for change in completed.stores[0].changes] == ["memory"]
    assert run().outcome is Outcome.UNCHANGED


@on("lite")
def test_a_milvus_takes_so_many_records_and_renews_those_that_it_has(new, monkeypatch):
    monkeypatch.setattr(memory_properties, "MOST_RECORDS", 2)
    assert run_remembered(new()).outcome is Outcome.CHANGED
    assert recalled(new()).full == ""
    store = new()
    store.ping(60)
    store.remember(record("milvus"))
    assert "Milvus remembers 2 deployments and takes no more" in recalled(new()).full
    renewed = run_remembered(new(), "g")
    assert (renewed.outcome, renewed.stores[0].error) == (Outcome.CHANGED, None)
    assert not any("takes no more" in note for note in renewed.stores[0].notes)
    assert run_remembered(new(), "g").outcome is Outcome.UNCHANGED


@on("lite")
def test_a_full_milvus_says_that_it_cannot_keep_a_new_record(new, monkeypatch):
    monkeypatch.setattr(memory_properties, "MOST_RECORDS", 1)
    elsewhere = {"milvus": Member("m", "another database", "an address")}
    converged(new()).remember(record("milvus", members=elsewhere))
    for _ in range(2):
        result = run_remembered(new())
        assert result.outcome is Outcome.UNCHANGED
        assert any("takes no more" in note for note in result.stores[0].notes)
    assert [each.key for each in recalled(new()).memories] == [KEY]


def test_a_record_of_a_newer_version_under_our_key_is_left(new, client):
    assert run_remembered(new()).outcome is Outcome.CHANGED
    properties = client.describe_collection("docs_v1")["properties"]
    [(name, text)] = [
        each for each in properties.items() if each[0].startswith(memory_properties.PREFIX)
    ]
    newer = text.replace('"format": 1', '"format": 2')
    client.alter_collection_properties("docs_v1", {name: newer})
    assert recalled(new()).newer_keys == {name.removeprefix(memory_properties.PREFIX)}
    result = run_remembered(new(), "g")
    assert any("is newer. It is left alone" in note for note in result.stores[0].notes)
    kept = client.describe_collection("docs_v1")["properties"]
    assert kept[name] == newer
    assert len([each for each in kept if each.startswith(memory_properties.PREFIX)]) == 2
    assert run_remembered(new(), "g").outcome is Outcome.UNCHANGED


@on("lite")
def test_a_tiny_collection_that_does_not_show_its_record_leaves_the_earlier_one(
    new, milvus_url, client
):
    memory_collection.write(converged(new())._server, KEY, "mine", "an earlier record")
    with gateway(milvus_url, swallows=("CreateCollection",)) as url:
        store = new(url=url)
        store.ping(60)
        with pytest.raises(StoreBusy, match="is not shown there"):
            memory_collection.write(store._server, KEY, "mine", "a later record")
        store.close()
    [name] = [name for name in client.list_collections() if memory_collection.is_memory(name)]
    assert "an earlier record" in str(client.describe_collection(name))


@on("lite")
def test_a_server_that_refuses_properties_keeps_records_in_tiny_collections(
    new, milvus_url, client
):
    with gateway(milvus_url, "AlterCollection") as url:
        store = converged(new(url=url))
        ours, theirs = record("milvus"), record("milvus", "b" * 32)
        for each in (ours, theirs, replace(ours, fingerprint="g" * 12)):
            assert store.remember(each) is None
        found = recalled(new(url=url))
        assert {each.key: each.fingerprint for each in found.memories} == {
            ours.key: "g" * 12,
            theirs.key: theirs.fingerprint,
        }
        strict = BootstrapOrchestrator([new(url=url)], strict=True).run(Mode.VERIFY)
        assert strict.ok, strict
        own = [name for name in client.list_collections() if name.startswith("is_db_bootstrap")]
        assert len(own) == 2
        assert [client.list_indexes(name) for name in own] == [[], []]
        client.drop_alias("docs")
        client.drop_collection("docs_v1")
        found = recalled(new(url=url))
        assert found.missing == ("docs_v1", "alias docs")
        assert len(found.memories) == 2
        store.close()


@on("lite")
def test_records_of_another_blueprint_in_tiny_collections_are_neither_read_nor_counted(
    new, milvus_url, client, monkeypatch
):
    monkeypatch.setattr(memory_properties, "MOST_RECORDS", 2)
    with gateway(milvus_url, "AlterCollection") as url:
        assert run_remembered(new(url=url)).outcome is Outcome.CHANGED
        server = converged(new(url=url))._server
        newer = to_text(record("milvus", "c" * 32, blueprint="yours")).replace(
            '"format": 1', '"format": 2'
        )
        for key, text in (("b" * 32, "no record"), ("c" * 32, newer)):
            memory_collection.write(server, key, "yours", text)
        found = recalled(new(url=url))
        assert (len(found.memories), found.remarks, found.full) == (1, (), "")
        assert run_remembered(new(url=url), "g").outcome is Outcome.CHANGED
        # One that an earlier version wrote says of no blueprint but in its text.
        monkeypatch.setattr(memory_collection, "_blueprint_of", lambda _: "")
        with pytest.raises(StoreConflict, match="cannot be read"):
            recalled(new(url=url))


@on("2.3")
def test_a_user_who_may_not_change_properties_is_told_and_nothing_counts_as_changed(
    new, milvus_url
):
    converged(new())
    with gateway(milvus_url, denies=("AlterCollection",)) as url:
        weak = new(url=url.replace("http://", "http://weak:x@"))
        assert "Let an administrator run: " in weak.memory_refusal()
        for _ in range(2):
            result = run_remembered(weak)
            assert result.outcome is Outcome.UNCHANGED, result
            assert any("Milvus does not remember" in note for note in result.stores[0].notes)
        weak.close()


@on("2.3")
def test_a_user_who_may_not_mark_a_collection_is_denied_and_nothing_counts_as_marked(
    new, milvus_url, client
):
    client.create_collection("docs_v1", dimension=8)  # as another tool makes one
    with gateway(milvus_url, denies=("AlterCollection",)) as url:
        store = new(url=url)
        store.ping(60)
        declared = ONE.collections[0]
        with pytest.raises(AccessDenied), store._errors("docs_v1"):
            store._changes._mark(declared, Change("docs_v1", "record"))
        store.close()

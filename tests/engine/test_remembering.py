"""When a run reads and writes what its stores remember, on stores in memory."""

from __future__ import annotations

import pytest

from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.engine.memory import Recall
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.store import LeftLease
from is_db_bootstrap.errors import AccessDenied, StoreBusy, StoreUnavailable
from is_db_bootstrap.results import Drift, LockHolder, Mode, Plan
from is_db_bootstrap.testing import InMemoryBootstrapper

QUICK = RetryPolicy(
    deadline_s=2, initial_s=0.01, maximum_s=0.02, busy_initial_s=0.001, busy_maximum_s=0.002
)


class Remembering(InMemoryBootstrapper):
    """A store in memory that keeps records, of which each name in `applied` is an object."""

    is_cache = False

    def __init__(self, name, wanted=("a",), **extra):
        super().__init__(name, wanted, **extra)
        self.memories = {}
        self.unable = ""
        self.is_unread = False
        self.newer_keys = frozenset()
        self.identity = f"{name} 1"

    def recall(self):
        self.calls.append("recall")
        return Recall(
            "here",
            self.identity,
            is_blank=not self.applied and not self.memories,
            holds=tuple(self.applied),
            missing=tuple(self._missing_names()),
            memories=() if self.is_unread else tuple(self.memories.values()),
            unable=self.unable,
            is_unread=self.is_unread,
            newer_keys=self.newer_keys,
        )

    def remember(self, memory):
        self.calls.append("remember")
        self.memories[memory.key] = memory

    def lose(self):
        self.applied.clear()
        self.memories.clear()


@pytest.fixture
def pair():
    return Remembering("postgres"), Remembering("redis")


def run(*stores, mode=Mode.APPLY, fingerprint="f1", retry=QUICK, **extra):
    engine = BootstrapOrchestrator(
        stores, blueprint="test", fingerprint=fingerprint, retry=retry, **extra
    )
    result = engine.run(mode)
    for store in stores:
        store.seen, store.calls = store.calls, []
    return result


def changes(result):
    return {store.store: [(c.kind, c.outcome) for c in store.changes] for store in result.stores}


def test_a_record_is_written_under_the_lock_after_all_stores_were_verified(pair):
    result = run(*pair)
    for store in pair:
        asked = [call for call in store.seen if call not in {"ping", "close"}]
        assert asked == [
            *("plan", "recall", "lock", "plan", "recall", "apply a", "verify", "remember"),
            "release",
        ]
    assert changes(result) == {"postgres": [("item", "changed")], "redis": [("item", "changed")]}


def test_a_run_with_nothing_to_do_reads_the_records_once_and_takes_no_lock(pair):
    run(*pair)
    result = run(*pair)
    for store in pair:
        assert store.seen == ["ping", "plan", "recall", "verify", "close"]
    assert result.outcome == "unchanged"


@pytest.mark.parametrize("fingerprint", ["", "f1"])
def test_a_run_that_judges_no_losses_asks_no_store_what_it_remembers(pair, fingerprint):
    run(*pair, judges_losses=False, fingerprint=fingerprint)
    assert all({"recall", "remember"}.isdisjoint(store.seen) for store in pair)


def test_a_run_without_a_fingerprint_reads_the_records_and_writes_none(pair):
    run(*pair, fingerprint="")
    assert all("recall" in store.seen and not store.memories for store in pair)
    assert run(*pair, fingerprint="").outcome == "unchanged"
    assert all({"lock", "remember"}.isdisjoint(store.seen) for store in pair)


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.VERIFY, Mode.APPLY])
def test_a_run_without_a_fingerprint_refuses_a_store_that_was_lost(pair, mode):
    first, second = pair
    run(*pair)
    first.lose()
    result = run(*pair, mode=mode, fingerprint="")
    assert (result.exit_code, result.store("postgres").error.kind) == (8, "reset")
    assert (first.applied, result.store("redis").error) == ([], None)
    before = dict(second.memories)
    accepted = run(*pair, mode=mode, fingerprint="", accept_reset=["postgres"])
    assert accepted.exit_code == (3 if mode is Mode.VERIFY else 0)
    assert (first.memories, second.memories) == ({}, before)


def test_a_run_without_a_fingerprint_does_not_say_that_something_is_recorded_anew(pair):
    run(*pair)
    pair[1].identity = "another one"
    result = run(*pair, fingerprint="")
    assert (result.outcome, [store.notes for store in result.stores]) == ("unchanged", [(), ()])


def test_a_missing_record_is_pending_work_that_is_told_as_a_change(pair):
    run(*pair, fingerprint="")
    planned = run(*pair, mode=Mode.PLAN)
    assert (planned.outcome, changes(planned)["redis"]) == ("planned", [("memory", "planned")])
    assert all("lock" not in store.seen for store in pair)
    result = run(*pair)
    assert changes(result) == {
        "postgres": [("memory", "changed")],
        "redis": [("memory", "changed")],
    }
    assert all("lock" in store.seen for store in pair)
    assert run(*pair).outcome == "unchanged"


def test_only_the_stores_whose_record_is_missing_are_locked_and_written(pair):
    run(*pair)
    first, second = pair
    second.memories.clear()
    assert changes(run(*pair)) == {"postgres": [], "redis": [("memory", "changed")]}
    assert ("lock" in first.seen, "lock" in second.seen) == (False, True)


def test_nothing_is_locked_or_changed_where_a_store_was_lost_and_each_one_is_named():
    stores = [Remembering(name) for name in ("postgres", "neo4j", "milvus")]
    run(*stores)
    for store in stores[:2]:
        store.lose()
    result = run(*stores)
    assert result.exit_code == 8
    assert [each.error.kind for each in result.stores if each.error] == ["reset", "reset"]
    for store in stores:
        assert store.seen == ["ping", "plan", "recall", "close"]


def test_an_object_that_is_gone_is_named_by_its_own_store():
    store = Remembering("milvus", ["a", "b"])
    run(store)
    store.applied.remove("b")
    result = run(store)
    assert (result.exit_code, result.stores[0].error.object) == (8, "b")
    assert run(store, accept_reset=["milvus"]).exit_code == 0
    assert run(store).outcome == "unchanged"


def test_a_reset_is_looked_at_before_the_lock_only():
    first, second = Remembering("postgres"), Remembering("redis")
    run(first, second)
    first.lose()
    # Another run makes the lost store anew while this one waits for the lock.
    taken = first.try_lock

    def lock_after_other(owner):
        first.applied[:] = ["a"]
        return taken(owner)

    first.try_lock = lock_after_other
    assert run(first, second, accept_reset=["postgres"]).exit_code == 0


def lost_before_lock(first, loses):
    """Lose something right before the run gets the lock of `first`."""
    taken = first.try_lock

    def lock_after_loss(owner):
        loses()
        return taken(owner)

    first.try_lock = lock_after_loss


def test_what_was_lost_while_the_run_waited_for_its_lock_is_not_made_anew(pair):
    first, second = pair
    run(*pair)
    first.wanted = ("a", "b")
    lost_before_lock(first, second.lose)
    result = run(*pair)
    assert (result.exit_code, result.store("redis").error.kind) == (8, "reset")
    assert (first.applied, second.applied) == (["a"], [])


def test_an_accepted_loss_of_a_part_accepts_no_loss_of_the_rest():
    store = Remembering("milvus", ["a", "b"])
    run(store, Remembering("redis"))
    store.applied.remove("b")
    lost_before_lock(store, store.applied.clear)
    result = run(store, accept_reset=["milvus"])
    assert (result.exit_code, store.applied) == (8, [])


def test_a_follower_makes_nothing_anew_that_was_lost_while_it_waited(pair):
    second = pair[1]
    run(*pair)
    second.wanted = ("a", "b")
    tries = []

    def held_by_other(_owner):
        tries.append("try")
        second.lose()
        return LockHolder("another run")

    second.try_lock = held_by_other
    result = run(*pair, lock=LockPolicy(follow=True))
    assert (result.exit_code, result.store("redis").error.kind, len(tries)) == (8, "reset", 1)
    assert second.applied == []


def test_rights_that_could_not_be_read_before_the_lock_are_read_under_it(pair):
    first, second = pair
    asked = []

    def gone_at_first():
        asked.append("rights")
        if len(asked) == 1:
            raise StoreUnavailable("redis", "The server is restarting.")
        raise AccessDenied("redis", "The user may not write.")

    second.check_rights = gone_at_first
    result = run(first, second)
    assert (result.exit_code, len(asked)) == (5, 2)
    assert (first.applied, second.applied) == ([], [])


def test_a_verify_that_fails_leaves_no_record(pair):
    pair[1].verify = lambda: [Drift("a", "item", "differs")]
    assert run(*pair).exit_code == 3
    assert [store.memories for store in pair] == [{}, {}]


def test_a_record_that_another_run_writes_meanwhile_is_not_written_again(pair):
    run(*pair)
    first, second = pair
    kept = dict(second.memories)
    second.memories.clear()
    taken = second.try_lock

    def lock_after_other(owner):
        second.memories = dict(kept)
        return taken(owner)

    second.try_lock = lock_after_other
    result = run(first, second)
    assert (result.outcome, changes(result)["redis"]) == ("unchanged", [])
    assert "remember" not in second.seen


def test_a_follower_waits_for_the_record_of_the_run_that_it_follows(pair):
    first, second = pair
    tries = []

    def held_by_other(_owner):
        tries.append("try")
        if len(tries) == 2:
            for store in pair:
                store.applied[:] = ["a"]
        if len(tries) == 4:
            run_of_other = [Remembering("postgres"), Remembering("redis")]
            run(*run_of_other)
            for store, other in zip(pair, run_of_other, strict=True):
                store.memories = other.memories
        return LockHolder("another run")

    first.try_lock = held_by_other
    result = run(first, second, lock=LockPolicy(follow=True))
    assert (result.outcome, result.exit_code, len(tries)) == ("unchanged", 0, 4)
    assert all("remember" not in store.seen for store in pair)


def test_a_busy_record_is_tried_again_and_one_that_is_refused_fails_the_run(pair):
    second = pair[1]
    remember, refusals = second.remember, [StoreBusy("redis", "Another run writes.")]

    def busy_once(memory):
        if refusals:
            raise refusals.pop()
        return remember(memory)

    second.remember = busy_once
    assert run(*pair).exit_code == 0
    second.memories.clear()

    def lost(_memory):
        raise StoreUnavailable("redis", "The connection was lost.")

    second.remember = lost
    result = run(*pair)
    assert (result.exit_code, changes(result)["redis"]) == (4, [])
    second.remember = remember
    assert changes(run(*pair))["redis"] == [("memory", "changed")]


def test_a_store_that_can_record_nothing_is_a_note_and_never_pending(pair):
    pair[0].unable = "The role may not write."
    run(*pair)
    result = run(*pair)
    assert (result.outcome, result.store("postgres").notes) == (
        "unchanged",
        ("The role may not write.",),
    )
    assert all("lock" not in store.seen for store in pair)


def test_a_record_that_was_refused_is_a_note_and_no_change(pair):
    run(*pair, fingerprint="")
    pair[1].remember = lambda _: "The user may not write."
    result = run(*pair)
    assert changes(result) == {"postgres": [("memory", "changed")], "redis": []}
    assert (result.store("redis").outcome, result.store("redis").notes) == (
        "unchanged",
        ("The user may not write.",),
    )


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.APPLY])
def test_a_refusal_that_a_store_foresees_takes_no_lock(pair, mode):
    run(*pair)
    pair[1].memories.clear()
    pair[1].memory_refusal = lambda: "The user may not write."
    result = run(*pair, mode=mode)
    assert (result.outcome, changes(result)["redis"]) == ("unchanged", [])
    assert result.store("redis").notes == ("The user may not write.",)
    assert all("lock" not in store.seen for store in pair)


def test_a_store_that_is_busy_when_it_foresees_a_refusal_is_asked_again(pair):
    run(*pair)
    second = pair[1]
    second.memories.clear()
    answers = [StoreBusy("redis", "Another run writes."), "The user may not write."]

    def refusal():
        answer = answers.pop(0)
        if isinstance(answer, StoreBusy):
            raise answer
        return answer

    second.memory_refusal = refusal
    result = run(*pair)
    assert (result.outcome, answers) == ("unchanged", [])
    assert result.store("redis").notes == ("The user may not write.",)


def test_an_older_release_writes_no_record_over_that_of_a_newer_one(pair):
    run(*pair, fingerprint="newer")
    pair[0].plan = lambda: Plan(ahead=True)
    result = run(*pair, fingerprint="older")
    assert result.outcome == "unchanged"
    assert all("remember" not in store.seen for store in pair)


def test_a_lease_that_was_left_where_the_record_takes_the_lock_is_not_given_back(pair):
    run(*pair)
    second = pair[1]
    second.memories.clear()
    lease = LeftLease(LockHolder("a run"), is_over=False, anchor=None)
    second.left_lease = lambda: lease
    second.know_anchor = lambda _: None
    result = run(*pair)
    assert (result.exit_code, changes(result)["redis"]) == (0, [("memory", "changed")])
    assert second.seen.count("release") == 1


def test_without_verify_a_missing_record_is_neither_pending_nor_written(pair):
    run(*pair, fingerprint="")
    result = run(*pair, verify=False)
    assert result.outcome == "unchanged"
    assert all("lock" not in store.seen for store in pair)
    assert "is not recorded, because nothing was verified" in " ".join(result.stores[0].notes)


def test_a_blank_cache_is_made_anew_with_a_note(pair):
    pair[1].is_cache = True
    run(*pair)
    pair[1].lose()
    result = run(*pair)
    assert (result.exit_code, changes(result)["redis"]) == (0, [("item", "changed")])
    assert "As a cache, it is recorded again." in result.store("redis").notes[0]


def test_what_a_run_does_not_record_is_not_told_as_recorded(pair):
    first, second = pair
    second.is_cache = True
    run(*pair)
    first.identity = "another one"
    second.lose()

    def told(**extra):
        result = run(*pair, **extra)
        return {store.store: " ".join(store.notes) for store in result.stores}

    for extra in ({"mode": Mode.VERIFY}, {"mode": Mode.STATUS}, {"mode": Mode.DOCTOR}):
        notes = told(**extra)
        assert notes["postgres"].endswith("it was restored, copied or replaced."), extra
        assert "recorded a" not in str(notes)
    first.unable = "The role may not write."
    notes = told(mode=Mode.PLAN)
    assert "recorded anew" not in notes["postgres"]
    first.unable = ""
    assert "It is recorded anew." in told(mode=Mode.PLAN)["postgres"]
    assert "recorded anew" not in told(verify=False)["postgres"]
    assert "It is recorded anew." in told()["postgres"]


@pytest.mark.parametrize("accepted", ["redis", "milvus"])
def test_an_acceptance_of_no_reset_is_an_error_before_anything(pair, accepted):
    run(*pair)
    pair[0].wanted = ("a", "b")
    result = run(*pair, accept_reset=[accepted])
    assert (result.exit_code, pair[0].applied) == (2, ["a"])
    assert all("lock" not in store.seen for store in pair)


def test_a_store_of_a_run_that_leaves_others_out_keeps_what_they_are(pair):
    run(*pair)
    run(pair[0], fingerprint="f2", declared_stores=("postgres", "redis"))
    [memory] = pair[0].memories.values()
    assert (memory.fingerprint, [*memory.members]) == ("f2", ["redis", "postgres"])
    pair[0].lose()
    assert run(*pair, fingerprint="f2").exit_code == 8


def test_a_blank_store_beside_unread_records_of_the_run_is_told_in_every_mode(pair):
    first, second = pair
    run(*pair)
    first.unable, first.is_unread = "The role may not read.", True
    second.lose()
    told = (
        "Whether postgres remembers this store could not be seen: The role may not read. "
        "So nobody knows whether this store was lost."
    )
    for mode in (Mode.PLAN, Mode.VERIFY, Mode.STATUS, Mode.DOCTOR, Mode.APPLY):
        result = run(*pair, mode=mode)
        assert told in result.store("redis").notes, mode
        assert "The role may not read." in result.store("postgres").notes, mode
    assert run(*pair, mode=Mode.VERIFY).store("redis").notes == ()
    second.lose()
    second.is_cache = True
    assert told not in run(*pair).store("redis").notes


def test_a_part_that_only_newer_records_may_name_is_not_made_in_silence():
    store = Remembering("milvus", ["a", "b"])
    store.applied[:] = ["a"]
    store.newer_keys = frozenset({"k9"})
    result = run(store)
    assert (result.exit_code, result.stores[0].error.object) == (8, "b")
    assert "b of memory://milvus is not there, and nobody knows" in result.stores[0].error.message
    assert run(store, accept_reset=["milvus"]).exit_code == 0
    store.wanted = ("a", "b", "c")
    beside_own_record = run(store)
    assert beside_own_record.exit_code == 0
    [note] = beside_own_record.stores[0].notes
    assert note.startswith("c is not there. Our own record does not name it")


def test_what_only_newer_records_may_remember_and_goes_while_the_run_waits_is_not_made_anew(pair):
    first, second = pair
    run(*pair)
    first.memories.clear()
    first.newer_keys = frozenset({"k9"})
    first.wanted = ("a", "b")
    lost_before_lock(first, second.lose)
    result = run(*pair)
    assert (result.exit_code, result.store("redis").error.kind) == (8, "reset")
    assert result.store("postgres").error is None
    assert (first.applied, second.applied) == (["a"], [])

"""What a run does with the stores that it leaves out and asks, on stores in memory."""

from __future__ import annotations

import threading
import time

import pytest

from is_db_bootstrap.engine import BootstrapOrchestrator, bystanders
from is_db_bootstrap.engine.bystanders import Bystander
from is_db_bootstrap.engine.memory import Recall
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Mode
from is_db_bootstrap.testing import InMemoryBootstrapper

STORES = ("postgres", "neo4j", "milvus", "redis")


class Store(InMemoryBootstrapper):
    """A store in memory that keeps records."""

    def __init__(self, name, *, is_cache=False):
        super().__init__(name, ["a"])
        self.is_cache = is_cache
        self.memories = {}
        self.newer_keys = frozenset()

    def recall(self):
        return Recall(
            "here",
            f"{self.name} 1",
            is_blank=not self.applied and not self.memories,
            holds=tuple(self.applied),
            missing=tuple(self._missing_names()),
            memories=tuple(self.memories.values()),
            newer_keys=self.newer_keys,
        )

    def remember(self, memory):
        self.memories[memory.key] = memory

    def lose(self):
        self.applied.clear()
        self.memories.clear()


class Mute(Store):
    """A store that answers nobody until it is cancelled."""

    def ping(self, timeout_s):
        self.calls.append("ping")
        self.cancelled.wait(30)
        return super().ping(timeout_s)


def engine(store, *others, fingerprint="f1", timeout_s=30.0, **extra):
    retry = RetryPolicy(deadline_s=timeout_s, initial_s=0.01, maximum_s=0.02)
    aside = [
        each if isinstance(each, Bystander) else Bystander(each.name, lambda each=each: each)
        for each in others
    ]
    return BootstrapOrchestrator(
        [store],
        blueprint="test",
        fingerprint=fingerprint,
        retry=retry,
        declared_stores=STORES,
        bystanders=aside,
        **extra,
    )


def notes(result):
    return " ".join(result.stores[0].notes)


def test_a_store_in_conflict_that_keeps_newer_records_tells_of_them():
    other = Store("redis")
    other.newer_keys = frozenset({"k9"})

    def in_conflict():
        raise StoreConflict("redis", "Another convention is there.")

    other.plan = in_conflict
    result = engine(Store("neo4j"), other).run()
    assert (result.exit_code, result.stores[0].error.kind) == (8, "reset")


@pytest.mark.parametrize("mode", [Mode.STATUS, Mode.DOCTOR, Mode.APPLY])
def test_a_signal_ends_a_run_that_waits_for_the_answer_of_a_store_it_leaves_out(mode):
    store, mute = Store("neo4j"), Mute("redis")
    run = engine(store, mute)
    timer = threading.Timer(0.3, run.interrupt, [143])
    timer.start()
    began = time.monotonic()
    result = run.run(mode)
    assert time.monotonic() - began < 8
    assert (result.exit_code, result.outcome) == (143, "interrupted")
    assert "gave no answer" not in notes(result)
    assert store.applied == []
    assert mute.cancelled.wait(5)


def test_a_broken_client_of_a_store_that_is_left_out_is_a_note(caplog):
    def make():
        raise AttributeError("the secret of a row")

    broken = Store("redis")
    broken.ping = lambda _: 1 / 0
    result = engine(Store("neo4j"), broken, Bystander("milvus", make)).run()
    assert result.exit_code == 0
    told = notes(result)
    assert "milvus, which this run leaves out, could not be asked" in told
    assert "AttributeError, whose traceback is in the log. So nobody knows" in told
    assert "ZeroDivisionError, whose traceback is in the log." in told
    assert "the secret of a row" in caplog.text


def test_a_wait_for_stores_that_are_left_out_is_told_and_is_no_other_try(monkeypatch):
    monkeypatch.setattr(bystanders, "_QUIET_S", 0.1)
    monkeypatch.setattr(bystanders, "ANSWER_S", 0.5)
    told = []
    engine(Store("neo4j"), Mute("redis"), observers=[told.append]).run()
    [event] = [each for each in told if "asked what they remember" in each.message]
    assert (event.kind, event.store) == ("still-waiting", "neo4j")


def test_a_blank_cache_is_made_without_a_note_on_stores_that_are_left_out(monkeypatch):
    monkeypatch.setattr(bystanders, "BRIEF_ANSWER_S", 0.3)
    began = time.monotonic()
    mute = Mute("milvus")
    plan = engine(Store("redis", is_cache=True), mute).run(Mode.PLAN)
    assert (plan.exit_code, notes(plan), mute.calls) == (0, "", [])
    result = engine(Store("redis", is_cache=True), mute).run()
    assert (result.outcome, notes(result)) == ("changed", "")
    assert time.monotonic() - began < 5


def test_without_a_time_to_wait_the_stores_that_are_left_out_get_no_more_than_the_least():
    began = time.monotonic()
    result = engine(Store("neo4j"), Mute("redis"), timeout_s=0).run()
    assert "could not be asked" in notes(result)
    assert time.monotonic() - began < 8


def test_stores_that_are_only_run_one_by_one_learn_of_each_other_when_something_is_recorded():
    first, second = Store("postgres"), Store("neo4j")
    engine(first).run()
    engine(second, first).run()
    second.calls.clear()
    assert engine(first, second).run().outcome == "unchanged"
    assert second.calls == []
    assert engine(first, second, fingerprint="f2").run().exit_code == 0
    assert [{*memory.members} for memory in first.memories.values()] == [{"postgres", "neo4j"}]
    second.lose()
    assert engine(second, first, fingerprint="f2").run().exit_code == 8


def test_records_that_began_apart_keep_each_store_that_is_left_out():
    first, second, third = Store("postgres"), Store("neo4j"), Store("milvus")
    for store in (second, third, first):
        engine(store).run()
    engine(first, second, third, fingerprint="f2").run()
    known = {name for memory in first.memories.values() for name in memory.members}
    assert known == {"postgres", "neo4j", "milvus"}


def test_a_target_of_a_fleet_asks_no_store_that_is_left_out_for_its_record_alone():
    first, second = Store("postgres"), Store("neo4j")
    engine(first).run()
    result = engine(first, second, fingerprint="f2", is_one_of_many=True).run()
    assert (result.outcome, second.calls) == ("changed", [])

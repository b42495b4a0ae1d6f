"""What a run that adopts does with several stores, which are in memory here."""

from __future__ import annotations

from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.store import RECORD, Adoption
from is_db_bootstrap.results import Change, Drift, Mode, Nature, Outcome
from is_db_bootstrap.testing import InMemoryBootstrapper

QUICK = RetryPolicy(deadline_s=0.3, initial_s=0.01, maximum_s=0.02)


class Found(InMemoryBootstrapper):
    """A store that others have made: `differing` objects differ, and nothing is recorded yet."""

    def __init__(self, name, *, differing=(), blank=False, may_be_blank=False, refusal="", **given):
        super().__init__(name, wanted=["record"], **given)
        self.differing = list(differing)
        self.found = {"is_blank": blank, "may_be_blank": may_be_blank, "refusal": refusal}

    def adoption(self):
        self.calls.append("look")
        differences = [Drift(each, "thing", "differs", "a", "b") for each in self.differing]
        missing = [Change(each, RECORD, "", Nature.ATOMIC) for each in self._missing_names()]
        return Adoption(tuple(missing), tuple(differences), **self.found)


def adopt(*stores, foresees=False, **given):
    engine = BootstrapOrchestrator(stores, blueprint="test", retry=QUICK, **given)
    return engine.run(Mode.ADOPT, foresees=foresees)


def codes(result):
    return {
        store.store: store.error.kind if store.error else store.outcome for store in result.stores
    }


def test_it_looks_twice_and_records_under_the_lock():
    store = Found("postgres")
    result = adopt(store)
    assert (result.mode, result.outcome, result.exit_code) == (Mode.ADOPT, Outcome.CHANGED, 0)
    asked = ["ping", "look", "lock", "look", "apply record", "verify", "plan", "release", "close"]
    assert store.calls == asked


def test_a_look_takes_no_lock_and_records_nothing():
    store = Found("postgres")
    result = adopt(store, foresees=True)
    assert (result.mode, result.outcome) == (Mode.ADOPT, Outcome.PLANNED)
    assert store.calls == ["ping", "look", "close"]


def test_a_store_that_is_recorded_already_is_only_compared():
    store = Found("postgres", applied=["record"])
    assert adopt(store).outcome is Outcome.UNCHANGED
    assert "lock" not in store.calls


def test_nothing_is_recorded_anywhere_while_one_store_differs():
    first, second = Found("postgres"), Found("neo4j", differing=["x", "y"])
    result = adopt(first, second)
    assert result.exit_code == 3
    assert codes(result) == {"postgres": "skipped", "neo4j": "verification"}
    assert [drift.object for drift in result.store("neo4j").drifts] == ["x", "y"]
    assert "--accept x --accept y" in result.store("neo4j").error.hint
    assert (first.applied, second.applied) == ([], [])


def test_a_name_may_say_whose_difference_it_is():
    first, second = Found("postgres", differing=["x"]), Found("neo4j", differing=["x"])
    one = adopt(first, second, accepted=["neo4j:x"])
    assert codes(one) == {"postgres": "verification", "neo4j": "skipped"}
    assert adopt(first, second, accepted=["x"]).exit_code == 0
    assert (first.applied, second.applied) == (["record"], ["record"])


def test_a_name_that_does_not_differ_is_wrong_also_where_something_else_differs():
    store = Found("postgres", differing=["x"])
    result = adopt(store, accepted=["y", "z"])
    assert (result.exit_code, codes(result)) == (2, {"postgres": "configuration"})
    assert "y, z do not differ" in result.stores[0].error.message
    assert store.applied == []


def test_a_blank_store_is_refused_and_the_others_are_not_recorded():
    first, second = Found("postgres"), Found("neo4j", blank=True)
    result = adopt(first, second)
    assert (result.exit_code, codes(result)["neo4j"]) == (6, "conflict")
    assert "--skip neo4j" in result.store("neo4j").error.hint
    assert first.applied == []


def test_a_blank_cache_is_recorded_beside_others_and_refused_alone():
    cache = Found("redis", blank=True, may_be_blank=True)
    assert adopt(cache).exit_code == 6
    assert cache.applied == []
    assert adopt(Found("postgres"), cache).exit_code == 0
    assert cache.applied == ["record"]


def test_a_difference_that_comes_up_before_the_lock_is_refused():
    class Changing(Found):
        def try_lock(self, owner):
            self.differing.append("meanwhile")
            return super().try_lock(owner)

    store = Changing("postgres")
    result = adopt(store)
    assert (result.exit_code, store.applied) == (3, [])
    assert "meanwhile" in result.stores[0].error.message


def test_a_difference_that_cannot_be_recorded_cannot_be_accepted():
    store = Found("milvus", differing=["x"], refusal="Make a new version.")
    assert "Make a new version." in adopt(store).stores[0].error.hint
    result = adopt(store, accepted=["x"])
    assert (result.exit_code, store.applied) == (6, [])


def test_a_store_that_cannot_be_adopted_is_named():
    store = InMemoryBootstrapper("redis", wanted=["a"])
    result = adopt(store)
    assert (result.exit_code, store.applied) == (2, [])
    assert "--skip redis" in result.stores[0].error.hint

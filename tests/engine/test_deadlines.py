"""Every phase ends, and says what it waits for."""

import threading

import pytest

from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy, waits
from is_db_bootstrap.engine import deadlines as deadlines_module
from is_db_bootstrap.engine.deadlines import Deadlines
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import StoreBusy, StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.testing import InMemoryBootstrapper

QUICK = RetryPolicy(deadline_s=60, initial_s=0.01, maximum_s=0.02, busy_initial_s=0.001)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def deadlines(clock):
    return Deadlines(RetryPolicy(deadline_s=60, clock=clock), LockPolicy())


def test_waiting_for_stores_and_for_locks_share_one_time_that_a_plan_does_not_use(deadlines, clock):
    deadlines.begin(Phase.WAIT)
    clock.now += 20
    deadlines.begin(Phase.PLAN)
    clock.now += 1000
    deadlines.begin(Phase.LOCK)
    assert deadlines.of_waits.left_s() == 40
    clock.now += 39
    assert not deadlines.is_over(Phase.LOCK)
    clock.now += 2
    assert deadlines.is_over(Phase.LOCK)


@pytest.mark.parametrize("phase", [Phase.PLAN, Phase.REPLAN, Phase.VERIFY, Phase.STATUS])
def test_each_look_has_a_time_of_its_own(deadlines, phase):
    deadlines.begin(phase)
    assert deadlines.limit_s == LockPolicy().phase_timeout_s > 0
    assert deadlines.left_s() is not None


def test_apply_has_no_limit_unless_one_is_given(deadlines):
    deadlines.begin(Phase.APPLY)
    assert (deadlines.left_s(), deadlines.is_over(Phase.APPLY)) == (None, False)


class Silent(InMemoryBootstrapper):
    """A store whose plan does not come back, not even when it is cancelled."""

    answer = ""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.freed = threading.Event()

    def plan(self):
        self.freed.wait(60)
        return super().plan()

    def waits_for(self):
        return self.answer


@pytest.fixture
def silent():
    store = Silent("postgres", ["a"])
    yield store
    store.freed.set()


def bounded(store, events=None, *, retry=QUICK, **limits):
    policy = LockPolicy(**({"phase_timeout_s": 0.5} | limits))
    observers = [] if events is None else [events.append]
    return BootstrapOrchestrator([store], retry=retry, lock=policy, observers=observers).run()


def test_what_a_late_call_waits_for_is_asked_told_and_in_the_error(silent):
    silent.answer = "Session 7 holds it."
    events = []
    result = bounded(silent, events)
    error = result.stores[0].error
    assert error.message == "plan did not end within 0.5 s. Session 7 holds it."
    assert "--phase-timeout" in error.hint
    [told] = [event for event in events if event.kind == "still-waiting"]
    assert told.message.endswith("s so far: Session 7 holds it.")


def test_a_question_that_is_not_answered_holds_nothing_up(silent):
    silent.waits_for = lambda: silent.freed.wait(60)
    error = bounded(silent).stores[0].error
    assert "Nothing has come back from memory://postgres yet." in error.message


def test_a_wait_is_told_again_and_again(silent, monkeypatch):
    monkeypatch.setattr(waits, "_TELL_EVERY_S", 0.3)
    monkeypatch.setattr(waits, "_TELL_AFTER_S", 0.1)
    told = threading.Semaphore(0)

    def observe(event):
        if event.kind == "still-waiting":
            told.release()

    engine = BootstrapOrchestrator([silent], retry=QUICK, observers=[observe])
    thread = threading.Thread(target=engine.run, args=[Mode.PLAN])
    thread.start()
    assert all(told.acquire(timeout=60) for _ in range(3))
    silent.freed.set()
    thread.join(60)


def test_a_look_that_is_busy_tries_again_within_its_time_only():
    store = InMemoryBootstrapper("postgres", ["a"])

    def plan():
        raise StoreBusy("postgres", "Locked.")

    store.plan = plan
    retry = RetryPolicy(busy_attempts=10**6, busy_initial_s=0.01, busy_maximum_s=0.02)
    result = bounded(store, retry=retry)
    assert (result.exit_code, "Locked." in result.stores[0].error.message) == (4, True)


def test_a_lock_that_cannot_be_given_up_does_not_keep_the_run(silent):
    """The server has gone mute between the lock and the plan under it."""
    plan, silent.plan = silent.plan, lambda: InMemoryBootstrapper.plan(silent)
    take = silent.try_lock

    def try_lock(owner):
        lock = take(owner)
        lock.release = lambda: silent.freed.wait(60)
        silent.plan = plan
        return lock

    silent.try_lock = try_lock
    result = bounded(silent)
    assert "plan again did not end" in result.stores[0].error.message
    assert any("could not be given up" in note for note in result.stores[0].notes)


class Blocked(InMemoryBootstrapper):
    """A store whose change waits for somebody else until the engine ends it."""

    tries = 0

    def waits_for(self):
        return "Transaction 9 blocks it." if not self.applied else ""

    def apply(self, change):
        self.tries += 1
        if self.tries == 1:
            assert self.cancelled.wait(60)
            raise StoreUnavailable(self.name, "The statement was ended on the server.")
        return super().apply(change)

    def end_wait(self):
        self.cancelled.set()
        return True


def test_a_change_that_waits_for_a_lock_without_a_limit_is_ended_and_tried_again():
    store, events = Blocked("neo4j", ["a"]), []
    retry = RetryPolicy(lock_timeout_s=0.2, busy_attempts=2, busy_initial_s=0.01)
    result = bounded(store, events, retry=retry)
    assert (result.outcome, store.tries) == (Outcome.CHANGED, 2)
    [waited] = [event.message for event in events if event.kind == "waiting"]
    assert waited == "item a waited for 0.2 s and was ended. Transaction 9 blocks it."


class Mute(InMemoryBootstrapper):
    """A store with a ladder whose ping does not come back."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.freed = threading.Event()

    def places(self):
        return ()

    def rungs(self):
        return ()

    def server_age_s(self):
        return None

    def ping(self, timeout_s):
        self.freed.wait(60)
        return super().ping(timeout_s)


def climbed(store, deadline_s):
    retry = RetryPolicy(deadline_s=deadline_s)
    return BootstrapOrchestrator([store], retry=retry, climbs=True).run(Mode.WAIT).stores[0]


def test_a_rung_that_the_time_limit_has_ended_is_told_as_timed_out(monkeypatch):
    monkeypatch.setattr(deadlines_module, "_LAST_CALL_S", 0.2)
    store = Mute("postgres")
    seen = climbed(store, 0.3)
    store.freed.set()
    name, port = seen.rungs
    assert (name.ok, port.ok) == (None, False)
    assert port.text.startswith("wait did not end within 0.3 s.")
    assert "--timeout" in port.hint


def test_of_a_store_without_a_ladder_no_single_rung_is_told_as_reached():
    seen = climbed(InMemoryBootstrapper("postgres"), 5)
    assert seen.error is None
    assert {rung.ok for rung in seen.rungs} == {None}
    assert seen.rungs[0].text.startswith("not looked at")
    seen = climbed(InMemoryBootstrapper("postgres", unavailable=99), 0.1)
    assert [rung.ok for rung in seen.rungs] == [None, False]

import threading
import time
from dataclasses import replace

import pytest

from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.store import LeftLease, MadeByOther
from is_db_bootstrap.errors import (
    AccessDenied,
    ChangeFailed,
    ConfigurationError,
    HalfDone,
    LockTimeout,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
    VerificationFailed,
)
from is_db_bootstrap.results import Change, Drift, LockHolder, Mode, Nature, Outcome, Plan
from is_db_bootstrap.testing import InMemoryBootstrapper

QUICK = RetryPolicy(
    deadline_s=0.3,
    initial_s=0.01,
    maximum_s=0.02,
    busy_initial_s=0.001,
    busy_maximum_s=0.002,
    busy_attempts=3,
)


def run(*stores, mode=Mode.APPLY, retry=QUICK, **extra):
    return BootstrapOrchestrator(stores, blueprint="test", retry=retry, **extra).run(mode)


def raising(error):
    def call(*_):
        raise error

    return call


def test_a_mode_that_is_given_as_text_is_that_mode():
    store = InMemoryBootstrapper(wanted=["a"])
    result = run(store, mode="plan")
    assert store.calls == ["ping", "plan", "close"]
    assert result.mode is Mode.PLAN
    assert result.outcome is Outcome.PLANNED


def test_a_missing_change_is_applied_and_verified():
    store = InMemoryBootstrapper(wanted=["a", "b"])
    result = run(store)
    assert store.calls == [
        "ping",
        "plan",
        "lock",
        "plan",
        "apply a",
        "apply b",
        "verify",
        "release",
        "close",
    ]
    assert (result.outcome, result.exit_code) == (Outcome.CHANGED, 0)
    assert [(c.name, c.outcome) for c in result.stores[0].changes] == [
        ("a", "changed"),
        ("b", "changed"),
    ]


def test_a_run_with_nothing_to_do_takes_no_lock_and_verifies():
    store = InMemoryBootstrapper(wanted=["a"], applied=["a"])
    result = run(store)
    assert store.calls == ["ping", "plan", "verify", "close"]
    assert result.outcome == "unchanged"


class Releasing(InMemoryBootstrapper):
    def know_anchor(self, anchor):
        pass

    def left_lease(self):
        return LeftLease(LockHolder("a run that is over"), is_over=True, anchor=None)

    def release_lapsed(self):
        self.calls.append("release lapsed")
        return "The lock of a run that is over was removed."


@pytest.mark.parametrize(
    ("mode", "applied", "asked"),
    [
        (Mode.APPLY, ["a"], 1),
        (Mode.APPLY, [], 0),
        (Mode.PLAN, ["a"], 0),
        (Mode.VERIFY, ["a"], 0),
        (Mode.STATUS, ["a"], 0),
    ],
)
def test_only_a_run_that_may_write_and_takes_no_lock_removes_a_lapsed_one(mode, applied, asked):
    store = Releasing(wanted=["a"], applied=applied)
    result = run(store, mode=mode)
    assert store.calls.count("release lapsed") == asked
    assert (result.exit_code, len(result.stores[0].notes)) == (0, asked)


def test_a_lapsed_lock_that_the_user_may_not_remove_is_a_note():
    store = Releasing(wanted=["a"], applied=["a"])
    store.release_lapsed = raising(AccessDenied("redis", "The user may not delete it."))
    result = run(store)
    assert (result.exit_code, result.outcome) == (0, Outcome.UNCHANGED)
    assert "could not be removed: The user may not delete it." in result.stores[0].notes[0]


def test_no_store_is_changed_while_another_is_down():
    up, down = (
        InMemoryBootstrapper("postgres", ["a"]),
        InMemoryBootstrapper("milvus", ["b"], unavailable=10**6),
    )
    result = run(up, down)
    assert up.applied == []
    assert [s.outcome for s in result.stores] == ["skipped", "failed"]
    assert result.exit_code == 4
    with pytest.raises(StoreUnavailable):
        result.raise_for_failure()


def test_a_conflict_in_one_plan_stops_every_store():
    fine, odd = InMemoryBootstrapper("postgres", ["a"]), InMemoryBootstrapper("neo4j", ["b"])
    odd.plan = raising(StoreConflict("neo4j", "Two definitions."))
    result = run(fine, odd)
    assert fine.applied == []
    assert result.exit_code == 6


def test_waiting_ends_as_soon_as_the_store_answers():
    store = InMemoryBootstrapper(wanted=["a"], unavailable=3)
    assert run(store).outcome == "changed"
    assert store.calls.count("ping") == 4


def test_a_refused_password_is_tried_once():
    store = InMemoryBootstrapper()
    store.ping = raising(AccessDenied("redis", "Wrong password."))
    began = time.monotonic()
    assert run(store, retry=RetryPolicy(deadline_s=30)).exit_code == 5
    assert time.monotonic() - began < 5


def test_the_deadline_ends_the_wait():
    began = time.monotonic()
    assert run(InMemoryBootstrapper(unavailable=10**6)).exit_code == 4
    assert time.monotonic() - began < 2


def test_what_was_applied_before_a_failure_is_reported():
    def fail_on_b(change):
        if change.name == "b":
            raise ChangeFailed("redis", "Refused.", change=change)

    result = run(InMemoryBootstrapper(wanted=["a", "b", "c"], on_apply=fail_on_b))
    assert [(c.name, c.outcome) for c in result.stores[0].changes] == [
        ("a", "changed"),
        ("b", "failed"),
        ("c", "planned"),
    ]
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 1)


def test_a_store_that_applied_while_another_failed_is_changed_and_not_verified():
    fine = InMemoryBootstrapper("postgres", ["a"])
    bad = InMemoryBootstrapper(
        "redis", ["b"], on_apply=lambda c: raising(ChangeFailed("redis", "Refused.", change=c))()
    )
    result = run(fine, bad)
    assert result.store("postgres").outcome == "changed"
    assert any("Not verified" in n for n in result.store("postgres").notes)
    assert "verify" not in fine.calls


def test_a_busy_change_is_repeated_within_its_limit():
    attempts = []

    def busy_twice(change):
        attempts.append(change)
        if len(attempts) < 3:
            raise StoreBusy("redis", "Busy.")

    assert run(InMemoryBootstrapper(wanted=["a"], on_apply=busy_twice)).outcome == "changed"
    assert len(attempts) == 3


def test_a_change_that_another_run_has_made_is_told_as_unchanged_with_a_remark():
    store = InMemoryBootstrapper(wanted=["alpha", "beta"])
    make = store.apply

    def apply(change):
        make(change)
        return MadeByOther("Another run was faster.") if change.name == "beta" else "A word."

    store.apply = apply
    found = run(store).stores[0]
    told = {change.name: change.outcome for change in found.changes}
    assert told == {"alpha": Outcome.CHANGED, "beta": Outcome.UNCHANGED}
    assert {"Another run was faster.", "A word."} <= {*found.notes}


@pytest.mark.parametrize(
    ("nature", "tries"), [(Nature.ATOMIC, 2), (Nature.REPEATABLE, 2), (Nature.NEITHER, 1)]
)
def test_only_a_change_that_may_run_again_is_tried_again(nature, tries):
    class Named(InMemoryBootstrapper):
        def plan(self):
            found = super().plan()
            return replace(found, changes=tuple(replace(c, nature=nature) for c in found.changes))

    tried = []

    def busy_once(change):
        tried.append(change.name)
        if len(tried) == 1:
            raise StoreBusy("redis", "A lock was not free.")

    store = Named("redis", ["a"], on_apply=busy_once)
    result = BootstrapOrchestrator([store], retry=QUICK).run()
    assert len(tried) == tries
    assert result.exit_code == (0 if tries == 2 else 4)
    assert result.stores[0].changes[0].nature is nature


def test_a_change_that_has_left_a_part_is_reported_as_neither_and_not_tried_again():
    store = InMemoryBootstrapper("redis", ["a"])
    tried = []

    def fail(change):
        tried.append(change.name)
        raise HalfDone("redis", "A part of it stays.", change=change)

    store.on_apply = fail
    result = BootstrapOrchestrator([store]).run()
    assert (tried, result.exit_code) == (["a"], 1)
    assert result.stores[0].changes[0].nature is Nature.NEITHER
    assert result.stores[0].error.kind == "half_done"


def test_a_retry_that_no_store_has_marked_is_refused_before_anything_is_changed():
    stores = [InMemoryBootstrapper("redis", ["a"]), InMemoryBootstrapper("milvus", ["b"])]
    result = BootstrapOrchestrator(stores, retry_changes=["a"]).run()
    assert result.exit_code == 2
    assert "a is not marked as begun" in result.store("milvus").error.message
    assert [store.applied for store in stores] == [[], []]


def test_a_change_that_stays_busy_fails_with_unavailable():
    result = run(
        InMemoryBootstrapper(
            wanted=["a"], on_apply=lambda _: raising(StoreBusy("redis", "Busy."))()
        )
    )
    assert result.exit_code == 4


def test_a_lock_that_is_held_ends_in_a_timeout_that_names_the_holder():
    store = InMemoryBootstrapper(wanted=["a"])
    store.lock_owner = "somebody on web-1"
    result = run(store)
    assert result.exit_code == 7
    assert "somebody on web-1" in result.stores[0].error.message
    assert store.applied == []
    with pytest.raises(LockTimeout):
        result.raise_for_failure()


def test_two_runs_at_once_apply_once():
    slow = threading.Event()
    first = InMemoryBootstrapper(wanted=["a"], on_apply=lambda _: slow.wait(0.3))
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(run(first, retry=RetryPolicy(deadline_s=10)))
        )
        for _ in range(2)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert first.applied == ["a"]
    assert sorted(r.outcome for r in results) == ["changed", "unchanged"]


def test_stores_are_locked_in_store_order():
    order = []
    stores = [InMemoryBootstrapper(n, ["x"]) for n in ("redis", "postgres", "neo4j")]
    for s in stores:
        s.try_lock = lambda owner, s=s, take=s.try_lock: (order.append(s.name), take(owner))[1]
    run(*stores)
    assert order == ["postgres", "neo4j", "redis"]


def unlockable(*args):
    """A store without the ability to lock."""
    inner = InMemoryBootstrapper(*args)

    class Plain:
        name, target = inner.name, inner.target
        ping, plan, apply, verify, cancel, close = (
            inner.ping,
            inner.plan,
            inner.apply,
            inner.verify,
            inner.cancel,
            inner.close,
        )

    return Plain(), inner


def test_a_store_that_cannot_lock_borrows_a_lock_of_the_run():
    plain, inner = unlockable("milvus", ["x"])
    lender = InMemoryBootstrapper("postgres", ["a"], applied=["a"])
    run(lender, plain)
    assert "lock" in lender.calls
    assert inner.applied == ["x"]


def test_a_store_that_cannot_lock_borrows_a_lock_from_outside_of_the_run():
    plain, inner = unlockable("milvus", ["x"])
    lender = InMemoryBootstrapper("postgres", ["a"])
    run(plain, lock=LockPolicy(borrow=(lender,)))
    assert lender.calls == ["lock", "release", "close"]
    assert lender.applied == []
    assert inner.applied == ["x"]


def test_a_lender_without_its_database_is_passed_over():
    plain, inner = unlockable("redis", ["x"])
    missing, lender = InMemoryBootstrapper("postgres"), InMemoryBootstrapper("neo4j")
    missing.try_lock = raising(StoreConflict("postgres", "The database does not exist."))
    assert run(plain, lock=LockPolicy(borrow=(missing, lender))).outcome == "changed"
    assert lender.calls == ["lock", "release", "close"]
    assert inner.applied == ["x"]


def test_a_run_without_any_lock_says_so():
    plain, _ = unlockable("milvus", ["x"])
    assert any("not excluded" in n for n in run(plain).stores[0].notes)


def test_a_lost_lock_ends_the_run_before_the_next_change():
    store = InMemoryBootstrapper(wanted=["a", "b"])

    def steal(change):
        store.lock_owner = "a thief"

    store.on_apply = steal
    result = run(store, lock=LockPolicy(fresh_s=0))
    assert store.applied == ["a"]
    assert result.exit_code == 4
    assert "lost" in result.stores[0].error.message


class Renewed(InMemoryBootstrapper):
    """A store that counts how often its lock is confirmed.

    It leaves the next `unanswered` confirmations without an answer.
    """

    lease_s = None
    confirmed = 0
    unanswered = 0

    def try_lock(self, owner):
        store, lock = self, super().try_lock(owner)
        if isinstance(lock, LockHolder):
            return lock

        class Counting:
            def confirm(self):
                if store.unanswered:
                    store.unanswered -= 1
                    raise StoreUnavailable(store.name, "No answer.")
                store.confirmed += 1
                return lock.confirm()

            def release(self):
                return lock.release()

        counting = Counting()
        if store.lease_s is not None:
            counting.lease_s = store.lease_s
        return counting


BEATING = LockPolicy(heartbeat_s=0.05, fresh_s=0, grace_s=0.1)


def test_losing_one_lock_stops_no_other_locks_renewal_and_fails_the_run():
    first, second = Renewed("postgres", ["a"]), Renewed("neo4j", ["b", "c"])
    seen = []

    def steal_and_wait(change):
        first.lock_owner = "a thief"
        time.sleep(0.3)  # several heartbeats, in which the loss is noticed
        seen.append(second.confirmed)
        time.sleep(0.3)
        seen.append(second.confirmed)

    second.on_apply = steal_and_wait
    result = run(first, second, lock=BEATING)
    assert seen[1] - seen[0] >= 2
    assert "cancel" not in second.calls
    assert second.applied == ["b"]
    assert result.exit_code == 4
    assert "lost" in result.store("postgres").error.message


def test_a_change_that_only_the_lost_lock_protected_is_ended_on_its_server():
    store = Renewed(wanted=["a"])

    def steal_and_wait(change):
        store.lock_owner = "a thief"
        assert store.cancelled.wait(30)
        raise StoreUnavailable("redis", "The statement was ended on the server.")

    store.on_apply = steal_and_wait
    result = run(store, lock=BEATING)
    assert store.calls.count("cancel") == 1
    assert store.applied == []
    assert result.exit_code == 4
    assert "was lost while a was running" in result.stores[0].error.message


def test_a_lock_that_was_lost_during_the_last_change_fails_the_run():
    store = Renewed(wanted=["a"])
    store.on_apply = lambda _: setattr(store, "lock_owner", "a thief")
    result = run(store, lock=LockPolicy(fresh_s=0))
    assert (result.exit_code, store.applied) == (4, ["a"])
    assert "lost before its changes were done" in result.stores[0].error.message


def test_a_lock_is_kept_while_the_run_still_waits_for_its_next_one():
    first, second = Renewed("neo4j", ["a"]), Renewed("redis", ["b"])
    second.lock_owner = "another run"
    threading.Timer(0.5, lambda: setattr(second, "lock_owner", None)).start()
    seen = []
    first.on_apply = lambda _: seen.append(first.confirmed)
    assert (
        run(first, second, lock=BEATING, retry=RetryPolicy(deadline_s=30, initial_s=0.01)).exit_code
        == 0
    )
    assert seen[0] >= 3


@pytest.mark.parametrize(("unanswered", "exit_code"), [(1, 0), (2, 4)])
def test_a_lock_counts_as_lost_when_its_store_gives_no_answer_twice_in_a_row(unanswered, exit_code):
    store = Renewed(wanted=["a"])

    def wait(change):
        store.unanswered = unanswered
        time.sleep(0.5)

    store.on_apply = wait
    assert run(store, lock=BEATING).exit_code == exit_code


@pytest.mark.parametrize("returns", [True, False])
def test_a_server_that_goes_mute_loses_the_lock_and_ends_the_run(returns):
    """Neither the confirmation nor the change nor the cancel gets an answer."""
    answer = threading.Event()

    class Mute(Renewed):
        lease_s = 3

        def try_lock(self, owner):
            lock = super().try_lock(owner)
            lock.confirm = lambda: answer.wait(60)
            return lock

        def cancel(self):
            super().cancel()
            assert returns or answer.wait(60)

    store = Mute(wanted=["a"])

    def hang(change):
        event = store.cancelled if returns else answer
        assert event.wait(60)
        raise StoreUnavailable("redis", "The connection was lost.")

    store.on_apply = hang
    events = []
    began = time.monotonic()
    policy = LockPolicy(heartbeat_s=0.1, grace_s=0.1)
    result = run(store, lock=policy, observers=[events.append])
    assert time.monotonic() - began < 30
    answer.set()
    assert result.exit_code == 4
    told = [event.message for event in events if event.kind == "failed"]
    assert told == [result.stores[0].error.message]
    assert "The lock of this run" in result.stores[0].error.message


def test_a_heartbeat_above_a_third_of_the_lease_of_a_lock_is_refused_before_anything_is_changed():
    store = Renewed(wanted=["a"])
    store.lease_s = 5
    result = run(store, lock=LockPolicy(heartbeat_s=2))
    assert (result.exit_code, store.applied, store.lock_owner) == (2, [], None)
    assert (
        "heartbeat_s is 2 s, which is above a third of lease_s, 5 s"
        in result.stores[0].error.message
    )


class WithoutRights(InMemoryBootstrapper):
    def check_rights(self):
        raise AccessDenied(self.name, "The user may not write.")


def test_a_store_whose_user_lacks_a_right_fails_the_run_before_anything_is_changed_anywhere():
    first, second = (
        InMemoryBootstrapper("postgres", wanted=["a"]),
        WithoutRights(wanted=["b"]),
    )
    result = run(first, second)
    assert result.exit_code == 5
    assert [store.outcome for store in result.stores] == [Outcome.SKIPPED, Outcome.FAILED]
    assert {"lock", "apply a"} & set(first.calls) == set()


@pytest.mark.parametrize("mode", [Mode.PLAN, Mode.VERIFY, Mode.STATUS, Mode.WAIT])
def test_rights_to_write_are_not_asked_for_by_who_only_looks(mode):
    result = run(WithoutRights(wanted=["b"]), mode=mode)
    assert result.exit_code in {0, 3}
    assert result.stores[0].outcome is not Outcome.FAILED


def test_a_leased_lock_is_renewed_six_times_in_its_lease():
    store = Renewed(wanted=["a"], on_apply=lambda _: time.sleep(0.7))
    store.lease_s = 0.6
    assert run(store, lock=LockPolicy()).exit_code == 0
    assert store.confirmed >= 4


def test_a_drift_after_apply_fails_the_run():
    store = InMemoryBootstrapper(wanted=["a"], applied=["a"])
    store.verify = lambda: [Drift("x", "index", "is missing")]
    result = run(store)
    assert (result.outcome, result.exit_code) == (Outcome.DRIFTED, 3)
    with pytest.raises(VerificationFailed):
        result.raise_for_failure()


def test_a_plan_changes_nothing():
    store = InMemoryBootstrapper(wanted=["a"])
    result = run(store, mode=Mode.PLAN)
    assert store.calls == ["ping", "plan", "close"]
    assert (result.outcome, result.exit_code) == (Outcome.PLANNED, 0)


def test_verify_with_changes_pending_is_drift():
    store = InMemoryBootstrapper(wanted=["a"])
    result = run(store, mode=Mode.VERIFY)
    assert (result.outcome, result.exit_code) == (Outcome.DRIFTED, 3)
    assert "apply a" not in store.calls


@pytest.mark.parametrize("mode", [Mode.VERIFY, Mode.APPLY])
def test_a_store_that_was_verified_is_unchanged_although_another_has_drifted(mode):
    right = InMemoryBootstrapper("postgres", ["a"], applied=["a"])
    drifted = InMemoryBootstrapper("redis", ["b"], applied=["b"])
    is_done = threading.Event()
    right.verify = lambda: is_done.set() or []
    drifted.verify = lambda: is_done.wait(60) and [Drift("x", "index", "is missing")]
    result = run(right, drifted, mode=mode)
    outcomes = [store.outcome for store in result.stores]
    assert outcomes == [Outcome.UNCHANGED, Outcome.DRIFTED]
    assert (result.outcome, result.exit_code) == (Outcome.DRIFTED, 3)


def test_status_looks_once_and_reports_stores_that_are_down():
    up, down = (
        InMemoryBootstrapper("postgres", ["a"], applied=["a"]),
        InMemoryBootstrapper("redis", unavailable=10**6),
    )
    result = run(up, down, mode=Mode.STATUS)
    assert down.calls.count("ping") == 1
    assert result.store("postgres").status.recorded == "a"
    assert result.store("redis").outcome == "failed"


def test_status_says_what_is_recorded_also_of_a_store_in_conflict():
    store = InMemoryBootstrapper("neo4j", ["a"], applied=["a"])
    store.plan = raising(StoreConflict("neo4j", "Two definitions."))
    result = run(store, mode=Mode.STATUS)
    assert (result.exit_code, result.stores[0].status.recorded) == (6, "a")


def test_a_store_that_is_ahead_is_left_alone_and_can_be_refused():
    store = InMemoryBootstrapper()
    store.plan = lambda: Plan(ahead=True, notes=("ahead",))
    result = run(store)
    assert (result.outcome, result.exit_code) == (Outcome.UNCHANGED, 0)
    assert "verify" not in store.calls
    assert run(store, allow_ahead=False).exit_code == 6


def test_a_store_of_which_a_part_is_ahead_is_verified_and_can_be_refused():
    store = InMemoryBootstrapper()
    store.plan = lambda: Plan(parts_ahead=("notes_v1",))
    assert run(store).exit_code == 0
    assert "verify" in store.calls
    refused = run(store, allow_ahead=False)
    assert refused.exit_code == 6
    assert "history of notes_v1 goes on" in refused.stores[0].error.message


def test_a_store_is_verified_where_all_that_is_declared_was_compared_and_only_there():
    lacking, complete = InMemoryBootstrapper(wanted=["a"]), InMemoryBootstrapper()
    verified = [
        run(store, mode=mode).stores[0].is_verified
        for mode in (Mode.VERIFY, Mode.REPAIR)
        for store in (lacking, complete)
    ]
    assert verified == [False, True, False, True]


def test_a_database_that_could_not_be_created_is_a_failed_change():
    store = InMemoryBootstrapper("postgres")
    missing = Change("shop", "database", "", Nature.REPEATABLE)
    store.plan = lambda: Plan((missing,))
    store.create_database = raising(AccessDenied("postgres", "permission denied"))
    [found] = run(store).stores
    assert (found.error.kind, found.outcome) == ("access_denied", Outcome.FAILED)
    assert [(each.name, each.outcome) for each in found.changes] == [("shop", Outcome.FAILED)]


def interrupt_after(begun, engine, exit_code=130):
    """Interrupt the run as soon as its change has begun, however slow the machine is."""

    def wait():
        assert begun.wait(60)
        engine.interrupt(exit_code)

    threading.Thread(target=wait, daemon=True).start()


def test_an_interrupt_cancels_what_runs_and_reports_what_was_applied():
    store = InMemoryBootstrapper(wanted=["a", "b", "c"])
    begun = threading.Event()

    def apply(change):
        if change.name == "b":
            begun.set()
            store.cancelled.wait(60)

    store.on_apply = apply
    engine = BootstrapOrchestrator([store], retry=QUICK, lock=LockPolicy(grace_s=0.1))
    interrupt_after(begun, engine, 143)
    result = engine.run()
    assert (result.outcome, result.exit_code) == (Outcome.INTERRUPTED, 143)
    assert result.stores[0].changes[0].name == "a"
    assert "c" not in store.applied
    assert "release" in store.calls


def test_an_interrupted_wait_ends_at_once():
    engine = BootstrapOrchestrator(
        [InMemoryBootstrapper(unavailable=10**6)], retry=RetryPolicy(deadline_s=60)
    )
    threading.Timer(0.1, engine.interrupt).start()
    began = time.monotonic()
    assert engine.run().exit_code == 130
    assert time.monotonic() - began < 10


def test_a_statement_that_does_not_end_keeps_its_lock():
    begun = threading.Event()

    def apply(_):
        begun.set()
        time.sleep(4)

    store = InMemoryBootstrapper(wanted=["a"], on_apply=apply)
    engine = BootstrapOrchestrator([store], retry=QUICK, lock=LockPolicy(grace_s=0.1))
    interrupt_after(begun, engine)
    result = engine.run()
    assert "release" not in store.calls
    assert any("left to expire" in n for n in result.stores[0].notes)


def test_an_apply_deadline_is_a_failure_and_not_an_interruption():
    store = InMemoryBootstrapper(wanted=["a"])
    store.on_apply = lambda _: store.cancelled.wait(60)
    result = run(store, lock=LockPolicy(grace_s=0.1, apply_timeout_s=0.3))
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 4)
    assert "did not end within" in result.stores[0].error.message


def test_nothing_is_applied_after_an_apply_deadline():
    store = InMemoryBootstrapper(wanted=["a", "b", "c"], on_apply=lambda _: time.sleep(0.6))
    assert run(store, lock=LockPolicy(grace_s=0.1, apply_timeout_s=0.2)).exit_code == 4
    time.sleep(1)
    assert store.applied == ["a"]


def test_what_a_server_goes_on_with_is_told_when_its_change_was_ended():
    class Tireless(InMemoryBootstrapper):
        def what_goes_on(self):
            return "An index may go on."

    busy = Tireless("neo4j", ["a"], on_apply=lambda _: busy.cancelled.wait(60))
    idle = Tireless("redis", ["b"])
    limited = run(busy, idle, lock=LockPolicy(grace_s=0.1, apply_timeout_s=0.3))
    assert limited.stores[0].notes == ("An index may go on.",)
    assert "An index may go on." not in limited.stores[1].notes


def test_a_plan_that_does_not_end_is_ended_where_it_has_a_limit():
    slow, quick = InMemoryBootstrapper("postgres", ["a"]), InMemoryBootstrapper("redis", ["b"])
    slow.plan = lambda: slow.cancelled.wait(60) and Plan()
    engine = BootstrapOrchestrator([slow, quick], retry=QUICK, lock=LockPolicy(phase_timeout_s=0.3))
    result = engine.run()
    assert (result.exit_code, engine.ended_early) == (4, True)
    assert [s.outcome for s in result.stores] == ["failed", "skipped"]
    assert "plan did not end within 0.3 s" in result.stores[0].error.message
    assert (slow.applied, quick.applied) == ([], [])


@pytest.mark.parametrize(
    ("late", "outcome", "exit_code"),
    [
        # The thread waits before it tries again, and is told there that the run is over.
        (StoreBusy("postgres", "Not now."), "failed", 4),
        (StoreConflict("postgres", "Two definitions."), "interrupted", 130),
    ],
    ids=["limit", "interrupt"],
)
def test_a_call_that_comes_back_when_its_run_has_given_it_up_does_not_change_the_report(
    late, outcome, exit_code
):
    slow, lender = InMemoryBootstrapper("postgres", ["a"]), InMemoryBootstrapper("redis")
    begun, closing, threads = threading.Event(), threading.Event(), []

    def plan():
        threads.append(threading.current_thread())
        begun.set()
        assert closing.wait(60)
        raise late

    def close():
        """The run closes its stores after it has decided what became of them."""
        closing.set()
        threads[0].join(60)

    slow.plan, lender.close = plan, close
    limit_s = 0.1 if outcome == "failed" else 0
    policy = LockPolicy(grace_s=0.1, phase_timeout_s=limit_s, borrow=(lender,))
    engine = BootstrapOrchestrator([slow], retry=QUICK, lock=policy)
    if outcome != "failed":
        interrupt_after(begun, engine)
    result = engine.run()
    threads[0].join(60)
    assert (result.outcome, result.stores[0].outcome) == (outcome, outcome)
    assert (result.exit_code, engine.unfinished) == (exit_code, ("postgres",))


def test_an_interrupt_keeps_the_failure_that_came_before_it():
    failing, slow = InMemoryBootstrapper("postgres", ["a"]), InMemoryBootstrapper("neo4j", ["b"])
    begun, threads = threading.Event(), []

    def fail(change):
        threads.append(threading.current_thread())
        begun.set()
        raise ChangeFailed("postgres", "Refused.", change=change)

    def interrupt_when_the_other_has_failed(_):
        assert begun.wait(60)
        threads[0].join(60)
        engine.interrupt()
        slow.cancelled.wait(60)

    failing.apply, slow.on_apply = fail, interrupt_when_the_other_has_failed
    engine = BootstrapOrchestrator([failing, slow], retry=QUICK, lock=LockPolicy(grace_s=0.1))
    result = engine.run()
    assert result.exit_code == 130
    assert [s.error.message for s in result.stores] == [
        "Refused.",
        "The run was interrupted during apply. item b is being applied.",
    ]


def test_a_remark_of_an_audit_is_no_drift_and_a_finding_is_one_and_only_in_strict_verify():
    store = InMemoryBootstrapper(wanted=["a"], applied=["a"])
    remark, finding = (
        Drift("keyspace", "audit", "looked at 10 of 20 keys"),
        Drift("k", "key", "has no lifetime", finding=True),
    )
    store.audit = lambda: [remark]
    assert run(store, mode=Mode.VERIFY, strict=True).exit_code == 0
    store.audit = lambda: [remark, finding]
    strict = run(store, mode=Mode.VERIFY, strict=True).stores[0]
    assert (strict.drifts, len(strict.notes)) == ((finding,), 1)
    assert len(run(store, mode=Mode.VERIFY).stores[0].notes) == 2


def test_a_lock_that_was_lost_ends_a_change_that_is_still_busy():
    store = InMemoryBootstrapper(wanted=["a"])

    def busy(change):
        store.lock_owner = "a thief"
        raise StoreBusy("redis", "Not now.")

    store.on_apply = busy
    result = run(store, lock=LockPolicy(fresh_s=0))
    assert store.calls.count("apply a") == 1
    assert "lost" in result.stores[0].error.message


def test_a_bug_in_a_store_stays_a_traceback():
    store = InMemoryBootstrapper(wanted=["a"])
    store.plan = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run(store)
    assert "close" in store.calls


def test_an_observer_that_fails_does_not_end_the_run(caplog):
    seen = []

    def bad(event):
        seen.append(event.kind)
        raise RuntimeError("observer")

    assert run(InMemoryBootstrapper(wanted=["a"]), observers=[bad]).outcome == "changed"
    assert seen[-1] == "finished"


def test_the_first_failed_store_in_store_order_gives_the_exit_code():
    pg, redis = InMemoryBootstrapper("postgres"), InMemoryBootstrapper("redis")
    pg.ping = raising(AccessDenied("postgres", "No."))
    redis.ping = raising(ConfigurationError("redis: not Redis."))
    assert run(redis, pg).exit_code == 5


def test_two_bootstrappers_of_one_store_are_refused():
    with pytest.raises(ConfigurationError):
        BootstrapOrchestrator([InMemoryBootstrapper(), InMemoryBootstrapper()])


def test_a_follower_that_found_nothing_left_changes_nothing_without_the_lock():
    """A third look would find something pending again, while the other run still holds the lock."""
    store = InMemoryBootstrapper(wanted=["a"])
    store.lock_owner = "another run"
    plan, seen = store.plan, []

    def planned():
        seen.append(1)
        store.applied = ["a"] if len(seen) == 2 else []  # the second look is the follower's
        return plan()

    store.plan = planned
    result = BootstrapOrchestrator([store], lock=LockPolicy(follow=True)).run()
    assert not [call for call in store.calls if call.startswith("apply")]
    assert store.lock_owner == "another run"
    assert (result.exit_code, len(seen)) == (0, 2)


def test_a_follower_without_patience_still_sleeps_between_two_tries():
    store = InMemoryBootstrapper(wanted=["a"])
    store.lock_owner = "another run"
    engine = BootstrapOrchestrator(
        [store], lock=LockPolicy(follow=True, grace_s=0.1), retry=RetryPolicy(deadline_s=0)
    )
    threading.Timer(0.6, engine.interrupt).start()
    assert engine.run().outcome == "interrupted"
    assert 2 <= store.calls.count("lock") < 20

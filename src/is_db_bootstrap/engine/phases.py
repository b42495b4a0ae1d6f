"""The phases of a run, in their order, and what each phase does with one store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.deadlines import Deadlines
from is_db_bootstrap.engine.default_blueprint import refuse_other_blueprints
from is_db_bootstrap.engine.ladder import Climb
from is_db_bootstrap.engine.locks import Locks, NothingLeft
from is_db_bootstrap.engine.remembering import Remembering
from is_db_bootstrap.engine.retry import LEAST_CALL_S, until, while_busy, while_busy_change
from is_db_bootstrap.engine.store import (
    CanAdopt,
    CanAdvise,
    CanApplyTogether,
    CanAudit,
    CanCheckRights,
    CanComparePending,
    CanCreateDatabase,
    CanForeseeRefusal,
    CanProve,
    CanReleaseLapsed,
    CanReport,
    CanRetry,
    CanTakeOver,
    CanTellBlueprints,
    CanTellStatements,
    MadeByOther,
)
from is_db_bootstrap.engine.together import Together
from is_db_bootstrap.engine.track import UNVERIFIED, Call, Track
from is_db_bootstrap.engine.workers import Workers
from is_db_bootstrap.errors import (
    APPLY,
    PENDING,
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    HalfDone,
    Interrupted,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
    VerificationFailed,
)
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Change, ChangeResult, Drift, Mode, Nature, Outcome

if TYPE_CHECKING:
    from is_db_bootstrap.engine.adoption import Adopting
    from is_db_bootstrap.names import StoreName

T = TypeVar("T")


class Phases:
    """Takes one run through its phases.

    A phase ends for all stores before the next phase begins. The next phase begins only if no store
    has failed.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._rules = run.rules
        self._retry = run.rules.retry
        self._deadlines = Deadlines(run.rules.retry, run.rules.lock)
        self._locks = Locks(run, self._deadlines.of_waits)
        self._workers = Workers(run, self._deadlines, lambda: self._locks.acquiring)
        #: Whether another run has made all the changes that this one had planned.
        self._followed = False
        #: The stores whose rights could not be looked at before the lock.
        self._unread_rights: set[StoreName] = set()
        self._remembering = Remembering(run)

    @property
    def workers(self) -> Workers:
        """The threads of the run, which know what did not come back."""
        return self._workers

    # --- the order

    def go_through(self) -> None:
        """Go through the phases that the mode asks for. A phase that failed is the last one."""
        mode = self._run.mode
        self._allow_retries()
        all_ready = self._workers.run_phase(Phase.WAIT, self._wait_for_store)
        if mode in {Mode.STATUS, Mode.DOCTOR}:
            self._report_each()
            return
        if not all_ready or mode is Mode.WAIT:
            return
        is_planned = self._plan_all()
        if not self._judge_adoption() or not is_planned or mode is Mode.PLAN:
            return
        if not self._refuse_unmarked_retries():
            return
        if mode is Mode.APPLY and self._is_something_pending() and not self._make_changes():
            return
        if mode is Mode.APPLY and not self._release_lost():
            return
        self._verify_all()
        if self._run.adopting is not None and self._is_something_pending():
            # The record tells what the plan of the next run will find.
            self._remembering.mark_due()
        self._remember_all()

    def _report_each(self) -> None:
        """Look closer at each store that could be asked, also when others could not."""
        if self._run.mode is Mode.DOCTOR:
            from is_db_bootstrap.engine.examination import examine_store, is_let_in

            entered = [track for track in self._run.tracks if is_let_in(track)]
            examine = partial(examine_store, self._plan_like_apply)
            self._workers.run_phase(Phase.DOCTOR, examine, entered)
            self._remembering.refuse_losses()
            return
        ready = [track for track in self._run.tracks if track.error is None]
        self._workers.run_phase(Phase.STATUS, self._report_status, ready)
        self._remembering.tell()

    def _plan_like_apply(self, track: Track) -> None:
        """Plan, and raise what an apply would raise."""
        self._refuse_other_blueprint(track)
        self._plan_changes(track)

    def _make_changes(self) -> bool:
        """Look at rights, lock, plan again and apply. Returns whether all of this succeeded."""
        if not self._check_all_rights() or not self._create_databases():
            return False
        if not self._workers.run_for_all(Phase.LOCK, self._take_locks):
            return False
        if self._followed:
            # Another run has left nothing to do. Without the lock, nothing may be changed, so
            # nothing is planned.
            return True
        if not self._workers.run_phase(Phase.REPLAN, self._plan_changes):
            return False
        if not self._refuse_new_losses() or not self._check_rights_left():
            return False
        self._remembering.mark_due()
        return self._workers.run_phase(Phase.APPLY, self._apply_changes)

    def _verify_all(self) -> None:
        if self._run.mode is Mode.VERIFY or self._rules.verify:
            self._workers.run_phase(Phase.VERIFY, self._verify_store)
            return
        for track in self._run.tracks:
            track.note(UNVERIFIED)

    def _is_something_pending(self) -> bool:
        return any(track.needs_lock for track in self._run.tracks)

    # --- what may run again

    def _allow_retries(self) -> None:
        """Tell the stores which changes may run again although they have begun."""
        for track in self._run.tracks:
            if isinstance(track.store, CanRetry):
                track.store.allow_retry(self._rules.retry_changes)

    def _refuse_unmarked_retries(self) -> bool:
        """Fail the run for a change that is to run again and that no store has marked as begun.

        Returns whether there is none.
        """
        marked = {name for track in self._run.tracks if track.plan for name in track.plan.begun}
        unmarked = [name for name in self._rules.retry_changes if name not in marked]
        if not unmarked:
            return True
        error = ConfigurationError(
            f"{', '.join(unmarked)} is not marked as begun without its record, so there is nothing"
            " to run again.",
            hint="Leave that --retry out. If another run is at work on it, wait for that run.",
        )
        first = self._run.tracks[0]
        first.error = error
        self._run.say_failed(Phase.PLAN, first.store.name, error)
        return False

    # --- wait and plan

    def _wait_for_store(self, track: Track) -> None:
        climb = Climb(self._run, track)

        def say(error: StoreUnavailable) -> None:
            self._run.say_waiting(Phase.WAIT, track.store.name, error.message)

        if self._run.mode in {Mode.STATUS, Mode.DOCTOR}:
            # There is one try only. The try gets the usual time, so that a slow machine does not
            # look like a dead store.
            climb.try_once(max(self._retry.deadline_s, LEAST_CALL_S))
            return
        deadline = self._deadlines.of_waits
        until(self._retry, deadline, climb.try_once, sleep=self._run.sleep, on_retry=say)

    def _plan_all(self) -> bool:
        """Plan every store. In plan mode, say also what would be sent. Whether this succeeded."""
        is_planned = self._workers.run_phase(Phase.PLAN, self._plan_first)
        if not is_planned and not self._has_compared_all():
            return False
        if not self._remembering.refuse_losses():
            return False
        self._remembering.mark_due()
        if not self._foresee_refusals():
            return False
        if self._run.mode is not Mode.PLAN or not self._run.tells_statements:
            return True
        return self._tell_all_statements()

    def _has_compared_all(self) -> bool:
        """Whether an adoption has looked at every store, also at those that differ.

        What is lost differs too, and only the records of all stores tell that it was lost.
        """
        if self._run.adopting is None:
            return False
        errors = [track.error for track in self._run.tracks if track.error is not None]
        return all(isinstance(error, VerificationFailed) for error in errors)

    def _foresee_refusals(self) -> bool:
        """Let each store in which a record is due say whether it can keep that.

        A record that cannot be kept is a note, and no lock is taken for it. Whether all could say.
        """
        due = [track for track in self._run.tracks if track.memory is not None]
        able = [track for track in due if isinstance(track.store, CanForeseeRefusal)]
        if not able or self._run.mode not in {Mode.PLAN, Mode.APPLY}:
            return True
        if not self._workers.run_phase(Phase.PLAN, self._foresee_refusal, able, quiet=True):
            return False
        self._remembering.mark_due()
        return True

    def _foresee_refusal(self, track: Track) -> None:
        self._look_while_busy(track, partial(self._remembering.foresee_refusal, track))

    def _judge_adoption(self) -> bool:
        """Refuse blank stores, and names that do not differ. Whether the run goes on.

        A run that adopts nothing goes on.
        """
        if self._run.adopting is None:
            return True
        for track, error in self._run.adopting.refusals(self._run.tracks):
            track.error = error
            self._run.say_failed(Phase.PLAN, track.store.name, error)
        return self._run.all_succeeded

    def _plan_first(self, track: Track) -> None:
        """Plan, and remove what a run that is over has left of its lock.

        A store with something pending needs no such removal, because this run takes its lock.
        """
        self._refuse_other_blueprint(track)
        try:
            self._plan_changes(track)
        except StoreConflict:
            if self._run.mode is Mode.VERIFY:
                self._tell_drifts_of_conflict(track)
            raise
        if self._run.mode is Mode.APPLY and not track.pending:
            self._look_at_lease(track)

    def _tell_drifts_of_conflict(self, track: Track) -> None:
        """Say both sides of what contradicts the blueprint, where the store can compare that."""
        if not isinstance(track.store, CanComparePending):
            return
        with suppress(StoreConflict):
            track.drifts += self._look_while_busy(track, track.store.verify)

    def _look_at_lease(self, track: Track) -> None:
        """Remove a lease that is over, and remember one that goes on.

        A refusal is a note, because this run needs no lock here.
        """
        if not isinstance(track.store, CanTakeOver):
            return
        try:
            lease = self._look_while_busy(track, track.store.left_lease)
        except AccessDenied as exc:
            track.note(f"Whether another run has left its lock could not be seen: {exc.message}")
            return
        if lease is not None and lease.is_over:
            self._release_lapsed(track)
        else:
            track.left_lease = lease

    def _release_lapsed(self, track: Track) -> None:
        """Remove the lock of a run that is over. A refusal is a note, because nothing is wrong."""
        if not isinstance(track.store, CanReleaseLapsed):
            return
        try:
            track.note(self._look_while_busy(track, track.store.release_lapsed) or "")
        except AccessDenied as exc:
            track.note(f"The lock of a run that is over could not be removed: {exc.message}")

    def _refuse_other_blueprint(self, track: Track) -> None:
        """Raise `StoreConflict` when nobody named a blueprint and the store carries others only."""
        store = track.store
        if not self._rules.is_default_blueprint or not isinstance(store, CanTellBlueprints):
            return
        refuse_other_blueprints(
            store.name,
            store.target,
            self._look_while_busy(track, store.recorded_blueprints),
            self._rules.blueprint,
        )

    def _plan_adoption(self, track: Track, adopting: Adopting) -> None:
        """Look what differs, and plan the records that are missing."""
        store = track.store
        if not isinstance(store, CanAdopt):
            raise ConfigurationError(
                f"{store.name} cannot be adopted.", hint=f"Leave it out with --skip {store.name}."
            )
        found = self._look_while_busy(track, store.adoption)
        is_as_declared = not (found.is_blank or found.differences or found.changes)
        self._recall(track, lacks=not is_as_declared)
        track.plan = adopting.plan(track, found)
        track.note(*track.plan.notes)

    def _plan_changes(self, track: Track) -> None:
        if self._run.adopting is not None:
            self._plan_adoption(track, self._run.adopting)
            return
        track.plan = self._look_while_busy(track, track.store.plan)
        track.note(*track.plan.notes)
        is_ahead = track.plan.ahead or track.plan.parts_ahead
        if is_ahead and not self._rules.allow_ahead:
            where = ", ".join(track.plan.parts_ahead)
            raise StoreConflict(
                track.store.name,
                f"The store's history{f' of {where}' if where else ''} goes on beyond this version "
                "of the blueprint.",
                hint="Run the newer version, or leave out --no-ahead.",
            )
        self._recall(track, lacks=bool(track.pending))

    def _recall(self, track: Track, *, lacks: bool) -> None:
        """Note what the store remembers, which most stores have read for the plan already.

        `lacks` says whether the look before has found something that is not there and is to be.
        """
        track.lacks = lacks
        track.recall = self._look_while_busy(track, partial(self._remembering.look, track))
        if track.recall is not None:
            track.note(*track.recall.remarks)

    def _tell_all_statements(self) -> bool:
        """Let the stores with something pending say what they would send. Whether all could."""
        pending = [track for track in self._run.tracks if track.pending]
        if not pending:
            return True
        return self._workers.run_phase(Phase.PLAN, self._tell_statements, pending, quiet=True)

    def _tell_statements(self, track: Track) -> None:
        if track.plan is None or not isinstance(track.store, CanTellStatements):
            return
        told = partial(track.store.with_statements, track.plan)
        track.plan = self._look_while_busy(track, told)
        track.note(*track.plan.notes)

    def _look_while_busy(self, track: Track, look: Callable[[], T], phase: Phase = Phase.PLAN) -> T:
        """Call `look` until the store is not busy, within the time of the present phase."""

        def say(error: StoreBusy) -> None:
            self._run.say_waiting(phase, track.store.name, error.message)

        return while_busy(
            self._retry,
            look,
            left_s=self._deadlines.left_s,
            sleep=self._run.sleep,
            on_retry=say,
        )

    def _report_status(self, track: Track) -> None:
        # A plan may end in a conflict. That is when a person asks for the status, so the status
        # comes first.
        if isinstance(track.store, CanReport):
            track.status = track.store.status()
        self._refuse_other_blueprint(track)
        self._plan_changes(track)

    # --- lock

    def _check_all_rights(self) -> bool:
        """Whether each user may do what is planned, as far as the stores can find that out."""
        able = [track for track in self._run.tracks if isinstance(track.store, CanCheckRights)]
        if not able:
            return True
        return self._workers.run_phase(Phase.LOCK, self._check_rights, able, quiet=True)

    def _check_rights_left(self) -> bool:
        """Look at the rights in those stores that could not be asked for them before the lock.

        Returns whether that succeeded. Such a store has a plan now, and fails the run if it has
        gone again.
        """
        left = [track for track in self._run.tracks if track.store.name in self._unread_rights]
        if not left:
            return True
        return self._workers.run_phase(Phase.REPLAN, self._check_rights_again, left, quiet=True)

    def _check_rights_again(self, track: Track) -> None:
        if isinstance(track.store, CanCheckRights):
            self._look_while_busy(track, track.store.check_rights, Phase.REPLAN)

    def _refuse_new_losses(self) -> bool:
        """Fail what was lost while this run waited for its lock. Whether nothing was."""
        for track, error in self._remembering.fail_new_losses():
            self._run.say_failed(Phase.REPLAN, track.store.name, error)
        return self._run.all_succeeded

    def _check_rights(self, track: Track) -> None:
        """Look at what the user may do.

        A store that has gone since the plan fails no run here, because the lock waits for it. Its
        rights are looked at under the lock.
        """
        if not isinstance(track.store, CanCheckRights):
            return
        try:
            self._look_while_busy(track, track.store.check_rights)
        except StoreBusy:
            raise
        except StoreUnavailable as exc:
            self._unread_rights.add(track.store.name)
            self._run.say_waiting(Phase.LOCK, track.store.name, exc.message)

    def _create_databases(self) -> bool:
        """Create missing databases, because a lock belongs to a database.

        Returns whether that succeeded.
        """
        missing = [track for track in self._run.tracks if _is_database_missing(track)]
        if not missing:
            return True
        return self._workers.run_phase(Phase.LOCK, self._create_database, missing)

    def _create_database(self, track: Track) -> None:
        """Create the database of one store, and record the change."""
        if not isinstance(track.store, CanCreateDatabase):
            return
        began = time.monotonic()
        change = track.pending[0]
        self._refuse_change(track)
        create = track.store.create_database
        sleep = self._run.sleep
        try:
            remark = while_busy_change(self._retry, change, create, sleep=sleep) or ""
        except Interrupted:
            raise
        except BootstrapError as exc:
            self._record_failed(track, change, time.monotonic() - began, exc)
            raise
        track.note(remark)
        # A remark says that another run was faster.
        outcome = Outcome.UNCHANGED if remark else Outcome.CHANGED
        self._record_change(track, change, outcome, time.monotonic() - began)

    def _take_locks(self, _: Track) -> None:
        try:
            self._locks.take_all(self._is_nothing_left)
        except NothingLeft:
            self._followed = True
        for track in self._run.tracks:
            if track.guard is not None and track.guard.store is track.store:
                # What was left there is ours now.
                track.left_lease = None

    def _release_lost(self) -> bool:
        """Remove what runs have left of their leases, where they have provably lost their anchor.

        Returns whether this run goes on. A follower that was never alone leaves it to others.
        """
        left = [track for track in self._run.tracks if track.left_lease is not None]
        if not left or self._followed:
            return True
        return self._workers.run_for_all(Phase.LOCK, lambda _: self._locks.release_left(left))

    def _is_nothing_left(self) -> bool:
        """Whether another run has applied by now what this one had planned."""
        for track in self._run.tracks:
            if track.needs_lock:
                self._plan_changes(track)
        for _, error in self._remembering.fail_new_losses():
            raise error
        self._remembering.mark_due()
        return not self._is_something_pending()

    # --- apply

    def _apply_changes(self, track: Track) -> None:
        for kind, group in groupby(track.pending, key=attrgetter("kind")):
            changes = list(group)
            store = track.store
            if isinstance(store, CanApplyTogether) and kind in store.kinds_together:
                self._apply_together(track, store, changes)
                continue
            for change in changes:
                self._apply_change(track, change)
        if track.pending:
            self._locks.refuse_end()

    def _apply_change(self, track: Track, change: Change) -> None:
        """Make one change and record what became of it."""
        self._refuse_change(track)
        began = time.monotonic()
        self._say_change("change-started", track, change)
        attempt = partial(self._attempt_change, track, change)
        say = partial(self._say_busy, track)
        try:
            remark = while_busy_change(
                self._retry, change, attempt, sleep=self._run.sleep, on_retry=say
            )
        except Interrupted:
            raise
        except BootstrapError as exc:
            self._record_failed(track, change, time.monotonic() - began, exc)
            raise
        self._record_done(track, change, time.monotonic() - began, remark)

    def _apply_together(
        self, track: Track, store: CanApplyTogether, changes: Sequence[Change]
    ) -> None:
        """Make several changes in one call of the store, and record what became of each."""
        self._refuse_change(track)
        batch = Together(
            track,
            changes,
            refuse=self._refuse_change,
            started=partial(self._say_change, "change-started", track),
            ended=partial(self._say_change, "change-ran", track),
            record=partial(self._record_done, track),
        )
        say = partial(self._say_busy, track)
        while batch.left:
            # The tries of a change are counted anew when the changes before it are done.
            attempt = partial(self._attempt_together, track, store, batch)
            first = batch.left[0]
            try:
                while_busy_change(self._retry, first, attempt, sleep=self._run.sleep, on_retry=say)
            except Interrupted:
                raise
            except BootstrapError as exc:
                if batch.left:
                    self._record_failed(track, batch.current, batch.duration_s, exc)
                raise

    def _attempt_change(self, track: Track, change: Change) -> str | None:
        # The locks are asked again, because a change may have been busy for a minute.
        self._refuse_change(track)
        track.call = Call(change=f"{change.kind} {change.name}")
        track.changing = True
        try:
            return self._make_change(track, change)
        except StoreUnavailable as exc:
            self._refuse_ended_call(track, change, exc)
            raise
        finally:
            track.changing = False

    def _make_change(self, track: Track, change: Change) -> str | None:
        """Let the store make a change. Returns its remark, or None."""
        return track.store.apply(change)

    def _attempt_together(self, track: Track, store: CanApplyTogether, batch: Together) -> None:
        """Make what is left of several changes.

        Returns when all are done, or when some were done before one of them was busy.
        """
        self._refuse_change(track)
        left = len(batch.left)
        batch.begin_call()
        track.changing = True
        try:
            store.apply_together(tuple(batch.left), batch)
        except StoreBusy as exc:
            if len(batch.left) == left or not batch.current.nature.may_run_again:
                raise
            self._say_busy(track, exc)
        except StoreUnavailable as exc:
            self._refuse_ended_call(track, batch.current, exc)
            raise
        finally:
            track.changing = False

    def _say_change(self, kind: str, track: Track, change: Change) -> None:
        self._run.emit(kind, phase=Phase.APPLY, store=track.store.name, message=change.name)

    def _say_busy(self, track: Track, error: StoreBusy) -> None:
        self._run.say_waiting(Phase.APPLY, track.store.name, error.message)

    def _refuse_ended_call(self, track: Track, change: Change, error: StoreUnavailable) -> None:
        """Raise `StoreBusy` for a call that the engine has ended because it waited for a lock."""
        call = track.call
        if not call.ended_because:
            return
        raise StoreBusy(
            track.store.name,
            f"{call.change} waited for {self._retry.lock_timeout_s:g} s and was ended."
            f" {call.ended_because}",
            hint="End that transaction, or wait for it.",
            subject=change.name,
        ) from error

    def _record_failed(
        self, track: Track, change: Change, duration_s: float, error: BootstrapError
    ) -> None:
        """Record a change that failed. Raises `LockLost` when it was ended for its lock."""
        is_half_done = isinstance(error, HalfDone)
        seen = replace(change, nature=Nature.NEITHER) if is_half_done else change
        self._record_change(track, seen, Outcome.FAILED, duration_s)
        self._locks.refuse_ended(track, seen, error)

    def _record_done(
        self, track: Track, change: Change, duration_s: float, remark: str | None
    ) -> None:
        is_by_other = isinstance(remark, MadeByOther)
        outcome = Outcome.UNCHANGED if is_by_other else Outcome.CHANGED
        self._record_change(track, change, outcome, duration_s)
        track.note(remark or "")

    def _refuse_change(self, track: Track) -> None:
        """Raise `Interrupted` when the run is to end, and `LockLost` when a lock is lost."""
        if self._run.stop.is_set() or self._run.halted.is_set():
            raise Interrupted("The run was interrupted before its next change.")
        self._locks.refuse_change(track)

    def _record_change(
        self, track: Track, change: Change, outcome: Outcome, duration_s: float
    ) -> None:
        row = ChangeResult.of(change, outcome, duration_s)
        track.changes.append(row)
        self._run.emit("change", phase=Phase.APPLY, store=track.store.name, change=row)

    # --- verify

    def _verify_store(self, track: Track) -> None:
        mode = self._run.mode
        is_adopting = self._run.adopting is not None
        if mode is Mode.APPLY and isinstance(track.store, CanProve) and not is_adopting:
            track.store.prove()
        is_ahead = track.plan is not None and track.plan.ahead
        is_uncompared = mode is Mode.VERIFY and _hides_differences(track)
        if is_ahead:
            track.note("Not verified: the store is ahead of this version of the blueprint.")
        elif mode is Mode.VERIFY and track.pending:
            track.drifts += self._drifts_of_pending(track)
        else:
            drifts = self._look_while_busy(track, track.store.verify, Phase.VERIFY)
            track.drifts += self._without_awaited(track, drifts)
            self._audit_store(track)
        if self._run.adopting is not None:
            self._confirm_adopted(track, self._run.adopting)
        track.verified = True
        track.compared = not is_ahead and not is_uncompared
        if track.drifts:
            advice = track.store.drift_advice if isinstance(track.store, CanAdvise) else ""
            raise VerificationFailed(track.store.name, track.drifts, advice)

    def _drifts_of_pending(self, track: Track) -> list[Drift]:
        """What differs in a store with something pending.

        A store without a history compares everything all the same. Of any other one, each pending
        change is told.
        """
        found: Sequence[Drift] = ()
        if isinstance(track.store, CanComparePending):
            found = self._look_while_busy(track, track.store.verify, Phase.VERIFY)
        return list(found) or pending_drifts(track.pending)

    def _confirm_adopted(self, track: Track, adopting: Adopting) -> None:
        """Leave the accepted drifts out, and tell what is left for `apply`, which reads it all."""
        track.drifts = list(adopting.without_accepted(track, track.drifts))
        left = self._look_while_busy(track, track.store.plan, Phase.VERIFY).changes
        self._recall(track, lacks=bool(left))
        if left:
            names = ", ".join(f"{each.kind} {each.name}" for each in left)
            track.note(f"`apply` has something to do here: {names}.")

    def _without_awaited(self, track: Track, drifts: Sequence[Drift]) -> list[Drift]:
        """The drifts without those that another command brings about, which become notes.

        They stay drifts in a verify, and in a run that starts beside an application.
        """
        is_left_to_others = self._run.mode is Mode.APPLY and not self._run.rules.lock.follow
        if not is_left_to_others:
            return list(drifts)
        for drift in drifts:
            if drift.is_awaited:
                track.note(f"{drift.kind.capitalize()} {drift.object} {drift.message}.")
        return [drift for drift in drifts if not drift.is_awaited]

    def _audit_store(self, track: Track) -> None:
        """Add what an audit finds. Findings are drift in a strict verify, and notes otherwise.

        Other remarks are always notes.
        """
        if not isinstance(track.store, CanAudit):
            return
        is_strict = self._run.mode is Mode.VERIFY and self._rules.strict
        for found in self._look_while_busy(track, track.store.audit, Phase.VERIFY):
            if is_strict and found.finding:
                track.drifts.append(found)
            else:
                track.note(f"{found.kind} {found.object}: {found.message}")

    # --- remember

    def _remember_all(self) -> None:
        """Let each store remember that all were converged, where its record lacks that.

        Only a run that has the locks and has verified all stores writes it.
        """
        due = [track for track in self._run.tracks if track.memory is not None]
        if self._run.mode is not Mode.APPLY or not due or not self._run.all_succeeded:
            return
        if self._followed:
            return
        self._workers.run_phase(Phase.VERIFY, self._remember, due, quiet=True)

    def _remember(self, track: Track) -> None:
        """Write the record of one store. It is told as a change where the run made no other."""
        self._refuse_change(track)
        began = time.monotonic()
        write = partial(self._remembering.write, track)
        refusal = self._look_while_busy(track, write, Phase.VERIFY)
        track.note(refusal or "")
        if not refusal and not track.changed:
            change = track.memory_change
            self._record_change(track, change, Outcome.CHANGED, time.monotonic() - began)

    # --- the end

    def close(self) -> None:
        """Release locks and connections.

        When something still runs on a server, the locks are kept and expire later.
        """
        self._locks.release_all(
            left_to_expire=self._workers.may_go_on, hurried=self._workers.is_hurried
        )
        self._workers.close_stores()


def pending_drifts(changes: Sequence[Change]) -> list[Drift]:
    """Each pending change as a drift, which `apply` ends."""
    return [
        Drift(each.name, each.kind, PENDING, each.declared, each.actual, fix=APPLY)
        for each in changes
    ]


def _hides_differences(track: Track) -> bool:
    """Whether something is pending in a store that compares nothing then."""
    return bool(track.pending) and not isinstance(track.store, CanComparePending)


def _is_database_missing(track: Track) -> bool:
    """Whether the plan of a store begins with the creation of its database."""
    return bool(track.pending) and track.pending[0].kind == "database"

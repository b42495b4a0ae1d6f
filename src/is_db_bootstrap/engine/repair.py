"""A repair: what differs is looked at, shown, and mended where nothing is lost by that.

A first run only looks. A second one gets its result as leave, takes the locks, looks again, and
makes what was shown and is still to be made. Pending changes are never made here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from is_db_bootstrap.engine.phases import Phases, pending_drifts
from is_db_bootstrap.engine.store import CanComparePending, CanRepair
from is_db_bootstrap.errors import REPAIR, TOOL, StoreConflict, VerificationFailed
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Change, DifferenceKind, Drift, Plan, RepairPlan

if TYPE_CHECKING:
    from is_db_bootstrap.engine.context import Approval
    from is_db_bootstrap.engine.track import Track
    from is_db_bootstrap.results import BootstrapResult, ChangeResult

#: Why nothing of a store with pending changes is mended.
_APPLY_FIRST = (
    "Changes are pending here, which a repair does not make. Run `is-db-bootstrap apply` first: "
    "what differs besides is compared then."
)


def approvals_of(look: BootstrapResult) -> frozenset[Approval]:
    """The changes that a look of a repair has shown."""
    return frozenset(
        _approval(store.store, change) for store in look.stores for change in store.changes
    )


def _approval(store: str, change: Change | ChangeResult) -> Approval:
    return (store, change.kind, change.name, change.statements)


class RepairPhases(Phases):
    """Takes one repair through its phases: wait, plan, lock, plan again, apply and verify."""

    def go_through(self) -> None:
        """Look at every store. With a leave, mend what it names and verify."""
        self._allow_retries()
        if not self._workers.run_phase(Phase.WAIT, self._wait_for_store):
            return
        if not self._workers.run_phase(Phase.PLAN, self._plan_first):
            return
        if not self._remembering.refuse_losses():
            return
        if self._run.approved is None:
            self._fail_for_what_is_left()
            return
        if self._is_something_pending() and not self._make_changes():
            return
        self._workers.run_phase(Phase.VERIFY, self._verify_store)

    def _plan_changes(self, track: Track) -> None:
        """Plan what mends the store. What it cannot mend is among its drifts afterwards."""
        found = self._repair_plan(track)
        approved = self._run.approved
        changes = found.changes
        if approved is not None:
            changes = tuple(c for c in changes if _approval(track.store.name, c) in approved)
        plan = track.plan or Plan()
        track.plan = replace(plan, changes=changes, skipped=())
        track.drifts = [_with_reason(drift) for drift in found.left]

    def _repair_plan(self, track: Track) -> RepairPlan:
        """What would mend a store, and what is left as it is."""
        track.plan, track.compared = None, False
        try:
            super()._plan_changes(track)
        except StoreConflict:
            # Such a store tells itself what contradicts the blueprint, and mends the rest.
            if not isinstance(track.store, CanComparePending):
                raise
        pending = track.pending
        if track.plan is not None and track.plan.ahead:
            track.note("Not looked at: the store is ahead of this version of the blueprint.")
            return RepairPlan()
        if pending and not isinstance(track.store, CanComparePending):
            track.note(_APPLY_FIRST)
            return RepairPlan(left=tuple(pending_drifts(pending)))
        if isinstance(track.store, CanRepair):
            found = self._look_while_busy(track, track.store.repair_plan)
        else:
            found = RepairPlan(left=tuple(self._look_while_busy(track, track.store.verify)))
        track.compared = True
        return found

    def _fail_for_what_is_left(self) -> None:
        """End the look. A store that has something which cannot be mended is told as drifted."""
        for track in self._run.tracks:
            if track.drifts:
                track.error = VerificationFailed(track.store.name, track.drifts)
        self._run.say_all_failed(Phase.PLAN)

    def _make_change(self, track: Track, change: Change) -> str | None:
        if not isinstance(track.store, CanRepair):
            raise TypeError(track.store)
        track.compared = False
        return track.store.repair(change)

    def _verify_store(self, track: Track) -> None:
        """Look once more. Whatever differs still is a drift, with the reason why."""
        found = self._repair_plan(track)
        track.plan = replace(track.plan or Plan(), changes=(), skipped=())
        track.verified = True
        left = [_with_reason(drift) for drift in found.left]
        track.drifts = [*map(_drift_of, found.changes), *left]
        self._audit_store(track)
        if track.drifts:
            raise VerificationFailed(track.store.name, track.drifts)


def _with_reason(drift: Drift) -> Drift:
    """A drift that is left, with the reason why."""
    return drift if drift.not_repaired else replace(drift, not_repaired=_reason_to_leave(drift))


def _reason_to_leave(drift: Drift) -> str:
    if drift.reason:
        return drift.reason
    if drift.fix is not None and drift.fix.startswith(TOOL):
        return f"`{drift.fix}` brings it about."
    if drift.difference is DifferenceKind.DIFFERENT:
        return "It is there and different. A repair drops, replaces and changes nothing that is."
    if drift.difference is DifferenceKind.MISSING:
        return f"A new {drift.kind} would be empty, or is not known to do no harm."
    return "A repair makes what is declared and missing, and nothing else."


def _drift_of(change: Change) -> Drift:
    """A change that was not made, as a drift."""
    return Drift(
        change.name,
        change.kind,
        change.detail or "differs",
        change.declared,
        change.actual,
        fix=REPAIR,
        statements=change.statements,
        can_repair=True,
    )

"""The live schema against what is declared: what is pending, edited, missing or different."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.engine.lineage import Standing
from is_db_bootstrap.errors import APPLY, StoreConflict
from is_db_bootstrap.results import Drift, Status
from is_db_bootstrap.stores.postgres import lock as postgres_lock
from is_db_bootstrap.stores.postgres import revision_digests
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors, looking

if TYPE_CHECKING:
    from is_db_bootstrap.results import RepairPlan
    from is_db_bootstrap.stores.postgres.pending_steps import PendingSteps
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.workplace import Workplace


class LiveSchema:
    """Compares what is in `place` with what is declared. `pending` says what is not applied."""

    def __init__(self, sessions: RunSessions, place: Workplace, pending: PendingSteps) -> None:
        self._sessions = sessions
        self._place = place
        self._pending = pending

    def drifts(self) -> Sequence[Drift]:
        """Pending and edited revisions, then what of `catalogue.json` is missing or different.

        All in two round trips. Raises `StoreBusy` when another session changed the schema
        meanwhile.
        """
        try:
            reader = self._sessions.reader()
        except DatabaseMissing:
            name = self._sessions.url.database
            return [Drift(name, "database", "is missing", name, fix=APPLY)]
        place = self._place
        record = place.history.read(reader)
        if place.history.is_ahead(record):
            return []
        pending = [
            Drift(change.name, "revision", "is not applied", change.declared, fix=APPLY)
            for change in self._pending.revisions(record)
        ]
        edited = [each.drift for each in revision_digests.edited(record, place.chain)]
        if pending or not place.declared.is_comparable:
            return [*pending, *edited]
        with looking(self._sessions.target, "the catalogue"), place.as_declared(reader):
            return [*edited, *place.declared.drifts(reader)]

    def findings(self) -> Sequence[Drift]:
        """What is not declared, and what is not compared."""
        place, reader = self._place, self._sessions.reader
        try:
            with looking(self._sessions.target, "the catalogue"), place.as_declared(reader()):
                return place.declared.findings(reader)
        except DatabaseMissing:
            return []

    def with_dangers(self, plan: RepairPlan) -> RepairPlan:
        """The plan of a repair. What rows would refuse is left out with the reason."""
        from is_db_bootstrap.stores.postgres.repairs import with_dangers

        with errors(self._sessions.target, "the tables of the repair"):
            return with_dangers(plan, self._sessions.reader(), self._place.schema)

    def status(self) -> Status:
        """The recorded revision, the head, and who holds the lock."""
        place = self._place
        try:
            reader = self._sessions.reader()
        except DatabaseMissing:
            return Status("", place.chain.head)
        with errors(self._sessions.target):
            held = postgres_lock.holder(reader, place.lock_number)
        return Status(", ".join(place.history.read(reader).revisions), place.chain.head, held)

    def is_at_head(self) -> bool:
        """Whether all revisions of the blueprint are recorded as applied, and no others."""
        try:
            reader = self._sessions.reader()
        except DatabaseMissing:
            return False
        history = self._place.history
        record = history.read(reader)
        return bool(record.revisions) and history.compare(record).standing is Standing.SAME

    def conflict(self) -> StoreConflict | None:
        """Why a run would refuse the recorded revisions; None when it would not."""
        reader = self._sessions.reader()
        history = self._place.history
        record = history.read(reader)
        try:
            if not history.is_ahead(record):
                history.refuse_half_done(record)
        except StoreConflict as exc:
            return exc
        return None

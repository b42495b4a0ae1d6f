"""Adopting a database that others have made: what is found there, and the records that complete it.

`adoption` compares. This module has what a run of the store adds: a scratch database for revisions
without a catalogue, and the step that records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from is_db_bootstrap.engine.store import Adoption
from is_db_bootstrap.stores.postgres.adoption import SchemaAdoption
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing

if TYPE_CHECKING:
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.postgres.catalogue import Catalogue
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.workplace import Workplace


class CanTryCatalogue(Protocol):
    """What runs the revisions in a scratch database, and says what they make there."""

    def catalogue(self) -> Catalogue:
        """What they make. A second call runs nothing."""

    def cancel(self) -> None:
        """From another thread: end what runs on the server."""


class AdoptionRun:
    """Adopts what is in `place`. With `make_trial`, revisions run in what that makes, once."""

    def __init__(
        self,
        sessions: RunSessions,
        place: Workplace,
        make_trial: Callable[[], CanTryCatalogue] | None,
    ) -> None:
        self._sessions = sessions
        self._place = place
        self._make_trial = make_trial
        #: What runs the revisions, so that another thread can end it.
        self._trial: CanTryCatalogue | None = None
        #: Whether tables of the blueprint were found, whatever is recorded.
        self.has_found = False

    def found(self) -> Adoption:
        """What differs from the catalogue, and which records are missing.

        Raises `StoreConflict` as `SchemaAdoption.found` says.
        """
        try:
            reader = self._sessions.reader()
        except DatabaseMissing:
            return Adoption(is_blank=True)
        with self._place.as_declared(reader):
            found = self._schema_adoption().found(reader)
        self.has_found = not found.is_blank
        return found

    def record(self, change: Change) -> str | None:
        """Record the newest revisions, or only what led to them where they are recorded."""
        reader = self._sessions.reader()
        place = self._place
        heads = tuple(change.name.split(", "))
        if tuple(sorted(place.history.read(reader).revisions)) == heads:
            self._schema_adoption().record_lineage(reader)
            return None
        if place.team is None:
            return place.revision_steps.run(change, "stamp", change.name)
        from is_db_bootstrap.stores.postgres.team_stamp import stamp

        stamp(reader, place.history, self._sessions.target, heads, place.chain)
        place.revision_steps.confirm_stamped(change)
        return None

    def _schema_adoption(self) -> SchemaAdoption:
        place = self._place
        return SchemaAdoption(
            self._sessions.target,
            place.schema,
            place.chain,
            place.history,
            place.elsewhere,
            place.declared,
            tried=self._tried_catalogue(),
        )

    def _tried_catalogue(self) -> Callable[[], Catalogue] | None:
        """What says what the revisions make in a scratch database. They run there once.

        None where nothing may run them.
        """
        if self._trial is None and self._make_trial is not None:
            self._trial = self._make_trial()
        return self._trial.catalogue if self._trial else None

    def cancel(self) -> None:
        """From another thread: end what runs revisions in a scratch database."""
        if self._trial is not None:
            self._trial.cancel()

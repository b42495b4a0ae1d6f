"""Which changes of a run the present primary does not have, after a fail-over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.engine.store import RECORD
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.postgres.errors import NAME, DatabaseMissing
from is_db_bootstrap.stores.postgres.reached import OneServer, server_of

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.results import ChangeResult
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.seed import DemoRows
    from is_db_bootstrap.stores.postgres.workplace import Workplace

#: Seconds that the server gets to say what it records, after a fail-over.
_READ_BACK_S = 10.0


def lost_changes(
    sessions: RunSessions,
    place: Workplace,
    rows: DemoRows,
    made: Sequence[ChangeResult],
) -> Sequence[ChangeResult]:
    """Those of the changes `made` that are not there on the present primary.

    Nothing is lost on the server that had our lock. Raises what `connection.connect` does, and
    `StoreConflict` for a recorded revision that does not say what led to it, and for a change of
    which no record tells, such as one of a repair.
    """
    lock_server = sessions.roles.one_server.held
    any_server = replace(sessions.roles, one_server=OneServer())
    try:
        session = any_server.looking(_READ_BACK_S)
    except DatabaseMissing:
        return made
    with session:
        if lock_server is not None and server_of(session) == lock_server:
            return ()
        return [*_Kept(session, place, rows).without(made)]


class _Kept:
    """What the database of a session has kept."""

    def __init__(self, session: psycopg.Connection[Any], place: Workplace, rows: DemoRows) -> None:
        self._session = session
        self._place = place
        self._rows = rows
        self._record = place.history.read(session)
        self._revisions = self._kept_revisions()

    def without(self, made: Sequence[ChangeResult]) -> Iterator[ChangeResult]:
        """Those of the changes `made` that are not there."""
        return (change for change in made if self._is_lost(change))

    def _kept_revisions(self) -> frozenset[str]:
        """The recorded revisions and all that led to them.

        A newer version may have recorded a revision that we do not know. Its lineage tells then.
        """
        chain = self._place.chain
        record = self._record
        known = [name for name in record.revisions if name in chain.parents]
        unknown = [name for name in record.revisions if name not in chain.parents]
        if unknown and not record.lineage:
            raise StoreConflict(
                NAME,
                f"The present primary records {', '.join(unknown)}, which this version does not "
                "know, and not what led there.",
                subject=unknown[0],
            )
        return frozenset({*record.revisions, *record.lineage, *chain.until(known)})

    def _is_lost(self, change: ChangeResult) -> bool:
        """Whether a change is not there. Raises `StoreConflict` where nothing tells."""
        if change.kind in {"database", "schema", "seed"}:
            return self._is_object_lost(change)
        is_of_baseline = change.kind == "baseline" and self._place.baseline is not None
        if change.kind in {"revision", RECORD} or is_of_baseline:
            return not self._revisions.issuperset(self._led_to(change))
        if change.kind == "downgrade":
            return change.name in self._revisions
        if change.kind == "stamp":
            return {*change.name.split(", ")} != {*(self._record.revisions or ["base"])}
        if change.kind == "accept":
            recorded = self._record.digests.get(change.name)
            return recorded != self._place.chain.digests.get(change.name)
        raise StoreConflict(
            NAME,
            f"Nothing tells whether {change.kind} {change.name} is there on the present primary.",
            subject=change.name,
        )

    def _is_object_lost(self, change: ChangeResult) -> bool:
        if change.kind == "schema":
            query = "SELECT FROM pg_namespace WHERE nspname = %s"
            return self._session.execute(query, [change.name]).fetchone() is None
        if change.kind == "seed":
            return self._rows.is_missing(self._session, change.name)
        return False  # The session is in the database.

    def _led_to(self, change: ChangeResult) -> Iterable[str]:
        """The revisions that are recorded after a change."""
        if change.kind == "baseline" and self._place.baseline is not None:
            return self._place.baseline.heads
        return change.name.split(", ")

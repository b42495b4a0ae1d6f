"""What a database lacks, as the steps of a plan: the database, the schema, revisions, demo rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import StoreBusy, StoreConflict
from is_db_bootstrap.results import Change, Nature, Plan
from is_db_bootstrap.stores.postgres.database import database_change, schema_change
from is_db_bootstrap.stores.postgres.errors import NAME, DatabaseMissing, errors
from is_db_bootstrap.stores.postgres.revisions import Record
from is_db_bootstrap.stores.postgres.workplace import USUAL_SCHEMA

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.seed import DemoRows
    from is_db_bootstrap.stores.postgres.workplace import Workplace


class PendingSteps:
    """Plans what `place` lacks.

    Without `limits_ids`, the version table is taken to hold ids of any length.
    """

    def __init__(
        self,
        sessions: RunSessions,
        place: Workplace,
        rows: DemoRows,
        *,
        limits_ids: bool,
    ) -> None:
        self._sessions = sessions
        self._place = place
        self._rows = rows
        self._limits_ids = limits_ids
        #: Whether the last plan has a revision, and nothing was imported for it since.
        self.is_import_due = False
        #: The revisions of the last plan, in their order. A move may plan fewer than are pending.
        self.planned_revisions: tuple[str, ...] = ()

    def planned(self) -> Plan:
        """The steps in their order, with notes on the record."""
        try:
            reader = self._sessions.reader()
        except DatabaseMissing:
            return self._plan_from_nothing()
        place, history = self._place, self._place.history
        record = history.read(reader)
        if history.is_ahead(record):
            note = (
                f"The schema is at revision {', '.join(record.revisions)}, newer than this "
                f"version's {place.chain.head}; nothing is changed."
            )
            return Plan(notes=(note,), ahead=True)
        begun_before = history.refuse_half_done(record)
        baseline = self._planned_baseline(reader, record)
        if baseline and place.baseline:
            begun_before = (*begun_before, *place.baseline.begun_before(record))
        pending = self.revisions(self.after(baseline, record))
        if not (baseline or pending):
            notes = (
                *history.unread(record),
                *history.unread_lineage(record),
                *history.edited(record),
                *history.undigested(record),
            )
            return Plan(tuple(self._rows.missing(reader)), notes=notes)
        history.refuse_unread(record)
        self.refuse_long_ids(reader, [*self._heads_of(baseline), *pending])
        notes = place.elsewhere.refuse(reader, record)
        schema = place.checked_schema(reader)
        if not record.revisions and not schema and not baseline:
            self._refuse_unrecorded(reader)
        notes = (
            *notes,
            *history.unread_lineage(record),
            *history.edited(record),
            *history.unmarked(reader),
        )
        changes = (*schema, *baseline, *pending, *self._rows.all())
        return Plan(changes, notes=notes, begun=begun_before)

    def _plan_from_nothing(self) -> Plan:
        database, schema_name = self._sessions.url.database, self._place.schema
        self._sessions.database.refuse_no_right_to_create()
        schema = [] if schema_name == USUAL_SCHEMA else [schema_change(schema_name)]
        baseline = self._planned_baseline(None, Record())
        pending = self.revisions(self.after(baseline, Record()))
        self.refuse_long_ids(None, [*self._heads_of(baseline), *pending])
        changes = (*schema, *baseline, *pending, *self._rows.all())
        return Plan((database_change(database), *changes))

    def revisions(self, record: Record) -> list[Change]:
        """The revisions that a record lacks."""
        chain = self._place.chain
        pending = [
            Change(name, "revision", chain.titles[name], Nature.ATOMIC)
            for name in self._place.history.compare(record).pending
        ]
        chain.refuse_unparsable(change.name for change in pending)
        self.is_import_due = bool(pending)
        return pending

    # --- the baseline

    def _planned_baseline(
        self, reader: psycopg.Connection[Any] | None, record: Record
    ) -> tuple[Change, ...]:
        """What fills the database before the revisions, if it is declared and nothing is recorded.

        Raises `StoreConflict` when the database is not empty.
        """
        if self._place.baseline is None or record.revisions:
            return ()
        return (self._place.baseline.planned(reader, record),)

    def after(self, baseline: Sequence[Change], record: Record) -> Record:
        """What is recorded after the baseline, if there is one."""
        if not baseline or self._place.baseline is None:
            return record
        return Record(tuple(sorted(self._place.baseline.heads)))

    def _heads_of(self, baseline: Sequence[Change]) -> list[Change]:
        if not baseline or self._place.baseline is None:
            return []
        return [Change(head, "stamp") for head in self._place.baseline.heads]

    # --- what is refused before anything is changed

    def refuse_long_ids(
        self, reader: psycopg.Connection[Any] | None, changes: Sequence[Change]
    ) -> None:
        """Refuse revisions whose ids the version table cannot hold."""
        if not self._limits_ids:
            return
        from is_db_bootstrap.stores.postgres.version_column import refuse_long_ids

        table = self._place.history.table
        with errors(self._sessions.target, table):
            refuse_long_ids(reader, table, [change.name for change in changes])

    def _refuse_unrecorded(self, reader: psycopg.Connection[Any]) -> None:
        """Our tables without a record were made by other means; creating them would fail halfway.

        Another run may have made and recorded them since the record was read. Then `StoreBusy` asks
        for a new look.
        """
        schema, target = self._place.schema, self._sessions.target
        tables = self._place.declared.tables()
        with errors(target):
            found = reader.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename = ANY(%s) "
                "ORDER BY 1",
                [schema, tables],
            ).fetchall()
        if found and self._place.is_at_work_elsewhere():
            return  # the run that holds the lock may be about to record them
        if found and self._place.history.read(reader).revisions:
            raise StoreBusy(NAME, "Another run has just applied revisions.", hint="Run again.")
        if found:
            names = ", ".join(row[0] for row in found)
            raise StoreConflict(
                NAME,
                f"Schema {schema} of {target} has {names} already, but no revision is recorded.",
                subject=found[0][0],
                hint="If these migrations made it, record that with `is-db-bootstrap migrate "
                "stamp`; else set DB_SCHEMA or another database.",
            )

    def check_rights(self) -> None:
        """See that the role may do what planned revisions are sure to do. Nothing is changed.

        A team's own environment may use another role, so what its revisions need is not known.
        """
        if self._place.team or not self.planned_revisions:
            return
        from is_db_bootstrap.stores.postgres.missing_rights import refuse_extensions, refuse_missing
        from is_db_bootstrap.stores.postgres.sure_needs import sure_needs

        place, reader = self._place, self._sessions.reader_if_there()
        needs = sure_needs(place.chain.files, self.planned_revisions)
        with errors(self._sessions.target, place.schema):
            if reader is None:
                refuse_extensions(self._sessions.database.maintenance(), needs)
                return
            refuse_missing(reader, place.schema, place.history.table, needs)

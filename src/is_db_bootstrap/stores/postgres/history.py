"""What one schema records: its revisions, and a step that has begun and did not end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.engine.lineage import Comparison, Standing
from is_db_bootstrap.errors import StoreBusy, StoreConflict
from is_db_bootstrap.stores.consent import Consent
from is_db_bootstrap.stores.postgres import begun as postgres_begun
from is_db_bootstrap.stores.postgres import (
    diverged,
    lineage_table,
    memory_table,
    own_schema,
    revision_digests,
)
from is_db_bootstrap.stores.postgres.begun import BASELINE, WHAT_IS_KNOWN, Begun, Fate, Marks
from is_db_bootstrap.stores.postgres.errors import NAME, errors, translated
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA, literal
from is_db_bootstrap.stores.postgres.record_place import RecordPlace
from is_db_bootstrap.stores.postgres.revisions import (
    Chain,
    Record,
    blueprint_of,
    marked_blueprint,
)

if TYPE_CHECKING:
    from is_db_bootstrap.settings import Timing


#: Whether we may read our tables, and what tells this database from others.
_READABLE = f"""
    SELECT ({postgres_begun.READABLE}), ({lineage_table.READABLE}), ({memory_table.READABLE}),
           {memory_table.RIGHTS}, {{system}}
"""
#: Our row, as JSON.
_LINEAGE = f"""
    ({lineage_table.ROW}
     WHERE (schema_name, table_name) = (
         SELECT n.nspname::text, c.relname::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = %(table)s::regclass))
"""  # noqa: S608 - constants
_NO_LINEAGE = "NULL::jsonb"
#: The direction of a step that applies a revision.
UPGRADE = "upgrade"


class History:
    """What `schema` records of the revisions `chain` of a blueprint.

    `reader` gives the session that looks, and `is_at_work_elsewhere` says whether another run holds
    the lock of the schema. `target` is how messages call the server. `unknown_is_ahead` says that a
    revision that nobody knows is newer code's.
    """

    def __init__(
        self,
        reader: Callable[[], psycopg.Connection[Any]],
        is_at_work_elsewhere: Callable[[], bool],
        *,
        target: str,
        schema: str,
        chain: Chain,
        blueprint: str,
        timing: Timing,
        consent: Consent,
        unknown_is_ahead: bool = False,
        place: RecordPlace | None = None,
    ) -> None:
        self._reader = reader
        self._is_at_work_elsewhere = is_at_work_elsewhere
        self._target = target
        self._schema = schema
        self._chain = chain
        self._blueprint = blueprint
        self._unknown_is_ahead = unknown_is_ahead
        self.place = place or RecordPlace(schema)
        #: The quoted name of the version table.
        self.table = self.place.quoted
        self.marks = Marks(
            reader, self.place.key, self.table, self._has_ended, timing.lock_timeout_s
        )
        #: Writes what a run is about to lead to.
        self.plan = lineage_table.Plan(
            literal(self.place.schema) if self.place.schema else f"({self.place.schema_query})",
            self.place.table,
            self.table,
            blueprint,
            f"{round(timing.lock_timeout_s * 1000)}ms",
        )
        #: A step whose mark is still there, although the schema has it behind it.
        self.left_by_ended: Begun | None = None
        self.consent = consent
        #: The last record that was compared. A run with nothing to do looks at the same one often.
        self._compared: tuple[Record, Comparison] | None = None
        #: What the last `read` has seen of the database and of what it remembers.
        self.seen = memory_table.Seen()
        #: Whether the server tells us which one it is.
        self._may_ask_system = True

    def read(self, reader: psycopg.Connection[Any]) -> Record:
        """Rows and comment of the version table, and our row of its lineage, at one moment."""
        may_read_begun, may_read_lineage = self._rights(reader)
        named = self.table.replace("%", "%%")
        query = f"""
            SELECT version_num, comment, {_LINEAGE if may_read_lineage else _NO_LINEAGE},
                   {memory_table.ROWS if self.seen.may_read else memory_table.NO_ROWS}
            FROM (SELECT obj_description(%(table)s::regclass, 'pg_class') AS comment) AS described
            LEFT JOIN {named} ON true
        """  # noqa: S608 - quoted
        given = {"table": self.table, "blueprint": self._blueprint, "schema": self._schema}
        try:
            rows = reader.execute(query.encode(), given).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return Record(may_read_begun=may_read_begun, may_read_lineage=may_read_lineage)
        except psycopg.Error as exc:
            raise translated(exc, self._target, self.place.shown) from exc
        revisions = [revision for revision, *_ in rows if revision is not None]
        _, comment, recorded, kept = rows[0]
        self.seen = replace(self.seen, has_record_table=True, rows=memory_table.as_rows(kept))
        return Record.of(
            revisions,
            comment,
            lineage_table.from_row(recorded),
            may_read_begun=may_read_begun,
            may_read_lineage=may_read_lineage,
        )

    def recorded(self, reader: psycopg.Connection[Any]) -> frozenset[str]:
        """The rows of the version table alone. Raises what psycopg raises."""
        query = f"SELECT version_num FROM {self.table}"  # noqa: S608 - quoted
        return frozenset(row[0] for row in reader.execute(query.encode()).fetchall())

    def _rights(self, reader: psycopg.Connection[Any]) -> tuple[bool | None, bool | None]:
        """Whether we may read our tables of steps and of lineages. None for one that is missing."""
        with errors(self._target, SCHEMA):
            row = self._asked_rights(reader)
        begun, lineage, may_read, may_write, has_schema, role, database, system = row
        self.seen = memory_table.Seen(
            system=system,
            database=database or "",
            may_write=bool(may_write),
            may_read=may_read,
            has_schema=has_schema,
            role=role,
        )
        return begun, lineage

    def _asked_rights(self, reader: psycopg.Connection[Any]) -> tuple[Any, ...]:
        """What `_READABLE` asks. A role may be kept from asking which server this is."""
        query = _READABLE.format(system=memory_table.SYSTEM if self._may_ask_system else "NULL")
        try:
            row = reader.execute(query.encode()).fetchone()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction):
            if not self._may_ask_system:
                raise
            self._may_ask_system = False
            return self._asked_rights(reader)
        if row is None:
            raise TypeError(query)
        return tuple(row)

    def memory_rows(self, reader: psycopg.Connection[Any]) -> tuple[memory_table.Row, ...]:
        """The records of what was converged, as the last `read` has seen them.

        Without a version table they were not seen, so they are asked for.
        """
        if self.seen.has_record_table or not self.seen.may_read:
            return self.seen.rows
        with errors(self._target, memory_table.PLACE):
            return memory_table.rows_of(reader, self._blueprint, self._schema)

    def is_locked_elsewhere(self) -> bool:
        """Whether another run holds the lock of the schema."""
        return self._is_at_work_elsewhere()

    def marked(self, record: Record) -> tuple[Begun, ...]:
        """The steps that are marked, in our table and in the comment; they may have ended since."""
        with errors(self._target, "the steps that have begun"):
            return postgres_begun.marked(
                self._reader(),
                self.place.key,
                in_comment=record.begun,
                may_read=record.may_read_begun,
            )

    def unended(self, record: Record) -> tuple[Begun, ...]:
        """The steps that are marked and that the schema does not have behind it."""
        return tuple(mark for mark in self.marked(record) if not self._is_past(mark, record))

    def _is_past(self, found: Begun, record: Record) -> bool:
        """Whether the schema of this record has a step that has begun behind it."""
        return found.has_ended(record.revisions, self._chain)

    def _has_ended(self, found: Begun) -> bool:
        """Whether the schema has a step that was found to have begun behind it."""
        return self._is_past(found, self.read(self._reader()))

    def refuse_half_done(self, record: Record) -> tuple[str, ...]:
        """Raise `StoreConflict` for a step that has committed a part and did not end.

        Returns the revisions whose upgrade has begun and may run again.
        """
        # What fills an empty database has left something when the database is not empty any more.
        marks = tuple(
            mark
            for mark in self.marked(record)
            if mark.direction != BASELINE or self._is_past(mark, record)
        )
        ended = [mark for mark in marks if self._is_past(mark, record)]
        self.left_by_ended = ended[0] if ended else None  # who recorded it could not lift it
        if len(ended) == len(marks):
            return ()
        if self._is_at_work_elsewhere():
            return ()  # the run that holds the lock may still end it, and we look again after it
        # That run may have ended, or another one begun, between any two of these looks.
        record = self.read(self._reader())
        unended = [found for found in self.unended(record) if found in marks]
        for found in unended:
            if not self.may_retry(found):
                self._refuse_unended(found, record)
        return tuple(found.revision for found in unended if found.direction == UPGRADE)

    def may_retry(self, found: Begun) -> bool:
        """Whether a person lets the step of this mark run again, whatever it has left."""
        if found.direction not in {UPGRADE, BASELINE}:
            return False
        place = "row" if found.known else "comment"
        return self.consent.covers(found.revision, found, place)

    def retried(self, revision: str) -> Begun | None:
        """The row of an upgrade that has begun and that a person lets run again, if there is one.

        The next try goes on with that row. So the row still names what the earlier try committed
        when the next one is rolled back. Raises `StoreBusy` while the earlier try is at work.
        """
        if not self.consent.names(revision) or not self.marks.are_rows():
            return None
        found = postgres_begun.find(self._reader(), self.place.key)
        if found is None or found.revision != revision or not self.may_retry(found):
            return None
        if any(self.marks.fate_of(number) is Fate.AT_WORK for number in found.transactions):
            raise StoreBusy(
                NAME,
                f"An earlier try of revision {revision} is still at work.",
                hint="Wait for its session, or end it (pg_stat_activity).",
                subject=revision,
            )
        return found

    def _refuse_unended(self, found: Begun, record: Record) -> None:
        """Raise `StoreConflict` unless the server knows that the step may run again."""
        with errors(self._target, f"what has become of {found.step}"):
            known = postgres_begun.fate(self._reader(), found)
        if known in {Fate.ROLLED_BACK, Fate.AT_WORK}:
            return  # it may run again, as soon as its session has ended
        raise StoreConflict(
            NAME,
            f"The {found.direction} of revision {found.revision} {WHAT_IS_KNOWN[known]} and did "
            f"not end, so schema {self._schema} of {self._target} is between two revisions. It is "
            "not run again by itself.",
            hint=self.ways_out(found.direction, found.revision, record),
            subject=found.revision,
        )

    def refuse_unread(self, record: Record) -> None:
        """Raise `AccessDenied` when steps have begun that this role may not read of."""
        if record.may_read_begun is False:
            raise postgres_begun.unreadable(self._reader())

    def unread(self, record: Record) -> Iterator[str]:
        """A note for a run that has nothing to do, and may not read whether a step did not end."""
        if record.may_read_begun is False:
            yield postgres_begun.unreadable(self._reader()).message

    def unread_lineage(self, record: Record) -> Iterator[str]:
        """A note when what led to the recorded revision stands where we may not read."""
        if record.revisions and not record.lineage and record.may_read_lineage is False:
            yield (
                f"What led to {', '.join(record.revisions)} is taken from the folder, because this "
                f"role may not read {lineage_table.PLACE}. Let an administrator run: GRANT USAGE "
                f"ON SCHEMA {SCHEMA} TO PUBLIC; GRANT SELECT ON {lineage_table.PLACE} TO PUBLIC;"
            )

    def edited(self, record: Record) -> Iterator[str]:
        """A note that names the applied revisions whose files were edited since."""
        yield from revision_digests.notes(record, self._chain)

    def undigested(self, record: Record) -> Iterator[str]:
        """A note that says of how many applied revisions no edit could be noticed.

        Where we may not read what is recorded of them, another note says so.
        """
        if record.may_read_lineage is not False:
            yield from revision_digests.notes_of_unknown(record, self._chain)

    def unmarked(self, reader: psycopg.Connection[Any]) -> Iterator[str]:
        """A note when this role can write down nowhere what is done."""
        query = own_schema.places(postgres_begun.TABLE, lineage_table.TABLE)
        with errors(self._target, SCHEMA):
            row = reader.execute(query.encode(), {"table": self.table}).fetchone()
        if row is None:
            return
        may_mark, may_record, may_comment, comment, has_schema, role = row
        remedy = own_schema.remedy(role, has_schema=has_schema)
        if not (may_mark or may_comment):
            yield (
                f"A revision that commits by itself is not marked, because {role} may neither "
                f"write to the schema {SCHEMA} nor comment on {self.place.shown}: if it is "
                f"killed, the next run begins it again. Let an administrator run: {remedy}"
            )
        is_ours = not comment or bool(marked_blueprint(comment))
        if not (may_record or (may_comment and is_ours)):
            why = f"comment on {self.place.shown}"
            if may_comment:
                why = f"replace the comment of {self.place.shown}, which says something else"
            yield (
                f"Which revisions led to the last one is not recorded, because {role} may neither "
                f"write to the schema {SCHEMA} nor {why}: an older version of the application will "
                f"take the last one for unknown. Let an administrator run: {remedy}"
            )

    def ways_out(self, direction: str, revision: str, record: Record) -> str:
        """What a person can do about a step that is half done."""
        before = ", ".join(record.revisions) or "base"
        after = revision if direction == UPGRADE else self._without(revision, record)
        stamp = "is-db-bootstrap migrate stamp"
        again = f"{stamp} {before}"
        if direction == UPGRADE:
            again = f"is-db-bootstrap apply --retry {revision}"
        return (
            f"Look at what it did. If that is complete, or you complete it, record it: `{stamp} "
            f"{after}`. If you take it back, or it may run twice, let it run again: `{again}`."
        )

    def _without(self, revision: str, record: Record) -> str:
        """What a schema of this record would record without `revision`."""
        done = self._chain.until([r for r in record.revisions if r in self._chain.parents])
        return ", ".join(self._chain.heads(r for r in done if r != revision)) or "base"

    def compare(self, record: Record) -> Comparison:
        """How the record stands to the revisions of the blueprint."""
        if self._compared is None or self._compared[0] != record:
            found = record.as_lineage(self._chain).compare(self._chain.lineage)
            self._compared = (record, found)
        return self._compared[1]

    def is_ahead(self, record: Record) -> bool:
        """Whether newer code was here.

        A `StoreConflict` when it was another blueprint, or nobody that we know, or when the schema
        and the blueprint have gone different ways.
        """
        self.refuse_other_blueprint(record)
        found = self.compare(record)
        if found.standing is Standing.UNKNOWN:
            return self._is_unknown_ahead(found.beyond[0])
        if found.standing is Standing.DIVERGED:
            raise self._diverged(record, found)
        return found.standing is Standing.AHEAD

    def refuse_other_blueprint(self, record: Record) -> None:
        """Raise `StoreConflict` when the record says that it is another blueprint's."""
        if record.blueprint and record.blueprint != self._blueprint:
            raise self.conflict(f"carries the blueprint {record.blueprint}, not {self._blueprint}")

    def _is_unknown_ahead(self, revision: str) -> bool:
        """Whether a revision that nobody knows is newer code's, as the settings say.

        Nobody has recorded what led there. So it is a `StoreConflict` without such a setting, and
        always when another blueprint has the revision.
        """
        if other := blueprint_of(revision):
            raise self.conflict(
                f"is at revision {revision}, which belongs to the blueprint {other}, not to "
                f"{self._blueprint}"
            )
        if self._unknown_is_ahead:
            return True
        unknown = self.conflict(f"is at revision {revision}, which is unknown to {self._blueprint}")
        unknown.hint += (
            " If newer code migrates the schema by other means, say so: "
            f"{KIND.unknown_variable}=ahead."
        )
        raise unknown

    def _diverged(self, record: Record, found: Comparison) -> StoreConflict:
        """The conflict of a record and a folder of which neither contains the other."""
        differences = diverged.differences(record, found, self._chain, self._blueprint)
        return StoreConflict(
            NAME,
            f"Schema {self._schema} of {self._target} {differences}.",
            subject=(*found.skipped, *found.moved, *found.beyond, *found.pending)[0],
            hint=diverged.ways_out(record, found, self._chain),
        )

    def conflict(self, what: str) -> StoreConflict:
        """The conflict of a schema of which `what` is true."""
        return StoreConflict(
            NAME,
            f"Schema {self._schema} of {self._target} {what}.",
            subject=self.place.shown,
            hint="A schema carries one blueprint: set DB_SCHEMA or another database, or run the "
            "version that made it.",
        )

    def forget_ended(self) -> None:
        """Delete the row of a step that was planned on as ended.

        After a next step it would not look so.
        """
        if self.left_by_ended is not None:
            self.marks.forget(self.left_by_ended)
            self.left_by_ended = None

    def forget(self, reader: psycopg.Connection[Any]) -> None:
        """Lift every mark of the schema, on a session of the caller's."""
        if self.marks.are_rows():
            reader.execute(self.marks.forget_statement.encode())

    def write_plan(self, reader: psycopg.Connection[Any], revisions: Sequence[str]) -> None:
        """Write to which revisions a run is about to lead, and the digests of their files.

        The digests of revisions that are recorded as applied stay, unless older ones were squashed
        into them.
        """
        record = self.read(reader)
        kept = revision_digests.applied(record, self._chain)
        digests = {name: self._chain.digests.get(name, "") for name in revisions}
        self.plan.write(reader, revisions, digests, kept)

    def record_lineage(
        self,
        reader: psycopg.Connection[Any],
        revisions: Sequence[str],
        renewed: Collection[str] = (),
    ) -> None:
        """Write what led to the recorded revisions, on a session of the caller's."""
        lineage_table.make(reader)
        self.write_lineage(reader, revisions, renewed)

    def write_lineage(
        self,
        reader: psycopg.Connection[Any],
        revisions: Sequence[str],
        renewed: Collection[str] = (),
    ) -> None:
        """Write the same, in a transaction of the caller's.

        The digests of the files of `renewed` are written too. Those of other revisions stay.
        """
        row = reader.execute(self.place.schema_query.encode()).fetchone()
        schema = self.place.schema or (row[0] if row else self._schema)
        statement = lineage_table.record_statement(
            schema,
            self.place.table,
            self._blueprint,
            revisions,
            {name: self._chain.digests.get(name, "") for name in renewed},
        )
        reader.execute(statement.encode())

    def write_digests(self, reader: psycopg.Connection[Any], revisions: Collection[str]) -> None:
        """Write the digests of the files of applied revisions, on a session of the caller's.

        Raises `AccessDenied` when this role may not write them.
        """
        record = self.read(reader)
        digests = {name: self._chain.digests.get(name, "") for name in revisions}
        with errors(self._target, lineage_table.PLACE):
            if not record.lineage or record.in_comment:
                self.record_lineage(reader, self._chain.until(record.revisions))
            lineage_table.make(reader)
            schema = (
                literal(self.place.schema) if self.place.schema else f"({self.place.schema_query})"
            )
            lineage_table.write_digests(reader, schema, self.place.table, digests)

    def mark(self, reader: psycopg.Connection[Any], found: Begun) -> None:
        """Write the mark of a step unless it is there."""
        if self.unended(self.read(reader)):
            return
        if self.marks.in_rows:
            self.marks.begin(found)
        else:
            reader.execute(postgres_begun.comment_mark(self.table, found.step).encode())

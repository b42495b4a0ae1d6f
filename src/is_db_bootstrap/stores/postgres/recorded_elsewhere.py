"""What other version tables of a database mean for the pending revisions of a schema.

Revisions that another table records have run already, so they would run a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import AccessDenied, StoreBusy, StoreConflict
from is_db_bootstrap.stores.postgres import elsewhere
from is_db_bootstrap.stores.postgres.errors import NAME, errors, looking
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.revisions import TABLE, Chain, Record

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.postgres.history import History

#: How many tables a line that says what is not ours names.
_NAMED_TABLES = 2


class RecordedElsewhere:
    """Looks for records of a blueprint's revisions outside of `schema`'s own version table."""

    def __init__(
        self,
        url: StoreUrl,
        schema: str,
        blueprint: Blueprint,
        chain: Chain,
        history: History,
        *,
        ignored: elsewhere.IgnoredTables,
    ) -> None:
        self._target = str(url)
        self._username = url.username
        self._schema = schema
        self._blueprint = blueprint
        self._chain = chain
        self._history = history
        self._ignored = ignored

    def refuse(self, reader: psycopg.Connection[Any], record: Record) -> tuple[str, ...]:
        """Raise `StoreConflict` when another table records pending revisions, or may do so.

        `AccessDenied` when this role may not see whether it does. Returns notes on what cannot be
        told.
        """
        done = self._chain.until(record.revisions)
        pending = [r for r in self._chain.order if r not in done]
        found = self._look(reader, done, pending)
        if found.ours:
            # A run that makes another deployment marks its table together with its first row. The
            # first look may have seen the table before that, and the row after it.
            found = self._look(reader, done, pending)
        if found.ours:
            raise self._recorded_elsewhere(reader, record, found.ours)
        notes: list[str] = []
        if found.ignored:
            tables = elsewhere.names_of(found.ignored)
            notes.append(f"{tables}: not looked into, as {KIND.ignored_variable} says.")
        if found.unseen:
            notes += self._refuse_unseen(reader, record, found.unseen)
        if found.unknown:
            notes += self._refuse_unknown(reader, record, found)
        if found.deployments and not record.revisions:
            notes += self._refuse_shared(reader, record, found)
        return tuple(notes)

    def _look(
        self, reader: psycopg.Connection[Any], done: Sequence[str], pending: Sequence[str]
    ) -> elsewhere.Elsewhere:
        """What the version tables of the database record, but for our own."""
        with looking(self._target, "other version tables"):
            return elsewhere.find(
                reader,
                self._schema,
                self._blueprint.name,
                done=done,
                pending=pending,
                ignored=self._ignored,
                own=self._history.place.quoted,
            )

    def _refuse_unseen(
        self,
        reader: psycopg.Connection[Any],
        record: Record,
        unseen: Sequence[elsewhere.UnseenTable],
    ) -> Iterator[str]:
        """Raise when version tables cannot be looked into and we have no record of our own.

        `AccessDenied` when this role may not look, else `StoreConflict`. A note when there is a
        record of our own, which says where to go on. A note too when this role may not use any of
        their schemas, and nothing where we work hints at an earlier run.
        """
        where = elsewhere.reasons_of(unseen)
        may_record = f"may record revisions of {self._blueprint.name}, and could not be looked into"
        if record.revisions:
            yield f"{where} {may_record}. The run goes on from {self._history.place.shown}."
            return
        is_far = all(each.why is elsewhere.Why.SCHEMA for each in unseen)
        if is_far and not self._may_have_run(reader, record):
            yield (
                f"{where} could not be looked into. That is right for another application. If "
                f"another role has run revisions of {self._blueprint.name}, recorded there, stop "
                "here: they would be run a second time."
            )
            return
        denials = {elsewhere.Why.RIGHTS, elsewhere.Why.SCHEMA, elsewhere.Why.ROWS}
        is_denied = any(each.why in denials for each in unseen)
        refusal = AccessDenied if is_denied else StoreConflict
        first = {each.why: each for each in reversed(unseen)}
        ways = [each.way_to_see(self._username) for each in first.values()]
        raise refusal(
            NAME,
            f"{where} of {self._target} {may_record}. Nothing was changed: revisions that have run "
            "already would be run a second time.",
            hint=f"{' '.join(ways)} {self._way_to_ignore(unseen)}",
            subject=str(unseen[0]),
        )

    def _may_have_run(self, reader: psycopg.Connection[Any], record: Record) -> bool:
        """Whether a table that pending revisions create or change is there.

        Where the revisions cannot be read for that, whether our schema has any table.
        """
        taken = self._taken(reader, record, only_qualified=False)
        if taken.unread:
            with errors(self._target, "tables of the schema"):
                return elsewhere.has_tables(reader, self._schema)
        return bool(taken.created or taken.unless or taken.changed)

    @staticmethod
    def _way_to_ignore(tables: Sequence[elsewhere.VersionTable | elsewhere.UnseenTable]) -> str:
        """How a person says that version tables are not ours."""
        which = "it is" if len(tables) == 1 else "they are"
        first = ",".join(map(str, tables[:_NAMED_TABLES]))
        named = f"{first},…" if len(tables) > _NAMED_TABLES else first
        return (
            f"If {which} a backup or another application's, say so: {KIND.ignored_variable}={named}"
        )

    def _recorded_elsewhere(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.VersionTable
    ) -> StoreConflict:
        revisions = ", ".join(found.revisions)
        stamp = (
            f"record the same in {self._history.place.shown}: `is-db-bootstrap migrate stamp "
            f"{found.revisions[-1]}`"
        )
        hint = (
            f"To go on from there, {stamp}. Alembic goes on to read {found}, so let one of the "
            "two apply from then on."
        )
        if found.table == TABLE:
            hint = (
                f"To go on from there, set DB_SCHEMA={found.schema}. "
                f"{self._way_to_stay_beside(reader, record, found)}"
                f"If the tables are in schema {self._schema}, {stamp}."
            )
        unseen = self._tables_unseen(reader, record, found)
        if unseen:
            hint = (
                f"{unseen} If {found} is yours, {stamp}, but only where the tables of that "
                "revision are there: a stamp makes none."
            )
        return StoreConflict(
            NAME,
            f"Revision {revisions} of {self._blueprint.name} is recorded in {found} of "
            f"{self._target}, not in {self._history.place.shown}. Nothing was changed: the "
            "revisions would be run a second time.",
            hint=f"{hint} {self._way_to_ignore([found])}",
            subject=str(found),
        )

    def _way_to_stay_beside(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.VersionTable
    ) -> str:
        """How to mark the other table as the record of another deployment, such as a tenant.

        Empty when a table of the revisions is in our schema, or in one that they name: a run beside
        that deployment would do its work a second time.
        """
        ours = self._taken(reader, record, only_qualified=False)
        is_ours = bool(ours.created or ours.unless or ours.changed or ours.unread)
        if is_ours or len(found.revisions) > 1:
            return ""
        return (
            f"If schema {found.schema} is another deployment (a tenant) with tables of its own, "
            f"mark it and run again: `DB_SCHEMA={found.schema} is-db-bootstrap migrate stamp "
            f"{found.revisions[0]}`. "
        )

    def _tables_unseen(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.VersionTable
    ) -> str:
        """That no table of the pending revisions is there, or that this is not known.

        Empty when one is there.
        """
        schemas = tuple(dict.fromkeys([self._schema, found.schema]))
        taken = self._taken(reader, record, only_qualified=False, schemas=schemas)
        if taken.unread:
            return (
                "Whether tables of these revisions are there could not be found out: "
                f"{taken.unread}"
            )
        if taken.created or taken.unless:
            return ""
        return f"No table that these revisions create is in schema {' or '.join(schemas)}."

    def _refuse_unknown(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.Elsewhere
    ) -> Iterator[str]:
        """Raise `StoreConflict` when a version table of unknown revisions may be ours.

        It may be, when a table is there that pending revisions create. Else a note. With a record
        of our own, a table that they drop or rename before is one that they go on from.
        """
        taken = self._taken(reader, record, only_qualified=False)
        records = "records" if len(found.unknown) == 1 else "record"
        where = elsewhere.names_of(
            [f"{each} ({', '.join(each.revisions)})" for each in found.unknown]
        )
        there = [*taken.created, *taken.unless]
        if record.revisions:
            there = [name for name in taken.created if name not in taken.replaced]
        if there:
            raise StoreConflict(
                NAME,
                f"{where} of {self._target} {records} revisions that this version of "
                f"{self._blueprint.name} does not know, and {', '.join(there)} is there already, "
                "which pending revisions create. Nothing was changed: they may have run, "
                "recorded there.",
                hint=f"{self._way_to_ignore(found.unknown)} and run again. If the revisions are of "
                f"{self._blueprint.name}, run the version that knows them. For a deployment of its "
                "own, set DB_SCHEMA or another database. Only a revision that has run may be "
                "recorded with `is-db-bootstrap migrate stamp`.",
                subject=str(found.unknown[0]),
            )
        unread = (
            f" Whether its tables are ours could not be found out: {taken.unread}"
            if taken.unread
            else ""
        )
        yield (
            f"{where} {records} revisions that are not of {self._blueprint.name}. That is right "
            f"for another application. If they are newer ones of {self._blueprint.name}, stop "
            f"here: what has run would run a second time.{unread}"
        )

    def _refuse_shared(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.Elsewhere
    ) -> Iterator[str]:
        """Raise `StoreConflict` for a table outside of our schema that another deployment has made.

        A note on tables there that the revisions change.
        """
        taken = self._taken(reader, record, only_qualified=True)
        schemas = elsewhere.names_of(found.deployments)
        if taken.created:
            raise StoreConflict(
                NAME,
                f"{self._blueprint.name} is recorded in schema {schemas} of {self._target} too, "
                f"and {', '.join(taken.created)} is there already: the revisions name its "
                "schema, so they would run a second time on the same table.",
                hint="A blueprint that names schemas lives once in a database: set another "
                "database.",
                subject=taken.created[0],
            )
        shared = [*taken.unless, *taken.changed]
        if shared or taken.unread:
            what = ", ".join(shared) or f"tables that are not known ({taken.unread})"
            yield (
                f"{self._blueprint.name} is recorded in schema {schemas} too. Its revisions also "
                f"change {what}: what they do there is done once for each schema."
            )

    def _taken(
        self,
        reader: psycopg.Connection[Any],
        record: Record,
        *,
        only_qualified: bool,
        schemas: Sequence[str] = (),
    ) -> elsewhere.Taken:
        """Which tables of the pending revisions are there, in `schemas` or else in ours.

        `StoreBusy` when another run has just made them.
        """
        from is_db_bootstrap.stores.postgres.alembic import offline_sql

        with errors(self._target, "tables of pending revisions"):
            taken = elsewhere.taken(
                reader,
                schemas or [self._schema],
                lambda: offline_sql(self._blueprint, self._schema, "heads", after=record.revisions),
                only_qualified=only_qualified,
            )
        if taken.created and self._history.read(reader) != record:
            raise StoreBusy(NAME, "Another run has just applied revisions.", hint="Run again.")
        return taken

"""A schema that was made by hand or by stock Alembic, as an adoption finds it.

The catalogue decides: the record of revisions is completed only where every object is as declared.
A version table that says already what is declared is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.engine.store import RECORD, Adoption
from is_db_bootstrap.errors import APPLY, BootstrapError, StoreConflict, StoreUnavailable
from is_db_bootstrap.results import Change, Drift, Nature
from is_db_bootstrap.sentences import end_sentence
from is_db_bootstrap.stores.postgres import elsewhere, lineage_table, own_schema, revision_digests
from is_db_bootstrap.stores.postgres.catalogue import FILE_NAME
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from is_db_bootstrap.stores.postgres.catalogue import Catalogue
    from is_db_bootstrap.stores.postgres.declared import Declared
    from is_db_bootstrap.stores.postgres.history import History
    from is_db_bootstrap.stores.postgres.recorded_elsewhere import RecordedElsewhere
    from is_db_bootstrap.stores.postgres.revisions import Chain, Record

_UNCOMPARED = "tables are not compared: there is no catalogue of the newest revision"
_WRITE_CATALOGUE = "is-db-bootstrap revision --refresh"
_MAY_RECORD = own_schema.places(lineage_table.TABLE)


@dataclass(slots=True)
class SchemaAdoption:
    """What an adoption of `schema` finds.

    `tried` gives the catalogue that the revisions make in a scratch database, for a blueprint that
    has none beside them. None: that cannot be found out here.
    """

    target: str
    schema: str
    chain: Chain
    history: History
    elsewhere: RecordedElsewhere
    declared: Declared
    tried: Callable[[], Catalogue] | None = None
    _notes: list[str] = field(default_factory=list)

    @property
    def heads(self) -> tuple[str, ...]:
        """What a version table records after all revisions."""
        return tuple(sorted(self.chain.heads(self.chain.order)))

    def found(self, reader: psycopg.Connection[Any]) -> Adoption:
        """What differs, and which records are missing.

        Raises `StoreConflict` for the record of another blueprint, of a newer version, and of a
        revision that did not end.
        """
        record = self.history.read(reader)
        if self.history.is_ahead(record):
            raise self.history.conflict(
                f"is at revision {', '.join(record.revisions)}, newer than this version"
            )
        self.history.refuse_half_done(record)
        self.history.refuse_unread(record)
        if not record.revisions and self._is_empty(reader):
            return Adoption(is_blank=True)
        differences = [
            *self._unrecorded(record),
            *self._recorded_elsewhere(reader, record),
            *self._compared(reader),
        ]
        changes = tuple(self._records(reader, record))
        return Adoption(changes, tuple(differences), notes=tuple(self._notes))

    def _is_empty(self, reader: psycopg.Connection[Any]) -> bool:
        """Whether no table of the blueprint is there, or no table at all where none is known."""
        tables = self.declared.tables()
        with errors(self.target, "tables of the schema"):
            if not tables:
                return not elsewhere.has_tables(reader, self.schema)
            query = (
                "SELECT EXISTS (SELECT FROM pg_tables "
                "WHERE schemaname = %s AND tablename = ANY(%s))"
            )
            row = reader.execute(query, [self.schema, tables]).fetchone()
        return not (row and row[0])

    def _unrecorded(self, record: Record) -> Iterator[Drift]:
        """Revisions that a version table lacks which records earlier ones.

        Whoever wrote that table has not run them, so equal tables are no proof that they ran.
        """
        if not record.revisions:
            return
        at = ", ".join(record.revisions)
        for name in self.history.compare(record).pending:
            message = f"is not recorded: {self.history.place.shown} is at {at}"
            yield Drift(name, "revision", message, self.chain.titles[name] or None, fix=APPLY)

    def _recorded_elsewhere(
        self, reader: psycopg.Connection[Any], record: Record
    ) -> Iterator[Drift]:
        """Another version table that records these revisions, or may do so."""
        if not self.history.compare(record).pending:
            return
        try:
            self._notes += self.elsewhere.refuse(reader, record)
        except StoreUnavailable:
            raise
        except StoreConflict as exc:
            reason = (
                "name the alembic.ini that has this table as its version table "
                '(`[postgres] alembic = "alembic.ini"`). Where it is accepted, this tool records '
                f"in {self.history.place.shown} from now on, and the other table stays as it is"
            )
            yield Drift(exc.subject, "version table", end_sentence(exc.message), reason=reason)

    def _compared(self, reader: psycopg.Connection[Any]) -> Iterator[Drift]:
        """Every object that is missing, different or undeclared, by the catalogue.

        A schema that has nothing but a version table in it is made with the record.
        """
        declared, why = self.declared, ""
        if not declared.is_comparable:
            declared, why = self._declared_by_trial()
        if not declared.is_comparable:
            message = f"{_UNCOMPARED}{why}"
            yield Drift(FILE_NAME, "file", message, fix=_WRITE_CATALOGUE)
            return
        for drift in declared.drifts(reader):
            if not (drift.kind == "schema" and declared.is_empty(drift.object)):
                yield drift
        for found in declared.findings(lambda: reader):
            if found.finding:
                yield found
            else:
                self._notes.append(f"{found.kind} {found.object}: {found.message}")

    def _declared_by_trial(self) -> tuple[Declared, str]:
        """What the revisions make in a scratch database, or why that is not known."""
        if self.tried is None:
            return self.declared, ""
        try:
            catalogue = self.tried()
        except StoreUnavailable:
            raise
        except BootstrapError as exc:
            return self.declared, f", and the revisions do not run in a scratch database: {exc}"
        self._notes.append(
            f"There is no {FILE_NAME} of the newest revision, so the revisions ran in a scratch "
            "database, and what they made there was compared."
        )
        return self.declared.of_trial(catalogue), ""

    def _records(self, reader: psycopg.Connection[Any], record: Record) -> Iterator[Change]:
        """What is to be recorded, as one change."""
        name = ", ".join(self.heads)
        if tuple(sorted(record.revisions)) != self.heads:
            count = counted(len(self.chain.order), "revision")
            detail = f"{count} recorded as applied in {self.history.place.shown}"
            yield Change(name, RECORD, detail, Nature.ATOMIC)
            return
        is_lineage_recorded = record.lineage == self.chain.until(self.heads)
        undigested = self._undigested(record)
        if is_lineage_recorded and not undigested:
            return
        if not self._may_record_lineage(reader):
            self._notes.append(
                f"Which revisions led to {name} is not recorded, because this role may not write "
                f"to the schema {own_schema.SCHEMA}."
            )
            return
        what = f"the SHA-256 of {counted(len(undigested), 'revision file')}"
        if not is_lineage_recorded:
            what = f"what led to it, and {what}," if undigested else "what led to it"
        detail = f"{what} is recorded in {lineage_table.PLACE}"
        yield Change(name, RECORD, detail, Nature.REPEATABLE)

    def _undigested(self, record: Record) -> list[str]:
        """The revisions of whose files nothing is recorded, so that no edit could be noticed."""
        names = revision_digests.applied(record, self.chain)
        return [
            name for name in names if name not in record.digests and self.chain.digests.get(name)
        ]

    def _may_record_lineage(self, reader: psycopg.Connection[Any]) -> bool:
        with errors(self.target, own_schema.SCHEMA):
            row = reader.execute(_MAY_RECORD.encode(), {"table": self.history.table}).fetchone()
        return bool(row and row[0])

    def record_lineage(self, reader: psycopg.Connection[Any]) -> None:
        """Record what led to the newest revisions, and read it back. Nothing else is written.

        Of each file of which nothing is recorded, the digest of now is recorded too. Raises
        `StoreConflict` when the record is another one afterwards.
        """
        wanted: Sequence[str] = self.chain.until(self.heads)
        undigested = self._undigested(self.history.read(reader))
        self.history.record_lineage(reader, wanted, undigested)
        record = self.history.read(reader)
        if record.lineage != wanted:
            raise self.history.conflict(
                f"is at {', '.join(record.revisions)}, and what led there was not recorded"
            )
        if left := self._undigested(record):
            raise self.history.conflict(
                f"did not keep the SHA-256 of {counted(len(left), 'revision file')} in "
                f"{lineage_table.PLACE}"
            )

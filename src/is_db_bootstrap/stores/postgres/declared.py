"""What a blueprint declares in PostgreSQL, and a database that is compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from is_db_bootstrap.results import Drift
from is_db_bootstrap.sentences import end_sentence
from is_db_bootstrap.stores.postgres import compare
from is_db_bootstrap.stores.postgres.catalogue import (
    FILE_NAME,
    FORMAT,
    GRANTS,
    PARTITION,
    QUERIES,
    ROLE,
    Catalogue,
    Objects,
    look,
)
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.record_place import RecordPlace

Connection = psycopg.Connection[Any]

_REFRESH = "is-db-bootstrap revision --refresh"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a database holds: the objects of each schema that is there, and how exact they are.

    `roles` are those of the server among the roles that the catalogue names.
    """

    schemas: dict[str, Objects]
    roles: frozenset[str]
    is_exact: bool


@dataclass(slots=True)
class Declared:
    """The catalogue of a blueprint, compared with databases in which its schema is `schema`.

    Without a catalogue of the newest revision, nothing is compared but the record of revisions, and
    `record_only` says why.
    """

    schema: str
    catalogue: Catalogue | None = None
    record_only: Drift | None = None
    #: A team's version table, which is compared only where an earlier version has written it down.
    record: RecordPlace | None = None
    #: What `drifts` has just read, for `findings`.
    _seen: _Seen | None = field(default=None, repr=False)

    @classmethod
    def read(
        cls,
        folder: Path | None,
        schema: str,
        head: str,
        *,
        compare_privileges: bool,
        record: RecordPlace | None = None,
    ) -> Declared:
        """From the file beside the revisions, of which `head` is the newest.

        Raises `ConfigurationError` for a file that is not a catalogue.
        """
        if folder is None:
            return cls(schema)
        found = Catalogue.read(folder)
        if found is None:
            told = _record_only(f"there is no {FILE_NAME}")
            return cls(schema, None, told, record=record)
        if found.head != head:
            reason = f"{FILE_NAME} is of revision {found.head}, not {head}"
            return cls(schema, None, _record_only(reason), record=record)
        catalogue = found if compare_privileges else found.without_privileges()
        return cls(schema, catalogue, record=record)

    @property
    def gap(self) -> str:
        """What is not compared, as a sentence; empty when everything is."""
        if self.record_only is not None:
            told = self.record_only
            return f"{told.kind} {told.object}: {told.message}"
        return _gap(self.catalogue, self.schema) if self.catalogue else ""

    @property
    def is_comparable(self) -> bool:
        """Whether there is a catalogue of the newest revision."""
        return self.catalogue is not None

    def of_trial(self, catalogue: Catalogue) -> Declared:
        """The same with the catalogue that the revisions have made elsewhere."""
        return Declared(self.schema, catalogue, record=self.record)

    def is_empty(self, schema: str) -> bool:
        """Whether no object is declared in a further schema."""
        return self.catalogue is None or not any(self.catalogue.schemas.get(schema, {}).values())

    def tables(self) -> list[str]:
        """The declared tables of the schema, as the server has their names."""
        return self.catalogue.tables() if self.catalogue else []

    def tables_beside(self) -> dict[str, list[str]]:
        """The declared tables of each further schema, as the server has their names."""
        if self.catalogue is None:
            return {}
        schemas = self.catalogue.schemas
        return {name: self.catalogue.tables_of(found) for name, found in schemas.items()}

    def drifts(self, connection: Connection) -> list[Drift]:
        """Every declared object that is missing or different."""
        if self.catalogue is None:
            return []
        self._seen = seen = self._look(connection, self.catalogue)
        found: list[Drift] = []
        for schema, declared in self._by_schema(self.catalogue).items():
            if schema not in seen.schemas:
                create = f"CREATE SCHEMA {identifier(schema)};"
                missing = Drift(schema, "schema", "is missing", schema, fix=create)
                found.append(replace(missing, statements=(create,)))
                continue
            told = [
                *compare.drifts(
                    declared,
                    seen.schemas[schema],
                    roles=seen.roles,
                    exact_queries=seen.is_exact,
                )
            ]
            if told:
                found += self._mended(told, schema, declared, seen.schemas[schema])
        if not found:
            return []
        from is_db_bootstrap.stores.postgres.mending import in_order

        return in_order(found)

    def _mended(
        self, told: list[Drift], schema: str, declared: Objects, live: Objects
    ) -> Iterable[Drift]:
        """The drifts of one schema, each with the statement that would mend it."""
        from is_db_bootstrap.stores.postgres.mending import Mending

        mended = compare.after_columns(
            map(Mending(schema, self.schema, declared, live).with_fix, told)
        )
        return mended if schema == self.schema else compare.in_schema(schema, mended)

    def findings(self, reader: Callable[[], Connection]) -> list[Drift]:
        """What nobody has declared, and remarks on what was not compared.

        `reader` gives a session, when none was used to look for drifts just now.
        """
        if self.catalogue is None:
            return [replace(self.record_only, finding=True)] if self.record_only else []
        seen, self._seen = self._seen, None
        if seen is None:
            seen = self._look(reader(), self.catalogue)
        found: list[Drift] = []
        for schema, declared in self._by_schema(self.catalogue).items():
            told = compare.findings(declared, seen.schemas.get(schema, {}))
            if schema == self.schema:
                found += told
            else:
                # A whole table there may be of another application.
                parts = (each for each in told if each.kind != "table")
                found += compare.in_schema(schema, parts)
        return [*found, *self._remarks(self.catalogue, seen)]

    def _by_schema(self, catalogue: Catalogue) -> dict[str, Objects]:
        """What is declared in each schema, the blueprint's own first."""
        others = {name: each for name, each in catalogue.schemas.items() if name != self.schema}
        return {self.schema: catalogue.objects, **others}

    def _look(self, connection: Connection, catalogue: Catalogue) -> _Seen:
        """What is there of the kinds that can be drift or a finding."""
        declared = catalogue.kinds()
        kinds = {*declared, *compare.AUDITED, PARTITION}
        if not declared.intersection(QUERIES):
            kinds -= compare.OF_VIEWS  # of views of others, then
        if declared.intersection(GRANTS):
            kinds |= set(GRANTS)
        roles = catalogue.roles()
        if roles:
            kinds.add(ROLE)
        found: dict[str, Objects] = {
            **look(
                connection,
                [*self._by_schema(catalogue)],
                form=catalogue.form,
                kinds=kinds,
                roles=roles,
                record=self._left_out(catalogue),
            )
        }
        of_database = found.pop("", {})
        of_own = {**of_database, **found.get(self.schema, {})}
        there = frozenset(of_own.get(ROLE, {}).values())
        is_exact = catalogue.is_exact_on(connection.info.server_version)
        return _Seen(found, there, is_exact)

    def _left_out(self, catalogue: Catalogue) -> str | None:
        """The quoted name of the version table, unless a file of an earlier version lists it."""
        if self.record is None:
            return None
        schema = self.record.schema or self.schema
        objects = self._by_schema(catalogue).get(schema, {})
        is_listed = self.record.table in catalogue.tables_of(objects)
        return None if is_listed else self.record.quoted

    def _remarks(self, catalogue: Catalogue, seen: _Seen) -> Iterator[Drift]:
        """What is compared in part only, for reasons of this server."""
        yield from compare.missing_roles(catalogue, seen.roles)
        if not seen.is_exact:
            message = (
                f"is of PostgreSQL {catalogue.versions}, so the columns of views are compared "
                f"without the names of their tables. {_REFRESH} on a server of this version "
                "makes the other one"
            )
            yield Drift(FILE_NAME, "file", message)


def _record_only(reason: str) -> Drift:
    """The remark on a blueprint whose catalogue cannot be used."""
    because = end_sentence(f"record only, tables are not compared: {reason}")
    message = f"{because} {_REFRESH} writes it"
    return Drift(FILE_NAME, "file", message, fix=_REFRESH)


def _gap(catalogue: Catalogue, schema: str) -> str:
    """What the comparison leaves out, as a sentence."""
    if catalogue.form < FORMAT:
        return (
            f"{FILE_NAME} is of an earlier version, which had fewer kinds of object; it is "
            f"compared as far as it goes. {_REFRESH} writes all of them."
        )
    if schema in catalogue.schemas:
        return (
            f"What revisions make in {schema} by that name is not compared: it is also the schema "
            "of DB_SCHEMA."
        )
    return ""

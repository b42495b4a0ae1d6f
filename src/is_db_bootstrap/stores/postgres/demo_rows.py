"""The demo rows of a blueprint, as steps of a plan. `seed` says how one is found and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.seed import insert, insert_text, missing, row_name

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import SeedRow


class DemoRows:
    """The declared `rows`. Each is inserted only where it is missing.

    `target` is how messages call the server.
    """

    def __init__(self, rows: Sequence[SeedRow], target: str) -> None:
        self._rows = rows
        self._target = target

    def all(self) -> Iterator[Change]:
        """A step for each row."""
        return (_change_of(row) for row in self._rows)

    def missing(self, reader: psycopg.Connection[Any]) -> Iterator[Change]:
        """A step for each row that is missing. A missing table is drift, which `verify` tells."""
        with errors(self._target, "demo rows"):
            try:
                lacking = missing(reader, self._rows)
            except psycopg.errors.UndefinedTable:
                return
        yield from (_change_of(row) for row in lacking)

    def is_missing(self, session: psycopg.Connection[Any], name: str) -> bool:
        """Whether the row of this name is missing, maybe with its table."""
        try:
            return bool(missing(session, self._named(name)))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return True

    def statements(self, name: str) -> tuple[str, ...]:
        """What inserts the row of this name."""
        return tuple(f"{insert_text(row)};" for row in self._named(name))

    def insert(self, reader: psycopg.Connection[Any], name: str) -> None:
        """Insert the row of this name unless it is there."""
        insert(reader, self._named(name)[0])

    def _named(self, name: str) -> list[SeedRow]:
        return [row for row in self._rows if row_name(row) == name]


def _change_of(row: SeedRow) -> Change:
    return Change(row_name(row), "seed", nature=Nature.REPEATABLE)

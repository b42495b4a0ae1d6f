"""Moves along the chain other than up to its head: up to a revision, down, and by decree.

Each is the PostgreSQL store with another plan, so the run that applies it waits, locks, looks again and reports as always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import ConfigurationError, StoreConflict
from is_db_bootstrap.results import Change, Drift, Plan
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import DatabaseMissing, errors, identifier

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.revisions import Chain

_RELATIONS = (
    "SELECT oid::int8, relname::text FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p', 'm')"
)
_COLUMNS = """
    SELECT a.attrelid::int8, a.attnum::int, a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """A table, or a column of one, that would be dropped although `rows` rows have something in it."""

    table: str
    rows: int
    column: str = ""

    def __str__(self) -> str:
        what = f"column {self.table}.{self.column}" if self.column else f"table {self.table}"
        return f"{what} ({self.rows} row{'' if self.rows == 1 else 's'})"


class RowsWouldBeLost(StoreConflict):
    """A downgrade would drop tables or columns that hold rows; `losses` names them. Nothing was changed."""

    def __init__(self, store: str, losses: Sequence[Loss]) -> None:
        super().__init__(
            store, f"The downgrade would drop {', '.join(map(str, losses))}.", subject=losses[0].table,
            hint="Say --yes (drop_rows=True) to drop them.",
        )  # fmt: skip
        self.losses = tuple(losses)


def known(chain: Chain, revision: str) -> str:
    """The revision of that name or unmistakable beginning; a `StoreConflict` names the known ones."""
    found = [r for r in chain.order if r == revision] or [r for r in chain.order if r.startswith(revision)]
    if len(found) != 1 or not revision:
        raise StoreConflict("postgres", f"There is no revision {revision!r}.", hint=f"Known: {', '.join(chain.order)}.")
    return found[0]


class Move(PostgreSQLBootstrapper):
    """What the moves share: a database that must exist, no demo rows, nothing to verify afterwards."""

    def __init__(self, url: StoreUrl | str, blueprint: Blueprint, target: str, *, timing: Timing, schema: str) -> None:
        super().__init__(url, blueprint, timing=timing, schema=schema)
        self._target = target

    def verify(self) -> Sequence[Drift]:
        """Nothing: a schema that is not at its head has no declared state."""
        return []

    def audit(self) -> Sequence[Drift]:
        """Nothing, for the same reason."""
        return []

    def _existing(self) -> psycopg.Connection[Any]:
        try:
            return self._reader()
        except DatabaseMissing as exc:
            raise self._no_database() from exc

    def _no_database(self) -> StoreConflict:
        return StoreConflict(self.name, f"Database {self._url.database} of {self.target} does not exist.", subject=self._url.database,
                             hint=f"Run: is-db-bootstrap migrate init --blueprint {self._blueprint.name}")  # fmt: skip


class Upgrade(Move):
    """Up to `target`: `head`, a revision, or `+N` steps; a revision that was passed already changes nothing."""

    def _planned(self) -> Plan:
        self._existing()
        found = super()._planned()
        revisions = [c for c in found.changes if c.kind == "revision"]
        wanted = self._wanted(revisions)
        if not wanted:
            return Plan(notes=found.notes, ahead=found.ahead)
        return Plan((*(c for c in found.changes if c.kind == "schema"), *wanted), notes=found.notes)

    def _wanted(self, pending: Sequence[Change]) -> list[Change]:
        if self._target == "head":
            return list(pending)
        if re.fullmatch(r"\+\d+", self._target):
            return list(pending[: int(self._target)])
        passed = self._chain.until([known(self._chain, self._target)])
        return [c for c in pending if c.name in passed]


class Downgrade(Move):
    """Down to `target`: `base`, a revision, or `-N` steps. Rows are dropped with their tables only if `drop_rows`."""

    def __init__(
        self, url: StoreUrl | str, blueprint: Blueprint, target: str, *, timing: Timing, schema: str, drop_rows: bool
    ) -> None:
        super().__init__(url, blueprint, target, timing=timing, schema=schema)
        self._drop_rows = drop_rows

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._record(reader)
        if self._is_ahead(record):
            raise self._conflict(f"is at revision {', '.join(record.revisions)}, which this version does not know how to undo")
        done = self._chain.until(record.revisions)
        undone = self._undone(done)
        if undone and not self._drop_rows:
            losses = self._losses(reader, self._before(done, undone[-1]), undone)
            if losses:
                raise RowsWouldBeLost(self.name, losses)
        return Plan(tuple(Change(r, "downgrade", self._chain.titles[r]) for r in undone))

    def _undone(self, done: Sequence[str]) -> list[str]:
        """What is to be undone, the newest first."""
        if self._target == "base":
            return list(reversed(done))
        if re.fullmatch(r"-\d+", self._target):
            return list(reversed(done))[: -int(self._target)]
        revision = known(self._chain, self._target)
        if revision not in done:
            raise StoreConflict(self.name, f"Revision {revision} is not applied, so nothing can be undone down to it.",
                                hint=f"The schema is at {done[-1] if done else 'base'}.")  # fmt: skip
        kept = self._chain.until([revision])
        return [r for r in reversed(done) if r not in kept]

    @staticmethod
    def _before(done: Sequence[str], revision: str) -> str:
        index = done.index(revision)
        return done[index - 1] if index else "base"

    def _steps(self) -> dict[str, Callable[[Change], str | None]]:
        return {**super()._steps(), "downgrade": self._apply_downgrade}

    def _apply_downgrade(self, change: Change) -> str | None:
        return self._ran(change, "downgrade", self._before(self._chain.order, change.name))

    def _losses(self, reader: psycopg.Connection[Any], to: str, undone: Sequence[str]) -> list[Loss]:
        """Which tables and columns with rows go: seen in a downgrade that is rolled back, by identity rather than by name."""
        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic

        self._refuse_untriable(undone)
        with errors(self.target, f"the trial of a downgrade to {to}"):
            before, after = postgres_alembic.tried_downgrade(
                self._alembic_engine(), self._blueprint, self._schema, to, self._look
            )
            tables, columns = ({k: v for k, v in old.items() if k not in new} for old, new in zip(before, after, strict=True))
            names = before[0]
            found = [Loss(name, self._count(reader, name)) for name in tables.values()]
            found += [Loss(names[t], self._count(reader, names[t], c), c) for (t, _), c in columns.items() if t not in tables]
        return sorted((loss for loss in found if loss.rows), key=str)

    def _look(self, session: psycopg.Connection[Any]) -> tuple[dict[int, str], dict[tuple[int, int], str]]:
        schema = [identifier(self._schema)]
        tables = {oid: name for oid, name in session.execute(_RELATIONS, schema) if name != "alembic_version"}
        columns = {(oid, number): name for oid, number, name in session.execute(_COLUMNS.encode(), schema) if oid in tables}
        return tables, columns

    def _count(self, reader: psycopg.Connection[Any], table: str, column: str = "") -> int:
        what = identifier(column) if column else "*"
        query = f"SELECT count({what}) FROM {identifier(self._schema, table)}"  # noqa: S608 - quoted
        row = reader.execute(query.encode()).fetchone()
        return int(row[0]) if row else 0

    def _refuse_untriable(self, undone: Sequence[str]) -> None:
        """A revision that leaves its transaction cannot be tried and rolled back."""
        folder = self._blueprint.migrations_dir
        for path in sorted(folder.glob("*.py")) if folder else ():
            text = path.read_text(encoding="utf-8")
            mine = re.search(r"^revision\b.*?[\"']([^\"']+)", text, re.MULTILINE)
            if mine and mine[1] in undone and re.search(r"autocommit_block|CONCURRENTLY", text):
                raise StoreConflict(
                    self.name, f"{path.name} leaves its transaction, so what it would drop cannot be found out.", subject=mine[1],
                    hint="Say --yes (drop_rows=True) to downgrade all the same.",
                )  # fmt: skip


class Stamp(Move):
    """Record `target` (`head`, `base` or a revision) as applied, and change nothing else."""

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._record(reader)
        if self._is_ahead(record):
            raise self._conflict(f"is at revision {', '.join(record.revisions)}, newer than this version")
        wanted = (
            ()
            if self._target == "base"
            else (self._chain.head if self._target == "head" else known(self._chain, self._target),)
        )
        schema = self._checked_rights(reader)
        if wanted == record.revisions and (record.blueprint or not wanted):
            return Plan()
        return Plan((*schema, Change(wanted[0] if wanted else "base", "stamp", "recorded, nothing else")))

    def _steps(self) -> dict[str, Callable[[Change], str | None]]:
        return {**super()._steps(), "stamp": lambda change: self._ran(change, "stamp", change.name)}


def parsed_steps(target: str | int) -> str:
    """A target of `downgrade` in one form: `base`, a revision, or `-N`; a `ConfigurationError` for anything else."""
    text = str(target).strip()
    if re.fullmatch(r"-?\d+", text):
        return f"-{text.lstrip('-')}"
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise ConfigurationError(f"{text!r} is no target of a downgrade.", hint="Give a revision, base, or a number of steps.")
    return text

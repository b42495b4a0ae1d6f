"""Moves along the chain other than up to its head: up to a revision, down, and by decree.

Each is the PostgreSQL store with another plan, so the run that applies it waits, locks, looks again and reports as always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change, Drift, Plan
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import (
    SCRATCH,
    DatabaseMissing,
    errors,
    identifier,
    translated,
)

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.downgrade_trial import Seen
    from is_db_bootstrap.stores.postgres.revisions import Chain

#: Rows are counted so far, and no further.
COUNTED = 10_000
#: Seconds that counting the rows of one table may take, and that it may wait for a lock.
COUNT_S, COUNT_LOCK_S = 10, 2
#: Tables of a schema that goes as a whole: also those that nobody here has made.
_OF_SCHEMAS = """
    SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """A table, or a column of one, whose rows a downgrade would lose or change.

    `rows` is how many, None when they could not be counted: `why` has the reason then. At `COUNTED` the count ended.
    `how` is empty for what is dropped, else what happens to the rows.
    """

    table: str
    rows: int | None
    column: str = ""
    how: str = ""
    why: str = ""

    def __str__(self) -> str:
        what = f"column {self.table}.{self.column}" if self.column else f"table {self.table}"
        if self.rows is None:
            counted = f"rows could not be counted: {self.why}"
        elif self.rows >= COUNTED:
            counted = f"{COUNTED} rows or more"
        else:
            counted = f"{self.rows} row{'' if self.rows == 1 else 's'}"
        return f"{what} ({f'{self.how}, ' if self.how else ''}{counted})"


class RowsWouldBeLost(StoreConflict):
    """A downgrade would lose or change rows, or it cannot be found out whether it would. Nothing was changed.

    `losses` names the tables and columns, also those whose rows could not be counted. `unknown` has a sentence for each
    thing that could not be found out.
    """

    def __init__(self, store: str, losses: Sequence[Loss], unknown: Sequence[str] = ()) -> None:
        dropped = [loss for loss in losses if not loss.how]
        changed = [loss for loss in losses if loss.how]
        told = [f"The downgrade would drop {', '.join(map(str, dropped))}."] if dropped else []
        told += (
            [f"The downgrade would change rows of {', '.join(map(str, changed))}."]
            if changed
            else []
        )
        super().__init__(
            store,
            " ".join([*told, *unknown]),
            subject=losses[0].table if losses else "",
            hint="Say --yes (drop_rows=True) to downgrade all the same.",
        )
        self.losses = tuple(losses)
        self.unknown = tuple(unknown)


def known(chain: Chain, revision: str) -> str:
    """The revision of that name or unmistakable beginning; a `StoreConflict` names the known ones."""
    found = [r for r in chain.order if r == revision] or [
        r for r in chain.order if r.startswith(revision)
    ]
    if len(found) != 1 or not revision:
        raise StoreConflict(
            "postgres",
            f"There is no revision {revision!r}.",
            hint=f"Known: {', '.join(chain.order)}.",
        )
    return found[0]


class Move(PostgreSQLBootstrapper):
    """What the moves share: a database that must exist, no demo rows, nothing to verify afterwards."""

    def __init__(
        self, url: StoreUrl | str, blueprint: Blueprint, target: str, *, timing: Timing, schema: str
    ) -> None:
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
    """Down to `target`: `base`, a revision, or `-N` steps. Rows are dropped with their tables only if `drop_rows`.

    What would be lost is found out in a scratch database; rows of the target are only counted.
    """

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        target: str,
        *,
        timing: Timing,
        schema: str,
        drop_rows: bool,
    ) -> None:
        super().__init__(url, blueprint, target, timing=timing, schema=schema)
        self._drop_rows = drop_rows
        self._tried: dict[tuple[tuple[str, ...], str], Seen | str] = {}

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._record(reader)
        if self._is_ahead(record):
            raise self._conflict(
                f"is at revision {', '.join(record.revisions)}, which this version does not know how to undo"
            )
        self._refuse_half_done(record)
        done = self._chain.until(record.revisions)
        undone = self._undone(done)
        notes: tuple[str, ...] = ()
        if undone and not self._drop_rows:
            seen = self._trial(done, self._before(done, undone[-1]))
            losses = [] if isinstance(seen, str) else self._losses(reader, seen)
            unknown = list(self._unknown(seen))
            if losses or unknown:
                raise RowsWouldBeLost(self.name, losses, unknown)
            notes = self._also_gone(seen)
        return Plan(
            tuple(Change(r, "downgrade", self._chain.titles[r]) for r in undone), notes=notes
        )

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

    def _steps(self) -> dict[str, Callable[[Change], str | None]]:
        return {**super()._steps(), "downgrade": self._apply_downgrade}

    def _apply_downgrade(self, change: Change) -> str | None:
        return self._ran(change, "downgrade", self._before(self._chain.order, change.name))

    def _trial(self, done: tuple[str, ...], to: str) -> Seen | str:
        """What the downgrade does in a scratch database; in words, why that could not be seen.

        It is tried once, although a run plans twice: the files are the same.
        """
        from is_db_bootstrap.stores.postgres import downgrade_trial

        if (done, to) not in self._tried:
            try:
                with errors(self.target, f"the trial of a downgrade to {to}"):
                    found: Seen | str = downgrade_trial.tried(
                        self._url, self._blueprint, self._schema, self._timing, done=done, to=to
                    )
            except StoreUnavailable:
                raise
            except AccessDenied as exc:
                found = f"no scratch database could be made for a trial: {self._refusal(exc)}"
            except (BootstrapError, DatabaseMissing) as exc:
                found = f"the trial in a scratch database failed: {getattr(exc, 'message', exc)}"
            except Exception as exc:  # noqa: BLE001 - what a revision raises is its own
                found = f"the trial in a scratch database failed: {type(exc).__name__}: {exc}."
            self._tried[done, to] = found
        return self._tried[done, to]

    def _refusal(self, exc: AccessDenied) -> str:
        """Why there is no scratch database, without the name of a database that nobody is to create."""
        if exc.subject.startswith(SCRATCH):
            return f"the role {self._url.username} may not create databases (CREATEDB)."
        return exc.message

    def _unknown(self, seen: Seen | str) -> Iterator[str]:
        if isinstance(seen, str):
            yield f"Whether the downgrade would lose rows is not known: {seen}"
        elif seen.left:
            yield (
                f"The downgrade of {', '.join(seen.left)} leaves its transaction, so a failure in it would leave half of it done."
            )

    @staticmethod
    def _also_gone(seen: Seen | str) -> tuple[str, ...]:
        if isinstance(seen, str) or not seen.objects:
            return ()
        return (f"The downgrade also drops {', '.join(seen.objects)}.",)

    def _losses(self, reader: psycopg.Connection[Any], seen: Seen) -> list[Loss]:
        """Which of what the trial has seen holds rows on the target, or may hold some."""
        with errors(self.target, "tables of schemas that go"):
            inside = (
                reader.execute(_OF_SCHEMAS.encode(), [list(seen.schemas)]).fetchall()
                if seen.schemas
                else []
            )
        tables = sorted({*seen.tables, *((space, name) for space, name in inside)})
        found = [self._counted(reader, name) for name in tables]
        found += [self._counted(reader, name, column) for name, column in seen.columns]
        found += [
            self._counted(reader, name, column, f"type {types}")
            for name, column, types in seen.retyped
        ]
        found += [
            self._counted(reader, name, "", " and ".join(what))
            for name, what in seen.touched.items()
        ]
        return sorted((loss for loss in found if loss.rows != 0), key=str)

    def _counted(
        self,
        reader: psycopg.Connection[Any],
        name: tuple[str, str],
        column: str = "",
        how: str = "",
    ) -> Loss:
        """How many rows a table has, or how many have something in a column: up to `COUNTED`, and within `COUNT_S`.

        `row_security = off` makes the server refuse instead of hiding rows (manual, 20.11 Client Connection Defaults).
        """
        shown = name[1] if name[0] == self._schema else ".".join(name)
        where = f" WHERE {identifier(column)} IS NOT NULL" if column else ""
        query = f"SELECT count(*) FROM (SELECT FROM {identifier(*name)}{where} LIMIT {COUNTED}) AS counted"  # noqa: S608 - quoted
        limits = f"SET LOCAL row_security = off; SET LOCAL statement_timeout = '{COUNT_S}s'; SET LOCAL lock_timeout = '{COUNT_LOCK_S}s'"
        try:
            with reader.transaction():
                reader.execute(limits.encode())
                row = reader.execute(query.encode()).fetchone()
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ):
            return Loss(
                shown, 0, column, how
            )  # the target has no such thing, so nothing in it is lost
        except psycopg.Error as exc:
            if reader.closed:
                raise translated(exc, self.target, shown) from exc
            return Loss(shown, None, column, how, str(exc.diag.message_primary or exc))
        return Loss(shown, int(row[0]) if row else 0, column, how)


class Stamp(Move):
    """Record `target` (`head`, `base` or a revision) as applied, and change nothing else."""

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._record(reader)
        if self._is_ahead(record):
            raise self._conflict(
                f"is at revision {', '.join(record.revisions)}, newer than this version"
            )
        wanted = (
            ()
            if self._target == "base"
            else (self._chain.head if self._target == "head" else known(self._chain, self._target),)
        )
        schema = self._checked_rights(reader)
        is_clear = self._begun(record) is None
        if wanted == record.revisions and (record.blueprint or not wanted) and is_clear:
            return Plan()
        return Plan(
            (*schema, Change(wanted[0] if wanted else "base", "stamp", "recorded, nothing else"))
        )

    def _steps(self) -> dict[str, Callable[[Change], str | None]]:
        return {**super()._steps(), "stamp": lambda change: self._ran(change, "stamp", change.name)}


def parsed_steps(target: str | int) -> str:
    """A target of `downgrade` in one form: `base`, a revision, or `-N`; a `ConfigurationError` for anything else."""
    text = str(target).strip()
    if re.fullmatch(r"-?\d+", text):
        return f"-{text.lstrip('-')}"
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise ConfigurationError(
            f"{text!r} is no target of a downgrade.",
            hint="Give a revision, base, or a number of steps.",
        )
    return text

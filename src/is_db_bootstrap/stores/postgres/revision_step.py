"""One step of Alembic: run, read back, and what is known of it when it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ChangeFailed,
    HalfDone,
    StoreUnavailable,
)
from is_db_bootstrap.guests import GuestFailed
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.postgres import begun
from is_db_bootstrap.stores.postgres.begun import WHAT_IS_KNOWN, Begun, Fate
from is_db_bootstrap.stores.postgres.errors import (
    NAME,
    DatabaseMissing,
    errors,
    rolled_back,
)
from is_db_bootstrap.stores.postgres.half_done import Watch
from is_db_bootstrap.stores.postgres.revisions import TABLE, Chain, Record, comment_statement, mark

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.postgres.history import History


class RevisionSteps:
    """Runs steps of Alembic in one schema.

    `reader` gives the session that looks, and `engine` the engine whose sessions do the work, which
    `watch` sees. `lock_timeout_s` bounds in seconds how long a mark waits for a table.
    """

    def __init__(
        self,
        reader: Callable[[], psycopg.Connection[Any]],
        engine: Callable[[], Engine],
        *,
        target: str,
        schema: str,
        blueprint: Blueprint,
        chain: Chain,
        history: History,
        watch: Watch,
        lock_timeout_s: float,
    ) -> None:
        self._reader = reader
        self._engine = engine
        self._target = target
        self._schema = schema
        self._blueprint = blueprint
        self._chain = chain
        self._history = history
        self._watch = watch
        self._lock_timeout_s = lock_timeout_s

    def run(self, change: Change, act: str, revision: str) -> str | None:
        """Let Alembic `upgrade`, `downgrade` or `stamp` to `revision`, and read that back."""
        self._watch.begun = None
        self._watch.earlier = None
        try:
            with errors(self._target, change=change):
                self._history.forget_ended()
                if act == "upgrade":
                    self._watch.earlier = self._history.retried(change.name)
                ran = self._run_alembic(change, act, revision)
        except BootstrapError as exc:
            if isinstance(exc, StoreUnavailable) and self._is_whole(act, change):
                ran = True  # only the answer to its commit was lost
            elif (known := self._left_behind()) in WHAT_IS_KNOWN:
                said = WHAT_IS_KNOWN[known].removeprefix("has ")
                raise self._half_done(
                    f"{said} and then failed: {exc.message}", act, change
                ) from exc
            else:
                raise
        if act == "stamp" and not ran:
            self._describe(revision)
            ran = True
        self._confirm_recorded(act, change)
        self._watch.forget()
        done = {"upgrade": "applied", "downgrade": "undone", "stamp": "recorded"}[act]
        return None if ran else f"Revision {change.name} was {done} by another session meanwhile."

    def _run_alembic(self, change: Change, act: str, revision: str) -> bool:
        """Whether Alembic did anything, on a session of its own that `cancel` finds."""
        from alembic.util import CommandError
        from sqlalchemy.exc import DBAPIError

        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic

        postgres_alembic.create_version_table(self._reader(), self._target, self._schema)
        run: Callable[..., bool] = getattr(postgres_alembic, act)
        try:
            return run(self._engine(), self._blueprint, self._schema, revision)
        except CommandError as exc:
            raise ChangeFailed(
                NAME, f"Alembic refused revision {change.name}: {exc}.", change=change
            ) from exc
        except (psycopg.Error, BootstrapError, DatabaseMissing):
            raise
        except GuestFailed as exc:
            raise self._failed_itself(change, exc) from exc
        except Exception as exc:
            if isinstance(exc, DBAPIError) and isinstance(exc.orig, psycopg.Error):
                raise
            raise self._failed_itself(change, GuestFailed(exc)) from exc

    def _describe(self, revision: str) -> None:
        """Write the comment of a record that says `revision` already.

        Alembic has no step for it, and so no callback.
        """
        lineage = self._chain.until([] if revision == "base" else [revision])
        reader = self._reader()
        comment = mark(self._blueprint.name, lineage)
        reader.execute(comment_statement(self._history.table, comment).encode())
        self._history.forget(reader)

    def _failed_itself(self, change: Change, failed: GuestFailed) -> ChangeFailed:
        return ChangeFailed(
            NAME,
            f"Revision {change.name} failed in its own code: {failed.general}.",
            change=change,
            hint=f"{rolled_back(change)} Correct the file and run again.",
            detail=failed.detail,
        )

    def _is_whole(self, act: str, change: Change) -> bool:
        """Whether an upgrade that stayed in its one transaction was committed with its record."""
        found = self._watch.begun
        if act != "upgrade" or found is None or found.outside_since is not None:
            return False
        if len(found.transactions) != 1:
            return False
        with suppress(BootstrapError, DatabaseMissing, psycopg.Error):
            reader = self._reader()
            known = begun.fate(reader, found, has_stopped=self._watch.has_stopped)
            recorded = self._history.read(reader).revisions
            known_here = [r for r in recorded if r in self._chain.parents]
            return known is Fate.COMMITTED and change.name in self._chain.until(known_here)
        return False

    def _left_behind(self) -> Fate:
        """What the step that failed has left, as the server knows it.

        What left nothing may run again.
        """
        found = self._watch.begun
        if found is None:
            return Fate.ROLLED_BACK
        try:
            with self._lock_patience(self._reader()) as reader:
                known = begun.fate(reader, found, has_stopped=self._watch.has_stopped)
                if known is Fate.ROLLED_BACK:
                    self._history.forget(reader)
                elif known is not Fate.AT_WORK:
                    self._history.mark(reader, found)
                return known
        except (BootstrapError, DatabaseMissing, psycopg.Error):
            # The next plan finds the mark, if there is one.
            return Fate.AT_WORK if found.outside_since is None else Fate.UNKNOWN

    @contextmanager
    def _lock_patience(self, reader: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
        """The session that looks, which waits for a table no longer than a revision does."""
        patience = f"{round(self._lock_timeout_s * 1000)}ms"
        change = "SELECT set_config('lock_timeout', %s, false)"
        reader.execute(change, [patience])
        try:
            yield reader
        finally:
            if not reader.closed:
                reader.execute(change, ["0"])

    def _half_done(self, what: str, act: str, change: Change) -> HalfDone:
        """The error of a step that must not be run again by itself."""
        hint = "Read what the schema records before anything is run again."
        with suppress(BootstrapError, DatabaseMissing):
            record = self._history.read(self._reader())
            hint = self._history.ways_out(act, change.name, record)
            if not self._history.unended(record):
                hint = (
                    "Its mark could not be written, so the next apply would run it again: do "
                    f"not apply before. {hint}"
                )
        return HalfDone(NAME, f"Revision {change.name} {what}", change=change, hint=hint)

    def _confirm_recorded(self, act: str, change: Change) -> None:
        """Read the record back from the session that did not write it: done is what it says."""
        record = self._history.read(self._reader())
        known = [r for r in record.revisions if r in self._chain.parents]
        is_applied = change.name in self._chain.until(known)
        recorded = {
            "upgrade": is_applied,
            "downgrade": not is_applied,
            "stamp": record.revisions == (() if change.name == "base" else (change.name,)),
        }[act]
        if recorded:
            if act == "stamp":
                self._confirm_lifted(change.name, record)
                self._confirm_lineage(record)
            return
        if act != "stamp":
            with suppress(psycopg.Error, BootstrapError):
                unknown = Begun(f"{act} {change.name}", outside_since=begun.FROM_THE_START)
                self._history.mark(self._reader(), self._watch.begun or unknown)
        says = ", ".join(record.revisions) or "nothing"
        raise self._half_done(
            f"ran to its end and is not recorded: {self._schema}.{TABLE} says {says}.", act, change
        )

    def _confirm_lifted(self, stamped: str, record: Record) -> None:
        """Read back that a stamp has lifted the mark of a half done step."""
        for found in self._history.unended(record):
            if begun.fate(self._reader(), found) in WHAT_IS_KNOWN:
                table = f"{self._schema}.{TABLE}"
                raise begun.staying_mark(self._reader(), found, stamped, table)

    def _confirm_lineage(self, record: Record) -> None:
        """Read back that a stamp has recorded what led to it; nobody may have recorded any."""
        if record.lineage and record.lineage != self._chain.until(record.revisions):
            table = f"{self._schema}.{TABLE}"
            raise AccessDenied(
                NAME,
                f"{table} records {', '.join(record.revisions)}, but its comment says still that "
                f"{', '.join(record.lineage)} led there, and only its owner may change that.",
                subject=table,
                hint=f"Stamp again as the owner of {table}.",
            )

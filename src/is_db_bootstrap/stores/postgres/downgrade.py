"""A move down the chain, which asks before rows are lost.

What would be lost is seen in a scratch database (`downgrade_trial`), and counted on the target
(`loss_count`). Each step is compared with its trial before it is committed (`downgrade_guard`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import psycopg

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change, Nature, Plan
from is_db_bootstrap.sentences import end_sentence
from is_db_bootstrap.stores.postgres.connection import SCRATCH, identifier
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors
from is_db_bootstrap.stores.postgres.loss_count import LossCount
from is_db_bootstrap.stores.postgres.moves import (
    Loss,
    Move,
    RowsWouldBeLost,
    end_of,
    undone_down_to,
)
from is_db_bootstrap.stores.postgres.named_revisions import is_simple

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.change_run import Step
    from is_db_bootstrap.stores.postgres.downgrade_guard import Guard, Unforeseen
    from is_db_bootstrap.stores.postgres.downgrade_look import Session
    from is_db_bootstrap.stores.postgres.downgrade_trial import Seen, Sessions
    from is_db_bootstrap.stores.postgres.revisions import Record

#: Seconds that a trial gets at least, however short `--timeout` is: a new database takes a few.
TRIAL_LEAST_S = 30.0
#: How often a step is run that does more than its trial has shown, as long as that costs no row.
_GUARDED_TRIES = 10
#: Which of given tables can be locked: not the server's own, nor a materialized view.
_LOCKABLE = """
    SELECT n.nspname::text, c.relname::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
      AND c.relkind IN ('r', 'p') AND n.nspname <> 'pg_catalog'
    ORDER BY 1, 2
"""
#: Why a step is asked about whose trial had shown a loss of what had no rows then.
_CAME_UP = "These rows came up after the rows had been counted; this step was rolled back."


class Downgrade(Move):
    """Down to `target`: `base`, a revision, or `-N` steps.

    Rows are dropped with their tables only if `drop_rows`.

    What would be lost is found out in a scratch database; rows of the target are only counted.
    """

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        target: str,
        *,
        timing: Timing,
        schema: str | None,
        drop_rows: bool,
        ignored_version_tables: Sequence[str] = (),
        unknown_is_ahead: bool = False,
    ) -> None:
        super().__init__(
            url,
            blueprint,
            target,
            timing=timing,
            schema=schema,
            ignored_version_tables=ignored_version_tables,
            unknown_is_ahead=unknown_is_ahead,
        )
        self._sessions.when_engine_made = self._guard_engine
        self._drop_rows = drop_rows
        self._tried: dict[tuple[tuple[str, ...], tuple[str, ...]], Seen | str] = {}
        self._trial_sessions: Sessions | None = None
        self._guard: Guard | None = None
        self._kept: tuple[str, ...] = ()
        self._undoing: tuple[str, ...] = ()
        self._over: list[str] = []

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._place.history.read(reader)
        if self._place.history.is_ahead(record):
            raise self._place.history.conflict(
                f"is at revision {', '.join(record.revisions)}, which this version does not know "
                "how to undo"
            )
        self._place.history.refuse_half_done(record)
        done = self._chain.until(record.revisions)
        undone = self._undone(record, done)
        notes: tuple[str, ...] = ()
        if undone:
            self._place.history.refuse_unread(record)
            notes = tuple(self._place.history.unmarked(reader))
        if undone and not self._drop_rows:
            self._undoing = tuple(undone)
            self._kept = tuple(r for r in done if r not in undone)
            seen = self._trial(done, self._undoing)
            losses = [] if isinstance(seen, str) else self._counted(reader, seen)
            unknown = list(self._unknown(seen))
            if isinstance(seen, str) or losses or unknown:
                raise RowsWouldBeLost(self.name, losses, unknown, to=self._to)
            self._guard = self._new_guard(seen)
            notes = (*notes, *self._also_gone(seen))
        return Plan(
            tuple(Change(r, "downgrade", self._chain.titles[r], Nature.ATOMIC) for r in undone),
            notes=notes,
        )

    def _undone(self, record: Record, done: Sequence[str]) -> list[str]:
        """The revisions to undo, the newest first."""
        if self._team is not None:
            return self._undone_by_alembic(record, done)
        is_plain = self._target == "base" or re.fullmatch(r"-\d+", self._target)
        if is_plain or is_simple(self._chain, self._target):
            return undone_down_to(self._target, self._chain, done, self.name)
        below = self._syntax.below(self._target, record.revisions)
        undone = [each for each in reversed(done) if each in below]
        kept = [each for each in done if each not in below]
        if len(self._chain.heads(kept)) > 1 and undone != list(reversed(done))[: len(undone)]:
            raise ConfigurationError(
                f"A downgrade to {self._target} would undo {', '.join(undone)} only, and leave "
                f"{', '.join(self._chain.heads(kept))}.",
                hint="Give a number of steps, or a revision from which all others go on.",
            )
        return undone

    def _undone_by_alembic(self, record: Record, done: Sequence[str]) -> list[str]:
        """What the stock command would undo, the newest first.

        It refuses steps that begin at a merge or lead through one. There it is the newest revision
        that is undone next. With several heads, the order of rows decides where it begins, so that
        is refused here.
        """
        is_number = re.fullmatch(r"-\d+", self._target)
        if is_number and len(record.revisions) > 1:
            raise StoreConflict(
                self.name,
                f"{self._place.history.place.shown} records {', '.join(record.revisions)}, so "
                f"{self._target} may begin at each of them.",
                hint="Name the branch, as in `migrate downgrade billing@-1`, or a revision.",
            )
        try:
            below = self._syntax.below(self._target, record.revisions)
        except StoreConflict:
            if not is_number:
                raise
            return undone_down_to(self._target, self._chain, done, self.name)
        return [each for each in reversed(done) if each in below]

    @property
    def _to(self) -> str:
        """Where the downgrade is to end, as a target of another one."""
        is_several = len(self._chain.heads(self._kept)) > 1
        if self._team is not None and is_several and not re.fullmatch(r"-\d+", self._target):
            return self._target
        return end_of(self._chain, self._kept, len(self._undoing) - len(self._over))

    def _more_steps(self) -> Mapping[str, Step]:
        return {"downgrade": self._apply_downgrade}

    def _apply_downgrade(self, change: Change) -> str | None:
        if self._guard is None:
            return self._place.revision_steps.run(change, "downgrade", change.name)
        guard = self._guard if self._team is not None else None
        from is_db_bootstrap.stores.postgres.downgrade_guard import Unforeseen

        self._guard.expect(change.name)
        for _ in range(_GUARDED_TRIES):
            try:
                remark = self._place.revision_steps.run(change, "downgrade", change.name, guard)
            except Unforeseen as exc:
                self._refuse_unforeseen(change, exc)
            else:
                self._over.append(change.name)
                return remark
        raise RowsWouldBeLost(
            self.name, [], [self._not_foreseen(change)], undone=self._over, to=self._to
        )

    def _refuse_unforeseen(self, change: Change, exc: Unforeseen) -> None:
        """Ask about what a step has done beyond its trial, unless it costs no row.

        The step was rolled back.
        """
        losses = self._counted(self._sessions.reader(), exc.seen)
        if losses or self._guard is None:
            unforeseen = [self._not_foreseen(change)]
            raise RowsWouldBeLost(self.name, losses, unforeseen, undone=self._over, to=self._to)
        self._guard.allow(exc)

    @staticmethod
    def _not_foreseen(change: Change) -> str:
        return (
            f"The trial of the downgrade of {change.name} had not shown it; this step was rolled "
            "back."
        )

    def _new_guard(self, seen: Seen) -> Guard:
        from is_db_bootstrap.stores.postgres.downgrade_guard import Guard

        return Guard(self.name, self._version_table(), seen, self._refuse_new_rows)

    def _version_table(self) -> tuple[str, str]:
        """Schema and name of the version table, as the target has it."""
        place = self._place.history.place
        if place.schema is not None:
            return place.schema, place.table
        row = self._sessions.reader().execute(place.schema_query.encode()).fetchone()
        return str(row[0]) if row else self._place.schema, place.table

    def _refuse_new_rows(self, session: Session, due: Seen) -> None:
        """Ask about rows of what a step is to lose, in the step's own transaction.

        The tables are locked first, as the step will lock them, so no row can come up afterwards.
        """
        columns = (*due.columns, *due.rewritten, *((name, of) for name, of, _ in due.retyped))
        tables = {*due.tables, *due.touched, *(name for name, _ in columns)}
        losses: Sequence[Loss] = ()
        if not isinstance(session, psycopg.Connection) and not session.sees_new_rows:
            why = (
                "Rows may come up meanwhile: the transactions of env.py do not see what others "
                "have committed (transaction_isolation)."
            )
            session.rollback()
            raise RowsWouldBeLost(self.name, losses, [why], undone=self._over, to=self._to)
        try:
            self._lock_tables(session, tables)
        except psycopg.errors.InsufficientPrivilege as exc:
            said = exc.diag.message_primary
            why = end_sentence(
                f"Rows may come up meanwhile, because a table cannot be locked: {said}"
            )
        else:
            losses = self._counted(session, due)
            why = _CAME_UP
            if not losses:
                return
        session.rollback()
        raise RowsWouldBeLost(self.name, losses, [why], undone=self._over, to=self._to)

    @staticmethod
    def _lock_tables(session: Session, tables: Collection[tuple[str, str]]) -> None:
        """Lock those of `tables` that can be locked; one that has gone is passed over."""
        if not tables:
            return
        columns = [list(column) for column in zip(*tables, strict=True)]
        found = session.execute(_LOCKABLE.encode(), columns).fetchall()
        names = ", ".join(identifier(*name) for name in found)
        if names:
            session.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE".encode())

    def _guard_engine(self, engine: Engine) -> None:
        if self._guard is not None:
            self._guard.attach(engine)

    def cancel(self) -> None:
        """From another thread: also the statement of a trial is ended, and its database goes."""
        if self._trial_sessions is not None:
            self._trial_sessions.cancel()
        super().cancel()

    def disconnect(self) -> str:
        """From another thread: drop the database of a trial that does not end, too."""
        from is_db_bootstrap.stores.postgres.scratch import drop_database

        if self._trial_sessions is not None and self._trial_sessions.database:
            drop_database(self._url, self._timing, self._trial_sessions.database)
        return super().disconnect()

    def _trial(self, done: tuple[str, ...], undone: tuple[str, ...]) -> Seen | str:
        """What the downgrade does in a scratch database; in words, why that could not be seen.

        It is tried once, although a run plans twice: the files are the same.
        """
        from is_db_bootstrap.stores.postgres import downgrade_trial

        if (done, undone) not in self._tried:
            limit_s = max(self._timing.timeout_s, TRIAL_LEAST_S)
            sessions = downgrade_trial.Sessions(self._timing.connect_timeout_s)
            self._trial_sessions = sessions
            timer = threading.Timer(limit_s, sessions.cancel)
            timer.daemon = True
            timer.start()
            try:
                with errors(self.target, f"the trial of a downgrade of {', '.join(undone)}"):
                    found: Seen | str = downgrade_trial.tried(
                        self._url,
                        self._blueprint,
                        self._place.schema,
                        self._timing,
                        done=done,
                        undone=undone,
                        sessions=sessions,
                        version_table=self._table_of_trial,
                    )
            except Exception as exc:
                if self._sessions.has_ended():
                    raise
                found = self._why_untried(exc, limit_s if sessions.ended else None)
            finally:
                timer.cancel()
            self._tried[done, undone] = found
        return self._tried[done, undone]

    @property
    def _table_of_trial(self) -> tuple[str, str]:
        """Schema and name of the version table, as a scratch database has it."""
        place = self._place.history.place
        return place.schema or self._place.schema, place.table

    def _why_untried(self, exc: Exception, ended_after_s: float | None) -> str:
        """Why there was no trial, in words. Raises `exc` when the server cannot be worked with."""
        if ended_after_s is not None:
            return f"its trial in a scratch database did not end within {ended_after_s:g} s."
        if isinstance(exc, StoreUnavailable):
            raise exc
        if isinstance(exc, AccessDenied):
            return f"no scratch database could be made for a trial: {self._refusal(exc)}"
        if isinstance(exc, BootstrapError | DatabaseMissing):
            return f"the trial in a scratch database failed: {getattr(exc, 'message', exc)}"
        return end_sentence(f"the trial in a scratch database failed: {type(exc).__name__}: {exc}")

    def _refusal(self, exc: AccessDenied) -> str:
        """Why there is no scratch database, without a name that nobody is to create."""
        if exc.subject.startswith(SCRATCH):
            return f"the role {self._url.username} may not create databases (CREATEDB)."
        return exc.message

    def _unknown(self, seen: Seen | str) -> Iterator[str]:
        if isinstance(seen, str):
            yield f"Whether the downgrade would lose rows is not known: {seen}"
            return
        if seen.left:
            yield (
                f"The downgrade of {', '.join(seen.left)} leaves its transaction, so a failure "
                "in it would leave half of it done."
            )
        if seen.beside:
            yield (
                f"The downgrade of {', '.join(seen.beside)} works on a further connection, "
                "so what it does there to rows is not known, and is not rolled back with it."
            )

    @staticmethod
    def _also_gone(seen: Seen | str) -> tuple[str, ...]:
        if isinstance(seen, str) or not seen.objects:
            return ()
        return (f"The downgrade also drops {', '.join(seen.objects)}.",)

    def _counted(self, reader: Session, seen: Seen) -> list[Loss]:
        """Which of what the trial has seen holds rows on the target, or may hold some."""
        return LossCount(self.target, self._place.schema).losses(reader, seen)

"""One step of Alembic: run, read back, and what is known of it when it failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.engine.store import MadeByOther
from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ChangeFailed,
    HalfDone,
    Interrupted,
    StoreBusy,
    StoreUnavailable,
)
from is_db_bootstrap.guests import GuestFailed, place_of
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.postgres import begun, lineage_table
from is_db_bootstrap.stores.postgres.begun import WHAT_IS_KNOWN, Begun, Fate
from is_db_bootstrap.stores.postgres.concurrent_index import asking, invalid_index
from is_db_bootstrap.stores.postgres.errors import (
    NAME,
    DatabaseMissing,
    errors,
    made_meanwhile,
    rolled_back,
    translated,
)
from is_db_bootstrap.stores.postgres.half_done import Watch
from is_db_bootstrap.stores.postgres.revisions import Chain, Record
from is_db_bootstrap.stores.postgres.search_path import Found, leads_nowhere

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.store import Progress
    from is_db_bootstrap.stores.postgres.downgrade_run import StepGuard
    from is_db_bootstrap.stores.postgres.history import History
    from is_db_bootstrap.stores.postgres.team_watch import TeamWatch
    from is_db_bootstrap.stores.postgres.upgrade_run import UpgradeRun

#: How often a run of Alembic is begun anew because another session changes what is recorded.
_MOST_RUNS = 10
#: What the server says where a table is to be made and the search path leads to no schema.
_NO_SCHEMA = "3F000"


class _AnswerLost(Exception):
    """A revision was committed with its record. Only the answer to its commit was lost."""


class RevisionSteps:
    """Runs steps of Alembic in one schema.

    `reader` gives the session that looks, and `engine` the engine whose sessions do the work, which
    `watch` sees. `lock_timeout_s` bounds in seconds how long a mark waits for a table.
    `run_by_team` runs the team's own environment, where there is one.
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
        watch: Watch | TeamWatch,
        lock_timeout_s: float,
        run_by_team: Callable[[UpgradeRun], None] | None = None,
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
        self._run_by_team = run_by_team
        #: Whether a step was committed and is being read back.
        self._is_confirming = False
        #: Whether this run has written which revisions it is about to lead to.
        self._has_planned = False
        #: What was said where another session has made a table or a schema first.
        self._races: set[str] = set()

    # --- several revisions

    def upgrade(self, changes: Sequence[Change], progress: Progress) -> None:
        """Apply revisions in one run of Alembic, and tell `progress` of each.

        The run is begun anew when another session has changed what is recorded. What that one has
        applied is recognised. It is also begun anew after a revision that was committed with its
        record, and whose commit was not answered because the connection was lost.
        """
        from is_db_bootstrap.stores.postgres.upgrade_run import MovedOn, UpgradeRun

        self._watch.begun = None
        self._watch.earlier = None
        self._is_confirming = False
        self._races.clear()
        self._has_planned = False
        left = {change.name: change for change in changes}
        following = _Following(progress, left)
        for _ in range(_MOST_RUNS):
            run = UpgradeRun(
                self._chain,
                tuple(left.values()),
                following,
                plan=self._plan_lineage,
                before=self._before_upgrade,
                confirm=self._confirm_applied,
            )
            try:
                self._run_once(run, next(iter(left.values())))
            except MovedOn:
                if left:
                    continue
            except _AnswerLost:
                run.confirm_committed()
                if left:
                    continue
            except (Interrupted, StoreUnavailable):
                raise  # the plan says what led to the recorded revisions
            except BootstrapError as exc:
                exc.message += self._reached_lineage()
                raise
            self._reach_lineage()
            return
        raise self._restless(next(iter(left)))

    def _plan_lineage(self, revisions: Sequence[str]) -> None:
        """Write which revisions this run is about to lead to, before it begins."""
        with errors(self._target, lineage_table.PLACE):
            self._history.write_plan(self._reader(), revisions)
        self._has_planned = True

    def _is_lineage_planned(self) -> bool:
        """Whether no step has to write what led to it. A comment is kept true with each step."""
        plan = self._history.plan
        return self._has_planned and bool(plan.revisions) and not plan.has_comment

    def _reach_lineage(self) -> None:
        """Write what led to the recorded revisions, after a run that has applied all changes."""
        planned = self._history.plan.revisions
        is_in_order = planned == self._chain.until(self._chain.heads(planned))
        if not (is_in_order and self._is_lineage_planned() and self._reach_plan()):
            self._write_reached()

    def _reach_plan(self) -> bool:
        """Let the plan become what led to the recorded revisions. Returns whether it was there."""
        return self._history.plan.reach(self._reader())

    def complete_left_lineage(self) -> None:
        """Write what led to the recorded revisions, where a run that was killed left its plan.

        The lock is held, so no other run is about to do it. The plan of newer code is left as it
        is, because only newer code knows what led there.
        """
        record = self._history.read(self._reader())
        is_known = all(revision in self._chain.parents for revision in record.revisions)
        if record.has_plan and record.revisions and is_known:
            self._write_reached()

    def _write_reached(self) -> None:
        """Read what is recorded, and write what led there."""
        reader = self._reader()
        record = self._history.read(reader)
        self._complete_lineage(record)
        if record.has_plan:
            if not record.revisions:
                self._history.record_lineage(reader, ())
            self._history.plan.forget(reader)

    def _reached_lineage(self) -> str:
        """Write the same after a run that has failed. Returns a sentence if that fails, too."""
        if not self._has_planned:
            return ""
        try:
            with self._lock_patience(self._reader()):
                self._write_reached()
        except (BootstrapError, DatabaseMissing, psycopg.Error) as exc:
            said = " ".join(str(exc).split())
            return (
                f" Which revisions led to the recorded ones could not be written to "
                f"{lineage_table.PLACE}: {said} The next apply writes them."
            )
        return ""

    def _run_once(self, run: UpgradeRun, first: Change) -> None:
        """Run Alembic once. Its errors name the change that ran, or `first`."""
        try:
            with self._failing(lambda: run.current or first, "upgrade"):
                with errors(self._target, change=first):
                    self._history.forget_ended()
                with self._alembic_errors(lambda: run.current or first):
                    self._run_all(run, first)
        except BootstrapError as exc:
            if run.uncommitted:
                exc.message += self._told_of_others(run)
            raise

    def _told_of_others(self, run: UpgradeRun) -> str:
        """What became of the revisions that share a transaction with one that has failed.

        The one that failed may have committed that transaction, so the server is asked. What it
        records is told as done.
        """
        is_known = False
        with (
            suppress(BootstrapError, DatabaseMissing, psycopg.Error),
            self._lock_patience(self._reader()) as reader,
        ):
            record = self._history.read(reader)
            found = self._watch.begun
            stopped = self._watch.has_stopped
            at_work = found and begun.fate(reader, found, has_stopped=stopped) is Fate.AT_WORK
            is_known = not at_work
            known = [r for r in record.revisions if r in self._chain.parents]
            if run.tell_recorded(self._chain.until(known)):
                self._complete_lineage(record)
        others = [each.name for each in run.uncommitted if each != run.current]
        if not others:
            return ""
        names = ", ".join(others)
        if not is_known:
            return (
                f" {names} ran in the same transaction, and whether it is committed is not known."
            )
        are = "it is" if len(others) == 1 else "they are"
        return f" {names} ran in the same transaction, so {are} undone as well."

    def _run_all(self, run: UpgradeRun, first: Change) -> None:
        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic
        from is_db_bootstrap.stores.postgres.kept_scripts import script_of
        from is_db_bootstrap.stores.postgres.upgrade_run import MovedOn

        if self._run_by_team is not None:
            try:
                self._run_by_team(run)
            except (BootstrapError, DatabaseMissing, MovedOn):
                raise
            except Exception as exc:
                if run.has_started:
                    raise
                if self._is_new_race(exc):
                    raise MovedOn from exc
                raise self._failed_before(exc, first) from exc
            return
        postgres_alembic.create_version_table(self._reader(), self._target, self._history.place)
        with self._engine().connect() as connection:
            wanted = postgres_alembic.config(self._blueprint, self._schema, connection)
            wanted.attributes["chain"] = self._chain
            wanted.attributes["is_lineage_planned"] = self._is_lineage_planned
            run.run(wanted, script_of(wanted, self._chain))

    def _failed_before(self, exc: Exception, first: Change) -> BootstrapError:
        """The error of an `env.py` that has failed before it ran its `first` revision."""
        from alembic.util import CommandError

        hint = "None of its revisions was begun. Correct env.py and run again."
        cause = getattr(exc, "orig", exc)
        if isinstance(cause, psycopg.Error):
            statement = str(getattr(exc, "statement", None) or "")
            error = translated(cause, self._target, "env.py", first, statement)
            if not isinstance(error, ChangeFailed):
                return error
            said, detail = error.message.partition(": ")[2].removesuffix("."), error.detail
            said += place_of(exc)
            path = Found.by(self._reader())
            if cause.sqlstate == _NO_SCHEMA and not path.schemas:
                nowhere = leads_nowhere(path)
                said = nowhere.message.partition(": ")[2].removesuffix(".")
                hint = f"None of its revisions was begun. {nowhere.hint}"
        elif isinstance(exc, CommandError):
            said, detail = f"Alembic says: {exc}{place_of(exc)}", ""
        else:
            failed = exc if isinstance(exc, GuestFailed) else GuestFailed(exc)
            said, detail = failed.general, failed.detail
        message = f"env.py failed before its first revision: {said}."
        return ChangeFailed(NAME, message, change=first, hint=hint, detail=detail)

    def _is_new_race(self, exc: Exception) -> bool:
        """Whether another session has made what `env.py` was about to make before its revisions.

        That is the version table, or its schema. `CREATE` waits for that session and fails then.
        What fails twice in the same words is no race: it is a fault of `env.py`.
        """
        cause = getattr(exc, "orig", exc)
        words = made_meanwhile(cause) if isinstance(cause, psycopg.Error) else ""
        if not words or words in self._races:
            return False
        self._races.add(words)
        return True

    def _before_upgrade(self, change: Change) -> None:
        """What is looked at before a revision begins."""
        self._watch.earlier = self._history.retried(change.name)

    def _confirm_applied(self, changes: Sequence[Change], heads: Collection[str]) -> None:
        """Read back that these revisions are recorded, from a session that did not write them."""
        self._is_confirming = True
        recorded: frozenset[str] | None = None
        with suppress(psycopg.Error):  # a session that was lost is opened again below
            recorded = self._watch.forget_recorded(heads)
            if recorded is None:
                recorded = self._history.recorded(self._reader())
        if recorded != frozenset(heads):
            for change in changes:
                self._confirm_recorded("upgrade", change)
        self._watch.forget()
        self._is_confirming = False

    # --- one step

    def run(
        self, change: Change, act: str, revision: str, guard: StepGuard | None = None
    ) -> str | None:
        """Let Alembic `downgrade` or `stamp` to `revision`, and read that back.

        `guard` looks at a downgrade by the team's own environment, before it is committed.
        """
        self._watch.begun = None
        self._watch.earlier = None
        self._is_confirming = False
        with self._failing(lambda: change, act), errors(self._target, change=change):
            self._history.forget_ended()
            if self._run_by_team is not None and act == "downgrade":
                ran = self._downgrade_by_team(self._run_by_team, change, guard)
            else:
                ran = self._run_alembic(change, act, revision)
        if act == "stamp" and not ran:
            self._describe(revision)
            ran = True
        self._confirm_recorded(act, change)
        self._watch.forget()
        done = {"downgrade": "undone", "stamp": "recorded"}[act]
        if ran:
            return None
        return MadeByOther(f"Revision {change.name} was {done} by another session meanwhile.")

    def _downgrade_by_team(
        self, run_by_team: Callable[[UpgradeRun], None], change: Change, guard: StepGuard | None
    ) -> bool:
        """Whether the team's own environment has undone a revision."""
        from is_db_bootstrap.stores.postgres.downgrade_run import DowngradeRun
        from is_db_bootstrap.stores.postgres.upgrade_run import MovedOn

        for _ in range(_MOST_RUNS):
            remarks: list[str] = []
            run = DowngradeRun(self._chain, change, _Remarks(remarks), guard)
            try:
                with self._alembic_errors(lambda: change):
                    run_by_team(run)
            except MovedOn:
                continue
            # The team's env.py knows nothing of it.
            left = self._history.read(self._reader()).revisions
            self._history.record_lineage(self._reader(), self._chain.until(left))
            return not remarks
        raise self._restless(change.name)

    def _restless(self, subject: str) -> StoreBusy:
        return StoreBusy(
            NAME,
            f"Another session goes on changing {self._history.place.shown}.",
            hint="Wait until it has ended, or end it (pg_stat_activity).",
            subject=subject,
        )

    @contextmanager
    def _failing(self, change: Callable[[], Change], act: str) -> Iterator[None]:
        """Find out what a step that fails has left, which may be more than nothing."""
        try:
            yield
        except (Interrupted, HalfDone):
            raise
        except BootstrapError as exc:
            if self._is_confirming:
                raise  # it was committed, and cannot be read back
            if isinstance(exc, StoreUnavailable) and self._is_whole(act, change()):
                raise _AnswerLost from exc
            if (known := self._left_behind()) in WHAT_IS_KNOWN:
                said = WHAT_IS_KNOWN[known].removeprefix("has ")
                raise self._half_done(
                    f"{said} and then failed: {exc.message}", act, change()
                ) from exc
            raise

    def _run_alembic(self, change: Change, act: str, revision: str) -> bool:
        """Whether Alembic did anything, on a session of its own that `cancel` finds."""
        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic

        postgres_alembic.create_version_table(self._reader(), self._target, self._history.place)
        run: Callable[..., bool] = getattr(postgres_alembic, act)
        with self._alembic_errors(lambda: change):
            return run(self._engine(), self._blueprint, self._schema, revision)

    @contextmanager
    def _alembic_errors(self, running: Callable[[], Change]) -> Iterator[None]:
        """Translate what Alembic and the code of the change that is `running` raise."""
        from alembic.util import CommandError
        from sqlalchemy.exc import DBAPIError

        from is_db_bootstrap.stores.postgres.upgrade_run import MovedOn

        try:
            yield
        except CommandError as exc:
            change = running()
            raise ChangeFailed(
                NAME, f"Alembic refused revision {change.name}: {exc}.", change=change
            ) from exc
        except psycopg.Error:
            with errors(self._target, change=running()):
                raise
        except (BootstrapError, DatabaseMissing, MovedOn):
            raise
        except GuestFailed as exc:
            raise self._failed_itself(running(), exc) from exc
        except Exception as exc:
            if isinstance(exc, DBAPIError) and isinstance(exc.orig, psycopg.Error):
                with errors(self._target, change=running()):
                    raise
            raise self._failed_itself(running(), GuestFailed(exc)) from exc

    def _describe(self, revision: str) -> None:
        """Write what led to `revision`, which is recorded already.

        Alembic has no step for it, and so no callback.
        """
        lineage = self._chain.until([] if revision == "base" else [revision])
        reader = self._reader()
        self._history.record_lineage(reader, lineage, lineage)
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
        message = f"Revision {change.name} {what}{self._what_stands()}{self._left_invalid()}"
        return HalfDone(NAME, message, change=change, hint=hint)

    def _what_stands(self) -> str:
        """A sentence about the statements that the step has committed one by one."""
        shown = self._watch.committed
        if not shown:
            return ""
        more = self._watch.committed_count - len(shown)
        told = "; ".join(shown) + (f", and {more} more" if more else "")
        return f" Outside of its transaction it had run: {told}."

    def _left_invalid(self) -> str:
        """A sentence about the index that the step has left unfinished, if there is one."""
        work = self._watch.concurrent
        if work is None or work.unfinished is None or not work.unfinished.index:
            return ""
        with suppress(BootstrapError, DatabaseMissing, psycopg.Error):
            found = invalid_index(work.unfinished, asking(self._reader()))
            if found is not None:
                return (
                    f" It has left index {found.name} INVALID, which --retry drops and builds "
                    "again."
                )
        return ""

    def confirm_stamped(self, change: Change) -> None:
        """Read back that a stamp, which was made by other means than Alembic, is recorded."""
        self._confirm_recorded("stamp", change)

    def _confirm_recorded(self, act: str, change: Change) -> None:
        """Read the record back from the session that did not write it: done is what it says."""
        record = self._history.read(self._reader())
        known = [r for r in record.revisions if r in self._chain.parents]
        is_applied = change.name in self._chain.until(known)
        recorded = {
            "upgrade": is_applied,
            "downgrade": not is_applied,
            "stamp": (", ".join(record.revisions) or "base") == change.name,
        }[act]
        if recorded:
            if act == "stamp":
                self._confirm_lifted(change.name, record)
                self._confirm_lineage(record)
            else:
                self._complete_lineage(record)
            return
        if act != "stamp":
            with suppress(psycopg.Error, BootstrapError):
                unknown = Begun(f"{act} {change.name}", outside_since=begun.FROM_THE_START)
                self._history.mark(self._reader(), self._watch.begun or unknown)
        says = ", ".join(record.revisions) or "nothing"
        raise self._half_done(
            f"ran to its end and is not recorded: {self._history.place.shown} says {says}.",
            act,
            change,
        )

    def _complete_lineage(self, record: Record) -> None:
        """Write what led to the recorded revisions, unless the step has written it into our table.

        The step could not when it went on under a role that may not.
        """
        is_known = all(revision in self._chain.parents for revision in record.revisions)
        lineage = self._chain.until(record.revisions) if is_known else ()
        is_written = lineage == record.lineage and not (record.in_comment or record.has_plan)
        if lineage and not is_written:
            self._history.record_lineage(self._reader(), lineage)

    def _confirm_lifted(self, stamped: str, record: Record) -> None:
        """Read back that a stamp has lifted the mark of a half done step."""
        for found in self._history.unended(record):
            if begun.fate(self._reader(), found) in WHAT_IS_KNOWN:
                table = self._history.place.shown
                raise begun.staying_mark(self._reader(), found, stamped, table)

    def _confirm_lineage(self, record: Record) -> None:
        """Read back that a stamp has recorded what led to it; nobody may have recorded any."""
        if record.lineage and record.lineage != self._chain.until(record.revisions):
            table = self._history.place.shown
            owned = table if record.in_comment else lineage_table.PLACE
            where = "its comment" if record.in_comment else owned
            raise AccessDenied(
                NAME,
                f"{table} records {', '.join(record.revisions)}, but {where} says still that "
                f"{', '.join(record.lineage)} led there, and this role may not change that.",
                subject=table,
                hint=f"Stamp again as the owner of {owned}.",
            )


class _Remarks:
    """Keeps what is said of a change, which nobody follows."""

    def __init__(self, remarks: list[str]) -> None:
        self._remarks = remarks

    def begin(self, change: Change) -> None:
        """A change begins."""

    def ran(self, change: Change) -> None:
        """A change ran, in a transaction that is still open."""

    def done(self, _: Change, remark: str | None = None) -> None:
        """A change has ended."""
        if remark:
            self._remarks.append(remark)


class _Following:
    """Passes on what is told of changes, and keeps those that are `left`."""

    def __init__(self, progress: Progress, left: dict[str, Change]) -> None:
        self._progress = progress
        self._left = left

    def begin(self, change: Change) -> None:
        """A change begins."""
        self._progress.begin(change)

    def ran(self, change: Change) -> None:
        """A change ran, in a transaction that is still open."""
        self._progress.ran(change)

    def done(self, change: Change, remark: str | None = None) -> None:
        """A change was read back as recorded."""
        del self._left[change.name]
        self._progress.done(change, remark)

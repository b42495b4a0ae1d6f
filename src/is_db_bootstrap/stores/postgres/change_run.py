"""Taking the steps of a plan, each by its kind, and what is said when one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import BootstrapError, HalfDone, Interrupted, StoreUnavailable
from is_db_bootstrap.stores.postgres.database import create_schema
from is_db_bootstrap.stores.postgres.errors import NAME, DatabaseMissing, errors, rolled_back

if TYPE_CHECKING:
    from is_db_bootstrap.engine.store import Progress
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.seed import DemoRows
    from is_db_bootstrap.stores.postgres.workplace import Workplace

#: What takes one step. It returns a remark for the report, or None.
Step = Callable[["Change"], str | None]


class ChangeRun:
    """Takes the steps of `place`. `more` takes those of further kinds."""

    def __init__(
        self,
        sessions: RunSessions,
        place: Workplace,
        rows: DemoRows,
        more: Mapping[str, Step],
    ) -> None:
        self._sessions = sessions
        self._place = place
        self._rows = rows
        self._steps: Mapping[str, Step] = {
            "schema": self._create_schema,
            "baseline": self._fill_by_baseline,
            "revision": self._upgrade,
            "seed": self._insert_row,
            **more,
        }

    def apply(self, change: Change) -> str | None:
        """Take one step. Raises as the bootstrapper's `apply` does."""
        with self.changing(lambda: change):
            return self._steps[change.kind](change)

    def apply_together(self, changes: Sequence[Change], progress: Progress) -> None:
        """Apply revisions in one run of Alembic.

        Raises as `apply` does. Revisions whose transaction was committed are told as done before.
        """
        told = Told(changes[0], progress)
        try:
            with self.changing(lambda: told.current):
                self._place.revision_steps.upgrade(changes, told)
        except BootstrapError as exc:
            if told.refusal not in {None, exc}:
                raise told.refusal from exc
            raise

    def repair(self, change: Change) -> str | None:
        """Make what is missing, by the statements of the change."""
        from is_db_bootstrap.stores.postgres.repairs import run

        with self.changing(lambda: change), self._sessions.roles.working() as session:
            self._sessions.note_working(session)
            return run(session, change)

    @contextmanager
    def changing(self, current: Callable[[], Change]) -> Iterator[None]:
        """While inside, this thread changes something, and failures are told of `current`."""
        self._sessions.changing_in = threading.get_ident()
        try:
            try:
                yield
            except Exception:
                with errors(self._sessions.target, change=current()):
                    raise
        except HalfDone as exc:
            self._tell_limits(exc)
            raise
        except Interrupted:
            raise
        except BootstrapError as exc:
            self._tell_limits(exc)
            if self._sessions.has_ended():
                change = current()
                raise StoreUnavailable(
                    NAME,
                    f"{change.kind} {change.name} was cancelled. {rolled_back(change)}",
                    subject=change.name,
                    hint="Run again.",
                ) from exc
            raise
        except DatabaseMissing as exc:
            raise StoreUnavailable(
                NAME,
                f"Database {self._sessions.url.database} has vanished.",
                hint="Run again.",
            ) from exc

    def _tell_limits(self, failure: BootstrapError) -> None:
        """Add to a failure that a limit of the server holds in a connection of `env.py`."""
        team = self._place.team
        if team and not self._sessions.has_ended():
            failure.message += team.connections.told_limits(failure)

    # --- steps by their kind

    def _create_schema(self, change: Change) -> None:
        create_schema(self._sessions.reader(), change.name)

    def _fill_by_baseline(self, _: Change) -> None:
        if self._place.baseline is not None:
            self._place.baseline.run()

    def _upgrade(self, change: Change) -> str | None:
        told = Told(change)
        self._place.revision_steps.upgrade([change], told)
        return next(iter(told.remarks), None)

    def _insert_row(self, change: Change) -> None:
        self._rows.insert(self._sessions.reader(), change.name)


class Told:
    """What is told of changes that are made together, and passed on if somebody listens."""

    def __init__(self, first: Change, progress: Progress | None = None) -> None:
        self.current = first
        self.remarks: list[str] = []
        #: Why the engine lets no further change begin.
        self.refusal: BootstrapError | None = None
        self._progress = progress

    def begin(self, change: Change) -> None:
        """A change begins, if the engine lets it."""
        self.current = change
        if self._progress is None:
            return
        try:
            self._progress.begin(change)
        except BootstrapError as exc:
            self.refusal = exc
            raise

    def ran(self, change: Change) -> None:
        """A change ran, in a transaction that is still open."""
        if self._progress is not None:
            self._progress.ran(change)

    def done(self, change: Change, remark: str | None = None) -> None:
        """A change was read back as recorded."""
        if remark:
            self.remarks.append(remark)
        if self._progress is not None:
            self._progress.done(change, remark)

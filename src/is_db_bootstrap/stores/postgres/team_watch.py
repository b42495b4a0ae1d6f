"""What is seen of a team's revision while it runs, whatever its driver is.

The number of the transaction in which a step begins is written down before the step runs
(`begun`). The server knows what has become of it, also when the step ends it by a COMMIT in its
text. What SQLAlchemy is asked to commit, or to run outside of a transaction, is written down before
it happens, on every connection. Not seen is a step that rolls its transaction back as text, commits
another one, and fails or dies then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from is_db_bootstrap.stores.postgres.begun import FROM_NOW, Begun, Marks
from is_db_bootstrap.stores.postgres.half_done import StepWatch

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBER = "SELECT pg_current_xact_id()::text"


class TeamWatch(StepWatch):
    """What is known of the step that runs. `begun` is what was written of it, or of the last one.

    `earlier` is the mark of an earlier try of the step that is to run.
    """

    def __init__(self, marks: Marks | None) -> None:
        super().__init__()
        self.begun: Begun | None = None
        self.earlier: Begun | None = None
        self._marks = marks
        self._ours = False

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """While inside, commits and statements of every engine are seen."""
        heard: tuple[tuple[str, Callable[..., None]], ...] = (
            ("commit", self._before_commit),
            ("before_cursor_execute", self._before_statement),
        )
        for name, function in heard:
            event.listen(Engine, name, function)
        try:
            yield
        finally:
            for name, function in heard:
                event.remove(Engine, name, function)

    def begin(self, step: str, connection: Connection) -> None:
        """Write down the transaction in which a step is about to run."""
        self.begun = None
        if not connection.in_transaction() or _commits_each(connection):
            self._write(Begun(step, (), FROM_NOW))
            return
        number = int(connection.exec_driver_sql(_NUMBER).scalar_one())
        self._write(Begun(step, (number,)))

    def _before_commit(self, _: Connection) -> None:
        self._go_outside()

    def _before_statement(self, connection: Connection, *_: Any) -> None:
        if self.step and not self._is_outside and _commits_each(connection):
            self._go_outside()

    def _go_outside(self) -> None:
        """Write down that from now on anything may be committed."""
        if self.step and not self._is_outside:
            known = self.begun or Begun(self.step)
            self._write(replace(known, outside_since=FROM_NOW))

    @property
    def _is_outside(self) -> bool:
        return self.begun is not None and self.begun.outside_since is not None

    def _write(self, wanted: Begun) -> None:
        earlier = self.earlier
        is_retry = earlier is not None and earlier.step == wanted.step
        if earlier is not None and is_retry:
            wanted = replace(wanted, transactions=(*earlier.transactions, *wanted.transactions))
            if earlier.outside_since is not None:
                wanted = replace(wanted, outside_since=earlier.outside_since)
        if self._marks is None or not self._marks.in_rows:
            self.begun = wanted
            return
        is_first = self.begun is None and not is_retry
        write = self._marks.begin if is_first else self._marks.change
        self.begun = write(wanted)

    @property
    def has_stopped(self) -> bool:
        """Whether nothing of the step is known to run any more. Of other drivers, nobody knows."""
        return False

    def forget(self) -> None:
        """Delete the row that was written last: its step was read back as recorded."""
        if self.begun is not None and self._marks is not None:
            self._marks.forget(self.begun)


def _commits_each(connection: Connection) -> bool:
    """Whether the driver commits each statement by itself."""
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))

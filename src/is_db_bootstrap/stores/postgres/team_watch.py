"""What is seen of a team's revision while it runs, whatever its driver is.

Before the first statement of a step in a transaction, the number of that transaction is written
down (`begun`). So the server knows what has become of it, also when the step ends it by a COMMIT in
its text. What SQLAlchemy is asked to commit, or to run outside of a transaction, is written down
before it happens, on the connections of every engine. Not seen is a step that rolls its transaction
back as text, commits another one, and fails or dies then, nor what it does through a driver itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from is_db_bootstrap.stores.postgres.begun import FROM_NOW, Begun, Marks
from is_db_bootstrap.stores.postgres.concurrent_index import (
    ConcurrentStatement,
    ConcurrentWork,
)
from is_db_bootstrap.stores.postgres.guest_threads import GuestThreads
from is_db_bootstrap.stores.postgres.half_done import MarkingWatch, commits_each

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RootTransaction

_NUMBER = "SELECT pg_current_xact_id()::text"


class TeamWatch(MarkingWatch):
    """What is known of the step that runs, on all connections of all engines."""

    def __init__(self, marks: Marks | None) -> None:
        super().__init__(marks)
        self._transactions: dict[RootTransaction, int] = {}
        self._is_asking = False
        #: What builds indexes while others write, and the session that waits for them just now.
        self.concurrent = ConcurrentWork(marks.lock_timeout_s) if marks else None
        self._patient: Connection | None = None

    def name_ahead(self, transaction: Any, number: int) -> None:
        """Note the number of a transaction, which was asked for before a step runs in it."""
        if transaction is not None:
            self._transactions[transaction] = number

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """While inside, commits and statements are seen."""
        threads = GuestThreads()

        def commit(_: Connection) -> None:
            if threads.is_here():
                self._before_commit()

        def statement(connection: Connection, _: Any, text: str, *__: Any) -> None:
            if threads.is_here():
                self._before_statement(connection, text)

        def ended(connection: Connection, _: Any, text: str, *__: Any) -> None:
            if threads.is_here() and not self._is_asking:
                self._after_statement(connection, text)

        heard: tuple[tuple[str, Callable[..., None]], ...] = (
            ("commit", commit),
            ("before_cursor_execute", statement),
            ("after_cursor_execute", ended),
        )
        for name, function in heard:
            event.listen(Engine, name, function)
        try:
            yield
        finally:
            for name, function in heard:
                event.remove(Engine, name, function)

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """While `step` (`upgrade b2`) runs."""
        self.begun = None
        # What an earlier step has sent in an open transaction is committed or lost with this one.
        still_open = {t: number for t, number in self._transactions.items() if t.is_active}
        self._transactions = still_open
        with super().running(step):
            yield

    def _before_commit(self) -> None:
        if self.step and self.begun is not None:
            self._go_outside()

    def _before_statement(self, connection: Connection, text: str) -> None:
        if not self.step or self._is_asking:
            return
        self._limit_again(connection)  # of a statement that failed
        statement = ConcurrentStatement.of(text) if commits_each(connection) else None
        if statement is None or self.concurrent is None:
            self._look_at(connection)
            return
        ask = partial(self._ask, connection)
        is_retry = self.earlier is not None and self.earlier.step == self.step
        if self.concurrent.lift(ask):
            self._patient = connection
        self.concurrent.prepare(statement, ask, is_retry=is_retry)
        self._look_at(connection)
        self.concurrent.unfinished = statement

    def _limit_again(self, connection: Connection) -> None:
        """Bound again how long the next statements of a session wait for a lock."""
        if self._is_asking:
            return
        if self.concurrent is not None and self._patient is connection:
            self._patient = None
            with suppress(DBAPIError):
                self.concurrent.limit_again(partial(self._ask, connection))

    def _after_statement(self, connection: Connection, text: str) -> None:
        """A statement has ended well."""
        self._limit_again(connection)
        if self.concurrent is not None:
            self.concurrent.unfinished = None
        if self.step and commits_each(connection):
            self.note_committed(text)

    def _ask(self, connection: Connection, query: str) -> str:
        """The only value of the only row of a query of ours."""
        self._is_asking = True
        try:
            found = connection.exec_driver_sql(query)
            return str(found.scalar() or "") if found.returns_rows else ""
        finally:
            self._is_asking = False

    def _look_at(self, connection: Connection) -> None:
        if self._is_outside:
            return
        transaction = connection.get_transaction()
        if transaction is None or commits_each(connection):
            self._go_outside()
            return
        if transaction not in self._transactions:
            self._transactions[transaction] = self._number_of(connection)
        elif self.begun is not None:
            return
        self._write(outside=False)

    def _number_of(self, connection: Connection) -> int:
        """The number of the transaction that a connection is in."""
        self._is_asking = True
        try:
            return int(connection.exec_driver_sql(_NUMBER).scalar_one())
        finally:
            self._is_asking = False

    def _go_outside(self) -> None:
        """Write down that from now on anything may be committed."""
        if not self._is_outside:
            self._write(outside=True)

    @property
    def _is_outside(self) -> bool:
        return self.begun is not None and self.begun.outside_since is not None

    def _write(self, *, outside: bool) -> None:
        """Write down what is known of the step by now, and of the earlier try that it follows."""
        numbers = tuple(self._transactions.values())
        since = FROM_NOW if outside else None
        earlier = self._earlier_try
        if earlier is not None:
            numbers = (*earlier.transactions, *numbers)
            since = since if earlier.outside_since is None else earlier.outside_since
        wanted = Begun(self.step, numbers, since)
        if self._marks is None or not self._marks.in_rows:
            # Nobody reads a comment of the team's table, so only this run knows.
            now = self._marks.numbers_from_now() if outside and self._marks else since
            self.begun = replace(wanted, outside_since=now)
            return
        self.begun = self._write_row(wanted)

    @property
    def has_stopped(self) -> bool:
        """Whether nothing of the step runs any more. Of a team's driver, nobody knows."""
        return False

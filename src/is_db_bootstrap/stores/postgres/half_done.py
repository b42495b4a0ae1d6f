"""A step that leaves its transaction and does not end is marked, so that no run begins it again.

A revision runs in a transaction that Alembic opens, together with the row that records it. It can
leave that transaction in many ways: by `op.get_bind().commit()`, by `COMMIT` as text, by an
`autocommit_block`, by the driver's own connection, on a further connection of the same engine.
When it fails or its process dies after that, a part of it stays, and its row is missing.

So no way is looked for in the text of a statement. Before anything is sent on a connection while a
step runs, the connection is asked in which transaction it is. The number of that transaction is
written down by another session (`begun`) before the first statement of the step is sent in it. What
is sent outside of a transaction, or after one that was committed, is written down as "outside"
before it is sent. A step that stays in its transaction is written down once.

Asking costs no round trip. `SET LOCAL application_name` names the transaction. The server reports
that setting to its client, and takes it back at the end of the transaction, however that comes.
PostgreSQL reports `application_name` in every version (manual, 55.2.7 Asynchronous Operations).

Not seen: connections that a revision opens by other means than its engine, what it does with libpq
under psycopg, and a single text that rolls back its transaction and commits another one, if the
process dies while that text runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from is_db_bootstrap.stores.postgres.begun import FROM_NOW, Begun, Fate, Marks, comment_mark
from is_db_bootstrap.stores.postgres.concurrent_index import (
    Ask,
    ConcurrentStatement,
    ConcurrentWork,
)
from is_db_bootstrap.stores.postgres.prepared import refuse_failed
from is_db_bootstrap.stores.postgres.refused_statement import note_sent, shown_statement

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

#: Statements outside of transactions that are told one by one when their step fails.
_MOST_SHOWN = 3
#: It fits with the number of a transaction into the 63 bytes of an application_name.
_NAME_BYTES = 40
_NAME_TRANSACTION = f"""
    SELECT pg_current_xact_id()::text,
           set_config('application_name', left(current_setting('application_name'), {_NAME_BYTES})
                      || ' ' || pg_current_xact_id()::text, true)
"""


def commits_each(connection: Connection) -> bool:
    """Whether the driver of a connection commits each statement by itself.

    Where the driver is asynchronous, only SQLAlchemy's adapter of it knows.
    """
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


class StepWatch:
    """Which step runs (`upgrade b2`), "" when none does.

    `left` says that the transaction in which the step began is not the one in which it ended.
    """

    def __init__(self) -> None:
        self.step = ""
        self.left = False
        #: The first statements that the step has run outside of transactions, as they are told.
        self.committed: list[str] = []
        #: How many it has run there, as far as they were seen.
        self.committed_count = 0

    def name_ahead(self, transaction: Any, number: int) -> None:
        """Note the number of a transaction, which was asked for before a step runs in it."""

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """While `step` (`upgrade b2`, `downgrade b2`) runs."""
        self.step = step
        self.committed = []
        self.committed_count = 0
        try:
            yield
        finally:
            self.step = ""

    def note_committed(self, text: str) -> None:
        """A statement has ended well outside of transactions, so it is committed."""
        self.committed_count += 1
        if len(self.committed) < _MOST_SHOWN:
            self.committed.append(shown_statement(text))


class MarkingWatch(StepWatch):
    """What is written down of the step that runs, by `marks`. Without them, nothing is.

    `begun` is what was written of the step that runs, or ran last.
    """

    def __init__(self, marks: Marks | None) -> None:
        super().__init__()
        self.begun: Begun | None = None
        #: The mark of an earlier try of the step that is to run, which a person lets run again.
        self.earlier: Begun | None = None
        self._marks = marks
        #: The row that was written last, and that is still there.
        self._row: Begun | None = None

    def forget(self) -> None:
        """Delete the row that was written last: its step was read back as recorded.

        A row that stays, because the server is gone, counts for nothing.
        """
        row = self._row or self.earlier
        if self._marks is not None and row is not None:
            with suppress(psycopg.Error):
                self._marks.forget(row)
        self._row = self.begun = self.earlier = None

    def forget_recorded(self, heads: Collection[str]) -> frozenset[str] | None:
        """Delete that row, in one statement, if the version table records `heads` by then.

        Returns what it records. None where there is no row to delete, and nothing was read. Raises
        what psycopg raises.
        """
        row = self._row or self.earlier
        if self._marks is None or row is None or not self._marks.are_rows():
            return None
        recorded = self._marks.forget_recorded(row, heads)
        if recorded == frozenset(heads):
            self._row = self.begun = self.earlier = None
        return recorded

    def _write_row(self, wanted: Begun) -> Begun:
        """Commit what is known of the step by now, in a row."""
        marks, row = self._written_by, self._row
        if self.begun is not None or self._earlier_try is not None:
            self._row = marks.change(wanted)
        elif row is not None and row.transactions and {*row.transactions} <= {*wanted.transactions}:
            self._row = marks.follow(wanted, row)
        else:
            self._row = marks.begin(wanted, makes_room=row is not None)
        return self._row

    @property
    def _written_by(self) -> Marks:
        if self._marks is None:
            raise TypeError(self)
        return self._marks

    @property
    def _earlier_try(self) -> Begun | None:
        """The mark of an earlier try of the step that runs."""
        earlier = self.earlier
        return earlier if earlier is not None and earlier.step == self.step else None


class Watch(MarkingWatch):
    """What is known of the step that runs, on all connections of one engine."""

    def __init__(self, marks: Marks | None = None) -> None:
        super().__init__(marks)
        self._transactions: dict[WorkingConnection, int] = {}
        self._sent: set[WorkingConnection] = set()
        self._first: WorkingConnection | None = None
        self._one_at_a_time = threading.Lock()
        #: What builds indexes while others write. None in a trial, where nobody else is.
        self.concurrent = ConcurrentWork(marks.lock_timeout_s) if marks else None

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """While `step` (`upgrade b2`, `downgrade b2`) runs."""
        self.begun = None
        # What an earlier step has sent in an open transaction is committed or lost with this one.
        self._transactions = {
            connection: number
            for connection, number in self._transactions.items()
            if connection.is_in_named_transaction()
        }
        self._sent.clear()
        with super().running(step):
            yield

    def begin_on(self, connection: Any) -> None:
        """The connection in whose transaction the step begins."""
        self._first = connection if isinstance(connection, WorkingConnection) else None

    def before_send(self, connection: WorkingConnection) -> None:
        """Write down in which transaction something is sent, unless that is known.

        A revision may send from several threads.
        """
        with self._one_at_a_time:
            self._look_at(connection)

    def _look_at(self, connection: WorkingConnection) -> None:
        if not self.step or self._marks is None:
            return
        if connection.only_ends and connection not in self._sent:
            return  # the step has sent nothing that this could commit
        self._sent.add(connection)
        if self.is_outside or not connection.is_settled:
            return
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            if not connection.only_ends:
                self._go_outside(connection)
        elif not connection.is_in_named_transaction():
            self._name(connection)
        elif self.begun is None:
            self._write(connection, outside=False)  # an earlier step has begun the transaction

    @property
    def is_outside(self) -> bool:
        """Whether it is written down that anything may be committed."""
        return self.begun is not None and self.begun.outside_since is not None

    def _name(self, connection: WorkingConnection) -> None:
        """Write down the number of the transaction that `connection` is in."""
        before = self._transactions.get(connection)
        then = Fate.ROLLED_BACK if before is None else self._written_by.fate_of(before)
        if then in {Fate.COMMITTED, Fate.UNKNOWN}:
            self._go_outside(connection)
            return
        number = connection.name_transaction()
        if number == before:
            return  # the revision has set the application_name
        if then is Fate.AT_WORK:  # it was prepared, and somebody may commit it
            self._go_outside(connection)
            return
        self._transactions[connection] = number
        self._write(connection, outside=False)

    def _go_outside(self, connection: WorkingConnection) -> None:
        """Write down that from now on anything may be committed."""
        self._write(connection, outside=True)

    @property
    def has_stopped(self) -> bool:
        """Whether every connection that the step has used is open and runs nothing."""
        return all(
            connection.pgconn.transaction_status == TransactionStatus.IDLE
            for connection in tuple(self._sent)
        )

    def stamped(self, connection: Any) -> None:
        """Delete what any step has left, in the transaction of a stamp, which says what holds."""
        if self._marks is None or not isinstance(connection, WorkingConnection):
            return
        if self._marks.are_rows():
            connection.run(self._marks.forget_statement.encode())

    @contextmanager
    def beside_others(self, statement: ConcurrentStatement, ask: Ask) -> Iterator[None]:
        """While a statement runs that leaves others alone (`concurrent_index`)."""
        if self.concurrent is None:
            yield
            return
        with self.concurrent.patient(ask):
            self.concurrent.prepare(statement, ask, is_retry=self._earlier_try is not None)
            self.concurrent.unfinished = statement
            yield
            self.concurrent.unfinished = None

    def _mark(self, *, outside: bool) -> Begun:
        """What is known of the step by now, and of the earlier try that it follows."""
        numbers = tuple(self._transactions.values())
        since = FROM_NOW if outside else None
        earlier = self._earlier_try
        if earlier is not None:
            numbers = (*earlier.transactions, *numbers)
            since = since if earlier.outside_since is None else earlier.outside_since
        return Begun(self.step, numbers, since)

    def _write(self, connection: WorkingConnection, *, outside: bool) -> None:
        marks = self._written_by
        wanted = self._mark(outside=outside)
        if marks.in_rows:
            self.begun = self._write_row(wanted)
            return
        if connection is self._first:  # any other one would wait for it, which holds the table
            connection.run(comment_mark(marks.table, self.step).encode())
        since = marks.numbers_from_now() if outside else None
        self.begun = replace(wanted, outside_since=since)


def text_of(query: Any, connection: psycopg.Connection[Any]) -> str:
    """A statement as text, whatever a cursor takes it as."""
    if isinstance(query, psycopg.sql.Composable):
        return query.as_string(connection)
    return query.decode(errors="replace") if isinstance(query, bytes) else str(query)


class WorkingConnection(psycopg.Connection[Any]):
    """A connection on which revisions run. Its `watch` is asked before anything is sent on it.

    `only_ends` says that what is sent is a COMMIT or ROLLBACK of the driver, or nothing.
    """

    watch: Watch | None = None
    only_ends = False
    _name = b""
    #: Number and name of a transaction that got its name before a step asked for it.
    _named_ahead: tuple[bytes, bytes] = (b"", b"")

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Let a generator of psycopg talk to the server: all that it sends is sent here."""
        if self.watch is not None:
            self.watch.before_send(self)
        return super().wait(gen, *args, **options)

    def commit(self) -> None:
        """Commit what is open."""
        with self._ending():
            super().commit()

    def rollback(self) -> None:
        """Roll back what is open."""
        with self._ending():
            super().rollback()

    def set_autocommit(self, value: bool) -> None:
        """Begin no more transactions, or begin them again."""
        with self._ending():
            super().set_autocommit(value)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        self.only_ends = True
        try:
            yield
        finally:
            self.only_ends = False

    def begin_named(self) -> None:
        """Begin the transaction that psycopg would begin with the next statement.

        So its number can be written down before that statement is sent.
        """
        watch = self.watch
        if watch is None or not watch.step or watch.is_outside or self.autocommit:
            return
        pgconn = self.pgconn
        idle = pgconn.transaction_status == TransactionStatus.IDLE
        if idle and pgconn.pipeline_status == PipelineStatus.OFF:
            with self.lock:
                self.run(self._get_tx_start_command())

    @property
    def is_settled(self) -> bool:
        """Whether it runs nothing, and is in no transaction that has failed and in no pipeline."""
        settled = {TransactionStatus.IDLE, TransactionStatus.INTRANS}
        is_plain = self.pgconn.pipeline_status == PipelineStatus.OFF
        return is_plain and self.pgconn.transaction_status in settled

    def is_in_named_transaction(self) -> bool:
        """Whether it is in the transaction that was named last."""
        if self.closed or not self._name:
            return False
        return self.pgconn.parameter_status(b"application_name") == self._name

    def name_transaction(self) -> int:
        """Give the running transaction a name that ends with it; its number."""
        number, name = self._named_ahead
        if self.pgconn.parameter_status(b"application_name") != name:
            number, name = self.run(_NAME_TRANSACTION.encode())
        self._name = name
        return int(number)

    def lock_and_ask(self, lock: str, question: str) -> str:
        """Lock a table in the transaction that is open, or in the one that psycopg would begin.

        Returns the answer to a question that has one value, which is asked after that. All is one
        round trip, in which the transaction gets the name by which a step is written down.
        """
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        begin = self._get_tx_start_command().decode() + "; " if idle else ""
        statement = f"{begin}{lock}; {_NAME_TRANSACTION.rstrip()}, ({question})"
        number, name, answer = self.run(statement.encode())
        self._named_ahead = (number, name)
        return answer.decode()

    def ask(self, query: str) -> str:
        """The only value of the only row of a query of ours; empty where there is none."""
        return b"".join(self.run(query.encode())[:1]).decode()

    def run(self, statement: bytes) -> tuple[bytes, ...]:
        """Run a statement of ours, which nobody is asked about; its only row, if it has one.

        Of several statements, which `;` separates, the row of the last one. While the session is
        busy with another one, such as one that a signal has taken us from, this raises: libpq would
        wait for the end of that.
        """
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            raise psycopg.OperationalError("another statement runs on this session")
        result = self.pgconn.exec_(statement)
        refuse_failed(self, result)
        return tuple(result.get_value(0, n) or b"" for n in range(result.nfields))


class WorkingCursor(psycopg.Cursor[Any]):
    """A cursor of a `WorkingConnection`, whose transactions have begun before it sends anything."""

    def execute(self, *args: Any, **options: Any) -> Any:
        """Execute one statement, or several without parameters."""
        self._begin()
        with self._beside_others(*args), self._noting_sent():
            result = super().execute(*args, **options)
        self._note_committed(*args)
        return result

    def executemany(self, *args: Any, **options: Any) -> None:
        """Execute one statement with many sets of parameters."""
        self._begin()
        super().executemany(*args, **options)

    def stream(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Execute one statement, and fetch its rows one by one."""
        self._begin()
        return super().stream(*args, **options)

    @contextmanager
    def copy(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Begin a COPY."""
        self._begin()
        with super().copy(*args, **options) as found:
            yield found

    def _note_committed(self, query: Any, *_: Any) -> None:
        connection: Any = self.connection
        watch = getattr(connection, "watch", None)
        if watch is not None and watch.step and connection.autocommit:
            watch.note_committed(text_of(query, connection))

    @contextmanager
    def _noting_sent(self) -> Iterator[None]:
        """Add to an error the statement as psycopg has sent it, where the server names a place."""
        try:
            yield
        except psycopg.Error as exc:
            sent = self._query
            if sent is not None and exc.diag.statement_position:
                note_sent(exc, bytes(sent.query).decode(errors="replace"))
            raise

    def _beside_others(self, query: Any, *_: Any) -> AbstractContextManager[None]:
        connection: Any = self.connection
        watch = getattr(connection, "watch", None)
        if watch is None or not watch.step or not connection.autocommit:
            return nullcontext()
        statement = ConcurrentStatement.of(text_of(query, connection))
        if statement is None:
            return nullcontext()
        beside: AbstractContextManager[None] = watch.beside_others(statement, connection.ask)
        return beside

    def _begin(self) -> None:
        begin: Callable[[], None] | None = getattr(self.connection, "begin_named", None)
        if begin is not None:
            begin()

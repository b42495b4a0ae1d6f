"""A revision that commits by itself and does not end is marked, so that no later run begins it again.

A revision runs in a transaction that Alembic opens, together with the row that records it. It can leave that
transaction: by `op.get_bind().commit()`, by `COMMIT` as text, by an `autocommit_block`, by the driver's own connection.
When it fails or its process dies after that, a part of it stays, and its row is missing.

So whatever commits something on the working connection while a revision runs first writes a mark into the version
table's comment, in the same transaction: the part and the mark are committed together, or neither is. The step that
ends writes the comment anew, without the mark, in the transaction of its row. A revision that stays in its transaction
costs nothing, because it never commits by itself.

A further connection that a revision takes from the same engine cannot write the mark, because the first one holds the
version table. That it committed something is noted, and a failure is marked afterwards by the session that reads the
record. A process that dies in between, and connections that a revision opens by other means, are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

#: A statement that ends a transaction, alone.
_ENDS = re.compile(r"(?i)\s*(COMMIT|END|PREPARE\s+TRANSACTION)\b[^;]*;?\s*")
#: A text that may end one somewhere. Too many of these do no harm: the mark is then rolled back or written over.
_MAY_END = re.compile(r"(?i)\bCOMMIT\b|(^|;)\s*END\b|\bPREPARE\s+TRANSACTION\b")
#: A statement that changes nothing that outlives the session.
_HARMLESS = re.compile(
    r"(?i)\s*(SET|RESET|SHOW|BEGIN|START|ROLLBACK|COMMIT|END|DISCARD|LISTEN|UNLISTEN)\b[^;]*;?\s*"
)
#: A statement that asks the catalogue, as inspectors do.
_LOOKS = re.compile(r"(?i)\s*SELECT\b[^;]*\b(pg_catalog|information_schema)\b[^;]*;?\s*")
#: What can commit a part of itself before it fails, outside of a transaction.
_IN_PARTS = re.compile(r"(?i)(^|;)\s*(CALL|DO)\b|\bCOMMIT\b")


def mark_statement(table: str, step: str) -> str:
    """The statement that marks `step` (`upgrade b2`) as begun in the comment of `table`, a quoted name; "" lifts the mark.

    A role that does not own the table leaves its comment as it is.
    """
    kept = "regexp_replace(coalesce(obj_description(to_regclass(place), 'pg_class'), ''), '(; )?begun \\w+ \\S+$', '')"
    added = (
        f"concat_ws('; ', nullif({kept}, ''), {_literal(f'begun {step}')})"
        if step
        else f"nullif({kept}, '')"
    )
    return f"""
        DO $is_db_bootstrap$
        DECLARE place text := {_literal(table)};
        BEGIN
            EXECUTE format('COMMENT ON TABLE %s IS %L', place, {added});
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END
        $is_db_bootstrap$
    """


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class Watch:
    """What is known of the revision that runs on one connection. `table` is the quoted name of the version table.

    `committed` says that its connection has committed a part of its work, `elsewhere` that another one of the same
    engine has. `left` says that the transaction in which the step began is not the one in which it ended.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        self.step = ""
        self.committed = False
        self.elsewhere = False
        self.left = False

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """While `step` (`upgrade b2`, `downgrade b2`) runs."""
        self.step = step
        self.committed = False
        self.elsewhere = False
        try:
            yield
        finally:
            self.step = ""

    def before_commit(self, connection: psycopg.Connection[Any]) -> None:
        """Mark the step if the transaction that is about to be committed has written anything."""
        if (
            self.step
            and connection.info.transaction_status == TransactionStatus.INTRANS
            and _has_written(connection)
        ):
            self.mark(connection)
            self.committed = True

    def before_statement(self, connection: psycopg.Connection[Any], text: str) -> bool:
        """Mark the step if `text` may commit something; whether the mark is to be lifted when it fails."""
        if not self.step:
            return False
        if connection.autocommit:
            return self._before_autocommit(connection, text)
        if _ENDS.fullmatch(text):
            self.before_commit(connection)
        elif (
            _MAY_END.search(text)
            and connection.info.transaction_status != TransactionStatus.INERROR
        ):
            self.mark(connection)
        return False

    def _before_autocommit(self, connection: psycopg.Connection[Any], text: str) -> bool:
        if self.committed or _HARMLESS.fullmatch(text) or _LOOKS.fullmatch(text):
            return False
        self.mark(connection)
        self.committed = True
        return not _IN_PARTS.search(text)

    def mark(self, connection: psycopg.Connection[Any]) -> None:
        """Write the mark of the step that runs."""
        psycopg.Cursor(connection).execute(mark_statement(self.table, self.step).encode())

    def lift(self, connection: psycopg.Connection[Any]) -> None:
        """Take the mark back: the first statement outside of a transaction has failed, so nothing was committed."""
        self.committed = False
        with suppress(psycopg.Error):  # a lost connection leaves the mark, and a person looks
            psycopg.Cursor(connection).execute(mark_statement(self.table, "").encode())


class SecondWatch(Watch):
    """The watch of a further connection: it notes what is committed there at the `first` one, and writes nothing."""

    def __init__(self, first: Watch) -> None:
        super().__init__(first.table)
        self.step = first.step
        self._first = first

    def mark(self, connection: psycopg.Connection[Any]) -> None:  # noqa: ARG002 - the first connection holds the table
        """Note that something was committed."""
        self._first.elsewhere = True

    def lift(self, connection: psycopg.Connection[Any]) -> None:
        """Nothing, because nothing was written."""


def _has_written(connection: psycopg.Connection[Any]) -> bool:
    row = (
        psycopg.Cursor(connection)
        .execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        .fetchone()
    )
    return bool(row and row[0])


class WorkingConnection(psycopg.Connection[Any]):
    """A connection on which revisions run. Its `watch` is told before anything is committed on it."""

    watch: Watch | None = None

    def commit(self) -> None:
        """Commit what is open."""
        if self.watch is not None:
            self.watch.before_commit(self)
        super().commit()


class WorkingCursor(psycopg.Cursor[Any]):
    """A cursor of a `WorkingConnection`."""

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Execute one statement, or several without parameters."""
        with self._watched(query):
            return super().execute(query, *args, **options)

    def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        """Execute one statement with many sets of parameters."""
        with self._watched(query):
            super().executemany(query, *args, **options)

    @contextmanager
    def copy(self, statement: Any, *args: Any, **options: Any) -> Iterator[Any]:
        """Begin a COPY."""
        with self._watched(statement), super().copy(statement, *args, **options) as found:
            yield found

    @contextmanager
    def _watched(self, query: Any) -> Iterator[None]:
        watch = getattr(self.connection, "watch", None)
        lifted = (
            watch.before_statement(self.connection, self._text(query))
            if watch is not None
            else False
        )
        try:
            yield
        except psycopg.Error:
            if watch is not None and lifted:
                watch.lift(self.connection)
            raise

    def _text(self, query: Any) -> str:
        if isinstance(query, psycopg.sql.Composable):
            return query.as_string(self.connection)
        return query.decode(errors="replace") if isinstance(query, bytes) else str(query)

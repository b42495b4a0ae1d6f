"""A session of a team's own driver, asked as one of psycopg is.

What we look at inside of a transaction of the team is asked on the team's own connection, because
nobody else sees it. Values stand in the statements, since drivers write parameters in different
ways. What a driver raises is raised as psycopg would raise it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.exc import DBAPIError

from is_db_bootstrap.stores.postgres.own_schema import literal
from is_db_bootstrap.stores.postgres.team_run import error_of_server

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_ISOLATION = "SELECT current_setting('transaction_isolation')"


class AnySession:
    """Asks on a connection of SQLAlchemy, in the transaction that it is in."""

    closed = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, query: bytes | str, values: Sequence[Any] = ()) -> Any:
        """The answer to one statement, whose `values` are texts or lists of texts.

        The answer has `fetchone` and `fetchall`, as a cursor of psycopg.
        """
        text = query.decode() if isinstance(query, bytes) else query
        parts = text.split("%s") if values else [text]
        written = [_written(value) for value in values]
        statement = "".join(part + value for part, value in zip(parts, [*written, ""], strict=True))
        try:
            return self._connection.exec_driver_sql(statement)
        except DBAPIError as exc:
            if isinstance(exc.orig, psycopg.Error):
                raise exc.orig from exc
            raise error_of_server(exc) from exc

    @contextmanager
    def transaction(self, *, force_rollback: bool) -> Iterator[None]:
        """Take back afterwards what is done inside, and nothing else."""
        if not force_rollback:
            raise NotImplementedError
        nested = self._connection.begin_nested()
        try:
            yield
        finally:
            nested.rollback()

    def rollback(self) -> None:
        """Roll the whole transaction back."""
        transaction = self._connection.get_transaction()
        if transaction is not None:
            transaction.rollback()

    @property
    def sees_new_rows(self) -> bool:
        """Whether a statement sees what was committed since the transaction began."""
        return bool(self.execute(_ISOLATION).scalar() == "read committed")


def _written(value: Any) -> str:
    if isinstance(value, str):
        return literal(value)
    return f"ARRAY[{', '.join(map(literal, value))}]::text[]"

"""Transactions that commit only while the lease of their run is that run's.

A run that lost its lock commits nothing that another run has begun. Statements that cannot share a
transaction with the record are sent right after the lease was looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j.kind import STORE

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.lock import Lease
    from is_db_bootstrap.stores.neo4j.seed import Run


class Fence:
    """The lease of a run, if it has taken one, and what is done under it in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.lease: Lease | None = None

    @property
    def held(self) -> Lease | None:
        """The lease, unless it was given back. It may be lost all the same."""
        return None if self.lease is None or self.lease.ended else self.lease

    @property
    def token(self) -> str:
        """The token of the lease; empty without one."""
        return self.held.token if self.held is not None else ""

    @contextmanager
    def transaction(self, session: neo4j.Session, change: Change) -> Iterator[Run]:
        """A transaction that commits only while the lease of this run is ours.

        The token is compared last, which locks the lease's node: no other run can take the lease
        before the commit. Raises `StoreUnavailable` when the lease was lost.
        """
        with self._begun(session) as transaction:
            run = partial(_rows, transaction)
            yield run
            if self.held is not None and not self.held.holds_in(_writer(run)):
                raise _lost(change, run(neo4j_lock.HOLDER))
            transaction.commit()

    @contextmanager
    def schema_transaction(self, session: neo4j.Session, change: Change) -> Iterator[Run]:
        """A transaction of schema statements, committed while the lease of this run is ours.

        Such a transaction cannot lock the lease's node, so the token is read right before the
        commit. Raises `StoreUnavailable` when the lease was lost.
        """
        with self._begun(session) as transaction:
            run = partial(_rows, transaction)
            yield run
            if self.held is not None and not self.held.seen_in(_writer(run)):
                raise _lost(change, run(neo4j_lock.HOLDER))
            transaction.commit()

    def _begun(self, session: neo4j.Session) -> neo4j.Transaction:
        return session.begin_transaction(metadata=self._database.metadata)

    def refuse_lost(self, session: neo4j.Session, change: Change) -> None:
        """Raise `StoreUnavailable` when the lease is another run's.

        This is asked right before a statement that shares no transaction with the record.
        """
        if self.held is not None and not self.held.confirm():
            raise _lost(change, self._database.rows(session, neo4j_lock.HOLDER))


def _rows(transaction: neo4j.Transaction, text: str, **parameters: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in transaction.run(text, parameters)]


def _writer(run: Run) -> neo4j_lock.Write:
    def write(text: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        return run(text, **parameters)

    return write


def _lost(change: Change, rows: Sequence[Mapping[str, Any]]) -> StoreUnavailable:
    holder = "nobody holds it now"
    present = neo4j_lock.present_holder(rows)
    if present is not None:
        holder = f"{present.who} holds it now"
    return StoreUnavailable(
        STORE,
        f"The lock of this run was lost before {change.name} was recorded; {holder}. "
        "Nothing that shares a transaction with the record was committed.",
        hint="Run again; what has been applied is recognised.",
        subject=change.name,
    )

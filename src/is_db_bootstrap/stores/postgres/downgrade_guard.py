"""The guard of a downgrade on the target: no more is lost there than its trial has shown.

A trial cannot show what depends on rows, or on objects that only the target has: tables of others
that a `CASCADE` reaches, a `DO` block that asks whether something exists, a loop over rows. So each
transaction of the downgrade is looked at once more before it is committed, when it is certain what
it has done. What the trial has not shown is raised as `Unforeseen`, and the transaction is rolled
back.

Rows may have come up since they were counted. So each step begins with the tables that its trial
has shown to lose something: they are locked, so that nobody writes there any more, and counted
again.

A revision that commits by itself escapes the guard. The trial tells of it, and it is asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import event

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.postgres.downgrade_look import (
    WRITES,
    Changes,
    Look,
    changes,
    locks,
    look,
)
from is_db_bootstrap.stores.postgres.downgrade_trial import Seen, Touch, named

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from is_db_bootstrap.stores.postgres.downgrade_look import Name, Session


#: What is counted for known: a table, or a column of one, by the identity of the table.
Key = tuple[int, str]


class Unforeseen(StoreConflict):
    """A step of a downgrade did more on the target than in its trial. It was rolled back.

    `seen` says what, by the names that the tables have now, and `keys` by identity.
    """

    def __init__(self, store: str, seen: Seen, keys: frozenset[Key]) -> None:
        super().__init__(store, "The downgrade did more here than in its trial.")
        self.seen = seen
        self.keys = keys


class Guard:
    """Compares each transaction of a downgrade with what its trial has `seen`.

    Tables are known by their identity, so a rename by an earlier step does not matter. `recount` is
    called in each transaction before the step runs. It receives the session, and what the step is
    to lose, by the names that the tables have then.
    """

    def __init__(
        self,
        store: str,
        version_table: Name,
        seen: Seen,
        recount: Callable[[Session, Seen], None],
    ) -> None:
        self._store = store
        self._version_table = version_table
        self._seen = seen
        self._recount = recount
        self._allowed: set[Key] = set()
        self._unseen: list[Seen] = []
        self._first: Look | None = None
        self._last = Look({}, {}, {})
        self._revision = ""

    def attach(self, engine: Engine) -> None:
        """Look at every transaction of `engine` from now on."""
        event.listen(engine, "connect", _read_committed)
        event.listen(engine, "begin", self._connection_began)
        event.listen(engine, "commit", self._connection_ends)

    def expect(self, revision: str) -> None:
        """The downgrade of `revision` is about to run."""
        self._revision = revision
        self._allowed.clear()
        self._unseen.clear()

    def allow(self, unforeseen: Unforeseen) -> None:
        """Take what a try of the expected step has done for shown: it lost no row then."""
        self._allowed |= unforeseen.keys
        self._unseen.append(unforeseen.seen)

    def _connection_began(self, connection: Connection) -> None:
        self.began(_session(connection))

    def _connection_ends(self, connection: Connection) -> None:
        session = _session(connection)
        if session.info.transaction_status == TransactionStatus.INTRANS:
            self.ends(session)

    def began(self, session: Session) -> None:
        """A transaction of the downgrade has begun on `session`."""
        self._last = look(session, self._version_table)
        if self._first is None:
            self._first = self._last
        for due in (self._due(self._first), *self._unseen):
            self._recount(session, due)

    def _due(self, first: Look) -> Seen:
        """What the step loses by its trial, by the names that the tables have now."""
        seen, step = self._seen, self._seen.steps.get(self._revision, frozenset())
        now = {
            table.name: self._last.tables[oid].name
            for oid, table in first.tables.items()
            if table.name in step and oid in self._last.tables
        }
        spaces = {space for space in seen.schemas if (space, "") in step}
        inside = (
            table.name
            for table in self._last.tables.values()
            if table.name[0] in spaces and not table.is_sequence
        )
        columns = {
            (table.name, column.name): self._last.columns[oid, number].name
            for (oid, number), column in first.columns.items()
            if (table := first.tables[oid]).name in now and (oid, number) in self._last.columns
        }
        return Seen(
            tables=(*(now[name] for name in seen.tables if name in now), *inside),
            sequences=tuple(now[name] for name in seen.sequences if name in now),
            columns=tuple((now[n], columns[n, c]) for n, c in seen.columns if (n, c) in columns),
            retyped=tuple(
                (now[n], columns[n, c], types) for n, c, types in seen.retyped if (n, c) in columns
            ),
            rewritten=tuple(
                (now[n], columns[n, c]) for n, c in seen.rewritten if (n, c) in columns
            ),
            touched={now[name]: how for name, how in seen.touched.items() if name in now},
        )

    def ends(self, session: Session) -> None:
        """The transaction of `session` is about to be committed.

        Raises `Unforeseen`, after it was rolled back, when it did more than its trial.
        """
        if self._first is None:
            return
        now = look(session, self._version_table)
        found = changes(self._last, now)
        written = {relation for relation, mode in locks(session) if mode == WRITES}
        more = self._unforeseen(found)
        changed = self._unforeseen_writes(found, written, self._first)
        keys = frozenset(
            {
                *((oid, "") for oid in (*more.gone, *changed)),
                *more.columns,
                *more.retyped,
                *more.rewritten,
            }
        )
        if keys:
            touch = Touch(self._revision, "", writes=True)
            touched = {self._last.tables[oid].name: (touch,) for oid in sorted(changed)}
            session.rollback()
            raise Unforeseen(self._store, replace(named(more, self._last), touched=touched), keys)
        self._last = now

    def _unforeseen(self, found: Changes) -> Changes:
        """The tables and columns that the trial has not shown."""
        return Changes(
            gone=frozenset(oid for oid in found.gone if not self._may(oid, self._gone)),
            columns=frozenset(each for each in found.columns if not self._may_column(*each)),
            retyped={
                each: types for each, types in found.retyped.items() if not self._may_column(*each)
            },
            rewritten=frozenset(each for each in found.rewritten if not self._may_column(*each)),
        )

    def _unforeseen_writes(self, found: Changes, written: set[int], first: Look) -> set[int]:
        """The tables whose rows were written, or put into a new file, and not so in the trial."""
        explained = {oid for oid, _ in (*found.retyped, *found.rewritten)}
        moved = {oid for oid in found.moved - explained if not self._may(oid, self._seen.moved)}
        touched = {
            oid
            for oid in written & set(self._last.tables) & set(first.tables)
            if first.tables[oid].is_touched_by(writes=True)
            and not self._may(oid, tuple(self._seen.touched))
        }
        return (moved | touched) - found.gone

    @property
    def _gone(self) -> tuple[Name, ...]:
        return (*self._seen.tables, *self._seen.sequences)

    def _may(self, oid: int, told: tuple[Name, ...]) -> bool:
        """Whether the trial has told it of a table, or has told that the table goes."""
        names = self._names(oid)
        if not names or (oid, "") in self._allowed:
            return True  # an earlier step of this downgrade has made it, or no row is lost
        if self._last.tables[oid].is_catalogue:
            return False  # a trial has no large objects, so it cannot show what becomes of them
        step = self._seen.steps.get(self._revision, frozenset())
        spaces = {(space, "") for space, _ in names}
        return bool(names & {*told, *self._gone} & step) or bool(spaces & step)

    def _may_column(self, oid: int, column: str) -> bool:
        """Whether the trial has told it of a column."""
        seen = self._seen
        told = {*seen.columns, *seen.rewritten, *((name, of) for name, of, _ in seen.retyped)}
        names = self._names(oid)
        return (
            not names
            or (oid, column) in self._allowed
            or any((name, column) in told for name in names)
        )

    def _names(self, oid: int) -> set[Name]:
        """What the trial calls a table: by its first name, or as a part of a partitioned one."""
        if self._first is None or oid not in self._first.tables:
            return set()
        table = self._first.tables[oid]
        root = self._first.tables.get(table.root, table)
        return {table.name, root.name}


def _read_committed(session: psycopg.Connection[Any], _: Any) -> None:
    """Let each statement see what was committed before it, whatever the default is.

    Else rows that came up while a lock was waited for are not counted.
    """
    session.isolation_level = psycopg.IsolationLevel.READ_COMMITTED


def _session(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)

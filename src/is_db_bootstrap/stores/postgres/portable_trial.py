"""What a downgrade of a portable blueprint does, seen in a SQLite database in memory.

The database in memory is brought to the revision of the real one and then downgraded. It has no
rows but those that revisions write. So it shows faithfully what a downgrade does only as long as
that does not depend on rows. Which tables each statement reads or writes is told by SQLite's
authorizer, which is asked for every access when a statement is prepared
(sqlite.org/c3ref/set_authorizer.html): also for what a trigger, a foreign key or `DROP TABLE` does
to rows of other tables.

On MariaDB the trial is in SQLite too. A revision that looks at its database may do something else
there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alembic.operations import Operations
from sqlalchemy import event, inspect

from is_db_bootstrap.stores.postgres.alembic import config, undo, upgrade_to
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.downgrade_trial import Touch, brief
from is_db_bootstrap.stores.postgres.portable_watch import BEGUN
from is_db_bootstrap.stores.postgres.revisions import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from is_db_bootstrap.blueprint import Blueprint

#: The columns of each table, and their types.
Tables = Mapping[str, Mapping[str, str]]

_WRITES = {
    sqlite3.SQLITE_DELETE: "DELETE",
    sqlite3.SQLITE_INSERT: "INSERT",
    sqlite3.SQLITE_UPDATE: "UPDATE",
}
_OWN = {TABLE, BEGUN}
#: How the statements begin that only look.
_LOOKS = ("SELECT", "PRAGMA")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a downgrade did to the tables of the database in memory.

    `touched` maps a table that is there before and after to what reads or writes its rows. `left`
    are the revisions that left their transaction. `looked` are those that asked which tables there
    are, `bound` those that took hold of the database itself.
    """

    before: Tables
    after: Tables
    touched: Mapping[str, tuple[Touch, ...]] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    looked: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()


def tried(
    connection: Connection, blueprint: Blueprint, heads: Sequence[str], undone: Sequence[str]
) -> Seen:
    """Bring the empty SQLite database of `connection` to `heads`, and undo the revisions `undone`.

    Raises what a revision raises.
    """
    notes = _Notes(connection)
    with running_alembic():
        upgrade_to(config(blueprint, "", connection), *heads)
    before = tables(connection)
    connection.commit()  # else Alembic takes the open transaction for its caller's
    with running_alembic(), notes.taken():
        wanted = config(blueprint, "", connection)
        notes.attributes = wanted.attributes
        wanted.attributes["applied"] = notes.stepped
        undo(wanted, *undone)
    after = tables(connection)
    return Seen(
        before,
        after,
        {
            name: tuple(
                replace(touch, file=notes.files.get(touch.revision, "")) for touch in touches
            )
            for name, touches in notes.touched.items()
            if name in before and name in after
        },
        tuple(dict.fromkeys(notes.left)),
        tuple(dict.fromkeys(notes.looked)),
        tuple(dict.fromkeys(notes.bound)),
    )


def tables(connection: Connection) -> Tables:
    """The tables of a database but our own, with the types of their columns."""
    inspector = inspect(connection)
    return {
        name: {column["name"]: str(column["type"]) for column in inspector.get_columns(name)}
        for name in inspector.get_table_names()
        if name not in _OWN
    }


class _Notes:
    """What SQLite's authorizer is asked while the revisions run."""

    def __init__(self, connection: Connection) -> None:
        driver = cast("Any", connection.connection.driver_connection)
        self._statement = ""
        self._dropping = ""
        self._is_watching = False
        self.attributes: dict[Any, Any] = {}
        self.touched: dict[str, list[Touch]] = {}
        self.files: dict[str, str] = {}
        self.left: list[str] = []
        self.looked: list[str] = []
        self.bound: list[str] = []
        driver.set_authorizer(self._asked)
        event.listen(connection, "before_cursor_execute", self._sent)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take notes, also of a revision that asks Alembic for its database."""
        kind = cast("Any", Operations)
        get_bind, get_context = kind.get_bind, kind.get_context

        def noted_bind(operations: Operations) -> Any:
            self.bound.append(self._revision)
            return get_bind(operations)

        def noted_context(operations: Operations) -> Any:
            self.bound.append(self._revision)
            return get_context(operations)

        self._is_watching = True
        kind.get_bind, kind.get_context = noted_bind, noted_context
        try:
            yield
        finally:
            kind.get_bind, kind.get_context = get_bind, get_context
            self._is_watching = False

    def stepped(self, step: Any) -> None:
        """A revision's step has ended."""
        self.files[step.up_revision_id] = Path(step.up_revision.path).name

    @property
    def _revision(self) -> str:
        watch = self.attributes.get("watch") if self._is_watching else None
        return str(getattr(watch, "step", "")).partition(" ")[2]

    def _sent(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        self._statement = statement
        if self._revision and statement.lstrip().upper().startswith(_LOOKS):
            self.looked.append(self._revision)

    def _asked(self, action: int, first: str | None, *_: str | None) -> int:
        """Note one access. Another database file is never opened in a trial."""
        if action == sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_DENY
        revision = self._revision
        if revision and action == sqlite3.SQLITE_TRANSACTION:
            self.left.append(revision)
        if action == sqlite3.SQLITE_DROP_TABLE:
            self._dropping = first or ""
        elif first and (action in _WRITES or action == sqlite3.SQLITE_READ):
            self._note(revision, action, first)
        return sqlite3.SQLITE_OK

    def _note(self, revision: str, action: int, table: str) -> None:
        is_drop = action == sqlite3.SQLITE_DELETE and table == self._dropping
        if not revision or is_drop or table in _OWN or table.startswith("sqlite_"):
            return
        kind = _WRITES.get(action, "")
        touch = Touch(revision, kind, bool(kind), brief(self._statement))
        noted = self.touched.setdefault(table, [])
        if touch not in noted:
            noted.append(touch)

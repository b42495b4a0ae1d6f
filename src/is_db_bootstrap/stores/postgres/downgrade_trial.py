"""What a downgrade does, seen in a scratch database on the same server.

The target is neither read nor locked.

The scratch database is brought to the revisions that the target records. Its tables have no rows
but those that revisions write. So the trial shows faithfully what a downgrade does only as long as
the downgrade does not depend on rows. Which tables it reads or writes is therefore noted, by the
locks that each of its statements leaves (`downgrade_look`). A table among them that has rows on the
target is asked about. What a trial could not see is caught on the target itself
(`downgrade_guard`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import event

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.stores.postgres.alembic import config, engine, undo
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.catalogue import ATTRIBUTES, PARTITION, live
from is_db_bootstrap.stores.postgres.downgrade_look import (
    WRITES,
    Changes,
    Look,
    Name,
    changes,
    locks,
    look,
)
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.half_done import Watch, text_of
from is_db_bootstrap.stores.postgres.revisions import TABLE
from is_db_bootstrap.stores.postgres.scratch import ScratchCursor, at_revisions
from is_db_bootstrap.stores.postgres.scratch_path import path_schema_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

#: How the server's answer to a statement begins that only changes the catalogue. What such a
#: statement does to rows is told by two looks at the catalogue. It may read tables to check them.
_STRUCTURE = (
    "CREATE ",
    "ALTER ",
    "DROP ",
    "COMMENT",
    "GRANT",
    "REVOKE",
    "SECURITY LABEL",
    "LOCK TABLE",
)
#: Statements that say by their name what they do to rows.
_CHANGES_ROWS = {"DELETE", "UPDATE", "INSERT", "MERGE", "TRUNCATE", "COPY"}
#: Characters of a statement that a message shows.
_SHOWN = 80
#: Kinds of the catalogue that are told by themselves, or go with what is told.
_UNTOLD = {"table", "column", PARTITION, *ATTRIBUTES}


@dataclass(frozen=True, slots=True)
class Touch:
    """A statement that reads or writes the rows of a table, as far as the server tells.

    `kind` is the server's own word for the statement, such as `DELETE`, `SELECT` or `DO`; it is
    empty for one that only changes the catalogue by its name. `revision` and `file` are those that
    sent it. `statement` is its beginning, and empty when it was sent by other means than a cursor.
    """

    revision: str
    kind: str
    writes: bool
    statement: str = ""
    file: str = ""

    @property
    def how(self) -> str:
        """What happens to the rows."""
        if set(self.kind.split(" and ")) <= _CHANGES_ROWS:
            return self.kind
        act = "changed" if self.writes else "read"
        return f"{act} by {self.kind}" if self.kind else act

    def __str__(self) -> str:
        file = f" ({self.file})" if self.file else ""
        sent = self.statement or self.kind or "by its own connection to the server"
        return f"{self.revision}{file}: {sent}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a downgrade did in the scratch database. Names are those before it.

    - `sequences` are those that go and belong to no column.
    - `columns`, `retyped` and `rewritten` are of tables that stay: names, and for `retyped` what
      becomes of the type.
    - `touched` maps a table that stays to what reads or writes its rows.
    - `moved` are tables whose rows the server has copied.
    - `objects` are other things that go, such as `index a.b`.
    - `left` are the revisions whose downgrade left its transaction, `beside` those that worked on
      another connection.

    `steps` has for each revision the tables, the sequences and, as `(name, "")`, the schemas that
    its step concerns.
    """

    tables: tuple[Name, ...] = ()
    sequences: tuple[Name, ...] = ()
    columns: tuple[tuple[Name, str], ...] = ()
    retyped: tuple[tuple[Name, str, str], ...] = ()
    rewritten: tuple[tuple[Name, str], ...] = ()
    touched: Mapping[Name, tuple[Touch, ...]] = field(default_factory=dict)
    moved: tuple[Name, ...] = ()
    schemas: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    steps: Mapping[str, frozenset[Name]] = field(default_factory=dict)


class Sessions:
    """The sessions and the database of a trial, so that another thread can end them."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._open: list[psycopg.Connection[Any]] = []
        self._store: PostgreSQLBootstrapper | None = None
        #: Whether the trial was ended from outside.
        self.ended = False
        #: The name of the scratch database; empty before there is one.
        self.database = ""

    def begin(self, store: PostgreSQLBootstrapper, database: str) -> None:
        """`store` is about to create `database`."""
        self._store, self.database = store, database
        self._refuse_ended()

    def add(self, connection: psycopg.Connection[Any]) -> None:
        """Note a session of the trial."""
        self._open.append(connection)
        if self.ended:
            connection.close()
        self._refuse_ended()

    def cancel(self) -> None:
        """From another thread: end what runs on the server, and let nothing begin."""
        self.ended = True
        if self._store is not None:
            self._store.cancel()
        for connection in self._open:
            if not connection.closed:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=self._connect_timeout_s)

    def _refuse_ended(self) -> None:
        if self.ended:
            raise StoreUnavailable(NAME, "The trial was ended.", hint="Run again.")


def tried(
    url: StoreUrl,
    blueprint: Blueprint,
    schema: str,
    timing: Timing,
    *,
    done: Sequence[str],
    undone: Sequence[str],
    sessions: Sessions | None = None,
    version_table: Name | None = None,
) -> Seen:
    """Bring a scratch database on the server of `url` to `done`, undo `undone`, and look.

    Both are revisions. `version_table` is that of the scratch database, if it is not Alembic's
    usual one in `schema`. Raises what a run raises: `AccessDenied` when no database may be created,
    `ChangeFailed` for a revision that fails there. Raises `ConfigurationError` when a revision
    sends a statement that acts on the whole server.
    """
    sessions = sessions or Sessions(timing.connect_timeout_s)
    watch = Watch()
    table = version_table or (schema, TABLE)
    notes = _Notes(watch, table)

    def opened(connection: psycopg.Connection[Any]) -> None:
        sessions.add(connection)
        notes.opened(connection)

    with at_revisions(url, blueprint, done, timing, schema, begun=sessions.begin) as scratch:
        found = engine(scratch, path_schema_of(scratch, schema), timing, opened, watch)
        try:
            with found.connect() as connection:
                session = _session(connection)
                before, objects = look(session, table), _objects(session, schema)
                session.commit()
                notes.begin(session, before)
                left = _downgraded(connection, blueprint, schema, undone, notes.stepped)
                session.rollback()
                after, left_objects = look(session, table), _objects(session, schema)
                session.rollback()
        finally:
            found.dispose()
    return _seen(before, after, objects - left_objects, notes, left)


def _session(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def _objects(session: psycopg.Connection[Any], schema: str) -> frozenset[str]:
    """Everything else of the catalogue, in words."""
    return frozenset(
        f"{kind} {name if kind == 'extension' or space == schema else f'{space}.{name}'}"
        for space in look(session, (schema, TABLE)).schemas.values()
        for kind, found in live(session, space).items()
        if kind not in _UNTOLD
        for name in found
    )


class _Notes:
    """What the statements of the downgrade have touched."""

    def __init__(self, watch: Watch, version_table: Name) -> None:
        self._watch = watch
        self._version_table = version_table
        self._known: frozenset[tuple[int, str]] = frozenset()
        self._session: psycopg.Connection[Any] | None = None
        self._first = self._last = Look({}, {}, {})
        self.touched: dict[int, list[Touch]] = {}
        self.files: dict[str, str] = {}
        self.beside: list[str] = []
        self.steps: dict[str, frozenset[Name]] = {}

    def begin(self, session: psycopg.Connection[Any], before: Look) -> None:
        """The downgrade begins on `session`."""
        self._session = session
        self._first = self._last = before

    def opened(self, connection: psycopg.Connection[Any]) -> None:
        """Note a connection: a further one belongs to the revision that runs."""
        connection.cursor_factory = _NotingCursor
        cast("Any", connection).notes = self
        if self._session is not None:
            self.beside.append(self._revision)

    def sending(self, connection: psycopg.Connection[Any]) -> None:
        """A statement is about to be executed: what was sent by other means before it is noted."""
        if connection is self._session and self._watch.step:
            self._take(None, "")

    def sent(self, connection: psycopg.Connection[Any], text: str, tags: Sequence[str]) -> None:
        """A statement was executed.

        The server has answered with `tags`, one for each of its parts.
        """
        if connection is self._session and self._watch.step:
            kinds = [_word(tag) for tag in tags if not tag.startswith(_STRUCTURE)]
            self._take(" and ".join(dict.fromkeys(kinds)), text)

    def stepped(self, step: Any) -> None:
        """A revision's step has ended: what it did by other means than a cursor is noted too."""
        revision = step.up_revision_id
        self.files[revision] = Path(step.up_revision.path).name
        self._take(None, "", revision)
        self._known = frozenset()
        self.steps[revision] = frozenset(self._concerned(revision))

    def _concerned(self, revision: str) -> Iterator[Name]:
        """What the step of `revision`, which has just ended, does something with."""
        if self._session is None:
            return
        before, now = self._last, look(self._session, self._version_table)
        self._last = now
        touched = {
            oid
            for oid, touches in self.touched.items()
            if any(touch.revision == revision for touch in touches)
        }
        for oid in (changes(before, now).tables | touched) & set(self._first.tables):
            yield self._first.tables[oid].name
        for oid in set(before.schemas) - set(now.schemas):
            yield before.schemas[oid], ""

    @property
    def _revision(self) -> str:
        return self._watch.step.partition(" ")[2]

    def _take(self, kind: str | None, text: str, revision: str = "") -> None:
        """Note the tables that the session's transaction has locked since the last time.

        `kind` is empty for a statement that only changes the catalogue, and None for what was not
        sent by a cursor of ours.
        """
        session = self._session
        if session is None or session.info.transaction_status != TransactionStatus.INTRANS:
            return
        now = locks(session)
        new = {each for each in now - self._known if each[0] in self._first.tables}
        self._known = now
        modes: dict[int, set[str]] = {}
        for relation, mode in new:
            modes.setdefault(relation, set()).add(mode)
        for relation, taken in modes.items():
            writes = not taken <= {"AccessShareLock", "RowShareLock"}
            if kind == "" and WRITES not in taken:
                continue  # the server checks or changes a definition
            if not self._first.tables[relation].is_touched_by(writes=writes):
                continue
            touch = Touch(revision or self._revision, kind or "", writes, brief(text))
            self.touched.setdefault(relation, []).append(touch)


def _word(kind: str) -> str:
    """The server's word for a statement, without its count of rows."""
    words = [word for word in kind.split() if not word.isdigit()]
    return "TRUNCATE" if words[:1] == ["TRUNCATE"] else " ".join(words)


def brief(text: str) -> str:
    """The beginning of a statement, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


class _NotingCursor(ScratchCursor):
    """A cursor that tells `_Notes` what the server has answered."""

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Execute one statement, or several without parameters."""
        self._tell_before()
        found = super().execute(query, *args, **options)
        self._tell(query)
        return found

    def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        """Execute one statement with many sets of parameters."""
        self._tell_before()
        super().executemany(query, *args, **options)
        self._tell(query)

    @contextmanager
    def copy(self, statement: Any, *args: Any, **options: Any) -> Iterator[Any]:
        """Begin a COPY."""
        self._tell_before()
        with super().copy(statement, *args, **options) as found:
            yield found
        self._tell(statement)

    def _tell_before(self) -> None:
        notes = getattr(self.connection, "notes", None)
        if notes is not None:
            notes.sending(self.connection)

    def _tell(self, query: Any) -> None:
        notes = getattr(self.connection, "notes", None)
        if notes is not None:
            results = self._results or [r for r in [self.pgresult] if r]
            tags = [(r.command_status or b"").decode() for r in results]
            notes.sent(self.connection, text_of(query, self.connection), tags)


def _downgraded(
    connection: Connection,
    blueprint: Blueprint,
    schema: str,
    undone: Sequence[str],
    ended: Callable[[Any], None],
) -> tuple[str, ...]:
    """Run the downgrade.

    The revisions whose step did not end in the transaction that it began in.
    """
    began: list[int] = []
    left: list[str] = []

    @event.listens_for(connection, "begin")
    def note_begin(begun: Connection) -> None:
        began.append(_transaction(begun))

    def stepped(step: Any) -> None:
        if began != [_transaction(connection)]:
            left.append(step.up_revision_id)
        began.clear()
        ended(step)

    with running_alembic():
        wanted = config(blueprint, schema, connection)
        wanted.attributes["applied"] = stepped
        undo(wanted, *undone)
    return tuple(left)


def _transaction(connection: Connection) -> int:
    """The number of the running transaction.

    It is asked of the driver, so that a COMMIT sent as text shows as well.
    """
    row = psycopg.Cursor(_session(connection)).execute("SELECT txid_current()").fetchone()
    return int(row[0]) if row else 0


def named(found: Changes, before: Look) -> Seen:
    """What became of tables and columns, by their names in `before`."""
    name = {oid: table.name for oid, table in before.tables.items()}
    sequences = {oid for oid in found.gone if before.tables[oid].is_sequence}
    return Seen(
        tables=tuple(sorted(name[oid] for oid in found.gone - sequences)),
        sequences=tuple(sorted(name[oid] for oid in sequences)),
        columns=tuple(sorted((name[oid], column) for oid, column in found.columns)),
        retyped=tuple(
            sorted((name[oid], column, types) for (oid, column), types in found.retyped.items())
        ),
        rewritten=tuple(sorted((name[oid], column) for oid, column in found.rewritten)),
        moved=tuple(sorted(name[oid] for oid in found.moved)),
    )


def _seen(
    before: Look, after: Look, objects: frozenset[str], notes: _Notes, left: tuple[str, ...]
) -> Seen:
    found = changes(before, after)
    rows = named(found, before)
    touched = {
        before.tables[oid].name: tuple(
            replace(touch, file=notes.files[touch.revision]) for touch in touches
        )
        for oid, touches in sorted(notes.touched.items())
        if oid not in found.gone
    }
    told = {f"{space}.{table}" for space, table in rows.tables} | {t for _, t in rows.tables}
    return replace(
        rows,
        touched=touched,
        schemas=tuple(sorted(n for oid, n in before.schemas.items() if oid not in after.schemas)),
        objects=tuple(sorted(each for each in objects if not _is_part(each, told))),
        left=left,
        beside=tuple(dict.fromkeys(notes.beside)),
        steps=notes.steps,
    )


def _is_part(found: str, tables: set[str]) -> bool:
    """Whether an object such as `index orders.by_total` belongs to one of the tables."""
    name = found.partition(" ")[2]
    return any(name.startswith(f"{table}.") for table in tables)

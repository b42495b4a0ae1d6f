"""Statements that work on an index or a partition while others read and write (CONCURRENTLY).

Such a statement runs outside of transactions, and waits for every transaction that is older. While
it does, it keeps nobody from reading or writing, so it may wait for longer than other statements of
a revision: a `lock_timeout` would only leave an INVALID index behind (strong_migrations#233).

`IF NOT EXISTS` takes an INVALID index for a finished one. So before an index is built, one of its
name is looked for. That of an earlier try of the same revision is dropped; any other one is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.errors import StoreBusy, StoreConflict
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.own_schema import literal

#: Blanks and comments before the first word of a statement.
_BEFORE = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_QUALIFIED = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
#: The grammar's own beginnings (the manual's pages of these commands). None of them can stand in a
#: transaction, nor beside another statement.
_BUILD = re.compile(
    rf"{_BEFORE}CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    rf"(?:(?P<index>{_NAME})\s+)?ON\s+(?:ONLY\s+)?(?P<table>{_QUALIFIED})",
    re.IGNORECASE | re.DOTALL,
)
_REBUILD = re.compile(
    rf"{_BEFORE}REINDEX\s+(?:\([^)]*\)\s*)?(?P<kind>INDEX|TABLE)\s+CONCURRENTLY\s+"
    rf"(?P<name>{_QUALIFIED})",
    re.IGNORECASE | re.DOTALL,
)
_OTHERS = re.compile(
    rf"{_BEFORE}(?:DROP\s+INDEX\s+CONCURRENTLY\b|REINDEX\s+(?:\([^)]*\)\s*)?\w+\s+CONCURRENTLY\b"
    rf"|REINDEX\s+\([^)]*\bCONCURRENTLY\b"
    rf"|ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?{_QUALIFIED}\s+DETACH\s+PARTITION\s+{_QUALIFIED}"
    rf"\s+CONCURRENTLY\b)",
    re.IGNORECASE | re.DOTALL,
)
#: An invalid index of one name in the schema of a table: its whole name, whether it is on this
#: table, and the session that builds it just now.
_INVALID = """
    SELECT concat_ws(E'\\n', quote_ident(n.nspname) || '.' || quote_ident(c.relname),
                     i.indrelid = t.oid,
                     (SELECT p.pid FROM pg_stat_progress_create_index p
                      WHERE p.index_relid = c.oid AND p.pid <> pg_backend_pid() LIMIT 1))
    FROM pg_class t JOIN pg_class c ON c.relnamespace = t.relnamespace
    JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid
    WHERE t.oid = to_regclass({table}) AND c.relname = {index} AND c.relkind = 'i'
      AND NOT i.indisvalid
"""
#: What rebuilding an index, or those of a table, has left: the server names such an index.
_LEFT_BY_REBUILD = """
    SELECT string_agg(quote_ident(n.nspname) || '.' || quote_ident(c.relname), E'\\n')
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.indrelid IN (to_regclass({name}),
                         (SELECT indrelid FROM pg_index WHERE indexrelid = to_regclass({name})))
      AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
      AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid)
"""
#: Takes the limit from the session, if it is the one that we have set. A row says that it was.
_LIFT = """
    SELECT set_config('lock_timeout', '0', false) FROM pg_settings
    WHERE name = 'lock_timeout' AND setting = '{limit}'
"""
_LIMIT_AGAIN = "SELECT set_config('lock_timeout', '{limit}', false)"

#: The answer to a query of one value on the session of a statement. Empty: no row, or NULL.
Ask = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ConcurrentStatement:
    """A statement that leaves others alone. `index` and `table` are of one that builds an index.

    `rebuilt` is the index, or the table, whose indexes it builds again.
    """

    index: str = ""
    table: str = ""
    rebuilt: str = ""

    @classmethod
    def of(cls, text: str) -> ConcurrentStatement | None:
        """What a text begins with. None: no such statement."""
        if found := _BUILD.match(text):
            return cls(found["index"] or "", found["table"])
        if found := _REBUILD.match(text):
            return cls(rebuilt=found["name"])
        return cls() if _OTHERS.match(text) else None


class ConcurrentWork:
    """Sees to the concurrent statements of the step that runs.

    `lock_timeout_s` is what a session of a revision waits for a lock, in seconds.
    """

    def __init__(self, lock_timeout_s: float) -> None:
        self._limit = round(lock_timeout_s * 1000)
        #: The index of the step that was begun last, until it is known to be built.
        self.unfinished: ConcurrentStatement | None = None

    def prepare(self, statement: ConcurrentStatement, ask: Ask, *, is_retry: bool) -> None:
        """Make room for an index that is to be built.

        `is_retry` says that an earlier try of the step has worked outside of its transaction.
        Raises `StoreConflict` for an INVALID index of that name that is not known to be ours, and
        `StoreBusy` while another session builds it.
        """
        if statement.index:
            self._make_room(statement, ask, is_retry=is_retry)
        elif statement.rebuilt and is_retry:
            for drop in drops_after_rebuild(statement, ask):
                ask(drop)

    def _make_room(self, statement: ConcurrentStatement, ask: Ask, *, is_retry: bool) -> None:
        found = invalid_index(statement, ask)
        if found is None:
            return
        if found.builder:
            raise StoreBusy(
                NAME,
                f"Session {found.builder} is building index {found.name} just now.",
                subject=found.name,
                hint="Wait until it has ended, or end it (pg_stat_progress_create_index).",
            )
        is_ours = is_retry or self.unfinished == statement
        if is_ours and found.is_of_table:
            ask(f"DROP INDEX CONCURRENTLY IF EXISTS {found.name}")
            return
        raise StoreConflict(
            NAME,
            f"Index {found.name} is there and INVALID: a CREATE INDEX CONCURRENTLY of somebody did "
            "not end. The server would take it for the one that is to be built.",
            subject=found.name,
            hint=f"Drop it and run again: DROP INDEX CONCURRENTLY {found.name};",
        )

    @contextmanager
    def patient(self, ask: Ask) -> Iterator[None]:
        """While inside, the session waits for older transactions as long as it takes.

        A limit that `env.py` or the revision has set itself holds.
        """
        is_lifted = self.lift(ask)
        try:
            yield
        finally:
            if is_lifted:
                with suppress(psycopg.Error):
                    self.limit_again(ask)

    def lift(self, ask: Ask) -> bool:
        """Take our limit from the session, if it is there. Whether it was."""
        return bool(ask(_one(_LIFT.format(limit=self._limit))))

    def limit_again(self, ask: Ask) -> None:
        """Give the session our limit again."""
        ask(_LIMIT_AGAIN.format(limit=self._limit))


@dataclass(frozen=True, slots=True)
class InvalidIndex:
    """An index that is not valid. `builder` is the session that builds it just now."""

    name: str
    is_of_table: bool
    builder: str = ""


def invalid_index(statement: ConcurrentStatement, ask: Ask) -> InvalidIndex | None:
    """The INVALID index that has the name of the one that a statement builds."""
    table, index = literal(statement.table), literal(_plain(statement.index))
    found = ask(_one(_INVALID.format(table=table, index=index)))
    if not found:
        return None
    name, is_of_table, *builder = found.split("\n")
    return InvalidIndex(name, is_of_table == "t", "".join(builder))


def drops_after_rebuild(statement: ConcurrentStatement, ask: Ask) -> list[str]:
    """The statements that drop the INVALID copies which earlier tries of a rebuild have left."""
    left = ask(_one(_LEFT_BY_REBUILD.format(name=literal(statement.rebuilt))))
    names = left.split("\n") if left else ()
    return [f"DROP INDEX CONCURRENTLY IF EXISTS {name}" for name in names]


def asking(session: psycopg.Connection[Any]) -> Ask:
    """Asks on a session of our own, in autocommit mode."""

    def ask(query: str) -> str:
        found = session.execute(query.encode())
        row = found.fetchone() if found.description else None
        return "" if row is None or row[0] is None else str(row[0])

    return ask


def _one(query: str) -> str:
    """A query of one row, which has an empty text where the query has none."""
    return f"SELECT coalesce(({query}), '')"


def _plain(name: str) -> str:
    """A name as the server has it."""
    if name.startswith('"'):
        return name[1:-1].replace('""', '"')
    return name.lower()

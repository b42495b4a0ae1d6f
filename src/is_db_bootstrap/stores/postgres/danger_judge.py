"""What statements are judged by: the plan so far, and what is in the tables now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import psycopg

from is_db_bootstrap.results import Danger, DangerKind
from is_db_bootstrap.stores.postgres.live_rows import LiveRows, NotSeen
from is_db_bootstrap.stores.postgres.planned_tables import PlannedTable, PlannedTables
from is_db_bootstrap.stores.postgres.server_words import told
from is_db_bootstrap.stores.postgres.sql_syntax import Name, name_of, quoted


class Judge:
    """Knows of each table what the plan has done to it, and asks `rows` for what is in it.

    Without `rows` there is no server: whether a table has rows is not known then. `schema` is the
    one in which a name without a schema is.
    """

    def __init__(self, rows: LiveRows | None, schema: str) -> None:
        self.rows = rows
        self.tables = PlannedTables()
        self._schema = schema

    def name(self, relation: Any) -> Name:
        """The name of a table in a statement."""
        return self.plain(name_of(relation))

    def plain(self, name: Name) -> Name:
        """The name without the schema in which we are."""
        return Name("", name.table) if name.schema == self._schema else name

    def planned(self, name: Name) -> PlannedTable:
        """What the plan has done to a table so far."""
        return self.tables.table(name)

    def source(self, name: Name, alias: str = "live") -> str:
        """The live table for a FROM, with the names that the plan has given its columns."""
        planned = self.planned(name)
        table = (planned.live or name).quoted
        if not planned.renamed:
            return f"{table} {alias}"
        renamed = [f"{quoted(old)} AS {quoted(new)}" for new, old in planned.renamed.items()]
        columns = ", ".join(["*", *renamed])
        return f"(SELECT {columns} FROM {table}) {alias}"  # noqa: S608 - quoted names

    def is_there(self, name: Name) -> bool:
        """Whether a table may be there now. Without a server, each that is not new may be."""
        live = self.planned(name).live
        if live is None or self.rows is None:
            return live is not None
        try:
            return self.rows.table(live) is not None
        except NotSeen:
            return True

    def extent(self, name: Name) -> str | None:
        """How large a table is that has rows, in words.

        None for one without rows, one that the plan creates, and one that is not there. Empty when
        there is no server to ask.
        """
        live = self.planned(name).live
        if live is None:
            return None
        if self.rows is None:
            return ""
        try:
            if not self.rows.is_filled(live):
                return None
            table = self.rows.table(live)
        except NotSeen as exc:
            return f"its rows {exc}"
        return table.extent if table else None

    def in_brackets(self, name: Name) -> str:
        """The extent of a table as a sentence takes it, ` (about 7 rows, 8192 bytes)`."""
        extent = self.extent(name)
        return f" ({extent})" if extent else ""

    def locks(self, name: Name, text: str) -> Iterator[Danger]:
        """A wait for others, if the server says that the table has rows. `{}` is its extent."""
        if extent := self.extent(name):
            yield Danger(DangerKind.LOCKS, str(name), text.format(extent))

    def rewrites(self, name: Name, text: str) -> Iterator[Danger]:
        """A table that is written anew, unless it has no rows."""
        if self.extent(name) is not None:
            size = self.in_brackets(name)
            yield Danger(
                DangerKind.REWRITES,
                str(name),
                f"{text}{size}, and readers and writers wait until that is done.",
            )

    def has(self, query: str) -> bool | None:
        """Whether a query finds a row. None when that could not be seen."""
        try:
            return None if self.rows is None else self.rows.has(query)
        except (NotSeen, psycopg.DataError):
            return None

    def refused(
        self, name: Name, query: str, seen: str, asked: str, columns: Collection[str] = ()
    ) -> Iterator[Danger]:
        """What the rows of a table do not allow now.

        `query` finds a row in the way, `seen` says then what there is, and `asked` is what was to
        be found out, behind "Whether". `columns` are those that the query names.
        """
        if self.rows is None or self.extent(name) is None:
            return
        planned = self.planned(name)
        is_unsure = self.tables.is_unsure(name)
        if new := sorted(set(columns) & planned.new_columns.keys()):
            if is_unsure or any(planned.new_columns[column] for column in new):
                why = f"could not be seen, because the plan adds {', '.join(new)}"
                yield unseen(name, f"Whether {asked} {why}.")
            return
        try:
            if not self.rows.has(query):
                return
        except NotSeen as exc:
            yield unseen(name, f"Whether {asked} {exc}.")
            return
        except psycopg.DataError as exc:
            # The message of the server may have the value, and a plan is read by many.
            yield Danger(DangerKind.REFUSED, str(name), f"{seen} ({told(exc, query)[0]}).")
            return
        if is_unsure:
            yield unseen(name, f"{seen} now. What the plan itself writes before could not be seen.")
        else:
            yield Danger(DangerKind.REFUSED, str(name), f"{seen}.")


def drops(name: object, text: str) -> Danger:
    """Something that is gone afterwards."""
    return Danger(DangerKind.DROPS, str(name), text)


def unseen(name: object, text: str) -> Danger:
    """Something that could not be looked at."""
    return Danger(DangerKind.UNSEEN, str(name), text)

"""What is in the tables now, found with queries that are bounded.

Each query runs in a read-only transaction of its own with a `statement_timeout`, stops at the first
row that answers it, and waits for no lock for longer. Row security is off, so that rows a policy
hides make the query fail: what could not be seen is never taken for "none".
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.stores.postgres.server_words import told
from is_db_bootstrap.stores.postgres.sql_syntax import Name
from is_db_bootstrap.wording import noun

#: Seconds that one query may take.
QUERY_S = 2.0
#: Seconds that all queries of one plan may take together.
ALL_S = 20.0
#: Shorter than this a query is not begun.
_SHORTEST_S = 0.05
#: So many of a unit are shown as the next larger one.
_NEXT_UNIT = 10_240

_TABLE = """
    SELECT c.oid::bigint, c.relkind::text, c.relpersistence::text,
           CASE WHEN c.relkind = 'p'
                THEN (SELECT sum(greatest(l.reltuples, 0))
                        FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid
                       WHERE p.isleaf)
                ELSE c.reltuples END::float8,
           CASE WHEN c.relkind = 'p'
                THEN (SELECT coalesce(sum(pg_table_size(p.relid)), 0)
                        FROM pg_partition_tree(c.oid) p WHERE p.isleaf)
                ELSE pg_table_size(c.oid) END::bigint
    FROM pg_class c WHERE c.oid = to_regclass(%s)
"""


class NotSeen(Exception):
    """A look that gave no answer. Its text says why, as the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A table that is there now. `rows` is the server's estimate, or None. `size` is bytes."""

    oid: int
    kind: str
    persistence: str
    rows: int | None
    size: int

    @property
    def extent(self) -> str:
        """How large the table is, in words."""
        if self.rows is None:
            return f"rows not counted yet, {_bytes(self.size)}"
        return f"about {self.rows:,} {noun(self.rows, 'row')}, {_bytes(self.size)}"


def _bytes(size: int) -> str:
    """A size as `pg_size_pretty` has it."""
    number = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < _NEXT_UNIT:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.0f} TB"


class LiveRows:
    """Looks through `session`, an autocommit session.

    A query may take `query_s` seconds, and all of them together `all_s`.
    """

    def __init__(
        self,
        session: psycopg.Connection[Any],
        *,
        query_s: float = QUERY_S,
        all_s: float = ALL_S,
    ) -> None:
        self._session = session
        self._query_s = query_s
        self._all_s = all_s
        self._left_s = all_s
        self._tables: dict[Name, LiveTable | None] = {}
        self._filled: dict[Name, bool] = {}

    def table(self, name: Name) -> LiveTable | None:
        """The table of that name, or None. Raises `NotSeen`."""
        if name not in self._tables:
            row = self.first(_TABLE, [name.quoted])
            self._tables[name] = None if row is None else _live_table(row)
        return self._tables[name]

    def is_filled(self, name: Name) -> bool:
        """Whether the table is there and has a row. Raises `NotSeen`."""
        if name not in self._filled:
            found = self.table(name)
            has_rows = found is not None and found.size > 0 and found.kind in {"r", "p", "m"}
            self._filled[name] = has_rows and self.has(f"SELECT 1 FROM {name.quoted} LIMIT 1")
        return self._filled[name]

    def has(self, query: str) -> bool:
        """Whether a query finds a row. Raises `NotSeen`, and `psycopg.DataError` of a value."""
        return self.first(query) is not None

    def first(self, query: str, values: list[Any] | None = None) -> tuple[Any, ...] | None:
        """The first row of a query. Raises `NotSeen`, and `psycopg.DataError` of a value."""
        return self._asked(query, values)[0]

    def result_types(self, query: str) -> list[tuple[int, int]]:
        """Number and modifier of the type of each column of a query. Raises as `first`."""
        return self._asked(query, None)[1]

    def _asked(
        self, query: str, values: list[Any] | None
    ) -> tuple[tuple[Any, ...] | None, list[tuple[int, int]]]:
        limit_s = min(self._query_s, self._left_s)
        if limit_s < _SHORTEST_S:
            raise NotSeen(f"could not be seen within the {self._all_s:g} s that a plan may look")
        begin = time.monotonic()
        limit = f"SET LOCAL statement_timeout = {int(limit_s * 1000)}"
        wait = f"SET LOCAL lock_timeout = {int(limit_s * 1000)}"
        try:
            with self._session.transaction():
                self._session.execute("SET TRANSACTION READ ONLY")
                self._session.execute(limit.encode())
                self._session.execute(wait.encode())
                self._session.execute("SET LOCAL row_security = off")
                cursor = self._session.execute(query.encode(), values)
                return cursor.fetchone(), _types(cursor)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as exc:
            raise NotSeen(f"could not be seen within {limit_s:g} s") from exc
        except (psycopg.DataError, psycopg.OperationalError):
            raise
        except psycopg.Error as exc:
            raise NotSeen(f"could not be seen: {told(exc, query)[0]}") from exc
        finally:
            self._left_s -= time.monotonic() - begin


def _types(cursor: psycopg.Cursor[Any]) -> list[tuple[int, int]]:
    result = cursor.pgresult
    if result is None:
        return []
    return [(result.ftype(place), result.fmod(place)) for place in range(result.nfields)]


def _live_table(row: tuple[Any, ...]) -> LiveTable:
    oid, kind, persistence, rows, size = row
    is_counted = rows is not None and rows >= 0 and not (rows == 0 and size > 0)
    return LiveTable(oid, kind, persistence, int(rows) if is_counted else None, size)

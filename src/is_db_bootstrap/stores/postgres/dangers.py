"""What a person should look at before the SQL of pending revisions runs.

Statements are read by PostgreSQL's own parser, gone through in order, and judged by what is in the
tables now. Nothing is written. `danger_judge` knows the plan so far, `live_rows` asks the server,
and `table_dangers`, `column_dangers` and `constraint_dangers` have the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from is_db_bootstrap.results import Change, Danger
from is_db_bootstrap.stores.postgres import statement_dangers
from is_db_bootstrap.stores.postgres.danger_judge import Judge, unseen
from is_db_bootstrap.stores.postgres.live_rows import ALL_S, QUERY_S, LiveRows
from is_db_bootstrap.stores.postgres.sql_syntax import (
    INSTALL,
    ParserMissing,
    Unreadable,
    beginning,
    statements_of,
)


class PlanDangers:
    """Goes through the statements of a plan, revision by revision.

    `session` is an autocommit session that looks, or None without a server: then only what is sure
    without one is found, such as drops. `schema` is the one of the search path. One query may take
    `query_s` seconds, and all of them `all_s`.
    """

    def __init__(
        self,
        session: psycopg.Connection[Any] | None,
        schema: str = "public",
        *,
        query_s: float = QUERY_S,
        all_s: float = ALL_S,
    ) -> None:
        rows = LiveRows(session, query_s=query_s, all_s=all_s) if session is not None else None
        self._judge = Judge(rows, schema)
        self._is_parser_missed = False

    def of(self, statements: Sequence[str], *, is_code: bool = False) -> tuple[Danger, ...]:
        """The dangers of one revision, whose `statements` come next.

        With `is_code` the revision runs Python, which may write any row.
        """
        found = []
        try:
            for place, text in enumerate(statements):
                found += [replace(each, statement=place) for each in self._of_text(text)]
        except ParserMissing as exc:
            found = [] if self._is_parser_missed else [_parser_missing(exc)]
            self._is_parser_missed = True
        if is_code:
            self._judge.tables.code_ran = True
        return tuple(found)

    def _of_text(self, text: str) -> Iterator[Danger]:
        try:
            nodes = statements_of(text)
        except Unreadable as exc:
            yield unseen(
                beginning(text),
                f"The statement could not be read: {exc}. PostgreSQL may refuse it too.",
            )
            return
        for node in nodes:
            yield from statement_dangers.of(self._judge, node)


def _parser_missing(exc: ParserMissing) -> Danger:
    return unseen(
        "SQL",
        f"The statements could not be read, because postgast is missing here ({exc}). "
        f"Install it with `{INSTALL}`.",
    )


def with_dangers(
    changes: Iterable[Change],
    session: psycopg.Connection[Any] | None,
    schema: str = "public",
) -> list[Change]:
    """The changes of a plan in order, each with the dangers of its statements."""
    found = PlanDangers(session, schema)
    return [_with_dangers(found, change) for change in changes]


def _with_dangers(found: PlanDangers, change: Change) -> Change:
    if not change.statements and not change.is_code:
        return change
    dangers = found.of(change.statements, is_code=change.is_code)
    return replace(change, dangers=(*change.dangers, *dangers))

"""What `repair` sends to make what is missing and holds no rows.

An index is built while others read and write (CONCURRENTLY), in no transaction. A build that is cut
off leaves the index INVALID, which the next repair builds again. That repair also drops what a
rebuild that was cut off has left beside the index. Everything else of a repair is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import psycopg

from is_db_bootstrap.engine.store import MadeByOther
from is_db_bootstrap.results import Change, Danger, RepairPlan
from is_db_bootstrap.stores.postgres.concurrent_index import (
    ConcurrentStatement,
    asking,
    drops_after_rebuild,
)
from is_db_bootstrap.stores.postgres.dangers import PlanDangers

#: What the server says of an object that is there: 42710 for a constraint, a trigger or statistics,
#: 42P07 for an index.
_THERE = (psycopg.errors.DuplicateObject, psycopg.errors.DuplicateTable)
_LIMIT = "SELECT set_config('lock_timeout', '0', false)"


def with_dangers(
    plan: RepairPlan, session: psycopg.Connection[Any], schema: str = "public"
) -> RepairPlan:
    """The plan with the dangers of its statements, and what drops the rest of earlier rebuilds.

    A change that rows refuse is left out, as a drift that says which rows these are.
    """
    judge = PlanDangers(session, schema)
    changes = [
        _with_leftovers(
            replace(change, dangers=_with_places(change, judge.of(_judged(change)))), session
        )
        for change in plan.changes
    ]
    return replace(plan, changes=tuple(changes)).without_refused()


def _judged(change: Change) -> tuple[str, ...]:
    """The statements whose dangers are looked for.

    An index that is built again may meet the same rows as one that is made.
    """
    if change.kind != "index" or change.actual is None:
        return change.statements
    table, _, _ = change.name.rpartition(".")
    unique = "UNIQUE " if change.declared.startswith("UNIQUE ") else ""
    using = change.declared.removeprefix("UNIQUE ")
    return (f"CREATE {unique}INDEX CONCURRENTLY ON {table} USING {using}",)


def _with_places(change: Change, dangers: Iterable[Danger]) -> tuple[Danger, ...]:
    """The dangers, each with the place of a statement that the change has."""
    last = len(change.statements) - 1
    return tuple(replace(each, statement=min(each.statement or 0, last)) for each in dangers)


def _with_leftovers(change: Change, session: psycopg.Connection[Any]) -> Change:
    """The change, which first drops the INVALID copies (`…_ccnew`) that its rebuild has left.

    Nobody reads them, and each write to the table has to keep them up to date.
    """
    rebuilds = [s for s in map(ConcurrentStatement.of, change.statements) if s and s.rebuilt]
    drops = [f"{drop};" for each in rebuilds for drop in drops_after_rebuild(each, asking(session))]
    later = [replace(each, statement=(each.statement or 0) + len(drops)) for each in change.dangers]
    return replace(change, statements=(*drops, *change.statements), dangers=tuple(later))


def run(session: psycopg.Connection[Any], change: Change) -> str | None:
    """Send the statements of a change. Returns a remark when it was made meanwhile."""
    is_concurrent = any(map(ConcurrentStatement.of, change.statements))
    try:
        if is_concurrent:
            session.autocommit = True
            # A wait that is cut off would only leave an INVALID index behind.
            session.execute(_LIMIT)
        for statement in change.statements:
            session.execute(statement.encode())
        if not is_concurrent:
            session.commit()
    except _THERE:
        return MadeByOther(f"{change.kind.capitalize()} {change.name} was made meanwhile.")
    return None

"""The work queue, served at least once by several workers side by side.

A claimed row that a worker neither finishes nor gives back becomes due again by itself. A row
whose `attempts` have reached `max_attempts` is not handed out any more. The scheduler marks the
task of such a row as failed and deletes the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, delete, func, select, update

from is_db_bootstrap.blueprints.context_service.models import QueuedEvent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.dml import Delete, Update


async def claim(session: AsyncSession, batch: int = 1) -> Sequence[QueuedEvent]:
    """Take up to `batch` due rows, ordered by priority and then by the time they were due.

    Other workers do not see a claimed row for `visibility_timeout` seconds. Commit soon. Until the
    commit, other workers skip these rows, and a rollback gives them back without counting an
    attempt. Each row is returned as the claim left it. Its `attempts` is the proof of the claim
    that `done` and `give_back` check.
    """
    due = (
        select(QueuedEvent.id, QueuedEvent.available_at)
        .where(
            QueuedEvent.available_at <= func.now(),
            QueuedEvent.attempts < QueuedEvent.max_attempts,
        )
        .order_by(QueuedEvent.priority, QueuedEvent.available_at, QueuedEvent.id)
        .limit(batch)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    hidden_until = func.now() + _seconds_interval(QueuedEvent.visibility_timeout)
    statement = (
        update(QueuedEvent)
        .where(QueuedEvent.id == due.c.id)
        .values(attempts=QueuedEvent.attempts + 1, available_at=hidden_until)
        .returning(QueuedEvent, due.c.available_at.label("was_due"))
    )
    options = {"synchronize_session": False, "populate_existing": True}
    claimed = await session.execute(statement, execution_options=options)

    # An UPDATE returns its rows in no particular order.
    pairs = [(row, was_due) for row, was_due in claimed]
    pairs.sort(key=_serving_order)
    return [row for row, _ in pairs]


async def done(session: AsyncSession, row: QueuedEvent) -> bool:
    """Remove a finished row.

    Returns False, and removes nothing, when another worker has claimed the row since.
    """
    statement = delete(QueuedEvent).where(
        QueuedEvent.id == row.id,
        QueuedEvent.attempts == row.attempts,
    )
    return await _changes_one_row(session, statement)


async def give_back(session: AsyncSession, row: QueuedEvent, delay: float) -> bool:
    """Make the row due again in `delay` seconds, for a retry.

    Returns False, and changes nothing, when another worker has claimed the row since.
    """
    statement = (
        update(QueuedEvent)
        .where(QueuedEvent.id == row.id, QueuedEvent.attempts == row.attempts)
        .values(available_at=func.now() + _seconds_interval(delay))
    )
    return await _changes_one_row(session, statement)


def _serving_order(pair: tuple[QueuedEvent, datetime]) -> tuple[int, datetime, UUID]:
    row, was_due = pair
    return row.priority, was_due, row.id


def _seconds_interval(seconds: Any) -> Any:
    """A PostgreSQL interval. The arguments before the seconds are years to minutes."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


async def _changes_one_row(session: AsyncSession, statement: Update | Delete) -> bool:
    result = await session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[object]", result).rowcount == 1

"""Working the queue: at least once, by several workers side by side.

A claim that is neither finished nor given back becomes due again by itself. A row whose `attempts` have reached
`max_attempts` is handed out no more: the scheduler marks its task failed and deletes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy import CursorResult, delete, func, select, update

from is_db_bootstrap.blueprints.context_service.models import QueuedEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.dml import Delete, Update


async def claim(session: AsyncSession, batch: int = 1) -> Sequence[QueuedEvent]:
    """Up to `batch` due rows, by priority and then time, hidden from others for their `visibility_timeout` seconds.

    Commit soon: until then, other workers skip these rows, and a rollback gives them back uncounted. The rows come as the
    claim left them; `attempts` is what proves the claim to `done` and `give_back`.
    """
    due = (
        select(QueuedEvent.id, QueuedEvent.available_at)
        .where(QueuedEvent.available_at <= func.now(), QueuedEvent.attempts < QueuedEvent.max_attempts)
        .order_by(QueuedEvent.priority, QueuedEvent.available_at, QueuedEvent.id)
        .limit(batch)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    hidden_until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, QueuedEvent.visibility_timeout)
    statement = (
        update(QueuedEvent)
        .where(QueuedEvent.id == due.c.id)
        .values(attempts=QueuedEvent.attempts + 1, available_at=hidden_until)
        .returning(QueuedEvent, due.c.available_at.label("was_due"))
    )
    options = {"synchronize_session": False, "populate_existing": True}
    rows = (await session.execute(statement, execution_options=options)).all()
    return [row for row, _ in sorted(rows, key=lambda pair: (pair[0].priority, pair[1], pair[0].id))]


async def done(session: AsyncSession, row: QueuedEvent) -> bool:
    """Remove a finished row; False when the claim was not ours any more, and then nothing was removed."""
    return await _changes(session, delete(QueuedEvent).where(QueuedEvent.id == row.id, QueuedEvent.attempts == row.attempts))


async def give_back(session: AsyncSession, row: QueuedEvent, delay: float) -> bool:
    """Let the row be due in `delay` seconds, for a retry; False when the claim was not ours any more."""
    statement = (
        update(QueuedEvent)
        .where(QueuedEvent.id == row.id, QueuedEvent.attempts == row.attempts)
        .values(available_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, delay))
    )
    return await _changes(session, statement)


async def _changes(session: AsyncSession, statement: Update | Delete) -> bool:
    found = await session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[object]", found).rowcount == 1

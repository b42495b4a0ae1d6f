"""Publishing what the outbox holds: at least once, by several relays side by side.

A relay first calls `reclaim`, then `claim`, delivers, and tells each message `sent` or `failed`. Order across relays is
not promised; consumers drop repeats by the message's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, bindparam, case, func, select, update
from sqlalchemy import cast as as_type

from is_db_bootstrap.blueprints.novel_genesis.models import OutboxMessage, OutboxStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Update
    from sqlalchemy.ext.asyncio import AsyncSession

#: How many messages a relay takes at once, and for how many seconds they are its own.
BATCH, LEASE_S = 100, 60
#: Back-off after a failed delivery: 1, 2, 4, … and at most so many seconds.
LONGEST_DELAY_S = 60
LAPSED = "lease expired"


async def claim(session: AsyncSession, batch: int = BATCH, *, lease_s: float = LEASE_S) -> Sequence[OutboxMessage]:
    """Up to `batch` due messages, the longest due first, leased for `lease_s` seconds. Commit before delivering."""
    due = (
        select(OutboxMessage.id, OutboxMessage.scheduled_at)
        .where(OutboxMessage.status == _literal(OutboxStatus.PENDING), OutboxMessage.scheduled_at <= func.now())
        .order_by(OutboxMessage.scheduled_at, OutboxMessage.created_at)
        .limit(batch)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    statement = (
        update(OutboxMessage)
        .where(OutboxMessage.id == due.c.id)
        .values(status=OutboxStatus.PROCESSING, scheduled_at=func.now() + _seconds(lease_s))
        .returning(OutboxMessage, due.c.scheduled_at.label("was_due"))
    )
    options = {"synchronize_session": False, "populate_existing": True}
    rows = (await session.execute(statement, execution_options=options)).all()
    return [message for message, _ in sorted(rows, key=lambda pair: (pair[1], pair[0].created_at))]


async def sent(session: AsyncSession, id: UUID) -> bool:  # noqa: A002 - the column's name
    """Record a delivery; False when the message is not being processed any more."""
    statement = update(OutboxMessage).values(status=OutboxStatus.SENT, sent_at=func.now(), last_error=None)
    return await _of_claimed(session, statement, id)


async def failed(session: AsyncSession, id: UUID, error: str) -> bool:  # noqa: A002 - the column's name
    """Record a failed delivery: due again after a growing delay, or FAILED at `max_retries`; False as for `sent`."""
    delay = func.least(LONGEST_DELAY_S, func.power(2, func.least(OutboxMessage.retry_count, 6)))
    statement = update(OutboxMessage).values(_failure(error) | {"scheduled_at": func.now() + _seconds(delay)})
    return await _of_claimed(session, statement, id)


async def reclaim(session: AsyncSession) -> int:
    """Give back messages whose lease has lapsed, each counted as a failed delivery; how many."""
    lapsed = (
        select(OutboxMessage.id)
        .where(OutboxMessage.status == _literal(OutboxStatus.PROCESSING), OutboxMessage.scheduled_at <= func.now())
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(OutboxMessage).where(OutboxMessage.id.in_(lapsed)).values(_failure(LAPSED) | {"scheduled_at": func.now()})
    )
    return await _count(session, statement)


def _failure(error: str) -> dict[str, Any]:
    last = OutboxMessage.retry_count + 1 >= OutboxMessage.max_retries
    kind = OutboxMessage.__table__.c.status.type
    return {
        "retry_count": func.least(OutboxMessage.retry_count + 1, OutboxMessage.max_retries),
        "status": case((last, as_type(OutboxStatus.FAILED, kind)), else_=as_type(OutboxStatus.PENDING, kind)),
        "last_error": error,
    }


def _literal(status: OutboxStatus) -> Any:
    """The label in the text: the generic plan of a prepared statement takes a partial index for no parameter."""
    return bindparam(None, status, type_=OutboxMessage.__table__.c.status.type, literal_execute=True)


def _seconds(number: Any) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, number)


async def _of_claimed(session: AsyncSession, statement: Update, id: UUID) -> bool:  # noqa: A002 - the column's name
    claimed = statement.where(OutboxMessage.id == id, OutboxMessage.status == OutboxStatus.PROCESSING)
    return await _count(session, claimed) == 1


async def _count(session: AsyncSession, statement: Update) -> int:
    found = await session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", found).rowcount

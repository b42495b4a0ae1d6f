"""Publishing the messages of the outbox at least once, by several relays side by side.

A relay first calls `reclaim` and then `claim`, delivers each message, and reports each delivery
with `sent` or `failed`. The order of messages across relays is not promised. Consumers drop
repeated messages by their id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, bindparam, case, func, select, update
from sqlalchemy import cast as sql_cast

from is_db_bootstrap.blueprints.novel_genesis.models import OutboxMessage, OutboxStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Update
    from sqlalchemy.ext.asyncio import AsyncSession

#: How many messages a relay claims at once.
BATCH = 100
#: Seconds for which a claimed message belongs to its relay.
LEASE_S = 60
#: Longest delay after a failed delivery, in seconds. The delays are 1, 2, 4 and so on.
LONGEST_DELAY_S = 60
#: The error of a message whose relay did not report in time.
LAPSED = "lease expired"

_STATUS_TYPE = OutboxMessage.__table__.c.status.type


async def claim(
    session: AsyncSession,
    batch: int = BATCH,
    *,
    lease_s: float = LEASE_S,
) -> Sequence[OutboxMessage]:
    """Lease up to `batch` due messages for `lease_s` seconds, the longest due first.

    Commit before delivering the messages. Messages that another relay is claiming are skipped.
    """
    due = (
        select(OutboxMessage.id, OutboxMessage.scheduled_at)
        .where(
            OutboxMessage.status == _literal_status(OutboxStatus.PENDING),
            OutboxMessage.scheduled_at <= func.now(),
        )
        .order_by(OutboxMessage.scheduled_at, OutboxMessage.created_at)
        .limit(batch)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    lease_end = func.now() + _seconds_interval(lease_s)
    statement = (
        update(OutboxMessage)
        .where(OutboxMessage.id == due.c.id)
        .values(status=OutboxStatus.PROCESSING, scheduled_at=lease_end)
        .returning(OutboxMessage, due.c.scheduled_at.label("was_due"))
    )
    options = {"synchronize_session": False, "populate_existing": True}
    claimed = await session.execute(statement, execution_options=options)

    # An UPDATE returns its rows in no particular order.
    pairs = [(message, was_due) for message, was_due in claimed]
    pairs.sort(key=_delivery_order)
    return [message for message, _ in pairs]


async def sent(session: AsyncSession, id: UUID) -> bool:  # noqa: A002 - the column's name
    """Record a delivery. Returns False when the message is not being processed any more."""
    statement = update(OutboxMessage).values(
        status=OutboxStatus.SENT,
        sent_at=func.now(),
        last_error=None,
    )
    return await _update_claimed(session, statement, id)


async def failed(
    session: AsyncSession,
    id: UUID,  # noqa: A002 - the column's name
    error: str,
) -> bool:
    """Record a failed delivery.

    The message is due again after a growing delay, or FAILED after `max_retries` failures.
    Returns False when the message is not being processed any more.
    """
    doublings = func.least(OutboxMessage.retry_count, 6)
    delay_s = func.least(LONGEST_DELAY_S, func.power(2, doublings))
    retry_at = func.now() + _seconds_interval(delay_s)
    values = _failure_values(error) | {"scheduled_at": retry_at}
    return await _update_claimed(session, update(OutboxMessage).values(values), id)


async def reclaim(session: AsyncSession) -> int:
    """Take back the messages whose lease has lapsed, and return how many there were.

    A lapsed lease counts as a failed delivery. The message is due again at once.
    """
    lapsed = (
        select(OutboxMessage.id)
        .where(
            OutboxMessage.status == _literal_status(OutboxStatus.PROCESSING),
            OutboxMessage.scheduled_at <= func.now(),
        )
        .with_for_update(skip_locked=True)
    )
    values = _failure_values(LAPSED) | {"scheduled_at": func.now()}
    statement = update(OutboxMessage).where(OutboxMessage.id.in_(lapsed)).values(values)
    return await _updated_count(session, statement)


def _delivery_order(pair: tuple[OutboxMessage, datetime]) -> tuple[datetime, datetime]:
    message, was_due = pair
    return was_due, message.created_at


def _failure_values(error: str) -> dict[str, Any]:
    """The values of a message whose delivery has failed once more."""
    failures = OutboxMessage.retry_count + 1
    is_last = failures >= OutboxMessage.max_retries
    given_up = sql_cast(OutboxStatus.FAILED, _STATUS_TYPE)
    due_again = sql_cast(OutboxStatus.PENDING, _STATUS_TYPE)
    return {
        "retry_count": func.least(failures, OutboxMessage.max_retries),
        "status": case((is_last, given_up), else_=due_again),
        "last_error": error,
    }


def _literal_status(status: OutboxStatus) -> Any:
    """The status written into the statement's text instead of a parameter.

    PostgreSQL may use a generic plan for a prepared statement. Such a plan cannot use a partial
    index whose condition depends on a parameter.
    """
    return bindparam(None, status, type_=_STATUS_TYPE, literal_execute=True)


def _seconds_interval(seconds: Any) -> Any:
    """A PostgreSQL interval. The arguments before the seconds are years to minutes."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


async def _update_claimed(session: AsyncSession, statement: Update, message_id: UUID) -> bool:
    """Update the message if a relay still holds it, and return whether one did."""
    claimed = statement.where(
        OutboxMessage.id == message_id,
        OutboxMessage.status == OutboxStatus.PROCESSING,
    )
    return await _updated_count(session, claimed) == 1


async def _updated_count(session: AsyncSession, statement: Update) -> int:
    result = await session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount

"""Changing a dialogue without a lock, and numbering its rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, update

from is_db_bootstrap.blueprints.novel_genesis.models import ConversationSession

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

#: Columns that the database decides.
_DATABASE_COLUMNS = frozenset({"id", "version", "created_at", "updated_at"})


async def update_if(
    session: AsyncSession,
    id: UUID,  # noqa: A002 - the column's name
    seen_version: int,
    **changes: Any,
) -> bool:
    """Change a dialogue if its version is still `seen_version`.

    Returns False when somebody else has changed or deleted the dialogue. A trigger sets the new
    version. Raises `ValueError` when no change is given, and for a column that does not exist or
    that the database decides.
    """
    _check_changes(changes)
    statement = (
        update(ConversationSession)
        .where(ConversationSession.id == id, ConversationSession.version == seen_version)
        .values(changes)
        .execution_options(synchronize_session=False)
    )
    result = await session.execute(statement)
    return cast("CursorResult[Any]", result).rowcount == 1


async def next_round(session: AsyncSession, id: UUID) -> int:  # noqa: A002 - the column's name
    """Hand out the number of the next top-level round, counted from 1.

    Other transactions wait for the dialogue's row until this transaction ends, so no number is
    given twice. Raises `LookupError` when the dialogue does not exist.
    """
    statement = (
        update(ConversationSession)
        .where(ConversationSession.id == id)
        .values(round_sequence=ConversationSession.round_sequence + 1)
        .returning(ConversationSession.round_sequence)
        .execution_options(synchronize_session=False)
    )
    number = await session.scalar(statement)
    if number is None:
        raise LookupError(f"There is no dialogue {id}.")
    return number


def _check_changes(changes: dict[str, Any]) -> None:
    if not changes:
        raise ValueError("Nothing to change.")
    changeable = set(ConversationSession.__mapper__.columns.keys()) - _DATABASE_COLUMNS
    refused = sorted(changes.keys() - changeable)
    if refused:
        raise ValueError(f"Not to be changed: {', '.join(refused)}.")

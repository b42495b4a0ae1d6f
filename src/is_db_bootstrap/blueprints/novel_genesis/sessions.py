"""Changing a dialogue without a lock, and numbering its rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, update

from is_db_bootstrap.blueprints.novel_genesis.models import ConversationSession

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


async def update_if(session: AsyncSession, id: UUID, seen_version: int, **changes: Any) -> bool:  # noqa: A002 - the column's name
    """Change a dialogue whose version is still `seen_version`; False when someone else was first, or it is gone.

    The trigger decides the new version. Raises `ValueError` without changes, and for a column that is not the caller's.
    """
    own = {"id", "version", "created_at", "updated_at"}
    refused = sorted(name for name in changes if name in own or name not in ConversationSession.__mapper__.columns)
    if refused or not changes:
        raise ValueError(f"Not to be changed: {', '.join(refused)}." if refused else "Nothing to change.")
    statement = (
        update(ConversationSession)
        .where(ConversationSession.id == id, ConversationSession.version == seen_version)
        .values(changes)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", await session.execute(statement)).rowcount == 1


async def next_round(session: AsyncSession, id: UUID) -> int:  # noqa: A002 - the column's name
    """Hand out the number of the next top-level round; `LookupError` when there is no such dialogue.

    Others wait for the row until this transaction ends, so no number is given twice.
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

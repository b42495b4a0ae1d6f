"""The archive of finished chat sessions."""

from __future__ import annotations

from sqlalchemy import select

from is_db_bootstrap.blueprints.helpdesk._transactions import (
    Sessions,
    check_page,
    count_and_page,
    given_filters,
    read_snapshot,
    write_transaction,
)
from is_db_bootstrap.blueprints.helpdesk.converters import (
    session_archive_from_orm,
    session_archive_to_orm,
)
from is_db_bootstrap.blueprints.helpdesk.domain import ArchivedSession
from is_db_bootstrap.blueprints.helpdesk.models import SessionArchiveModel


class SessionArchive:
    """Archived sessions in PostgreSQL. Threads may share an object."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def archive(self, record: ArchivedSession) -> ArchivedSession:
        """Store a session. Raises `DuplicateRecord` when the id is taken."""
        with write_transaction(self._sessions) as (session, _):
            row = session_archive_to_orm(record)
            session.add(row)
            session.flush()
            return session_archive_from_orm(row)

    def get(self, archive_id: str) -> ArchivedSession | None:
        """The archived session, or None when the id does not exist."""
        query = select(SessionArchiveModel).where(SessionArchiveModel.archive_id == archive_id)
        with self._sessions() as session:
            row = session.scalar(query)
            return session_archive_from_orm(row) if row else None

    def find(
        self,
        *,
        customer_email: str | None = None,
        agent_id: str | None = None,
        start_time: float | None = None,
        end_time: float | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[int, list[ArchivedSession]]:
        """How many sessions match, and one page of them.

        The session archived last comes first, and equal times are ordered by `archive_id`.
        `start_time` and `end_time` bound `archived_at` in epoch seconds and are inclusive. `limit`
        is 1 to 500 and `offset` at least 0, otherwise `ValueError` is raised.
        """
        check_page(limit, offset)
        archived_at = SessionArchiveModel.archived_at
        filters = given_filters(customer_email=customer_email, agent_id=agent_id)
        rows = select(SessionArchiveModel).filter_by(**filters)
        if start_time is not None:
            rows = rows.where(archived_at >= start_time)
        if end_time is not None:
            rows = rows.where(archived_at <= end_time)
        rows = rows.order_by(archived_at.desc(), SessionArchiveModel.archive_id)
        with read_snapshot(self._sessions) as session:
            total, page = count_and_page(session, rows, limit, offset)
            return total, [session_archive_from_orm(row) for row in page]

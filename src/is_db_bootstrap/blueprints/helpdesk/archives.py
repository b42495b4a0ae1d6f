"""Finished chat sessions."""

from __future__ import annotations

from sqlalchemy import select

from is_db_bootstrap.blueprints.helpdesk._transactions import Sessions, check_page, matching, page_of, snapshot, writing
from is_db_bootstrap.blueprints.helpdesk.converters import session_archive_from_orm, session_archive_to_orm
from is_db_bootstrap.blueprints.helpdesk.domain import ArchivedSession
from is_db_bootstrap.blueprints.helpdesk.models import SessionArchiveModel


class SessionArchive:
    """Archived sessions in PostgreSQL. Safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def archive(self, record: ArchivedSession) -> ArchivedSession:
        """`DuplicateRecord` when the id is taken."""
        with writing(self._sessions) as (session, _):
            row = session_archive_to_orm(record)
            session.add(row)
            session.flush()
            return session_archive_from_orm(row)

    def get(self, archive_id: str) -> ArchivedSession | None:
        """None when there is none."""
        with self._sessions() as session:
            row = session.scalar(select(SessionArchiveModel).where(SessionArchiveModel.archive_id == archive_id))
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
        """How many match, and a page of them: the last archived first, then by `archive_id`.

        `start_time` and `end_time` bound `archived_at`, in epoch seconds, and are inclusive.
        """
        check_page(limit, offset)
        rows = select(SessionArchiveModel).filter_by(**matching(customer_email=customer_email, agent_id=agent_id))
        if start_time is not None:
            rows = rows.where(SessionArchiveModel.archived_at >= start_time)
        if end_time is not None:
            rows = rows.where(SessionArchiveModel.archived_at <= end_time)
        rows = rows.order_by(SessionArchiveModel.archived_at.desc(), SessionArchiveModel.archive_id)
        with snapshot(self._sessions) as session:
            total, page = page_of(session, rows, limit, offset)
            return total, [session_archive_from_orm(row) for row in page]

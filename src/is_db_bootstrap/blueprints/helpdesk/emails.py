"""A record of every e-mail: sent, failed or waiting. Sending is the application's."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from is_db_bootstrap.blueprints.helpdesk._transactions import (
    Sessions,
    check_page,
    copy_columns,
    matching,
    one_of,
    page_of,
    refuse_fixed,
    snapshot,
    writing,
)
from is_db_bootstrap.blueprints.helpdesk.converters import email_record_from_orm, email_record_to_orm
from is_db_bootstrap.blueprints.helpdesk.domain import EmailRecord, EmailStatus
from is_db_bootstrap.blueprints.helpdesk.errors import HelpdeskError, RecordNotFound
from is_db_bootstrap.blueprints.helpdesk.models import EmailRecordModel

_log = logging.getLogger(__name__)

_FIXED = {"record_id", "created_at"}


class EmailRecords:
    """E-mail records in PostgreSQL. Safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def add(self, record: EmailRecord) -> EmailRecord:
        """A sent one without `sent_at` gets the current time; `DuplicateRecord`."""
        with writing(self._sessions) as (session, _):
            row = email_record_to_orm(_dated(record))
            session.add(row)
            session.flush()
            return email_record_from_orm(row)

    def get(self, record_id: str) -> EmailRecord | None:
        """None when there is none."""
        with self._sessions() as session:
            row = session.scalar(select(EmailRecordModel).where(EmailRecordModel.record_id == record_id))
            return email_record_from_orm(row) if row else None

    def update(self, record_id: str, /, **changes: Any) -> EmailRecord:
        """Change the named fields only; a sent one without `sent_at` gets the current time.

        `RecordNotFound`; `ValueError` for `record_id` and `created_at`.
        """
        refuse_fixed(changes, _FIXED)
        with writing(self._sessions) as (session, _):
            rows = select(EmailRecordModel).where(EmailRecordModel.record_id == record_id)
            row = session.scalar(rows.with_for_update())
            if row is None:
                raise RecordNotFound(record_id)
            record = EmailRecord.model_validate(email_record_from_orm(row).model_dump() | changes)
            copy_columns(email_record_to_orm(_dated(record)), row)
            session.flush()
            return email_record_from_orm(row)

    def find(
        self,
        *,
        status: EmailStatus | None = None,
        to_email: str | None = None,
        session_id: str | None = None,
        ticket_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[int, list[EmailRecord]]:
        """How many match, and a page of them: the newest first, then by `record_id`."""
        check_page(limit, offset)
        wanted = matching(status=one_of(EmailStatus, status), to_email=to_email, session_id=session_id, ticket_id=ticket_id)
        rows = select(EmailRecordModel).filter_by(**wanted)
        rows = rows.order_by(EmailRecordModel.created_at.desc(), EmailRecordModel.record_id)
        with snapshot(self._sessions) as session:
            total, page = page_of(session, rows, limit, offset)
            return total, [email_record_from_orm(row) for row in page]

    @contextmanager
    def recording(self, record: EmailRecord) -> Iterator[EmailRecord]:
        """Add the record; it becomes `sent` at the end of the block, or `failed` with the text of the error, which is raised again."""
        stored = self.add(record)
        try:
            yield stored
        except BaseException as exc:
            self._failed(stored.record_id, str(exc) or type(exc).__name__)
            raise
        self.update(stored.record_id, status=EmailStatus.SENT)

    def _failed(self, record_id: str, error: str) -> None:
        """The error of sending must reach the caller, also when it cannot be recorded."""
        try:
            # PostgreSQL stores no NUL.
            self.update(record_id, status=EmailStatus.FAILED, error_message=error.replace("\0", ""))
        except (SQLAlchemyError, HelpdeskError) as exc:
            _log.warning("E-mail %s failed, and this could not be recorded: %s", record_id, type(exc).__name__)


def _dated(record: EmailRecord) -> EmailRecord:
    if record.status is not EmailStatus.SENT or record.sent_at is not None:
        return record
    return record.model_copy(update={"sent_at": time.time()})

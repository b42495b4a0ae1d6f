"""A record of every e-mail: sent, failed or waiting. The application does the sending."""

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
    count_and_page,
    enum_value,
    given_filters,
    read_snapshot,
    refuse_fixed_fields,
    write_transaction,
)
from is_db_bootstrap.blueprints.helpdesk.converters import (
    email_record_from_orm,
    email_record_to_orm,
)
from is_db_bootstrap.blueprints.helpdesk.domain import EmailRecord, EmailStatus
from is_db_bootstrap.blueprints.helpdesk.errors import HelpdeskError, RecordNotFound
from is_db_bootstrap.blueprints.helpdesk.models import EmailRecordModel

_log = logging.getLogger(__name__)

_FIXED = {"record_id", "created_at"}


class EmailRecords:
    """E-mail records in PostgreSQL. Threads may share an object."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def add(self, record: EmailRecord) -> EmailRecord:
        """Store a record. A sent e-mail without `sent_at` gets the current time.

        Raises `DuplicateRecord` when the id is taken.
        """
        with write_transaction(self._sessions) as (session, _):
            row = email_record_to_orm(_with_sent_time(record))
            session.add(row)
            session.flush()
            return email_record_from_orm(row)

    def get(self, record_id: str) -> EmailRecord | None:
        """The record, or None when the id does not exist."""
        query = select(EmailRecordModel).where(EmailRecordModel.record_id == record_id)
        with self._sessions() as session:
            row = session.scalar(query)
            return email_record_from_orm(row) if row else None

    def update(self, record_id: str, /, **changes: Any) -> EmailRecord:
        """Change the named fields only. A sent e-mail without `sent_at` gets the current time.

        Raises `RecordNotFound`, and `ValueError` for invalid values and for `record_id` and
        `created_at`, which never change.
        """
        refuse_fixed_fields(changes, _FIXED)
        with write_transaction(self._sessions) as (session, _):
            rows = select(EmailRecordModel).where(EmailRecordModel.record_id == record_id)
            row = session.scalar(rows.with_for_update())
            if row is None:
                raise RecordNotFound(record_id)
            stored = email_record_from_orm(row)
            record = EmailRecord.model_validate(stored.model_dump() | changes)
            copy_columns(email_record_to_orm(_with_sent_time(record)), row)
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
        """How many records match, and one page of them.

        The newest record comes first, and equal times are ordered by `record_id`. `limit` is 1 to
        500 and `offset` at least 0, otherwise `ValueError` is raised.
        """
        check_page(limit, offset)
        filters = given_filters(
            status=enum_value(EmailStatus, status),
            to_email=to_email,
            session_id=session_id,
            ticket_id=ticket_id,
        )
        rows = select(EmailRecordModel).filter_by(**filters)
        rows = rows.order_by(EmailRecordModel.created_at.desc(), EmailRecordModel.record_id)
        with read_snapshot(self._sessions) as session:
            total, page = count_and_page(session, rows, limit, offset)
            return total, [email_record_from_orm(row) for row in page]

    @contextmanager
    def recording(self, record: EmailRecord) -> Iterator[EmailRecord]:
        """Record an e-mail that the application sends inside the block.

        The record is added before the block. At the end of the block the record becomes `sent`.
        After an exception it becomes `failed` with the text of the error, which is raised again.
        """
        stored = self.add(record)
        try:
            yield stored
        except BaseException as exc:
            self._record_failure(stored.record_id, str(exc) or type(exc).__name__)
            raise
        self.update(stored.record_id, status=EmailStatus.SENT)

    def _record_failure(self, record_id: str, error: str) -> None:
        """Make the record `failed`, or log a WARNING when that fails too.

        The caller must get the error of the sending, not an error of the recording.
        """
        storable = error.replace("\0", "")  # PostgreSQL stores no NUL character.
        try:
            self.update(record_id, status=EmailStatus.FAILED, error_message=storable)
        except (SQLAlchemyError, HelpdeskError) as exc:
            cause = type(exc).__name__
            _log.warning("E-mail %s failed, and this could not be recorded: %s", record_id, cause)


def _with_sent_time(record: EmailRecord) -> EmailRecord:
    """The record, with the current time when it is sent and has no time."""
    lacks_time = record.status is EmailStatus.SENT and record.sent_at is None
    if not lacks_time:
        return record
    return record.model_copy(update={"sent_at": time.time()})

"""What the services refuse. All other errors of PostgreSQL reach the caller as SQLAlchemy raises them.

HelpdeskError
├── DuplicateRecord     a unique index refused a row
├── RecordNotFound      the record to change does not exist
└── StaleRecord         a ticket was saved by somebody else in between
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import exc as refused

#: SQLSTATE.
UNIQUE_VIOLATION = "23505"
#: PostgreSQL counts as unavailable when SQLAlchemy raises one of these.
UNAVAILABLE = (refused.OperationalError, refused.InterfaceError, refused.TimeoutError)


class HelpdeskError(Exception):
    """A write that was refused; nothing was written."""


class DuplicateRecord(HelpdeskError):
    """A unique index refused a row; `constraint` is the name of the index."""

    def __init__(self, constraint: str) -> None:
        super().__init__(f"The unique index {constraint} refused the record: another one has this value.")
        self.constraint = constraint


class RecordNotFound(HelpdeskError):
    """There is no record `record_id` to change."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"There is no record {record_id!r} to change.")
        self.record_id = record_id


class StaleRecord(HelpdeskError):
    """Somebody else saved ticket `record_id` after it was read."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"Ticket {record_id!r} was saved by somebody else in between. Read it again and repeat the change.")
        self.record_id = record_id


@contextmanager
def duplicates_named() -> Iterator[None]:
    """Raise `DuplicateRecord` where a unique index refuses a row."""
    try:
        yield
    except refused.IntegrityError as exc:
        cause: Any = exc.orig
        if cause.sqlstate != UNIQUE_VIOLATION:
            raise
        # Not from `exc`: its text has every value of the row, a password hash too.
        raise DuplicateRecord(cause.diag.constraint_name) from cause

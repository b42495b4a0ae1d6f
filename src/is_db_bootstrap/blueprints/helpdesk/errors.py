"""The errors of the services.

Other errors of PostgreSQL reach the caller as SQLAlchemy raises them.

HelpdeskError
├── DuplicateRecord     a unique index refused a row
├── RecordNotFound      the record to change does not exist
└── StaleRecord         somebody else has saved the ticket since it was read
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import exc

#: SQLSTATE of a row that a unique index refuses.
UNIQUE_VIOLATION = "23505"
#: PostgreSQL counts as unavailable when SQLAlchemy raises one of these.
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


class HelpdeskError(Exception):
    """A write was refused, and nothing was written."""


class DuplicateRecord(HelpdeskError):
    """A unique index refused a row. `constraint` is the name of the index."""

    def __init__(self, constraint: str) -> None:
        super().__init__(
            f"The unique index {constraint} refused the record: another record has this value."
        )
        self.constraint = constraint


class RecordNotFound(HelpdeskError):
    """The record `record_id` that was to be changed does not exist."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"There is no record {record_id!r} to change.")
        self.record_id = record_id


class StaleRecord(HelpdeskError):
    """Somebody else saved the ticket `record_id` after it was read."""

    def __init__(self, record_id: str) -> None:
        super().__init__(
            f"Ticket {record_id!r} was saved by somebody else in between. "
            "Read it again and repeat the change."
        )
        self.record_id = record_id


@contextmanager
def name_duplicates() -> Iterator[None]:
    """Raise `DuplicateRecord` where a unique index refuses a row."""
    try:
        yield
    except exc.IntegrityError as error:
        cause: Any = error.orig
        if cause.sqlstate != UNIQUE_VIOLATION:
            raise
        # The chain leaves `error` out: its text holds every value of the row, such as a
        # password hash.
        raise DuplicateRecord(cause.diag.constraint_name) from cause

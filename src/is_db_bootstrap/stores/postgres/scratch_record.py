"""What revisions send while they run in a scratch database, written down statement by statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

#: What `autocommit_block()` makes SQLAlchemy ask (`PGDialect.get_isolation_level`).
_OF_SQLALCHEMY = "show transaction isolation level"


@dataclass(slots=True)
class ScratchRecord:
    """The statements of each step, such as `upgrade b2`, in order."""

    sent: dict[str, list[str]] = field(default_factory=dict)


_RECORD: ContextVar[ScratchRecord | None] = ContextVar("scratch_record", default=None)


@contextmanager
def recording() -> Iterator[ScratchRecord]:
    """While inside, what revisions send in scratch databases is written down."""
    record = ScratchRecord()
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


def note_scratch(step: str, statement: str, *, is_escaped: bool) -> None:
    """Write down a statement of `step`, if somebody records.

    In one that `is_escaped`, the driver sends `%` for `%%`. What SQLAlchemy asks for itself is left
    out.
    """
    record = _RECORD.get()
    if record is None or statement == _OF_SQLALCHEMY:
        return
    shown = statement.replace("%%", "%") if is_escaped else statement
    record.sent.setdefault(step, []).append(shown)

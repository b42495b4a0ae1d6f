"""One way to write, one to read: a transaction in PostgreSQL, then the copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, func, inspect, select
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk.errors import duplicates_named

if TYPE_CHECKING:
    from is_db_bootstrap.blueprints.helpdesk.cache import Cache

#: Such as `get_db_session`: commits at the end, rolls back on an exception.
Sessions = Callable[[], AbstractContextManager[Session]]
LONGEST_PAGE = 500


@contextmanager
def writing(sessions: Sessions, cache: Cache | None = None) -> Iterator[tuple[Session, set[str]]]:
    """A transaction, and a set for the keys that are refreshed once it is committed.

    When the commit itself fails, it may have happened all the same: the keys are marked, so that no old copy is answered.
    """
    keys: set[str] = set()
    committing = False
    try:
        with duplicates_named(), sessions() as session:
            yield session, keys
            session.flush()
            committing = True
    except BaseException:
        if committing and cache:
            cache.mark(keys)
        raise
    if cache:
        cache.refresh(*keys)


@contextmanager
def snapshot(sessions: Sessions) -> Iterator[Session]:
    """A transaction whose statements all see the same moment: a ticket and its children, a total and its page."""
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


def copy_columns(source: object, target: object, *, keep: frozenset[str] | set[str] = frozenset()) -> None:
    """Give a stored row the values of a transient one, except for `id`, `updated_at` and those to keep."""
    for attribute in inspect(type(target)).column_attrs:
        if attribute.key not in keep and attribute.key not in {"id", "updated_at"}:
            setattr(target, attribute.key, getattr(source, attribute.key))


def check_page(limit: int, offset: int = 0) -> None:
    """`ValueError` unless 1 <= limit <= 500 and offset >= 0."""
    if not 1 <= limit <= LONGEST_PAGE:
        raise ValueError(f"limit is {limit}; it must be 1 to {LONGEST_PAGE}.")
    if offset < 0:
        raise ValueError(f"offset is {offset}; it must be at least 0.")


def matching(**values: str | None) -> dict[str, str]:
    """The filters that were given."""
    return {name: value for name, value in values.items() if value is not None}


def one_of(kind: type[StrEnum], value: str | None) -> str | None:
    """The value of an enum's member, if one was given; `ValueError` for any other."""
    return None if value is None else kind(value).value


def page_of(session: Session, rows: Select[Any], limit: int, offset: int) -> tuple[int, list[Any]]:
    """How many rows there are, and one page of them."""
    total = session.scalar(select(func.count()).select_from(rows.order_by(None).subquery())) or 0
    return total, list(session.scalars(rows.limit(limit).offset(offset)))


def refuse_fixed(changes: dict[str, Any], fixed: set[str]) -> None:
    """`ValueError` when a change names a field that never changes."""
    if named := sorted(fixed & changes.keys()):
        raise ValueError(f"{', '.join(named)} cannot be changed.")

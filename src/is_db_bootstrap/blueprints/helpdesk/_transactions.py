"""The transactions of the services: one way to write, one way to read, and what both need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import Select, func, inspect, select
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk.errors import name_duplicates

#: A callable like `get_db_session`: its context manager yields a session, commits at the end and
#: rolls back on an exception.
Sessions = Callable[[], AbstractContextManager[Session]]
#: Most records that one `find` returns.
LONGEST_PAGE = 500
#: Columns that `copy_columns` never copies: the surrogate key, and the time of the update.
_OWN_COLUMNS = frozenset({"id", "updated_at"})


class _CopyKeeper(Protocol):
    """What a transaction needs of the cache, which keeps copies of records."""

    def mark(self, keys: Collection[str]) -> None:
        """Make copies pending: no reader gets them until they are refreshed."""

    def refresh(self, *keys: str) -> Any:
        """Write the copies anew from the database."""


@contextmanager
def write_transaction(
    sessions: Sessions,
    cache: _CopyKeeper | None = None,
) -> Iterator[tuple[Session, set[str]]]:
    """A transaction, and a set of keys whose copies are refreshed after the commit.

    The caller adds the keys to the set. A commit that raises may have happened all the same. Then
    the keys become pending, so that no reader gets an old copy.
    """
    keys: set[str] = set()
    committing = False
    try:
        with name_duplicates(), sessions() as session:
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
def read_snapshot(sessions: Sessions) -> Iterator[Session]:
    """A transaction whose statements all see the same moment.

    So a ticket fits its children, and a total fits its page.
    """
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


def copy_columns(source: object, target: object) -> None:
    """Give a stored row the values of a new row, except for `id` and `updated_at`."""
    for attribute in inspect(type(target)).column_attrs:
        if attribute.key not in _OWN_COLUMNS:
            setattr(target, attribute.key, getattr(source, attribute.key))


def check_page(limit: int, offset: int = 0) -> None:
    """Raise `ValueError` unless `limit` is 1 to 500 and `offset` at least 0."""
    if not 1 <= limit <= LONGEST_PAGE:
        raise ValueError(f"limit is {limit}. It must be 1 to {LONGEST_PAGE}.")
    if offset < 0:
        raise ValueError(f"offset is {offset}. It must be at least 0.")


def given_filters(**values: str | None) -> dict[str, str]:
    """The filters that have a value."""
    return {name: value for name, value in values.items() if value is not None}


def enum_value(kind: type[StrEnum], value: str | None) -> str | None:
    """The text of an enum's member, or None when `value` is None.

    Raises `ValueError` for a text that is not in the enum.
    """
    return None if value is None else kind(value).value


def count_and_page(
    session: Session,
    rows: Select[Any],
    limit: int,
    offset: int,
) -> tuple[int, list[Any]]:
    """How many rows the query has, and one page of them."""
    unordered = rows.order_by(None).subquery()
    total = session.scalar(select(func.count()).select_from(unordered)) or 0
    page = session.scalars(rows.limit(limit).offset(offset))
    return total, list(page)


def refuse_fixed_fields(changes: dict[str, Any], fixed: set[str]) -> None:
    """Raise `ValueError` when a change names a field that never changes."""
    named = sorted(fixed & changes.keys())
    if named:
        raise ValueError(f"{', '.join(named)} cannot be changed.")

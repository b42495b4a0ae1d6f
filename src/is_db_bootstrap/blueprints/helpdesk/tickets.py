"""The store of tickets with their comments, attachments, history and assignments."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk._copies import TICKET, WITH_CHILDREN, Copies
from is_db_bootstrap.blueprints.helpdesk._transactions import (
    Sessions,
    check_page,
    copy_columns,
    count_and_page,
    enum_value,
    given_filters,
    read_snapshot,
    write_transaction,
)
from is_db_bootstrap.blueprints.helpdesk.cache import Cache
from is_db_bootstrap.blueprints.helpdesk.converters import (
    assignment_from_orm,
    assignment_to_orm,
    attachment_to_orm,
    comment_to_orm,
    status_history_to_orm,
    ticket_from_orm,
    ticket_to_orm,
)
from is_db_bootstrap.blueprints.helpdesk.domain import Ticket, TicketPriority, TicketStatus
from is_db_bootstrap.blueprints.helpdesk.errors import UNAVAILABLE, RecordNotFound, StaleRecord
from is_db_bootstrap.blueprints.helpdesk.models import TicketModel

#: The update that makes a ticket one without children.
_CHILDLESS: dict[str, Any] = {"comments": [], "attachments": [], "history": [], "assignments": []}


class TicketStore:
    """Tickets in PostgreSQL, copied to Redis.

    Threads may share an object. Without a cache the tickets are in PostgreSQL only.
    """

    def __init__(self, sessions: Sessions, cache: Cache | None) -> None:
        self._sessions = sessions
        self._cache = cache

    def create(self, ticket: Ticket) -> Ticket:
        """Store a ticket with all its children, and return it as stored.

        Raises `DuplicateRecord` when the id of the ticket or of a child is taken.
        """
        with write_transaction(self._sessions, self._cache) as (session, keys):
            session.add(ticket_to_orm(ticket))
            session.flush()
            keys.add(TICKET + ticket.ticket_id)
            return _stored_ticket(session, ticket.ticket_id)

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket with its children, or None when the id does not exist.

        The ticket comes from PostgreSQL, and from Redis while PostgreSQL is unavailable.
        """
        try:
            with read_snapshot(self._sessions) as session:
                row = session.scalar(_ticket_query(ticket_id))
                return ticket_from_orm(row) if row else None
        except UNAVAILABLE as exc:
            if self._cache is None:
                raise
            return self._cache.answer_instead(exc, lambda copies: copies.ticket(ticket_id))

    def save(self, ticket: Ticket) -> Ticket:
        """Make the stored ticket equal to `ticket`, and return it as stored.

        The returned ticket has a later `updated_at`, and its children are in the order in which
        they were first stored. The argument is not changed. Raises `RecordNotFound`,
        `StaleRecord` when the stored `updated_at` differs, and `DuplicateRecord` when the id of
        a child is taken.
        """
        with write_transaction(self._sessions, self._cache) as (session, keys):
            row = _locked_row(session, ticket.ticket_id)
            if row.updated_at != ticket.updated_at:
                raise StaleRecord(ticket.ticket_id)
            childless = ticket.model_copy(update=_CHILDLESS)
            copy_columns(ticket_to_orm(childless), row)
            row.updated_at = _later_time(row.updated_at)
            _replace_children(row, ticket)
            session.flush()
            keys.add(TICKET + ticket.ticket_id)
            return _stored_ticket(session, ticket.ticket_id)

    def delete(self, ticket_id: str) -> bool:
        """Delete a ticket with its children, and return whether the ticket existed.

        The audit entries of the ticket stay.
        """
        statement = (
            delete(TicketModel).where(TicketModel.ticket_id == ticket_id).returning(TicketModel.id)
        )
        with write_transaction(self._sessions, self._cache) as (session, keys):
            if session.scalar(statement) is None:
                return False
            keys.add(TICKET + ticket_id)
            return True

    def find(
        self,
        *,
        status: TicketStatus | None = None,
        priority: TicketPriority | None = None,
        assigned_agent_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[int, list[Ticket]]:
        """How many tickets match, and one page of them.

        The ticket updated last comes first, and equal times are ordered by `ticket_id`. The answer
        comes from PostgreSQL, and from Redis while PostgreSQL is unavailable. `limit` is 1 to 500
        and `offset` at least 0, otherwise `ValueError` is raised.
        """
        check_page(limit, offset)
        filters = given_filters(
            status=enum_value(TicketStatus, status),
            priority=enum_value(TicketPriority, priority),
            assigned_agent_id=assigned_agent_id,
        )
        try:
            with read_snapshot(self._sessions) as session:
                rows = select(TicketModel).filter_by(**filters).options(*WITH_CHILDREN)
                rows = rows.order_by(TicketModel.updated_at.desc(), TicketModel.ticket_id)
                total, page = count_and_page(session, rows, limit, offset)
                return total, [ticket_from_orm(row) for row in page]
        except UNAVAILABLE as exc:
            if self._cache is None:
                raise
            return self._cache.answer_instead(
                exc, lambda copies: _page_of_copies(copies, filters, limit, offset)
            )


def _page_of_copies(
    copies: Copies,
    filters: dict[str, str],
    limit: int,
    offset: int,
) -> tuple[int, list[Ticket]]:
    """How many copies match, and one page of them, in the order of `TicketStore.find`."""
    found = [ticket for ticket in copies.tickets() if _matches_filters(ticket, filters)]
    found.sort(key=lambda ticket: (-ticket.updated_at, ticket.ticket_id))
    return len(found), found[offset : offset + limit]


def _matches_filters(ticket: Ticket, filters: dict[str, str]) -> bool:
    return all(getattr(ticket, name) == value for name, value in filters.items())


def _ticket_query(ticket_id: str) -> Select[Any]:
    """The query for a ticket with its children."""
    rows = select(TicketModel).where(TicketModel.ticket_id == ticket_id)
    return rows.options(*WITH_CHILDREN)


def _locked_row(session: Session, ticket_id: str) -> TicketModel:
    """The row of the ticket, locked until the transaction ends. Raises `RecordNotFound`."""
    row: TicketModel | None = session.scalar(_ticket_query(ticket_id).with_for_update())
    if row is None:
        raise RecordNotFound(ticket_id)
    return row


def _later_time(before: float) -> float:
    """The current time, or the next greater number when the clock has not moved on."""
    return max(time.time(), math.nextafter(before, math.inf))


def _stored_ticket(session: Session, ticket_id: str) -> Ticket:
    """The ticket as the database has it now, with children in the order of their keys."""
    session.expire_all()
    return ticket_from_orm(session.scalars(_ticket_query(ticket_id)).one())


def _replace_children(row: TicketModel, ticket: Ticket) -> None:
    """Make the children of the row equal to those of the ticket."""
    ticket_id = row.ticket_id
    _replace_by_id(row.comments, ticket.comments, "comment_id", comment_to_orm, ticket_id)
    _replace_by_id(
        row.attachments, ticket.attachments, "attachment_id", attachment_to_orm, ticket_id
    )
    _replace_by_id(
        row.status_history, ticket.history, "history_id", status_history_to_orm, ticket_id
    )
    _replace_assignments(row, ticket)


def _replace_by_id(
    rows: list[Any],
    children: Sequence[Any],
    id_name: str,
    to_orm: Callable[[Any, str], Any],
    ticket_id: str,
) -> None:
    """Update, insert and delete rows, which are matched with children by their business id.

    A business id that occurs twice among the children is inserted, so that the unique index refuses
    it.
    """
    unmatched = {getattr(row, id_name): row for row in rows}
    for child in children:
        new = to_orm(child, ticket_id)
        stored = unmatched.pop(getattr(child, id_name), None)
        if stored is None:
            rows.append(new)
        else:
            copy_columns(new, stored)
    for row in unmatched.values():
        rows.remove(row)


def _replace_assignments(row: TicketModel, ticket: Ticket) -> None:
    """Insert and delete assignments, which are matched by the equality of all fields.

    Assignments have no business id. Equal assignments stay as often as both sides have them.
    """
    unmatched = Counter(each.model_dump_json() for each in ticket.assignments)
    for stored in list(row.assignments):
        text = assignment_from_orm(stored).model_dump_json()
        if unmatched[text]:
            unmatched[text] -= 1
        else:
            row.assignments.remove(stored)
    for each in ticket.assignments:
        text = each.model_dump_json()
        if unmatched[text]:
            unmatched[text] -= 1
            row.assignments.append(assignment_to_orm(each, row.ticket_id))

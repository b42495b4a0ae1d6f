"""Tickets with their comments, attachments, history and assignments."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk._copies import TICKET, WITH_CHILDREN, Copies
from is_db_bootstrap.blueprints.helpdesk._transactions import (
    Sessions,
    check_page,
    copy_columns,
    matching,
    one_of,
    page_of,
    snapshot,
    writing,
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

_CHILDLESS: dict[str, Any] = {"comments": [], "attachments": [], "history": [], "assignments": []}


class TicketStore:
    """Tickets in PostgreSQL, copied to Redis. Safe to share between threads; without a cache PostgreSQL is used alone."""

    def __init__(self, sessions: Sessions, cache: Cache | None) -> None:
        self._sessions = sessions
        self._cache = cache

    def create(self, ticket: Ticket) -> Ticket:
        """Store it with all its children; `DuplicateRecord`."""
        with writing(self._sessions, self._cache) as (session, keys):
            row = ticket_to_orm(ticket)
            session.add(row)
            session.flush()
            keys.add(TICKET + ticket.ticket_id)
            return _stored(session, ticket.ticket_id)

    def get(self, ticket_id: str) -> Ticket | None:
        """From PostgreSQL; from Redis while that is unavailable."""
        try:
            with snapshot(self._sessions) as session:
                rows = select(TicketModel).where(TicketModel.ticket_id == ticket_id).options(*WITH_CHILDREN)
                row = session.scalar(rows)
                return ticket_from_orm(row) if row else None
        except UNAVAILABLE as exc:
            if self._cache is None:
                raise
            return self._cache.instead(exc, lambda copies: copies.ticket(ticket_id))

    def save(self, ticket: Ticket) -> Ticket:
        """Make the stored ticket equal to this one, and return it as stored, with a later `updated_at`.

        The argument is not changed. `StaleRecord` when the stored `updated_at` is another; `RecordNotFound`; `DuplicateRecord`
        for a child id that another record has. Children are in the order in which they were first stored.
        """
        with writing(self._sessions, self._cache) as (session, keys):
            row = _locked(session, ticket.ticket_id)
            if row.updated_at != ticket.updated_at:
                raise StaleRecord(ticket.ticket_id)
            copy_columns(ticket_to_orm(ticket.model_copy(update=_CHILDLESS)), row)
            row.updated_at = max(time.time(), math.nextafter(row.updated_at, math.inf))
            _replace_children(row, ticket)
            session.flush()
            keys.add(TICKET + ticket.ticket_id)
            return _stored(session, ticket.ticket_id)

    def delete(self, ticket_id: str) -> bool:
        """With its children, not with its audit entries; whether there was one."""
        with writing(self._sessions, self._cache) as (session, keys):
            gone = delete(TicketModel).where(TicketModel.ticket_id == ticket_id).returning(TicketModel.id)
            if session.scalar(gone) is None:
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
        """How many match, and a page of them: the last updated first, then by `ticket_id`."""
        check_page(limit, offset)
        wanted = matching(
            status=one_of(TicketStatus, status),
            priority=one_of(TicketPriority, priority),
            assigned_agent_id=assigned_agent_id,
        )
        try:
            with snapshot(self._sessions) as session:
                rows = select(TicketModel).filter_by(**wanted).options(*WITH_CHILDREN)
                rows = rows.order_by(TicketModel.updated_at.desc(), TicketModel.ticket_id)
                total, page = page_of(session, rows, limit, offset)
                return total, [ticket_from_orm(row) for row in page]
        except UNAVAILABLE as exc:
            if self._cache is None:
                raise
            return self._cache.instead(exc, lambda copies: _page_of_copies(copies, wanted, limit, offset))


def _page_of_copies(copies: Copies, wanted: dict[str, str], limit: int, offset: int) -> tuple[int, list[Ticket]]:
    found = [each for each in copies.tickets() if all(getattr(each, name) == value for name, value in wanted.items())]
    found.sort(key=lambda ticket: (-ticket.updated_at, ticket.ticket_id))
    return len(found), found[offset : offset + limit]


def _locked(session: Session, ticket_id: str) -> TicketModel:
    rows = select(TicketModel).where(TicketModel.ticket_id == ticket_id).options(*WITH_CHILDREN)
    row = session.scalar(rows.with_for_update())
    if row is None:
        raise RecordNotFound(ticket_id)
    return row


def _stored(session: Session, ticket_id: str) -> Ticket:
    """As the database has it now: children in the order of their surrogate ids."""
    session.expire_all()
    rows = select(TicketModel).where(TicketModel.ticket_id == ticket_id).options(*WITH_CHILDREN)
    return ticket_from_orm(session.scalars(rows).one())


def _replace_children(row: TicketModel, ticket: Ticket) -> None:
    _match(row.comments, ticket.comments, "comment_id", comment_to_orm, row.ticket_id)
    _match(row.attachments, ticket.attachments, "attachment_id", attachment_to_orm, row.ticket_id)
    _match(row.status_history, ticket.history, "history_id", status_history_to_orm, row.ticket_id)
    _match_assignments(row, ticket)


def _match(rows: list[Any], children: Sequence[Any], name: str, to_orm: Callable[..., Any], ticket_id: str) -> None:
    """Update, insert and delete. A business id that occurs twice is inserted again, for the unique index to refuse."""
    missing = {getattr(row, name): row for row in rows}
    for child in children:
        new = to_orm(child, ticket_id)
        if stored := missing.pop(getattr(child, name), None):
            copy_columns(new, stored)
        else:
            rows.append(new)
    for row in missing.values():
        rows.remove(row)


def _match_assignments(row: TicketModel, ticket: Ticket) -> None:
    """They have no business id: equal ones stay, as often as they occur on both sides."""
    wanted = Counter(each.model_dump_json() for each in ticket.assignments)
    for stored in list(row.assignments):
        known = assignment_from_orm(stored).model_dump_json()
        if wanted[known]:
            wanted[known] -= 1
        else:
            row.assignments.remove(stored)
    for each in ticket.assignments:
        text = each.model_dump_json()
        if wanted[text]:
            wanted[text] -= 1
            row.assignments.append(assignment_to_orm(each, row.ticket_id))

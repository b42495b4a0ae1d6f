"""Bringing the records of a desk that has lived in Redis alone into PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from redis import ResponseError
from sqlalchemy import select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk._copies import AGENT, AUDIT_LOG, TICKET, split_key
from is_db_bootstrap.blueprints.helpdesk._transactions import Sessions, write_transaction
from is_db_bootstrap.blueprints.helpdesk.converters import (
    agent_to_orm,
    audit_log_to_orm,
    ticket_to_orm,
)
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AuditEntry, Ticket
from is_db_bootstrap.blueprints.helpdesk.errors import DuplicateRecord
from is_db_bootstrap.blueprints.helpdesk.models import AgentModel, AuditLogModel, TicketModel


class _CopyRefused(Exception):
    """A copy that cannot become a row. The text is the reason."""


#: Errors that concern one copy only. The other copies are still adopted.
_REFUSALS = (_CopyRefused, ValidationError, ResponseError, DuplicateRecord, DataError)


def adopt_copies(
    redis: Any,
    sessions: Sessions,
    keys: Iterable[str],
) -> tuple[int, int, int, tuple[tuple[str, str], ...]]:
    """Insert the records of the copies that have no row, each key in its own transaction.

    Returns how many tickets, agents and audit entries were inserted, and for every refused copy
    its key and the reason.
    """
    inserted = {TICKET: 0, AGENT: 0, AUDIT_LOG: 0}
    refused = []
    for key in keys:
        prefix, name = split_key(key)
        adopt_one = _ADOPTERS.get(prefix)
        if adopt_one is None:
            continue
        try:
            with write_transaction(sessions) as (session, _):
                count = adopt_one(session, redis, key, name)
            inserted[prefix] += count
        except _REFUSALS as exc:
            refused.append((key, _refusal_reason(exc)))
    return inserted[TICKET], inserted[AGENT], inserted[AUDIT_LOG], tuple(refused)


def _adopt_ticket(session: Session, redis: Any, key: str, ticket_id: str) -> int:
    """Insert a ticket with its children. Returns how many tickets were inserted."""
    stored = select(TicketModel.id).where(TicketModel.ticket_id == ticket_id)
    if session.scalar(stored):
        return 0
    text = redis.get(key)
    if text is None:
        return 0
    ticket = Ticket.model_validate_json(text)
    _check_same("ticket_id", ticket.ticket_id, ticket_id)
    session.add(ticket_to_orm(ticket))
    return 1


def _adopt_agent(session: Session, redis: Any, key: str, username: str) -> int:
    """Insert an agent. Returns how many agents were inserted."""
    stored = select(AgentModel.id).where(AgentModel.username == username)
    if session.scalar(stored):
        return 0
    text = redis.get(key)
    if text is None:
        return 0
    agent = Agent.model_validate_json(text)
    _check_same("username", agent.username, username)
    session.add(agent_to_orm(agent))
    return 1


def _adopt_audit_log(session: Session, redis: Any, key: str, ticket_id: str) -> int:
    """Insert the audit entries of a ticket. Returns how many entries were inserted.

    The oldest entry is inserted first, so that entries of the same time keep their order.
    """
    stored = select(AuditLogModel.audit_id).where(AuditLogModel.ticket_id == ticket_id)
    stored_ids = set(session.scalars(stored))
    new_entries: dict[str, AuditEntry] = {}
    oldest_first = reversed(redis.lrange(key, 0, -1))
    for text in oldest_first:
        entry = AuditEntry.model_validate_json(text)
        _check_same("ticket_id", entry.ticket_id, ticket_id)
        if entry.id in stored_ids:
            continue
        first = new_entries.setdefault(entry.id, entry)
        if first != entry:
            raise _CopyRefused(f"two entries have the id {entry.id}")
    for entry in new_entries.values():
        session.add(audit_log_to_orm(entry))
        session.flush()
    return len(new_entries)


_ADOPTERS = {TICKET: _adopt_ticket, AGENT: _adopt_agent, AUDIT_LOG: _adopt_audit_log}


def _check_same(field: str, found: str, expected: str) -> None:
    if found != expected:
        raise _CopyRefused(f"{field} is {found!r}, and the key says {expected!r}")


def _refusal_reason(exc: Exception) -> str:
    """The reason without the values of the record, which may be secret."""
    if isinstance(exc, ValidationError):
        return "; ".join(_validation_reasons(exc))
    if isinstance(exc, DuplicateRecord):
        return f"{exc.constraint}: another record has this value"
    if isinstance(exc, DataError):
        return str(exc.orig)
    return str(exc)


def _validation_reasons(exc: ValidationError) -> list[str]:
    """Each field and its fault. A fault of the whole record bears the name of the model."""
    reasons = []
    for fault in exc.errors():
        field = ".".join(str(part) for part in fault["loc"])
        reasons.append(f"{field or exc.title}: {fault['msg']}")
    return reasons

"""Brings the records of a desk that has lived in Redis alone into PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from redis import ResponseError
from sqlalchemy import select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk._copies import AGENT, AUDIT_LOG, TICKET, split
from is_db_bootstrap.blueprints.helpdesk._transactions import Sessions, writing
from is_db_bootstrap.blueprints.helpdesk.converters import agent_to_orm, audit_log_to_orm, ticket_to_orm
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AuditEntry, Ticket
from is_db_bootstrap.blueprints.helpdesk.errors import DuplicateRecord
from is_db_bootstrap.blueprints.helpdesk.models import AgentModel, AuditLogModel, TicketModel


class _Refused(Exception):
    """A copy that cannot become a row; the text is the reason."""


def adopt(redis: Any, sessions: Sessions, keys: Iterable[str]) -> tuple[int, int, int, tuple[tuple[str, str], ...]]:
    """How many tickets, agents and audit entries were inserted, and what was refused; each key in a transaction of its own."""
    inserted = {TICKET: 0, AGENT: 0, AUDIT_LOG: 0}
    refused = []
    for key in keys:
        prefix, name = split(key)
        if prefix not in _ADOPT:
            continue
        try:
            with writing(sessions) as (session, _):
                count = _ADOPT[prefix](session, redis, key, name)
            inserted[prefix] += count
        except (_Refused, ValidationError, ResponseError, DuplicateRecord, DataError) as exc:
            refused.append((key, _reason(exc)))
    return inserted[TICKET], inserted[AGENT], inserted[AUDIT_LOG], tuple(refused)


def _ticket(session: Session, redis: Any, key: str, ticket_id: str) -> int:
    if session.scalar(select(TicketModel.id).where(TicketModel.ticket_id == ticket_id)):
        return 0
    if (text := redis.get(key)) is None:
        return 0
    ticket = Ticket.model_validate_json(text)
    _same("ticket_id", ticket.ticket_id, ticket_id)
    session.add(ticket_to_orm(ticket))
    return 1


def _agent(session: Session, redis: Any, key: str, username: str) -> int:
    if session.scalar(select(AgentModel.id).where(AgentModel.username == username)):
        return 0
    if (text := redis.get(key)) is None:
        return 0
    agent = Agent.model_validate_json(text)
    _same("username", agent.username, username)
    session.add(agent_to_orm(agent))
    return 1


def _audit_log(session: Session, redis: Any, key: str, ticket_id: str) -> int:
    """The oldest is inserted first, so that equal times keep their order."""
    stored = set(session.scalars(select(AuditLogModel.audit_id).where(AuditLogModel.ticket_id == ticket_id)))
    new: dict[str, AuditEntry] = {}
    for text in reversed(redis.lrange(key, 0, -1)):
        entry = AuditEntry.model_validate_json(text)
        _same("ticket_id", entry.ticket_id, ticket_id)
        if entry.id not in stored and new.setdefault(entry.id, entry) != entry:
            raise _Refused(f"two entries have the id {entry.id}")
    for entry in new.values():
        session.add(audit_log_to_orm(entry))
        session.flush()
    return len(new)


_ADOPT = {TICKET: _ticket, AGENT: _agent, AUDIT_LOG: _audit_log}


def _same(field: str, found: str, expected: str) -> None:
    if found != expected:
        raise _Refused(f"{field} is {found!r}, and the key says {expected!r}")


def _reason(exc: Exception) -> str:
    """Without the values, which may be secret."""
    if isinstance(exc, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc'])) or exc.title}: {each['msg']}" for each in exc.errors())
    if isinstance(exc, DuplicateRecord):
        return f"{exc.constraint}: another record has this value"
    return str(exc.orig if isinstance(exc, DataError) else exc)

"""The copies in Redis: their keys, what PostgreSQL rows say of them, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from redis import RedisError
from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from is_db_bootstrap.blueprints.helpdesk.converters import agent_from_orm, audit_log_from_orm, ticket_from_orm
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AuditEntry, Ticket
from is_db_bootstrap.blueprints.helpdesk.models import AgentModel, AuditLogModel, TicketModel

TICKET, AGENT, AGENT_ID, AUDIT_LOG = "ticket:", "agent:", "agent_id:", "audit_log:"
PREFIXES = (TICKET, AGENT, AGENT_ID, AUDIT_LOG)
#: The set of all ticket ids.
INDEX = "ticket:index"
AGENT_TTL_S = 31_536_000
#: An agent's copy up to this age is believed without asking PostgreSQL.
FRESH_S = 60
AUDIT_ENTRIES = 500
#: Keys that one SCAN asks for, and that one MGET names.
BATCH = 500

#: JSON or a username, a list of JSON, or no key.
Value = str | list[str] | None
M = TypeVar("M", bound=BaseModel)

#: A ticket with its children, each kind in one more query.
WITH_CHILDREN = (
    selectinload(TicketModel.comments),
    selectinload(TicketModel.attachments),
    selectinload(TicketModel.status_history),
    selectinload(TicketModel.assignments),
)


class PendingKey(Exception):
    """The copy may be older than what PostgreSQL says, so it is not read."""


#: Redis cannot say.
NO_ANSWER = (RedisError, PendingKey)


def split(key: str) -> tuple[str, str]:
    """Prefix and id of a copied key; `ValueError` for any other, `ticket:index` included."""
    for prefix in PREFIXES:
        if key.startswith(prefix) and key not in {prefix, INDEX}:
            return prefix, key.removeprefix(prefix)
    raise ValueError(f"{key!r} is no copy; copies are {', '.join(prefix + '…' for prefix in PREFIXES)}.")


def agent_keys(agent: Agent) -> tuple[str, str]:
    """Both keys of an agent."""
    return AGENT + agent.username, AGENT_ID + agent.id


def newest_first(ticket_id: str, limit: int) -> Any:
    """Audit entries of a ticket."""
    rows = select(AuditLogModel).where(AuditLogModel.ticket_id == ticket_id)
    return rows.order_by(AuditLogModel.created_at.desc(), AuditLogModel.id.desc()).limit(limit)


def values(session: Session, keys: Collection[str]) -> dict[str, Value]:
    """What rows say of each key. The session's transaction reads what is committed, statement by statement."""
    ids: dict[str, list[str]] = {prefix: [] for prefix in PREFIXES}
    for key in keys:
        prefix, name = split(key)
        ids[prefix].append(name)
    found: dict[str, Value] = dict.fromkeys(keys)
    found |= _tickets(session, ids[TICKET])
    for row in _rows(session, AgentModel.username, ids[AGENT]):
        found[AGENT + row.username] = agent_from_orm(row).model_dump_json()
    for row in _rows(session, AgentModel.agent_id, ids[AGENT_ID]):
        found[AGENT_ID + row.agent_id] = row.username
    for name in ids[AUDIT_LOG]:
        entries = session.scalars(newest_first(name, AUDIT_ENTRIES))
        found[AUDIT_LOG + name] = [audit_log_from_orm(row).model_dump_json() for row in entries] or None
    return found


def _rows(session: Session, column: Any, names: Collection[str]) -> Iterable[Any]:
    return session.scalars(select(column.class_).where(column.in_(names))) if names else ()


def _tickets(session: Session, ids: Collection[str]) -> dict[str, Value]:
    """Read again until no ticket was saved between its row and its children."""
    while ids:
        session.expunge_all()
        named = TicketModel.ticket_id.in_(ids)
        rows = session.scalars(select(TicketModel).where(named).options(*WITH_CHILDREN)).all()
        versions = session.execute(select(TicketModel.ticket_id, TicketModel.updated_at).where(named))
        if dict(versions.all()) == {row.ticket_id: row.updated_at for row in rows}:
            return {TICKET + row.ticket_id: ticket_from_orm(row).model_dump_json() for row in rows}
    return {}


def called_for(session: Session) -> set[str]:
    """Every key that rows call for."""
    columns = (
        (TICKET, TicketModel.ticket_id),
        (AGENT, AgentModel.username),
        (AGENT_ID, AgentModel.agent_id),
        (AUDIT_LOG, AuditLogModel.ticket_id),
    )
    return {prefix + name for prefix, column in columns for name in session.scalars(select(column).distinct())}


def queue(pipe: Any, key: str, value: Value, *, present: bool) -> None:
    """Add to a MULTI what gives `key` its value. `present` says whether a key without a row exists."""
    prefix, name = split(key)
    if value is None and not present:
        # A MULTI of ours that timed out may still reach Redis. It watches this key, and DEL alone would not touch it.
        pipe.set(key, "")
    if not isinstance(value, str):
        pipe.delete(key)
    if isinstance(value, list):
        pipe.rpush(key, *value)
    elif isinstance(value, str):
        pipe.set(key, value, ex=AGENT_TTL_S if prefix in {AGENT, AGENT_ID} else None)
    if prefix == TICKET:
        (pipe.srem if value is None else pipe.sadd)(INDEX, name)


def scan(redis: Any) -> set[str]:
    """Every copied key that Redis has, and those that `ticket:index` calls for."""
    if redis.type(INDEX) not in {"set", "none"}:
        redis.delete(INDEX)
    found = {TICKET + member for member in redis.sscan_iter(INDEX, count=BATCH)}
    for prefix in PREFIXES:
        found.update(redis.scan_iter(match=f"{prefix}?*", count=BATCH))
    return found - {INDEX, TICKET}


def load(model: type[M], text: str | None) -> M | None:
    """The record; None when there is none, or when it does not validate."""
    try:
        return None if text is None else model.model_validate_json(text)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class SeenAgent:
    """What Redis knows of an agent. `present` says whether the key exists, `fresh` whether `agent` may be answered."""

    agent: Agent | None
    present: bool
    fresh: bool


class Copies:
    """Reads copies. Each method raises `RedisError`, or `PendingKey` for a key of which `pending` says so."""

    def __init__(self, redis: Any, pending: Callable[[str], bool]) -> None:
        self._redis = redis
        self._pending = pending

    def ticket(self, ticket_id: str) -> Ticket | None:
        """With its children."""
        return load(Ticket, self._redis.get(self._readable(TICKET + ticket_id)))

    def tickets(self) -> Iterator[Ticket]:
        """All that are not pending, in no order."""
        members = self._redis.sscan_iter(self._readable(INDEX), count=BATCH)
        keys = [key for key in {TICKET + member for member in members} if not self._pending(key)]
        for start in range(0, len(keys), BATCH):
            for text in self._redis.mget(keys[start : start + BATCH]):
                ticket = load(Ticket, text)
                if ticket is not None:
                    yield ticket

    def audit_entries(self, ticket_id: str, limit: int) -> list[AuditEntry]:
        """Newest first; none when one of them does not validate."""
        texts = self._redis.lrange(self._readable(AUDIT_LOG + ticket_id), 0, -1)
        entries = [load(AuditEntry, text) for text in texts]
        return [] if None in entries else [entry for entry in entries if entry is not None][:limit]

    def agent(self, username: str) -> SeenAgent:
        """By username."""
        text, fresh = self._with_age(AGENT + username)
        agent = load(Agent, text)
        if agent is not None and agent.username != username:
            agent = None
        return SeenAgent(agent, text is not None, fresh and agent is not None)

    def agent_by_id(self, agent_id: str) -> SeenAgent:
        """By id, through the username that Redis has for it."""
        username, fresh = self._with_age(AGENT_ID + agent_id)
        seen = self.agent(username) if username else SeenAgent(None, present=False, fresh=False)
        if seen.agent is None or seen.agent.id != agent_id:
            return SeenAgent(None, username is not None, fresh=False)
        return SeenAgent(seen.agent, present=True, fresh=fresh and seen.fresh)

    def _with_age(self, key: str) -> tuple[str | None, bool]:
        text, left_ms = self._redis.pipeline().get(self._readable(key)).pttl(key).execute()
        return text, 0 <= AGENT_TTL_S * 1000 - left_ms <= FRESH_S * 1000

    def _readable(self, key: str) -> str:
        if self._pending(key):
            raise PendingKey(key)
        return key

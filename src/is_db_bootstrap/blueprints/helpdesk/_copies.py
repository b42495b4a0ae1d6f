"""The copies in Redis: their keys, their values according to PostgreSQL, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from redis import RedisError
from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from is_db_bootstrap.blueprints.helpdesk.converters import (
    agent_from_orm,
    audit_log_from_orm,
    ticket_from_orm,
)
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AuditEntry, Ticket
from is_db_bootstrap.blueprints.helpdesk.models import AgentModel, AuditLogModel, TicketModel

TICKET = "ticket:"
AGENT = "agent:"
AGENT_ID = "agent_id:"
AUDIT_LOG = "audit_log:"
PREFIXES = (TICKET, AGENT, AGENT_ID, AUDIT_LOG)
#: The key of the set of all ticket ids.
INDEX = "ticket:index"
#: Lifetime of both copies of an agent: a year.
AGENT_TTL_S = 31_536_000
#: An agent's copy up to this age is answered without asking PostgreSQL.
FRESH_S = 60
#: How many audit entries of a ticket are copied.
AUDIT_ENTRIES = 500
#: How many keys one SCAN asks for, and how many one MGET names.
BATCH = 500

#: The value of a key: JSON or a username, a list of JSON, or no key.
Value = str | list[str] | None
M = TypeVar("M", bound=BaseModel)

#: Loads the children of a ticket, each kind in one more query.
WITH_CHILDREN = (
    selectinload(TicketModel.comments),
    selectinload(TicketModel.attachments),
    selectinload(TicketModel.status_history),
    selectinload(TicketModel.assignments),
)


class PendingKey(Exception):
    """A key is pending: its copy may be older than PostgreSQL's rows, so it is not read."""


#: Errors that mean that Redis cannot answer.
NO_ANSWER = (RedisError, PendingKey)


def split_key(key: str) -> tuple[str, str]:
    """The prefix and the id of a copy's key.

    Raises `ValueError` for any other key, such as `ticket:index`.
    """
    for prefix in PREFIXES:
        if key.startswith(prefix) and key not in {prefix, INDEX}:
            return prefix, key.removeprefix(prefix)
    forms = ", ".join(f"{prefix}…" for prefix in PREFIXES)
    raise ValueError(f"{key!r} is no copy. The keys of copies are {forms}.")


def agent_keys(agent: Agent) -> tuple[str, str]:
    """Both keys of an agent."""
    return AGENT + agent.username, AGENT_ID + agent.id


def newest_entries(ticket_id: str, limit: int) -> Any:
    """The query for the newest audit entries of a ticket, the newest first."""
    return (
        select(AuditLogModel)
        .where(AuditLogModel.ticket_id == ticket_id)
        .order_by(AuditLogModel.created_at.desc(), AuditLogModel.id.desc())
        .limit(limit)
    )


def row_values(session: Session, keys: Collection[str]) -> dict[str, Value]:
    """The value of each key, computed from PostgreSQL's rows.

    The session's transaction is READ COMMITTED: each statement sees what is committed by then.
    """
    ids: dict[str, list[str]] = {prefix: [] for prefix in PREFIXES}
    for key in keys:
        prefix, name = split_key(key)
        ids[prefix].append(name)

    found: dict[str, Value] = dict.fromkeys(keys)
    found |= _ticket_values(session, ids[TICKET])
    for row in _rows_named(session, AgentModel.username, ids[AGENT]):
        found[AGENT + row.username] = agent_from_orm(row).model_dump_json()
    for row in _rows_named(session, AgentModel.agent_id, ids[AGENT_ID]):
        found[AGENT_ID + row.agent_id] = row.username
    for ticket_id in ids[AUDIT_LOG]:
        found[AUDIT_LOG + ticket_id] = _audit_value(session, ticket_id)
    return found


def _rows_named(session: Session, column: Any, names: Collection[str]) -> Iterable[Any]:
    """The rows whose `column` is one of `names`."""
    if not names:
        return ()
    return session.scalars(select(column.class_).where(column.in_(names)))


def _audit_value(session: Session, ticket_id: str) -> Value:
    rows = session.scalars(newest_entries(ticket_id, AUDIT_ENTRIES))
    entries = [audit_log_from_orm(row).model_dump_json() for row in rows]
    return entries or None


def _ticket_values(session: Session, ids: Collection[str]) -> dict[str, Value]:
    """The values of tickets with their children.

    The statements are repeated until no ticket was saved between the reading of its row and of its
    children. Every save changes `updated_at`.
    """
    if not ids:
        return {}
    named = TicketModel.ticket_id.in_(ids)
    rows_query = select(TicketModel).where(named).options(*WITH_CHILDREN)
    versions_query = select(TicketModel.ticket_id, TicketModel.updated_at).where(named)
    while True:
        session.expunge_all()
        rows = session.scalars(rows_query).all()
        versions_before = {row.ticket_id: row.updated_at for row in rows}
        versions_after = dict(session.execute(versions_query).all())
        if versions_before == versions_after:
            return {TICKET + row.ticket_id: ticket_from_orm(row).model_dump_json() for row in rows}


def keys_of_rows(session: Session) -> set[str]:
    """Every key that has a row in PostgreSQL."""
    columns = {
        TICKET: TicketModel.ticket_id,
        AGENT: AgentModel.username,
        AGENT_ID: AgentModel.agent_id,
        AUDIT_LOG: AuditLogModel.ticket_id,
    }
    keys: set[str] = set()
    for prefix, column in columns.items():
        names = session.scalars(select(column).distinct())
        keys.update(prefix + name for name in names)
    return keys


def queue_commands(pipe: Any, key: str, value: Value, *, present: bool) -> None:
    """Add the commands that give `key` its value to a MULTI.

    `present` says whether a key without a row exists in Redis.
    """
    prefix, name = split_key(key)
    if value is None and not present:
        # A MULTI of ours that timed out may still reach Redis. It watches this key, and a DEL of a
        # missing key would not count as a change.
        pipe.set(key, "")
    if not isinstance(value, str):
        pipe.delete(key)
    if isinstance(value, list):
        pipe.rpush(key, *value)
    elif isinstance(value, str):
        is_agent = prefix in {AGENT, AGENT_ID}
        pipe.set(key, value, ex=AGENT_TTL_S if is_agent else None)
    if prefix == TICKET and value is None:
        pipe.srem(INDEX, name)
    elif prefix == TICKET:
        pipe.sadd(INDEX, name)


def scan_keys(redis: Any) -> set[str]:
    """Every copy's key that Redis has, and the keys of the tickets in `ticket:index`.

    An index of another type than a set is deleted.
    """
    if redis.type(INDEX) not in {"set", "none"}:
        redis.delete(INDEX)
    found = {TICKET + member for member in redis.sscan_iter(INDEX, count=BATCH)}
    for prefix in PREFIXES:
        found.update(redis.scan_iter(match=f"{prefix}?*", count=BATCH))
    return found - {INDEX, TICKET}


def parse_copy(model: type[M], text: str | None) -> M | None:
    """The record of a copy, or None when the copy is missing or does not validate."""
    if text is None:
        return None
    try:
        return model.model_validate_json(text)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class SeenAgent:
    """What Redis knows of an agent."""

    #: The agent, or None when the copy is missing or does not validate.
    agent: Agent | None
    #: Whether the key exists.
    present: bool
    #: Whether `agent` may be answered without asking PostgreSQL.
    fresh: bool


class Copies:
    """Reads the copies in Redis.

    `pending` says whether a key is pending. Each method raises `PendingKey` for such a key, and
    `RedisError` when Redis cannot answer.
    """

    def __init__(self, redis: Any, pending: Callable[[str], bool]) -> None:
        self._redis = redis
        self._pending = pending

    def ticket(self, ticket_id: str) -> Ticket | None:
        """The ticket with its children, or None."""
        key = self._readable_key(TICKET + ticket_id)
        return parse_copy(Ticket, self._redis.get(key))

    def tickets(self) -> Iterator[Ticket]:
        """All tickets that are not pending, in no order."""
        members = self._redis.sscan_iter(self._readable_key(INDEX), count=BATCH)
        keys = {TICKET + member for member in members}
        readable = [key for key in keys if not self._pending(key)]
        for start in range(0, len(readable), BATCH):
            batch = readable[start : start + BATCH]
            for text in self._redis.mget(batch):
                ticket = parse_copy(Ticket, text)
                if ticket is not None:
                    yield ticket

    def audit_entries(self, ticket_id: str, limit: int) -> list[AuditEntry]:
        """The newest entries of a ticket, the newest first.

        The list is empty when one of the copied entries does not validate.
        """
        key = self._readable_key(AUDIT_LOG + ticket_id)
        entries = []
        for text in self._redis.lrange(key, 0, -1):
            entry = parse_copy(AuditEntry, text)
            if entry is None:
                return []
            entries.append(entry)
        return entries[:limit]

    def agent(self, username: str) -> SeenAgent:
        """What Redis knows of the agent with this username."""
        text, is_young = self._text_and_youth(AGENT + username)
        agent = parse_copy(Agent, text)
        if agent is not None and agent.username != username:
            agent = None
        is_present = text is not None
        return SeenAgent(agent, present=is_present, fresh=is_young and agent is not None)

    def agent_by_id(self, agent_id: str) -> SeenAgent:
        """What Redis knows of the agent with this id, through the username it has for the id."""
        username, is_young = self._text_and_youth(AGENT_ID + agent_id)
        is_present = username is not None
        if not username:
            return SeenAgent(None, present=is_present, fresh=False)
        seen = self.agent(username)
        if seen.agent is None or seen.agent.id != agent_id:
            return SeenAgent(None, present=is_present, fresh=False)
        return SeenAgent(seen.agent, present=True, fresh=is_young and seen.fresh)

    def _text_and_youth(self, key: str) -> tuple[str | None, bool]:
        """The text of an agent's key, and whether the text is at most `FRESH_S` seconds old.

        The age follows from the lifetime that is left. A copy without a lifetime counts as old.
        """
        pipeline = self._redis.pipeline()
        text, left_ms = pipeline.get(self._readable_key(key)).pttl(key).execute()
        age_ms = AGENT_TTL_S * 1000 - left_ms
        return text, 0 <= age_ms <= FRESH_S * 1000

    def _readable_key(self, key: str) -> str:
        if self._pending(key):
            raise PendingKey(key)
        return key

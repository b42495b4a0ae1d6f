"""The directory of the people who work the desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk._copies import (
    AGENT,
    AGENT_ID,
    NO_ANSWER,
    Copies,
    SeenAgent,
    agent_keys,
)
from is_db_bootstrap.blueprints.helpdesk._transactions import (
    Sessions,
    check_page,
    copy_columns,
    count_and_page,
    enum_value,
    given_filters,
    read_snapshot,
    refuse_fixed_fields,
    write_transaction,
)
from is_db_bootstrap.blueprints.helpdesk.cache import Cache
from is_db_bootstrap.blueprints.helpdesk.converters import agent_from_orm, agent_to_orm
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AgentRole, AgentStatus
from is_db_bootstrap.blueprints.helpdesk.errors import UNAVAILABLE, RecordNotFound
from is_db_bootstrap.blueprints.helpdesk.models import AgentModel

_FIXED = {"id", "created_at"}


class AgentDirectory:
    """Agents in PostgreSQL, copied to Redis.

    Threads may share an object. Without a cache the agents are in PostgreSQL only. `password_hash`
    is stored as given: the caller hashes passwords and checks them.
    """

    def __init__(self, sessions: Sessions, cache: Cache | None) -> None:
        self._sessions = sessions
        self._cache = cache

    def create(self, agent: Agent) -> Agent:
        """Store an agent. Raises `DuplicateRecord` when the username or the id is taken."""
        with write_transaction(self._sessions, self._cache) as (session, keys):
            row = agent_to_orm(agent)
            session.add(row)
            session.flush()
            keys.update(agent_keys(agent))
            return agent_from_orm(row)

    def get_by_username(self, username: str) -> Agent | None:
        """The agent with this username, or None.

        A copy in Redis that is at most 60 seconds old is answered without asking PostgreSQL. While
        PostgreSQL is unavailable, a copy of any age is answered.
        """
        return self._get_agent(
            AGENT + username,
            AgentModel.username == username,
            lambda copies: copies.agent(username),
        )

    def get_by_id(self, agent_id: str) -> Agent | None:
        """The agent with this id, or None. Redis is used as in `get_by_username`."""
        return self._get_agent(
            AGENT_ID + agent_id,
            AgentModel.agent_id == agent_id,
            lambda copies: copies.agent_by_id(agent_id),
        )

    def update(self, agent_id: str, /, **changes: Any) -> Agent:
        """Change the named fields only. The changed agent is validated as a whole.

        Raises `RecordNotFound`, `DuplicateRecord` for a username that is taken, and `ValueError`
        for invalid values and for `id` and `created_at`, which never change.
        """
        refuse_fixed_fields(changes, _FIXED)
        with write_transaction(self._sessions, self._cache) as (session, keys):
            row = _locked_row(session, agent_id)
            if row is None:
                raise RecordNotFound(agent_id)
            stored = agent_from_orm(row)
            agent = Agent.model_validate(stored.model_dump() | changes)
            copy_columns(agent_to_orm(agent), row)
            session.flush()
            keys.update(agent_keys(stored), agent_keys(agent))
            return agent_from_orm(row)

    def delete(self, agent_id: str) -> bool:
        """Delete an agent, and return whether the agent existed."""
        with write_transaction(self._sessions, self._cache) as (session, keys):
            row = _locked_row(session, agent_id)
            if row is None:
                return False
            keys.update((AGENT + row.username, AGENT_ID + row.agent_id))
            session.delete(row)
            return True

    def find(
        self,
        *,
        role: AgentRole | None = None,
        status: AgentStatus | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[int, list[Agent]]:
        """How many agents match, and one page of them, ordered by username.

        The answer comes from PostgreSQL only. `limit` is 1 to 500 and `offset` at least 0,
        otherwise `ValueError` is raised.
        """
        check_page(limit, offset)
        filters = given_filters(
            role=enum_value(AgentRole, role),
            status=enum_value(AgentStatus, status),
        )
        rows = select(AgentModel).filter_by(**filters).order_by(AgentModel.username)
        with read_snapshot(self._sessions) as session:
            total, page = count_and_page(session, rows, limit, offset)
            return total, [agent_from_orm(row) for row in page]

    def _get_agent(
        self,
        key: str,
        condition: ColumnElement[bool],
        look: Callable[[Copies], SeenAgent],
    ) -> Agent | None:
        """The agent whose row meets the condition.

        `key` is the key by which the caller asks, and `look` reads its copy. A copy that was old or
        wrong is refreshed.
        """
        seen = self._seen_agent(look)
        if seen and seen.fresh:
            return seen.agent
        try:
            with read_snapshot(self._sessions) as session:
                row = session.scalar(select(AgentModel).where(condition))
                agent = agent_from_orm(row) if row else None
        except UNAVAILABLE as exc:
            if self._cache is None or seen is None:
                raise
            self._cache.log_answer(exc)
            return seen.agent
        if self._cache and seen and (agent or seen.present):
            self._cache.refresh(key, *_keys_of(agent), *_keys_of(seen.agent))
        return agent

    def _seen_agent(self, look: Callable[[Copies], SeenAgent]) -> SeenAgent | None:
        """What Redis knows of the agent, or None when Redis cannot answer."""
        if self._cache is None:
            return None
        try:
            return look(self._cache.copies)
        except NO_ANSWER:
            return None


def _keys_of(agent: Agent | None) -> tuple[str, ...]:
    """Both keys of the agent, or no keys when there is no agent."""
    return agent_keys(agent) if agent else ()


def _locked_row(session: Session, agent_id: str) -> AgentModel | None:
    """The row of the agent, locked until the transaction ends."""
    rows = select(AgentModel).where(AgentModel.agent_id == agent_id)
    return session.scalar(rows.with_for_update())

"""The people who work the desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk._copies import AGENT, AGENT_ID, NO_ANSWER, Copies, SeenAgent, agent_keys
from is_db_bootstrap.blueprints.helpdesk._transactions import (
    Sessions,
    check_page,
    copy_columns,
    matching,
    one_of,
    page_of,
    refuse_fixed,
    snapshot,
    writing,
)
from is_db_bootstrap.blueprints.helpdesk.cache import Cache
from is_db_bootstrap.blueprints.helpdesk.converters import agent_from_orm, agent_to_orm
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AgentRole, AgentStatus
from is_db_bootstrap.blueprints.helpdesk.errors import UNAVAILABLE, RecordNotFound
from is_db_bootstrap.blueprints.helpdesk.models import AgentModel

_FIXED = {"id", "created_at"}


class AgentDirectory:
    """Agents in PostgreSQL, copied to Redis. Safe to share between threads; without a cache PostgreSQL is used alone.

    `password_hash` is stored as given; hashing and checking are the caller's.
    """

    def __init__(self, sessions: Sessions, cache: Cache | None) -> None:
        self._sessions = sessions
        self._cache = cache

    def create(self, agent: Agent) -> Agent:
        """`DuplicateRecord` when the username or the id is taken."""
        with writing(self._sessions, self._cache) as (session, keys):
            row = agent_to_orm(agent)
            session.add(row)
            session.flush()
            keys.update(agent_keys(agent))
            return agent_from_orm(row)

    def get_by_username(self, username: str) -> Agent | None:
        """From Redis when the copy is at most 60 seconds old or PostgreSQL is unavailable; else from PostgreSQL."""
        return self._get(AGENT + username, AgentModel.username == username, lambda copies: copies.agent(username))

    def get_by_id(self, agent_id: str) -> Agent | None:
        """As `get_by_username`."""
        return self._get(AGENT_ID + agent_id, AgentModel.agent_id == agent_id, lambda copies: copies.agent_by_id(agent_id))

    def update(self, agent_id: str, /, **changes: Any) -> Agent:
        """Change the named fields only; the agent is validated as a whole.

        `RecordNotFound`; `DuplicateRecord` for a username that is taken; `ValueError` for `id` and `created_at`.
        """
        refuse_fixed(changes, _FIXED)
        with writing(self._sessions, self._cache) as (session, keys):
            row = _locked(session, agent_id)
            if row is None:
                raise RecordNotFound(agent_id)
            stored = agent_from_orm(row)
            agent = Agent.model_validate(stored.model_dump() | changes)
            copy_columns(agent_to_orm(agent), row)
            session.flush()
            keys.update(agent_keys(stored), agent_keys(agent))
            return agent_from_orm(row)

    def delete(self, agent_id: str) -> bool:
        """Whether there was one."""
        with writing(self._sessions, self._cache) as (session, keys):
            row = _locked(session, agent_id)
            if row is None:
                return False
            keys.update((AGENT + row.username, AGENT_ID + row.agent_id))
            session.delete(row)
            return True

    def find(
        self, *, role: AgentRole | None = None, status: AgentStatus | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[int, list[Agent]]:
        """How many match, and a page of them by username; from PostgreSQL only."""
        check_page(limit, offset)
        wanted = matching(role=one_of(AgentRole, role), status=one_of(AgentStatus, status))
        rows = select(AgentModel).filter_by(**wanted)
        with snapshot(self._sessions) as session:
            total, page = page_of(session, rows.order_by(AgentModel.username), limit, offset)
            return total, [agent_from_orm(row) for row in page]

    def _get(self, key: str, named: ColumnElement[bool], look: Callable[[Copies], SeenAgent]) -> Agent | None:
        seen = self._seen(look)
        if seen and seen.fresh:
            return seen.agent
        try:
            with snapshot(self._sessions) as session:
                row = session.scalar(select(AgentModel).where(named))
                agent = agent_from_orm(row) if row else None
        except UNAVAILABLE as exc:
            if self._cache is None or seen is None:
                raise
            self._cache.answered(exc)
            return seen.agent
        if self._cache and seen and (agent or seen.present):
            known = [each for each in (agent, seen.agent) if each]
            self._cache.refresh(key, *(each for one in known for each in agent_keys(one)))
        return agent

    def _seen(self, look: Callable[[Copies], SeenAgent]) -> SeenAgent | None:
        """None when Redis cannot say."""
        try:
            return look(self._cache.copies) if self._cache else None
        except NO_ANSWER:
            return None


def _locked(session: Session, agent_id: str) -> AgentModel | None:
    return session.scalar(select(AgentModel).where(AgentModel.agent_id == agent_id).with_for_update())

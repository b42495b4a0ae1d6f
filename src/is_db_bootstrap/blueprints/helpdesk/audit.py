"""Who did what to a ticket."""

from __future__ import annotations

from is_db_bootstrap.blueprints.helpdesk._copies import AUDIT_LOG, newest_first
from is_db_bootstrap.blueprints.helpdesk._transactions import Sessions, check_page, snapshot, writing
from is_db_bootstrap.blueprints.helpdesk.cache import Cache
from is_db_bootstrap.blueprints.helpdesk.converters import audit_log_from_orm, audit_log_to_orm
from is_db_bootstrap.blueprints.helpdesk.domain import AuditEntry
from is_db_bootstrap.blueprints.helpdesk.errors import UNAVAILABLE


class AuditLog:
    """Entries that are added and never changed; the newest 500 of a ticket are copied to Redis. Safe to share between threads."""

    def __init__(self, sessions: Sessions, cache: Cache | None) -> None:
        self._sessions = sessions
        self._cache = cache

    def add(self, entry: AuditEntry) -> AuditEntry:
        """The ticket need not exist; `DuplicateRecord`."""
        with writing(self._sessions, self._cache) as (session, keys):
            row = audit_log_to_orm(entry)
            session.add(row)
            session.flush()
            keys.add(AUDIT_LOG + entry.ticket_id)
            return audit_log_from_orm(row)

    def find(self, ticket_id: str, *, limit: int = 100) -> list[AuditEntry]:
        """The newest first; from PostgreSQL, and from Redis while that is unavailable."""
        check_page(limit)
        try:
            with snapshot(self._sessions) as session:
                return [audit_log_from_orm(row) for row in session.scalars(newest_first(ticket_id, limit))]
        except UNAVAILABLE as exc:
            if self._cache is None:
                raise
            return self._cache.instead(exc, lambda copies: copies.audit_entries(ticket_id, limit))

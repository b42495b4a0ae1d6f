"""The audit log: who did what to a ticket."""

from __future__ import annotations

from is_db_bootstrap.blueprints.helpdesk._copies import AUDIT_LOG, newest_entries
from is_db_bootstrap.blueprints.helpdesk._transactions import (
    Sessions,
    check_page,
    read_snapshot,
    write_transaction,
)
from is_db_bootstrap.blueprints.helpdesk.cache import Cache
from is_db_bootstrap.blueprints.helpdesk.converters import audit_log_from_orm, audit_log_to_orm
from is_db_bootstrap.blueprints.helpdesk.domain import AuditEntry
from is_db_bootstrap.blueprints.helpdesk.errors import UNAVAILABLE


class AuditLog:
    """Audit entries, which are added and never changed.

    The newest 500 entries of a ticket are copied to Redis. Threads may share an object. Without a
    cache the entries are in PostgreSQL only.
    """

    def __init__(self, sessions: Sessions, cache: Cache | None) -> None:
        self._sessions = sessions
        self._cache = cache

    def add(self, entry: AuditEntry) -> AuditEntry:
        """Store an entry. The ticket need not exist.

        Raises `DuplicateRecord` when the id is taken.
        """
        with write_transaction(self._sessions, self._cache) as (session, keys):
            row = audit_log_to_orm(entry)
            session.add(row)
            session.flush()
            keys.add(AUDIT_LOG + entry.ticket_id)
            return audit_log_from_orm(row)

    def find(self, ticket_id: str, *, limit: int = 100) -> list[AuditEntry]:
        """The newest entries of a ticket, the newest first.

        The entries come from PostgreSQL, and from Redis while PostgreSQL is unavailable. `limit` is
        1 to 500, otherwise `ValueError` is raised.
        """
        check_page(limit)
        try:
            with read_snapshot(self._sessions) as session:
                rows = session.scalars(newest_entries(ticket_id, limit))
                return [audit_log_from_orm(row) for row in rows]
        except UNAVAILABLE as exc:
            if self._cache is None:
                raise
            return self._cache.answer_instead(
                exc, lambda copies: copies.audit_entries(ticket_id, limit)
            )

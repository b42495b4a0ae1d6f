"""What a ping has seen of the server, and what our role may create there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import AccessDenied, StoreUnavailable
from is_db_bootstrap.results import ServerInfo
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.postgres.connection import connect
from is_db_bootstrap.stores.postgres.errors import NAME, errors

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.results import Diagnosis
    from is_db_bootstrap.stores.postgres.role_privileges import Work
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.workplace import Workplace

#: A server that started less than so many seconds ago is asked twice: an image's first boot starts
#: a server that it ends again.
YOUNG_S = 10
_LOOK = """
    SELECT current_setting('server_version'), pg_is_in_recovery(),
           current_setting('transaction_read_only'),
           extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8
"""


class ServerLook:
    """Looks at the server of `sessions`, and at what `place` needs there."""

    def __init__(self, sessions: RunSessions, place: Workplace) -> None:
        self._sessions = sessions
        self._place = place
        #: Seconds from the start of the server to the last ping. None before the first one.
        self.age_s: float | None = None
        #: Whether the server of the last ping was a standby, for which the address asked.
        self._is_standby = False

    def ping(self, limit_s: float) -> ServerInfo:
        """One try on new connections, within `limit_s`."""
        connection = self._sessions.begin(limit_s)
        target = self._sessions.target
        with errors(target):
            row = connection.execute(_LOOK.encode()).fetchone()
        version, standby, read_only, age_s = row or ("", False, "off", 0.0)
        self.age_s, self._is_standby = age_s, standby
        if read_only == "on" and not standby:
            raise StoreUnavailable(
                NAME,
                f"{target} is read-only (default_transaction_read_only) and cannot be written to.",
                hint="Give the address of the primary; a fail-over may be going on. Or let an "
                "administrator take the setting from the role or the database (ALTER ROLE or "
                "ALTER DATABASE … RESET default_transaction_read_only).",
            ).at(Rung.WRITABLE)
        if age_s < YOUNG_S:
            connect(self._sessions.url, limit_s, database=connection.info.dbname).close()
        return ServerInfo(str(version).split()[0])

    def rungs(self) -> Sequence[RungResult]:
        """What the last ping has seen, and whether the role may create what is declared."""
        from is_db_bootstrap.stores.postgres.ladder import rungs_of

        session, is_missing = self._sessions.reader_or_maintenance()
        return rungs_of(
            session,
            self._sessions.url,
            self._schema_rung(session, is_missing=is_missing),
            is_missing=is_missing,
            is_standby=self._is_standby,
        )

    def _schema_rung(self, session: psycopg.Connection[Any], *, is_missing: bool) -> RungResult:
        """What the role may create. A role for verify creates nothing, and needs no such right."""
        if self._is_standby:
            text = "not asked, because nothing can be created on a standby"
            return RungResult(Rung.SCHEMA, ok=None, text=text)
        if is_missing:
            self._sessions.database.refuse_no_right_to_create()
            text = f"may create the database {self._sessions.url.database}"
            return RungResult(Rung.SCHEMA, ok=True, text=text)
        if self._place.is_path_of_team:
            text = "not asked, because env.py decides in which schema it works"
            return RungResult(Rung.SCHEMA, ok=None, text=text)
        try:
            is_new = self._place.checked_schema(session)
        except AccessDenied as exc:
            from is_db_bootstrap.stores.postgres.role_privileges import rung_of_reader

            with errors(self._sessions.target):
                found = rung_of_reader(session, self._work_of_role(is_missing=False), exc)
            if found is None:
                raise
            return found
        text = f"may create {'schema' if is_new else 'tables in schema'} {self._place.schema}"
        return RungResult(Rung.SCHEMA, ok=True, text=text)

    def diagnose(self) -> Diagnosis:
        """What the server of the last ping tells, for `doctor`."""
        from is_db_bootstrap.stores.postgres.diagnosis import diagnosis

        session, is_missing = self._sessions.reader_or_maintenance()
        return diagnosis(session, self._sessions.url, self._work_of_role(is_missing=is_missing))

    def _work_of_role(self, *, is_missing: bool) -> Work:
        """What our role works with."""
        from is_db_bootstrap.stores.postgres.role_privileges import Work

        database, place = self._sessions.url.database, self._place
        return Work(
            database,
            place.schema,
            place.history.place,
            is_missing=is_missing,
            is_path_of_team=place.is_path_of_team,
        )

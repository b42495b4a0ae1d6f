"""The database and the schema of a blueprint: whether we may make them, and how they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import AccessDenied, ConfigurationError
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.stores.postgres.connection import MAINTENANCE, connect, identifier
from is_db_bootstrap.stores.postgres.errors import (
    DUPLICATE_DATABASE,
    DUPLICATE_SCHEMA,
    INSUFFICIENT_PRIVILEGE,
    NAME,
    UNIQUE_VIOLATION,
    DatabaseMissing,
    DatabaseUnlisted,
    errors,
)
from is_db_bootstrap.stores.postgres.grant_statements import (
    create_in_schema,
    let_create_database,
    own_schema_of,
)

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.postgres.open_sessions import OpenSessions

_RIGHTS = """
    SELECT current_user, has_database_privilege(current_database(), 'CREATE'),
           to_regnamespace(%(schema)s) IS NOT NULL,
           coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'CREATE')
               AND has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE'), false),
           current_database()
"""
#: Whether the role may create databases, and its name.
MAY_CREATE = "SELECT rolcreatedb OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user"


class Database:
    """The database of an address.

    `connect_timeout_s` bounds every connection attempt, in seconds. `open_sessions` is told of each
    connection.
    """

    def __init__(
        self,
        url: StoreUrl,
        connect_timeout_s: float,
        open_sessions: OpenSessions,
    ) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._open_sessions = open_sessions
        self._target = str(url)
        #: The session in the database `postgres`, as long as ours was seen to be missing.
        self._maintenance: psycopg.Connection[Any] | None = None

    def maintenance(self, limit_s: float | None = None) -> psycopg.Connection[Any]:
        """The session in the database `postgres`, which is kept until `close`.

        A session that was lost is opened again. Raises what a DBA must run, when we may not connect
        there.
        """
        if self._maintenance is not None and _answers(self._maintenance):
            return self._maintenance
        self._maintenance = self._opened_maintenance(limit_s)
        return self._maintenance

    def keep_maintenance(self, session: psycopg.Connection[Any]) -> None:
        """Keep a session in the database `postgres` that has just seen that ours is missing."""
        self.close()
        self._open_sessions.add(session)
        self._maintenance = session

    def is_still_missing(self) -> bool:
        """Whether the server, asked in the session that is kept, does not list the database.

        False when no session is kept: then nobody has seen that the database is missing. The
        session is closed when the database is there by now.
        """
        kept = self._maintenance
        if kept is None:
            return False
        query = "SELECT FROM pg_database WHERE datname = %s"
        try:
            if kept.execute(query, [self._url.database]).fetchone() is None:
                return True
        except psycopg.Error:
            pass  # it was lost, so an attempt to connect tells
        self.close()
        return False

    def close(self) -> None:
        """Close the session in the database `postgres`."""
        kept, self._maintenance = self._maintenance, None
        if kept is not None:
            kept.close()

    def _opened_maintenance(self, limit_s: float | None) -> psycopg.Connection[Any]:
        try:
            return self._open_sessions.open(
                lambda opened: connect(
                    self._url,
                    limit_s or self._connect_timeout_s,
                    database=MAINTENANCE,
                    opened=opened,
                )
            )
        except DatabaseUnlisted as exc:
            raise ConfigurationError(
                f"postgres: Database {self._url.database} does not exist, and we cannot create it: "
                f"the pooler at {self._target} does not list the database {MAINTENANCE}.",
                hint=f"Let an administrator run: {self.statement}; or let the pooler "
                f"list {MAINTENANCE}, or give the server's own address.",
            ).at(Rung.TARGET) from exc
        except (AccessDenied, DatabaseMissing) as exc:
            raise AccessDenied(
                NAME,
                f"Database {self._url.database} does not exist, and we cannot create it: no way "
                f"into {MAINTENANCE}.",
                hint=f"Let an administrator run: {self.statement};",
                subject=self._url.database,
            ).at(Rung.TARGET) from exc

    @property
    def statement(self) -> str:
        """What creates the database."""
        return (
            f"CREATE DATABASE {identifier(self._url.database)} TEMPLATE template0 ENCODING 'UTF8'"
        )

    def may_not_create(self, user: str) -> AccessDenied:
        """The error of a role that lacks the right, with what an administrator runs."""
        statement = (
            f"CREATE DATABASE {identifier(self._url.database)} OWNER {identifier(user)} TEMPLATE "
            "template0 ENCODING 'UTF8'"
        )
        return AccessDenied(
            NAME,
            f"Database {self._url.database} does not exist, and {user} may not create it.",
            hint=f"Let an administrator run: {statement}; or: {let_create_database(user)}",
            subject=self._url.database,
        ).at(Rung.SCHEMA)

    def checked_schema(self, reader: psycopg.Connection[Any], schema: str) -> list[Change]:
        """The change that creates the schema, if it is missing.

        `AccessDenied` when we may not create what is pending.
        """
        with errors(self._target, schema):
            row = reader.execute(_RIGHTS.encode(), {"schema": identifier(schema)}).fetchone()
        user, database_right, exists, schema_right, database = row or ("", True, True, True, "")
        if exists and not schema_right:
            grant = create_in_schema(schema, user)
            raise AccessDenied(
                NAME,
                f"{user} may not create tables in schema {schema}.",
                subject=schema,
                hint=f"Let an administrator run: {grant}",
            ).at(Rung.SCHEMA)
        if not exists and not database_right:
            raise AccessDenied(
                NAME,
                f"{user} may not create schemas in database {database}.",
                subject=schema,
                hint=f"Let an administrator run: {own_schema_of(schema, user)}",
            ).at(Rung.SCHEMA)
        return [] if exists else [schema_change(schema)]

    def create(self) -> str | None:
        """Create it from template0, in UTF-8; harmless when another run was faster.

        template1 would be refused while anybody is connected to it (55006, ecto#1925), and holds
        what others put there.
        """
        connection = self.maintenance()
        with errors(self._target, self._url.database, database_change(self._url.database)):
            try:
                connection.execute(self.statement.encode())
            except psycopg.Error as exc:
                if exc.sqlstate == INSUFFICIENT_PRIVILEGE:
                    raise self.may_not_create(self._url.username) from exc
                # Of two at once, one gets either of these (Tom Lane, in selfservice-plugin#196).
                if exc.sqlstate not in {DUPLICATE_DATABASE, UNIQUE_VIOLATION}:
                    raise
                return f"Database {self._url.database} was created by another run meanwhile."
            finally:
                self.close()
        return None

    def refuse_no_right_to_create(self) -> None:
        """Raise `AccessDenied` when the database is missing and our role may not create it."""
        connection = self.maintenance()
        with errors(self._target):
            row = connection.execute(MAY_CREATE.encode()).fetchone()
        if row is not None and not row[0]:
            raise self.may_not_create(row[1])


def _answers(session: psycopg.Connection[Any]) -> bool:
    """Whether the session is still there. It is closed otherwise."""
    try:
        session.execute(b"")
    except psycopg.Error:
        session.close()
        return False
    return True


def database_change(name: str) -> Change:
    """The step that creates a database, unless another run was faster."""
    return Change(name, "database", nature=Nature.REPEATABLE)


def schema_change(name: str) -> Change:
    """The step that creates a schema, unless another run was faster."""
    return Change(name, "schema", nature=Nature.REPEATABLE)


def schema_statement(name: str) -> str:
    """What creates a schema, unless it is there."""
    return f"CREATE SCHEMA IF NOT EXISTS {identifier(name)}"


def create_schema(reader: psycopg.Connection[Any], schema: str) -> None:
    """Create the schema; harmless when another run was faster."""
    try:
        reader.execute(schema_statement(schema).encode())
    except psycopg.Error as exc:
        # IF NOT EXISTS is not atomic (svix#2589).
        if exc.sqlstate not in {DUPLICATE_SCHEMA, UNIQUE_VIOLATION}:
            raise

"""Running revisions with Alembic from code. Imported only when there is something to apply."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine

from is_db_bootstrap import files
from is_db_bootstrap.stores.postgres_connection import connect, errors, identifier, session_settings
from is_db_bootstrap.stores.postgres_revisions import TABLE

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing

#: Alembic keeps its running environment in module globals: two upgrades in threads fail with KeyError('config').
ALEMBIC = threading.Lock()


def working_connection(url: StoreUrl, schema: str, timing: Timing) -> psycopg.Connection[Any]:
    """A session for revisions: it waits `lock_timeout_s` for a lock, and the server ends it within a second of our death."""
    settings = session_settings(schema) | {"lock_timeout": f"{round(timing.lock_timeout_s * 1000)}ms"}
    connection = connect(url, timing.connect_timeout_s, settings=settings)
    with suppress(psycopg.errors.InvalidParameterValue):  # a server whose platform cannot tell
        connection.execute("SET client_connection_check_interval = '1s'")
    connection.autocommit = False
    return connection


def engine(
    url: StoreUrl, schema: str, timing: Timing, opened: Callable[[psycopg.Connection[Any]], None] = lambda _: None
) -> Engine:
    """An engine of one connection that we open ourselves, so that every form of address works; `opened` is told of it."""

    def creator() -> Any:
        connection = working_connection(url, schema, timing)
        opened(connection)
        return connection

    return create_engine("postgresql+psycopg://", creator=creator, pool_size=1, max_overflow=0, use_native_hstore=False)


def config(blueprint: Blueprint, schema: str, connection: Connection | None = None) -> Config:
    """The configuration that `migrations/alembic.ini` gives the stock command, for revisions of any folder."""
    found = Config()
    found.set_main_option("script_location", _escaped(files.root() / "migrations"))
    found.set_main_option("version_locations", _escaped(blueprint.migrations_dir))
    found.set_main_option("path_separator", "os")
    found.attributes.update(blueprint=blueprint, schema=schema, connection=connection)
    return found


def _escaped(path: Path | None) -> str:
    return str(path).replace("%", "%%")


def upgrade(engine: Engine, blueprint: Blueprint, schema: str, revision: str) -> bool:
    """Bring the schema to `revision`, one transaction a revision; False when that had been done meanwhile.

    Each transaction begins by locking the version table, and Alembic reads it only then: a backend that outlived its
    killed client, or a second run, is waited for and its work recognised.
    """
    ran: list[Any] = []
    with engine.connect() as connection:

        @event.listens_for(connection, "begin")
        def lock_version_table(begun: Connection) -> None:
            if not getattr(begun.connection.driver_connection, "autocommit", False):  # an autocommit_block locks nothing
                table = identifier(schema, TABLE).replace("%", "%%")  # psycopg sees parameters, if none
                begun.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")

        with ALEMBIC:
            wanted = config(blueprint, schema, connection)
            wanted.attributes["applied"] = ran.append
            command.upgrade(wanted, revision)
    return bool(ran)


def create_version_table(connection: psycopg.Connection[Any], target: str, schema: str) -> None:
    """Create the version table as Alembic would; `IF NOT EXISTS` is not atomic, so a faster run is no error."""
    table = identifier(schema, TABLE)
    statement = f"CREATE TABLE IF NOT EXISTS {table} (version_num varchar(32) NOT NULL CONSTRAINT {TABLE}_pkc PRIMARY KEY)"
    with errors(target, TABLE), suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):
        connection.execute(statement.encode())

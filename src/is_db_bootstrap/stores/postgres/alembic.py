"""Running revisions with Alembic from code. Imported only when there is something to apply."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine

from is_db_bootstrap import files
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.stores.postgres.connection import NAME, connect, errors, identifier, session_settings
from is_db_bootstrap.stores.postgres.revisions import TABLE

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing


class _OneAtATime:
    """A lock whose holder may be given up, because it hangs: whoever wants it afterwards is told so at once."""

    #: Seconds between two looks whether the holder was given up.
    _LOOK_S = 0.2

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._given_up = False

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=self._LOOK_S):
            if self._given_up:
                raise StoreUnavailable(
                    NAME,
                    "A revision of an earlier run did not end and still hangs in this process, which can run no other.",
                    hint="End this process, and run again in a new one.",
                )
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder, self._given_up = None, False
        self._lock.release()

    def give_up(self, thread: int | None) -> None:
        """Count on `thread`, if it is the holder, never to come back; harmless when it does."""
        if thread is not None and thread == self._holder:
            self._given_up = True


#: Alembic keeps its running environment in module globals: two upgrades in threads fail with KeyError('config').
ALEMBIC = _OneAtATime()


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
    """Bring the schema to `revision`, one transaction a revision; False when that had been done meanwhile."""
    return _ran(engine, blueprint, schema, command.upgrade, revision)


def downgrade(engine: Engine, blueprint: Blueprint, schema: str, revision: str) -> bool:
    """Undo every revision after `revision` (`base`: all of them), one transaction a revision."""
    return _ran(engine, blueprint, schema, command.downgrade, revision)


def stamp(engine: Engine, blueprint: Blueprint, schema: str, revision: str) -> bool:
    """Record `revision` as the schema's, whatever is in it; False when it was recorded already."""
    return _ran(engine, blueprint, schema, command.stamp, revision)


def tried_downgrade(
    engine: Engine, blueprint: Blueprint, schema: str, revision: str, look: Callable[[psycopg.Connection[Any]], Any]
) -> tuple[Any, Any]:
    """What `look` sees before and after a downgrade that is rolled back."""
    with engine.connect() as connection, connection.begin() as transaction:
        session = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        before = look(session)
        with ALEMBIC:
            command.downgrade(config(blueprint, schema, connection), revision)
        after = look(session)
        transaction.rollback()
    return before, after


def write_revision(engine: Engine | None, blueprint: Blueprint, message: str, revision: str, file_template: str) -> str | None:
    """Write the next revision file and return its path; from the models by autogenerate with an `engine`, else empty.

    `engine` leads to a database at head. None when autogenerate found no difference, and then nothing was written.
    """
    found: list[str] = []
    quiet = redirect_stdout(io.StringIO())  # Alembic says there what it writes
    with engine.connect() if engine else nullcontext() as connection, ALEMBIC, quiet:
        wanted = config(blueprint, "public", connection)
        wanted.set_main_option("file_template", file_template.replace("%", "%%"))

        def only_with_changes(_: Any, __: Any, directives: list[Any]) -> None:
            if engine is not None and directives and directives[0].upgrade_ops.is_empty():
                directives[:] = []

        made = command.revision(
            wanted, message, autogenerate=engine is not None, rev_id=revision, version_path=str(blueprint.migrations_dir),
            process_revision_directives=only_with_changes,
        )  # fmt: skip
        found += [script.path for script in (made if isinstance(made, list) else [made]) if script]
    return found[0] if found else None


def offline_sql(blueprint: Blueprint, schema: str, span: str) -> str:
    """The SQL that an upgrade over `span` (`TO` or `FROM:TO`) would run, without a server."""
    found = config(blueprint, schema)
    found.output_buffer = text = io.StringIO()
    with ALEMBIC:
        command.upgrade(found, span, sql=True)
    return text.getvalue()


def _ran(engine: Engine, blueprint: Blueprint, schema: str, act: Callable[..., None], revision: str) -> bool:
    """Run an Alembic command; whether it changed anything.

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
            act(wanted, revision)
    return bool(ran)


def create_version_table(connection: psycopg.Connection[Any], target: str, schema: str) -> None:
    """Create the version table as Alembic would; `IF NOT EXISTS` is not atomic, so a faster run is no error."""
    table = identifier(schema, TABLE)
    statement = f"CREATE TABLE IF NOT EXISTS {table} (version_num varchar(32) NOT NULL CONSTRAINT {TABLE}_pkc PRIMARY KEY)"
    with errors(target, TABLE), suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):
        connection.execute(statement.encode())

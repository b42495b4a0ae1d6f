"""Running revisions by a team's own `env.py`, with its driver, under the lock of our run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.exc import DBAPIError

from is_db_bootstrap.blueprint import AlembicEnvironment
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.stores.postgres.record_place import RecordPlace
from is_db_bootstrap.stores.postgres.refused_statement import carry_place
from is_db_bootstrap.stores.postgres.team_connections import HeldLock, TeamConnections
from is_db_bootstrap.stores.postgres.team_environment import (
    as_before,
    folders_of,
    read_environment,
    replace_calls,
)
from is_db_bootstrap.stores.postgres.team_watch import TeamWatch

if TYPE_CHECKING:
    from alembic.runtime.environment import EnvironmentContext
    from sqlalchemy.engine import Connection

    from is_db_bootstrap.stores.postgres.begun import Marks
    from is_db_bootstrap.stores.postgres.upgrade_run import UpgradeRun


class TeamRun:
    """A team's environment, read once, whose online branch runs under the lock of our run.

    `target` is how messages call the database. `lock_timeout_s` bounds, in seconds, how long a
    statement waits for a lock. With `schema`, the search path of `env.py` begins with it.
    """

    def __init__(
        self,
        declared: AlembicEnvironment,
        target: str,
        lock_timeout_s: float,
        schema: str | None = None,
    ) -> None:
        self._environment = read_environment(declared)
        self._watch = TeamWatch(None)
        #: The revisions.
        self.chain = self._environment.chain
        #: The folder of `env.py`.
        self.folder = self._environment.folder
        #: The version table that `env.py` names.
        self.place = self._environment.captured().place
        #: What `env.py` has opened.
        self.connections = TeamConnections(target, lock_timeout_s, schema)

    def stamp(self) -> frozenset[tuple[Path, int]]:
        """The state of the files of the environment."""
        return self._environment.stamp()

    def put_on_path(self) -> None:
        """Let the modules be found that `prepend_sys_path` lets `env.py` find."""
        self._environment.script(self._environment.config())

    def watch_with(self, marks: Marks) -> TeamWatch:
        """What sees the steps, and writes down by `marks` which one has begun."""
        self._watch = TeamWatch(marks)
        return self._watch

    def upgrade(
        self,
        run: UpgradeRun,
        reader: psycopg.Connection[Any],
        lock: tuple[int, int] | None,
        ended: Callable[[], bool],
    ) -> None:
        """Run the online branch of `env.py` once, followed by `run`.

        `reader` is a session of the planned database. `lock` is the process that holds the lock of
        our run, and its number. `ended` says whether our run has ended.

        Raises what `env.py` raises, and `StoreConflict` when it has reached another database.
        """
        config = self._environment.config()
        held = HeldLock(*lock) if lock else None
        with (
            as_before(),
            self.connections.watching(reader, held, ended),
            self._watch.seeing(),
            self._told_errors(),
        ):
            script = self._environment.script(config)
            schema = None
            if self.place.schema is None:
                row = reader.execute(self.place.schema_query.encode()).fetchone()
                schema = row[0] if row else None
            prepare = partial(self._prepare, schema=schema)
            run.run(config, script, watch=self._watch, prepare=prepare)
        if self.connections.refusal is not None:
            raise self.connections.refusal

    def _prepare(self, environment: EnvironmentContext, *, schema: str | None) -> None:
        folders = self._environment.version_locations
        replace_calls(environment, _Checked(environment, self.place, schema, folders))

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        """Raise the refusal of a connection, and what another driver raises as psycopg does."""
        try:
            yield
        except (BootstrapError, psycopg.Error):
            raise
        except Exception as exc:
            if self.connections.refusal is not None:
                raise self.connections.refusal from exc
            if isinstance(exc, DBAPIError) and not isinstance(exc.orig, psycopg.Error):
                raise error_of_server(exc) from exc
            raise


class _Checked:
    """Stands in for `context.configure` in the online branch of an `env.py`.

    `schema` is where our session finds the version table, if its `place` names no schema. `folders`
    are those of the revisions that were planned.
    """

    def __init__(
        self,
        environment: EnvironmentContext,
        place: RecordPlace,
        schema: str | None,
        folders: Sequence[Path],
    ) -> None:
        self._script = environment.script
        self._folders = {*folders}
        self._configure = environment.configure
        self._context = environment.get_context
        self._place = place
        self._schema = schema

    def configure(self, **options: Any) -> None:
        """Configure as `env.py` says, if that is what was planned on."""
        self._refuse_other_folders()
        self._configure(**options)
        context = self._context()
        found = RecordPlace(context.version_table_schema, context.version_table)
        if found != self._place:
            raise ConfigurationError(
                f"env.py configures the version table {found.shown} now, and {self._place.shown} "
                "in its offline branch or the settings. Nothing was run.",
                hint="Let both branches of env.py give context.configure the same version_table "
                "and version_table_schema.",
            )
        if self._schema is not None and context.connection is not None:
            self._refuse_other_schema(context.connection)

    def _refuse_other_folders(self) -> None:
        """Refuse an `env.py` that takes its revisions from elsewhere in this branch."""
        found = {*folders_of(self._script)}
        if found != self._folders:
            now, planned = (", ".join(sorted(map(str, each))) for each in (found, self._folders))
            raise ConfigurationError(
                f"env.py takes its revisions from {now} now, and from {planned} in its offline "
                "branch or alembic.ini. Nothing was run.",
                hint="Let both branches of env.py say the same folders, or name them in "
                "alembic.ini: version_locations.",
            )

    def _refuse_other_schema(self, connection: Connection) -> None:
        """Refuse a connection whose search path finds the version table elsewhere."""
        was_in_transaction = connection.in_transaction()
        found = connection.exec_driver_sql(self._place.schema_query).scalar()
        if not was_in_transaction:
            connection.rollback()  # env.py begins its own
        if found != self._schema:
            raise ConfigurationError(
                f"The search path of env.py finds {self._place.shown} in the schema {found}, and "
                f"that of is-db-bootstrap in {self._schema}. Nothing was run.",
                hint="Give both addresses the same role and the same search path, or name the "
                "schema in env.py: version_table_schema.",
            )


def error_of_server(exc: DBAPIError) -> psycopg.Error:
    """What another driver raises, as psycopg would raise it, so that all is told alike."""
    orig: Any = exc.orig
    state = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None) or ""
    text = " ".join(str(orig).split())
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.OperationalError if exc.connection_invalidated else psycopg.DatabaseError
    found = kind(text)
    carry_place(orig, found, exc.statement or "")
    return found

"""Running revisions by a team's own `env.py`, with its driver, under the lock of our run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from is_db_bootstrap.blueprint import AlembicEnvironment
from is_db_bootstrap.errors import BootstrapError, ConfigurationError, StoreBusy
from is_db_bootstrap.stores.postgres.alembic import commit_record, running_alembic
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.record_place import RecordPlace
from is_db_bootstrap.stores.postgres.team_connections import HeldLock, TeamConnections
from is_db_bootstrap.stores.postgres.team_environment import (
    Captured,
    as_before,
    read_environment,
    replace_calls,
)
from is_db_bootstrap.stores.postgres.team_watch import TeamWatch

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from is_db_bootstrap.stores.postgres.begun import Marks

#: The revisions to run, for the revisions that a database records.
StepsFrom = Callable[[Any, MigrationContext], Sequence[RevisionStep]]


class TeamRun:
    """A team's environment, read once, whose online branch runs under the lock of our run.

    `target` is how messages call the database. `lock_timeout_s` bounds, in seconds, how long a
    statement waits for a lock.
    """

    def __init__(self, declared: AlembicEnvironment, target: str, lock_timeout_s: float) -> None:
        self._environment = read_environment(declared)
        self._watch = TeamWatch(None)
        #: The revisions.
        self.chain = self._environment.chain
        #: The folder of `env.py`.
        self.folder = self._environment.folder
        captured = self._environment.captured()
        #: The version table that `env.py` names.
        self.place = RecordPlace(captured.version_table_schema, captured.version_table)
        #: What `env.py` has opened.
        self.connections = TeamConnections(target, lock_timeout_s)

    def watch_with(self, marks: Marks) -> TeamWatch:
        """What sees the steps, and writes down by `marks` which one has begun."""
        self._watch = TeamWatch(marks)
        return self._watch

    def upgrade(
        self,
        destination: str,
        reader: psycopg.Connection[Any],
        lock: tuple[int, int] | None,
        ended: Callable[[], bool],
    ) -> bool:
        """Run `env.py` as `alembic upgrade DESTINATION` does. False when it had nothing to run.

        `reader` is a session of the planned database. `lock` is the process that holds the lock of
        our run, and its number. `ended` says whether our run has ended.

        Raises what `env.py` raises, and `StoreConflict` when it has reached another database.
        """
        config = self._environment.config()
        config.attributes["is_db_bootstrap"] = True
        ran: list[str] = []
        with running_alembic(), as_before():
            script = self._environment.script(config)

            def steps(heads: Any, _: Any) -> Sequence[RevisionStep]:
                return script._upgrade_revs(destination, heads)  # noqa: SLF001 - as the command has it

            environment = EnvironmentContext(config, script, fn=steps, destination_rev=destination)
            calls = _Watched(environment, self._environment.captured(), self._watch, ran)
            replace_calls(environment, calls)
            held = HeldLock(*lock) if lock else None
            with self.connections.watching(reader, held, ended), self._watch.seeing():
                self._run(environment)
        if self.connections.refusal is not None:
            raise self.connections.refusal
        return bool(ran)

    def _run(self, environment: EnvironmentContext) -> None:
        try:
            with environment:
                environment.script.run_env()
        except (BootstrapError, psycopg.Error):
            raise
        except Exception as exc:
            if self.connections.refusal is not None:
                raise self.connections.refusal from exc
            if isinstance(exc, DBAPIError) and not isinstance(exc.orig, psycopg.Error):
                raise _of_server(exc) from exc
            raise


class _Watched:
    """Stands in for what an `env.py` calls on `alembic.context` in its online branch."""

    def __init__(
        self,
        environment: EnvironmentContext,
        captured: Captured,
        watch: TeamWatch,
        ran: list[str],
    ) -> None:
        self._configure = environment.configure
        self._context = environment.get_context
        self._captured = captured
        self._watch = watch
        self._ran = ran

    def configure(self, **options: Any) -> None:
        """Configure as `env.py` says, and see each step."""
        given = options.get("on_version_apply")
        callbacks = () if given is None else given
        if callable(callbacks):
            callbacks = (callbacks,)
        options["on_version_apply"] = (*callbacks, self._recorded)
        self._configure(**options)
        context = self._context()
        self._refuse_other_table(context)
        steps = context._migrations_fn  # noqa: SLF001 - Alembic tells of a step only when it has ended

        def watched(heads: Any, ctx: MigrationContext) -> Iterator[Any]:
            for step in steps(heads, ctx) if steps else ():
                step.migration_fn = self._seen(step, ctx, heads if not self._ran else None)
                yield step

        context._migrations_fn = watched  # noqa: SLF001 - the same

    def _refuse_other_table(self, context: MigrationContext) -> None:
        """Refuse to run on another version table than the one that was planned on."""
        found = (context.version_table_schema, context.version_table)
        planned = (self._captured.version_table_schema, self._captured.version_table)
        if found == planned:
            return
        shown = [".".join(filter(None, place)) for place in (found, planned)]
        raise ConfigurationError(
            f"env.py configures the version table {shown[0]} now, and {shown[1]} in its offline "
            "branch or the settings. Nothing was run.",
            hint="Let both branches of env.py give context.configure the same version_table and "
            "version_table_schema.",
        )

    def _seen(
        self, step: RevisionStep, ctx: MigrationContext, heads: Sequence[str] | None
    ) -> Callable[..., Any]:
        """What runs a step. With `heads`, what is recorded must still be that."""
        act = step.migration_fn
        name = f"upgrade {step.revision.revision}"

        def run(**given: Any) -> Any:
            connection = ctx.connection
            if connection is None:
                raise CommandError("env.py has configured no connection")
            if heads is not None:
                _refuse_moved(connection, ctx, heads)
            self._watch.begin(name, connection)
            began = connection.get_transaction()
            with self._watch.running(name):
                result = act(**given)
            self._watch.left = connection.get_transaction() is not began
            return result

        run.__name__ = getattr(act, "__name__", "upgrade")
        return run

    def _recorded(self, ctx: MigrationContext, step: Any, **_: Any) -> None:
        """A step has run, and Alembic has written its row."""
        self._ran.append(step.up_revision_id)
        commit_record(ctx, self._watch)


def _refuse_moved(connection: Connection, ctx: MigrationContext, heads: Sequence[str]) -> None:
    """Lock the version table, and read it again, in the transaction in which the work begins."""
    names = filter(None, (ctx.version_table_schema, ctx.version_table))
    table = identifier(*names).replace("%", "%%")
    if connection.in_transaction():
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
    if set(ctx.get_current_heads()) != set(heads):
        raise StoreBusy(
            NAME,
            f"{ctx.version_table} has changed since env.py has read it.",
            hint="Something else applies revisions there. Run again.",
        )


def _of_server(exc: DBAPIError) -> psycopg.Error:
    """What another driver raises, as psycopg would raise it, so that all is told alike."""
    orig: Any = exc.orig
    state = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None) or ""
    text = " ".join(str(orig).split())
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.OperationalError if exc.connection_invalidated else psycopg.DatabaseError
    return kind(text)

"""Running a team's revisions in a scratch database, by our environment and the team's driver.

The team's `env.py` is not run: it leads to the team's database. What it gives to
`context.configure` holds, as far as it concerns what a revision does. Every connection that a
revision opens must reach the scratch database, as `team_connections` asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Engine

from is_db_bootstrap.stores.postgres.alembic import config, create_version_table
from is_db_bootstrap.stores.postgres.connection import connect, session_settings
from is_db_bootstrap.stores.postgres.guest_threads import GuestThreads
from is_db_bootstrap.stores.postgres.scratch_record import note_scratch
from is_db_bootstrap.stores.postgres.server_wide import refuse_server_wide
from is_db_bootstrap.stores.postgres.team_connections import TeamConnections
from is_db_bootstrap.stores.postgres.team_driver import USUAL, Found, TeamDriver
from is_db_bootstrap.stores.postgres.team_environment import as_before
from is_db_bootstrap.stores.postgres.team_run import TeamRun
from is_db_bootstrap.stores.postgres.team_watch import TeamWatch

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.half_done import StepWatch
    from is_db_bootstrap.stores.postgres.upgrade_run import UpgradeRun

#: The way out of a revision that connects by itself to another database.
_CONNECTS_ITSELF = (
    "A revision that is tried works in a scratch database. Let it use op.get_bind(), or the "
    "address that the variables of the environment hold while it runs. Nothing was changed through "
    "that connection."
)
#: What is said of one that went on without it.
_WENT_ON = (
    "A revision has tried to connect by itself to another database than the scratch one. It was "
    "refused, and the revision went on without it."
)
#: What is said where the team's driver is not known.
_UNKNOWN_DRIVER = (
    f"The revisions ran with {USUAL} in the scratch database: neither env.py's offline branch nor "
    "its file tells the driver. Name it: driver, beside alembic in [postgres]."
)


class TeamTrial(TeamRun):
    """A team's revisions, which run in the scratch database `url`, whose schema is `schema`."""

    def __init__(self, url: StoreUrl, blueprint: Blueprint, timing: Timing, schema: str) -> None:
        if blueprint.alembic is None:
            raise TypeError(blueprint)
        super().__init__(blueprint.alembic, str(url), timing.lock_timeout_s)
        self._driver = TeamDriver.of(blueprint.alembic)
        #: In which way the revisions run otherwise than by `env.py`, a sentence each.
        self.notes: list[str] = [] if self._driver.is_known else [_UNKNOWN_DRIVER]
        self._url = url
        self._blueprint = blueprint
        self._timing = timing
        self._schema = schema
        self.connections = TeamConnections(
            str(url),
            timing.lock_timeout_s,
            settings=session_settings(schema),
            opener="a revision",
            way_out=_CONNECTS_ITSELF,
        )

    def upgrade(
        self,
        run: UpgradeRun,
        reader: psycopg.Connection[Any],
        lock: tuple[int, int] | None,
        ended: Callable[[], bool],
    ) -> None:
        """Run our environment once, followed by `run`. There is no lock to see.

        Raises what a revision raises, `StoreConflict` when it needs a connection to another
        database, and `ConfigurationError` when it sends a statement that acts on the whole server.
        """
        del lock
        create_version_table(reader, str(self._url), self.place)
        watch = TeamWatch(None)

        def act(connection: Connection) -> None:
            wanted = config(self._blueprint, self._schema, connection)
            wanted.attributes["chain"] = self.chain
            run.run(wanted, ScriptDirectory.from_config(wanted), watch=watch)

        with self.trying(reader, ended), refusing_server_wide(watch):
            self._driver.run(self._url, self._timing.connect_timeout_s, act)
        if self.connections.refusal is not None:
            self.notes.append(_WENT_ON)

    def work(self, act: Callable[[Connection], Found]) -> Found:
        """What `act` returns, which gets a connection to the scratch database.

        Raises as `upgrade` does.
        """
        settings = session_settings(self._schema)
        with (
            connect(self._url, self._timing.connect_timeout_s, settings=settings) as reader,
            self.trying(reader, lambda: False),
        ):
            return self._driver.run(self._url, self._timing.connect_timeout_s, act)

    @contextmanager
    def trying(self, reader: psycopg.Connection[Any], ended: Callable[[], bool]) -> Iterator[None]:
        """While user code runs, whose connections must reach the database of `reader`."""
        with as_before(), self.connections.watching(reader, None, ended), self._told_errors():
            yield


@contextmanager
def refusing_server_wide(watch: StepWatch) -> Iterator[None]:
    """While inside, no revision that `watch` sees sends what acts on the whole server.

    Raises `ConfigurationError` for such a statement before it is sent. A statement that the server
    puts together itself is not recognised, nor one that is sent through a driver itself.
    """
    threads = GuestThreads()

    def look(connection: Connection, _: Any, statement: str, *__: Any) -> None:
        if threads.is_here() and watch.step:
            refuse_server_wide(statement, watch.step)
            is_escaped = connection.dialect.paramstyle in {"format", "pyformat"}
            note_scratch(watch.step, statement, is_escaped=is_escaped)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", look)

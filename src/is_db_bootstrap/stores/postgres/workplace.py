"""The schema in which a store works, and what belongs to that schema.

That is the number of its lock, its record, what is declared of it, and what runs its revisions.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.consent import Consent
from is_db_bootstrap.stores.postgres import lock as postgres_lock
from is_db_bootstrap.stores.postgres.connection import placeholders
from is_db_bootstrap.stores.postgres.declared import Declared
from is_db_bootstrap.stores.postgres.errors import NAME, errors
from is_db_bootstrap.stores.postgres.half_done import Watch
from is_db_bootstrap.stores.postgres.history import History
from is_db_bootstrap.stores.postgres.search_path import Found, in_view_of, place_of_tables

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.postgres.baseline import BaselineRun
    from is_db_bootstrap.stores.postgres.elsewhere import IgnoredTables
    from is_db_bootstrap.stores.postgres.recorded_elsewhere import RecordedElsewhere
    from is_db_bootstrap.stores.postgres.revision_step import RevisionSteps
    from is_db_bootstrap.stores.postgres.revisions import Chain
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.team_connections import TeamConnections
    from is_db_bootstrap.stores.postgres.team_run import TeamRun
    from is_db_bootstrap.stores.postgres.team_watch import TeamWatch
    from is_db_bootstrap.stores.postgres.upgrade_run import UpgradeRun

#: The schema of a caller that names none.
USUAL_SCHEMA = "public"


class Workplace:
    """Where a store works: the schema that it was given, or the first one of the search path.

    A path that leads to another schema makes all that belongs to the schema anew. So `sessions`
    have to open one that looks before anything is read here. Without `compares`, the live schema
    is not compared with the catalogue beside the revisions. `ignored` are version tables that are
    not ours. With `unknown_is_ahead`, a recorded revision that nobody knows is newer code's.
    """

    def __init__(
        self,
        sessions: RunSessions,
        blueprint: Blueprint,
        chain: Chain,
        team: TeamRun | None,
        *,
        compares: bool,
        compare_privileges: bool,
        unknown_is_ahead: bool,
        ignored: IgnoredTables,
    ) -> None:
        self._sessions = sessions
        sessions.when_opened = self.settle
        self.blueprint = blueprint
        self.chain = chain
        #: The team's own environment, if the blueprint names one.
        self.team = team
        #: Where the revisions and their catalogue are.
        self.folder = team.folder if team else blueprint.migrations
        #: Which revisions may run again although they have begun.
        self.consent = Consent()
        self._compares = compares
        self._compare_privileges = compare_privileges
        self._unknown_is_ahead = unknown_is_ahead
        self._ignored = ignored
        #: Whether a session uses the search path only as far as our own one goes.
        self._sees_as_declared = True
        self._work_in(sessions.path_schema or USUAL_SCHEMA)

    def _work_in(self, schema: str) -> None:
        """Look, lock and apply in `schema` from now on."""
        self.schema = schema
        self.lock_number = postgres_lock.key(schema)
        record = self.team.place if self.team else None
        self.declared = Declared.read(
            self.folder if self._compares else None,
            schema,
            self.chain.head,
            compare_privileges=self._compare_privileges,
            record=record,
        )
        self.history = History(
            self._sessions.reader,
            self.is_at_work_elsewhere,
            target=self._sessions.target,
            schema=schema,
            chain=self.chain,
            blueprint=self.blueprint.name,
            timing=self._sessions.timing,
            consent=self.consent,
            unknown_is_ahead=self._unknown_is_ahead,
            place=record,
        )
        for made in ("elsewhere", "watch", "revision_steps", "baseline"):
            self.__dict__.pop(made, None)
        #: What watches the connections that the function of a baseline opens.
        self._baseline_connections: TeamConnections | None = None

    # --- what belongs to the schema, and is made when it is first used

    @cached_property
    def elsewhere(self) -> RecordedElsewhere:
        """Other version tables that may record our revisions."""
        from is_db_bootstrap.stores.postgres.recorded_elsewhere import RecordedElsewhere

        return RecordedElsewhere(
            self._sessions.url,
            self.schema,
            self.blueprint,
            self.chain,
            self.history,
            ignored=self._ignored,
        )

    @cached_property
    def watch(self) -> Watch | TeamWatch:
        """What sees where a revision stands."""
        if self.team is not None:
            return self.team.watch_with(self.history.marks)
        return Watch(self.history.marks)

    @cached_property
    def revision_steps(self) -> RevisionSteps:
        """What runs steps of Alembic."""
        from is_db_bootstrap.stores.postgres.revision_step import RevisionSteps

        return RevisionSteps(
            self._sessions.reader,
            self._engine,
            target=self._sessions.target,
            schema=self.schema,
            blueprint=self.blueprint,
            chain=self.chain,
            history=self.history,
            watch=self.watch,
            lock_timeout_s=self._sessions.timing.lock_timeout_s,
            run_by_team=self._upgrade_by_team if self.team else None,
        )

    @cached_property
    def baseline(self) -> BaselineRun | None:
        """What fills an empty database, if the blueprint names it."""
        declared = self.blueprint.baseline
        if declared is None:
            return None
        from is_db_bootstrap.stores.postgres.baseline import BaselineRun, Tools

        sessions = self._sessions
        tools = Tools(
            reader=sessions.reader,
            session=sessions.connected,
            engine=self._engine,
            connections=self._new_baseline_connections,
            held_lock=sessions.lock_of_run,
            has_ended=sessions.has_ended,
        )
        return BaselineRun(
            declared,
            tools,
            target=sessions.target,
            address=placeholders(sessions.url, self.schema)["url"],
            only_schema=self._own_schema,
            blueprint=self.blueprint,
            chain=self.chain,
            history=self.history,
            team=self.team,
        )

    def _engine(self) -> Engine:
        return self._sessions.engine(self.watch)

    def _upgrade_by_team(self, run: UpgradeRun) -> None:
        """Let the team's `env.py` do what `run` follows."""
        if self.team is None:
            raise TypeError(run)
        sessions = self._sessions
        self.team.upgrade(run, sessions.reader(), sessions.lock_of_run(), sessions.has_ended)

    # --- connections that others open

    @property
    def _own_schema(self) -> str | None:
        """The schema, if it is not the usual one."""
        return None if self.schema == USUAL_SCHEMA else self.schema

    def _new_baseline_connections(self) -> TeamConnections:
        from is_db_bootstrap.stores.postgres.team_connections import TeamConnections

        self._baseline_connections = TeamConnections(
            self._sessions.target,
            self._sessions.timing.lock_timeout_s,
            self._own_schema,
            "the baseline",
        )
        return self._baseline_connections

    def guest_connections(self) -> list[TeamConnections]:
        """What watches connections of the team's own, where any were opened."""
        found = [self._baseline_connections, self.team.connections if self.team else None]
        return [each for each in found if each is not None and each.are_open]

    # --- the search path

    def settle(self, session: psycopg.Connection[Any], *, is_new: bool = False) -> None:
        """Work in the schema to which the search path of a session leads, unless one is given.

        `is_new` says that the session is in another database, because ours is still to be made.
        Raises `ConfigurationError` for a path that leads nowhere, and `StoreConflict` when it leads
        elsewhere than it did when the lock was taken.
        """
        if self._sessions.path_schema is not None:
            return
        target = self._sessions.target
        with errors(target, "the search path"):
            found = Found.by(session, is_new=is_new)
            self._sees_as_declared = found.is_plain
            schema = place_of_tables(session, found, is_team=self.team is not None)
        if schema == self.schema:
            return
        if self._sessions.held_lock is not None:
            raise StoreConflict(
                NAME,
                f"The search path leads to schema {schema} now, and to {self.schema} when the "
                f"lock of {target} was taken.",
                hint="Set DB_SCHEMA, or run again.",
            )
        self._work_in(schema)

    def as_declared(self, reader: psycopg.Connection[Any]) -> AbstractContextManager[None]:
        """While inside, the server names what it has as it does to sessions of a catalogue."""
        return nullcontext() if self._sees_as_declared else in_view_of(reader, self.schema)

    @property
    def is_path_of_team(self) -> bool:
        """Whether a team's `env.py` decides in which schema it works."""
        return self.team is not None and self._sessions.path_schema is None

    def checked_schema(self, reader: psycopg.Connection[Any]) -> list[Change]:
        """The change that creates the schema, if it is missing. A team's path is its own."""
        if self.is_path_of_team:
            return []
        return self._sessions.database.checked_schema(reader, self.schema)

    def is_at_work_elsewhere(self) -> bool:
        """Whether another run holds the lock of this schema."""
        if self._sessions.held_lock is not None:
            return False
        with errors(self._sessions.target):
            return postgres_lock.holder(self._sessions.reader(), self.lock_number) is not None

"""PostgreSQL: Alembic revisions, each in a transaction of its own, and the live catalogue.

Looking needs psycopg only: the revisions are read from their files, the history from
`alembic_version`. SQLAlchemy and Alembic are imported when there is something to apply. See
`history` for what is recorded, `begun` for a revision that did not end, `lock` for the lock, and
`compare` for what is compared object by object.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from is_db_bootstrap.engine.lineage import Standing
from is_db_bootstrap.engine.memory import Memory, Recall
from is_db_bootstrap.engine.memory_text import to_text
from is_db_bootstrap.engine.store import RECORD
from is_db_bootstrap.errors import (
    APPLY,
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    HalfDone,
    Interrupted,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import (
    Change,
    ChangeResult,
    Drift,
    LockHolder,
    Nature,
    Plan,
    Proof,
    RepairPlan,
    ServerInfo,
    Status,
)
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.consent import Consent
from is_db_bootstrap.stores.postgres import (
    elsewhere,
    hosts,
    ladder,
    lineage_table,
    memory_table,
    own_schema,
    revision_digests,
)
from is_db_bootstrap.stores.postgres import lock as postgres_lock
from is_db_bootstrap.stores.postgres.baseline import BaselineRun, Tools
from is_db_bootstrap.stores.postgres.connection import (
    NOWHERE,
    connect,
    placeholders,
    settings_query,
    terminated,
)
from is_db_bootstrap.stores.postgres.database import (
    Database,
    create_schema,
    database_change,
    schema_change,
    schema_statement,
)
from is_db_bootstrap.stores.postgres.declared import Declared
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of
from is_db_bootstrap.stores.postgres.errors import (
    DatabaseMissing,
    errors,
    looking,
    rolled_back,
)
from is_db_bootstrap.stores.postgres.half_done import Watch
from is_db_bootstrap.stores.postgres.history import History
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.open_sessions import OpenSessions
from is_db_bootstrap.stores.postgres.reached import OneServer, server_of
from is_db_bootstrap.stores.postgres.recorded_elsewhere import RecordedElsewhere
from is_db_bootstrap.stores.postgres.revision_step import RevisionSteps
from is_db_bootstrap.stores.postgres.revisions import Record
from is_db_bootstrap.stores.postgres.search_path import Found, in_view_of, place_of_tables
from is_db_bootstrap.stores.postgres.seed import insert, insert_text, missing, row_name
from is_db_bootstrap.stores.postgres.session_roles import SessionRoles, no_look_limits
from is_db_bootstrap.stores.postgres.version_column import refuse_long_ids

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Blueprint, SeedRow
    from is_db_bootstrap.engine.store import Adoption, Anchor, Lock, Place, PresentLock, Progress
    from is_db_bootstrap.grant_list import GrantWish, RoleGrants
    from is_db_bootstrap.results import Diagnosis
    from is_db_bootstrap.stores.postgres.adoption import SchemaAdoption
    from is_db_bootstrap.stores.postgres.catalogue import Catalogue
    from is_db_bootstrap.stores.postgres.planned_sql import PlannedSql, SqlWriter, StatementTrial
    from is_db_bootstrap.stores.postgres.role_privileges import Work
    from is_db_bootstrap.stores.postgres.selftest import Trial
    from is_db_bootstrap.stores.postgres.team_connections import TeamConnections
    from is_db_bootstrap.stores.postgres.team_run import TeamRun
    from is_db_bootstrap.stores.postgres.team_watch import TeamWatch
    from is_db_bootstrap.stores.postgres.upgrade_run import UpgradeRun

#: A server that started less than so many seconds ago is asked twice: an image's first boot starts
#: a server that it ends again.
YOUNG_S = 10
#: Seconds that the server gets to say what it records, after a fail-over.
_READ_BACK_S = 10.0
#: The schema of a caller that names none.
_USUAL_SCHEMA = "public"
_LOOK = """
    SELECT current_setting('server_version'), pg_is_in_recovery(),
           current_setting('transaction_read_only'),
           extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8
"""


class CanTryCatalogue(Protocol):
    """What runs the revisions in a scratch database, and says what they make there."""

    def catalogue(self) -> Catalogue:
        """What they make. A second call runs nothing."""

    def cancel(self) -> None:
        """From another thread: end what runs on the server."""


class PostgreSQLBootstrapper:
    """The PostgreSQL part of a blueprint, in one schema of one database.

    `url` is `postgresql://`, also with several hosts or a driver name such as
    `postgresql+asyncpg://`. Of `timing`, `connect_timeout_s` bounds every connection attempt and
    `lock_timeout_s` how long a statement of a revision waits for a lock. Without `schema`, it is
    the first one of the search path that the address, PGOPTIONS, the role or the database gives a
    session, and that path is left as it is. The blueprint's demo rows
    are planned and written with `seed` only. `ignored_version_tables` are version tables that are
    not ours (see `elsewhere.IgnoredTables`). With `unknown_is_ahead`, a recorded revision that
    nobody knows is newer code's, and no conflict. Without `compare_privileges`, owners, grants and
    the roles of policies are not compared. With `make_trial`, the self-test runs in what that
    makes, such as a scratch database, and not in the schema itself. With `make_plan_trial`, a plan
    runs revisions that run Python in what that makes, such as a scratch database elsewhere. With
    `make_catalogue_trial`, an adoption runs revisions without a catalogue in what that makes.
    Raises `ConfigurationError` for an address, revisions or version tables that cannot be ones.
    """

    name: StoreName = "postgres"
    drift_advice = (
        "A revision that was applied does not run again: write another one "
        "(`is-db-bootstrap revision`) where every database differs."
    )
    kinds_together = frozenset({"revision"})
    #: Nobody can live with the loss of a database.
    is_cache = False
    #: Whether the live schema is compared with the catalogue beside the revisions.
    compares = True
    #: Whether a plan says what of the schema is not compared.
    tells_gap = True

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        *,
        timing: Timing | None = None,
        schema: str | None = None,
        seed: bool = False,
        ignored_version_tables: Sequence[str] = (),
        unknown_is_ahead: bool = False,
        compare_privileges: bool = True,
        make_trial: Callable[[StoreUrl, Blueprint, Timing, str], Trial] | None = None,
        make_plan_trial: Callable[[Blueprint, Timing, str], StatementTrial] | None = None,
        make_catalogue_trial: Callable[[StoreUrl, Blueprint, Timing], CanTryCatalogue]
        | None = None,
    ) -> None:
        self._url = _with_database(url, blueprint.name)
        self._blueprint = blueprint if seed else blueprint.without_seed()
        self._timing = timing or Timing()
        if schema == own_schema.SCHEMA:
            raise ConfigurationError(
                f"DB_SCHEMA is {schema}, where is-db-bootstrap keeps records of its own.",
                hint="Name another schema.",
            )
        #: The schema with which our sessions' search path begins. None: the path is the team's.
        self._path_schema = schema
        self._schema = schema or _USUAL_SCHEMA
        #: The team's environment as it is declared, with braces for what is of one run.
        self._declared_alembic = blueprint.alembic
        if blueprint.alembic is not None:
            own = blueprint.alembic.of_run(**placeholders(self._url, self._schema))
            self._blueprint = replace(self._blueprint, alembic=own)
        self._team = self._read_team()
        self._chain = self._team.chain if self._team else chain_of(blueprint)
        self._compare_privileges = compare_privileges
        self._unknown_is_ahead = unknown_is_ahead
        self._ignored = elsewhere.IgnoredTables(ignored_version_tables, KIND.ignored_variable)
        self._session_roles = SessionRoles(self._url, schema, self._timing)
        self._session: psycopg.Connection[Any] | None = None
        #: Seconds from the start of the server to the last ping. None before the first one.
        self._server_age_s: float | None = None
        #: Whether the server of the last ping was a standby, for which the address asked.
        self._is_standby = False
        self._changing_in: int | None = None
        #: The lock of this run, once it was taken.
        self._held_lock: postgres_lock.AdvisoryLock | None = None
        self._engine: Engine | None = None
        self._make_trial = make_trial
        #: The self-test that runs elsewhere, so that another thread can end it.
        self._selftest_trial: Trial | None = None
        self._make_plan_trial = make_plan_trial
        self._make_catalogue_trial = make_catalogue_trial
        #: Whether an adoption has found tables of the blueprint, whatever is recorded.
        self._is_there_unrecorded = False
        #: What runs the revisions for an adoption, so that another thread can end it.
        self._catalogue_trial: CanTryCatalogue | None = None
        #: The blueprint as it was given, for what runs it elsewhere.
        self._trial_blueprint = blueprint.without_seed()
        #: The trial of a plan, so that another thread can end it.
        self._plan_trial: StatementTrial | None = None
        #: What writes down pending revisions, so that another thread can end it.
        self._sql_writer: SqlWriter | None = None
        self._cancelled = threading.Event()
        self._due = False
        self.target = str(self._url)
        self._open_sessions = OpenSessions(self.target)
        self._database = Database(self._url, self._timing.connect_timeout_s, self._open_sessions)
        self._consent = Consent()
        #: Whether a session uses the search path only as far as our own one goes.
        self._sees_as_declared = True
        self._work_in(self._schema)

    def _work_in(self, schema: str) -> None:
        """Look, lock and apply in `schema` from now on."""
        self._schema = schema
        self._number = postgres_lock.key(schema)
        folder = self._team.folder if self._team else self._blueprint.migrations
        self._declared = Declared.read(
            folder if self.compares else None,
            schema,
            self._chain.head,
            compare_privileges=self._compare_privileges,
            record=self._team.place if self._team else None,
        )
        self._history = History(
            self._reader,
            self._is_at_work_elsewhere,
            target=self.target,
            schema=schema,
            chain=self._chain,
            blueprint=self._blueprint.name,
            timing=self._timing,
            consent=self._consent,
            unknown_is_ahead=self._unknown_is_ahead,
            place=self._team.place if self._team else None,
        )
        self._elsewhere = RecordedElsewhere(
            self._url,
            schema,
            self._blueprint,
            self._chain,
            self._history,
            ignored=self._ignored,
        )
        self._watch: Watch | TeamWatch = Watch(self._history.marks)
        if self._team:
            self._watch = self._team.watch_with(self._history.marks)
        self._revision_steps = RevisionSteps(
            self._reader,
            self._alembic_engine,
            target=self.target,
            schema=schema,
            blueprint=self._blueprint,
            chain=self._chain,
            history=self._history,
            watch=self._watch,
            lock_timeout_s=self._timing.lock_timeout_s,
            run_by_team=self._upgrade_by_team if self._team else None,
        )

        self._baseline = self._read_baseline()
        #: What watches the connections that the function of a baseline opens.
        self._baseline_connections: TeamConnections | None = None

    def _read_baseline(self) -> BaselineRun | None:
        """What fills an empty database, if the blueprint names it."""
        declared = self._blueprint.baseline
        if declared is None:
            return None
        tools = Tools(
            reader=self._reader,
            session=self._connected,
            engine=self._alembic_engine,
            connections=self._new_baseline_connections,
            held_lock=self._lock_of_run,
            has_ended=self._cancelled.is_set,
        )
        return BaselineRun(
            declared,
            tools,
            target=self.target,
            address=placeholders(self._url, self._schema)["url"],
            only_schema=None if self._schema == _USUAL_SCHEMA else self._schema,
            blueprint=self._blueprint,
            chain=self._chain,
            history=self._history,
            team=self._team,
        )

    def _new_baseline_connections(self) -> TeamConnections:
        from is_db_bootstrap.stores.postgres.team_connections import TeamConnections

        schema = None if self._schema == _USUAL_SCHEMA else self._schema
        self._baseline_connections = TeamConnections(
            str(self._url), self._timing.lock_timeout_s, schema, "the baseline"
        )
        return self._baseline_connections

    def _lock_of_run(self) -> tuple[int, int] | None:
        """The process that holds the lock of this run, and its number."""
        lock = self._held_lock
        return (lock.connection.info.backend_pid, lock.number) if lock else None

    def _read_team(self) -> TeamRun | None:
        """The team's own environment, if the blueprint names one."""
        declared = self._blueprint.alembic
        if declared is None:
            return None
        from is_db_bootstrap.stores.postgres.team_run import TeamRun

        return TeamRun(declared, str(self._url), self._timing.lock_timeout_s, self._path_schema)

    def grants(self, wish: GrantWish) -> RoleGrants:
        """The smallest privileges of a role; see `grants.py`. No server is asked."""
        from is_db_bootstrap.stores.postgres.grants import Place, role_grants

        folder = self._team.folder if self._team else self._blueprint.migrations
        is_named = self._path_schema is not None
        record = self._history.place
        place = Place(
            self._url.database,
            self._schema,
            is_named,
            record.schema or self._schema,
            record.table,
            folder,
        )
        return role_grants(place, wish)

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections; a missing database is no failure, `plan` lists it.

        A standby is taken only where the address asks for one (`hosts.may_be_standby`). Raises
        `StoreUnavailable` while the server starts, for another standby, and where the role or the
        database is read-only; `AccessDenied`; `ConfigurationError` when something else answers;
        `StoreConflict` below PostgreSQL 14.
        """
        self.close()
        self._held_lock = None
        self._session_roles.one_server.release()
        self._cancelled.clear()
        limit = min(timeout_s, self._timing.connect_timeout_s)
        try:
            self._session = self._opened_reader(limit, self._database.keep_maintenance)
        except DatabaseMissing:
            maintenance = self._database.maintenance(limit)
            self._settle(maintenance, is_new=True)
            return self._looked_at(maintenance, limit)
        return self._looked_at(self._session, limit)

    def _looked_at(self, connection: psycopg.Connection[Any], limit_s: float) -> ServerInfo:
        with errors(self.target):
            row = connection.execute(_LOOK.encode()).fetchone()
        version, standby, read_only, age_s = row or ("", False, "off", 0.0)
        self._server_age_s, self._is_standby = age_s, standby
        if read_only == "on" and not standby:
            raise StoreUnavailable(
                self.name,
                f"{self.target} is read-only (default_transaction_read_only) and cannot be "
                "written to.",
                hint="Give the address of the primary; a fail-over may be going on. Or let an "
                "administrator take the setting from the role or the database (ALTER ROLE or "
                "ALTER DATABASE … RESET default_transaction_read_only).",
            ).at(Rung.WRITABLE)
        if age_s < YOUNG_S:
            connect(self._url, limit_s, database=connection.info.dbname).close()
        return ServerInfo(str(version).split()[0])

    def places(self) -> Sequence[Place]:
        """Where libpq connects to. Empty where it reads that in its environment or in a file."""
        return ladder.places_of(self._url, self._timing.connect_timeout_s)

    def rungs(self) -> Sequence[RungResult]:
        """What the last ping has seen, and whether the role may create what is declared.

        On a standby nothing can be created, so that is not asked there. Raises `AccessDenied` when
        the role may create neither the schema nor tables in it, or not the missing database.
        """
        session, is_missing = self._seen_session()
        return ladder.rungs_of(
            session,
            self._url,
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
            self._database.refuse_no_right_to_create()
            text = f"may create the database {self._url.database}"
            return RungResult(Rung.SCHEMA, ok=True, text=text)
        try:
            is_new = self._database.checked_schema(session, self._schema)
        except AccessDenied as exc:
            from is_db_bootstrap.stores.postgres.role_privileges import rung_of_reader

            with errors(self.target):
                found = rung_of_reader(session, self._work_of_role(is_missing=False), exc)
            if found is None:
                raise
            return found
        text = f"may create {'schema' if is_new else 'tables in schema'} {self._schema}"
        return RungResult(Rung.SCHEMA, ok=True, text=text)

    def server_age_s(self) -> float | None:
        """Seconds between the start of the server and the last ping."""
        return self._server_age_s

    def diagnose(self) -> Diagnosis:
        """What the server of the last ping tells, for `doctor`."""
        from is_db_bootstrap.stores.postgres.diagnosis import diagnosis

        session, is_missing = self._seen_session()
        return diagnosis(session, self._url, self._work_of_role(is_missing=is_missing))

    def _work_of_role(self, *, is_missing: bool) -> Work:
        """What our role works with."""
        from is_db_bootstrap.stores.postgres.role_privileges import Work

        return Work(self._url.database, self._schema, self._history.table, is_missing)

    def _seen_session(self) -> tuple[psycopg.Connection[Any], bool]:
        """A session that looks, and whether it is in the database `postgres` instead of ours."""
        try:
            return self._reader(), False
        except DatabaseMissing:
            return self._database.maintenance(), True

    def _connected(
        self,
        connect_timeout_s: float | None = None,
        missing: Callable[[psycopg.Connection[Any]], None] | None = None,
    ) -> psycopg.Connection[Any]:
        """A new session that looks. `missing` is given the session that found no such database.

        A run that only looks has a limit for each phase, after which the engine has ended a look. A
        run that has the lock may wait for longer.
        """
        limit_s = 0 if self._held_lock is not None else self._timing.phase_timeout_s
        return self._open_sessions.open(
            lambda opened: self._session_roles.looking(
                limit_s,
                connect_timeout_s=connect_timeout_s,
                opened=opened,
                missing=missing,
            )
        )

    def _opened_reader(
        self,
        connect_timeout_s: float | None = None,
        missing: Callable[[psycopg.Connection[Any]], None] | None = None,
    ) -> psycopg.Connection[Any]:
        """A new session that looks, whose search path leads to the schema in which we work."""
        session = self._connected(connect_timeout_s, missing)
        try:
            self._settle(session)
        except BaseException:
            session.close()
            raise
        return session

    def _settle(self, session: psycopg.Connection[Any], *, is_new: bool = False) -> None:
        """Work in the schema to which the search path of a session leads, unless one is given.

        `is_new` says that the session is in another database, because ours is still to be made.
        Raises `ConfigurationError` for a path that leads nowhere, and `StoreConflict` when it leads
        elsewhere than it did when the lock was taken.
        """
        if self._path_schema is not None:
            return
        with errors(self.target, "the search path"):
            found = Found.by(session, is_new=is_new)
            self._sees_as_declared = found.is_plain
            schema = place_of_tables(session, found, is_team=self._team is not None)
        if schema == self._schema:
            return
        if self._held_lock is not None:
            raise StoreConflict(
                self.name,
                f"The search path leads to schema {schema} now, and to {self._schema} when the "
                f"lock of {self.target} was taken.",
                hint="Set DB_SCHEMA, or run again.",
            )
        self._work_in(schema)

    def _lift_limits(self) -> None:
        """Let the session that looks wait, because this run changes something from now on.

        A session that was lost is opened again, without a limit.
        """
        if self._session is not None:
            with suppress(psycopg.Error):
                self._session.execute(*settings_query(no_look_limits()))

    def _reader(self) -> psycopg.Connection[Any]:
        """The session that looks; opened again when it was lost. Raises `DatabaseMissing`."""
        if self._session is None or self._session.closed:
            if self._database.is_still_missing():
                raise DatabaseMissing(self._url.database)
            self._session = self._opened_reader()
        return self._session

    def reader(self) -> psycopg.Connection[Any] | None:
        """The autocommit session that looks, for readers beside us.

        None while the database does not exist.
        """
        try:
            return self._reader()
        except DatabaseMissing:
            return None

    def recorded_blueprints(self) -> Collection[str]:
        """The blueprints that records in this database name, in any schema.

        Without a record of ours, what the comment of the version table says counts too.
        """
        reader = self.reader()
        if reader is None:
            return ()
        with errors(self.target, lineage_table.PLACE):
            found: set[str] = lineage_table.present_blueprints(reader)
        found.add(self._history.read(reader).blueprint)
        return found - {""}

    def plan(self) -> Plan:
        """Pending steps in order: the database, the schema, revisions, demo rows.

        Raises `StoreConflict` when the schema carries another blueprint, an unknown revision,
        another line of revisions, or our tables without a record; `AccessDenied` when a privilege
        for the pending steps is missing.
        """
        found = self._planned()
        gap = self._declared.gap if self.tells_gap else ""
        notes = [gap] if gap else []
        driver = self._url.scheme.partition("+")[2]
        if driver not in {"", "psycopg"}:
            notes.append(f"The address names the driver {driver}; psycopg is used instead.")
        return replace(found, notes=(*notes, *found.notes))

    def _planned(self) -> Plan:
        try:
            reader = self._reader()
        except DatabaseMissing:
            return self._plan_from_nothing()
        record = self._history.read(reader)
        if self._history.is_ahead(record):
            note = (
                f"The schema is at revision {', '.join(record.revisions)}, newer than this "
                f"version's {self._chain.head}; nothing is changed."
            )
            return Plan(notes=(note,), ahead=True)
        begun_before = self._history.refuse_half_done(record)
        baseline = self._planned_baseline(reader, record)
        if baseline and self._baseline:
            begun_before = (*begun_before, *self._baseline.begun_before(record))
        pending = self._pending(self._after(baseline, record))
        if not (baseline or pending):
            notes = (
                *self._history.unread(record),
                *self._history.unread_lineage(record),
                *self._history.edited(record),
            )
            return Plan(tuple(self._missing_rows(reader)), notes=notes)
        self._history.refuse_unread(record)
        self._refuse_long_ids(reader, [*self._heads_of(baseline), *pending])
        notes = self._elsewhere.refuse(reader, record)
        schema = self._checked_schema(reader)
        if not record.revisions and not schema and not baseline:
            self._refuse_unrecorded(reader)
        notes = (
            *notes,
            *self._history.unread_lineage(record),
            *self._history.edited(record),
            *self._history.unmarked(reader),
        )
        changes = (*schema, *baseline, *pending, *self._all_rows())
        return Plan(changes, notes=notes, begun=begun_before)

    def check_rights(self) -> None:
        """See that the role may do what pending revisions are sure to do. Nothing is changed.

        Raises `AccessDenied` with the statements that let the role. A team's own environment may
        use another role, so what its revisions need is not known.
        """
        reader = self.reader()
        if reader is None or self._team or not self._due:
            return
        from is_db_bootstrap.stores.postgres.missing_rights import refuse_missing
        from is_db_bootstrap.stores.postgres.sure_needs import sure_needs

        record = self._history.read(reader)
        pending = self._history.compare(record).pending
        needs = sure_needs(self._chain.files, pending)
        with errors(self.target, self._schema):
            refuse_missing(reader, self._schema, self._history.table, needs)

    def with_statements(self, plan: Plan) -> Plan:
        """The plan with the SQL of each change, and what to look at first (`dangers`).

        A process of its own writes down the revisions (`planned_sql`). Nothing is run twice in this
        one, and a run that changes something finds their modules as it would without a plan. The
        server is asked what is in the tables, with queries that are bounded.
        """
        revisions = [change.name for change in plan.changes if change.kind == "revision"]
        written = self._written_revisions(revisions) if revisions else {}
        if self._make_plan_trial is None or not any(each.reasons for each in written.values()):
            notes = [*_notes_on_code(written)]
        else:
            written, notes = self._tried_revisions(revisions, written)
        changes = [self._with_statements(change, written) for change in plan.changes]
        changes = self._with_dangers(changes)
        return replace(plan, changes=tuple(changes), notes=(*plan.notes, *notes))

    def _tried_revisions(
        self, revisions: Sequence[str], written: Mapping[str, PlannedSql]
    ) -> tuple[Mapping[str, PlannedSql], list[str]]:
        """What those revisions have sent in a scratch database that run Python, and notes on it."""
        if self._make_plan_trial is None:
            raise TypeError(written)
        trial = self._make_plan_trial(self._trial_blueprint, self._timing, self._schema)
        self._plan_trial = trial
        reader = self.reader()
        beside = reader or self._database.maintenance()
        trial.refuse_target(beside, is_there=reader is not None)
        done = [name for name in self._chain.order if name not in revisions]
        sent = trial.sent(done, revisions)
        found = {
            name: replace(each, statements=tuple(sent[name]))
            if each.reasons and name in sent
            else each
            for name, each in written.items()
        }
        return found, trial.notes

    def _with_dangers(self, changes: list[Change]) -> list[Change]:
        """The changes with their dangers. A database that is still to be made has none."""
        from is_db_bootstrap.stores.postgres.dangers import with_dangers

        reader = self.reader()
        if reader is None:
            return changes
        with errors(self.target, "the tables of the plan"):
            return with_dangers(changes, reader, self._schema)

    def _written_revisions(self, revisions: Sequence[str]) -> Mapping[str, PlannedSql]:
        from is_db_bootstrap.stores.postgres.planned_sql import SqlWriter

        # The address of a run is not given away, since the code would only mean to connect to it.
        blueprint = replace(self._blueprint, alembic=self._declared_alembic)
        self._sql_writer = SqlWriter(blueprint, self._schema, self._chain)
        values = placeholders(replace(NOWHERE, database=self._url.database), self._schema)
        stamp = self._team.stamp() if self._team else None
        return self._sql_writer.written(revisions, values, stamp)

    def _with_statements(self, change: Change, written: Mapping[str, PlannedSql]) -> Change:
        if change.kind == "revision":
            found = written[change.name]
            return replace(change, statements=found.statements, is_code=bool(found.reasons))
        if change.kind == "baseline" and self._baseline is not None:
            return self._baseline.with_statements(change)
        return replace(change, statements=self._own_statements(change))

    def _own_statements(self, change: Change) -> tuple[str, ...]:
        """What a step sends that no file of the blueprint says."""
        if change.kind == "database":
            return (f"{self._database.statement};",)
        if change.kind == "schema":
            return (f"{schema_statement(change.name)};",)
        rows = [row for row in self._blueprint.seed_rows if row_name(row) == change.name]
        return tuple(f"{insert_text(row)};" for row in rows)

    def _planned_baseline(
        self, reader: psycopg.Connection[Any] | None, record: Record
    ) -> tuple[Change, ...]:
        """What fills the database before the revisions, if it is declared and nothing is recorded.

        Raises `StoreConflict` when the database is not empty.
        """
        if self._baseline is None or record.revisions:
            return ()
        return (self._baseline.planned(reader, record),)

    def _after(self, baseline: Sequence[Change], record: Record) -> Record:
        """What is recorded after the baseline, if there is one."""
        if not baseline or self._baseline is None:
            return record
        return Record(tuple(sorted(self._baseline.heads)))

    def _heads_of(self, baseline: Sequence[Change]) -> list[Change]:
        if not baseline or self._baseline is None:
            return []
        return [Change(head, "stamp") for head in self._baseline.heads]

    def _checked_schema(self, reader: psycopg.Connection[Any]) -> list[Change]:
        """The change that creates the schema, if it is missing. A team's path is its own."""
        if self._team and self._path_schema is None:
            return []
        return self._database.checked_schema(reader, self._schema)

    def _plan_from_nothing(self) -> Plan:
        database = self._url.database
        self._database.refuse_no_right_to_create()
        schema = [] if self._schema == _USUAL_SCHEMA else [schema_change(self._schema)]
        baseline = self._planned_baseline(None, Record())
        pending = self._pending(self._after(baseline, Record()))
        self._refuse_long_ids(None, [*self._heads_of(baseline), *pending])
        changes = (*schema, *baseline, *pending, *self._all_rows())
        return Plan((database_change(database), *changes))

    def _refuse_long_ids(
        self, reader: psycopg.Connection[Any] | None, pending: Sequence[Change]
    ) -> None:
        with errors(self.target, self._history.table):
            refuse_long_ids(reader, self._history.table, [change.name for change in pending])

    def _pending(self, record: Record) -> list[Change]:
        pending = [
            Change(name, "revision", self._chain.titles[name], Nature.ATOMIC)
            for name in self._history.compare(record).pending
        ]
        self._chain.refuse_unparsable(change.name for change in pending)
        self._due = bool(pending)
        return pending

    def _is_at_work_elsewhere(self) -> bool:
        """Whether another run holds the lock of this schema."""
        if self._held_lock is not None:
            return False
        with errors(self.target):
            return postgres_lock.holder(self._reader(), self._number) is not None

    def _refuse_unrecorded(self, reader: psycopg.Connection[Any]) -> None:
        """Our tables without a record were made by other means; creating them would fail halfway.

        Another run may have made and recorded them since the record was read. Then `StoreBusy` asks
        for a new look.
        """
        tables = self._declared.tables()
        with errors(self.target):
            found = reader.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename = ANY(%s) "
                "ORDER BY 1",
                [self._schema, tables],
            ).fetchall()
        if found and self._is_at_work_elsewhere():
            return  # the run that holds the lock may be about to record them
        if found and self._history.read(reader).revisions:
            raise StoreBusy(self.name, "Another run has just applied revisions.", hint="Run again.")
        if found:
            names = ", ".join(row[0] for row in found)
            raise StoreConflict(
                self.name,
                f"Schema {self._schema} of {self.target} has {names} already, but no revision is "
                "recorded.",
                subject=found[0][0],
                hint="If these migrations made it, record that with `is-db-bootstrap migrate "
                "stamp`; else set DB_SCHEMA or another database.",
            )

    def allow_retry(self, changes: Collection[str]) -> None:
        """Let these revisions run again although they have begun and are not recorded."""
        self._consent.give(changes)

    # --- remembering

    def recall(self) -> Recall:
        """What this database is, and what the last plan has seen of its memory.

        It is blank without its version table. An empty version table was left by a downgrade, so
        nothing was lost there. Raises `StoreConflict` for a record that is broken.
        """
        place = f"database {self._url.database}, schema {self._schema}"
        made = f"schema {self._schema}"
        reader = self.reader()
        if reader is None:
            return Recall(place, is_blank=True, missing=(made,))
        rows = self._history.memory_rows(reader)
        seen = self._history.seen
        recalled = memory_table.read(rows, self._blueprint.name)
        is_there = seen.has_record_table or self._is_there_unrecorded
        return Recall(
            place,
            identity=seen.identity,
            is_blank=not is_there and not rows,
            holds=(made,) if is_there else (),
            missing=() if is_there else (made,),
            memories=recalled.memories,
            unable=seen.unable,
            is_unread=seen.may_read is False,
            newer_keys=recalled.newer_keys,
            remarks=(*recalled.remarks, *seen.remarks),
        )

    def remember(self, memory: Memory) -> str | None:
        """Write the record into the schema of our own, and read it back.

        A run that was killed after its last revision has left its plan beside the version table. It
        becomes what led there now. Returns a remark when the role may not write the record.
        """
        with errors(self.target, lineage_table.PLACE):
            self._revision_steps.complete_left_lineage()
        try:
            with errors(self.target, memory_table.PLACE):
                if not memory_table.write(self._reader(), memory, self._schema):
                    return self._history.seen.refusal
                found = memory_table.rows_of(self._reader(), memory.blueprint, self._schema)
        except AccessDenied:
            return self._history.seen.refusal
        if (memory.key, to_text(memory)) not in found:
            raise StoreUnavailable(
                self.name,
                f"{self.target} did not keep the record of what was converged.",
                hint="A fail-over may be going on. Run again.",
                subject=memory_table.PLACE,
            )
        return None

    # --- demo rows

    def _all_rows(self) -> Iterator[Change]:
        return (_seed_change(row) for row in self._blueprint.seed_rows)

    def _missing_rows(self, reader: psycopg.Connection[Any]) -> Iterator[Change]:
        with errors(self.target, "demo rows"):
            try:
                lacking = missing(reader, self._blueprint.seed_rows)
            except psycopg.errors.UndefinedTable:
                return  # drift, which `verify` tells
        yield from (_seed_change(row) for row in lacking)

    # --- writing

    def create_database(self) -> str | None:
        """Create the database; harmless when another run was faster."""
        self._begin_import()
        return self._database.create()

    def apply(self, change: Change) -> str | None:
        """Take one step.

        A revision that another session has applied meanwhile is recognised and said.

        Raises `StoreBusy` when a lock was not free in time, `ChangeFailed` with the server's words
        otherwise; both leave nothing of the step behind, unless the revision itself leaves its
        transaction (CREATE INDEX CONCURRENTLY).
        """
        self._changing_in = threading.get_ident()
        with self._changing(lambda: change):
            return self._steps()[change.kind](change)

    def apply_together(self, changes: Sequence[Change], progress: Progress) -> None:
        """Apply revisions in one run of Alembic.

        Raises as `apply` does. Revisions whose transaction was committed are told as done before.
        """
        self._changing_in = threading.get_ident()
        told = _Told(changes[0], progress)
        try:
            with self._changing(lambda: told.current):
                self._revision_steps.upgrade(changes, told)
        except BootstrapError as exc:
            if told.refusal not in {None, exc}:
                raise told.refusal from exc
            raise

    def _tell_limits(self, failure: BootstrapError) -> None:
        """Add to a failure that a limit of the server holds in a connection of `env.py`."""
        if self._team and not self._cancelled.is_set():
            failure.message += self._team.connections.told_limits(failure)

    def lost_changes(self, made: Sequence[ChangeResult]) -> Sequence[ChangeResult]:
        """The changes of this run that are not there on the present primary.

        Nothing is lost on the server that had our lock. Raises what `connection.connect` does, and
        `StoreConflict` for a recorded revision that does not say what led to it.
        """
        lock_server = self._session_roles.one_server.held
        any_server = replace(self._session_roles, one_server=OneServer())
        try:
            session = any_server.looking(_READ_BACK_S)
        except DatabaseMissing:
            return made
        with session:
            if lock_server is not None and server_of(session) == lock_server:
                return ()
            kept = self._kept_revisions(session)
            return [each for each in made if self._is_lost(session, each, kept)]

    def _kept_revisions(self, session: psycopg.Connection[Any]) -> frozenset[str]:
        """The recorded revisions and all that led to them.

        A newer version may have recorded a revision that we do not know. Its lineage tells then.
        """
        record = self._history.read(session)
        known = [name for name in record.revisions if name in self._chain.parents]
        unknown = [name for name in record.revisions if name not in self._chain.parents]
        if unknown and not record.lineage:
            raise StoreConflict(
                self.name,
                f"The present primary records {', '.join(unknown)}, which this version does not "
                "know, and not what led there.",
                subject=unknown[0],
            )
        return frozenset({*record.revisions, *record.lineage, *self._chain.until(known)})

    def _is_lost(
        self, session: psycopg.Connection[Any], change: ChangeResult, kept: frozenset[str]
    ) -> bool:
        """Whether a change is not there in a session's database, which has the `kept` revisions."""
        if change.kind in {"revision", RECORD}:
            return not kept.issuperset(change.name.split(", "))
        if change.kind == "baseline" and self._baseline is not None:
            return not kept.issuperset(self._baseline.heads)
        if change.kind == "schema":
            query = "SELECT FROM pg_namespace WHERE nspname = %s"
            return session.execute(query, [change.name]).fetchone() is None
        if change.kind == "seed":
            return self._is_row_lost(session, change.name)
        return False

    def _is_row_lost(self, session: psycopg.Connection[Any], name: str) -> bool:
        rows = [row for row in self._blueprint.seed_rows if row_name(row) == name]
        try:
            return bool(missing(session, rows))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return True

    def apply_all(self, changes: Sequence[Change]) -> list[str]:
        """Take all these steps at once, without an engine. Returns the remarks."""
        remarks: list[str] = []
        for kind, group in groupby(changes, key=attrgetter("kind")):
            together = list(group)
            if kind in self.kinds_together:
                told = _Told(together[0])
                self.apply_together(together, told)
                remarks += told.remarks
            else:
                remarks += [remark for change in together if (remark := self.apply(change))]
        return remarks

    def _steps(self) -> dict[str, Callable[[Change], str | None]]:
        return {
            "database": self._apply_database,
            "schema": self._apply_schema,
            "baseline": self._apply_baseline,
            "revision": self._apply_revision,
            "seed": self._apply_row,
            RECORD: self._apply_record,
        }

    @contextmanager
    def _changing(self, current: Callable[[], Change]) -> Iterator[None]:
        try:
            try:
                yield
            except Exception:
                with errors(self.target, change=current()):
                    raise
        except HalfDone as exc:
            self._tell_limits(exc)
            raise
        except Interrupted:
            raise
        except BootstrapError as exc:
            self._tell_limits(exc)
            if self._cancelled.is_set():
                change = current()
                raise StoreUnavailable(
                    self.name,
                    f"{change.kind} {change.name} was cancelled. {rolled_back(change)}",
                    subject=change.name,
                    hint="Run again.",
                ) from exc
            raise
        except DatabaseMissing as exc:
            raise StoreUnavailable(
                self.name, f"Database {self._url.database} has vanished.", hint="Run again."
            ) from exc

    def _apply_database(self, _: Change) -> str | None:
        return self.create_database()

    def _apply_schema(self, change: Change) -> None:
        create_schema(self._reader(), change.name)

    def _apply_baseline(self, _: Change) -> None:
        if self._baseline is not None:
            self._baseline.run()

    def _apply_revision(self, change: Change) -> str | None:
        told = _Told(change)
        self._revision_steps.upgrade([change], told)
        return next(iter(told.remarks), None)

    def _upgrade_by_team(self, run: UpgradeRun) -> None:
        """Let the team's `env.py` do what `run` follows."""
        if self._team is None:
            raise TypeError(run)
        self._team.upgrade(run, self._reader(), self._lock_of_run(), self._cancelled.is_set)

    def _alembic_engine(self) -> Engine:
        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic

        if self._engine is None:
            watch = self._watch if isinstance(self._watch, Watch) else None
            self._engine = postgres_alembic.engine(
                self._url,
                self._path_schema,
                self._timing,
                self._remember,
                watch,
                one_server=self._session_roles.one_server,
            )
        return self._engine

    def _remember(self, connection: psycopg.Connection[Any]) -> None:
        """Note a session of a revision, which gets no second one after it was cancelled.

        It may hang, or swallow what it is told.
        """
        if self._cancelled.is_set():
            connection.close()
            raise StoreUnavailable(
                self.name, "The run that this session was for has ended.", hint="Run again."
            )
        self._open_sessions.add(connection)

    def _apply_row(self, change: Change) -> str | None:
        row = next(r for r in self._blueprint.seed_rows if row_name(r) == change.name)
        insert(self._reader(), row)
        return None

    # --- adopting

    def adoption(self) -> Adoption:
        """What differs from the catalogue, and which records are missing.

        Raises `StoreConflict` as `SchemaAdoption.found` says.
        """
        from is_db_bootstrap.engine.store import Adoption

        try:
            reader = self._reader()
        except DatabaseMissing:
            return Adoption(is_blank=True)
        with self._as_declared(reader):
            found = self._schema_adoption().found(reader)
        self._is_there_unrecorded = not found.is_blank
        return found

    def _schema_adoption(self) -> SchemaAdoption:
        from is_db_bootstrap.stores.postgres.adoption import SchemaAdoption

        return SchemaAdoption(
            self.target,
            self._schema,
            self._chain,
            self._history,
            self._elsewhere,
            self._declared,
            tried=self._tried_catalogue(),
        )

    def _tried_catalogue(self) -> Callable[[], Catalogue] | None:
        """What says what the revisions make in a scratch database. They run there once.

        None where nothing may run them.
        """
        if self._catalogue_trial is None and self._make_catalogue_trial is not None:
            self._catalogue_trial = self._make_catalogue_trial(
                self._url, self._trial_blueprint, self._timing
            )
        return self._catalogue_trial.catalogue if self._catalogue_trial else None

    def _apply_record(self, change: Change) -> str | None:
        """Record the newest revisions, or only what led to them where they are recorded."""
        reader = self._reader()
        heads = tuple(change.name.split(", "))
        if tuple(sorted(self._history.read(reader).revisions)) == heads:
            self._schema_adoption().record_lineage(reader)
            return None
        if self._team is None:
            return self._revision_steps.run(change, "stamp", change.name)
        from is_db_bootstrap.stores.postgres.team_stamp import stamp

        stamp(reader, self._history, self.target, heads, self._chain)
        self._revision_steps.confirm_stamped(change)
        return None

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Pending and edited revisions, then what of `catalogue.json` is missing or different.

        All in two round trips. Raises `StoreBusy` when another session changed the schema
        meanwhile.
        """
        try:
            reader = self._reader()
        except DatabaseMissing:
            name = self._url.database
            return [Drift(name, "database", "is missing", name, fix=APPLY)]
        record = self._history.read(reader)
        if self._history.is_ahead(record):
            return []
        pending = [
            Drift(change.name, "revision", "is not applied", change.declared, fix=APPLY)
            for change in self._pending(record)
        ]
        edited = [each.drift for each in revision_digests.edited(record, self._chain)]
        if pending or not self._declared.is_comparable:
            return [*pending, *edited]
        with looking(self.target, "the catalogue"), self._as_declared(reader):
            return [*edited, *self._declared.drifts(reader)]

    def repair_plan(self) -> RepairPlan:
        """What differs: statements for what is missing and holds no rows, and the rest.

        What rows would refuse, such as a unique index over duplicates, is left with the reason.
        """
        from is_db_bootstrap.stores.postgres.repairs import with_dangers

        plan = RepairPlan.of(self.verify())
        if not plan.changes:
            return plan
        with errors(self.target, "the tables of the repair"):
            return with_dangers(plan, self._reader(), self._schema)

    def repair(self, change: Change) -> str | None:
        """Make an index, a constraint, statistics or a trigger that is missing."""
        from is_db_bootstrap.stores.postgres.repairs import run

        self._changing_in = threading.get_ident()
        with self._changing(lambda: change), self._session_roles.working() as session:
            self._remember(session)
            return run(session, change)

    def audit(self) -> Sequence[Drift]:
        """What is not declared, and what is not compared.

        Undeclared are tables in the schema, and parts of our tables, such as columns, constraints,
        indexes and triggers. In schemas that revisions name, the parts alone.
        """
        try:
            with looking(self.target, "the catalogue"), self._as_declared(self._reader()):
                return self._declared.findings(self._reader)
        except DatabaseMissing:
            return []

    def _as_declared(self, reader: psycopg.Connection[Any]) -> AbstractContextManager[None]:
        """While inside, the server names what it has as it does to sessions of a catalogue."""
        return nullcontext() if self._sees_as_declared else in_view_of(reader, self._schema)

    def status(self) -> Status:
        """The recorded revision, the head, and who holds the lock."""
        try:
            reader = self._reader()
        except DatabaseMissing:
            return Status("", self._chain.head)
        with errors(self.target):
            held = postgres_lock.holder(reader, self._number)
        return Status(", ".join(self._history.read(reader).revisions), self._chain.head, held)

    def is_at_head(self) -> bool:
        """Whether all revisions of the blueprint are recorded as applied, and no others."""
        try:
            reader = self._reader()
        except DatabaseMissing:
            return False
        record = self._history.read(reader)
        return bool(record.revisions) and self._history.compare(record).standing is Standing.SAME

    def conflict(self) -> StoreConflict | None:
        """Why a run would refuse the recorded revisions; None when it would not."""
        reader = self._reader()
        record = self._history.read(reader)
        try:
            if not self._history.is_ahead(record):
                self._history.refuse_half_done(record)
        except StoreConflict as exc:
            return exc
        return None

    def selftest(self) -> Iterator[Proof]:
        """Try every declared table in a transaction that is rolled back; see `selftest.py`.

        With a trial, that happens elsewhere, at the recorded revision.
        """
        reader = self._reader()
        declared = self._declared.catalogue.objects if self._declared.catalogue else None
        if self._make_trial is None:
            from is_db_bootstrap.stores.postgres.selftest import proofs_in

            with errors(self.target), self._connected() as connection:
                yield from proofs_in(connection, self._schema, declared)
        else:
            record = self._history.read(reader)
            known = [name for name in record.revisions if name in self._chain.parents]
            made = self._make_trial(self._url, self._blueprint, self._timing, self._schema)
            self._selftest_trial = made
            yield from made.proofs(self._chain.until(known), declared)
        for schema, names in self._declared.tables_beside().items():
            for table in names:
                detail = f"schema {schema} is another one, which is not tried"
                yield Proof(f"{schema}.{table}", ok=None, detail=detail)

    # --- the lock, and ending

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """One try for the advisory lock of this schema, on a connection of its own.

        What revisions need is imported meanwhile.
        """
        self._begin_import()
        try:
            taken = self._open_sessions.open(
                lambda opened: postgres_lock.take(self._session_roles, self._number, owner, opened)
            )
        except DatabaseMissing as exc:
            raise StoreConflict(
                self.name,
                f"Database {self._url.database} does not exist, so its lock cannot be taken.",
            ) from exc
        if isinstance(taken, postgres_lock.AdvisoryLock):
            # No cancel of a change may end the session of the lock.
            self._open_sessions.forget(taken.connection)
            self._stay_on_server(taken)
        self._held_lock = taken if isinstance(taken, postgres_lock.AdvisoryLock) else None
        if self._held_lock is not None:
            self._lift_limits()
        return taken

    def present_lock(self) -> PresentLock | None:
        """The lock of this schema, and whether its session is at work."""
        try:
            reader = self._reader()
        except DatabaseMissing:
            return None
        with errors(self.target):
            return postgres_lock.present(reader, self._number, self._timing.lease_s)

    def remove_lock(self, seen: PresentLock) -> bool:
        """End the session that holds the lock, if it was not heard of since."""
        with errors(self.target, f"advisory lock {self._number}"):
            return postgres_lock.remove(self._reader(), self._number, seen)

    def _stay_on_server(self, lock: postgres_lock.AdvisoryLock) -> None:
        """Let every session of this run reach the server of its lock from now on.

        The session that looks may be an earlier one, of a server that was the primary then.
        Raises `StoreUnavailable` for a standby, whose lock would be worth nothing, or
        `ConfigurationError` when the address asks for standbys only.
        """
        one_server = self._session_roles.one_server
        server = one_server.hold(lock.connection)
        if server is None:
            lock.release()
            raise StoreUnavailable(
                self.name,
                f"The connection to {self.target} was lost right after its lock was taken.",
                hint="Run again.",
            )
        if server.is_standby:
            lock.release()
            raise hosts.standby_reached(self._url, server.place, is_to_change=True)
        session = self._session
        if session is not None and not one_server.has(session):
            self._session = None
            session.close()

    def _begin_import(self) -> None:
        """Import what revisions need, if any are due, which takes as long as the stores' answers.

        It is begun in the first step that only a run that changes something takes.
        """
        if self._due:
            self._due = False
            threading.Thread(target=_import_alembic, name="import-alembic", daemon=True).start()

    def anchor(self) -> Anchor | None:
        """The advisory lock of this run, which ends with its session."""
        return None if self._held_lock is None else self._held_lock.anchor()

    def waits_for(self) -> str:
        """From another thread: whose locks our sessions wait for, or that the server is mute.

        Asked on a connection of its own.
        """
        if self._sql_writer is not None and self._sql_writer.is_at_work:
            return "A process of its own writes down what pending revisions would send."
        if self._open_sessions.is_mute:
            return self._open_sessions.what_is_mute()
        try:
            asking = self._connected()
        except DatabaseMissing:
            return ""
        with asking:
            return self._open_sessions.blockers(asking)

    def cancel(self) -> None:
        """From another thread: end what runs on the server; its transaction is rolled back."""
        self._cancelled.set()
        self._open_sessions.cancel(self._timing.connect_timeout_s)
        for connections in self._guest_connections:
            hindered = suppress(psycopg.Error, BootstrapError, DatabaseMissing)
            with hindered, self._connected() as asking:
                connections.cancel(asking)
        if self._selftest_trial is not None:
            self._selftest_trial.cancel()
        if self._sql_writer is not None:
            self._sql_writer.end()
        for trial in (self._plan_trial, self._catalogue_trial):
            if trial is not None:
                trial.cancel()

    @property
    def _guest_connections(self) -> list[TeamConnections]:
        """What watches connections of the team's own, where any were opened."""
        found = [self._baseline_connections, self._team.connections if self._team else None]
        return [each for each in found if each is not None and each.are_open]

    def disconnect(self) -> str:
        """From another thread: break our connections, and terminate their sessions on the server.

        Its open transactions are rolled back.

        Returns which sessions are still there, as a sentence; empty when there are none. Raises
        `StoreUnavailable` when the server cannot be asked.
        """
        self._cancelled.set()
        alembic = sys.modules.get("is_db_bootstrap.stores.postgres.alembic_turn")
        turn = getattr(alembic, "ALEMBIC", None)  # another thread may be importing it right now
        if turn is not None:
            turn.give_up(self._changing_in)
        ours = self._open_sessions.identities()
        self._open_sessions.hang_up()
        with self._connected() as connection, errors(self.target):
            left = [pid for session in ours for pid in terminated(connection, session)]
            for connections in self._guest_connections:
                left += connections.terminate(connection)
        if not left:
            return ""
        return (
            f"The server did not end session {', '.join(map(str, left))} of this run; what it "
            "does may go on."
        )

    def close(self) -> None:
        """Release every connection."""
        engine, self._engine = self._engine, None
        session, self._session = self._session, None
        self._database.close()
        if engine is not None:
            engine.dispose()
        if session is not None:
            session.close()


def _with_database(url: StoreUrl | str, usual: str) -> StoreUrl:
    """The address, with the usual database where it names none."""
    found = StoreUrl.parse("postgres", url) if isinstance(url, str) else url
    return found if found.database else replace(found, database=usual)


class _Told:
    """What is told of changes that are made together, and passed on if somebody listens."""

    def __init__(self, first: Change, progress: Progress | None = None) -> None:
        self.current = first
        self.remarks: list[str] = []
        #: Why the engine lets no further change begin.
        self.refusal: BootstrapError | None = None
        self._progress = progress

    def begin(self, change: Change) -> None:
        """A change begins, if the engine lets it."""
        self.current = change
        if self._progress is None:
            return
        try:
            self._progress.begin(change)
        except BootstrapError as exc:
            self.refusal = exc
            raise

    def ran(self, change: Change) -> None:
        """A change ran, in a transaction that is still open."""
        if self._progress is not None:
            self._progress.ran(change)

    def done(self, change: Change, remark: str | None = None) -> None:
        """A change was read back as recorded."""
        if remark:
            self.remarks.append(remark)
        if self._progress is not None:
            self._progress.done(change, remark)


def _notes_on_code(written: Mapping[str, PlannedSql]) -> Iterator[str]:
    """Which revisions run Python, each with what it does beside writing SQL."""
    found = [f"{name} {', '.join(each.reasons)}" for name, each in written.items() if each.reasons]
    if found:
        yield (
            f"Without a server, not all that these revisions send is known: {'; '.join(found)}. "
            "plan --try URL runs them in a scratch database there."
        )


def _seed_change(row: SeedRow) -> Change:
    """One demo row, which is inserted only where it is missing."""
    return Change(row_name(row), "seed", nature=Nature.REPEATABLE)


def _import_alembic() -> None:
    with suppress(ImportError):  # told by the revision that needs it
        # Alembic first, as `_ran` does: two threads that enter SQLAlchemy from two sides meet half
        # of it.
        importlib.import_module("alembic")
        importlib.import_module("is_db_bootstrap.stores.postgres.alembic")

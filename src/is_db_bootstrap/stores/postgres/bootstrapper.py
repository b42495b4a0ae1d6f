"""PostgreSQL: Alembic revisions, each in a transaction of its own, and the live catalogue.

Looking needs psycopg only: the revisions are read from their files, the history from
`alembic_version`. SQLAlchemy and Alembic are imported when there is something to apply. See
`history` for what is recorded, `begun` for a revision that did not end, `lock` for the lock, and
`compare` for what is compared object by object.

The work is done by the parts beside this module. `run_sessions` has the sessions and the lock of a
run, and `workplace` the schema in which it works. `pending_steps` plans, `change_run` applies, and
`live_schema` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.engine.store import RECORD
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import RepairPlan
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres import elsewhere, lineage_table, own_schema
from is_db_bootstrap.stores.postgres import lock as postgres_lock
from is_db_bootstrap.stores.postgres.connection import placeholders
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.live_schema import LiveSchema
from is_db_bootstrap.stores.postgres.pending_steps import PendingSteps
from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
from is_db_bootstrap.stores.postgres.seed import DemoRows
from is_db_bootstrap.stores.postgres.server_look import ServerLook
from is_db_bootstrap.stores.postgres.workplace import USUAL_SCHEMA, Workplace

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.memory import Memory, Recall
    from is_db_bootstrap.engine.store import Adoption, Anchor, Lock, Place, PresentLock, Progress
    from is_db_bootstrap.errors import StoreConflict
    from is_db_bootstrap.grant_list import GrantWish, RoleGrants
    from is_db_bootstrap.results import (
        Change,
        ChangeResult,
        Diagnosis,
        Drift,
        LockHolder,
        Plan,
        Proof,
        ServerInfo,
        Status,
    )
    from is_db_bootstrap.rungs import RungResult
    from is_db_bootstrap.stores.postgres.adoption_run import AdoptionRun, CanTryCatalogue
    from is_db_bootstrap.stores.postgres.change_run import ChangeRun, Step
    from is_db_bootstrap.stores.postgres.planned_sql import StatementTrial
    from is_db_bootstrap.stores.postgres.planned_statements import PlannedStatements
    from is_db_bootstrap.stores.postgres.selftest import Trial
    from is_db_bootstrap.stores.postgres.selftest_run import SelfTestRun
    from is_db_bootstrap.stores.postgres.team_run import TeamRun


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

    A store with another plan (`moves`, `accepted`, `scratch`) is a subclass. It may replace
    `_planned` and `_more_steps`, `_read_team`, and the attributes without a leading underscore. Its
    parts are `_sessions`, `_place`, `_pending` and `_changes`.
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
    #: Whether ids of revisions have to fit into the version table that is there.
    limits_ids = True

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
        self._timing = timing or Timing()
        if schema == own_schema.SCHEMA:
            raise ConfigurationError(
                f"DB_SCHEMA is {schema}, where is-db-bootstrap keeps records of its own.",
                hint="Name another schema.",
            )
        self.target = str(self._url)
        #: The blueprint as it was given, for what runs it elsewhere.
        self._trial_blueprint = blueprint.without_seed()
        #: What is brought there. In a team's environment, braces stand for what is of one run.
        self._declared_blueprint = blueprint if seed else blueprint.without_seed()
        self._blueprint = self._declared_blueprint
        if blueprint.alembic is not None:
            own = blueprint.alembic.of_run(**placeholders(self._url, schema or USUAL_SCHEMA))
            self._blueprint = replace(self._blueprint, alembic=own)
        self._team = self._read_team(schema)
        self._chain = self._team.chain if self._team else chain_of(blueprint)
        self._make_trial = make_trial
        self._make_plan_trial = make_plan_trial
        self._make_catalogue_trial = make_catalogue_trial
        self._sessions = RunSessions(self._url, self._timing, schema)
        self._place = Workplace(
            self._sessions,
            self._blueprint,
            self._chain,
            self._team,
            compares=self.compares,
            compare_privileges=compare_privileges,
            unknown_is_ahead=unknown_is_ahead,
            ignored=elsewhere.IgnoredTables(ignored_version_tables, KIND.ignored_variable),
        )
        self._server = ServerLook(self._sessions, self._place)
        self._rows = DemoRows(self._blueprint.seed_rows, self.target)
        self._pending = PendingSteps(
            self._sessions, self._place, self._rows, limits_ids=self.limits_ids
        )
        self._live = LiveSchema(self._sessions, self._place, self._pending)
        # These are made, and their modules imported, when they are first needed.
        self._made_changes: ChangeRun | None = None
        self._made_adoption: AdoptionRun | None = None
        self._statements: PlannedStatements | None = None
        self._selftest: SelfTestRun | None = None

    # --- what a store with another plan may replace

    def _read_team(self, schema: str | None) -> TeamRun | None:
        """The team's own environment, if the blueprint names one.

        With `schema`, its search path begins with it.
        """
        declared = self._blueprint.alembic
        if declared is None:
            return None
        from is_db_bootstrap.stores.postgres.team_run import TeamRun

        return TeamRun(declared, self.target, self._timing.lock_timeout_s, schema)

    def _planned(self) -> Plan:
        """The steps of this store, with notes on the record."""
        return self._pending.planned()

    def _more_steps(self) -> Mapping[str, Step]:
        """What takes the steps of kinds that only this store plans."""
        return {}

    # --- looking

    def grants(self, wish: GrantWish) -> RoleGrants:
        """The smallest privileges of a role; see `grants.py`. No server is asked."""
        from is_db_bootstrap.stores.postgres.grants import Place, role_grants

        record = self._place.history.place
        place = Place(
            self._url.database,
            self._place.schema,
            self._sessions.path_schema is not None,
            record.schema or self._place.schema,
            record.table,
            self._place.folder,
        )
        return role_grants(place, wish)

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections; a missing database is no failure, `plan` lists it.

        A standby is taken only where the address asks for one (`hosts.may_be_standby`). Raises
        `StoreUnavailable` while the server starts, for another standby, and where the role or the
        database is read-only; `AccessDenied`; `ConfigurationError` when something else answers;
        `StoreConflict` below PostgreSQL 14.
        """
        return self._server.ping(min(timeout_s, self._timing.connect_timeout_s))

    def places(self) -> Sequence[Place]:
        """Where libpq connects to. Empty where it reads that in its environment or in a file."""
        from is_db_bootstrap.stores.postgres.ladder import places_of

        return places_of(self._url, self._timing.connect_timeout_s)

    def rungs(self) -> Sequence[RungResult]:
        """What the last ping has seen, and whether the role may create what is declared.

        On a standby nothing can be created, so that is not asked there. Raises `AccessDenied` when
        the role may create neither the schema nor tables in it, or not the missing database.
        """
        return self._server.rungs()

    def server_age_s(self) -> float | None:
        """Seconds between the start of the server and the last ping."""
        return self._server.age_s

    def diagnose(self) -> Diagnosis:
        """What the server of the last ping tells, for `doctor`."""
        return self._server.diagnose()

    def reader(self) -> psycopg.Connection[Any] | None:
        """The autocommit session that looks, for readers beside us.

        None while the database does not exist.
        """
        return self._sessions.reader_if_there()

    def recorded_blueprints(self) -> Collection[str]:
        """The blueprints that records in this database name, in any schema.

        Without a record of ours, what the comment of the version table says counts too.
        """
        reader = self.reader()
        if reader is None:
            return ()
        with errors(self.target, lineage_table.PLACE):
            found: set[str] = lineage_table.present_blueprints(reader)
        found.add(self._place.history.read(reader).blueprint)
        return found - {""}

    # --- planning

    def plan(self) -> Plan:
        """Pending steps in order: the database, the schema, revisions, demo rows.

        Raises `StoreConflict` when the schema carries another blueprint, an unknown revision,
        another line of revisions, or our tables without a record; `AccessDenied` when a privilege
        for the pending steps is missing.
        """
        found = self._planned()
        revisions = [change.name for change in found.changes if change.kind == "revision"]
        self._pending.planned_revisions = tuple(revisions)
        gap = self._place.declared.gap if self.tells_gap else ""
        notes = [gap] if gap else []
        driver = self._url.scheme.partition("+")[2]
        if driver not in {"", "psycopg"}:
            notes.append(f"The address names the driver {driver}; psycopg is used instead.")
        return replace(found, notes=(*notes, *found.notes))

    def check_rights(self) -> None:
        """See that the role may do what pending revisions are sure to do. Nothing is changed.

        Raises `AccessDenied` with the statements that let the role. A team's own environment may
        use another role, so what its revisions need is not known.
        """
        self._pending.check_rights()

    def with_statements(self, plan: Plan) -> Plan:
        """The plan with the SQL of each change, and what to look at first (`dangers`)."""
        from is_db_bootstrap.stores.postgres.planned_statements import PlannedStatements

        make = self._make_plan_trial
        self._statements = PlannedStatements(
            self._sessions,
            self._place,
            self._rows,
            self._declared_blueprint,
            partial(make, self._trial_blueprint, self._timing) if make else None,
        )
        return self._statements.of(plan)

    def allow_retry(self, changes: Collection[str]) -> None:
        """Let these revisions run again although they have begun and are not recorded."""
        self._place.consent.give(changes)

    # --- remembering

    def recall(self) -> Recall:
        """What this database is, and what the last plan has seen of its memory.

        It is blank without its version table. An empty version table was left by a downgrade, so
        nothing was lost there. Raises `StoreConflict` for a record that is broken.
        """
        from is_db_bootstrap.stores.postgres.database_memory import recall

        is_there = self._made_adoption is not None and self._made_adoption.has_found
        return recall(self._sessions, self._place, is_there_unrecorded=is_there)

    def remember(self, memory: Memory) -> str | None:
        """Write the record into the schema of our own, and read it back.

        Returns a remark when the role may not write the record.
        """
        from is_db_bootstrap.stores.postgres.database_memory import remember

        return remember(self._sessions, self._place, memory)

    # --- writing

    def create_database(self) -> str | None:
        """Create the database; harmless when another run was faster."""
        self._begin_import()
        return self._sessions.database.create()

    def apply(self, change: Change) -> str | None:
        """Take one step.

        A revision that another session has applied meanwhile is recognised and said.

        Raises `StoreBusy` when a lock was not free in time, `ChangeFailed` with the server's words
        otherwise; both leave nothing of the step behind, unless the revision itself leaves its
        transaction (CREATE INDEX CONCURRENTLY).
        """
        return self._changes.apply(change)

    def apply_together(self, changes: Sequence[Change], progress: Progress) -> None:
        """Apply revisions in one run of Alembic.

        Raises as `apply` does. Revisions whose transaction was committed are told as done before.
        """
        self._changes.apply_together(changes, progress)

    def apply_all(self, changes: Sequence[Change]) -> list[str]:
        """Take all these steps at once, without an engine. Returns the remarks."""
        from is_db_bootstrap.stores.postgres.change_run import Told

        remarks: list[str] = []
        for kind, group in groupby(changes, key=attrgetter("kind")):
            together = list(group)
            if kind in self.kinds_together:
                told = Told(together[0])
                self.apply_together(together, told)
                remarks += told.remarks
            else:
                remarks += [remark for change in together if (remark := self.apply(change))]
        return remarks

    def lost_changes(self, made: Sequence[ChangeResult]) -> Sequence[ChangeResult]:
        """The changes of this run that are not there on the present primary.

        Nothing is lost on the server that had our lock. Raises what `connection.connect` does, and
        `StoreConflict` for a recorded revision that does not say what led to it.
        """
        from is_db_bootstrap.stores.postgres.lost_changes import lost_changes

        return lost_changes(self._sessions, self._place, self._rows, made)

    def _begin_import(self) -> None:
        """Import what revisions need, if any are due, which takes as long as the stores' answers.

        It is begun in the first step that only a run that changes something takes.
        """
        if self._pending.is_import_due:
            from is_db_bootstrap.stores.postgres.alembic_import import begin_import

            self._pending.is_import_due = False
            begin_import()

    @property
    def _changes(self) -> ChangeRun:
        if self._made_changes is None:
            from is_db_bootstrap.stores.postgres.change_run import ChangeRun

            more = {
                "database": self._apply_database,
                RECORD: self._apply_record,
                **self._more_steps(),
            }
            self._made_changes = ChangeRun(self._sessions, self._place, self._rows, more)
        return self._made_changes

    def _apply_database(self, _: Change) -> str | None:
        return self.create_database()

    def _apply_record(self, change: Change) -> str | None:
        return self._adoption.record(change)

    # --- adopting

    def adoption(self) -> Adoption:
        """What differs from the catalogue, and which records are missing.

        Raises `StoreConflict` as `SchemaAdoption.found` says.
        """
        return self._adoption.found()

    @property
    def _adoption(self) -> AdoptionRun:
        if self._made_adoption is None:
            from is_db_bootstrap.stores.postgres.adoption_run import AdoptionRun

            make = self._make_catalogue_trial
            self._made_adoption = AdoptionRun(
                self._sessions,
                self._place,
                partial(make, self._url, self._trial_blueprint, self._timing) if make else None,
            )
        return self._made_adoption

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Pending and edited revisions, then what of `catalogue.json` is missing or different.

        All in two round trips. Raises `StoreBusy` when another session changed the schema
        meanwhile.
        """
        return self._live.drifts()

    def repair_plan(self) -> RepairPlan:
        """What differs: statements for what is missing and holds no rows, and the rest.

        What rows would refuse, such as a unique index over duplicates, is left with the reason.
        """
        plan = RepairPlan.of(self.verify())
        return self._live.with_dangers(plan) if plan.changes else plan

    def repair(self, change: Change) -> str | None:
        """Make an index, a constraint, statistics or a trigger that is missing."""
        return self._changes.repair(change)

    def audit(self) -> Sequence[Drift]:
        """What is not declared, and what is not compared.

        Undeclared are tables in the schema, and parts of our tables, such as columns, constraints,
        indexes and triggers. In schemas that revisions name, the parts alone.
        """
        return self._live.findings()

    def status(self) -> Status:
        """The recorded revision, the head, and who holds the lock."""
        return self._live.status()

    def is_at_head(self) -> bool:
        """Whether all revisions of the blueprint are recorded as applied, and no others."""
        return self._live.is_at_head()

    def conflict(self) -> StoreConflict | None:
        """Why a run would refuse the recorded revisions; None when it would not."""
        return self._live.conflict()

    def selftest(self) -> Iterator[Proof]:
        """Try every declared table in a transaction that is rolled back; see `selftest.py`.

        With a trial, that happens elsewhere, at the recorded revision.
        """
        from is_db_bootstrap.stores.postgres.selftest_run import SelfTestRun

        make = self._make_trial
        self._selftest = SelfTestRun(
            self._sessions,
            self._place,
            partial(make, self._url, self._blueprint, self._timing) if make else None,
        )
        return self._selftest.proofs()

    # --- the lock

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """One try for the advisory lock of this schema, on a connection of its own.

        What revisions need is imported meanwhile.
        """
        self._begin_import()
        return self._sessions.take_lock(self._place.lock_number, owner)

    def present_lock(self) -> PresentLock | None:
        """The lock of this schema, and whether its session is at work."""
        try:
            reader = self._sessions.reader()
        except DatabaseMissing:
            return None
        with errors(self.target):
            return postgres_lock.present(reader, self._place.lock_number, self._timing.lease_s)

    def remove_lock(self, seen: PresentLock) -> bool:
        """End the session that holds the lock, if it was not heard of since."""
        number = self._place.lock_number
        with errors(self.target, f"advisory lock {number}"):
            return postgres_lock.remove(self._sessions.reader(), number, seen)

    def anchor(self) -> Anchor | None:
        """The advisory lock of this run, which ends with its session."""
        held = self._sessions.held_lock
        return None if held is None else held.anchor()

    # --- ending

    def waits_for(self) -> str:
        """From another thread: whose locks our sessions wait for, or that the server is mute.

        Asked on a connection of its own.
        """
        if self._statements is not None and self._statements.is_writing:
            return "A process of its own writes down what pending revisions would send."
        return self._sessions.what_it_waits_for()

    def cancel(self) -> None:
        """From another thread: end what runs on the server; its transaction is rolled back."""
        self._sessions.cancel(self._place.guest_connections)
        for part in (self._selftest, self._statements, self._made_adoption):
            if part is not None:
                part.cancel()

    def disconnect(self) -> str:
        """From another thread: break our connections, and terminate their sessions on the server.

        Its open transactions are rolled back.

        Returns which sessions are still there, as a sentence; empty when there are none. Raises
        `StoreUnavailable` when the server cannot be asked.
        """
        return self._sessions.disconnect(self._place.guest_connections)

    def close(self) -> None:
        """Release every connection."""
        self._sessions.close()


def _with_database(url: StoreUrl | str, usual: str) -> StoreUrl:
    """The address, with the usual database where it names none."""
    found = StoreUrl.parse("postgres", url) if isinstance(url, str) else url
    return found if found.database else replace(found, database=usual)

"""Neo4j: Cypher files once each, their history in the format of neo4j-migrations, schema compared.

`database` is the connection and what is seen on it, `history` what is recorded, `schema_forecast`
goes through pending files on paper, and `compare` sets declared objects beside live ones.
`file_run` runs a file and records it, in transactions of `fence`, which end with a look at the
lease: a run that lost its lock commits nothing that another run has begun.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.engine.store import RECORD, MadeByOther
from is_db_bootstrap.errors import ChangeFailed, StoreConflict
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import (
    Change,
    Drift,
    LockHolder,
    Nature,
    Plan,
    Proof,
    RepairPlan,
    ServerInfo,
    Status,
)
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import callbacks, compare, cypher_file
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j.callbacks import CallbackRun, Callbacks
from is_db_bootstrap.stores.neo4j.choice import Chooser
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.dangers import (
    PARSE_S,
    BoundedLook,
    Dangers,
    Forecasted,
    with_dangers,
)
from is_db_bootstrap.stores.neo4j.database import Database
from is_db_bootstrap.stores.neo4j.duplicates import (
    USED_LABELS,
    conflicts,
    refuse_duplicates,
    without_blocked,
)
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.fence import Fence
from is_db_bootstrap.stores.neo4j.file_run import FileRun
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import KIND
from is_db_bootstrap.stores.neo4j.leasing import Leasing
from is_db_bootstrap.stores.neo4j.memory_node import MemoryNodes, is_any_there
from is_db_bootstrap.stores.neo4j.own_schema import OWN_SCHEMA, OwnSchema
from is_db_bootstrap.stores.neo4j.planned_statements import shown_statements
from is_db_bootstrap.stores.neo4j.precondition import Precondition
from is_db_bootstrap.stores.neo4j.recording import Recorder
from is_db_bootstrap.stores.neo4j.schema_forecast import Forecast, declared, forecast
from is_db_bootstrap.stores.neo4j.schema_proof import SchemaProof
from is_db_bootstrap.stores.neo4j.seed import Seed

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.memory import Memory, Recall
    from is_db_bootstrap.engine.store import Adoption, Anchor, LeftLease, Lock, Place, PresentLock
    from is_db_bootstrap.grant_list import GrantWish, RoleGrants
    from is_db_bootstrap.results import Diagnosis
    from is_db_bootstrap.rungs import RungResult
    from is_db_bootstrap.stores.neo4j.begun import Begun
    from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject
    from is_db_bootstrap.stores.neo4j.privileges import Privileges


class Neo4jBootstrapper:
    """The Neo4j part of a blueprint, in one database of a server or cluster.

    A path of `url` names the database; none is the user's home database. Of `timing`,
    `connect_timeout_s` bounds connections, `lease_s` the lock, `index_timeout_s` the wait for
    indexes after a file. The blueprint's demo data is planned, written and verified with `seed`
    only. Raises `ConfigurationError` for files that are not understood.
    """

    name: StoreName = "neo4j"
    is_cache = False
    drift_advice = (
        "A Cypher file that was applied does not run again: write another one where every database "
        "differs."
    )

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        *,
        timing: Timing | None = None,
        seed: bool = False,
    ) -> None:
        self._url = StoreUrl.parse("neo4j", url) if isinstance(url, str) else url
        self._blueprint = blueprint if seed else blueprint.without_seed()
        self._timing = timing or Timing()
        folder = blueprint.cypher
        crlf = blueprint.cypher_autocrlf
        self._files = cypher_file.load(folder, autocrlf=crlf) if folder else ()
        self._callbacks = Callbacks.load(folder, autocrlf=crlf) if folder else Callbacks()
        #: The files that the last plan has chosen, by name.
        self._chosen: dict[str, CypherFile] = {}
        #: What the last plan has forecast.
        self._forecasted = Forecasted()
        #: The number of the statement with which a run goes on, for each file that was begun.
        self._first_statements: dict[str, int] = {}
        self._seed = Seed(self._blueprint.seed_nodes, self._blueprint.seed_relationships)
        self._errors = Translation(self._url)
        self._database = Database(self._url, self._timing.connect_timeout_s, self._errors)
        self._fence = Fence(self._database)
        self._own = OwnSchema(self._database, self._fence)
        self._recorder = Recorder(
            self._database,
            self._fence,
            self._errors,
            blueprint=blueprint.name,
            username=self._url.username,
            is_followed=bool(self._callbacks.after),
        )
        self._file_run = FileRun(
            self._database,
            self._fence,
            self._errors,
            recorder=self._recorder,
            own=self._own,
            index_timeout_s=self._timing.index_timeout_s,
        )
        self._callback_run = CallbackRun(self._database, self._fence, self._errors)
        self._leasing = Leasing(
            self._database,
            self._fence,
            self._errors,
            self._own,
            username=self._url.username,
            lease_s=self._timing.lease_s,
        )
        self._memory = MemoryNodes(self._database, self._fence, self._errors, blueprint.name)
        #: The history that the last plan has read. None when something was changed since.
        self._planned_history: History | None = None
        #: Whether the last plan runs a file.
        self._is_file_pending = False
        self.target = str(self._url)

    def grants(self, wish: GrantWish) -> RoleGrants:
        """The smallest privileges of a role; see `grants.py`. No server is asked."""
        from is_db_bootstrap.stores.neo4j.grants import role_grants

        return role_grants(wish, self._url.database)

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections, with the credentials once.

        The target database reads, is online and has a writer. Raises `StoreUnavailable`,
        `AccessDenied`, `ConfigurationError` when something else answers, `StoreConflict` below
        Neo4j 5 or for a database that does not exist.
        """
        self.close()
        return self._database.open(timeout_s)

    def places(self) -> Sequence[Place]:
        """Where the driver asks first."""
        from is_db_bootstrap.stores.neo4j import ladder

        return ladder.places_of(self._url, self._timing.connect_timeout_s)

    def rungs(self) -> Sequence[RungResult]:
        """What the last ping has seen, and whether the user may change the schema.

        What the server does not tell of privileges is never taken for a lack of them.
        """
        from is_db_bootstrap.stores.neo4j import ladder

        return ladder.rungs_of(self._url, self._database.name, self._privileges())

    def server_age_s(self) -> float | None:
        """None, because Neo4j does not tell when it was started."""
        return None

    def diagnose(self) -> Diagnosis:
        """What the server of the last ping tells, for `doctor`."""
        from is_db_bootstrap.stores.neo4j.diagnosis import diagnosis

        server = self._database.server or self._database.open(self._timing.connect_timeout_s)
        with self._errors():
            return diagnosis(
                self._url,
                server,
                self._privileges(),
                self._database.ask_once,
                self._database.protocol,
            )

    def _privileges(self) -> Privileges:
        from is_db_bootstrap.stores.neo4j.privileges import privileges_of

        server = self._database.server
        edition = str(server.edition) if server else ""
        ask = partial(self._database.ask_once, database="system")
        with self._errors():
            return privileges_of(edition, self._database.name, ask)

    # --- planning

    def plan(self) -> Plan:
        """Compare history and files, and forecast what pending files will meet.

        Seeds that are missing are looked for. Three queries when nothing is pending. Raises
        `StoreConflict` as `History.is_ahead`, `forecast` and `assert` say.
        """
        with self._errors(), self._database.session() as session:
            live = self._leasing.look(session)
            used = self._used_labels(session, live)
            history = History()
            self._memory.forget()
            if neo4j_history.LABEL in used:
                history = self._history_with_memory(session)
                history.refuse_other_target(self._database.name)
            self._planned_history, self._is_file_pending = history, False
            is_held = self._fence.held is not None
            if is_held:
                self._leasing.refuse_unlockable(live)
            self._file_run.forget_records()
            self._file_run.history = history if is_held else None
            history.check(self._files, self._blueprint.name)
            usable, passed_over = self._choose(history, session)
            self._chosen = {file.name: file for file in usable}
            skipped = tuple(self._skipped(passed_over))
            if history.is_ahead(self._files, usable, self._blueprint.name):
                note = (
                    f"The history goes on to {history.entries[-1].source}, beyond "
                    f"{self._files[-1].name}; nothing is changed."
                )
                return Plan(skipped=skipped, notes=(note,), ahead=True)
            changes = history.pending(usable)
            self._is_file_pending = bool(changes)
            names = {change.name for change in changes}
            pending = [file for file in usable if file.name in names]
            marks: dict[tuple[int, ...], Begun] = {}
            if pending and neo4j_begun.LABEL in used:
                marks = self._recorder.marks(session)
            self._file_run.known_marks = marks if is_held and pending else None
            begun = self._refuse_half_done(pending, marks)
            found = self._forecast(pending, live, session)
            is_due = neo4j_begun.LABEL in used and self._is_after_due(session)
            changes = self._callbacks.around(
                [_with_mark(change, begun) for change in changes], is_due=is_due
            )
            changes += self._missing_seeds(session)
        notes = (*self._notes(usable, pending), *found.notes())
        return Plan(tuple(changes), skipped, notes, begun=begun)

    def with_statements(self, plan: Plan) -> Plan:
        """The plan with the Cypher of each change, and what to look at first (`dangers`).

        A file that an earlier run has begun has the statements from which this run goes on.
        """
        changes = [replace(each, statements=self._statements_of(each)) for each in plan.changes]
        with self._errors(), self._database.session() as session:
            look, parse = self._bounded_looks(session)
            dangers = Dangers(look, self._forecasted, parse=parse)
            return replace(plan, changes=with_dangers(changes, dangers))

    def _bounded_looks(self, session: neo4j.Session) -> tuple[BoundedLook, BoundedLook]:
        """What asks for dangers, and what parses statements. Each has its own seconds."""
        parse = BoundedLook(self._database, session, all_s=PARSE_S)
        return BoundedLook(self._database, session), parse

    def _statements_of(self, change: Change) -> tuple[str, ...]:
        if change.kind == "seed":
            return (self._seed.statement(change),)
        if change.kind == callbacks.KIND:
            callback = self._callbacks.find(change.name)
            return shown_statements(callback.statements if callback else ())
        file = self._chosen.get(change.name)
        if file is None:
            return ()
        first = self._first_statements.get(file.name, 1)
        return shown_statements(file.statements[first - 1 :])

    def _forecast(
        self, pending: Sequence[CypherFile], live: LiveSchema, session: neo4j.Session
    ) -> Forecast:
        """What pending files will meet. Raises `StoreConflict` as `forecast` says."""
        before = [each.place for each in self._callbacks.before if each.may_change_data]
        found = forecast(
            pending,
            live,
            edition=self._chooser.server.edition or "",
            before=before[-1] if before else "",
        )
        refuse_duplicates(partial(self._database.rows, session), found.new)
        self._file_run.expect(frozenset(found.unforeseen))
        new = {each.name or each.definition for each in found.new}
        self._forecasted = Forecasted(new, found.unforeseen, live.objects)
        return found

    def _is_after_due(self, session: neo4j.Session) -> bool:
        """Whether an earlier run has applied files, and ended before the callbacks behind them."""
        if not self._callbacks.after:
            return False
        return bool(self._database.rows(session, callbacks.IS_DUE))

    def recorded_blueprints(self) -> Collection[str]:
        """The blueprint that the history of the database names, if it names one."""
        with self._errors(), self._database.session() as session:
            used = self._used_labels(session, self._leasing.look(session))
            if neo4j_history.LABEL not in used:
                return ()
            history = self._read_history(session)
        return (history.blueprint,) if history.blueprint else ()

    def _read_history(self, session: neo4j.Session) -> History:
        return History.read(self._database.rows(session, neo4j_history.READ))

    def _missing_seeds(self, session: neo4j.Session) -> list[Change]:
        def run(text: str, **parameters: Any) -> list[dict[str, Any]]:
            return self._database.rows(session, text, **parameters)

        return self._seed.missing(run)

    @property
    def _chooser(self) -> Chooser:
        server = self._database.server or ServerInfo("0", "")
        return Chooser(server, self.target, self._blueprint.enterprise)

    def _choose(
        self, history: History, session: neo4j.Session
    ) -> tuple[list[CypherFile], list[tuple[CypherFile, Precondition]]]:
        """The files that this server takes, and those that it passes over."""

        def ask(file: CypherFile, precondition: Precondition) -> bool:
            with self._errors(f"{file.name}: {precondition.text}"):
                return self._database.ask(session, precondition.query)

        return self._chooser.choose(self._files, history, ask)

    def _skipped(self, passed_over: Sequence[tuple[CypherFile, Precondition]]) -> Iterator[Change]:
        for file, unmet in passed_over:
            detail = f"{unmet.text}; the server is {self._chooser.described}"
            if unmet.query:
                detail = f"{unmet.text}; it is not so"
            yield neo4j_history.change_of(file, detail)

    def _notes(self, usable: Sequence[CypherFile], pending: Sequence[CypherFile]) -> Iterator[str]:
        unverified = [f"{f.name} ({f.unrecognised})" for f in usable if f.unrecognised]
        if unverified:
            yield (
                "Not verified, because they declare no constraint or index: statements of "
                f"{', '.join(unverified)}."
            )
        if pending and (warning := cypher_file.order_warning(self._files)):
            yield warning
        for file in pending:
            yield from file.lint()
        yield from self._chooser.notes(self._files)
        yield from self._callbacks.notes()
        if self._database.live is not None:
            yield from compare.twins(declared(usable).values(), self._database.live)

    def _used_labels(self, session: neo4j.Session, live: LiveSchema) -> Collection[str]:
        """Which labels of ours nodes may have.

        The server is asked where there seems to be no history. It compiles this question in a
        fraction of the time that it needs for those about the history and the marks.
        """
        if neo4j_history.SCHEMA.keys() <= live.objects.keys():
            return (neo4j_history.LABEL, neo4j_begun.LABEL)
        return {row["n"] for row in self._database.rows(session, USED_LABELS)}

    def _refuse_half_done(
        self, pending: Sequence[CypherFile], marks: Mapping[tuple[int, ...], Begun]
    ) -> tuple[str, ...]:
        """Raise for a file that an earlier run has begun and that nobody may go on with unasked.

        Returns the names of those that this run goes on with. A run that still holds its lease is
        at work: this one will wait for the lock, and plan again.
        """
        begun = []
        self._first_statements.clear()
        for file in pending:
            mark = marks.get(file.order)
            if mark is not None and not mark.at_work:
                first = self._file_run.next_statement(file, mark)
                self._first_statements[file.name] = first
                begun.append(file.name)
        return tuple(begun)

    def allow_retry(self, changes: Collection[str]) -> None:
        """Let these files run again although they have begun and are not recorded."""
        self._file_run.consent.give(changes)

    # --- writing

    def apply(self, change: Change) -> str | None:
        """Run one file and record it, or create one seed.

        A crash before the record runs the file again, from where that is harmless (see `begun.py`).
        Raises `ChangeFailed` with file, statement and line; `StoreConflict` for duplicates and
        other definitions; `StoreUnavailable` when the lease was lost: then nothing of a file of
        data, and no record, is committed.
        """
        self._memory.forget()
        self._planned_history = None
        if change.kind == "seed":
            self._apply_seed(change)
            return None
        if change.kind == callbacks.KIND:
            self._apply_callback(change)
            return None
        if change.kind == RECORD:
            return self._apply_record(change)
        known = [*self._chosen.values(), *self._files]
        file = next((f for f in known if f.name == change.name), None)
        if file is None:
            raise ChangeFailed(
                self.name, f"{change.name} is not a file of {self._blueprint.name}.", change=change
            )
        return self._file_run.apply(file, change)

    def _apply_callback(self, change: Change) -> None:
        callback = self._callbacks.find(change.name)
        if callback is None:
            raise ChangeFailed(
                self.name,
                f"{change.name} is not a callback of {self._blueprint.name}.",
                change=change,
            )
        is_last = callback in self._callbacks.after[-1:]
        self._callback_run.apply(callback, change, is_last=is_last)

    def _apply_seed(self, change: Change) -> None:
        with (
            self._errors(change.name, change),
            self._database.session() as session,
            self._fence.transaction(session, change) as run,
        ):
            self._seed.create(change, run)

    # --- adopting

    def adoption(self) -> Adoption:
        """What differs from the files, and which of them the history does not have.

        Raises `StoreConflict` as `plan` does, and for a history that goes on beyond the files.
        """
        from is_db_bootstrap.engine.store import Adoption
        from is_db_bootstrap.stores.neo4j import adoption

        with self._errors(), self._database.session() as session:
            live = self._database.live = self._leasing.look(session)
            if self._fence.held is not None:
                self._leasing.refuse_unlockable(live)
            self._memory.forget()
            history = self._history_with_memory(session)
            self._planned_history, self._is_file_pending = history, False
            history.refuse_other_target(self._database.name)
            history.check(self._files, self._blueprint.name)
            usable, passed_over = self._choose(history, session)
            self._chosen = {file.name: file for file in usable}
            if history.is_ahead(self._files, usable, self._blueprint.name):
                raise StoreConflict(
                    self.name,
                    f"The history goes on to {history.entries[-1].source}, beyond "
                    f"{self._files[-1].name}.",
                    hint="Adopt with the version of the blueprint that has the file.",
                    subject=history.entries[-1].source,
                )
            names = {change.name for change in history.pending(usable)}
            pending = [file for file in usable if file.name in names]
            marks = self._recorder.marks(session) if pending else {}
            self._refuse_half_done(pending, marks)
        wanted = declared(usable)
        missing = list(compare.drifts(wanted.values(), live))
        if adoption.is_blank(history, missing, len(wanted)):
            return Adoption(is_blank=True)
        extra = compare.findings(declared(self._files), OWN_SCHEMA, live)
        differences = (*missing, *extra, *adoption.unverified(pending, history))
        where = self._database.name or self.target
        changes = tuple(adoption.records(pending, history, self._blueprint.name, where))
        skipped = [f"{each.name}: {each.detail}." for each in self._skipped(passed_over)]
        return Adoption(
            changes, differences, notes=(*skipped, *compare.twins(wanted.values(), live))
        )

    def _apply_record(self, change: Change) -> str | None:
        """Record one file as applied, or whose history it is, and read that back."""
        file = next((each for each in self._chosen.values() if each.name == change.name), None)
        with self._errors(change.name, change), self._database.session() as session:
            history = self._read_history(session)
            if file is not None and self._is_recorded(file, history):
                return MadeByOther(f"{change.name} was recorded by another run meanwhile.")
            self._own.get_ready_to_record(session, change)
            self._recorder.is_followed = False  # callbacks belong to files that run
            with self._fence.transaction(session, change) as run:
                if file is None:
                    run(neo4j_history.WAIT_FOR_WRITERS)
                    run(neo4j_history.ADOPT, blueprint=self._blueprint.name)
                else:
                    self._recorder.record(run, file, history, time.monotonic())
            history = self._read_history(session)
        is_ours = history.blueprint == self._blueprint.name
        if not is_ours or (file is not None and not self._is_recorded(file, history)):
            raise StoreConflict(
                self.name,
                f"{change.name} was recorded, and the history does not have it now.",
                hint="Another tool writes the history. See `migrate current --cypher`, and repeat.",
                subject=change.name,
            )
        return None

    @staticmethod
    def _is_recorded(file: CypherFile, history: History) -> bool:
        entry = history.entry(file.version)
        return entry is not None and entry.checksum in file.checksums

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Each object that the files leave behind against the live one.

        Compared are name, label, properties and kind, and whether it is ONLINE.
        """
        if self._database.server is None:
            self.ping(self._timing.connect_timeout_s)
        with self._errors(), self._database.session() as session:
            live = self._database.live = self._database.look(session)
            drifts = list(compare.drifts(self._declared_here(session), live))
            missing = self._missing_seeds(session)
        add = "is-db-bootstrap apply --seed"
        seeds = [
            Drift(seed.name, seed.kind, "is missing", seed.declared, fix=add) for seed in missing
        ]
        return drifts + seeds

    def repair_plan(self) -> RepairPlan:
        """What differs: statements for what is missing, and the rest.

        What duplicates would block is left with their number, where looking for them is cheap.
        """
        plan = RepairPlan.of(self.verify())
        if not plan.changes:
            return plan
        with self._errors(), self._database.session() as session:
            wanted = self._declared_by_name(session)
            new = [wanted[change.name] for change in plan.changes]
            blocked = list(conflicts(partial(self._database.rows, session), new))
            live = self._database.live.objects if self._database.live else {}
            self._forecasted = Forecasted(wanted, live=live)
            look, parse = self._bounded_looks(session)
            plan = without_blocked(plan, blocked)
            changes = with_dangers(plan.changes, Dangers(look, self._forecasted, parse=parse))
        return replace(plan, changes=tuple(changes)).without_refused()

    def _declared_by_name(self, session: neo4j.Session) -> dict[str, SchemaObject]:
        return {each.name or each.definition: each for each in self._declared_here(session)}

    def repair(self, change: Change) -> str | None:
        """Make a constraint or an index that is missing, and see that it is there and ONLINE.

        Raises `ChangeFailed` when it is not, and `StoreUnavailable` when the lease was lost.
        """
        with self._errors(change.name, change), self._database.session() as session:
            wanted = self._declared_by_name(session)[change.name]
            is_there = self._database.look(session).find(wanted) is not None
            if not is_there:
                self._fence.refuse_lost(session, change)
                for statement in change.statements:
                    self._database.rows(session, statement.removesuffix(";"))
            proof = SchemaProof(self._database, self._timing.index_timeout_s)
            proof.prove_objects(session, {change.name: wanted}, self._blueprint.name, change)
        what = f"{change.kind.capitalize()} {change.name}"
        return MadeByOther(f"{what} was made meanwhile.") if is_there else None

    def _declared_here(self, session: neo4j.Session) -> list[SchemaObject]:
        """What the files that this server takes leave behind.

        Where only the history tells which these are, it is read. A file whose question is not
        answered for good is declared once it is recorded.
        """
        orders = [file.order for file in self._files]
        is_certain = len(set(orders)) == len(orders) and not any(f.queries for f in self._files)
        history = History() if is_certain else self._read_history(session)
        try:
            taken, _ = self._chooser.choose(self._files, history, None)
        except StoreConflict:
            taken = []
        return list(declared(taken).values())

    def selftest(self) -> Iterator[Proof]:
        """Try each declared constraint and index in transactions that are rolled back.

        See `selftest.py`.
        """
        from is_db_bootstrap.stores.neo4j.selftest import SelfTest

        with self._errors("a probe"), self._database.session() as session:
            yield from SelfTest(session, self._declared_here(session)).proofs()

    def audit(self) -> Sequence[Drift]:
        """Constraints and indexes that no file declares.

        What both tools need for themselves, and the server's own token lookups, are none.
        """
        if self._database.live is None:
            with self._errors(), self._database.session() as session:
                self._database.live = self._database.look(session)
        live = self._database.live
        return list(compare.findings(declared(self._files), OWN_SCHEMA, live))

    def status(self) -> Status:
        """The last recorded file, the last file that this server takes, and who holds the lock."""
        with self._errors(), self._database.session() as session:
            history = self._read_history(session)
            held = self._database.rows(session, neo4j_lock.HOLDER)
            usable, _ = self._choose(history, session)
        recorded = history.entries[-1].source if history.entries else ""
        head = usable[-1].name if usable else ""
        return Status(recorded, head, neo4j_lock.present_holder(held))

    # --- what it remembers

    def recall(self) -> Recall:
        """What this database is and remembers, from what the last plan has read.

        Raises `StoreConflict` for a broken record.
        """
        with self._errors("the memory"), self._database.session() as session:
            history = self._planned_history
            if history is None:
                history = self._planned_history = self._history_with_memory(session)
            live = self._database.live or self._database.look(session)
            return self._memory.recall(
                session,
                history,
                is_schema_there=is_any_there(list(declared(self._files).values()), live),
                is_file_pending=self._is_file_pending,
            )

    def _history_with_memory(self, session: neo4j.Session) -> History:
        return History.read(self._memory.look_with_history(session))

    def memory_refusal(self) -> str:
        """Why this user may not keep a record. Nothing stays written.

        The Community Edition lets every user do everything.
        """
        server = self._database.server
        if server is None or server.edition == "community":
            return ""
        return self._memory.refusal()

    def remember(self, memory: Memory) -> str | None:
        """Keep a record in a node of its own. Returns a remark when the user may not write it."""
        return self._memory.remember(memory)

    # --- the lock

    def present_lock(self) -> PresentLock | None:
        """The lock of the database, and whether its holder is at work."""
        return self._leasing.present_lock()

    def remove_lock(self, seen: PresentLock) -> bool:
        """Delete the lock that was seen, unless it has changed since."""
        return self._leasing.remove_lock(seen)

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """A lease of `timing.lease_s` on the node that neo4j-migrations locks with.

        A lapsed one of ours is taken over.
        """
        taken = self._leasing.try_lock(owner)
        self._file_run.forget_records()
        return taken

    def know_anchor(self, anchor: Anchor | None) -> None:
        """Note the anchor of this run, which the lease records."""
        self._leasing.anchor = anchor

    def left_lease(self) -> LeftLease | None:
        """The lease that is there now.

        This only reads, so that a user who may not write meets no refusal.
        """
        return self._leasing.left_lease()

    def release_lapsed(self) -> str | None:
        """Delete the lock of a run that is over.

        The command line of neo4j-migrations knows no lease, so it would refuse to run for ever.
        """
        return self._leasing.release_lapsed()

    # --- ending

    def cancel(self) -> None:
        """From another thread: terminate our transactions on the server.

        Where that is refused, the connections are broken.
        """
        self._database.terminate()

    def disconnect(self) -> str:
        """From another thread: break the connections.

        The server rolls back what they had begun and not committed, when it notices.
        """
        self._database.hang_up()
        return (
            "Neo4j gave no answer, so its transactions of this run were not seen to end. It rolls"
            " them back when it notices that their connection has gone."
        )

    # --- waiting

    def waits_for(self) -> str:
        """From another thread: which transactions of others block ours, as far as can be told."""
        return self._database.waits_for()

    def end_wait(self) -> bool:
        """From another thread: end our statement if others block it and nothing of it is left then.

        What commits while it runs is left to wait: some of it is committed already.
        """
        return self._database.end_wait()

    def what_goes_on(self) -> str:
        """What the server goes on with after `cancel`, as a sentence for the report."""
        return KIND.unended

    def close(self) -> None:
        """Release every connection."""
        self._fence.lease = None
        self._leasing.forget()
        self._file_run.forget()
        self._memory.forget()
        self._planned_history = None
        self._database.close()


def _with_mark(change: Change, begun: Collection[str]) -> Change:
    """The change of a file. One that has begun is not atomic any more, whatever it has by now."""
    if change.name in begun and change.nature is Nature.ATOMIC:
        return replace(change, nature=Nature.NEITHER)
    return change

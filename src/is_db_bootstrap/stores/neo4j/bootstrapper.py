"""Neo4j: Cypher files once each, their history in the format of neo4j-migrations, constraints and indexes compared.

A schema statement is a transaction of its own, so its file is recorded after it was seen to hold; data statements share
one transaction with their record (`ForbiddenDueToTransactionType` forbids to mix the two). Every transaction that records
ends with a look at the lease, so that a run that lost its lock commits nothing that another run has begun.
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import neo4j
from neo4j import exceptions as raised

from is_db_bootstrap.errors import (
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import Change, Drift, LockHolder, Plan, Proof, ServerInfo, Status
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores import foreign_server
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import cypher_file, own_schema, waiting
from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j import lease as neo4j_lease
from is_db_bootstrap.stores.neo4j.begun import Begun
from is_db_bootstrap.stores.neo4j.connection import client_arguments
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.cypher_schema import (
    Drop,
    LiveIndex,
    LiveSchema,
    SchemaObject,
    recognise,
)
from is_db_bootstrap.stores.neo4j.cypher_text import Statement
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import KIND
from is_db_bootstrap.stores.neo4j.schema_forecast import (
    declared,
    described,
    different,
    forecast,
    twins,
)
from is_db_bootstrap.stores.neo4j.seed import Run, Seed
from is_db_bootstrap.stores.neo4j.waiting import Look

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.store import Lock

# Failures are raised and reported by us; the driver would log them to stderr as well.
logging.getLogger("neo4j").addHandler(logging.NullHandler())

OLDEST_MAJOR = 5
BOLT_PORT = 7687
#: Nodes of a label up to which `plan` looks for values that would block a uniqueness constraint.
AFFORDABLE_NODES = 100_000
#: Groups of duplicates that an error lists.
GROUPS = 5
_TAG = "isDbBootstrap"
_OWN_SCHEMA = {**neo4j_history.SCHEMA, **neo4j_lease.SCHEMA}

_COMPONENTS = "CALL dbms.components() YIELD name, versions, edition WHERE name = 'Neo4j Kernel' RETURN versions[0] AS version, edition"
_DATABASE = "SHOW {which} YIELD name, address, currentStatus, statusMessage, access, writer"
_CONSTRAINTS = (
    "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties, propertyType"
)
_INDEXES = "SHOW INDEXES YIELD name, state, type, entityType, labelsOrTypes, properties, owningConstraint, failureMessage, options"
_AWAIT = "UNWIND $names AS name CALL db.awaitIndex(name, $seconds) RETURN count(*) AS waited"


class Neo4jBootstrapper:
    """The Neo4j part of a blueprint, in one database of a server or cluster.

    A path of `url` names the database; none is the user's home database. Of `timing`,
    `connect_timeout_s` bounds connections, `lease_s` the lock, `index_timeout_s` the wait for
    indexes after a file. The blueprint's demo data is planned, written and verified with `seed`
    only. Raises `ConfigurationError` for files that are not understood.
    """

    name: StoreName = "neo4j"

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
        self._files = cypher_file.load(folder) if folder else ()
        self._seed = Seed(self._blueprint.seed_nodes, self._blueprint.seed_relationships)
        self._tag = uuid.uuid4().hex
        self._opened: neo4j.Driver | None = None
        self._server: ServerInfo | None = None
        self._live: LiveSchema | None = None
        #: Kept only while a lock of ours was taken: nobody else writes it then.
        self._history: History | None = None
        self._lease: neo4j_lease.Lease | None = None
        #: Whether the constraints and the index that recording needs were seen or made.
        self._can_record = False
        #: The driver that is being opened, for whoever ends a ping.
        self._opening: neo4j.Driver | None = None
        #: The statement of a file that the server has, and what was last seen of its wait.
        self._sent: Statement | None = None
        self._last_look: Look | None = None
        self.target = str(self._url)

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections, with the credentials once: the target database reads, is online and has a writer.

        Raises `StoreUnavailable`, `AccessDenied`, `ConfigurationError` when something else answers, `StoreConflict` below
        Neo4j 5 or for a database that does not exist.
        """
        self.close()
        limit = min(timeout_s, self._timing.connect_timeout_s)
        with self._errors(), self._recognising(limit):
            driver = self._opening = self._open(limit)
            try:
                rows = self._ask(driver, _COMPONENTS, limit)
                server = self._checked_server(rows)
                self._check_database(driver, limit)
            except BaseException:
                driver.close()
                raise
            finally:
                self._opening = None
        self._opened, self._server = driver, server
        return server

    @contextmanager
    def _recognising(self, timeout_s: float) -> Iterator[None]:
        """Ask what it is that takes connections and does not shake hands: waiting for another kind of server is in vain."""
        try:
            yield
        except raised.DriverError as exc:
            known = ""
            if neo4j_errors.is_silent(exc) and "+" not in self._url.scheme:
                known = foreign_server.recognised(
                    self._url.host, self._url.port(BOLT_PORT), min(timeout_s, 1.0)
                )
            if known:
                raise ConfigurationError(
                    f"neo4j: at {self.target} answers {known}.", hint="Give the Bolt address."
                ) from exc
            raise

    def _open(self, timeout_s: float) -> neo4j.Driver:
        """A driver without its own waits of 30 and 60 s, which would add to our deadline."""
        return neo4j.GraphDatabase.driver(
            **client_arguments(self._url),
            connection_timeout=timeout_s,
            connection_acquisition_timeout=timeout_s,
            max_transaction_retry_time=0,
            telemetry_disabled=True,
        )

    def _ask(
        self, driver: neo4j.Driver, text: str, timeout_s: float, database: str | None = None
    ) -> list[dict[str, Any]]:
        """One query in write mode, so that neo4j:// leads it to a writer."""
        with driver.session(database=database or self._url.database or None) as session:
            return [dict(r) for r in session.run(neo4j.Query(text, timeout=max(timeout_s, 0.1)))]

    def _checked_server(self, rows: Sequence[Mapping[str, Any]]) -> ServerInfo:
        version, edition = (str(rows[0]["version"]), str(rows[0]["edition"])) if rows else ("", "")
        major = re.match(r"\d+", version)
        if major is None or int(major[0]) < OLDEST_MAJOR:
            raise StoreConflict(
                self.name,
                f"{self.target} is Neo4j {version or 'of unknown version'}; "
                f"{OLDEST_MAJOR} or newer is needed.",
                hint="Upgrade the server.",
            )
        return ServerInfo(version, edition)

    def _check_database(self, driver: neo4j.Driver, timeout_s: float) -> None:
        which = f"DATABASE {_quoted(self._url.database)}" if self._url.database else "HOME DATABASE"
        try:
            rows = self._ask(driver, _DATABASE.format(which=which), timeout_s, "system")
        except raised.Forbidden:
            return  # not allowed everywhere; the query before has read from the database
        mine = (
            [r for r in rows if r["address"] == self._url.hosts]
            if self._url.scheme.startswith("bolt")
            else []
        )
        for row in mine or rows:
            if row["currentStatus"] != "online" and (mine or len(rows) == 1):
                told = f": {row['statusMessage']}" if row["statusMessage"] else ""
                raise StoreUnavailable(
                    self.name,
                    f"Database {row['name']} at {self.target} is {row['currentStatus']}{told}.",
                    hint="Wait for it, start it (START DATABASE), or see its log.",
                )
        if rows and not any(r["writer"] and r["access"] == "read-write" for r in mine or rows):
            raise StoreUnavailable(
                self.name,
                f"{self.target} is not the writer of database {rows[0]['name']}, "
                "or it is read-only.",
                hint="Write neo4j:// instead of bolt:// to be led to the writer; "
                "bolt:// only when one server is reachable.",
            )

    @property
    def _driver(self) -> neo4j.Driver:
        """The driver; connects when nobody has pinged before."""
        if self._opened is None:
            self.ping(self._timing.connect_timeout_s)
        if self._opened is None:
            raise StoreUnavailable(self.name, "The store was closed meanwhile.")
        return self._opened

    @property
    def _token(self) -> str:
        """The token of the lease that this store has taken; empty without one."""
        return self._lease.token if self._lease is not None and self._leased else ""

    @property
    def _leased(self) -> bool:
        """Whether this store has taken its lock and not given it back.

        It may be lost all the same.
        """
        return self._lease is not None and not self._lease.ended

    @contextmanager
    def _session(self) -> Iterator[neo4j.Session]:
        with self._driver.session(database=self._url.database or None) as session:
            yield session

    def _rows(self, session: neo4j.Session, text: str, **parameters: Any) -> list[dict[str, Any]]:
        """One statement in a transaction of its own, marked as ours so that `cancel` finds it."""
        return [
            dict(r) for r in session.run(neo4j.Query(text, metadata={_TAG: self._tag}), parameters)
        ]

    def _write(self, text: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._errors("the lock"), self._session() as session:
            return self._rows(session, text, **parameters)

    def _look(self, session: neo4j.Session) -> LiveSchema:
        return LiveSchema.read(self._rows(session, _CONSTRAINTS), self._rows(session, _INDEXES))

    def _look_for(self, session: neo4j.Session, kinds: set[str]) -> LiveSchema:
        """A look at constraints or indexes only; the rest is as last seen.

        A constraint's own index is ONLINE once it is made.
        """
        last = self._live
        if last is None or len(kinds) > 1:
            return self._look(session)
        if "index" in kinds:
            live = LiveSchema.read((), self._rows(session, _INDEXES))
        else:
            live = LiveSchema(
                LiveSchema.read(self._rows(session, _CONSTRAINTS), ()).objects, last.indexes
            )
        rest = {name: thing for name, thing in last.objects.items() if thing.kind not in kinds}
        return LiveSchema({**rest, **live.objects}, live.indexes)

    # --- planning

    def plan(self) -> Plan:
        """Compare history and files, forecast what pending files will meet, and look for seeds that are missing.

        Three queries when nothing is pending. Raises `StoreConflict` as `History.check`, `forecast` and `assert` say.
        """
        with self._errors(), self._session() as session:
            history = History.read(self._rows(session, neo4j_history.READ))
            self._history = history if self._leased else None
            self._live = self._look(session)
            history.check(self._files, self._blueprint.name)
            skipped = tuple(self._skipped(history))
            usable = self._without(skipped)
            if history.is_ahead(self._files, usable):
                last = history.entries[-1]
                note = f"The history goes on to {last.source}, beyond {self._files[-1].name}; nothing is changed."
                return Plan(skipped=skipped, notes=(note,), ahead=True)
            changes = history.pending(usable)
            pending = [f for f in usable if f.name in {c.name for c in changes}]
            self._refuse_half_done(session, pending)
            self._refuse_duplicates(session, forecast(pending, self._live))
            changes += self._seed.missing(lambda text, **p: self._rows(session, text, **p))
        return Plan(tuple(changes), skipped, tuple(self._notes(usable, pending)))

    def _skipped(self, history: History) -> Iterator[Change]:
        for file in self._files:
            unmet = None if history.entry(file.version) else self._unmet(file)
            if unmet is not None and not unmet.is_assumption:
                raise StoreConflict(
                    self.name,
                    f"{file.name} asks: {unmet.text}. {self.target} is {self._described_server()}.",
                    hint="Use such a server, or take the file out.",
                    subject=file.name,
                )
            if unmet is not None:
                yield Change(
                    file.name,
                    neo4j_history.KIND,
                    f"{unmet.text}; the server is {self._described_server()}",
                )

    def _unmet(self, file: CypherFile) -> cypher_file.Precondition | None:
        server = self._server or ServerInfo("0", "")
        forbidden = [p for p in file.preconditions if p.edition == "enterprise" and p.is_assumption]
        if forbidden and not self._blueprint.enterprise:
            return forbidden[0]
        return file.unmet(server.version, server.edition or "")

    def _described_server(self) -> str:
        server = self._server or ServerInfo("?", "?")
        off = "" if self._blueprint.enterprise else ", and the blueprint's enterprise files are off"
        return f"{server.version} {server.edition}{off}"

    def _without(self, skipped: Sequence[Change]) -> list[CypherFile]:
        names = {c.name for c in skipped}
        return [f for f in self._files if f.name not in names]

    def _notes(self, usable: Sequence[CypherFile], pending: Sequence[CypherFile]) -> Iterator[str]:
        unverified = [f"{f.name} ({f.unrecognised})" for f in usable if f.unrecognised]
        if unverified:
            yield f"Not verified, because they declare no constraint or index: statements of {', '.join(unverified)}."
        if pending and (warning := cypher_file.order_warning(self._files)):
            yield warning
        for file in pending:
            yield from file.lint()
        if self._live is not None:
            yield from twins(declared(usable).values(), self._live)

    def _refuse_duplicates(self, session: neo4j.Session, new: Sequence[SchemaObject]) -> None:
        """Refuse what duplicates would block, where looking for them is cheap.

        Else the server finds them in `apply`.
        """
        unique = [o for o in new if o.type in {"UNIQUENESS", "KEY"}]
        if not unique:
            return
        kinds = "CALL db.labels() YIELD label AS n RETURN n UNION CALL db.relationshipTypes() YIELD relationshipType AS n RETURN n"
        used = {r["n"] for r in self._rows(session, kinds)}
        for thing in unique:
            if thing.labels[0] not in used:
                continue
            count = self._rows(session, f"MATCH {_pattern(thing)} RETURN count(n) AS n")[0]["n"]
            groups = self._duplicates(session, thing) if count <= AFFORDABLE_NODES else []
            if groups:
                raise self._blocked(thing, groups)

    def _refuse_half_done(self, session: neo4j.Session, pending: Sequence[CypherFile]) -> None:
        """Raise for a file that an earlier run has begun and that nobody may go on with unasked.

        A run that still holds its lease is at work: this one will wait for the lock, and plan
        again.
        """
        if not pending:
            return
        marks = self._marks(session)
        for file in pending:
            mark = marks.get(file.order)
            if mark is not None and not mark.at_work:
                mark.next_statement(file)

    def _marks(self, session: neo4j.Session) -> dict[tuple[int, ...], Begun]:
        """The marks of begun files, by the place of the file."""
        rows = self._rows(session, neo4j_begun.READ)
        return {mark.order: mark for mark in neo4j_begun.read_marks(rows)}

    def _duplicates(self, session: neo4j.Session, thing: SchemaObject) -> list[str]:
        properties = [f"n.{_quoted(p)}" for p in thing.properties]
        present = " AND ".join(f"{p} IS NOT NULL" for p in properties)
        rows = self._rows(
            session,
            f"MATCH {_pattern(thing)} WHERE {present} WITH [{', '.join(properties)}] AS v, count(*) AS c WHERE c > 1 "
            f"RETURN v, c ORDER BY c DESC, toString(v[0]) LIMIT {GROUPS + 1}",
        )
        what = "nodes" if thing.entity == "NODE" else "relationships"
        return [f"{r['c']} {what} share {_values(thing.properties, r['v'])}" for r in rows]

    def _blocked(self, thing: SchemaObject, groups: Sequence[str]) -> StoreConflict:
        """The conflict of a constraint that duplicates block; which they are is its detail."""
        counted = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
        number, more = counted, ""
        if len(groups) > GROUPS:
            number, more = f"more than {GROUPS} groups", "; and more"
        what = "nodes" if thing.entity == "NODE" else "relationships"
        where = thing.definition.partition(" on ")[2]
        return StoreConflict(
            self.name,
            f"{thing} on {where} is blocked by data: {number} of {what} share {', '.join(thing.properties)}.",
            hint="Remove or merge the duplicates and run again.",
            subject=thing.name,
            detail=f"{'; '.join(groups[:GROUPS])}{more}.",
        )

    # --- writing

    def apply(self, change: Change) -> str | None:
        """Run one file and record it, or create one seed.

        A crash before the record runs the file again, from where that is harmless (see `begun.py`).
        Raises `ChangeFailed` with file, statement and line; `StoreConflict` for duplicates and
        other definitions; `StoreUnavailable` when the lease was lost: then nothing of a file of
        data, and no record, is committed.
        """
        if change.kind == "seed":
            with (
                self._errors(change.name, change),
                self._session() as session,
                self._fenced(session, change) as run,
            ):
                self._seed.create(change, run)
            return None
        file = next((f for f in self._files if f.name == change.name), None)
        if file is None:
            raise ChangeFailed(
                self.name, f"{change.name} is not a file of {self._blueprint.name}.", change=change
            )
        began = time.monotonic()
        with self._errors(file.name, change), self._session() as session:
            history = self._ready_to_record(session, change)
            entry = history.entry(file.version)
            if entry is not None and entry.checksum in file.checksums:
                return f"{file.name} is recorded as applied already."
            mark = self._marks(session).get(file.order)
            if mark is None and file.transactional:
                self._apply_data(session, file, change, history, began)
            else:
                self._apply_alone(session, file, change, history, began, mark=mark)
        if self._leased:
            self._history = history.continued(file, self._blueprint.name)
        return _remark(file, mark)

    def _ready_to_record(self, session: neo4j.Session, change: Change) -> History:
        """Make the constraints and the index that recording needs, where they are absent.

        Returns the history.
        """
        history = self._history or History.read(self._rows(session, neo4j_history.READ))
        self._history = None  # until this file is recorded
        if not self._can_record:
            if own_schema.absent(_OWN_SCHEMA, self._live or self._look(session)):
                self._refuse_lost_lease(session, change)
                self._make_own(session, _OWN_SCHEMA)
            self._can_record = True
        return history

    def _make_own(self, session: neo4j.Session, schema: Mapping[str, str]) -> None:
        """Make what is absent of `schema`, and see that it is there.

        `IF NOT EXISTS` keeps no second run from being refused: of two that make an index at once,
        one gets `EquivalentSchemaRuleAlreadyExists`. So what is there afterwards decides, not the
        answer. Raises `StoreBusy` when something is still absent then, because another run is
        making or removing it.
        """
        for text in own_schema.absent(schema, self._look(session)).values():
            try:
                with self._sending(Statement(text, text, line=1)):
                    self._rows(session, text)
            except raised.ClientError as exc:
                if neo4j_errors.code(exc) not in neo4j_errors.EXISTS:
                    raise
        self._live = self._look(session)
        left = own_schema.absent(schema, self._live)
        if left:
            raise StoreBusy(
                self.name,
                f"{', '.join(left)} was made and is not there: another run is at work, "
                "or the server was ended while it made one and has kept its index.",
                hint=f"If no other run is at work, DROP INDEX {next(iter(left))} IF EXISTS.",
                subject=next(iter(left)),
            )

    @contextmanager
    def _fenced(self, session: neo4j.Session, change: Change) -> Iterator[Run]:
        """A transaction that commits only while the lease of this run is ours.

        The token is compared last, which locks the lease's node: no other run can take the lease
        before the commit.
        """
        with session.begin_transaction(metadata={_TAG: self._tag}) as transaction:

            def run(text: str, **parameters: Any) -> list[dict[str, Any]]:
                return [dict(r) for r in transaction.run(text, parameters)]

            yield run
            lease = self._lease if self._leased else None
            if lease is not None and not lease.confirm_in(
                lambda text, parameters: run(text, **parameters)
            ):
                raise self._lost_lease(change, run(neo4j_lease.HOLDER))
            transaction.commit()

    def _refuse_lost_lease(self, session: neo4j.Session, change: Change) -> None:
        """Raise when the lease is another run's: right before a statement that shares no transaction with the record."""
        if self._lease is not None and self._leased and not self._lease.confirm():
            raise self._lost_lease(change, self._rows(session, neo4j_lease.HOLDER))

    def _lost_lease(self, change: Change, rows: Sequence[Mapping[str, Any]]) -> StoreUnavailable:
        holder = (
            f"{neo4j_lease.holder(rows[0]).who} holds it now" if rows else "nobody holds it now"
        )
        return StoreUnavailable(
            self.name,
            f"The lock of this run was lost before {change.name} was recorded; {holder}. "
            "Nothing that shares a transaction with the record was committed.",
            hint="Run again; what has been applied is recognised.",
            subject=change.name,
        )

    def _apply_data(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        history: History,
        began: float,
    ) -> None:
        with self._fenced(session, change) as run:
            for i, statement in enumerate(file.statements, 1):
                with self._errors(_place(file, i, statement), change), self._sending(statement):
                    run(statement.text)
            self._record(run, file, history, began)

    def _apply_alone(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        history: History,
        began: float,
        *,
        mark: Begun | None,
    ) -> None:
        """Run what commits by itself, and then record the file and remove its mark."""
        first = self._next_statement(file, mark)
        with self._errors(file.name, change):
            for i, statement in enumerate(file.statements, 1):
                if i >= first:
                    unsure = mark is not None and mark.running and i == mark.count
                    self._apply_statement(session, file, change, i, statement, unsure=unsure)
            self._prove_schema(session, file, change)
            with self._fenced(session, change) as run:
                self._record(run, file, history, began)
                if mark is not None or neo4j_begun.needs_mark(file):
                    run(neo4j_begun.REMOVE, **neo4j_begun.key(file))

    def _next_statement(self, file: CypherFile, mark: Begun | None) -> int:
        """The number, from 1, of the first statement to run.

        `StoreBusy` while another run is at the file.
        """
        if mark is None:
            return 1
        if mark.at_work and mark.token != self._token:
            raise StoreBusy(
                self.name, f"{file.name} is being applied by {mark.owner}.", subject=file.name
            )
        return mark.next_statement(file)

    def _apply_statement(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        number: int,
        statement: Statement,
        *,
        unsure: bool,
    ) -> None:
        """Send one statement in a transaction of its own.

        Where the file needs a mark, it is committed before the statement and again after it.
        `unsure` says that an earlier run ended while the statement was running.
        """
        if unsure and self._is_dropped(session, statement):
            return
        is_marked = neo4j_begun.needs_mark(file)
        if is_marked:
            self._mark_begun(session, file, change, number, running=True)
        else:
            self._refuse_lost_lease(session, change)
        try:
            with self._errors(_place(file, number, statement), change):
                self._send(session, file, statement)
        except BootstrapError as exc:
            if not is_marked:
                raise
            if _is_undone(statement, exc.__cause__):
                self._take_back(session, file, change, number)
                raise
            if not statement.is_batched:
                raise
            raise self._in_batches(file, change, exc) from exc
        if is_marked:
            self._mark_begun(session, file, change, number, running=False)

    def _send(self, session: neo4j.Session, file: CypherFile, statement: Statement) -> None:
        with self._sending(statement):
            try:
                self._rows(session, statement.text)
            except (raised.ClientError, raised.DatabaseError) as exc:
                self._explain(session, statement, exc, file)

    @contextmanager
    def _sending(self, statement: Statement) -> Iterator[None]:
        """Note the statement that the server has, for `waits_for` and `end_wait`."""
        self._sent, self._last_look = statement, None
        try:
            yield
        finally:
            self._sent = None

    def _is_dropped(self, session: neo4j.Session, statement: Statement) -> bool:
        """Whether it is a DROP, and what it drops is gone."""
        thing = recognise(statement.tokens)
        return isinstance(thing, Drop) and thing.name not in self._look(session).objects

    def _mark_begun(
        self, session: neo4j.Session, file: CypherFile, change: Change, count: int, *, running: bool
    ) -> None:
        """Commit the mark, if the lease is still ours."""
        owner = self._lease.owner if self._lease else f"{_system_user()}, without a lock"
        facts = neo4j_begun.facts(file, count, running=running)
        with self._fenced(session, change) as run:
            run(neo4j_begun.WRITE, token=self._token, owner=owner, **facts)

    def _take_back(
        self, session: neo4j.Session, file: CypherFile, change: Change, number: int
    ) -> None:
        """Mark a statement that the server refused as not begun.

        A mark that cannot be written stays as it is.
        """
        with suppress(BootstrapError), self._errors(file.name, change):
            if number > 1:
                self._mark_begun(session, file, change, number - 1, running=False)
                return
            with self._fenced(session, change) as run:
                run(neo4j_begun.REMOVE, **neo4j_begun.key(file))

    def _in_batches(self, file: CypherFile, change: Change, exc: BootstrapError) -> ChangeFailed:
        """What a failure within batches is, whatever it was.

        Nobody may try such a file again unasked.
        """
        return ChangeFailed(
            self.name,
            f"{exc.message} Batches of {file.name} may have been committed, because "
            "CALL … IN TRANSACTIONS commits while it runs; the file is not recorded and was not "
            "tried again.",
            change=change,
            hint="See what is there. The next run ends with a conflict "
            "that names the two ways out.",
            detail=exc.detail,
        )

    def _explain(
        self, session: neo4j.Session, statement: Statement, exc: raised.Neo4jError, file: CypherFile
    ) -> None:
        """Pass over an object that is there already as declared.

        Raise what says more than the server did, or `exc`.
        """
        thing = recognise(statement.tokens)
        code = neo4j_errors.code(exc)
        if not isinstance(thing, SchemaObject):
            raise exc
        if code in neo4j_errors.EXISTS:
            found = self._look(session).find(thing)
            if found is not None and thing.matches(found):
                return
            if found is not None:
                raise different(thing, found, file.name) from exc
        if code == neo4j_errors.BLOCKED and "Enterprise Edition" in str(exc):
            raise StoreConflict(
                self.name,
                f"{thing} of {file.name} requires the Enterprise Edition.",
                hint="Begin the file with `// assume that edition is enterprise` "
                "to have it skipped here.",
                subject=thing.name,
            ) from exc
        if code == neo4j_errors.BLOCKED and (groups := self._duplicates(session, thing)):
            raise self._blocked(thing, groups) from exc
        raise exc

    def _prove_schema(self, session: neo4j.Session, file: CypherFile, change: Change) -> None:
        """See that what `file` leaves behind is there: `IF NOT EXISTS` is silent for a name with another definition."""
        wanted = declared([file])
        if not wanted:
            return
        live = self._look_for(session, {str(thing.kind) for thing in wanted.values()})
        waiting = [
            i.name for i in live.indexes.values() if i.state == "POPULATING" and i.name in wanted
        ]
        if waiting:
            live = self._awaited(session, waiting)
        self._live = live
        for thing in wanted.values():
            found = live.find(thing)
            if found is None or not thing.matches(found):
                raise (
                    different(thing, found, file.name)
                    if found
                    else ChangeFailed(
                        self.name,
                        f"{thing} of {file.name} is not there after it was created.",
                        change=change,
                        hint="See who drops it, and run again.",
                        subject=thing.name,
                    )
                )
            self._refuse_unfinished(found, live, change)

    def _awaited(self, session: neo4j.Session, names: Sequence[str]) -> LiveSchema:
        """Wait on the server until they are ONLINE.

        Failing and timing out are judged from the state that they then have.
        """
        try:
            self._rows(
                session, _AWAIT, names=names, seconds=max(1, int(self._timing.index_timeout_s))
            )
        except (raised.ClientError, raised.DatabaseError) as exc:
            if not neo4j_errors.code(exc).startswith(("ClientError.Procedure.", "DatabaseError.")):
                raise
        return self._look(session)

    def _refuse_unfinished(self, thing: SchemaObject, live: LiveSchema, change: Change) -> None:
        state = live.indexes.get(thing.name)
        if state is None or state.state == "ONLINE":
            return
        failure = " ".join(state.failure.split())
        cause = _failure(state) if failure else f"after {self._timing.index_timeout_s:g} s"
        hint = (
            f"Correct the data, DROP INDEX {thing.name}, and run again."
            if state.state == "FAILED"
            else "Run again when it is ONLINE, or give a longer IS_DB_BOOTSTRAP_INDEX_TIMEOUT."
        )
        raise ChangeFailed(
            self.name,
            f"{thing} is {state.state}: {cause}.",
            change=change,
            hint=hint,
            subject=thing.name,
            detail=failure,
        )

    def _record(self, run: Run, file: CypherFile, history: History, began: float) -> None:
        """Write the history node, or the REPEATED of a file that ran before, into `history`.

        Writers wait for each other from here to the end of their transactions, so the second one
        sees what the first has recorded. Raises `StoreBusy` when that is this very file: tried
        again, it is found to be applied already.
        """
        name = self._blueprint.name
        now = History.read(run(neo4j_history.BEGIN_RECORD, blueprint=name, order=list(file.order)))
        now.refuse_other_blueprint(name)
        if not self._leased:  # others may have recorded something in front of this file
            history = History.read(run(neo4j_history.READ))
        entry = now.entry(file.version)
        if entry is not None:
            neo4j_history.compare(entry, file)
            if entry.checksum in file.checksums:
                raise StoreBusy(
                    self.name,
                    f"{file.name} was recorded by another run meanwhile.",
                    subject=file.name,
                )
        facts = {
            "version": entry.version if entry else file.version,
            "checksum": file.checksum,
            "ms": int((time.monotonic() - began) * 1000),
            "by": _system_user(),
            "user": self._url.username,
        }
        if entry is not None:
            rows = run(neo4j_history.REPEAT, **facts)
        else:
            rows = run(
                neo4j_history.RECORD,
                **facts,
                previous=history.before(file),
                description=file.description,
                repeatable=file.repeatable,
                source=file.name,
            )
        if not rows or rows[0]["recorded"] != 1:
            raise StoreConflict(
                self.name,
                f"{file.name} could not be recorded: "
                f"version {history.before(file)} is not in the history once.",
                hint="See MATCH (m:__Neo4jMigration) RETURN m.",
                subject=file.name,
            )

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Each object that the files leave behind against the live one: name, label, properties, kind, ONLINE."""
        if self._server is None:
            self.ping(self._timing.connect_timeout_s)
        with self._errors(), self._session() as session:
            self._live = live = self._look(session)
            drifts = [
                d
                for o in declared(f for f in self._files if self._unmet(f) is None).values()
                if (d := _drift(o, live))
            ]
            missing = self._seed.missing(lambda text, **p: self._rows(session, text, **p))
        return drifts + [Drift(c.name, c.kind, "is missing") for c in missing]

    def selftest(self) -> Iterator[Proof]:
        """Try each declared constraint and index in transactions that are rolled back.

        See `selftest.py`.
        """
        from is_db_bootstrap.stores.neo4j.selftest import SelfTest

        with self._errors("a probe"), self._session() as session:
            objects = declared(f for f in self._files if self._unmet(f) is None).values()
            yield from SelfTest(session, objects).proofs()

    def audit(self) -> Sequence[Drift]:
        """Constraints and indexes that no file declares, but those of both tools and the server's own token lookups."""
        if self._live is None:
            with self._errors(), self._session() as session:
                self._live = self._look(session)
        known = {*declared(self._files), *_OWN_SCHEMA}
        wanted = list(declared(self._files).values())
        return [
            Drift(o.name, o.kind, "is not declared", actual=described(o), finding=True)
            for o in self._live.objects.values()
            if o.name not in known and o.type != "LOOKUP" and not any(w.matches(o) for w in wanted)
        ]

    def status(self) -> Status:
        """The last recorded file, the last file that this server takes, and who holds the lock."""
        with self._errors(), self._session() as session:
            history = History.read(self._rows(session, neo4j_history.READ))
            held = self._rows(session, neo4j_lease.HOLDER)
        head = self._without(tuple(self._skipped(history)))
        recorded = history.entries[-1].source if history.entries else ""
        return Status(
            recorded, head[-1].name if head else "", neo4j_lease.holder(held[0]) if held else None
        )

    # --- the lock

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """A lease of `timing.lease_s` on the node that neo4j-migrations locks with.

        A lapsed one of ours is taken over.
        """
        held = self._ready_to_lock()
        if held is not None:
            return held
        taken = neo4j_lease.take(self._write, owner, self._timing.lease_s)
        self._history = None
        self._lease = taken if isinstance(taken, neo4j_lease.Lease) else None
        return taken

    def _ready_to_lock(self) -> LockHolder | None:
        """Make the constraints of the lease where they are absent.

        Returns the holder when a run that has a lease forbids that: its transactions would wait for
        the schema statement, or be the victim of a deadlock with it. These constraints are the only
        thing that is changed without a lease.
        """
        with self._errors("the lock"), self._session() as session:
            if own_schema.absent(neo4j_lease.SCHEMA, self._look(session)):
                rows = self._rows(session, neo4j_lease.HOLDER)
                if rows and not rows[0]["lapsed"]:
                    return neo4j_lease.holder(rows[0])
                self._make_own(session, neo4j_lease.SCHEMA)
        return None

    # --- ending

    def cancel(self) -> None:
        """From another thread: terminate our transactions on the server, or break the connections where that is refused."""
        driver = self._opened or self._opening
        if driver is None:
            return
        if driver is self._opening:
            driver.close()  # a ping has nothing that would go on
            return
        try:
            with driver.session(database=self._url.database or None) as session:
                found = session.run(
                    f"SHOW TRANSACTIONS YIELD transactionId, metaData WHERE metaData.{_TAG} = $tag RETURN transactionId AS id",
                    tag=self._tag,
                )
                ids = [r["id"] for r in found]
                if ids:
                    session.run(waiting.TERMINATE, ids=ids).consume()
        except (raised.Neo4jError, raised.DriverError):
            driver.close()

    def disconnect(self) -> str:
        """From another thread: break the connections.

        The server rolls back what they had begun and not committed, when it notices.
        """
        for driver in (self._opened, self._opening):
            if driver is not None:
                driver.close()
        return (
            "Neo4j gave no answer, so its transactions of this run were not seen to end. It rolls"
            " them back when it notices that their connection has gone."
        )

    # --- waiting

    def waits_for(self) -> str:
        """From another thread: which transactions of others block ours, as far as can be told."""
        driver = self._opened
        if driver is None:
            return ""
        look, before = self._look_at_wait(driver), self._last_look
        self._last_look = look
        return look.sentence(before)

    def _look_at_wait(self, driver: neo4j.Driver) -> Look:
        with self._errors(), driver.session(database=self._url.database or None) as session:
            rows = [dict(row) for row in session.run(waiting.READ)]
            sent = self._sent
            is_schema = sent is not None and sent.is_schema
            is_idle = is_schema and not list(session.run(waiting.BUILDING))
        return waiting.read_look(rows, {_TAG: self._tag}, schema=is_idle)

    def end_wait(self) -> bool:
        """From another thread: end our statement if others block it and nothing of it is left then.

        What commits while it runs is left to wait: some of it is committed already.
        """
        driver, sent, before = self._opened, self._sent, self._last_look
        if driver is None or sent is None or sent.is_batched:
            return False
        look = self._look_at_wait(driver)
        ids = look.stuck(before)
        if not ids or self._sent is not sent:
            return False
        with self._errors(), driver.session(database=self._url.database or None) as session:
            session.run(waiting.TERMINATE, ids=ids).consume()
        return True

    def what_goes_on(self) -> str:
        """What the server goes on with after `cancel`, as a sentence for the report."""
        return KIND.unended

    def close(self) -> None:
        """Release every connection."""
        driver, self._opened = self._opened, None
        self._live = self._history = self._lease = None
        self._can_record = False
        if driver is not None:
            driver.close()

    @contextmanager
    def _errors(self, place: str = "", change: Change | None = None) -> Iterator[None]:
        """Translate what the driver raises, once for all calls."""
        try:
            yield
        except (raised.Neo4jError, raised.DriverError) as exc:
            error = neo4j_errors.translated(exc, self.target, place, change)
            raise self._url.masking(error, exc) from exc


def _drift(wanted: SchemaObject, live: LiveSchema) -> Drift | None:
    found = live.find(wanted)
    name, expected = wanted.name or wanted.definition, described(wanted)
    if found is None:
        return Drift(name, wanted.kind, "is missing", expected)
    if not wanted.matches(found):
        return Drift(name, wanted.kind, "differs", expected, described(found))
    index = live.indexes.get(found.name)
    if index is None or index.state == "ONLINE":
        return None
    return Drift(name, wanted.kind, f"is {index.state}: {_failure(index)}", "ONLINE", index.state)


def _failure(index: LiveIndex) -> str:
    """Where the server says why an index is not usable: what it says may name values of rows."""
    if index.failure.strip():
        return f"see failureMessage of SHOW INDEXES WHERE name = '{index.name}'"
    return "not usable yet"


def _pattern(thing: SchemaObject) -> str:
    label = _quoted(thing.labels[0])
    return f"(n:{label})" if thing.entity == "NODE" else f"()-[n:{label}]->()"


def _values(names: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{name} {value!r}"[:120] for name, value in zip(names, values, strict=True))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _is_undone(statement: Statement, cause: BaseException | None) -> bool:
    """Whether the server's answer says that nothing of a statement is left.

    A schema statement is all or nothing. Of one that commits in batches that is known only before
    it began.
    """
    if statement.is_batched:
        return neo4j_errors.refused_unread(cause)
    return isinstance(cause, raised.Neo4jError)


def _remark(file: CypherFile, mark: Begun | None) -> str | None:
    """What is told of a file that another run had begun."""
    if mark is None:
        return None
    if mark.done:
        return (
            f"{file.name} was recorded without running it, because its mark said that it is done."
        )
    first = mark.next_statement(file)
    if first > len(file.statements):
        return f"{file.name} was begun by {mark.owner}, and only its record was missing."
    return f"{file.name} was begun by {mark.owner}, and went on at statement {first}."


def _place(file: CypherFile, number: int, statement: Statement) -> str:
    return f"{file.name}, statement {number} (line {statement.line})"


def _system_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's uid without an entry in passwd
        return str(os.getuid())

"""Running one Cypher file and recording it.

Data statements share one transaction with their record. Schema statements cannot
(`ForbiddenDueToTransactionType`), so their file is recorded after they were seen to hold. They
share one transaction among themselves where that is quick, because the server compiles every query
anew after each schema change. A file that commits by itself gets a mark first (see `begun`).
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from neo4j import exceptions as raised

from is_db_bootstrap.errors import BootstrapError, ChangeFailed, HalfDone, StoreBusy, StoreConflict
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.consent import Consent
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j import own_schema
from is_db_bootstrap.stores.neo4j.begun import Begun
from is_db_bootstrap.stores.neo4j.compare import different, why_unusable
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile, number
from is_db_bootstrap.stores.neo4j.cypher_schema import Drop, LiveSchema, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import Statement, quoted
from is_db_bootstrap.stores.neo4j.duplicates import blocked, duplicates
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.schema_forecast import declared, has_index, is_unfinished
from is_db_bootstrap.stores.neo4j.seed import Run

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.fence import Fence

#: What both tools need for themselves, by name.
OWN_SCHEMA: Mapping[str, str] = {**neo4j_history.SCHEMA, **neo4j_lock.SCHEMA}

_AWAIT = "UNWIND $names AS name CALL db.awaitIndex(name, $seconds) RETURN count(*) AS waited"


class FileRun:
    """Runs files of the blueprint called `blueprint` in `database`.

    `username` is who is recorded as connected. `index_timeout_s` bounds the wait for the indexes of
    a file, in seconds.
    """

    def __init__(
        self,
        database: Database,
        fence: Fence,
        errors: Translation,
        *,
        blueprint: str,
        username: str,
        index_timeout_s: float,
    ) -> None:
        self._database = database
        self._fence = fence
        self._errors = errors
        self._blueprint = blueprint
        self._username = username
        self._index_timeout_s = index_timeout_s
        #: What a plan has read, kept only under a lock of ours: nobody else writes it then.
        self.history: History | None = None
        #: The marks of begun files, in the same way.
        self.known_marks: dict[tuple[int, ...], Begun] | None = None
        self.consent = Consent()
        #: Whether the constraints and the index that recording needs were seen or made.
        self._can_record = False
        self._many_nodes: bool | None = None

    def forget(self) -> None:
        """Take nothing for known any more: the connection was closed."""
        self.forget_records()
        self._can_record = False

    def forget_records(self) -> None:
        """Take nothing for known that another run may change while this one has no lock."""
        self.history = None
        self.known_marks = None
        self._many_nodes = None

    def apply(self, file: CypherFile, change: Change) -> str | None:
        """Run a file from where that is harmless, and record it; a remark, if there is any."""
        began = time.monotonic()
        with self._errors(file.name, change), self._database.session() as session:
            history = self.history or History.read(self._database.rows(session, neo4j_history.READ))
            marks = self.marks(session) if self.known_marks is None else self.known_marks
            self.history = self.known_marks = None  # until this file is recorded
            entry = history.entry(file.version)
            if entry is not None and entry.checksum in file.checksums:
                return f"{file.name} is recorded as applied already."
            mark = marks.pop(file.order, None)
            if mark is None and file.transactional:
                self._apply_data(session, file, change, history, began)
            else:
                self._apply_alone(session, file, change, history, began, mark=mark)
        if not _named_objects(file):
            self._many_nodes = None  # it may have made some
        if self._fence.held is not None:
            self.history = history.continued(file, self._blueprint)
            self.known_marks = marks
        return self._remark(file, mark)

    def next_statement(self, file: CypherFile, mark: Begun) -> int:
        """The number, from 1, of the statement with which a run goes on that found `mark`.

        Raises `StoreConflict` when a person has to decide, and has not.
        """
        may_retry = self.consent.covers(file.name, mark)
        return mark.next_statement(file, may_retry=may_retry)

    def _remark(self, file: CypherFile, mark: Begun | None) -> str | None:
        """What is told of a file that another run had begun."""
        if mark is None:
            return None
        if mark.done:
            return (
                f"{file.name} was recorded without running it, because its mark said that it is "
                "done."
            )
        first = self.next_statement(file, mark)
        if first > len(file.statements):
            return f"{file.name} was begun by {mark.owner}, and only its record was missing."
        return f"{file.name} was begun by {mark.owner}, and went on at statement {first}."

    def _get_ready_to_record(self, session: neo4j.Session, change: Change) -> None:
        """Make the constraints and the index that recording needs, where they are absent."""
        if self._absent_own(session):
            self._fence.refuse_lost(session, change)
            self.make_own(session, OWN_SCHEMA)
        self._can_record = True

    def _absent_own(self, session: neo4j.Session) -> dict[str, str]:
        """The statements that make what recording needs and the database lacks, by name."""
        if self._can_record:
            return {}
        if self._database.live is None:
            self._database.live = self._database.look(session)
        return own_schema.absent(OWN_SCHEMA, self._database.live)

    def make_own(self, session: neo4j.Session, schema: Mapping[str, str]) -> None:
        """Make what is absent of `schema`, and see that it is there.

        `IF NOT EXISTS` keeps no second run from being refused: of two that make an index at once,
        one gets `EquivalentSchemaRuleAlreadyExists`. So what is there afterwards decides, not the
        answer. Raises `StoreBusy` when something is still absent then, because another run is
        making or removing it.
        """
        live, self._database.live = self._database.live, None
        if live is not None and self._make_together(session, own_schema.absent(schema, live)):
            return
        for text in own_schema.absent(schema, self._database.look(session)).values():
            try:
                with self._database.sending(Statement(text, text, line=1)):
                    self._database.rows(session, text)
            except raised.ClientError as exc:
                if neo4j_errors.code(exc) not in neo4j_errors.EXISTS:
                    raise
        self._database.live = self._database.look(session)
        left = own_schema.absent(schema, self._database.live)
        if left:
            raise StoreBusy(
                STORE,
                f"{', '.join(left)} was made and is not there: another run is at work, "
                "or the server was ended while it made one and has kept its index.",
                hint=f"If no other run is at work, DROP INDEX {next(iter(left))} IF EXISTS.",
                subject=next(iter(left)),
            )

    def _make_together(self, session: neo4j.Session, absent: Mapping[str, str]) -> bool:
        """Make what recording or the lock needs, in one transaction.

        Returns False when some of it was there already. Then nothing was made.
        """
        try:
            with session.begin_transaction(metadata=self._database.metadata) as transaction:
                for text in absent.values():
                    with self._database.sending(Statement(text, text, line=1)):
                        transaction.run(text).consume()
                transaction.commit()
        except raised.ClientError as exc:
            if neo4j_errors.code(exc) not in neo4j_errors.EXISTS:
                raise
            return False
        return True

    def _apply_data(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        history: History,
        began: float,
    ) -> None:
        self._get_ready_to_record(session, change)
        with self._fence.transaction(session, change) as run:
            for i, statement in enumerate(file.statements, 1):
                with (
                    self._errors(_place(file, i, statement), change),
                    self._database.sending(statement),
                ):
                    run(statement.text)
            self.record(run, file, history, began)

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
            if mark is None and self._send_together(session, file, change):
                first = len(file.statements) + 1
            else:
                self._get_ready_to_record(session, change)
            for i, statement in enumerate(file.statements, 1):
                if i < first:
                    continue
                unsure = mark is not None and mark.running and i == mark.count
                if mark is not None and unsure:
                    self._drop_left_index(session, change, statement, mark)
                self._apply_statement(session, file, change, i, statement, unsure=unsure)
            self._prove_schema(session, file, change)
            with self._fence.transaction(session, change) as run:
                self.record(run, file, history, began)
                if mark is not None or needs_mark(file):
                    run(neo4j_begun.REMOVE, **neo4j_begun.key(file))

    def _send_together(self, session: neo4j.Session, file: CypherFile, change: Change) -> bool:
        """Send the statements of a file in one transaction, with what recording needs before them.

        The labels of all of them are locked until its end, so that is done only where each is
        quick. Returns False when it was not done, and when the server refused a statement: then
        nothing is left of any, and they are sent one by one.
        """
        created = _named_objects(file)
        if not created or self._has_many_nodes(session):
            return False
        own = self._absent_own(session)
        try:
            with (
                self._errors(file.name, change),
                self._fence.schema_transaction(session, change) as run,
            ):
                for name, text in own.items():
                    self._send_uncommitted(run, Statement(text, text, line=1), name)
                for i, statement in enumerate(file.statements, 1):
                    with self._errors(_place(file, i, statement), change):
                        self._send_uncommitted(run, statement, created[i - 1])
        except (ChangeFailed, StoreConflict):
            return False
        finally:
            self._database.uncommitted.clear()
        self._can_record = True
        return True

    def _send_uncommitted(self, run: Run, statement: Statement, name: str) -> None:
        with self._database.sending(statement):
            run(statement.text)
        self._database.uncommitted.append(name)

    def _next_statement(self, file: CypherFile, mark: Begun | None) -> int:
        """The number, from 1, of the first statement to run.

        `StoreBusy` while another run is at the file.
        """
        if mark is None:
            return 1
        if mark.at_work and mark.token != self._fence.token:
            raise StoreBusy(
                STORE, f"{file.name} is being applied by {mark.owner}.", subject=file.name
            )
        return self.next_statement(file, mark)

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

        Where a mark is needed, it is committed before the statement and again after it. `unsure`
        says that an earlier run ended while the statement was running.
        """
        if unsure and self._is_dropped(session, statement):
            return
        building = self._long_build(session, statement)
        is_marked = needs_mark(file) or building != ""
        if is_marked:
            self.mark_begun(session, file, change, number, running=True, building=building)
        else:
            self._fence.refuse_lost(session, change)
        try:
            with self._errors(_place(file, number, statement), change):
                self._send(session, file, statement)
        except BootstrapError as exc:
            if not is_marked:
                raise
            # Of a statement that runs again, the earlier try may have left a part.
            had_part = unsure and neo4j_begun.may_stay_in_part(statement)
            if _is_undone(statement, exc.__cause__) and not had_part:
                self._take_back(session, file, change, number)
                raise
            if not statement.is_batched:
                raise
            raise self._in_batches(file, change, exc) from exc
        if is_marked:
            self._mark_ended(session, file, change, number)

    def _long_build(self, session: neo4j.Session, statement: Statement) -> str:
        """The index that a constraint's statement builds for long. Empty for any other statement.

        Empty, too, when an index of that name is there: then it is not known whose it is.
        """
        thing = recognise(statement.tokens)
        if not isinstance(thing, SchemaObject) or not has_index(thing):
            return ""
        if not self._has_many_nodes(session):
            return ""
        return "" if thing.name in self._database.look(session).indexes else thing.name

    def _has_many_nodes(self, session: neo4j.Session) -> bool:
        """Whether an index may take long to build.

        The server is asked once for files that follow each other and make no nodes.
        """
        if self._many_nodes is None:
            nodes = self._database.rows(session, neo4j_begun.NODES)[0]["nodes"]
            self._many_nodes = nodes >= neo4j_begun.MANY_NODES
        return self._many_nodes

    def _drop_left_index(
        self, session: neo4j.Session, change: Change, statement: Statement, mark: Begun
    ) -> None:
        """Drop what a killed server has left of a constraint: the index that the mark names.

        If the constraint is there after all, its server refuses that. Nothing is to be done then.
        """
        thing = recognise(statement.tokens)
        if not isinstance(thing, SchemaObject) or not thing.name or thing.name != mark.building:
            return
        left = self._database.look(session).objects.get(thing.name)
        if left is None or not is_unfinished(thing, left):
            return
        self._fence.refuse_lost(session, change)
        with suppress(raised.ClientError):
            self._database.rows(session, f"DROP INDEX {quoted(thing.name)} IF EXISTS")

    def _send(self, session: neo4j.Session, file: CypherFile, statement: Statement) -> None:
        with self._database.sending(statement):
            try:
                self._database.rows(session, statement.text)
            except (raised.ClientError, raised.DatabaseError) as exc:
                self._explain(session, statement, exc, file)

    def _is_dropped(self, session: neo4j.Session, statement: Statement) -> bool:
        """Whether it is a DROP, and what it drops is gone."""
        thing = recognise(statement.tokens)
        return isinstance(thing, Drop) and thing.name not in self._database.look(session).objects

    def mark_begun(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        count: int,
        *,
        running: bool,
        building: str = "",
    ) -> None:
        """Commit the mark, if the lease is still ours."""
        lease = self._fence.lease
        owner = lease.owner if lease is not None else f"{_system_user()}, without a lock"
        facts = neo4j_begun.facts(file, count, running=running, building=building)
        with self._fence.transaction(session, change) as run:
            run(neo4j_begun.WRITE, token=self._fence.token, owner=owner, **facts)

    def _take_back(
        self, session: neo4j.Session, file: CypherFile, change: Change, number: int
    ) -> None:
        """Mark a statement that the server refused as not begun.

        A mark that cannot be written stays as it is.
        """
        with suppress(BootstrapError), self._errors(file.name, change):
            self._mark_ended(session, file, change, number - 1)

    def _mark_ended(
        self, session: neo4j.Session, file: CypherFile, change: Change, count: int
    ) -> None:
        """Commit that the first `count` statements have ended.

        Where all of them may be sent again, the mark is removed instead.
        """
        if count and needs_mark(file):
            self.mark_begun(session, file, change, count, running=False)
            return
        with self._fence.transaction(session, change) as run:
            run(neo4j_begun.REMOVE, **neo4j_begun.key(file))

    def _in_batches(self, file: CypherFile, change: Change, exc: BootstrapError) -> HalfDone:
        """What a failure within batches is, whatever it was.

        Nobody may try such a file again unasked.
        """
        return HalfDone(
            STORE,
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
            found = self._database.look(session).find(thing)
            if found is not None and thing.matches(found):
                return
            if found is not None:
                raise different(thing, found, file.name) from exc
        if code == neo4j_errors.BLOCKED and "Enterprise Edition" in str(exc):
            raise StoreConflict(
                STORE,
                f"{thing} of {file.name} requires the Enterprise Edition.",
                hint="Begin the file with `// assume that edition is enterprise` "
                "to have it skipped here.",
                subject=thing.name,
            ) from exc
        if code == neo4j_errors.BLOCKED:
            groups = duplicates(lambda text: self._database.rows(session, text), thing)
            if groups:
                raise blocked(thing, groups) from exc
        raise exc

    def _prove_schema(self, session: neo4j.Session, file: CypherFile, change: Change) -> None:
        """See that what `file` leaves behind is there.

        `IF NOT EXISTS` is silent for a name with another definition.
        """
        wanted = declared([file])
        if not wanted:
            return
        kinds = {str(thing.kind) for thing in wanted.values()}
        live = self._database.look_for(session, kinds)
        if _unfinished(live, wanted):
            # A small index is ONLINE soon, and the server's own wait looks every 0.2 s only.
            live = self._database.look_for(session, kinds | {"index"})
        waiting = _unfinished(live, wanted)
        if waiting:
            self._await_online(session, waiting)
            live = self._database.look_for(session, kinds | {"index"})
        self._database.live = live
        for thing in wanted.values():
            found = live.find(thing)
            if found is None:
                raise ChangeFailed(
                    STORE,
                    f"{thing} of {file.name} is not there after it was created.",
                    change=change,
                    hint="See who drops it, and run again.",
                    subject=thing.name,
                )
            if not thing.matches(found):
                raise different(thing, found, file.name)
            self._refuse_unfinished(found, live, change)

    def _await_online(self, session: neo4j.Session, names: Sequence[str]) -> None:
        """Wait on the server until they are ONLINE.

        Failing and timing out are judged from the state that they then have.
        """
        try:
            limit_s = max(1, int(self._index_timeout_s))
            self._database.rows(session, _AWAIT, names=names, seconds=limit_s)
        except (raised.ClientError, raised.DatabaseError) as exc:
            if not neo4j_errors.code(exc).startswith(("ClientError.Procedure.", "DatabaseError.")):
                raise

    def _refuse_unfinished(self, thing: SchemaObject, live: LiveSchema, change: Change) -> None:
        state = live.indexes.get(thing.name)
        if state is None or state.state == "ONLINE":
            return
        failure = " ".join(state.failure.split())
        cause = why_unusable(state) if failure else f"after {self._index_timeout_s:g} s"
        hint = "Run again when it is ONLINE, or give a longer IS_DB_BOOTSTRAP_INDEX_TIMEOUT."
        if state.state == "FAILED":
            hint = f"Correct the data, DROP INDEX {thing.name}, and run again."
        raise ChangeFailed(
            STORE,
            f"{thing} is {state.state}: {cause}.",
            change=change,
            hint=hint,
            subject=thing.name,
            detail=failure,
        )

    def record(self, run: Run, file: CypherFile, history: History, began: float) -> None:
        """Write the history node, or the REPEATED of a file that ran before, into `history`.

        Writers wait for each other from here to the end of their transactions, so the second one
        sees what the first has recorded. Raises `StoreBusy` when that is this very file: tried
        again, it is found to be applied already.
        """
        run(neo4j_history.WAIT_FOR_WRITERS)
        orders = self._begin_chain(run)
        # Without a lock, others may have recorded something in front of this file.
        if file.order in orders or self._fence.held is None:
            history = History.read(run(neo4j_history.READ))
        entry = history.entry(file.version)
        if entry is not None:
            neo4j_history.compare(entry, file)
            if entry.checksum in file.checksums:
                raise StoreBusy(
                    STORE,
                    f"{file.name} was recorded by another run meanwhile.",
                    subject=file.name,
                )
        run_facts = {
            "ms": int((time.monotonic() - began) * 1000),
            "by": _system_user(),
            "user": self._username,
        }
        if entry is not None:
            version = entry.version
            rows = run(neo4j_history.REPEAT, **run_facts, version=version, checksum=file.checksum)
        else:
            is_last = all(order < file.order for order in orders)
            text = neo4j_history.RECORD_LAST if is_last else neo4j_history.RECORD
            facts = neo4j_history.recorded_facts(file)
            rows = run(text, **run_facts, facts=facts, previous=history.before(file))
        if not rows or rows[0]["recorded"] != 1:
            raise StoreConflict(
                STORE,
                f"{file.name} could not be recorded: "
                f"version {history.before(file)} is not in the history once.",
                hint="See MATCH (m:__Neo4jMigration) RETURN m.",
                subject=file.name,
            )

    def _begin_chain(self, run: Run) -> set[tuple[int, ...]]:
        """See that the chain of the history begins, and that it is this blueprint's.

        Returns the places of the files that are recorded. Raises `StoreConflict` for the history of
        another blueprint.
        """
        recorded = {row["version"]: row["blueprint"] for row in run(neo4j_history.VERSIONS)}
        is_begun = neo4j_history.BASELINE in recorded
        blueprint = recorded.pop(neo4j_history.BASELINE, None)
        History(blueprint=blueprint or "").refuse_other_blueprint(self._blueprint)
        if not is_begun:
            run(neo4j_history.BEGIN_CHAIN, blueprint=self._blueprint)
        elif blueprint is None:
            run(neo4j_history.ADOPT, blueprint=self._blueprint)
        return {number(version) for version in recorded}

    def marks(self, session: neo4j.Session) -> dict[tuple[int, ...], Begun]:
        """The marks of begun files, by the place of the file."""
        if not self._database.rows(session, neo4j_begun.ANY):
            return {}
        rows = self._database.rows(session, neo4j_begun.READ)
        return {mark.order: mark for mark in neo4j_begun.read_marks(rows)}


def needs_mark(file: CypherFile) -> bool:
    """Whether half of it may stay without a record, and running that half again is not harmless."""
    return neo4j_begun.nature(file) is Nature.NEITHER


def _unfinished(live: LiveSchema, wanted: Collection[str]) -> list[str]:
    """The names of `wanted` indexes that the server still builds."""
    building = [index.name for index in live.indexes.values() if index.state == "POPULATING"]
    return [name for name in building if name in wanted]


def _named_objects(file: CypherFile) -> list[str]:
    """The names of what its statements create, one per statement.

    Empty when any of them does anything else, or leaves the name to the server.
    """
    found = [recognise(statement.tokens) for statement in file.statements]
    names = [thing.name for thing in found if isinstance(thing, SchemaObject) and thing.name]
    return names if len(names) == len(found) else []


def _is_undone(statement: Statement, cause: BaseException | None) -> bool:
    """Whether the server's answer says that nothing of a statement is left.

    A schema statement is all or nothing. Of one that commits in batches that is known only before
    it began.
    """
    if statement.is_batched:
        return neo4j_errors.refused_unread(cause)
    return isinstance(cause, raised.Neo4jError)


def _place(file: CypherFile, number: int, statement: Statement) -> str:
    return f"{file.name}, statement {number} (line {statement.line})"


def _system_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's uid without an entry in passwd
        return str(os.getuid())

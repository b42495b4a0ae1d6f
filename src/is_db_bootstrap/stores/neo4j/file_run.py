"""Running one Cypher file and recording it.

Data statements share one transaction with their record. Schema statements cannot
(`ForbiddenDueToTransactionType`), so their file is recorded after they were seen to hold. They
share one transaction among themselves where that is quick, because the server compiles every query
anew after each schema change. A file that commits by itself gets a mark first (see `begun`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ChangeFailed, StoreBusy, StoreConflict
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.consent import Consent
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j.begun import Begun
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import Statement
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.own_schema import OwnSchema
from is_db_bootstrap.stores.neo4j.recording import Recorder, needs_mark
from is_db_bootstrap.stores.neo4j.schema_proof import SchemaProof
from is_db_bootstrap.stores.neo4j.seed import Run
from is_db_bootstrap.stores.neo4j.statement_run import StatementRun, place_of

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.fence import Fence


class FileRun:
    """Runs files in `database`, and records them.

    `recorder` writes marks and records, `own` makes what recording needs. `index_timeout_s` bounds
    the wait for the indexes of a file, in seconds.
    """

    def __init__(
        self,
        database: Database,
        fence: Fence,
        errors: Translation,
        *,
        recorder: Recorder,
        own: OwnSchema,
        index_timeout_s: float,
    ) -> None:
        self._database = database
        self._fence = fence
        self._errors = errors
        self._own = own
        self._recorder = recorder
        self._statements = StatementRun(database, fence, errors, recorder)
        self._proof = SchemaProof(database, index_timeout_s)
        #: What a plan has read, kept only under a lock of ours: nobody else writes it then.
        self.history: History | None = None
        #: The marks of begun files, in the same way.
        self.known_marks: dict[tuple[int, ...], Begun] | None = None
        self.consent = Consent()

    def forget(self) -> None:
        """Take nothing for known any more: the connection was closed."""
        self.forget_records()
        self._own.can_record = False

    def forget_records(self) -> None:
        """Take nothing for known that another run may change while this one has no lock."""
        self.history = None
        self.known_marks = None
        self._statements.forget()

    def expect(self, unforeseen: frozenset[str]) -> None:
        """Note the constraints of which the plan could not say whether values block them."""
        self._statements.unforeseen = unforeseen

    def apply(self, file: CypherFile, change: Change) -> str | None:
        """Run a file from where that is harmless, and record it; a remark, if there is any."""
        began = time.monotonic()
        with self._errors(file.name, change), self._database.session() as session:
            history = self.history or History.read(self._database.rows(session, neo4j_history.READ))
            marks = self._recorder.marks(session) if self.known_marks is None else self.known_marks
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
            self._statements.forget()  # it may have made nodes
        if self._fence.held is not None:
            self.history = history.continued(file, self._recorder.blueprint)
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

    def _apply_data(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        history: History,
        began: float,
    ) -> None:
        self._own.get_ready_to_record(session, change)
        with self._fence.transaction(session, change) as run:
            for i, statement in enumerate(file.statements, 1):
                with (
                    self._errors(place_of(file, i, statement), change),
                    self._database.sending(statement),
                ):
                    run(statement.text)
            self._recorder.record(run, file, history, began)

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
            if all(statement.is_schema for statement in file.statements):
                for statement in file.statements:
                    self._statements.refuse_unforeseen(session, statement)
            if mark is None and self._send_together(session, file, change):
                first = len(file.statements) + 1
            else:
                self._own.get_ready_to_record(session, change)
            for i, statement in enumerate(file.statements, 1):
                if i < first:
                    continue
                unsure = mark is not None and mark.running and i == mark.count
                if mark is not None and unsure:
                    self._statements.drop_left_index(session, change, statement, mark)
                self._statements.apply(session, file, change, i, statement, unsure=unsure)
            self._proof.prove(session, file, change)
            with self._fence.transaction(session, change) as run:
                self._recorder.record(run, file, history, began)
                if mark is not None or needs_mark(file):
                    run(neo4j_begun.REMOVE, **neo4j_begun.key(file))

    def _send_together(self, session: neo4j.Session, file: CypherFile, change: Change) -> bool:
        """Send the statements of a file in one transaction, with what recording needs before them.

        The labels of all of them are locked until its end, so that is done only where each is
        quick. Returns False when it was not done, and when the server refused a statement: then
        nothing is left of any, and they are sent one by one.
        """
        created = _named_objects(file)
        if not created or self._statements.has_many_nodes(session):
            return False
        own = self._own.absent_for_record(session)
        try:
            with (
                self._errors(file.name, change),
                self._fence.schema_transaction(session, change) as run,
            ):
                for name, text in own.items():
                    self._send_uncommitted(run, Statement(text, text, line=1), name)
                for i, statement in enumerate(file.statements, 1):
                    with self._errors(place_of(file, i, statement), change):
                        self._send_uncommitted(run, statement, created[i - 1])
        except (ChangeFailed, StoreConflict):
            return False
        finally:
            self._database.uncommitted.clear()
        self._own.can_record = True
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


def _named_objects(file: CypherFile) -> list[str]:
    """The names of what its statements create, one per statement.

    Empty when any of them does anything else, or leaves the name to the server.
    """
    found = [recognise(statement.tokens) for statement in file.statements]
    names = [thing.name for thing in found if isinstance(thing, SchemaObject) and thing.name]
    return names if len(names) == len(found) else []

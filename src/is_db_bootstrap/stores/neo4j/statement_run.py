"""Running one statement of a file in a transaction of its own, and explaining what it met."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from neo4j import exceptions as raised

from is_db_bootstrap.errors import BootstrapError, HalfDone
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j.begun import Begun
from is_db_bootstrap.stores.neo4j.compare import different
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.cypher_schema import Drop, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import Statement, quoted
from is_db_bootstrap.stores.neo4j.duplicates import blocked, duplicates, refuse_duplicates
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.left_index import drop_left_index
from is_db_bootstrap.stores.neo4j.recording import Recorder, needs_mark
from is_db_bootstrap.stores.neo4j.schema_forecast import enterprise_only, has_index, is_unfinished

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.fence import Fence


class StatementRun:
    """Runs statements of files that do not share one transaction with their record."""

    def __init__(
        self, database: Database, fence: Fence, errors: Translation, recorder: Recorder
    ) -> None:
        self._database = database
        self._fence = fence
        self._errors = errors
        self._recorder = recorder
        self._many_nodes: bool | None = None
        #: Constraints of which the plan could not say whether values block them, by name or
        #: definition: pending files come before them.
        self.unforeseen: frozenset[str] = frozenset()

    def forget(self) -> None:
        """Take the number of nodes for known no more."""
        self._many_nodes = None

    def apply(
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
        if not file.transactional and statement.is_data:
            self._apply_data(session, file, change, number, statement)
            return
        if unsure and self._is_dropped(session, statement):
            return
        self.refuse_unforeseen(session, statement)
        building = self._long_build(session, statement)
        is_marked = needs_mark(file) or building != ""
        if is_marked:
            self._recorder.mark_begun(
                session, file, change, number, running=True, building=building
            )
        else:
            self._fence.refuse_lost(session, change)
        try:
            with self._errors(place_of(file, number, statement), change):
                self._send(session, file, statement)
        except BootstrapError as exc:
            if not is_marked:
                raise
            # Of a statement that runs again, the earlier try may have left a part.
            had_part = unsure and neo4j_begun.may_stay_in_part(statement)
            if _is_undone(statement, exc.__cause__) and not had_part:
                self._recorder.take_back(session, file, change, number)
                raise
            if not statement.is_batched:
                raise
            raise self._in_batches(file, change, exc) from exc
        if is_marked:
            self._recorder.mark_ended(session, file, change, number)

    def _apply_data(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        number: int,
        statement: Statement,
    ) -> None:
        """Send a statement of data of a file that has others too.

        The mark that says that it is done is committed with it, so that it runs once.
        """
        with (
            self._fence.transaction(session, change) as run,
            self._errors(place_of(file, number, statement), change),
        ):
            with self._database.sending(statement):
                run(statement.text)
            self._recorder.write_mark(run, file, number, running=False)
        self.forget()

    def refuse_unforeseen(self, session: neo4j.Session, statement: Statement) -> None:
        """Raise `StoreConflict` when values block a constraint that the plan could not judge."""
        thing = recognise(statement.tokens)
        if isinstance(thing, SchemaObject) and (thing.name or thing.definition) in self.unforeseen:
            refuse_duplicates(partial(self._database.rows, session), [thing])

    def _long_build(self, session: neo4j.Session, statement: Statement) -> str:
        """The index that a constraint's statement builds for long. Empty for any other statement.

        Empty, too, when an index of that name is there: then it is not known whose it is.
        """
        thing = recognise(statement.tokens)
        if not isinstance(thing, SchemaObject) or not has_index(thing):
            return ""
        if not self.has_many_nodes(session):
            return ""
        return "" if thing.name in self._database.look(session).indexes else thing.name

    def has_many_nodes(self, session: neo4j.Session) -> bool:
        """Whether an index may take long to build.

        The server is asked once for files that follow each other and make no nodes.
        """
        if self._many_nodes is None:
            nodes = self._database.rows(session, neo4j_begun.NODES)[0]["nodes"]
            self._many_nodes = nodes >= neo4j_begun.MANY_NODES
        return self._many_nodes

    def drop_left_index(
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
            if found is not None and self._is_left_index_dropped(session, thing, found):
                self._database.rows(session, statement.text)
                return
            if found is not None:
                raise different(thing, found, file.name) from exc
        if code == neo4j_errors.BLOCKED and "Enterprise Edition" in str(exc):
            raise enterprise_only(thing, file.name) from exc
        if code == neo4j_errors.BLOCKED:
            groups = duplicates(lambda text: self._database.rows(session, text), thing)
            if groups:
                raise blocked(thing, groups) from exc
        raise exc

    def _is_left_index_dropped(
        self, session: neo4j.Session, thing: SchemaObject, found: SchemaObject
    ) -> bool:
        """Drop `found` if it is what a killed server has left of the constraint `thing`.

        Returns whether it was dropped. On a database of many nodes only a mark tells whose it is.
        """
        if not is_unfinished(thing, found) or self.has_many_nodes(session):
            return False
        run = partial(self._database.rows, session)
        return drop_left_index(run, found.name)


def _is_undone(statement: Statement, cause: BaseException | None) -> bool:
    """Whether the server's answer says that nothing of a statement is left.

    A schema statement is all or nothing. Of one that commits in batches that is known only before
    it began.
    """
    if statement.is_batched:
        return neo4j_errors.refused_unread(cause)
    return isinstance(cause, raised.Neo4jError)


def place_of(file: CypherFile, number: int, statement: Statement) -> str:
    """Where a message says that a statement stands."""
    return f"{file.name}, statement {number} (line {statement.line})"

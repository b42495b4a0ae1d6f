"""Neo4j for tests: one database, wiped after each test with its schema kept."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import neo4j
import neo4j.exceptions
import tenacity

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, LockTimeout
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j.connection import client_arguments
from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.stores.neo4j.schema_forecast import declared
from is_db_bootstrap.testing import neo4j_content
from is_db_bootstrap.testing.content import BUDGET, BUDGET_IN_A_TEST, Content, Seal, Thing
from is_db_bootstrap.testing.isolation import PATIENCE_S, Isolation, Pulse
from is_db_bootstrap.testing.neo4j_mark import DROP_BEACON, GUARD, LOCKING, MAKE_BEACON, Mark, State
from is_db_bootstrap.testing.neo4j_turn import (
    LEASE_S,
    MARK,
    RENEW_OWN_S,
    RENEW_S,
    Turn,
)

#: Labels of the migration history, of the lock of a run, and of what was converged together.
_OWN_LABELS = ("__Neo4jMigration", "__Neo4jMigrationsLock", "__IsDbBootstrapMemory")
#: Labels of nodes, and types of relationships, that a run writes.
_RUN_LABELS = frozenset({*_OWN_LABELS, "MIGRATED_TO", "REPEATED"})
_SCHEMA_KINDS = frozenset({"constraint", "index"})
#: A condition on nodes that a wipe leaves alone.
_OURS = " OR ".join(f"n:{label}" for label in (MARK, *_OWN_LABELS))
#: Nodes that one transaction deletes.
_BATCH = 10_000
#: Seconds that a process has the database for, at least, while others wait.
_SLICE_S = 0.5
#: Statements that a message gives to remove what was found.
_SHOWN = 5
#: How often a statement is sent that the server refuses for now, as it refuses a deadlock's victim.
_TRIES = 6
#: Seconds before the second try, at most. Each later pause may be twice as long.
_RETRY_S = 0.1
#: Seconds between two tries, at most.
_MOST_RETRY_S = 2.0

#: A constraint of earlier versions, which allowed one mark only.
_OLD_CONSTRAINT = f"{MARK}_unique"
_ANY_MARK = f"MATCH (m:{MARK}) RETURN count(m) AS marks"

#: One batch, in the transaction that compares the token.
_WIPE = f"""
CALL (s) {{
    MATCH (n) WHERE NOT ({_OURS}) WITH n LIMIT {_BATCH} DETACH DELETE n RETURN count(*) AS deleted
}}
RETURN deleted
"""
#: Removing a property takes a node's write lock, also when the node lacks the property.
_LOCK_THESE = f"""
MATCH (n) WHERE elementId(n) IN $ids REMOVE n.{LOCKING}
RETURN elementId(n) AS id, labels(n) AS labels, properties(n) AS properties
"""
_DELETE_THESE = "MATCH (n) WHERE elementId(n) IN $ids DETACH DELETE n"
_HISTORY_SIZE = f"MATCH (n:{_OWN_LABELS[0]}) RETURN count(n) AS nodes"
_INDEX_NAMES = "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN collect(name) AS names"


class Neo4jIsolation(Isolation):
    """The whole database for one process at a time. After each test its nodes are deleted.

    The database must be empty or bear the mark. Constraints and indexes stay. When a test has
    changed these or the migration history, the database is set up anew, which takes seconds.

    A given server may have several sessions, or workers of one session. These take turns (see
    `neo4j_turn.py`), each for a test when others wait. A session whose turn was lost, because its
    process was stopped, writes and deletes nothing any more (see `neo4j_mark.py`). What a dead
    process has left is removed when the process vouches for it. A process vouches for what it had
    made, and for what it saw at its last look, at most `RENEW_S` before its end. The last session
    removes schema, history and marks.
    """

    store = "neo4j"
    client_errors = (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError)

    def __init__(
        self,
        server: StoreUrl,
        blueprint: Blueprint,
        settings: Settings,
        *,
        patience_s: float = PATIENCE_S,
        **options: Any,
    ) -> None:
        super().__init__(server, blueprint, settings, **options)
        self._fingerprint = fingerprint(blueprint, settings)
        self._driver = driver(server)
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(neo4j.exceptions.TransientError),
            stop=tenacity.stop_after_attempt(_TRIES),
            wait=tenacity.wait_random_exponential(_RETRY_S, _MOST_RETRY_S),
            reraise=True,
        )
        #: Size of the history and names of the indexes, as they were made. None: to be made.
        self._made_schema: tuple[int, frozenset[str]] | None = None
        #: The text of a seal of all that was made.
        self._made = ""
        #: What the mark said when our turn began.
        self._found: State | None = None
        #: Whether a failed test's database is kept as it is.
        self._kept = False
        #: True from the beginning of `take` to the end of `give_back`, and from the beginning of
        #: `close`.
        self._using = False
        #: True between `take` and `give_back`.
        self._in_test = False
        #: Whether the user is known to be shown all nodes.
        self._sees_all = False
        #: Whether the database was refused, and is left as it was.
        self._refused = False
        self._closed = False
        #: The error that says that the turn was lost.
        self._lost: LockTimeout | None = None
        #: When our turn began, by the monotonic clock.
        self._entered = 0.0
        #: Held while the pulse looks at a running test.
        self._noting = threading.Lock()
        #: Held while a turn is begun or ended.
        self._turning = threading.Lock()
        self._token = secrets.token_hex(8)
        target = str(server)
        self._mark = Mark(self._send_statement, self._token, target=target, alone=not self.given)
        self._turn = Turn(
            self._send_statement, self._token, target=target, say=self.say, patience_s=patience_s
        )
        seconds = RENEW_S if self.given else RENEW_OWN_S
        self._pulse = Pulse(self._show_life, seconds, self.client_errors, name="isdb-neo4j-lease")

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """Whether the user lacks a privilege. Only Enterprise knows privileges."""
        return isinstance(exc, neo4j.exceptions.Forbidden)

    def take(self) -> StoreUrl:
        """The server's address, once it is our turn and the database is clean."""
        if self._kept:
            raise ConfigurationError(
                f"neo4j: {self.server} is kept as an earlier test left it, "
                "and has one database only.",
                hint="Leave out --keep-stores, or stop at the first failure (-x).",
            )
        if self._lost:
            raise self._lost
        with self._turning:
            self._using = True
        try:
            with self._remember_loss():
                self._prepare_database()
                if self.run:
                    self._mark.note_test(self.run)
        except BaseException:
            self._using = False
            raise
        self._in_test = True
        return self.server

    def _is_of_run(self, state: State) -> bool:
        """Whether a test of the same run had the database when its worker died."""
        return bool(self.run) and state.test_of == self.run

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:  # noqa: ARG002 - only one
        """Wipe the database.

        A process that waits for the database gets it, if we had it for `_SLICE_S`.
        """
        with self._noting:
            self._in_test = False
        self._kept = keep
        with self._remember_loss():
            if keep:
                self._mark.check()
                if self.given:
                    self._note_held(BUDGET)
                if self.run:
                    self._mark.note_test(None)
                return
            self._wipe_nodes()
            has_changed = self._made_schema is not None and self._read_schema() != self._made_schema
            if has_changed:
                self._forget_schema()
            if self.run:
                self._mark.note_test(None)
        with self._turning:
            self._using = False
            self._step_aside_for_others()

    @property
    def has_one_place(self) -> bool:
        """Neo4j Community has one database. A server of our own is this isolation's alone."""
        return self.given

    def make_way(self) -> None:
        """Step aside for another blueprint of this process, or for another process."""
        with self._turning:
            if self._turn.is_ours and not self._using:
                self._step_aside()

    def close(self) -> None:
        """Give the database up.

        The last session on a given server leaves the database as it was found.
        """
        if self._closed:
            return
        self._closed = True
        with self._turning:
            self._using = True  # from here on the pulse does not step aside
        try:
            if self.given and not self._kept:
                self._leave_as_found()
            elif self._turn.is_ours:
                self._give_up(keep_held=self.given)
        finally:
            self._pulse.close()
            self._driver.close()

    # --- taking turns

    def _prepare_database(self) -> None:
        """Have our turn, with the database as the blueprint says and nothing else in it."""
        if not self._turn.is_ours:
            self._enter_turn()
        elif self.given and self._made_schema:
            with self._leave_alone_on_error():
                self._mark.check()
                self._check_untouched()
        if self._made_schema is None:
            self._set_up()

    def _enter_turn(self) -> None:
        """Wait for our turn, and see what the database holds."""
        self._refuse_hidden()
        self._pulse.start()
        self._wait_for_turn()
        self._entered = time.monotonic()
        with self._leave_alone_on_error():
            if self._found is None:
                self._made_schema = None
                self._begin_on_empty()
            elif self._is_as_we_left_it(self._found):
                self._check_untouched()
            else:
                self._take_over(self._found)

    def _wait_for_turn(self) -> None:
        self._turn.enter(was_wiped=self._was_wiped, claim=self._claim_database)

    def _claim_database(self) -> bool:
        """Take the database, unless another process has it.

        A database without a mark is not taken yet, because its content must be looked at first.
        """
        state = self._mark.read()
        if state is None:
            self._found = None
            return True
        self._found = self._mark.claim(state)
        return self._found is not None

    def _begin_on_empty(self) -> None:
        """Mark a database that holds nothing."""
        self._refuse_used()
        if self._mark.claim(None, create=True) is None:
            raise self._mark.note_loss()

    def _is_as_we_left_it(self, state: State) -> bool:
        """Whether the database is as we had set it up, and the last process ended its turn."""
        if self._made_schema is None or state.owner is not None:
            return False
        return state.contract == self._fingerprint and state.made == self._made

    def _was_wiped(self) -> bool:
        """Whether test runs are here and no mark is: a test has just deleted all nodes."""
        if not self.given or not self._mark.has_beacon():
            return False
        return not self._send_statement(_ANY_MARK)[0]["marks"]

    @contextmanager
    def _leave_alone_on_error(self) -> Iterator[None]:
        """After an error in the block, leave the database as it is for the next process."""
        try:
            yield
        except (ConfigurationError, AccessDenied):
            self._refused = True
            self._give_up(keep_held=True)
            raise

    @contextmanager
    def _remember_loss(self) -> Iterator[None]:
        """Remember an error in the block that says that the turn was lost.

        After that, this session does nothing more with the database.
        """
        try:
            yield
        except LockTimeout as exc:
            if self._mark.is_lost:
                self._lost = exc
                with self._noting:
                    self._in_test = False
                    self._turn.leave()
            raise

    def _step_aside_for_others(self) -> None:
        """End the turn when another process waits for it.

        A change of turns costs as much as some tests, so each process has its turn for a while.
        """
        had_s = time.monotonic() - self._entered
        may_end = self.given and self._turn.is_ours and had_s > _SLICE_S
        if not may_end:
            return
        _, waiting = self._turn.others()
        if waiting:
            self._step_aside()

    def _step_aside(self) -> None:
        """Let others in.

        The mark loses its seal of what a test held, and the next process looks for itself.
        """
        with self._noting:
            if self._mark.is_ours:
                self._mark.renew()  # a test may have deleted the mark
            self._mark.release(keep_held=False)
            self._turn.step_aside()

    def _give_up(self, *, keep_held: bool) -> None:
        """Leave the turn. With `keep_held` the mark keeps the seal of what our last look found."""
        with self._noting:
            self._mark.release(keep_held=keep_held)
            self._turn.leave()

    def _show_life(self) -> None:
        """Show that this process lives, and note what a running test has written."""
        with self._noting:
            if self._mark.is_ours and not self._mark.renew():
                return  # the next guarded statement says that the turn was lost
            self._turn.renew()
            if self.given and self._in_test:
                with suppress(LockTimeout):
                    self._note_held(BUDGET_IN_A_TEST)
        with self._turning:
            if not self._using:
                self._step_aside_for_others()

    # --- what is there, and who vouches for it

    def _refuse_hidden(self) -> None:
        """Raise `AccessDenied` for a user who is not shown all nodes.

        Such a user cannot tell whether a database is empty.
        """
        if self._sees_all:
            return
        why = neo4j_content.why_hidden(self._send_statement)
        self._sees_all = not why
        if why:
            raise AccessDenied(
                "neo4j",
                f"{self.server} may hold nodes that are not shown: {why}.",
                hint="What cannot be seen is not taken for empty. "
                "Give a user who sees the whole database.",
            )

    def _refuse_used(self) -> None:
        """Raise `ConfigurationError` unless the database, which has no mark, is empty."""
        found = neo4j_content.everything(self._send_statement, BUDGET)
        if found:
            raise self.not_ours("the database", found)

    def _check_vouched(self, state: State, found: Content) -> None:
        """Raise `ConfigurationError` when the database holds what the mark does not vouch for."""
        foreign = found.besides(self._vouched_digests(state, found))
        if foreign:
            removal = _removal_statements(foreign)
            raise self.written_by_others(
                "the database",
                foreign,
                way_out=f"If it may go: {removal}. To keep it, delete only the marks: "
                f"MATCH (m:{MARK}) DETACH DELETE m; {DROP_BEACON}.",
            )

    def _vouched_digests(self, state: State, found: Content) -> frozenset[str]:
        """The digests of all that the mark vouches for.

        The mark vouches for what was made and what was held. For what was being made, the names in
        the mark decide. What a test of the same run has left is all vouched for.
        """
        if self._is_of_run(state):
            return frozenset(thing.digest for thing in found.things)
        made = Seal.read(state.made)
        held = Seal.read(state.held)
        digests: frozenset[str] = frozenset()
        if made:
            digests |= made.digests
        if held:
            digests |= held.digests
        if made is None:
            names = self._begun_names(state)
            digests |= {thing.digest for thing in found.things if _may_be_made(thing, names)}
        return digests

    def _begun_names(self, state: State) -> set[str]:
        """The names of what was being made or removed.

        The mark of an earlier version says no names. Then what our own blueprint declares is taken
        for the work of that version.
        """
        begun = json.loads(state.begun or "null")
        return self._declared_names() if begun is None else set(begun)

    def _check_untouched(self) -> None:
        """Raise `ConfigurationError` when there is more than what was made.

        Somebody else may have written nodes, schema or history since the last test. If somebody has
        removed a part of what was made, all is made anew.
        """
        found = neo4j_content.everything(self._send_statement, BUDGET)
        self._check_vouched(State(made=self._made), found)
        made = Seal.read(self._made)
        if made and not _is_complete(made, found):
            self._remove_vouched(found)

    def _note_held(self, limit: int) -> None:
        """Vouch for what is there now, unless it is too much to look at."""
        if neo4j_content.is_larger(self._send_statement, limit):
            return
        found = neo4j_content.everything(self._send_statement, limit)
        self._mark.hold(Seal.of(found).text())

    # --- making and removing

    def _take_over(self, state: State) -> None:
        """Use what an earlier session has left. Remove all when a part is missing."""
        if not self.given or self._is_of_run(state):
            self._wipe_nodes()
        found = neo4j_content.everything(self._send_statement, BUDGET)
        if self.given:
            self._check_vouched(state, found)
        made = Seal.read(state.made)
        self._change_schema(f"DROP CONSTRAINT {_OLD_CONSTRAINT} IF EXISTS")
        is_for_us = state.contract == self._fingerprint
        if not made or not is_for_us or not _is_complete(made, found):
            self._remove_vouched(found)
            return
        others = [thing for thing in found.things if thing.digest not in made.digests]
        self._remove_unchanged(Content(tuple(others)))
        if state.test_of:
            self._mark.note_test(None)
        self._made = state.made or ""
        self._made_schema = self._read_schema()

    def _set_up(self) -> None:
        """Bring the database to the blueprint from nothing, and note what was made."""
        self._mark.begin(self._declared_names())
        if self.given:
            self._change_schema(MAKE_BEACON)
        try:
            self.apply(self.server)
        finally:  # rows of the files that ran before one that failed are not left behind
            self._wipe_nodes()
        found = neo4j_content.everything(self._send_statement, BUDGET)
        made = Seal.of(found).text()
        self._mark.finish(self._fingerprint, made)
        self._made = made
        self._made_schema = self._read_schema()

    def _declared_names(self) -> set[str]:
        """The names of all that a run for our blueprint makes.

        A schema object without a name stands there with its definition.
        """
        folder = self.blueprint.cypher
        names = set(declared(cypher_file.load(folder))) if folder else set()
        return names | {*neo4j_history.SCHEMA, *neo4j_lock.SCHEMA}

    def _forget_schema(self) -> None:
        """Remove schema and history, which a test has changed. The next test makes both anew."""
        found = neo4j_content.everything(self._send_statement, BUDGET)
        self._remove_vouched(found)

    def _remove_vouched(self, found: Content) -> None:
        """Remove what was found and is vouched for. The names are noted in the mark before."""
        self._made_schema = None
        self._made = ""
        names = {thing.name for thing in found.things if thing.name}
        self._mark.begin(names | self._declared_names())
        self._remove_unchanged(found)

    def _remove_unchanged(self, found: Content) -> None:
        """Remove what was found, and nothing that has come or changed since."""
        nodes = {thing.handle: thing for thing in found.things if thing.kind == "node"}
        if nodes:
            self._remove_nodes(nodes)
        for thing in found.things:
            if thing.kind in _SCHEMA_KINDS:
                kind = thing.kind.upper()
                self._change_schema(f"DROP {kind} {quoted(thing.name)} IF EXISTS")

    def _remove_nodes(self, nodes: dict[str, Thing]) -> None:
        """Delete those of these nodes, by id, that still are as they were found."""

        def delete_unchanged(tx: neo4j.ManagedTransaction) -> bool:
            guard_rows = tx.run(GUARD + "RETURN s.name AS name", token=self._token).data()
            if not guard_rows:
                return False
            rows = tx.run(_LOCK_THESE, ids=list(nodes)).data()
            present = [neo4j_content.node(row) for row in rows]
            unchanged = [
                thing.handle for thing in present if thing.digest == nodes[thing.handle].digest
            ]
            tx.run(_DELETE_THESE, ids=unchanged).consume()
            return True

        self._mark.check()  # writes a mark again that a test has deleted
        # The server ends a transaction that a stopped process has left open.
        with_timeout = neo4j.unit_of_work(timeout=LEASE_S)(delete_unchanged)
        with self._open_session() as session:
            is_ours = session.execute_write(with_timeout)
        if not is_ours:
            raise self._mark.note_loss()

    def _change_schema(self, statement: str) -> None:
        """Send a schema statement, which cannot share a transaction with the look at the token."""
        self._mark.check()
        self._send_statement(statement)

    def _leave_as_found(self) -> None:
        """Remove what was made, if this is the last session on a given server.

        A session that leaves first gives its ticket back, and then looks for others. Of several
        sessions that leave at once, the last to give its ticket back sees no other, and cleans.
        """
        if self._refused or self._lost or not self._pulse.has_begun:
            self._turn.leave()
            return
        with self._remember_loss():
            while True:
                if self._turn.is_ours and not self._has_others():
                    self._remove_own()
                    return
                if self._is_left_to_others():
                    return
                self._wait_for_turn()

    def _is_left_to_others(self) -> bool:
        """Leave. True when another session is there to clean, or nothing is left to clean."""
        if self._turn.is_ours:
            self._step_aside()
        self._turn.leave()
        if self._has_others():
            return True
        return self._mark.read() is None and not self._mark.has_beacon()

    def _has_others(self) -> bool:
        """Whether another session lives."""
        living, _ = self._turn.others()
        return living > 0

    def _remove_own(self) -> None:
        """Remove what the mark vouches for, then the mark. What others have written stays."""
        state = self._mark.read()
        if not self._mark.is_ours and self._mark.claim(state, create=True) is None:
            raise self._mark.note_loss()
        state = state or State(made=self._made, begun="[]")
        found = neo4j_content.everything(self._send_statement, BUDGET)
        digests = self._vouched_digests(state, found)
        vouched = [thing for thing in found.things if thing.digest in digests]
        self._remove_unchanged(Content(tuple(vouched)))
        self._change_schema(f"DROP CONSTRAINT {_OLD_CONSTRAINT} IF EXISTS")
        self._change_schema(DROP_BEACON)
        with self._noting:
            self._mark.remove()
            self._turn.leave()

    def _read_schema(self) -> tuple[int, frozenset[str]]:
        """The number of the history's nodes, and the names of all indexes."""
        [history] = self._send_statement(_HISTORY_SIZE)
        [indexes] = self._send_statement(_INDEX_NAMES)
        return history["nodes"], frozenset(indexes["names"])

    def _wipe_nodes(self) -> None:
        """Delete all nodes but marks and history, with a transaction for each batch."""
        deleted = _BATCH
        while deleted == _BATCH:
            deleted = self._mark.run_guarded(_WIPE)[0]["deleted"]

    def _open_session(self) -> neo4j.Session:
        return self._driver.session(database=self.server.database or None)

    def _send_statement(self, text: str, **values: Any) -> list[dict[str, Any]]:
        """Send one statement in a transaction of its own.

        The statement is sent again while the server says that it rolled the transaction back, as
        for a deadlock.
        """
        answer: list[dict[str, Any]] = self._retrying(self._send_once, text, values)
        return answer

    def _send_once(self, text: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        with self._open_session() as session:
            return session.run(text, values).data()


def _is_complete(made: Seal, found: Content) -> bool:
    """Whether all that was made is among what was found."""
    digests = {thing.digest for thing in found.things}
    return made.digests <= digests


def _may_be_made(thing: Thing, names: set[str]) -> bool:
    """Whether a run may have made the thing.

    A run makes schema objects of these names or definitions, and nodes and relationships of its
    own.
    """
    if thing.kind not in _SCHEMA_KINDS:
        return thing.label.removeprefix(":") in _RUN_LABELS
    is_declared = thing.name in names or thing.handle.definition in names
    return is_declared or thing.name == _OLD_CONSTRAINT


def _removal_statements(found: Content) -> str:
    """Statements that remove what was found, for a message."""
    labels = sorted({thing.label for thing in found.things if thing.kind == "node"})
    # The label of a node without labels says so in words, and is no pattern.
    patterns = [label if label.startswith(":") else "" for label in labels]
    statements = [f"MATCH (n{pattern}) DETACH DELETE n" for pattern in patterns]
    objects = [
        (thing.kind.upper(), thing.name) for thing in found.things if thing.kind in _SCHEMA_KINDS
    ]
    statements += [f"DROP {kind} {quoted(name)}" for kind, name in sorted(objects)]
    return "; ".join(statements[:_SHOWN]) or "remove it"


def driver(url: StoreUrl) -> neo4j.Driver:
    """A driver, opened as applications open one. Notifications are off."""
    return neo4j.GraphDatabase.driver(**client_arguments(url))


def async_driver(url: StoreUrl) -> neo4j.AsyncDriver:
    """A driver for asyncio, with the same arguments."""
    return neo4j.AsyncGraphDatabase.driver(**client_arguments(url))

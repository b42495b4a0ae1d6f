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
from is_db_bootstrap.stores.neo4j import lease as neo4j_lease
from is_db_bootstrap.stores.neo4j.connection import client_arguments
from is_db_bootstrap.stores.neo4j.schema_forecast import declared
from is_db_bootstrap.testing import neo4j_content
from is_db_bootstrap.testing.content import BUDGET, BUDGET_IN_A_TEST, Content, Seal, Thing
from is_db_bootstrap.testing.isolation import Isolation, Pulse
from is_db_bootstrap.testing.neo4j_mark import DROP_BEACON, GUARD, LOCKING, MAKE_BEACON, Mark, State
from is_db_bootstrap.testing.neo4j_turn import (
    LEASE_S,
    MARK,
    PATIENCE_S,
    RENEW_OWN_S,
    RENEW_S,
    Turn,
)

_OWN_LABELS = ("__Neo4jMigration", "__Neo4jMigrationsLock")
_OURS = " OR ".join(f"n:{label}" for label in (MARK, *_OWN_LABELS))
_BATCH = 10_000
#: Seconds that a process has the database for, at least, while others wait.
_SLICE_S = 0.5
#: Statements that a message gives to remove what was found.
_SHOWN = 5
#: How often a statement is sent that the server refuses for now, as the victim of a deadlock is.
_TRIES = 6
#: Seconds before the second try, at most; each later pause may be twice as long, up to the second.
_RETRY_S, _MOST_RETRY_S = 0.1, 2.0

#: What earlier versions made, to have one mark only.
_OLD_CONSTRAINT = f"{MARK}_unique"
_ANY_MARK = f"MATCH (m:{MARK}) RETURN count(m) AS marks"

#: One batch, in the transaction that compares the token.
_WIPE = f"""
CALL (s) {{
    MATCH (n) WHERE NOT ({_OURS}) WITH n LIMIT {_BATCH} DETACH DELETE n RETURN count(*) AS deleted
}}
RETURN deleted
"""
#: Removing a property takes a node's write lock, also where the node does not have it.
_LOCK_THESE = f"""
MATCH (n) WHERE elementId(n) IN $ids REMOVE n.{LOCKING}
RETURN elementId(n) AS id, labels(n) AS labels, properties(n) AS properties
"""
_DELETE_THESE = "MATCH (n) WHERE elementId(n) IN $ids DETACH DELETE n"
_HISTORY = f"MATCH (n:{_OWN_LABELS[0]}) RETURN count(n) AS nodes"
_INDEXES = "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN collect(name) AS names"


class Neo4jIsolation(Isolation):
    """The whole database for one process at a time; after each test its nodes are deleted.

    The database must be empty or bear the mark. Constraints and indexes stay; when a test has
    changed them or the migration history, the database is set up anew, which takes seconds.

    A given server may have several sessions, or workers of one: they take turns (see
    `neo4j_turn.py`), each for a test when others wait. A session whose turn was lost, because its
    process was stopped, writes and deletes nothing any more (see `neo4j_mark.py`). What a process
    that died has left is removed when that process vouches for it: what it had made, and what it
    saw at its last look, at most `RENEW_S` before its end. The last session removes schema, history
    and marks.
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
        token = secrets.token_hex(8)
        self._contract = fingerprint(blueprint, settings)
        self._driver = driver(server)
        self._patient = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(neo4j.exceptions.TransientError),
            stop=tenacity.stop_after_attempt(_TRIES),
            wait=tenacity.wait_random_exponential(_RETRY_S, _MOST_RETRY_S),
            reraise=True,
        )
        self._as_made: tuple[int, frozenset[str]] | None = None
        self._made = ""
        #: What the mark said when our turn began.
        self._found: State | None = None
        #: `_using` is from the beginning of `take` to the end of `give_back`, and from the
        #: beginning of `close`. `_in_test` is between `take` and `give_back`.
        self._kept = self._using = self._in_test = False
        self._sees_all = self._refused = self._closed = False
        self._lost: LockTimeout | None = None
        self._entered = 0.0
        #: Held while the pulse looks at a running test, and while a turn is begun or ended.
        self._noting, self._turning = threading.Lock(), threading.Lock()
        self._mark = Mark(self._ask, token, target=str(server), alone=not self.given)
        self._token = token
        self._turn = Turn(self._ask, token, target=str(server), say=self.say, patience_s=patience_s)
        seconds = RENEW_S if self.given else RENEW_OWN_S
        self._pulse = Pulse(self._beat, seconds, self.client_errors, name="isdb-neo4j-lease")

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """A user without a privilege, which only Enterprise knows."""
        return isinstance(exc, neo4j.exceptions.Forbidden)

    def take(self) -> StoreUrl:
        """The server, after whoever else uses it."""
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
            with self._noticing_loss():
                self._prepare()
        except BaseException:
            self._using = False
            raise
        self._in_test = True
        return self.server

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:  # noqa: ARG002 - only one
        """Wiped; and given to the next process that waits for it, when we had it for `_SLICE_S`."""
        with self._noting:
            self._in_test = False
        self._kept = keep
        with self._noticing_loss():
            if keep:
                self._mark.check()
                if self.given:
                    self._note_held(BUDGET)
                return
            self._wipe()
            if self._as_made is not None and self._seen() != self._as_made:
                self._forget_schema()
        with self._turning:
            self._using = False
            self._step_aside_for_others()

    def make_way(self) -> None:
        """Step aside: another blueprint of this process, or another process, has its turn."""
        with self._turning:
            if self._turn.is_ours and not self._using:
                self._step_aside()

    def close(self) -> None:
        """Give it up; on a given server the last one to do so leaves it as it was found."""
        if self._closed:
            return
        self._closed = True
        with self._turning:
            self._using = True  # from here on the pulse steps aside for nobody
        try:
            if self.given and not self._kept:
                self._leave_as_found()
            elif self._turn.is_ours:
                self._give_up(keep_held=self.given)
        finally:
            self._pulse.close()
            self._driver.close()

    # --- taking turns

    def _prepare(self) -> None:
        """Have our turn, with the database as the blueprint says and nothing else in it."""
        if not self._turn.is_ours:
            self._enter()
        elif self.given and self._as_made:
            with self._left_alone():
                self._mark.check()
                self._check_untouched()
        if self._as_made is None:
            self._set_up()

    def _enter(self) -> None:
        """Wait for our turn, and see what the database holds."""
        self._refuse_hidden()
        self._pulse.start()
        self._have_turn()
        self._entered = time.monotonic()
        with self._left_alone():
            if self._found is None:
                self._as_made = None
                self._begin_on_empty()
            elif self._is_as_we_left_it(self._found):
                self._check_untouched()
            else:
                self._take_over(self._found)

    def _have_turn(self) -> None:
        self._turn.enter(was_wiped=self._was_wiped, claim=self._claim)

    def _claim(self) -> bool:
        """Take the database, unless another process has it.

        One without a mark is looked at first.
        """
        state = self._mark.read()
        self._found = self._mark.claim(state) if state else None
        return state is None or self._found is not None

    def _begin_on_empty(self) -> None:
        """Mark a database that holds nothing."""
        self._refuse_used()
        if self._mark.claim(None, create=True) is None:
            raise self._mark.lost()

    def _is_as_we_left_it(self, state: State) -> bool:
        """Whether others gave back what we had set up, as processes do that end their turn."""
        known = self._as_made is not None and state.owner is None
        return known and state.contract == self._contract and state.made == self._made

    def _was_wiped(self) -> bool:
        """Whether test runs are here and no mark is: a test has just deleted all nodes."""
        if not self.given or not self._mark.has_beacon():
            return False
        return not self._ask(_ANY_MARK)[0]["marks"]

    @contextmanager
    def _left_alone(self) -> Iterator[None]:
        """An error in the block leaves the database as it is, for the next one to look at."""
        try:
            yield
        except (ConfigurationError, AccessDenied):
            self._refused = True
            self._give_up(keep_held=True)
            raise

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """An error in the block that says that the turn was lost ends all that this session does."""
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
        """End the turn when somebody waits for it.

        A change of turns costs as much as some tests, so each process has a while.
        """
        had = time.monotonic() - self._entered
        if self.given and self._turn.is_ours and had > _SLICE_S and self._turn.others()[1]:
            self._step_aside()

    def _step_aside(self) -> None:
        """Let others in.

        Whoever finds the mark of a process that stepped aside looks for itself.
        """
        with self._noting:
            if self._mark.is_ours:
                self._mark.renew()  # a test may have deleted the mark
            self._mark.release(keep_held=False)
            self._turn.step_aside()

    def _give_up(self, *, keep_held: bool) -> None:
        """Leave the turn; with `keep_held` the next process judges what our last look found."""
        with self._noting:
            self._mark.release(keep_held=keep_held)
            self._turn.leave()

    def _beat(self) -> None:
        """Show that we live, and note what a running test has written."""
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
        """A user who is not shown all nodes cannot tell an empty database."""
        why = "" if self._sees_all else neo4j_content.hidden(self._ask)
        self._sees_all = not why
        if why:
            raise AccessDenied(
                "neo4j",
                f"{self.server} may hold nodes that are not shown: {why}.",
                hint="What cannot be seen is not taken for empty. "
                "Give a user who sees the whole database.",
            )

    def _refuse_used(self) -> None:
        """Without a mark, the database must be empty."""
        found = neo4j_content.everything(self._ask, BUDGET)
        if found:
            raise self.not_ours("the database", found)

    def _check_vouched(self, state: State, found: Content) -> None:
        """With a mark, it must hold what the mark vouches for and nothing else."""
        foreign = found.besides(self._vouched(state, found))
        if foreign:
            raise self.written_by_others(
                "the database",
                foreign,
                way_out=f"If it may go: {_removal(foreign)}. To keep it, delete only the marks: "
                f"MATCH (m:{MARK}) DETACH DELETE m; {DROP_BEACON}.",
            )

    def _vouched(self, state: State, found: Content) -> frozenset[str]:
        """The digests of what was made and was held; of what was being made, its names decide."""
        made, held = Seal.read(state.made), Seal.read(state.held)
        digests = (made.digests if made else frozenset()) | (held.digests if held else frozenset())
        if made is None:
            # The mark of an earlier version says no names. What our own blueprint declares is then
            # taken for its work.
            begun = json.loads(state.begun or "null")
            names = self._declared() if begun is None else set(begun)
            digests |= {thing.digest for thing in found.things if _is_made(thing, names)}
        return digests

    def _check_untouched(self) -> None:
        """Between two tests nothing is there but what was made.

        Somebody else may have written nodes, schema or history since the last test; that is named.
        What somebody has removed is made anew.
        """
        found = neo4j_content.everything(self._ask, BUDGET)
        self._check_vouched(State(made=self._made), found)
        made = Seal.read(self._made)
        if made and not made.digests <= {thing.digest for thing in found.things}:
            self._clear(found)

    def _note_held(self, limit: int) -> None:
        """Vouch for what is there now, unless it is too much to look at."""
        if not neo4j_content.is_larger(self._ask, limit):
            self._mark.hold(Seal.of(neo4j_content.everything(self._ask, limit)).text())

    # --- making and removing

    def _take_over(self, state: State) -> None:
        """Use what an earlier session has left when it is complete, else remove it."""
        if not self.given:
            self._wipe()
        found = neo4j_content.everything(self._ask, BUDGET)
        if self.given:
            self._check_vouched(state, found)
        made = Seal.read(state.made)
        self._change_schema(f"DROP CONSTRAINT {_OLD_CONSTRAINT} IF EXISTS")
        is_complete = made and made.digests <= {thing.digest for thing in found.things}
        if made and is_complete and state.contract == self._contract:
            others = (thing for thing in found.things if thing.digest not in made.digests)
            self._remove(Content(tuple(others)))
            self._made = state.made or ""
            self._as_made = self._seen()
        else:
            self._clear(found)

    def _set_up(self) -> None:
        """Bring the database to the blueprint from nothing, and note what was made."""
        self._mark.begin(self._declared())
        if self.given:
            self._change_schema(MAKE_BEACON)
        self.apply(self.server)
        self._wipe()
        made = Seal.of(neo4j_content.everything(self._ask, BUDGET)).text()
        self._mark.finish(self._contract, made)
        self._made = made
        self._as_made = self._seen()

    def _declared(self) -> set[str]:
        """Names, or definitions of what has none, of all that a run for our blueprint makes."""
        folder = self.blueprint.cypher
        names = set(declared(cypher_file.load(folder))) if folder else set()
        return names | {*neo4j_history.SCHEMA, *neo4j_lease.SCHEMA}

    def _forget_schema(self) -> None:
        """A test has changed schema or history: remove both, and the next test makes them anew."""
        self._clear(neo4j_content.everything(self._ask, BUDGET))

    def _clear(self, found: Content) -> None:
        """Remove what was found, which is vouched for. Its names are noted before."""
        self._as_made, self._made = None, ""
        names = {thing.name for thing in found.things if thing.name}
        self._mark.begin(names | self._declared())
        self._remove(found)

    def _remove(self, found: Content) -> None:
        """Remove what was found, and nothing that has come or changed since."""
        nodes = {thing.handle: thing for thing in found.things if thing.kind == "node"}
        if nodes:
            self._remove_nodes(nodes)
        for thing in found.things:
            if thing.kind in {"constraint", "index"}:
                self._change_schema(f"DROP {thing.kind.upper()} {_quoted(thing.name)} IF EXISTS")

    def _remove_nodes(self, nodes: dict[str, Thing]) -> None:
        """Delete these nodes, by id, where they still are as they were found."""

        def delete(tx: neo4j.ManagedTransaction) -> bool:
            if not tx.run(GUARD + "RETURN s.name AS name", token=self._token).data():
                return False
            rows = tx.run(_LOCK_THESE, ids=list(nodes)).data()
            still = [
                row["id"]
                for row in rows
                if neo4j_content.node(row).digest == nodes[row["id"]].digest
            ]
            tx.run(_DELETE_THESE, ids=still).consume()
            return True

        self._mark.check()  # writes the mark again when a test has deleted it
        # The server ends a transaction that a stopped process has left open.
        timed = neo4j.unit_of_work(timeout=LEASE_S)(delete)
        with self._session() as session:
            is_ours = session.execute_write(timed)
        if not is_ours:
            raise self._mark.lost()

    def _change_schema(self, statement: str) -> None:
        """Send a schema statement, which cannot share a transaction with the look at the token."""
        self._mark.check()
        self._ask(statement)

    def _leave_as_found(self) -> None:
        """The last session on a given server removes what was made.

        Whoever leaves gives its ticket back first and looks for others then. Of several that leave
        at once, the one that gave its ticket back last sees nobody, whatever the order, and cleans.
        """
        if self._refused or self._lost or not self._pulse.has_begun:
            self._turn.leave()
            return
        with self._noticing_loss():
            while True:
                if self._turn.is_ours and not self._turn.others()[0]:
                    self._clean()
                    return
                if self._is_left_to_others():
                    return
                self._have_turn()

    def _is_left_to_others(self) -> bool:
        """Leave, and say whether anybody else is there to clean, or nothing is left to clean."""
        if self._turn.is_ours:
            self._step_aside()
        self._turn.leave()
        if self._turn.others()[0]:
            return True
        return self._mark.read() is None and not self._mark.has_beacon()

    def _clean(self) -> None:
        """Remove what the mark vouches for, then the mark; what somebody has written stays."""
        state = self._mark.read()
        if not self._mark.is_ours and self._mark.claim(state, create=True) is None:
            raise self._mark.lost()
        state = state or State(made=self._made, begun="[]")
        found = neo4j_content.everything(self._ask, BUDGET)
        vouched = self._vouched(state, found)
        self._remove(Content(tuple(thing for thing in found.things if thing.digest in vouched)))
        self._change_schema(f"DROP CONSTRAINT {_OLD_CONSTRAINT} IF EXISTS")
        self._change_schema(DROP_BEACON)
        with self._noting:
            self._mark.remove()
            self._turn.leave()

    def _seen(self) -> tuple[int, frozenset[str]]:
        return self._ask(_HISTORY)[0]["nodes"], frozenset(self._ask(_INDEXES)[0]["names"])

    def _wipe(self) -> None:
        """Delete all nodes but marks and history, a batch in a transaction."""
        while self._mark.guarded(_WIPE)[0]["deleted"] == _BATCH:
            pass

    def _session(self) -> neo4j.Session:
        return self._driver.session(database=self.server.database or None)

    def _ask(self, text: str, **values: Any) -> list[dict[str, Any]]:
        """Send one statement in a transaction of its own.

        Sent again while the server says that it rolled the transaction back, as for a deadlock.
        """
        answer: list[dict[str, Any]] = self._patient(self._run, text, values)
        return answer

    def _run(self, text: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        with self._session() as session:
            return session.run(text, values).data()


def _is_made(thing: Thing, names: set[str]) -> bool:
    """Whether a run may have made it: an object of one of these names or definitions, or a node of a run's own."""
    if thing.kind in {"constraint", "index"}:
        return (
            thing.name in names or thing.handle.definition in names or thing.name == _OLD_CONSTRAINT
        )
    return thing.label.removeprefix(":") in {*_OWN_LABELS, "MIGRATED_TO", "REPEATED"}


def _removal(found: Content) -> str:
    """Statements that remove what was found."""
    labels = sorted({thing.label for thing in found.things if thing.kind == "node"})
    statements = [
        f"MATCH (n{label if label.startswith(':') else ''}) DETACH DELETE n" for label in labels
    ]
    named = sorted(
        (thing.kind.upper(), thing.name)
        for thing in found.things
        if thing.kind in {"constraint", "index"}
    )
    statements += [f"DROP {kind} {_quoted(name)}" for kind, name in named]
    return "; ".join(statements[:_SHOWN]) or "remove it"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def driver(url: StoreUrl) -> neo4j.Driver:
    """A driver as applications open one; its notifications are off."""
    return neo4j.GraphDatabase.driver(**client_arguments(url))


def async_driver(url: StoreUrl) -> neo4j.AsyncDriver:
    """The same for asyncio."""
    return neo4j.AsyncGraphDatabase.driver(**client_arguments(url))

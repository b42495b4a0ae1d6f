"""Neo4j for tests: one database, wiped after each test with its schema kept."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import neo4j
import neo4j.exceptions

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
from is_db_bootstrap.testing.neo4j_turn import (
    LEASE_S,
    MARK,
    PATIENCE_S,
    RENEW_OWN_S,
    RENEW_S,
    STATE,
    Turn,
)

_OWN_LABELS = ("__Neo4jMigration", "__Neo4jMigrationsLock")
_OURS = " OR ".join(f"n:{label}" for label in (MARK, *_OWN_LABELS))
_BATCH = 10_000
#: Seconds that a process has the database for, at least, while others wait.
_SLICE_S = 0.5
#: Statements that a message gives to remove what was found.
_SHOWN = 5

#: An index that holds nothing. It says that test runs are here also while a test has deleted all nodes, tickets included.
_BEACON = f"{MARK}_beacon"
_MAKE_BEACON = f"CREATE INDEX {_BEACON} IF NOT EXISTS FOR (n:{MARK}Beacon) ON (n.nothing)"
_HAS_BEACON = f"SHOW INDEXES YIELD name WHERE name = '{_BEACON}' RETURN count(*) AS there"
#: What earlier versions made, to have one mark only.
_OLD_CONSTRAINT = f"{MARK}_unique"
_ANY_MARK = f"MATCH (m:{MARK}) RETURN count(m) AS marks"

#: The node that says what a test run has made: the contract that its schema is at, a seal of all that was made for it, and
#: a seal of what the last look at a running test found. `begun` names what is being made. `owner` is who is in; earlier
#: versions set it too, and leave `writer` alone.
_READ = f"""
MATCH (s:{MARK} {{name: '{STATE}'}})
RETURN s.contract AS contract, s.made AS made, s.held AS held, s.begun AS begun, s.owner AS owner
"""
_OWN = f"""
MERGE (s:{MARK} {{name: '{STATE}'}})
SET s.owner = $token, s.writer = $token, s.until = datetime.realtime() + duration({{seconds: $seconds}})
"""
#: A test may have deleted everything. Nothing is written when another process is in.
_OWN_AGAIN = f"""
MERGE (s:{MARK} {{name: '{STATE}'}}) ON CREATE SET s.owner = $token, s.writer = $token, s.contract = $contract, s.made = $made
WITH s WHERE s.owner = $token
SET s.until = datetime.realtime() + duration({{seconds: $seconds}})
"""
_RELEASE = (
    f"MATCH (s:{MARK} {{name: '{STATE}'}}) WHERE s.owner = $token REMOVE s.owner, s.until, s.held"
)
_OWNER = f"MATCH (s:{MARK} {{name: '{STATE}'}}) RETURN s.owner AS owner"
_BEGIN = (
    f"MATCH (s:{MARK} {{name: '{STATE}'}}) REMOVE s.contract, s.made, s.held SET s.begun = $begun"
)
_MADE = f"MATCH (s:{MARK} {{name: '{STATE}'}}) REMOVE s.begun SET s.contract = $contract, s.made = $made"
_HELD = f"MATCH (s:{MARK} {{name: '{STATE}'}}) WHERE s.owner = $token SET s.held = $held"
_FORGET = f"MATCH (m:{MARK}) WHERE m.name IN $names DETACH DELETE m"

#: A first batch; most tests write less, and one transaction is quicker than several.
_WIPE = f"MATCH (n) WHERE NOT ({_OURS}) WITH n LIMIT {_BATCH} DETACH DELETE n RETURN count(*) AS deleted"
_WIPE_REST = (
    f"MATCH (n) WHERE NOT ({_OURS}) CALL (n) {{ DETACH DELETE n }} IN TRANSACTIONS OF {_BATCH} ROWS"
)
_WIPE_THESE = "MATCH (n) WHERE elementId(n) IN $ids DETACH DELETE n"
#: From the server's own counts: whether anything is there but what we made.
_OTHERS = f"""
MATCH (n) WITH count(n) AS nodes MATCH (n:{MARK}) WITH nodes, count(n) AS marks
MATCH (n:{_OWN_LABELS[0]}) WITH nodes, marks, count(n) AS history RETURN nodes - marks - history AS others
"""
_HISTORY = f"MATCH (n:{_OWN_LABELS[0]}) RETURN count(n) AS nodes"
_INDEXES = "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN collect(name) AS names"


class Neo4jIsolation(Isolation):
    """The whole database for one process at a time; after each test its nodes are deleted, in transactions of 10,000.

    It must be empty or bear the mark. Constraints and indexes stay; when a test has changed them or the migration history, the
    database is set up anew, which takes seconds.

    A given server may have several sessions, or workers of one: they take turns (see `neo4j_turn.py`), each for a test when
    others wait. What a process that died has left is removed when that process vouches for it: what it had made, and what
    it saw at its last look, at most `RENEW_S` before its end. The last session removes schema, history and marks.
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
        self._token = secrets.token_hex(8)
        self._contract = fingerprint(blueprint, settings)
        self._driver = driver(server)
        self._as_made: tuple[int, frozenset[str]] | None = None
        self._made = ""
        #: `_using` is from the beginning of `take` to the end of `give_back`, `_in_test` between the two.
        self._kept = self._using = self._in_test = self._marked = self._sees_all = False
        self._entered = 0.0
        #: Held while the marks are written, and while a turn is begun or ended; the pulse does both beside the tests.
        self._noting, self._turning = threading.Lock(), threading.Lock()
        self._turn = Turn(
            self._ask, self._token, target=str(server), say=self.say, patience_s=patience_s
        )
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
                f"neo4j: {self.server} is kept as an earlier test left it, and has one database only.",
                hint="Leave out --keep-stores, or stop at the first failure (-x).",
            )
        with self._turning:
            self._using = True
        try:
            if not self._turn.is_ours:
                self._enter()
            elif self.given and self._as_made:
                with self._left_alone():
                    self._check_untouched()
            if self._as_made is None:
                self._set_up()
        except BaseException:
            self._using = False
            raise
        self._in_test = True
        return self.server

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:  # noqa: ARG002 - there is only one
        """Wiped; and given to the next process that waits for it, when we had it for `_SLICE_S`."""
        with self._noting:
            self._in_test = False
        self._kept = keep
        if self.given:
            self._check_ours()
        if keep:
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
        try:
            if self.given and not self._kept:
                self._leave_as_found()
            elif self._turn.is_ours:
                self._give_up(release=not self.given)
        finally:
            self._pulse.close()
            self._driver.close()

    # --- taking turns

    def _enter(self) -> None:
        """Wait for our turn, and see what the database holds."""
        self._refuse_hidden()
        self._pulse.start()
        self._turn.enter(was_wiped=self._was_wiped)
        self._entered = time.monotonic()
        with self._left_alone():
            states = self._ask(_READ)
            if not states:
                self._refuse_used()
                self._as_made = None
                self._own()
                return
            self._own()
            if self._is_as_we_left_it(states[0]):
                self._check_untouched()
            else:
                self._take_over(states[0])

    def _own(self) -> None:
        """Mark the database as ours for this turn."""
        with self._noting:
            self._ask(_OWN, token=self._token, seconds=LEASE_S)
            self._marked = True

    def _is_as_we_left_it(self, state: dict[str, Any]) -> bool:
        """Whether others have given back what we had set up, as processes do that end their turn in order."""
        known = self._as_made is not None and state["owner"] is None
        return known and state["contract"] == self._contract and state["made"] == self._made

    def _was_wiped(self) -> bool:
        """Whether test runs are here and no mark is: a test has just deleted all nodes."""
        return (
            self.given
            and bool(self._ask(_HAS_BEACON)[0]["there"])
            and not self._ask(_ANY_MARK)[0]["marks"]
        )

    @contextmanager
    def _left_alone(self) -> Iterator[None]:
        """An error in the block leaves the database as it is, for the next one to look at."""
        try:
            yield
        except (ConfigurationError, AccessDenied):
            self._give_up()
            raise

    def _step_aside_for_others(self) -> None:
        """End the turn when somebody waits for it; a change of turns costs as much as some tests, so each has a while."""
        had = time.monotonic() - self._entered
        if self.given and self._turn.is_ours and had > _SLICE_S and self._turn.others()[1]:
            self._step_aside()

    def _step_aside(self) -> None:
        with self._noting:
            self._marked = False
            self._remark()  # a test may have deleted the marks
            self._ask(_RELEASE, token=self._token)
            self._turn.step_aside()

    def _give_up(self, *, release: bool = False) -> None:
        """Leave the turn. Without `release`, what the marks say of the content stays for the next process to judge."""
        with self._noting:
            self._marked = False
            if release:
                self._ask(_RELEASE, token=self._token)
            self._turn.leave()

    def _remark(self) -> None:
        contract_made = self._contract if self._as_made else None
        self._ask(
            _OWN_AGAIN,
            token=self._token,
            contract=contract_made,
            made=self._made or None,
            seconds=LEASE_S,
        )

    def _check_ours(self) -> None:
        """Whether the database was taken by somebody else meanwhile, because our lease had lapsed."""
        rows = self._ask(_OWNER)
        if rows and rows[0]["owner"] not in {None, self._token}:
            self._give_up()
            raise LockTimeout(
                "neo4j",
                f"another test session took {self.server}, because this one had said nothing for {LEASE_S} s.",
                hint="Was the process stopped? What that session has there was not touched.",
            )

    def _beat(self) -> None:
        """Show that we live, and note what a running test has written."""
        self._turn.renew()
        with self._noting:
            if not self._marked:
                return
            self._remark()
            if self.given and self._in_test:
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
                hint="What cannot be seen is not taken for empty. Give a user who sees the whole database.",
            )

    def _refuse_used(self) -> None:
        """Without a mark, the database must be empty."""
        found = neo4j_content.everything(self._ask, BUDGET)
        if found:
            raise self.not_ours("the database", found)

    def _check_vouched(self, state: dict[str, Any], found: Content) -> None:
        """With a mark, it must hold what the mark vouches for and nothing else."""
        foreign = found.besides(self._vouched(state, found))
        if foreign:
            raise self.written_by_others(
                "the database",
                foreign,
                way_out=f"If it may go: {_removal(foreign)}. "
                f"To keep it, delete only the marks: MATCH (m:{MARK}) DETACH DELETE m; DROP INDEX {_BEACON} IF EXISTS.",
            )

    def _vouched(self, state: dict[str, Any], found: Content) -> frozenset[str]:
        """The digests of what was made and was held; while something was being made, its names decide."""
        made, held = Seal.read(state["made"]), Seal.read(state["held"])
        digests = (made.digests if made else frozenset()) | (held.digests if held else frozenset())
        if made is None:
            # The mark of an earlier version says no names; what our own blueprint declares is then taken for its work.
            names = set(json.loads(state["begun"] or "null") or self._declared())
            digests |= {thing.digest for thing in found.things if _is_made(thing, names)}
        return digests

    def _check_untouched(self) -> None:
        """Between two tests nothing is there but what was made: somebody else may have written since the last one."""
        if self._ask(_OTHERS)[0]["others"] <= 0:
            return
        found = neo4j_content.everything(self._ask, BUDGET)
        self._check_vouched({"made": self._made, "held": None, "begun": None}, found)

    def _note_held(self, limit: int) -> None:
        """Vouch for what is there now, unless it is too much to look at."""
        if neo4j_content.is_larger(self._ask, limit):
            return
        held = Seal.of(neo4j_content.everything(self._ask, limit)).text()
        self._ask(_HELD, token=self._token, held=held)

    # --- making and removing

    def _take_over(self, state: dict[str, Any]) -> None:
        """Use what an earlier session has left when it is complete, else remove it."""
        if not self.given:
            self._wipe()
        found = neo4j_content.everything(self._ask, BUDGET)
        if self.given:
            self._check_vouched(state, found)
        made = Seal.read(state["made"])
        self._ask(f"DROP CONSTRAINT {_OLD_CONSTRAINT} IF EXISTS")
        if (
            made
            and state["contract"] == self._contract
            and made.digests <= {thing.digest for thing in found.things}
        ):
            self._remove(
                Content(tuple(thing for thing in found.things if thing.digest not in made.digests))
            )
            self._made = state["made"]
            self._as_made = self._seen()
        else:
            self._as_made = None
            self._note_begun(found)
            self._remove(found)

    def _set_up(self) -> None:
        """Bring the database to the blueprint from nothing, and note what was made."""
        self._note_begun()
        if self.given:
            self._ask(_MAKE_BEACON)
        self.apply(self.server)
        self._wipe()
        with self._noting:
            self._made = Seal.of(neo4j_content.everything(self._ask, BUDGET)).text()
            self._ask(_MADE, contract=self._contract, made=self._made)
            self._as_made = self._seen()

    def _declared(self) -> set[str]:
        """Names, or definitions of what has none, of all that a run for our blueprint makes."""
        folder = self.blueprint.cypher
        names = set(declared(cypher_file.load(folder))) if folder else set()
        return names | {*neo4j_history.SCHEMA, *neo4j_lease.SCHEMA}

    def _note_begun(self, found: Content | None = None) -> None:
        """Note by name what is going to be made or removed: a successor of a killed process knows it by that."""
        self._own()
        names = {thing.name for thing in found.things if thing.name} if found else set()
        self._ask(_BEGIN, begun=json.dumps(sorted(names | self._declared())))

    def _forget_schema(self) -> None:
        """A test has changed schema or history: remove both, so that the next test has them made anew."""
        with self._noting:
            self._as_made, self._made = None, ""
        found = neo4j_content.everything(self._ask, BUDGET)
        self._note_begun(found)
        self._remove(found)

    def _remove(self, found: Content) -> None:
        """Remove what was found, and nothing that has come since."""
        ids = [thing.handle for thing in found.things if thing.kind == "node"]
        if ids:
            self._ask(_WIPE_THESE, ids=ids)
        for thing in found.things:
            if thing.kind in {"constraint", "index"}:
                self._ask(f"DROP {thing.kind.upper()} {_quoted(thing.name)} IF EXISTS")

    def _leave_as_found(self) -> None:
        """The last session on a given server removes what was made; what somebody has written since then stays."""
        if not self._turn.has_ticket:
            return
        if not self._turn.is_ours:
            self._turn.enter(was_wiped=self._was_wiped)
            self._own()
        if self._turn.others()[0]:
            self._step_aside()
            self._turn.leave()
            return
        state = (self._ask(_READ) or [{"made": self._made, "begun": None, "held": None}])[0]
        found = neo4j_content.everything(self._ask, BUDGET)
        vouched = self._vouched(state, found)
        self._remove(Content(tuple(thing for thing in found.things if thing.digest in vouched)))
        self._ask(f"DROP CONSTRAINT {_OLD_CONSTRAINT} IF EXISTS")
        self._ask(f"DROP INDEX {_BEACON} IF EXISTS")
        with self._noting:
            self._marked = False
            self._ask(_FORGET, names=[STATE])
            self._turn.leave()

    def _seen(self) -> tuple[int, frozenset[str]]:
        return self._ask(_HISTORY)[0]["nodes"], frozenset(self._ask(_INDEXES)[0]["names"])

    def _wipe(self) -> None:
        if self._ask(_WIPE)[0]["deleted"] == _BATCH:
            self._ask(_WIPE_REST)

    def _ask(self, text: str, **values: Any) -> list[dict[str, Any]]:
        with self._driver.session(database=self.server.database or None) as session:
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

"""The node that says what test runs have made in a Neo4j database, and whose turn it is.

Every statement that writes or deletes begins with a guard. The guard takes the write lock of that
node and then compares the token on it, in the same transaction. A process that was stopped, and
whose turn went to another process meanwhile, therefore changes nothing any more.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from is_db_bootstrap.errors import LockTimeout
from is_db_bootstrap.testing.isolation import is_dead, process_mark
from is_db_bootstrap.testing.neo4j_turn import LEASE_S, MARK, SETTLE_S, STATE, Ask

#: An index that holds nothing. It says that test runs are here even while a test has deleted all
#: nodes, tickets included. The last session drops it.
BEACON = f"{MARK}_beacon"
MAKE_BEACON = f"CREATE INDEX {BEACON} IF NOT EXISTS FOR (n:{MARK}Beacon) ON (n.nothing)"
DROP_BEACON = f"DROP INDEX {BEACON} IF EXISTS"
_HAS_BEACON = f"SHOW INDEXES YIELD name WHERE name = '{BEACON}' RETURN count(*) AS there"

#: A property that only the mark has. It is removed from other nodes, to lock them.
LOCKING = f"{MARK}_locking"

_NODE = f"(s:{MARK} {{name: '{STATE}'}})"
#: Setting the name takes the node's write lock, so that the token is read after the last write.
GUARD = f"MATCH {_NODE} SET s.name = '{STATE}' WITH s WHERE s.owner = $token\n"
_LEASE = "datetime.realtime() + duration({seconds: $seconds})"
_FIELDS = """
s.contract AS contract, s.made AS made, s.held AS held, s.begun AS begun, s.owner AS owner,
s.process AS process, s.test_of AS test_of
"""
_READ = f"MATCH {_NODE} RETURN {_FIELDS}"
_IS_FREE = """
s.owner IS NULL OR s.owner = $token OR s.owner = $dead
OR coalesce(s.until < datetime.realtime(), true) OR $alone
"""
_TAKE = f"""
SET s.name = '{STATE}'
WITH s, s.owner AS before WHERE {_IS_FREE}
SET s.owner = $token, s.writer = $token, s.process = $process, s.until = {_LEASE}
SET s.{LOCKING} = true
RETURN s.contract AS contract, s.made AS made, s.held AS held, s.begun AS begun, before AS owner,
       s.process AS process, s.test_of AS test_of, datetime.realtime() AS now
"""
_CLAIM = f"MATCH {_NODE} {_TAKE}"
_CREATE = f"MERGE {_NODE} ON CREATE SET s.begun = '[]' {_TAKE}"
_RENEW = GUARD + f"SET s.until = {_LEASE} RETURN datetime.realtime() AS now"
#: A test may have deleted the node. It is written again only when no other process can have come
#: and gone since `last`.
_WRITE_AGAIN = f"""
WITH datetime.realtime() AS now
WHERE $alone OR now < $last + duration({{seconds: $seconds}})
      AND ($beacon OR now < $last + duration({{seconds: $settle}}))
MERGE {_NODE}
ON CREATE SET s.owner = $token, s.writer = $token, s.process = $process, s.contract = $contract,
              s.made = $made, s.begun = $begun, s.test_of = $test_of
SET s.name = '{STATE}'
WITH s WHERE s.owner = $token
SET s.until = {_LEASE} RETURN datetime.realtime() AS now
"""


@dataclass(frozen=True, slots=True)
class State:
    """What the node says.

    `contract` is the fingerprint of the blueprint that the schema is at. `made` is a seal of all
    that was made for this blueprint. `held` is a seal of what the last look at a running test
    found. `begun` has the names of what is being made or removed, as JSON. `owner` is the token of
    the process that is in, and `process` is its process mark. `test_of` names the run of
    pytest-xdist while a test of one of its workers has the database.
    """

    contract: str | None = None
    made: str | None = None
    held: str | None = None
    begun: str | None = None
    owner: str | None = None
    process: str | None = None
    test_of: str | None = None


class Mark:
    """The node, as one process reads and writes it.

    `ask` sends one statement in a transaction of its own. `alone` says that a file's lock keeps
    other processes away from this server.
    """

    def __init__(self, ask: Ask, token: str, *, target: str, alone: bool) -> None:
        self._ask = ask
        self._token = token
        self._target = target
        self._alone = alone
        self._process = process_mark()
        self._is_ours = False
        self._is_lost = False
        #: The server's time of the last sign of life on the node.
        self._last: Any = None
        #: What the node says, for the case that a test deletes it.
        self._noted = State()
        #: The run whose test has the database now.
        self._test_of: str | None = None
        self._again = threading.Lock()

    @property
    def is_ours(self) -> bool:
        """Whether this process has taken the database, as far as it knows."""
        return self._is_ours

    @property
    def is_lost(self) -> bool:
        """Whether another process may have taken it from this one."""
        return self._is_lost

    def read(self) -> State | None:
        """What the node says. None where there is no node."""
        rows = self._ask(_READ)
        return State(**rows[0]) if rows else None

    def has_beacon(self) -> bool:
        """Whether test runs are here, whatever a test has deleted."""
        return bool(self._ask(_HAS_BEACON)[0]["there"])

    def claim(self, found: State | None, *, create: bool = False) -> State | None:
        """Write our token, unless the node belongs to a process that may live.

        `found` is what `read` gave. With `create` the node is made when it is not there. Returns
        what the node said before, with the earlier owner. Returns None when the node belongs to
        another process, or is not there and must not be made.
        """
        rows = self._ask(
            _CREATE if create else _CLAIM,
            token=self._token,
            process=self._process,
            dead=_dead_owner(found),
            alone=self._alone,
            seconds=LEASE_S,
        )
        if not rows:
            return None
        self._last = rows[0].pop("now")
        before = State(**rows[0])
        self._noted = before
        self._is_ours = True
        return before

    def renew(self) -> bool:
        """Show that this process lives. False when the turn was lost."""
        rows = self._ask(_RENEW, token=self._token, seconds=LEASE_S)
        if not rows:
            return self._write_again()
        self._last = rows[0]["now"]
        return True

    def run_guarded(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """Send a statement, if it is still our turn.

        The statement may use the node as `s`, and must return a row. Raises `LockTimeout` when the
        turn was lost. Then nothing was written.
        """
        text = GUARD + statement
        rows = self._ask(text, token=self._token, **values)
        if not rows and self._write_again():
            rows = self._ask(text, token=self._token, **values)
        if not rows:
            raise self.note_loss()
        return rows

    def check(self) -> None:
        """Raise `LockTimeout` unless it is our turn.

        This is for statements that cannot share a transaction with the look at the token.
        """
        self.run_guarded("RETURN s.name AS name")

    def begin(self, names: set[str]) -> None:
        """Note by name what is going to be made or removed.

        If this process is killed, its successor knows from these names whose they are.
        """
        begun = json.dumps(sorted(names))
        self._noted = State(begun=begun)
        self.run_guarded(
            "REMOVE s.contract, s.made, s.held, s.test_of SET s.begun = $begun "
            "RETURN s.name AS name",
            begun=begun,
        )

    def finish(self, contract: str, made: str) -> None:
        """Note what was made."""
        self.run_guarded(
            "REMOVE s.begun SET s.contract = $contract, s.made = $made RETURN s.name AS name",
            contract=contract,
            made=made,
        )
        self._noted = State(contract=contract, made=made)

    def hold(self, held: str) -> None:
        """Note what is there now."""
        self.run_guarded("SET s.held = $held RETURN s.name AS name", held=held)

    def note_test(self, run: str | None) -> None:
        """Note the run whose test has the database from now on. None: no test has it any more."""
        self._test_of = run
        self.run_guarded("SET s.test_of = $run RETURN s.name AS name", run=run)

    def release(self, *, keep_held: bool) -> None:
        """Give the node to the next process. Does nothing when the node is not ours."""
        self._is_ours = False
        held = "" if keep_held else ", s.held"
        self._ask(GUARD + f"REMOVE s.owner, s.until, s.process{held}", token=self._token)

    def remove(self) -> None:
        """Delete the node."""
        self.run_guarded("DETACH DELETE s RETURN 1 AS done")
        self._is_ours = False

    def note_loss(self) -> LockTimeout:
        """Remember that the turn was lost, and return the error that says so."""
        self._is_ours = False
        self._is_lost = True
        return LockTimeout(
            "neo4j",
            f"the turn on {self._target} was lost: this session had shown no sign of life, and "
            f"another one may have used the database since.",
            hint=f"Was the process stopped for more than {LEASE_S} s? "
            "Nothing was deleted after that. Run the tests again.",
        )

    def _write_again(self) -> bool:
        """Write the node again that a test has deleted.

        False when other processes may have been in since.
        """
        with self._again:
            if not self._is_ours:
                return False
            rows = self._ask(
                _WRITE_AGAIN,
                token=self._token,
                process=self._process,
                contract=self._noted.contract,
                made=self._noted.made,
                begun=self._noted.begun,
                test_of=self._test_of,
                last=self._last,
                beacon=self._alone or self.has_beacon(),
                alone=self._alone,
                seconds=LEASE_S,
                settle=SETTLE_S,
            )
            if rows:
                self._last = rows[0]["now"]
            return bool(rows)


def _dead_owner(state: State | None) -> str | None:
    """The owner that the node names, if the owner's process is dead."""
    if state is None or not state.owner or not state.process:
        return None
    return state.owner if is_dead(state.process) else None

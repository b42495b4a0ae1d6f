"""Turns of the processes that test on one Neo4j database, which has no session locks.

Each process has a ticket: a node that only this process writes. Who has the lowest number is in
(Lamport's bakery). That needs neither a constraint nor a lock that two processes want, so schema
statements, which deadlock with others of their kind (`DeadlockDetected`), are sent by the process
that is in and by nobody else. A ticket has a lease by the server's clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from is_db_bootstrap.errors import LockTimeout
from is_db_bootstrap.testing.isolation import is_dead, process_mark

#: The label of tickets and of the node that says what a test run has made.
MARK = "__IsDbBootstrapTesting"
#: The name of that node. Earlier versions have their lease on it, as `owner` and `until`.
STATE = "testing"
#: Seconds after which the next process may take a database whose user says nothing any more.
LEASE_S = 30
#: Seconds between two looks at who is before us. They grow with the wait, since looks slow down
#: whoever is in.
_LOOK_S, _MOST_LOOK_S, _GROWTH = 0.02, 0.5, 1.3
#: Seconds between two signs of life on a given server, and on one of our own.
RENEW_S, RENEW_OWN_S = 1.0, 8.0
#: Seconds to wait for the tickets of others, when a test has deleted all nodes.
#: Each is written again with its next sign of life.
SETTLE_S = 4 * RENEW_S
#: Seconds after which a wait is told, and after which it is told again.
_FIRST_TOLD_S, _TOLD_S = 2.0, 10.0
#: Seconds to wait for a database that other processes use.
PATIENCE_S = 600.0

#: The number of a ticket whose process is about to draw one, and of one that wants nothing.
_DRAWING, _IDLE = -1, 0

_SIGN = f"""
MERGE (t:{MARK} {{name: $token}})
SET t.turn = $turn, t.process = $process, t.until = datetime.realtime() + duration({{seconds: $seconds}})
"""
#: A ticket that waits is not written again when it is gone: that it is gone tells its process that
#: a test has deleted all.
_SIGN_AGAIN = f"""
MATCH (t:{MARK} {{name: $token}}) SET t.until = datetime.realtime() + duration({{seconds: $seconds}})
"""
_DRAW = f"MATCH (t:{MARK}) RETURN coalesce(max(t.turn), 0) AS last"
#: `owner` and `writer` are on the state node only. Earlier versions set `owner` alone, and have no
#: tickets.
_MARKS = f"""
MATCH (t:{MARK}) RETURN t.name AS name, t.turn AS turn, t.process AS process, t.owner AS owner, t.writer AS writer,
       coalesce(t.until < datetime.realtime(), true) AS lapsed
"""
_DELETE = f"MATCH (t:{MARK}) WHERE t.name IN $names DETACH DELETE t"

Ask = Callable[..., list[dict[str, Any]]]


class Turn:
    """The ticket of one process.

    `ask` sends one statement in a transaction of its own, `say` tells the user one line.
    """

    def __init__(
        self, ask: Ask, token: str, *, target: str, say: Callable[[str], None], patience_s: float
    ) -> None:
        self._ask, self._token, self._target = ask, token, target
        self._say, self._patience_s = say, patience_s
        self._process = process_mark()
        self._turn: int | None = None
        self._is_in = False
        self._writing = threading.Lock()

    @property
    def is_ours(self) -> bool:
        """Whether this process is in, as far as it knows."""
        return self._is_in

    def enter(self, *, was_wiped: Callable[[], bool], claim: Callable[[], bool]) -> None:
        """Wait until it is this process's turn.

        `was_wiped` says whether a test of another process may have deleted all tickets just now.
        `claim` takes the database and says whether it could: where tickets were deleted, two
        processes may believe that it is their turn. Raises `LockTimeout` after the patience has run
        out; then the ticket is given back.
        """
        began = time.monotonic()
        tell_at = began + _FIRST_TOLD_S
        pause = _LOOK_S
        self._draw(settle=was_wiped())
        while True:
            mine, before = self._before_us()
            if mine and not before:
                # A look that fell into the moment when a test deleted all is unmasked by the next.
                mine, before = self._before_us()
            if mine and not before:
                if claim():
                    self._is_in = True
                    return
                before = 1
            now = time.monotonic()
            if now - began > self._patience_s:
                self.leave()
                raise LockTimeout(
                    "neo4j",
                    f"{self._target} was used by {_in_words(before)} for {self._patience_s:.0f} s.",
                    hint="Give each session a server of its own, or run with fewer workers.",
                )
            if now > tell_at:
                tell_at = now + _TOLD_S
                self._say(
                    f"neo4j: waiting for {self._target}, which is used by {_in_words(before)}."
                )
            if mine:
                time.sleep(pause)
                pause = min(pause * _GROWTH, _MOST_LOOK_S)
            else:
                self._draw(settle=True)

    def step_aside(self) -> None:
        """Let the others in; the ticket stays, as a sign that this process will want another turn.

        Does nothing when this process is not in: it may have left meanwhile, and a ticket that is
        written after that would be taken for a process that still has to clean.
        """
        with self._writing:
            if self._is_in:
                self._is_in = False
                self._turn = _IDLE
                self._write()

    def leave(self) -> None:
        """Give the ticket back."""
        with self._writing:
            self._is_in = False
            self._turn = None
            self._ask(_DELETE, names=[self._token])

    def renew(self) -> None:
        """Say that this process lives.

        Also writes a ticket again that a test has deleted, unless this process is waiting.
        """
        with self._writing:
            if self._is_in or self._turn == _IDLE:
                self._write()
            elif self._turn is not None:
                self._ask(_SIGN_AGAIN, token=self._token, seconds=LEASE_S)

    def others(self) -> tuple[int, int]:
        """How many other processes live, and how many of these wait for their turn.

        Tickets of dead ones are deleted.
        """
        living, dead = self._sorted(self._ask(_MARKS))
        if dead:
            self._ask(_DELETE, names=dead)
        return len(living), sum(row["turn"] != _IDLE for row in living)

    def _draw(self, *, settle: bool) -> None:
        """Draw a number above all that were drawn."""
        self._sign(_DRAWING)
        if settle:
            time.sleep(SETTLE_S)
            self._sign(_DRAWING)
        last = self._ask(_DRAW)[0]["last"]
        self._sign(max(last, _IDLE) + 1)

    def _sign(self, turn: int) -> None:
        with self._writing:
            self._turn = turn
            self._write()

    def _write(self) -> None:
        self._ask(_SIGN, token=self._token, turn=self._turn, process=self._process, seconds=LEASE_S)

    def _before_us(self) -> tuple[bool, int]:
        """Whether our own ticket is there, and how many processes are before us."""
        rows = self._ask(_MARKS)
        mine = next((row["turn"] for row in rows if row["name"] == self._token), None)
        if mine is None:
            return False, 0
        living, dead = self._sorted(rows)
        before = sum(
            row["turn"] == _DRAWING
            or (row["turn"] > _IDLE and (row["turn"], row["name"]) < (mine, self._token))
            for row in living
        )
        known = {self._token, *dead, *(row["name"] for row in living)}
        before += sum(_is_older_version(row) and row["owner"] not in known for row in rows)
        return True, before

    def _sorted(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
        """The tickets of living processes beside our own, and the names of those whose process is gone."""
        others = [row for row in rows if row["name"] not in {self._token, STATE}]
        dead = [
            row["name"]
            for row in others
            if row["lapsed"] or not row["process"] or is_dead(row["process"])
        ]
        return [row for row in others if row["name"] not in dead], dead


def _is_older_version(row: dict[str, Any]) -> bool:
    """Whether the state node says that a process of an earlier version is in, and its lease has not lapsed."""
    return row["name"] == STATE and row["owner"] not in {None, row["writer"]} and not row["lapsed"]


def _in_words(others: int) -> str:
    return "another test session" if others == 1 else f"{others} other test sessions"

"""Turns of the processes that test on one Neo4j database, which has no session locks.

Each process has a ticket: a node that only this process writes. The process with the lowest number
is in (Lamport's bakery). The bakery needs neither a constraint nor a lock that two processes want.
Schema statements deadlock with others of their kind (`DeadlockDetected`), so only the process that
is in sends them. A ticket has a lease by the server's clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from is_db_bootstrap.errors import LockTimeout
from is_db_bootstrap.testing.isolation import Waiting, is_dead, process_mark

#: The label of tickets, and of the node that says what a test run has made (the state node).
MARK = "__IsDbBootstrapTesting"
#: The name of the state node, on which earlier versions have their lease (`owner` and `until`).
STATE = "testing"
#: Seconds without a sign of life after which the next process may take a database.
LEASE_S = 30
#: Seconds between the first two looks at the tickets of others.
_LOOK_S = 0.02
#: Seconds between two looks, at most. Looks slow down the process that is in.
_MOST_LOOK_S = 0.5
#: The factor by which the pause between two looks grows.
_GROWTH = 1.3
#: Seconds between two signs of life on a given server.
RENEW_S = 1.0
#: Seconds between two signs of life on a server of our own.
RENEW_OWN_S = 8.0
#: Seconds to wait for the tickets of others, when a test has deleted all nodes.
#: Each ticket is written again with the next sign of life of its process.
SETTLE_S = 4 * RENEW_S
#: The number of a ticket whose process is about to draw a number.
_DRAWING = -1
#: The number of a ticket whose process wants no turn now.
_IDLE = 0

_SIGN = f"""
MERGE (t:{MARK} {{name: $token}})
SET t.turn = $turn, t.process = $process,
    t.until = datetime.realtime() + duration({{seconds: $seconds}})
"""
#: The ticket of a waiting process is not written again after a test has deleted all nodes. From the
#: missing ticket the process learns of the deletion.
_SIGN_AGAIN = f"""
MATCH (t:{MARK} {{name: $token}})
SET t.until = datetime.realtime() + duration({{seconds: $seconds}})
"""
_LAST_TURN = f"MATCH (t:{MARK}) RETURN coalesce(max(t.turn), 0) AS last"
#: `owner` and `writer` are on the state node only. Earlier versions set `owner` alone, and have no
#: tickets.
_MARKS = f"""
MATCH (t:{MARK})
RETURN t.name AS name, t.turn AS turn, t.process AS process, t.owner AS owner, t.writer AS writer,
       coalesce(t.until < datetime.realtime(), true) AS lapsed
"""
_DELETE = f"MATCH (t:{MARK}) WHERE t.name IN $names DETACH DELETE t"

Ask = Callable[..., list[dict[str, Any]]]
#: The properties of a ticket or of the state node, as `_MARKS` gives them.
_Row = dict[str, Any]


class Turn:
    """The ticket of one process.

    `ask` sends one statement in a transaction of its own. `say` tells the user one line.
    `patience_s` is how many seconds `enter` waits at most.
    """

    def __init__(
        self, ask: Ask, token: str, *, target: str, say: Callable[[str], None], patience_s: float
    ) -> None:
        self._ask = ask
        self._token = token
        self._target = target
        self._say = say
        self._patience_s = patience_s
        self._process = process_mark()
        #: The number on our ticket. None when there is no ticket.
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
        `claim` takes the database and says whether that was possible. Where tickets were deleted,
        two processes may both believe that it is their turn, and only one of them can claim. Raises
        `LockTimeout` after the patience has run out. Then the ticket is given back.
        """
        waiting = Waiting(
            "neo4j",
            self._target,
            say=self._say,
            patience_s=self._patience_s,
            hint="Give each session a server of its own, or run with fewer workers.",
        )
        pause = _LOOK_S
        self._draw_number(settle=was_wiped())
        while True:
            has_ticket, before = self._look_twice()
            if has_ticket and not before:
                if claim():
                    self._is_in = True
                    return
                before = 1
            try:
                waiting.check(_sessions_in_words(before))
            except LockTimeout:
                self.leave()
                raise
            if has_ticket:
                time.sleep(pause)
                pause = min(pause * _GROWTH, _MOST_LOOK_S)
            else:
                self._draw_number(settle=True)

    def step_aside(self) -> None:
        """Let the others in. The ticket stays, as a sign that this process will want another turn.

        Does nothing when this process is not in. The process may have left meanwhile. From a ticket
        that is written after that, others would conclude that this process still has to clean.
        """
        with self._writing:
            if self._is_in:
                self._is_in = False
                self._turn = _IDLE
                self._write_ticket()

    def leave(self) -> None:
        """Give the ticket back."""
        with self._writing:
            self._is_in = False
            self._turn = None
            self._ask(_DELETE, names=[self._token])

    def renew(self) -> None:
        """Say that this process lives.

        A ticket that a test has deleted is written again, unless this process is waiting.
        """
        with self._writing:
            if self._is_in or self._turn == _IDLE:
                self._write_ticket()
            elif self._turn is not None:
                self._ask(_SIGN_AGAIN, token=self._token, seconds=LEASE_S)

    def others(self) -> tuple[int, int]:
        """How many other processes live, and how many of these wait for their turn.

        The tickets of dead processes are deleted.
        """
        living, dead = self._split_tickets(self._ask(_MARKS))
        if dead:
            self._ask(_DELETE, names=dead)
        waiting = [ticket for ticket in living if ticket["turn"] != _IDLE]
        return len(living), len(waiting)

    def _draw_number(self, *, settle: bool) -> None:
        """Draw a number above all numbers that were drawn.

        With `settle`, wait before for the tickets that a test has deleted.
        """
        self._write_turn(_DRAWING)
        if settle:
            time.sleep(SETTLE_S)
            self._write_turn(_DRAWING)
        last = self._ask(_LAST_TURN)[0]["last"]
        self._write_turn(max(last, _IDLE) + 1)

    def _write_turn(self, turn: int) -> None:
        with self._writing:
            self._turn = turn
            self._write_ticket()

    def _write_ticket(self) -> None:
        self._ask(_SIGN, token=self._token, turn=self._turn, process=self._process, seconds=LEASE_S)

    def _look_twice(self) -> tuple[bool, int]:
        """As `_count_before`, with a second look when nobody is before us.

        The first look may fall into the moment when a test deleted all nodes. The second look then
        shows that.
        """
        has_ticket, before = self._count_before()
        if has_ticket and not before:
            return self._count_before()
        return has_ticket, before

    def _count_before(self) -> tuple[bool, int]:
        """Whether our own ticket is there, and how many processes are before us."""
        rows = self._ask(_MARKS)
        our_turn = next((row["turn"] for row in rows if row["name"] == self._token), None)
        if our_turn is None:
            return False, 0
        living, dead = self._split_tickets(rows)
        before = sum(self._is_before(ticket, our_turn) for ticket in living)
        with_ticket = {self._token, *dead, *(ticket["name"] for ticket in living)}
        older_versions = [
            row for row in rows if _is_older_version(row) and row["owner"] not in with_ticket
        ]
        return True, before + len(older_versions)

    def _is_before(self, ticket: _Row, our_turn: int) -> bool:
        """Whether the process of `ticket` has its turn before us, or may draw such a number."""
        turn = ticket["turn"]
        if turn == _DRAWING:
            return True
        wants_turn = bool(turn > _IDLE)
        # Two processes may have drawn one number. Then their tokens decide.
        return wants_turn and (turn, ticket["name"]) < (our_turn, self._token)

    def _split_tickets(self, rows: list[_Row]) -> tuple[list[_Row], list[str]]:
        """The tickets of other processes that live, and the names of the tickets of dead ones."""
        others = [row for row in rows if row["name"] not in {self._token, STATE}]
        dead = [ticket["name"] for ticket in others if _is_left(ticket)]
        living = [ticket for ticket in others if ticket["name"] not in dead]
        return living, dead


def _is_left(ticket: _Row) -> bool:
    """Whether the process of the ticket is gone."""
    if ticket["lapsed"] or not ticket["process"]:
        return True
    return is_dead(ticket["process"])


def _is_older_version(row: _Row) -> bool:
    """Whether this is the state node, and a process of an earlier version is in by its lease."""
    if row["name"] != STATE or row["lapsed"]:
        return False
    return row["owner"] not in {None, row["writer"]}


def _sessions_in_words(others: int) -> str:
    return "another test session" if others == 1 else f"{others} other test sessions"

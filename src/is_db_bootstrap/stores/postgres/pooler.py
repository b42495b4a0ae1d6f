"""Whether an address leads to a pooler that gives each transaction another session.

Found out before anything is set.

A setting, a lock or a prepared statement of a session outlives its transaction. Behind PgBouncer in
transaction or statement mode the session is then handed to another client, with all of that on it
(pgbouncer#452, authentik#23876).

A direct connection is recognised by its backend's process id: a pooler greets before it has chosen
a session, so it makes the id up. Behind a pooler, two connections ask in turns which session they
have. Nothing is set for that. There are two proofs, and without one of them nothing is claimed:

Sessions are shared when one connection is given a second session, or the session of the other.

Sessions are kept when a round of questions finds each connection in its own session, and the
session's count of transactions shows that nobody else had the session in between. PgBouncer
cannot answer a whole round like that from a pool of shared sessions (`_is_kept` says why). On a
busy pool the count has gaps, so the round is asked again.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import psycopg
from psycopg import pq

#: Rounds that prove that sessions are kept. One is enough for one PgBouncer. Several of them may
#: listen on one port (`so_reuseport`), each with a pool of its own, so each round has a new second
#: connection, which the system may give to another one.
_ROUNDS = 3
#: Seconds for which an answer holds. A pool of few sessions may have none left for a second look.
_KNOWN_S = 60.0
#: The backend's process id, and the number of the transaction among those of this backend: each
#: transaction adds one, also one that only reads (`GetNextLocalTransactionId`, sinvaladt.c).
_SESSION = b"""
    SELECT pg_backend_pid(), (
        SELECT split_part(virtualtransaction, '/', 2) FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'virtualxid'
    )
"""
_NO_SECOND_SESSION = "had no second session for us within {:g} s"
_TOO_BUSY = "is so busy that for {:g} s nothing showed whether it shares sessions"

Opened = Callable[[], psycopg.Connection[Any]]
#: When each place was last seen to keep sessions, by `time.monotonic`.
_kept: dict[tuple[Any, ...], float] = {}


class Mode(StrEnum):
    """To whom a pooler gives a session, and for how long."""

    #: To one client until it leaves, as a server does.
    SESSION = "session"
    #: To another client after each transaction.
    TRANSACTION = "transaction"
    #: To another client after each statement; transactions of several are refused.
    STATEMENT = "statement"


class UndecidedError(Exception):
    """The mode could not be found out in time. The text is the pooler's part of a sentence."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The session that answered.

    It has its process id, and the number of its transaction, 0 if unknown.
    """

    pid: int
    number: int


def is_direct(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server itself greeted us; asks one question."""
    return _ask(connection, _SESSION, None).pid == connection.info.backend_pid


def mode(
    first: psycopg.Connection[Any], second: Opened, place: tuple[Any, ...], limit_s: float
) -> Mode:
    """The mode of the pooler that `first` leads to.

    `first` is in autocommit and idle, before and after.

    `second` opens another connection to the same place, which is closed again, up to once a round.
    `limit_s` bounds all of it, in seconds. Raises `UndecidedError` and what psycopg raises.
    """
    seen = _kept.get(place)
    if seen is not None and time.monotonic() - seen < _KNOWN_S:
        return Mode.SESSION
    try:
        found = _proven(first, second, limit_s)
    except UndecidedError:
        if seen is None:
            raise
        return Mode.SESSION
    if found is Mode.SESSION:
        _kept[place] = time.monotonic()
    return found


def _proven(first: psycopg.Connection[Any], second: Opened, limit_s: float) -> Mode:
    """The mode, once it is proven.

    Raises `UndecidedError` when that takes longer than `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    rounds_left = _ROUNDS
    while rounds_left:
        if time.monotonic() > deadline:
            raise UndecidedError(_TOO_BUSY.format(limit_s))
        other = second()
        try:
            ours, theirs = _answers(first, other, limit_s)
            if _is_shared(ours, theirs):
                return _sharing_mode(other, limit_s)
        finally:
            other.close()
        if _is_kept(ours, theirs):
            rounds_left -= 1
    return Mode.SESSION


def _answers(
    first: psycopg.Connection[Any], other: psycopg.Connection[Any], limit_s: float
) -> tuple[list[_Seen], list[_Seen]]:
    """The answers to one round of questions: those to `first`, and those to `other`."""
    ours, theirs = [], []
    theirs.append(_ask(other, _SESSION, limit_s))
    ours.append(_ask(first, _SESSION, limit_s))
    ours.append(_ask(first, _SESSION, limit_s))
    theirs.append(_ask(other, _SESSION, limit_s))
    ours.append(_ask(first, _SESSION, limit_s))
    return ours, theirs


def _is_shared(ours: list[_Seen], theirs: list[_Seen]) -> bool:
    """Whether one connection had several sessions, or both had the same one."""
    our_pids = {seen.pid for seen in ours}
    their_pids = {seen.pid for seen in theirs}
    return len(our_pids) > 1 or len(their_pids) > 1 or our_pids == their_pids


def _is_kept(ours: list[_Seen], theirs: list[_Seen]) -> bool:
    """Whether nobody else had our two sessions during a round in which no sharing was seen.

    If PgBouncer shared them, both were idle whenever neither of us asked. It gives out the idle
    session that was used last. Our second answer was later than their first, so their second
    question would have got our session. With `server_round_robin` it gives out the one that has
    been idle for longest. After our first answer that was theirs, so our second question would have
    got it.
    """
    return all(
        after.number == before.number + 1
        for answers in (ours, theirs)
        for before, after in pairwise(answers)
    )


def _sharing_mode(other: psycopg.Connection[Any], limit_s: float) -> Mode:
    """Which of the modes that share sessions: only one of them lets a transaction begin."""
    try:
        _ask(other, b"BEGIN", limit_s)
    except _RefusedError:
        return Mode.STATEMENT
    return Mode.TRANSACTION


class _RefusedError(Exception):
    """The pooler or the server refused a statement."""


def _ask(connection: psycopg.Connection[Any], statement: bytes, limit_s: float | None) -> _Seen:
    """What a statement gives, zeros for nothing.

    psycopg's own calls have no time limit, so libpq is asked.
    """
    client = connection.pgconn
    client.send_query(statement)
    client.flush()
    deadline = None if limit_s is None else time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        selector.register(client.socket, selectors.EVENT_READ)
        while client.is_busy():
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise UndecidedError(_NO_SECOND_SESSION.format(limit_s))
            if selector.select(left_s):
                client.consume_input()
    return _result(client)


def _result(client: pq.abc.PGconn) -> _Seen:
    seen, refused = _Seen(0, 0), ""
    while (result := client.get_result()) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            refused = refused or result.get_error_message()  # PgBouncer says why, and then leaves
        elif result.ntuples:
            seen = _Seen(int(result.get_value(0, 0) or 0), int(result.get_value(0, 1) or 0))
    if refused and client.status == pq.ConnStatus.BAD and not _is_mode(refused):
        raise psycopg.OperationalError(refused)
    if refused:
        raise _RefusedError(refused)
    return seen


def _is_mode(refusal: str) -> bool:
    """Whether PgBouncer refuses a transaction because of its mode; it ends the connection too."""
    return "statement pooling" in refusal

"""Whether an address leads to a pooler that gives each transaction another session.

Found out before anything is set.

A setting, a lock or a prepared statement of a session outlives its transaction. Behind PgBouncer in
transaction or statement mode the session is then handed to another client, with all of that on it
(pgbouncer#452, authentik#23876).

A direct connection is recognised by its backend's process id: a pooler greets before it has chosen
a session, so it makes the id up. Behind a pooler, two connections tell the modes apart. While ours
is idle, a transaction on a second connection is given our session, or ours is given another one, if
sessions are shared. Nothing is set for that.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import pq

#: A busy pool may hand our session to a third client just when we look, so several looks are taken.
_LOOKS = 8
#: Seconds for which an answer holds. A pool of few sessions may have none left for a second look.
_KNOWN_S = 60.0
_PID = b"SELECT pg_backend_pid()"

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
    """The pooler had no second session for us in time, so its mode is not known."""


def is_direct(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server itself greeted us; asks one question."""
    return _ask(connection, _PID, None) == connection.info.backend_pid


def mode(
    first: psycopg.Connection[Any], second: Opened, place: tuple[Any, ...], limit_s: float
) -> Mode:
    """The mode of the pooler that `first` leads to.

    `first` is in autocommit and idle, before and after.

    `second` opens another connection to the same place, which is closed again. `limit_s` bounds
    each answer, in seconds. Raises `UndecidedError` and what psycopg raises.
    """
    seen = _kept.get(place)
    if seen is not None and time.monotonic() - seen < _KNOWN_S:
        return Mode.SESSION
    other = second()
    try:
        found = _compared(first, other, limit_s)
    except UndecidedError:
        if seen is None:
            raise
        return Mode.SESSION
    finally:
        other.close()
    if found is Mode.SESSION:
        _kept[place] = time.monotonic()
    return found


def _compared(
    first: psycopg.Connection[Any], other: psycopg.Connection[Any], limit_s: float
) -> Mode:
    ours = _ask(first, _PID, limit_s)
    for _ in range(_LOOKS):
        try:
            theirs = _ask(other, b"BEGIN; " + _PID, limit_s)
        except _RefusedError:
            return Mode.STATEMENT
        # The order matters: a pool of one session has none for us while the other connection's
        # transaction has it.
        if theirs == ours or _ask(first, _PID, limit_s) != ours:
            return Mode.TRANSACTION
        _ask(other, b"COMMIT", limit_s)
    return Mode.SESSION


class _RefusedError(Exception):
    """The pooler or the server refused a statement."""


def _ask(connection: psycopg.Connection[Any], statement: bytes, limit_s: float | None) -> int:
    """The number that a statement gives, 0 for none.

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
                raise UndecidedError
            if selector.select(left_s):
                client.consume_input()
    return _number(connection)


def _number(connection: psycopg.Connection[Any]) -> int:
    number, refused = 0, ""
    while (result := connection.pgconn.get_result()) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            refused = refused or result.get_error_message()  # PgBouncer says why, and then leaves
        elif result.ntuples:
            number = int(result.get_value(0, 0) or 0)
    if refused and connection.pgconn.status == pq.ConnStatus.BAD and not _is_mode(refused):
        raise psycopg.OperationalError(refused)
    if refused:
        raise _RefusedError(refused)
    return number


def _is_mode(refusal: str) -> bool:
    """Whether PgBouncer refuses a transaction because of its mode; it ends the connection too."""
    return "statement pooling" in refusal

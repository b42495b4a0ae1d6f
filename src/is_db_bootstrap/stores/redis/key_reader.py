"""Reading a keyspace fast: names by SCAN, type and lifetime of each, in few round trips.

redis-py's own pipeline makes objects for each command, which took most of the time of an audit. So
the commands of a batch are packed here, and sent with the SCAN of the next batch. The server then
looks for the next names while this process reads the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import redis

from is_db_bootstrap.stores.redis.errors import as_text, is_forbidden_key

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import KeyPattern

#: Keys that one SCAN is asked for, and that one batch of TYPE and PTTL looks at.
BATCH = 500

#: What PTTL answers for a key without a lifetime, and for one that is gone: milliseconds.
NO_LIFETIME_MS, GONE_MS = -1, -2


class Look(NamedTuple):
    """What one key is. `ttl_ms` is its lifetime in milliseconds, or `NO_LIFETIME_MS`."""

    name: bytes
    text: str
    pattern: KeyPattern | None
    kind: str
    ttl_ms: int


class Chosen(NamedTuple):
    """A key whose type and lifetime are wanted: its name, also as text, and its pattern."""

    name: bytes
    text: str
    pattern: KeyPattern | None


#: Gives the keys of a batch of names whose type and lifetime are wanted.
Choose = Callable[[Sequence[bytes]], Sequence[Chosen]]


@dataclass(frozen=True, slots=True)
class Batch:
    """The names that one SCAN gave, and a look at each chosen one that is still there.

    `forbidden` counts the chosen keys that this user may not look at.
    """

    names: Sequence[bytes]
    looks: Sequence[Look]
    forbidden: int = 0


def names_after(prefix: str, master: Any, budget: int) -> set[str]:
    """What stands behind `prefix` in the names of keys, of about `budget` keys of a server.

    Raises what redis-py raises.
    """
    found: set[str] = set()
    cursor = 0
    for _ in range(max(1, budget // BATCH)):
        cursor, names = master.scan(cursor, match=f"{prefix}*", count=BATCH)
        found.update(as_text(name).removeprefix(prefix) for name in names)
        if cursor == 0:
            break
    return found


class KeyReader:
    """Reads the keys of one `master`. `stopped` ends that from another thread."""

    def __init__(self, master: Any) -> None:
        self._master = master
        self.stopped = False
        #: Whether the last reading has seen the whole keyspace.
        self.is_complete = False

    def count_keys(self) -> int:
        """How many keys there are, by INFO: DBSIZE may not be allowed."""
        number = self._master.connection_pool.connection_kwargs.get("db", 0) or 0
        section = self._master.info("keyspace").get(f"db{number}", {})
        return int(section.get("keys", 0))

    def batches(self, budget: int, choose: Choose, start: int = 0) -> Iterator[Batch]:
        """At most `budget` keys, from the cursor `start` on, and from the beginning after the end.

        No MATCH is sent: one pass serves all patterns, and MATCH walks the same keyspace for each.
        SCAN repeats keys while a table grows or shrinks. Raises what redis-py raises.
        """
        self.is_complete = False
        single = self._master.client()
        connection = single.connection
        has_ended = False
        try:
            yield from self._batches(connection, budget, choose, start)
            has_ended = True
        finally:
            if not has_ended:
                connection.disconnect()  # Answers that nobody has read may be in it.
            single.close()

    def _batches(
        self,
        connection: Any,
        budget: int,
        choose: Choose,
        start: int,
    ) -> Iterator[Batch]:
        left = budget
        if left <= 0:
            return
        _send(connection, _scan(start, min(BATCH, left)))
        while True:
            cursor, names = _read_scan(connection)
            names = names[:left]  # SCAN may return more than it was asked for.
            # It may return nothing, again and again, from a table that has shrunk.
            left -= max(1, len(names))
            chosen = choose(names)
            has_seen_all = cursor == 0 and start == 0
            goes_on = left > 0 and not has_seen_all and not self.stopped
            following = _scan(cursor, min(BATCH, left)) if goes_on else b""
            _send(connection, _looks(chosen) + following)
            yield _read_looks(connection, names, chosen)
            if not goes_on:
                self.is_complete = has_seen_all
                return


def look_again(connection: Any, looks: Sequence[Look]) -> dict[bytes, Look]:
    """Type and lifetime of these keys now, over this connection. A key that is gone is left out.

    Raises what redis-py raises; the connection is closed then, as answers may be left in it.
    """
    chosen = [Chosen(look.name, look.text, look.pattern) for look in looks]
    has_ended = False
    try:
        _send(connection, _looks(chosen))
        batch = _read_looks(connection, [], chosen)
        has_ended = True
    finally:
        if not has_ended:
            connection.disconnect()
    return {look.name: look for look in batch.looks}


def _send(connection: Any, packed: bytes) -> None:
    if packed:
        connection.send_packed_command([packed], check_health=False)


def _scan(cursor: int, count: int) -> bytes:
    words = b"SCAN", b"%d" % cursor, b"COUNT", b"%d" % count
    return b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _looks(chosen: Sequence[Chosen]) -> bytes:
    """TYPE and PTTL of each key, as the protocol has it."""
    return b"".join(
        [
            b"*2\r\n$4\r\nTYPE\r\n$%d\r\n%b\r\n*2\r\n$4\r\nPTTL\r\n$%d\r\n%b\r\n"
            % (len(name), name, len(name), name)
            for name, _, _ in chosen
        ]
    )


def _read_scan(connection: Any) -> tuple[int, list[bytes]]:
    cursor, names = connection.read_response(disable_decoding=True)
    return int(cursor), names


def _read_looks(connection: Any, names: Sequence[bytes], chosen: Sequence[Chosen]) -> Batch:
    """The answers to `_looks(chosen)`, without keys that are gone or on another server now."""
    looks, forbidden = [], 0
    read = partial(_read_answer, connection.read_response)
    for name, text, pattern in chosen:
        kind, ttl_ms = read(), read()
        if type(kind) is bytes and type(ttl_ms) is int:
            if ttl_ms != GONE_MS and kind != b"none":
                looks.append(Look(name, text, pattern, kind.decode(), ttl_ms))
        elif _is_refused_by_rights(kind, ttl_ms):
            forbidden += 1
    return Batch(names, looks, forbidden)


def _is_refused_by_rights(*answers: Any) -> bool:
    """Whether the user may not look at a key, or else the key has just been given away.

    Raises any other refusal.
    """
    refusals = [answer for answer in answers if isinstance(answer, Exception)]
    for refusal in refusals:
        if not is_forbidden_key(refusal) and not isinstance(refusal, redis.exceptions.AskError):
            raise refusal
    return any(is_forbidden_key(refusal) for refusal in refusals)


def _read_answer(read: Callable[..., Any]) -> Any:
    """What the server answers, its refusal included."""
    try:
        return read(disable_decoding=True)
    except redis.ResponseError as exc:
        return exc

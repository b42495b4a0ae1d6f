"""What Redis remembers: one key for each blueprint, with the record of each deployment in a line.

A string, and no hash, so that a user needs no right besides those of the record of conventions.
"""

from __future__ import annotations

from collections.abc import Sequence

from is_db_bootstrap.engine.memory import Memory
from is_db_bootstrap.engine.memory_text import BrokenMemory, NewerMemory, from_text, to_text
from is_db_bootstrap.stores import recalled
from is_db_bootstrap.stores.recalled import Kept, Recalled, read_kept
from is_db_bootstrap.stores.redis.kind import KIND

#: Deployments that one key remembers.
MOST_RECORDS = 1000


def read(key: str, blueprint: str, value: bytes | None, client: str) -> Recalled:
    """The records in the value of a key. Raises `StoreConflict` when one of them is broken.

    `client` is how a person calls `redis-cli`, which removes a broken one.
    """
    numbers = [number for number, line in enumerate(_text(value).split("\n"), 1) if line]
    kept = [
        Kept(
            line,
            f"line {number} of {key}",
            _removal(client, key, number, len(numbers)),
            subject=key,
        )
        for number, line in zip(numbers, _lines(value), strict=True)
    ]
    return read_kept(KIND.name, blueprint, kept)


def _removal(client: str, key: str, number: int, count: int) -> str:
    """What a person runs to remove the line of that number, and no other record."""
    if count == 1:
        return f"{client} DEL {key}"
    return f"{client} GET {key} | sed {number}d | {client} -x SET {key}"


def full(key: str, value: bytes | None) -> str:
    """Why the key takes no further record. Empty while it takes them."""
    removal = f"take its line out of the key {key}."
    return recalled.full("Redis", len(_lines(value)), MOST_RECORDS, removal)


def written(value: bytes | None, memory: Memory) -> bytes | None:
    """The value with one record more, or anew in the place of the one with its key.

    All other lines are kept as they are. None: there is no room for one record more.
    """
    lines = _lines(value)
    others = [line for line in lines if _key_of(line) != memory.key]
    if len(others) == len(lines) >= MOST_RECORDS:
        return None
    return "\n".join([*others, to_text(memory)]).encode("utf-8", "surrogateescape")


def _lines(value: bytes | None) -> Sequence[str]:
    return [line for line in _text(value).split("\n") if line]


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")


def _key_of(line: str) -> str:
    """The key of a record that this version can replace. Empty for any other line."""
    try:
        return from_text(line).key
    except (BrokenMemory, NewerMemory):
        return ""

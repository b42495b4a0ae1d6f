"""Trying every key convention under probe names: a value of its type is set, read, and expires."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.results import Proof
from is_db_bootstrap.stores.redis.errors import as_text
from is_db_bootstrap.stores.redis.rights import check_missing_key

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, KeyPattern

#: Lifetime of every probe key beyond its check, should the check not reach its end: milliseconds.
SAFETY_MS = 60_000
#: The lifetime that is waited for, and how long at most: milliseconds and seconds.
SHORT_MS, PATIENCE_S = 20, 2.0

_WRITE: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda client, key: client.set(key, "probe"),
    "list": lambda client, key: client.rpush(key, "probe"),
    "set": lambda client, key: client.sadd(key, "probe"),
    "zset": lambda client, key: client.zadd(key, {"probe": 1}),
    "hash": lambda client, key: client.hset(key, "probe", "1"),
    "stream": lambda client, key: client.xadd(key, {"probe": "1"}),
}


def proofs(client: Any, blueprint: Blueprint) -> Iterator[Proof]:
    """One check a pattern and a channel; keys are named `is-db-bootstrap:selftest:…`.

    Nothing is written where the user may not give a key its end.
    """
    prefix = f"is-db-bootstrap:selftest:{uuid.uuid4().hex}"
    check_missing_key(client, prefix, ("DEL", "PEXPIRE", "PTTL", "TYPE", "EXISTS"))
    for pattern in blueprint.keys:
        key = f"{prefix}:{pattern.name}"
        try:
            yield _key(client, key, pattern)
        finally:
            client.delete(key)
    for channel in blueprint.channels:
        yield _channel(client, f"{prefix}:{channel.name}", channel.pattern)


def _key(client: Any, key: str, pattern: KeyPattern) -> Proof:
    name = f"{pattern.pattern} is kept as {pattern.type}" + (
        "" if pattern.ttl is None else " and expires"
    )
    _WRITE[pattern.type](client, key)
    lasting = client.pttl(key) == -1
    client.pexpire(key, SAFETY_MS)
    kind = as_text(client.type(key))
    if kind != pattern.type:
        return Proof(name, ok=False, detail=f"TYPE says {kind}")
    longest = pattern.longest_ttl
    if longest is None:
        return Proof(
            name,
            ok=lasting,
            detail="without a lifetime" if lasting else "has a lifetime that nobody gave it",
        )
    client.pexpire(key, longest * 1000)
    left_s = client.pttl(key) / 1000
    if not longest - 2 <= left_s <= longest:
        return Proof(name, ok=False, detail=f"lifetime {left_s:.0f} s instead of {longest} s")
    client.pexpire(key, SHORT_MS)
    if not _gone(client, key):
        return Proof(name, ok=False, detail=f"still there {PATIENCE_S:g} s after its end")
    return Proof(name, ok=True, detail=f"{longest} s")


def _gone(client: Any, key: str) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while client.exists(key):
        if time.monotonic() > deadline:
            return False
        time.sleep(SHORT_MS / 1000)
    return True


def _channel(client: Any, probe: str, pattern: str) -> Proof:
    name = f"a message reaches a subscriber, as on {pattern}"
    with client.pubsub() as listening:
        listening.subscribe(probe)
        listening.get_message(timeout=PATIENCE_S)  # the confirmation
        client.publish(probe, "probe")
        message = listening.get_message(timeout=PATIENCE_S)
    heard = message is not None and as_text(message["data"]) == "probe"
    return Proof(name, ok=heard, detail="" if heard else f"nothing within {PATIENCE_S:g} s")

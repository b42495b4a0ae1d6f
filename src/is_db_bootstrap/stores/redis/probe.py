"""A key that is set, read back and deleted: proof that a Redis keeps what is written."""

from __future__ import annotations

import uuid
from typing import Any

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.stores.redis.errors import STORE, as_text, is_forbidden
from is_db_bootstrap.stores.redis.rights import check_missing_key

#: What our keys begin with.
PREFIX = "is-db-bootstrap"
#: Lifetime of the probe key, should its deletion not be reached: seconds.
TTL_S = 5
#: What is sent for the probe key. PTTL is sent too, and a user may lack the right to it.
_COMMANDS = ("DEL", "EXISTS", "GET", "SET")


def new_key() -> str:
    """The name of a key that nobody has."""
    return f"{PREFIX}:probe:{uuid.uuid4().hex}"


def check_rights(client: Any, key: str) -> None:
    """See that the user may send all that `prove` needs; nothing is changed.

    Raises what redis-py raises.
    """
    check_missing_key(client, key, _COMMANDS)


def prove(client: Any, key: str, value: str, target: str) -> bool:
    """Set `key`, read it back and delete it.

    Returns whether its lifetime was seen, which a user without the right to PTTL cannot.
    Interrupted, the key vanishes by its lifetime. Raises what redis-py raises, and
    `StoreUnavailable` when the server does not keep the key.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.set(key, value, px=TTL_S * 1000)
    # By name: a cluster's pipeline has no chain over delete().
    for command in ("GET", "PTTL", "DEL", "EXISTS"):
        pipeline.execute_command(command, key)
    answers = pipeline.execute(raise_on_error=False)
    written, read, ttl_ms, deleted, left = answers
    is_seen = not (isinstance(ttl_ms, Exception) and is_forbidden(ttl_ms))
    for answer in (written, read, deleted, left, *([ttl_ms] if is_seen else [])):
        if isinstance(answer, Exception):
            raise answer
    is_mortal = not is_seen or 0 < ttl_ms <= TTL_S * 1000
    if as_text(read) == value and is_mortal and deleted == 1 and not left:
        return is_seen
    lifetime = f"{ttl_ms} ms" if is_seen else "not seen"
    raise StoreUnavailable(
        STORE,
        f"{target} did not keep the key {key}: "
        f"read {'nothing' if read is None else 'another value'}, "
        f"lifetime {lifetime}, deleted {deleted}, left {left}.",
        hint="See whether it evicts keys at once (maxmemory), or a proxy answers in its place.",
        subject=key,
    )

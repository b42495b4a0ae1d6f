"""What is wrong with a blueprint's declarations about Redis: key patterns and channels."""

from __future__ import annotations

from collections.abc import Iterator

from is_db_bootstrap.blueprint.check import repeated_names
from is_db_bootstrap.blueprint.declarations import Blueprint, KeyPattern
from is_db_bootstrap.stores.redis.pattern_check import PLACEHOLDER, pattern_problems


def problems(blueprint: Blueprint) -> Iterator[str]:
    """Each thing that is wrong, as `keys[0] 'session': …`. No server is asked."""
    for number, key in enumerate(blueprint.keys):
        for problem in _key_problems(key):
            yield f"keys[{number}] {key.name!r}: {problem}"
    for name in repeated_names(key.name for key in blueprint.keys):
        yield f"keys: the name {name!r} is there twice"
    for pattern in repeated_names(_pattern_shape(key) for key in blueprint.keys):
        yield f"keys: the pattern {pattern!r} is there twice"
    for name in repeated_names(channel.name for channel in blueprint.channels):
        yield f"channels: the name {name!r} is there twice"


def _key_problems(key: KeyPattern) -> Iterator[str]:
    if _is_wrong_lifetime(key):
        yield f"the lifetime {key.ttl!r} is no range of seconds"
    if key.ttl is None and not key.reason:
        yield "a persistent key needs a reason"
    yield from pattern_problems(key)


def _is_wrong_lifetime(key: KeyPattern) -> bool:
    shortest, longest = key.ttl if isinstance(key.ttl, tuple) else (key.ttl, key.ttl)
    if shortest is None or longest is None:
        return False
    return not 0 < shortest <= longest


def _pattern_shape(key: KeyPattern) -> str:
    """The pattern without the names of its placeholders: two of one shape fit the same keys."""
    return PLACEHOLDER.sub("{}", key.pattern)

"""What a blueprint declares about Redis: key patterns and channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.blueprint.plain import plain_value
from is_db_bootstrap.stores.description import Branch, Declared, counted, listing

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """The key patterns and the channels."""
    return {
        "keys": [plain_value(key) for key in blueprint.keys],
        "channels": [plain_value(channel) for channel in blueprint.channels],
    }


def count_declared(declared: Declared) -> dict[str, int]:
    """How many key patterns and channels."""
    return {
        "key patterns": len(declared.get("keys", ())),
        "channels": len(declared.get("channels", ())),
    }


def outline(declared: Declared) -> list[Branch]:
    """A line for each key pattern and each channel."""
    keys = {key["pattern"]: _key(key) for key in declared["keys"]}
    channels = {channel["pattern"]: channel["purpose"] for channel in declared["channels"]}
    return [*listing("keys", keys), *listing("channels", channels)]


def diagram(declared: Declared) -> list[str]:  # noqa: ARG001 - the contract's signature
    """Nothing: keys do not refer to each other."""
    return []


def verified_lines(declared: Declared) -> list[str]:
    """One line for all."""
    return [counted(key_patterns=len(declared["keys"]), channels=len(declared["channels"]))]


def _key(key: Mapping[str, Any]) -> str:
    return f"{key['type']}, {_lifetime(key.get('ttl'))}: {key['purpose']}"


def _lifetime(ttl: int | list[int] | None) -> str:
    """Such as `60 s`, `60..120 s` for a shortest and a longest one, or `persistent`."""
    if ttl is None:
        return "persistent"
    if isinstance(ttl, list):
        return f"{'..'.join(map(str, ttl))} s"
    return f"{ttl} s"

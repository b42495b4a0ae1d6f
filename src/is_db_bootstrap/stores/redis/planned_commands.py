"""The commands of a run, written for a person to read: the record, and lifetimes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import KeyPattern
    from is_db_bootstrap.stores.redis.convention_record import Record

_INDENT = "    "


def shown_record(key: str, before: Record | None, after: Record) -> str:
    """`SET` with the key of the record, and a line for each convention that it changes.

    A line begins with `+` for a convention that is new, `~` for one that is other than before, and
    `-` for one that goes. The value itself is a JSON document, which has more than that.
    """
    lines = [f"SET {key} <conventions {after.digest}>"]
    was = before.conventions if before else ({}, {})
    for kind, old, new in zip(("key", "channel"), was, after.conventions, strict=True):
        lines += (f"{_INDENT}{line}" for line in _differences(kind, old, new))
    return "\n".join(lines)


def lifetime_change(key: KeyPattern, count: int) -> Change:
    """The repair of a pattern, of which `count` keys have no lifetime."""
    return Change(
        key.name,
        "lifetime",
        f"{counted(count, 'key')} of {key.pattern} without a lifetime",
        Nature.REPEATABLE,
        (f"EXPIRE {key.pattern} {key.longest_ttl}",),
        expected=f"<= {key.longest_ttl} s",
    )


def _differences(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name, value in new.items():
        if name not in old:
            yield f"+ {kind} {name}: {_shown(value)}"
        elif old[name] != value:
            yield f"~ {kind} {name}: {_shown(value)} (was {_shown(old[name])})"
    for name in old:
        if name not in new:
            yield f"- {kind} {name}"


def _shown(value: Mapping[str, Any]) -> str:
    """Such as `session:{id} hash, EXPIRE 3600`."""
    kind = f" {value['type']}" if value.get("type") else ""
    return f"{value.get('pattern', '')}{kind}{_lifetime(value)}"


def _lifetime(value: Mapping[str, Any]) -> str:
    if "ttl_seconds" not in value:
        return ""
    lifetime = value["ttl_seconds"]
    if lifetime is None:
        return ", no EXPIRE"
    if isinstance(lifetime, list):
        shortest, longest = lifetime
        return f", EXPIRE {shortest} to {longest}"
    return f", EXPIRE {lifetime}"

"""What a store holds, as far as it was looked at, and what of it a test session vouches for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Things that are looked at when a session begins or ends, per store (per table of PostgreSQL:
#: rows).
BUDGET = 10_000
#: Things that are looked at while a test runs. More than these are not vouched for then.
BUDGET_IN_A_TEST = 500
#: Kinds and names that one message lists.
_LISTED = 5
_PLURALS = {"index": "indexes", "key": "keys"}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a store: a key, a node, an index, a collection, a table.

    `kind` is what it is in words, `label` what it shares with others of its kind (`:Customer`),
    `name` what it alone is called. `digest` changes when the thing changes, and is empty for what
    cannot be compared. `handle` is what the store's client needs to remove it.
    """

    kind: str
    label: str = ""
    name: str = ""
    digest: str = ""
    handle: Any = None

    @property
    def group(self) -> tuple[str, str]:
        """What a message counts it under."""
        return self.kind, self.label


@dataclass(frozen=True, slots=True)
class Content:
    """What was found in a store.

    `unseen` says in words what was not looked at, and is empty when everything was.
    """

    things: tuple[Thing, ...] = ()
    unseen: str = ""

    def __bool__(self) -> bool:
        return bool(self.things or self.unseen)

    def besides(self, vouched: frozenset[str]) -> Content:
        """What is not vouched for by the digests in `vouched`; what was not looked at never is."""
        return Content(tuple(t for t in self.things if t.digest not in vouched), self.unseen)

    @property
    def counts(self) -> dict[str, int]:
        """How many things there are of each kind."""
        counted = Counter(" ".join(filter(None, t.group)) for t in self.things)
        return dict(sorted(counted.items()))

    def __str__(self) -> str:
        """Kinds with counts and some names, for a message: `2 nodes :Customer, 1 index (customer_name)`."""
        groups: dict[tuple[str, str], list[str]] = {}
        for thing in self.things:
            groups.setdefault(thing.group, []).append(thing.name)
        largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
        parts = [_counted(kind, label, names) for (kind, label), names in largest[:_LISTED]]
        rest = sum(len(names) for _, names in largest[_LISTED:])
        if rest:
            parts.append(f"{rest} of other kinds")
        if self.unseen:
            parts.append(self.unseen)
        return ", ".join(parts)


def _counted(kind: str, label: str, names: list[str]) -> str:
    word = kind if len(names) == 1 else _PLURALS.get(kind, f"{kind}s")
    shown = [name for name in sorted(names) if name]
    listed = ", ".join([*shown[:_LISTED], *(["…"] if len(shown) > _LISTED else [])])
    return " ".join(filter(None, (str(len(names)), word, label, f"({listed})" if listed else "")))


@dataclass(frozen=True, slots=True)
class Seal:
    """What a session vouches for in a store: counts for people, and a digest of each thing that it saw.

    A thing whose digest is not among them was written, or changed, by somebody else.
    """

    digests: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Content) -> Seal:
        """Vouches for all that was looked at."""
        return cls(frozenset(t.digest for t in content.things if t.digest), content.counts)

    @classmethod
    def read(cls, text: str | bytes | None) -> Seal | None:
        """The seal in a mark; None where there is none, or none that can be read."""
        try:
            document = json.loads(text or "null")
            return cls(frozenset(map(str, document["digests"])), dict(document["counts"]))
        except (ValueError, TypeError, KeyError):
            return None

    def text(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {"counts": dict(self.counts), "digests": sorted(self.digests)}, separators=(",", ":")
        )


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits of all `parts`; dictionaries in any order give the same."""
    told = hashlib.sha256()
    for part in parts:
        told.update(_plain(part))
        told.update(b"\0")
    return told.hexdigest()[:16]


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        return repr(sorted((str(k), repr(v)) for k, v in value.items())).encode(
            errors="surrogateescape"
        )
    return repr(value).encode(errors="surrogateescape")

"""What was found in a store, and the part of the content that a test session vouches for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Things of one store that are looked at when a session begins or ends. In PostgreSQL this
#: is also how many rows of one table are looked at.
BUDGET = 10_000
#: Things of one store that are looked at while a test runs. If there are more, none is vouched for.
BUDGET_IN_A_TEST = 500
#: Kinds and names that one message lists.
_LISTED = 5
_PLURALS = {"index": "indexes", "key": "keys"}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a store: a key, a node, an index, a collection, a table.

    `kind` says in words what the thing is. `label` is what the thing shares with others of its kind
    (`:Customer`). `name` is its own name. `digest` changes when the thing changes, and is empty for
    a thing that cannot be compared. `handle` is what the store's client needs to remove the thing.
    """

    kind: str
    label: str = ""
    name: str = ""
    digest: str = ""
    handle: Any = None

    @property
    def group(self) -> tuple[str, str]:
        """The kind and label under which a message counts the thing."""
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
        """The things whose digest is not in `vouched`, and what was not looked at."""
        others = [thing for thing in self.things if thing.digest not in vouched]
        return Content(tuple(others), self.unseen)

    @property
    def counts(self) -> dict[str, int]:
        """How many things there are of each kind and label."""
        groups = Counter(" ".join(filter(None, thing.group)) for thing in self.things)
        return dict(sorted(groups.items()))

    def __str__(self) -> str:
        """Kinds with counts and some names, for a message.

        An example is `2 nodes :Customer, 1 index (customer_name)`.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for thing in self.things:
            groups.setdefault(thing.group, []).append(thing.name)
        largest_first = sorted(groups, key=lambda group: (-len(groups[group]), group))
        listed, rest = largest_first[:_LISTED], largest_first[_LISTED:]
        parts = [_count_in_words(*group, groups[group]) for group in listed]
        if rest:
            count = sum(len(groups[group]) for group in rest)
            parts.append(f"{count} of other kinds")
        if self.unseen:
            parts.append(self.unseen)
        return ", ".join(parts)


def _count_in_words(kind: str, label: str, names: list[str]) -> str:
    """How many things of one kind and label there are, with some of their names."""
    count = len(names)
    noun = kind if count == 1 else _PLURALS.get(kind, f"{kind}s")
    parts = [str(count), noun]
    if label:
        parts.append(label)
    known_names = [name for name in sorted(names) if name]
    if known_names:
        shown = known_names[:_LISTED]
        if len(known_names) > _LISTED:
            shown.append("…")
        parts.append(f"({', '.join(shown)})")
    return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Seal:
    """What a session vouches for in a store.

    `digests` has a digest of each thing that the session saw. A thing with another digest was
    written, or changed, by somebody else. `counts` is for people who read the seal.
    """

    digests: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Content) -> Seal:
        """A seal that vouches for all things that were looked at and can be compared."""
        digests = [thing.digest for thing in content.things if thing.digest]
        return cls(frozenset(digests), content.counts)

    @classmethod
    def read(cls, text: str | bytes | None) -> Seal | None:
        """The seal in a mark. None where there is no seal that can be read."""
        try:
            document = json.loads(text or "null")
            return cls(frozenset(map(str, document["digests"])), dict(document["counts"]))
        except (ValueError, TypeError, KeyError):
            return None

    def text(self) -> str:
        """The seal as one line of JSON."""
        document = {"counts": dict(self.counts), "digests": sorted(self.digests)}
        return json.dumps(document, separators=(",", ":"))


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits of all `parts`.

    Dictionaries with the same items give the same digest, in whatever order the items are.
    """
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(_as_bytes(part))
        hashed.update(b"\0")
    return hashed.hexdigest()[:16]


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        items = sorted((str(key), repr(item)) for key, item in value.items())
        return repr(items).encode(errors="surrogateescape")
    return repr(value).encode(errors="surrogateescape")

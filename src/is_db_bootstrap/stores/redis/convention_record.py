"""The record of key conventions: what was applied to a Redis, as one JSON document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from is_db_bootstrap.blueprint import Blueprint, Channel, KeyPattern
from is_db_bootstrap.engine.lineage import Comparison, Lineage, Standing
from is_db_bootstrap.wording import counted

#: Digests that a record remembers, so that older code recognises newer conventions.
_REMEMBERED = 100
#: Earlier versions of which a record keeps what they declared, so that another line of versions is
#: recognised.
_KEPT_VERSIONS = 20
#: A version that meets another version's record this soon after it was written has started together
#: with that one, and the order in which they recorded does not tell which is newer: seconds.
TOGETHER_S = 60.0

#: Name of a pattern or a channel, to a digest of what is declared of it.
Entries = Mapping[str, str]


class Order(Enum):
    """How the order of two versions is known."""

    #: From the record. A version that is not recorded goes on from the one that it is most like.
    RECORDED = "recorded"
    #: From nothing: both have just started together. The declared version is a part of the recorded
    #: one, so it is taken for the older one until it runs again.
    SUPPOSED = "supposed"
    #: Not at all. The declared version is written, and the other one wins with its next run.
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Found:
    """How a declared version stands to a record.

    `since` is the recorded version from which a diverged one goes on: its digest and its entries.
    """

    lines: Comparison
    order: Order = Order.RECORDED
    since: tuple[str, Entries] | None = None

    @property
    def standing(self) -> Standing:
        """How the recorded line of versions stands to the declared one."""
        return self.lines.standing


@dataclass(frozen=True, slots=True)
class Record:
    """Conventions by name, and the digests of all that were recorded before.

    `history` has these digests, the oldest first, ending with these conventions' own. `versions`
    has, for the latest of them, what each declared. `recorded_at` is when these were written, in
    seconds since 1970 by the server's clock, or None when the version that wrote them kept no time.
    `undecided` are those digests of `history` that may just as well be newer than
    these conventions.
    """

    blueprint: str
    patterns: Mapping[str, Mapping[str, Any]]
    channels: Mapping[str, Mapping[str, Any]]
    history: tuple[str, ...] = ()
    versions: Mapping[str, Entries] = field(default_factory=dict)
    recorded_at: float | None = None
    undecided: tuple[str, ...] = ()

    @classmethod
    def declared(cls, blueprint: Blueprint) -> Record:
        """The record that `blueprint` asks for."""
        patterns = {key.name: _pattern(key) for key in blueprint.keys}
        channels = {channel.name: _channel(channel) for channel in blueprint.channels}
        record = cls(blueprint.name, patterns, channels)
        return cls(blueprint.name, patterns, channels, (record.digest,))

    @classmethod
    def read(cls, text: bytes | str) -> Record:
        """The record in `text`; `ValueError` when there is none."""
        document = json.loads(text)
        try:
            record = cls(
                document["blueprint"],
                document["patterns"],
                document["channels"],
                tuple(document["history"]),
            )
        except (KeyError, TypeError):
            raise ValueError("a part of it is missing") from None
        later = document.get("versions"), document.get("recorded_at")
        if isinstance(later[0], dict) and isinstance(later[1], int | float):
            record = replace(record, versions=later[0], recorded_at=later[1])
        undecided = document.get("undecided", [])
        if isinstance(undecided, list):
            record = replace(record, undecided=tuple(undecided))
        if not isinstance(record.patterns, dict) or not isinstance(record.channels, dict):
            message = "its patterns and channels are no objects"
            raise ValueError(message)  # noqa: TRY004 - one error for a bad text
        return record

    def text(self) -> str:
        """The JSON document, sorted, so that a person can compare two of them."""
        parts = {"blueprint": self.blueprint, "patterns": self.patterns, "channels": self.channels}
        later: dict[str, Any] = (
            {"versions": self.versions, "recorded_at": self.recorded_at} if self.versions else {}
        )
        if self.undecided:
            later["undecided"] = self.undecided
        return json.dumps(
            parts | {"history": self.history} | later, sort_keys=True, ensure_ascii=False
        )

    @property
    def conventions(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What is compared."""
        return self.patterns, self.channels

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name these conventions."""
        return hashlib.sha256(json.dumps(self.conventions, sort_keys=True).encode()).hexdigest()[
            :12
        ]

    def summary(self) -> str:
        """For people: how many, and the digest."""
        patterns = counted(len(self.patterns), "key pattern")
        return f"{patterns}, {counted(len(self.channels), 'channel')} ({self.digest})"

    @property
    def entries(self) -> Entries:
        """A digest of each pattern and channel."""
        kinds = {"key": self.patterns, "channel": self.channels}
        return {
            f"{kind} {name}": _digest(value)
            for kind, named in kinds.items()
            for name, value in named.items()
        }

    def compare(self, declared: Record, *, together: bool = False) -> Found:
        """How `declared` stands to this record, by the lines of versions that led to both.

        A record keeps the line that led to it. That of `declared` is read from the record: a
        version that was recorded before is a part of the line, and any other goes on from a version
        in it.

        `together` says that the declaring run and the one that wrote this record began at about
        the same time, so that the order in which they recorded tells nothing. Where nothing tells
        the order, the larger version counts as newer while both are being started.
        """
        recorded = self._recorded_line(self._decided)
        if declared.conventions == self.conventions:
            return Found(recorded.compare(recorded))
        *earlier, last = self._decided or ("",)
        if together and self._may_be_newer_than(declared):
            supposed = self._recorded_line((*earlier, declared.digest, last))
            line = _declared_line((*earlier, declared.digest), declared)
            return Found(supposed.compare(line), Order.SUPPOSED)
        base, order = self._base_of(declared, together=together)
        behind = self._decided[: self._decided.index(base) + 1] if base else self._decided
        names = behind if base == declared.digest else (*behind, declared.digest)
        found = recorded.compare(_declared_line(names, declared))
        return Found(found, order, (base, self.versions.get(base, {})) if base else None)

    @property
    def _was_edited(self) -> bool:
        return not self.history or self.history[-1] != self.digest

    @property
    def _decided(self) -> tuple[str, ...]:
        """The versions whose order is known, the oldest first, and that of this record."""
        earlier = [digest for digest in self.history[:-1] if digest not in self.undecided]
        return (*earlier, *self.history[-1:])

    def _recorded_line(self, names: Sequence[str]) -> Lineage:
        """The versions `names`, the last of which has these conventions, edited or not."""
        steps = Lineage.in_order(*names).steps
        return Lineage((*steps[:-1], *(replace(s, digests=_only(self.digest)) for s in steps[-1:])))

    def _may_be_newer_than(self, declared: Record) -> bool:
        """Whether `declared` is a part of this record, which does not tell their order."""
        is_known = declared.digest in self._decided
        return not is_known and not self._was_edited and self.contains(declared)

    def _base_of(self, declared: Record, *, together: bool) -> tuple[str, Order]:
        """The recorded version that `declared` is, or goes on from. Empty: from the last one."""
        if declared.digest in self._decided:
            return declared.digest, Order.RECORDED
        if self._was_edited:
            return "", Order.RECORDED
        is_decided = declared.digest not in self.undecided
        if is_decided and (base := self._earlier_base(declared)):
            return base, Order.RECORDED
        is_later = declared.contains(self) or self._is_followed_by(declared)
        is_undecided = not is_decided or (together and not is_later)
        return "", Order.UNDECIDED if is_undecided else Order.RECORDED

    def age_s(self, now: float) -> float:
        """Seconds since these conventions were written; infinite when that is not known."""
        return float("inf") if self.recorded_at is None else abs(now - self.recorded_at)

    def contains(self, declared: Record) -> bool:
        """Whether everything that is declared is recorded as it is declared."""
        return declared.entries.items() <= self.entries.items()

    def _earlier_base(self, declared: Record) -> str:
        """The earlier version from which `declared` goes on. Empty when there is none.

        `declared` then has nothing of what this record changed since: it is as that version was.
        """
        ours, theirs = self.entries, declared.entries
        for digest in self._decided[:-1]:
            before = self.versions.get(digest)
            if before is None:
                continue
            changed = [name for name in {*before, *ours} if before.get(name) != ours.get(name)]
            if changed and all(theirs.get(name) == before.get(name) for name in changed):
                return digest
        return ""

    def _is_followed_by(self, declared: Record) -> bool:
        """Whether `declared` has something that this record added to the version before it."""
        decided = self._decided
        before = self.versions.get(decided[-2]) if len(decided) > 1 else None
        if before is None:
            return False
        ours, theirs = self.entries, declared.entries
        changed = [name for name in ours if before.get(name) != ours[name]]
        return any(
            theirs.get(name) == ours[name] or (name in theirs and name not in before)
            for name in changed
        )

    def after(
        self, before: Record | None, now: float | None = None, *, together: bool = False
    ) -> Record:
        """The same conventions with the history of the record that they replace, written at `now`.

        `together` means what it means for `compare`.
        """
        past = [digest for digest in before.history if digest != self.digest] if before else []
        history = (*past[1 - _REMEMBERED :], self.digest)
        known = {**(before.versions if before else {}), self.digest: self.entries}
        if before:
            known.setdefault(before.digest, before.entries)
        versions = {
            digest: known[digest] for digest in history[-_KEPT_VERSIONS:] if digest in known
        }
        undecided = self._undecided_after(before, together=together) if before else ()
        return Record(
            self.blueprint,
            self.patterns,
            self.channels,
            history,
            versions,
            now,
            tuple(digest for digest in undecided if digest in versions),
        )

    def _undecided_after(self, before: Record, *, together: bool) -> tuple[str, ...]:
        """Which earlier versions may be newer than these conventions, once they replace `before`.

        A version that comes later than the undecided ones is newer than all of them.
        """
        if before.compare(self, together=together).order is Order.UNDECIDED:
            others = [digest for digest in before.undecided if digest != self.digest]
            return (*others, before.digest)
        if not together:
            return ()
        ours = self.entries.items()
        return tuple(
            digest
            for digest in before.undecided
            if not before.versions.get(digest, {}).items() <= ours
        )

    def remembering(self, older: Record) -> Record:
        """The same record, which knows `older` as a version that may be newer than its own."""
        past = [digest for digest in self.history[:-1] if digest != older.digest]
        history = (*past[2 - _REMEMBERED :], older.digest, self.digest)
        versions = {**self.versions, older.digest: older.entries, self.digest: self.entries}
        others = [digest for digest in self.undecided if digest != older.digest]
        return replace(self, history=history, versions=versions, undecided=(*others, older.digest))

    def difference(self, recorded: Record | None) -> str:
        """What writing this record changes, in a few words."""
        if recorded is None:
            return f"record {self.summary()}"
        words = [
            _difference(new, old)
            for new, old in zip(self.conventions, recorded.conventions, strict=True)
        ]
        return "; ".join(filter(None, words))


def _only(digest: str) -> frozenset[str]:
    return frozenset([digest])


def _declared_line(names: Sequence[str], declared: Record) -> Lineage:
    """The versions `names`, the last of which is declared, and may be written again."""
    *earlier, last = Lineage.in_order(*names).steps
    return Lineage((*earlier, replace(last, digests=_only(declared.digest), may_repeat=True)))


def changed_entries(before: Entries, after: Entries) -> str:
    """What differs between two versions, in a few words, such as `change key cart`."""
    return _difference(after, before)


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    kinds = {
        "add": [name for name in new if name not in old],
        "change": [name for name in new if name in old and new[name] != old[name]],
        "remove": [name for name in old if name not in new],
    }
    return "; ".join(f"{verb} {', '.join(names)}" for verb, names in kinds.items() if names)


def _pattern(key: KeyPattern) -> dict[str, Any]:
    ttl = list(key.ttl) if isinstance(key.ttl, tuple) else key.ttl
    return {
        "pattern": key.pattern,
        "type": key.type,
        "ttl_seconds": ttl,
        "owner": key.owner,
        "purpose": key.purpose,
        "placeholders": dict(key.placeholders),
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {"pattern": channel.pattern, "purpose": channel.purpose}

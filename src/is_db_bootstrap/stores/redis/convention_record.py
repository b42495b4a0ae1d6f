"""The record of key conventions: what was applied to a Redis, as one JSON document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from is_db_bootstrap.blueprint import Blueprint, Channel, KeyPattern

#: Digests that a record remembers, so that older code recognises newer conventions.
_REMEMBERED = 100


@dataclass(frozen=True, slots=True)
class Record:
    """Conventions by name, and the digests of all that were recorded before, oldest first, ending with these."""

    blueprint: str
    patterns: Mapping[str, Mapping[str, Any]]
    channels: Mapping[str, Mapping[str, Any]]
    history: tuple[str, ...] = ()

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
            record = cls(document["blueprint"], document["patterns"], document["channels"], tuple(document["history"]))
        except (KeyError, TypeError):
            raise ValueError("a part of it is missing") from None
        if not isinstance(record.patterns, dict) or not isinstance(record.channels, dict):
            raise ValueError("its patterns and channels are no objects")  # noqa: TRY004 - one error for a bad text
        return record

    def text(self) -> str:
        """The JSON document, sorted, so that a person can compare two of them."""
        parts = {"blueprint": self.blueprint, "patterns": self.patterns, "channels": self.channels}
        return json.dumps(parts | {"history": self.history}, sort_keys=True, ensure_ascii=False)

    @property
    def conventions(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What is compared."""
        return self.patterns, self.channels

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name these conventions."""
        return hashlib.sha256(json.dumps(self.conventions, sort_keys=True).encode()).hexdigest()[:12]

    def summary(self) -> str:
        """For people: how many, and the digest."""
        return f"{len(self.patterns)} key patterns, {len(self.channels)} channels ({self.digest})"

    def goes_beyond(self, declared: Record) -> bool:
        """Whether `declared` was recorded here once and was followed by others, untouched since."""
        return declared.digest in self.history[:-1] and self.history[-1] == self.digest

    def after(self, before: Record | None) -> Record:
        """The same conventions with the history of the one that it replaces."""
        past = [digest for digest in before.history if digest != self.digest] if before else []
        return Record(self.blueprint, self.patterns, self.channels, (*past[1 - _REMEMBERED :], self.digest))

    def difference(self, recorded: Record | None) -> str:
        """What writing this record changes, in a few words."""
        if recorded is None:
            return f"record {self.summary()}"
        words = [_difference(new, old) for new, old in zip(self.conventions, recorded.conventions, strict=True)]
        return "; ".join(filter(None, words))


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

"""The whole table of a keyspace: each pattern, and each prefix that fits none."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from is_db_bootstrap.blueprint import KeyPattern
from is_db_bootstrap.stores.redis.errors import is_forbidden
from is_db_bootstrap.stores.redis.key_audit import CURSOR_BITS, lifetime_or_type_fault
from is_db_bootstrap.stores.redis.key_patterns import PatternTable, name_text, prefix_of
from is_db_bootstrap.stores.redis.key_reader import (
    BATCH,
    NO_LIFETIME_MS,
    Chosen,
    KeyReader,
    Look,
)

#: Keys of each row whose memory is asked for.
SAMPLES = 100
#: Different prefixes of undeclared keys that get rows of their own, and the row of all others.
_PREFIXES, OTHERS = 1_000, "(other prefixes)"
#: The classes of lifetimes, each with its upper end in milliseconds.
_LIFETIMES = (
    ("1 min", 60_000),
    ("1 h", 3_600_000),
    ("1 d", 86_400_000),
    ("7 d", 604_800_000),
    ("30 d", 2_592_000_000),
)
PERSISTENT, LONGER = "persistent", "longer"
#: The names of all classes, in their order.
LIFETIME_CLASSES = (*(name for name, _ in _LIFETIMES), LONGER, PERSISTENT)


@dataclass(slots=True)
class KeyRow:
    """The keys of one pattern, or of one prefix that fits none: then `pattern` is None.

    `lifetimes` counts keys by the class of their lifetime, `faults` by what they break. `memory` is
    an estimate in bytes, or None when it was not asked for.
    """

    name: str
    pattern: KeyPattern | None = None
    keys: int = 0
    types: Counter[str] = field(default_factory=Counter)
    lifetimes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    memory: int | None = None
    samples: list[bytes] = field(default_factory=list)

    def add(self, look: Look) -> None:
        """Count one key, and keep it as a sample by chance: each key has the same one."""
        self.keys += 1
        self.types[look.kind] += 1
        self.lifetimes[lifetime_class(look.ttl_ms)] += 1
        if fault := fault_word(look):
            self.faults[fault] += 1
        if len(self.samples) < SAMPLES:
            self.samples.append(look.name)
        elif (place := secrets.randbelow(self.keys)) < SAMPLES:
            self.samples[place] = look.name


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Every row, and how much of the store was looked at.

    `forbidden` counts keys that this user may not look at. `notes` are remarks for people.
    """

    declared: Sequence[KeyRow]
    undeclared: Sequence[KeyRow]
    looked_at: int
    total: int
    is_complete: bool
    forbidden: int
    notes: Sequence[str]

    @property
    def lifetime_classes(self) -> Sequence[str]:
        """The names of the classes of lifetimes, the shortest first."""
        return LIFETIME_CLASSES

    @property
    def broken(self) -> int:
        """How many keys break the pattern that they fit."""
        return sum(row.faults.total() for row in self.declared)


def lifetime_class(ttl_ms: int) -> str:
    """The class of a lifetime, such as `1 h` for one that is no longer than that."""
    if ttl_ms == NO_LIFETIME_MS:
        return PERSISTENT
    return next((name for name, end_ms in _LIFETIMES if ttl_ms <= end_ms), LONGER)


def fault_word(look: Look) -> str:
    """What a key breaks, in one or two words. Empty for one that breaks nothing."""
    key = look.pattern
    if key is None or lifetime_or_type_fault(look) is None:
        return ""
    if look.kind != key.type:
        return "other type"
    if look.ttl_ms == NO_LIFETIME_MS:
        return "no lifetime"
    return "too long" if key.longest_ttl is not None else "mortal"


class TableReader:
    """Reads a keyspace into a table. `budget` is the most keys to look at, or None for all."""

    def __init__(self, keys: Sequence[KeyPattern], budget: int | None, *, memory: bool) -> None:
        self._table = PatternTable(keys)
        self._declared = {key.name: KeyRow(key.name, key) for key in keys}
        self._undeclared: dict[str, KeyRow] = {}
        self._budget = budget
        self._memory = memory
        self._notes: list[str] = []

    def read(self, masters: Sequence[Any]) -> KeyTable:
        """The table of all masters together. Raises what redis-py raises."""
        looked_at = total = forbidden = 0
        is_complete = True
        for number, master in enumerate(masters):
            reader = KeyReader(master)
            count = reader.count_keys()
            total += count
            budget, start = 2 * count + BATCH, 0
            if self._budget is not None:
                budget = (self._budget - looked_at) // (len(masters) - number)
                start = 0 if count <= budget else secrets.randbits(CURSOR_BITS)
            before = self._sample_counts()
            for batch in reader.batches(budget, self._chosen, start):
                looked_at += len(batch.names)
                forbidden += batch.forbidden
                for look in batch.looks:
                    self._row_of(look).add(look)
            is_complete &= reader.is_complete
            if self._memory:
                self._weigh(master, before)
        undeclared = sorted(self._undeclared.values(), key=lambda row: -row.keys)
        return KeyTable(
            [*self._declared.values()],
            undeclared,
            looked_at,
            total,
            is_complete,
            forbidden,
            self._notes,
        )

    def _chosen(self, names: Sequence[bytes]) -> list[Chosen]:
        texts = [name_text(name) for name in names]
        find = self._table.find
        return [Chosen(name, text, find(text)) for name, text in zip(names, texts, strict=True)]

    def _row_of(self, look: Look) -> KeyRow:
        if look.pattern is not None:
            return self._declared[look.pattern.name]
        prefix = prefix_of(look.text)
        if prefix not in self._undeclared and len(self._undeclared) >= _PREFIXES:
            prefix = OTHERS
        return self._undeclared.setdefault(prefix, KeyRow(prefix))

    def _rows(self) -> list[KeyRow]:
        return [*self._declared.values(), *self._undeclared.values()]

    def _sample_counts(self) -> Mapping[str, int]:
        return {row.name: row.keys for row in self._rows()}

    def _weigh(self, master: Any, before: Mapping[str, int]) -> None:
        """Estimate the memory of the keys of one master that were added to each row."""
        for row in self._rows():
            added = row.keys - before.get(row.name, 0)
            samples, row.samples = row.samples, []
            if not added:
                continue
            pipeline = master.pipeline(transaction=False)
            for name in samples:
                pipeline.memory_usage(name)
            answers = pipeline.execute(raise_on_error=False)
            refused = next((each for each in answers if isinstance(each, Exception)), None)
            if refused is not None and is_forbidden(refused):
                self._memory = False
                self._notes.append(f"Memory was not looked at: {refused} (+memory|usage).")
                return
            sizes = [size for size in answers if isinstance(size, int)]
            if sizes:
                row.memory = (row.memory or 0) + round(sum(sizes) / len(sizes) * added)

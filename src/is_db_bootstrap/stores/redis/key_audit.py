"""The audit of keys: a bounded look at a keyspace, compared with its conventions."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from is_db_bootstrap.blueprint import KeyPattern
from is_db_bootstrap.results import DifferenceKind, Drift
from is_db_bootstrap.stores.redis.key_patterns import EMPTY_NAME, PatternTable, name_text, prefix_of
from is_db_bootstrap.stores.redis.key_reader import (
    BATCH,
    NO_LIFETIME_MS,
    Batch,
    Chosen,
    KeyReader,
    Look,
)
from is_db_bootstrap.stores.redis.mending import expiry, persistence, written_key
from is_db_bootstrap.stores.redis.probe import PREFIX
from is_db_bootstrap.wording import LONGEST_NAME, counted, cut, noun

#: Keys of one pattern that are named, and prefixes of undeclared keys. The rest is counted.
NAMED = 5
#: Names of keys that are remembered, so that a key which SCAN repeats is told once.
_REMEMBERED = 20_000
#: Different prefixes of undeclared keys that are told apart.
_PREFIXES = 1_000
_OTHER_TYPE = (
    "Redis turns no key into another type: see which program writes it and whether its value is "
    "needed, have it write a {}, and delete the key: DEL {}"
)
_TOO_LONG = (
    "its name of {:,} bytes is too long to be written here; `is-db-bootstrap redis fix-ttl` sets a "
    "lifetime that is missing"
)
_SEE_ALL = "`is-db-bootstrap redis audit` counts them, and `redis fix-ttl` sets missing lifetimes"
_UNDECLARED = "see which program writes them, and declare their pattern in the blueprint"
_NOT_ALLOWED = "let this user read these keys (ACL SETUSER … %R~pattern +type +pttl)"
#: Bits of a random cursor. Every number is a cursor of SCAN, on each version.
CURSOR_BITS = 48


class Fault(NamedTuple):
    """What is wrong with a key: a message, what is declared, and what is there."""

    message: str
    expected: str
    actual: str


class Audit:
    """One look at no more than `budget` keys of all masters together.

    Where there are more keys than that, the look begins at a random place. So repeated runs see
    the whole store, also when several run at once, and nothing has to be remembered anywhere.
    """

    def __init__(self, keys: Sequence[KeyPattern], budget: int) -> None:
        self._table = PatternTable(keys)
        self._budget = budget
        self._looked_at = 0
        self._total = 0
        self._forbidden = 0
        self._is_complete = True
        self._told: set[str] = set()
        self._drifts: list[Drift] = []
        self._broken: Counter[str] = Counter()
        self._undeclared: Counter[str] = Counter()
        self._reader: KeyReader | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """From another thread: end it after the batch that is read now."""
        self._is_stopped = True
        if self._reader is not None:
            self._reader.stopped = True

    def findings(self, masters: Sequence[Any]) -> list[Drift]:
        """What breaks a convention, and which keys fit none.

        A last remark, no finding, when the budget ended before the keyspace.
        """
        left = self._budget
        for number, master in enumerate(masters):
            left -= self._look_at(master, left // (len(masters) - number))
        return [*self._drifts, *self._counted(), *self._fitting_none(), *self._not_seen()]

    def _look_at(self, master: Any, budget: int) -> int:
        """Look at keys of one master. Returns how many these were."""
        reader = self._reader = KeyReader(master)
        reader.stopped = self._is_stopped
        total = reader.count_keys()
        start, spent = 0, 0
        if total > budget:
            start = secrets.randbits(CURSOR_BITS)
        else:
            budget += BATCH  # The last SCAN may come behind the last key.
        for batch in reader.batches(budget, self._chosen, start):
            spent += len(batch.names)
            self._judge(batch)
        self._total += total
        self._looked_at += spent
        self._is_complete &= reader.is_complete
        return spent

    def _chosen(self, names: Sequence[bytes]) -> list[Chosen]:
        """The keys that fit a pattern. The others are counted by their prefix."""
        find, chosen = self._table.find, []
        for name in names:
            text = name_text(name)
            pattern = find(text)
            if pattern is not None:
                chosen.append(Chosen(name, text, pattern))
            elif not text.startswith(PREFIX):
                self._count_undeclared(prefix_of(text))
        return chosen

    def _count_undeclared(self, prefix: str) -> None:
        is_known = prefix in self._undeclared
        if is_known or len(self._undeclared) < _PREFIXES:
            self._undeclared[prefix] += 1
        else:
            self._undeclared[""] += 1

    def _judge(self, batch: Batch) -> None:
        self._forbidden += batch.forbidden
        for look in batch.looks:
            fault = lifetime_or_type_fault(look)
            if fault is not None and look.pattern is not None and look.text not in self._told:
                self._tell(look, look.pattern, Fault(*fault))

    def _tell(self, look: Look, key: KeyPattern, fault: Fault) -> None:
        """Count a key that breaks its convention, and name it while it is one of the first."""
        if len(self._told) < _REMEMBERED:
            self._told.add(look.text)
        self._broken[key.name] += 1
        if self._broken[key.name] <= NAMED:
            message = f"{fault.message} ({key.name}: {key.pattern})"
            fix, reason = _mending(look, key)
            found = Drift(
                cut(look.text, LONGEST_NAME),
                "key",
                message,
                fault.expected,
                fault.actual,
                fix,
                reason,
                finding=True,
                difference=DifferenceKind.DIFFERENT,
                statements=(fix,) if fix else (),
            )
            self._drifts.append(found)

    def _counted(self) -> Iterator[Drift]:
        for key in self._table.keys:
            if (more := self._broken[key.name] - NAMED) > 0:
                keys, break_it = ("key", "breaks") if more == 1 else ("keys", "break")
                message = f"{more} more {keys} of {key.name} {break_it} it"
                yield Drift(
                    key.pattern,
                    "key pattern",
                    message,
                    reason=_SEE_ALL,
                    finding=True,
                    difference=DifferenceKind.DIFFERENT,
                )

    def _fitting_none(self) -> Iterator[Drift]:
        named = [prefix for prefix, _ in self._undeclared.most_common() if prefix][:NAMED]
        for prefix in named:
            count = self._undeclared[prefix]
            keys = noun(count, "key that begins so fits", "keys that begin so fit")
            message = f"{count} {keys} no declared pattern"
            if prefix == EMPTY_NAME:
                message = "a key with an empty name fits no declared pattern"
            shown = cut(prefix, LONGEST_NAME)
            yield _undeclared(shown, "key prefix", message)
        more = self._undeclared.total() - sum(self._undeclared[prefix] for prefix in named)
        if more:
            keys = noun(more, "key with another prefix fits", "keys with other prefixes fit")
            message = f"{more} more {keys} no declared pattern"
            yield _undeclared("keyspace", "audit", message)

    def _not_seen(self) -> Iterator[Drift]:
        if self._forbidden:
            keys = noun(self._forbidden, "key was", "keys were")
            message = f"{self._forbidden} {keys} not looked at: this user may not read them"
            yield Drift("keyspace", "audit", message, reason=_NOT_ALLOWED, finding=True)
        if not self._is_complete:
            message = (
                f"looked at {self._looked_at} of {counted(self._total, 'key')} "
                f"(scan_budget {self._budget}), from a random place on"
            )
            yield Drift("keyspace", "audit", message)


def _undeclared(what: str, kind: str, message: str) -> Drift:
    """A finding about keys that nobody has declared."""
    extra = DifferenceKind.EXTRA
    return Drift(what, kind, message, reason=_UNDECLARED, finding=True, difference=extra)


def _mending(look: Look, key: KeyPattern) -> tuple[str | None, str]:
    """The command that mends a key, or the reason why there is none."""
    if len(look.name) > LONGEST_NAME:
        return None, _TOO_LONG.format(len(look.name))
    if look.kind != key.type:
        return None, _OTHER_TYPE.format(key.type, written_key(look.name))
    if key.longest_ttl is None:
        return persistence(look.name), ""
    return expiry(look.name, key.longest_ttl), ""


def lifetime_or_type_fault(look: Look) -> tuple[str, str, str] | None:
    """Message, expected and actual, when a key breaks its convention.

    The type comes first, because a key of another type is another thing's.
    """
    key = look.pattern
    if key is None:
        return None
    if look.kind != key.type:
        return f"is a {look.kind}, declared is a {key.type}", key.type, look.kind
    if key.longest_ttl is None and key.may_expire:
        return None
    return _lifetime_fault(look.ttl_ms, key.longest_ttl)


def _lifetime_fault(ttl_ms: int, longest: int | None) -> tuple[str, str, str] | None:
    """What is wrong with a lifetime in milliseconds; the longest declared one is in seconds."""
    if ttl_ms == NO_LIFETIME_MS:
        if longest is None:
            return None
        message = (
            f"has no lifetime, declared are at most {longest} s; "
            "is-db-bootstrap redis fix-ttl sets it"
        )
        return message, f"<= {longest} s", "none"
    if longest is not None and ttl_ms <= longest * 1000:
        return None
    left_s = f"{ttl_ms / 1000:.0f} s"
    if longest is None:
        return f"vanishes in {left_s}, declared as persistent", "none", left_s
    message = f"lives {left_s} longer, declared are at most {longest} s"
    return message, f"<= {longest} s", left_s

"""The audit of keys: a bounded look at a keyspace, compared with its conventions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from is_db_bootstrap.blueprint import KeyPattern
from is_db_bootstrap.results import Drift

#: Keys that one SCAN is asked for, and that one pipeline of TYPE and PTTL looks at.
BATCH = 500
#: Keys of one pattern that are named; the rest is counted.
NAMED = 5

_NO_LIFETIME_MS, _GONE_MS = -1, -2


class Audit:
    """One pass over at most `budget` keys of all `masters` together.

    `stopped` ends it from another thread.

    `moved` is what a master of a cluster answers for a key that it has just given away; such a key
    is skipped.
    """

    def __init__(self, keys: Sequence[KeyPattern], budget: int, moved: type[Exception]) -> None:
        closest_first = sorted(keys, key=lambda key: -key.literals)
        self._patterns = [(key, re.compile(key.expression)) for key in closest_first]
        self._budget = budget
        self._moved = moved
        self._looked_at = 0
        self._complete = True
        self._seen: set[bytes] = set()
        self._drifts: list[Drift] = []
        self._broken: Counter[str] = Counter()
        self.stopped = False

    def findings(self, masters: Sequence[Any]) -> list[Drift]:
        """What breaks a convention.

        A last remark, no finding, when the budget ended before the keyspace.
        """
        left = self._budget
        for number, master in enumerate(masters):
            left -= self._scan(master, left // (len(masters) - number))
        return [
            *self._drifts,
            *self._counted(),
            *([] if self._complete else [self._remark(masters)]),
        ]

    def _scan(self, master: Any, budget: int) -> int:
        """Spend at most `budget`.

        No MATCH: one pass serves all patterns, and MATCH walks the same keyspace for each.
        """
        cursor, spent, began = 0, 0, False
        while (cursor or not began) and spent < budget and not self.stopped:
            began = True
            cursor, names = master.scan(cursor, count=min(BATCH, budget - spent))
            names = names[: budget - spent]  # SCAN may return more than it was asked for
            spent += max(
                1, len(names)
            )  # and nothing at all, again and again, from a table that has shrunk
            self._looked_at += len(names)
            self._look(master, names)
        self._complete &= began and not cursor
        return spent

    def _look(self, master: Any, names: Sequence[bytes]) -> None:
        fresh = [
            name for name in names if name not in self._seen
        ]  # SCAN repeats keys while a table grows
        keys = [(name, text, key) for name in fresh for text, key in self._declared(name)]
        if not keys:
            return
        self._seen.update(name for name, _, _ in keys)
        pipeline = master.pipeline(transaction=False)
        for name, _, _ in keys:
            pipeline.type(name).pttl(name)
        answers = pipeline.execute(raise_on_error=False)
        for (_, text, key), kind, ttl_ms in zip(keys, answers[::2], answers[1::2], strict=True):
            self._compare(text, key, kind, ttl_ms)

    def _declared(self, name: bytes) -> Iterator[tuple[str, KeyPattern]]:
        text = name.decode("utf-8", "backslashreplace")
        for key, expression in self._patterns:
            if expression.fullmatch(text):
                yield text, key
                return

    def _compare(self, text: str, key: KeyPattern, kind: Any, ttl_ms: Any) -> None:
        for answer in (kind, ttl_ms):
            if isinstance(answer, Exception) and not isinstance(answer, self._moved):
                raise answer
        if (
            isinstance(kind, Exception)
            or isinstance(ttl_ms, Exception)
            or ttl_ms == _GONE_MS
            or kind == b"none"
        ):
            return
        fault = self._fault(key, kind.decode(), ttl_ms)
        if fault is None:
            return
        self._broken[key.name] += 1
        if self._broken[key.name] <= NAMED:
            message, expected, actual = fault
            self._drifts.append(
                Drift(
                    text,
                    "key",
                    f"{message} ({key.name}: {key.pattern})",
                    expected,
                    actual,
                    finding=True,
                )
            )

    @staticmethod
    def _fault(key: KeyPattern, kind: str, ttl_ms: int) -> tuple[str, str, str] | None:
        """Message, expected, actual; the type first, since another type is another thing's key."""
        if kind != key.type:
            return f"is a {kind}, declared is a {key.type}", key.type, kind
        longest = key.longest_ttl
        if longest is None:
            return None
        if ttl_ms == _NO_LIFETIME_MS:
            return f"has no lifetime, declared are at most {longest} s", f"<= {longest} s", "none"
        if ttl_ms > longest * 1000:
            return (
                f"lives {ttl_ms / 1000:.0f} s longer, declared are at most {longest} s",
                f"<= {longest} s",
                f"{ttl_ms / 1000:.0f} s",
            )
        return None

    def _counted(self) -> Iterator[Drift]:
        for key, _ in self._patterns:
            if (more := self._broken[key.name] - NAMED) > 0:
                yield Drift(
                    key.pattern,
                    "key pattern",
                    f"{more} more keys of {key.name} break it",
                    finding=True,
                )

    def _remark(self, masters: Sequence[Any]) -> Drift:
        total = sum(master.dbsize() for master in masters)
        return Drift(
            "keyspace",
            "audit",
            f"looked at {self._looked_at} of {total} keys (scan_budget {self._budget})",
        )

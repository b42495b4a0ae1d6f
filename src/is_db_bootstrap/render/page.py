"""A page whose size is bounded: what matters most gets in first, and what is left out is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

from is_db_bootstrap.wording import counted

#: What stands between two parts.
_GAP = "\n\n"


class Rank(IntEnum):
    """How much a part matters. The lowest comes first."""

    HEAD = 0
    DANGERS = 1
    FAILURES = 2
    TABLES = 3
    NOTES = 4
    STATEMENTS = 5


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page. `noun` names it, should it be left out, for one and for several.

    `parent` is the number of the part below which it stands. Without that one it is left out too.
    """

    text: str
    rank: Rank
    noun: tuple[str, str] = ("part", "parts")
    parent: int | None = None


class Page:
    """Takes parts in the order of the page."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def add(self, part: Part) -> int:
        """Add a part. Returns its number."""
        self._parts.append(part)
        return len(self._parts) - 1

    def text(self, limit: int, left_out: str) -> str:
        """The page in at most `limit` bytes of UTF-8, and so in at most as many characters.

        `left_out` is the sentence for parts that did not fit, with `{parts}` in the place of what
        they are.
        """
        kept, missing = self._fitting(limit)
        if missing:
            # The sentence takes no more room than one that names everything.
            every = left_out.format(parts=_names(self._parts))
            kept, missing = self._fitting(limit - len((_GAP + every).encode()))
        texts = [self._parts[number].text for number in sorted(kept)]
        if missing:
            texts.append(left_out.format(parts=_names([self._parts[n] for n in missing])))
        return _GAP.join(texts) + "\n"

    def _fitting(self, limit: int) -> tuple[set[int], list[int]]:
        """The numbers of the parts that fit, and those of the others."""
        left = limit - 1
        kept: set[int] = set()
        missing = []
        by_rank = sorted(range(len(self._parts)), key=lambda number: self._parts[number].rank)
        for number in by_rank:
            part = self._parts[number]
            size = len((part.text + _GAP).encode())
            has_place = part.parent is None or part.parent in kept
            if has_place and size <= left:
                kept.add(number)
                left -= size
            else:
                missing.append(number)
        return kept, missing


def _names(parts: list[Part]) -> str:
    """Such as `1 table and the statements of 3 changes`."""
    numbers = Counter(part.noun for part in parts)
    names = [counted(number, *noun) for noun, number in numbers.items()]
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last

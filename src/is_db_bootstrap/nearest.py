"""The nearest name to one that was mistyped."""

from __future__ import annotations

from collections.abc import Iterable

#: Names of at most so many characters are near with one slip, longer ones with two.
_SHORT = 5


def slips(typed: str, name: str) -> int:
    """How many slips lie between two texts.

    A slip is a character that is left out, added or replaced, or two that changed places (the
    optimal string alignment distance).
    """
    before: list[int] = []
    last = list(range(len(name) + 1))
    for row, mine in enumerate(typed, start=1):
        now = [row]
        for column, theirs in enumerate(name, start=1):
            cost = 0 if mine == theirs else 1
            found = min(last[column] + 1, now[column - 1] + 1, last[column - 1] + cost)
            is_swap = (
                row > 1
                and column > 1
                and mine == name[column - 2]
                and typed[row - 2] == theirs
                and cost
            )
            if is_swap:
                found = min(found, before[column - 2] + 1)
            now.append(found)
        before, last = last, now
    return last[-1]


def nearest(typed: str, names: Iterable[str]) -> str:
    """The name that was most likely meant. Empty when none is near. Case does not count.

    `difflib` has a loose measure: by it, `TLS_CERT_FILE` is as near to `CERT_FILE` as `UR` is to
    `URL`, and `ULR` is not near to `URL`.
    """
    most = 1 if len(typed) <= _SHORT else 2
    near = [name for name in names if abs(len(name) - len(typed)) <= most]
    found = sorted((slips(typed.casefold(), name.casefold()), name) for name in near)
    return found[0][1] if found and found[0][0] <= most else ""

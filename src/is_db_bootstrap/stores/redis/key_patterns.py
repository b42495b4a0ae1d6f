"""Which declared pattern a key fits, and with which prefix a key begins that fits none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from is_db_bootstrap.blueprint import KeyPattern

#: The names of a key up to its first colon.
_TO_COLON = re.compile(r"[^:]*:")
#: Leading words of a key without a colon, such as `celery-task-meta-`.
_WORDS = re.compile(r"(?:[^\W\d_]+[-_./|])*")

#: What stands for the prefix of the key whose name is empty, which Redis allows.
EMPTY_NAME = "(the empty name)"


def name_text(name: bytes) -> str:
    """The name of a key as text. Bytes that are no UTF-8 are escaped."""
    return name.decode("utf-8", "backslashreplace")


class PatternTable:
    """The patterns of a blueprint, of which the one with the most literal characters applies."""

    def __init__(self, keys: Sequence[KeyPattern]) -> None:
        self.keys = sorted(keys, key=lambda key: -key.literals)
        #: The pattern that a key's text fits, or None.
        self.find: Callable[[str], KeyPattern | None] = _finder(self.keys)


def _finder(keys: Sequence[KeyPattern]) -> Callable[[str], KeyPattern | None]:
    """One expression for all patterns, which is faster than one after the other.

    A group within a placeholder's own expression would change the numbers of all groups. Where
    there is one, the expressions stay apart.
    """
    expressions = [re.compile(key.expression) for key in keys]
    if any(expression.groups or expression.flags & re.IGNORECASE for expression in expressions):
        return lambda text: next(
            (key for key, one in zip(keys, expressions, strict=True) if one.fullmatch(text)), None
        )
    fits = re.compile("|".join(f"({key.expression})" for key in keys) or "(?!)").fullmatch

    def find(text: str) -> KeyPattern | None:
        found = fits(text)
        if found is None or found.lastindex is None:
            return None
        return keys[found.lastindex - 1]

    return find


def prefix_of(text: str) -> str:
    """The part of a key's name that tells whose it is: `celery-task-meta-`, `session:`.

    A key without a colon and without leading words is its own prefix. The key without a name has
    `EMPTY_NAME`.
    """
    found = _TO_COLON.match(text) or _WORDS.match(text)
    return (found[0] if found else "") or text or EMPTY_NAME

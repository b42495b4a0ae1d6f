"""Property types of constraints, and values of index options, in one spelling.

A server shows the types of a union in an order of its own, and one name of each type. A file may
have any order, and any name of the manual (Cypher manual, "Property types and their synonyms").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(r"\w+|[<>|():,]")
#: Names of one type, written without blanks, and the name that a server shows.
_SYNONYMS = {
    "BOOL": "BOOLEAN",
    "VARCHAR": "STRING",
    "INT": "INTEGER",
    "SIGNED INTEGER": "INTEGER",
    "INT64": "INTEGER",
    "INTEGER64": "INTEGER",
    "INT32": "INTEGER32",
    "INT16": "INTEGER16",
    "INT8": "INTEGER8",
    "FLOAT64": "FLOAT",
    "ARRAY": "LIST",
    "TIMESTAMP WITHOUT TIME ZONE": "LOCAL DATETIME",
    "TIMESTAMP WITHOUT TIMEZONE": "LOCAL DATETIME",
    "TIME WITHOUT TIME ZONE": "LOCAL TIME",
    "TIME WITHOUT TIMEZONE": "LOCAL TIME",
    "TIMESTAMP WITH TIME ZONE": "ZONED DATETIME",
    "TIMESTAMP WITH TIMEZONE": "ZONED DATETIME",
    "TIME WITH TIME ZONE": "ZONED TIME",
    "TIME WITH TIMEZONE": "ZONED TIME",
}
_NOT_NULL = " NOT NULL"


def normal_type(text: str) -> str:
    """The type in one spelling: `INT | LIST<BOOL NOT NULL>` is `INTEGER | LIST<BOOLEAN NOT NULL>`.

    Text that is no type as we know it comes back in upper case, with one blank between two words.
    """
    return _Reader(_TOKEN.findall(text.upper())).union()


class _Reader:
    """Reads the tokens of a type from the left."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def union(self) -> str:
        """Types with `|` between two, in the order of the alphabet."""
        members = set(self._members())
        if len(members) == 1:
            return members.pop()
        return " | ".join(sorted(members))

    def _members(self) -> Iterator[str]:
        yield self._one_type()
        while self._next() == "|":
            self._at += 1
            yield self._one_type()

    def _one_type(self) -> str:
        words = []
        while re.match(r"\w", self._next()):
            words.append(self._next())
            self._at += 1
        name = " ".join(words)
        if self._next() == "<":
            return self._of_inner(name)
        if self._next() == "(":
            return name + self._in_brackets()
        return _simple(name)

    def _of_inner(self, outer: str) -> str:
        """`LIST<…>`, `ANY<…>` with its members, or `VECTOR<…>(…)`."""
        self._at += 1
        inner = self.union()
        self._at += 1  # the closing bracket
        if outer == "ANY":
            return inner
        shown = f"{_simple(outer)}<{inner}>"
        return shown + (self._in_brackets() if self._next() == "(" else self._null_and_lists(""))

    def _in_brackets(self) -> str:
        shown = ""
        while self._next() and self._next() != "|":
            shown += self._next()
            self._at += 1
        return shown

    def _null_and_lists(self, shown: str) -> str:
        words = []
        while re.match(r"\w", self._next()):
            words.append(self._next())
            self._at += 1
        return shown + "".join(f" {word}" for word in words)

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""


def _simple(name: str) -> str:
    """One type without brackets. `X LIST` and `X ARRAY` are `LIST<X>`."""
    plain = name.removesuffix(_NOT_NULL)
    null = name[len(plain) :]
    for suffix in (" LIST", " ARRAY"):
        if plain.endswith(suffix):
            return f"LIST<{_simple(plain.removesuffix(suffix))}>{null}"
    return _SYNONYMS.get(plain, plain) + null


def normal_option(value: Any) -> str:
    """The value of an index option in one spelling, whether declared or shown.

    Texts are in upper case, numbers as Python writes them, lists with `, ` between two.
    """
    if isinstance(value, bool) or value is None:
        return str(value).upper()
    if isinstance(value, int | float):
        return _number(str(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(normal_option, value))}]"
    text = str(value)
    if text.startswith("[") and text.endswith("]"):
        members = [part.strip() for part in text[1:-1].split(",")]
        return f"[{', '.join(map(normal_option, members))}]"
    return _number(text.strip("'\"").upper())


def _number(text: str) -> str:
    """`1.0` and `1` are one number, and so are `- 80` and `-80`. Other text stays as it is."""
    try:
        number = float(text.replace(" ", ""))
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else str(number)

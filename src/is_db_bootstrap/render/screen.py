"""What text is put on: the contract of a screen, and the parts that a screen is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

#: A line in pieces, each with its style: a colour, `bold`, `dim`, or nothing.
Line = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    When a table is too wide, only columns that `may_break` are made narrower.
    """

    title: str
    may_break: bool = False
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A line of a tree, and the nodes below it."""

    line: Line
    nodes: Sequence[Node] = ()


class Screen(Protocol):
    """What text is put on. Every text ends with a line end."""

    def line(self, line: Line) -> str:
        """One line, however long it is."""

    def table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Line]], *, width: int
    ) -> str:
        """A table with a row of titles.

        `width` in characters holds where there is no terminal to ask.
        """

    def tree(self, root: Node, *, width: int) -> str:
        """A tree. `width` in characters holds where there is no terminal to ask."""

"""The screen of files, pipes and logs.

It needs no library, so that a run in a container does not spend time on importing one for
terminals.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from is_db_bootstrap.render.screen import Column, Line, Node

#: Control characters that move the cursor or ring: bell, backspace, vertical tab, form feed,
#: carriage return.
_MOVES = dict.fromkeys((7, 8, 11, 12, 13))
#: Blanks between two columns of a table.
_GAP = 2

_BRANCHES = ("├── ", "└── ", "│   ")
_ASCII_BRANCHES = ("+-- ", "`-- ", "|   ")
_BELOW_THE_LAST = "    "


class PlainScreen:
    """Text without colours, for files, pipes and logs.

    `encoding` is that of the output; one that lacks the lines of a tree gets them in ASCII.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self._has_lines = encoding.lower().startswith("utf")

    def line(self, line: Line) -> str:
        """The words of a line."""
        return f"{_words(line)}\n"

    def table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Line]], *, width: int
    ) -> str:
        """Columns as wide as their widest cell, with blanks between them."""
        titles = [column.title for column in columns]
        cells = [titles, *([_words(cell) for cell in row] for row in rows)]
        widths = _widths(columns, cells, width)
        return "".join(f"{line}\n" for row in cells for line in _row_lines(columns, row, widths))

    def tree(self, root: Node, *, width: int) -> str:
        """Each node behind lines that lead to it from the node above."""
        guides = _BRANCHES if self._has_lines else _ASCII_BRANCHES
        lines = _wrapped(_words(root.line), width)
        lines += _lines_below(root, "", guides, width)
        return "".join(f"{line}\n" for line in lines)


def _words(line: Line) -> str:
    text = "".join(words for words, _ in line)
    return text.translate(_MOVES).expandtabs()


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Characters of each column; a column that may break gets what is left of `width`."""
    widths = [max(_cells(row[number]) for row in rows) for number in range(len(columns))]
    excess = sum(widths) + _GAP * (len(widths) - 1) - width
    for number, column in enumerate(columns):
        if column.may_break and excess > 0:
            widths[number] = max(1, widths[number] - excess)
    return widths


def _row_lines(
    columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]
) -> Iterator[str]:
    """A row as one line, or as several when one of its cells had to be broken."""
    broken = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(len(lines) for lines in broken)
    for number in range(height):
        parts = []
        for column, lines, width in zip(columns, broken, widths, strict=True):
            cell = lines[number] if number < len(lines) else ""
            blanks = " " * (width - _cells(cell))
            parts.append(blanks + cell if column.is_number else cell + blanks)
        yield (" " * _GAP).join(parts)


def _lines_below(
    node: Node, before: str, guides: tuple[str, str, str], width: int
) -> Iterator[str]:
    """The lines of everything below a node; `before` stands before each of them."""
    inner, last, passing = guides
    for number, below in enumerate(node.nodes):
        is_last = number == len(node.nodes) - 1
        next_before = before + (_BELOW_THE_LAST if is_last else passing)
        first, *others = _wrapped(_words(below.line), width - len(next_before))
        yield before + (last if is_last else inner) + first
        yield from (next_before + line for line in others)
        yield from _lines_below(below, next_before, guides, width)


def _wrapped(text: str, width: int) -> list[str]:
    """Text in lines of at most `width` characters, broken between words.

    A word that is longer is cut.
    """
    return [line for paragraph in text.split("\n") for line in _wrapped_line(paragraph, width)]


def _wrapped_line(text: str, width: int) -> list[str]:
    lines = [""]
    for word in re.findall(r"\s*\S+\s*", text) or [text]:
        if _cells(lines[-1]) + _cells(word.rstrip()) <= width:
            lines[-1] += word
        elif _cells(word.rstrip()) <= width:
            lines.append(word)
        else:
            lines += _cut(word, width)
    filled = lines if lines[0] or len(lines) == 1 else lines[1:]
    return [_without_blanks_beyond(line, width) for line in filled]


def _without_blanks_beyond(line: str, width: int) -> str:
    """Without those blanks at its end that made the line longer than `width`."""
    words = line.rstrip()
    blanks = max(0, width - _cells(words))
    return words + line[len(words) :][:blanks]


def _cut(word: str, width: int) -> list[str]:
    """A word in pieces of at most `width` characters."""
    pieces = [""]
    for character in word:
        if _cells(pieces[-1]) + _cells(character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes: two for each wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1

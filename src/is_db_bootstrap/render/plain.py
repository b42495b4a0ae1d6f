"""The screen of files, pipes and logs.

This screen needs no library, so a run in a container spends no time on importing one for terminals.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from is_db_bootstrap.render.screen import Column, Line, Node
from is_db_bootstrap.wording import visible, visible_lines

#: Blanks between two columns of a table.
_GAP = 2

_BRANCHES = ("├── ", "└── ", "│   ")
_ASCII_BRANCHES = ("+-- ", "`-- ", "|   ")
_BELOW_THE_LAST = "    "


class PlainScreen:
    """Text without colours, for files, pipes and logs.

    `encoding` is that of the output. A tree has lines in ASCII when the encoding has no others.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self._has_lines = encoding.lower().startswith("utf")

    def line(self, line: Line) -> str:
        """The words of a line."""
        return f"{_plain_text(line)}\n"

    def table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Line]], *, width: int
    ) -> str:
        """Columns as wide as their widest cell, with blanks between them."""
        titles = [column.title for column in columns]
        texts = [[_plain_text(cell) for cell in row] for row in rows]
        all_rows = [titles, *texts]
        widths = _column_widths(columns, all_rows, width)
        lines = [line for row in all_rows for line in _row_lines(columns, row, widths)]
        return "".join(f"{line}\n" for line in lines)

    def tree(self, root: Node, *, width: int) -> str:
        """Each node behind lines that lead to it from the node above."""
        guides = _BRANCHES if self._has_lines else _ASCII_BRANCHES
        lines = _wrap_text(_node_text(root), width)
        lines += _lines_below(root, "", guides, width)
        return "".join(f"{line}\n" for line in lines)


def _plain_text(line: Line) -> str:
    """The text of a line without its styles."""
    return "".join(visible(words) for words, _ in line)


def _node_text(node: Node) -> str:
    """The text of a node, which may be a definition of several lines."""
    return "".join(visible_lines(words) for words, _ in node.line)


def _column_widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> list[int]:
    """Characters of each column. A column that may break gets what is left of `width`."""
    widths = [max(_text_width(row[number]) for row in rows) for number in range(len(columns))]
    gaps = _GAP * (len(widths) - 1)
    excess = sum(widths) + gaps - width
    for number, column in enumerate(columns):
        if column.may_break and excess > 0:
            widths[number] = max(1, widths[number] - excess)
    return widths


def _row_lines(
    columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]
) -> Iterator[str]:
    """A row as one line, or as several when one of its cells had to be broken."""
    broken = [_wrap_text(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(len(lines) for lines in broken)
    for number in range(height):
        parts = []
        for column, lines, width in zip(columns, broken, widths, strict=True):
            cell = lines[number] if number < len(lines) else ""
            blanks = " " * (width - _text_width(cell))
            parts.append(blanks + cell if column.is_number else cell + blanks)
        yield (" " * _GAP).join(parts)


def _lines_below(
    node: Node, before: str, guides: tuple[str, str, str], width: int
) -> Iterator[str]:
    """The lines of everything below a node. `before` stands before each of these lines."""
    inner, last, passing = guides
    for number, below in enumerate(node.nodes):
        is_last = number == len(node.nodes) - 1
        branch = last if is_last else inner
        next_before = before + (_BELOW_THE_LAST if is_last else passing)
        first, *others = _wrap_text(_node_text(below), width - len(next_before))
        yield before + branch + first
        yield from (next_before + line for line in others)
        yield from _lines_below(below, next_before, guides, width)


def _wrap_text(text: str, width: int) -> list[str]:
    """Text in lines of at most `width` characters, broken between words.

    A word that is longer than a line is cut.
    """
    return [line for paragraph in text.split("\n") for line in _wrap_paragraph(paragraph, width)]


def _wrap_paragraph(text: str, width: int) -> list[str]:
    """A text without a line end, in lines of at most `width` characters. Blanks are kept."""
    lines = [""]
    for word in re.findall(r"\s*\S+\s*", text) or [text]:
        word_width = _text_width(word.rstrip())
        if _text_width(lines[-1]) + word_width <= width:
            lines[-1] += word
        elif word_width <= width:
            lines.append(word)
        else:
            lines += _cut_word(word, width)
    has_empty_start = len(lines) > 1 and not lines[0]
    filled = lines[1:] if has_empty_start else lines
    return [_without_blanks_beyond(line, width) for line in filled]


def _without_blanks_beyond(line: str, width: int) -> str:
    """The line without those blanks at its end that made the line longer than `width`."""
    words = line.rstrip()
    blanks = line[len(words) :]
    room = max(0, width - _text_width(words))
    return words + blanks[:room]


def _cut_word(word: str, width: int) -> list[str]:
    """A word in pieces of at most `width` characters."""
    pieces = [""]
    for character in word:
        if _text_width(pieces[-1]) + _text_width(character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _text_width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    """Columns of one character: two for a wide character, none for a combining one."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1

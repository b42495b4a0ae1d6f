"""What a planned change would send, and what a person should look at first, line by line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from is_db_bootstrap.results import ChangeResult, Danger

#: Characters of a line, indent included. A line is broken between words, unless it is a long word.
_WIDTH = 80
_INDENT = " " * 6
_FURTHER = " " * 10
#: Lines of statements that are shown of one change, unless all are.
_MOST_LINES = 24
#: A tail of so few lines is shown too, because its summary would take as much room.
_SHORT_TAIL = 4
#: Control characters, which would move the cursor or change the colours of a terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def statement_lines(change: ChangeResult, *, shows_all: bool) -> Iterator[tuple[str, str]]:
    """The lines below a change, each with its colour: dangers first, then the statements.

    Without `shows_all`, a long list ends with a line that says how much is left and where to see
    it. A statement that a danger is about is named by the danger itself.
    """
    for danger in change.dangers:
        for line in _broken(f"! {_danger_text(danger)}"):
            yield line, "yellow"
    if change.is_code:
        yield f"{_INDENT}runs Python", "yellow"
    lines = [line for statement in change.statements for line in _lines_of(statement)]
    is_short = shows_all or len(lines) <= _MOST_LINES + _SHORT_TAIL
    shown = lines if is_short else lines[:_MOST_LINES]
    for line in shown:
        yield line, "dim"
    left = len(lines) - len(shown)
    if left:
        count = len(change.statements)
        of = "1 statement" if count == 1 else f"{count} statements"
        yield f"{_INDENT}… {left} more lines of {of}: -v or --output json shows all", "dim"


def _danger_text(danger: Danger) -> str:
    place = f" (statement {danger.statement + 1})" if danger.statement is not None else ""
    return f"{danger.kind} {danger.object}: {danger.text}{place}"


def _lines_of(statement: str) -> Iterator[str]:
    """A statement as it was written, indented. Lines that are too long are broken.

    What all lines but the first have of the indent of their file is taken away.
    """
    first, *others = statement.expandtabs(4).split("\n")
    below = textwrap.dedent("\n".join(others)).split("\n") if others else []
    for line in (first, *below):
        yield from _broken(line.rstrip())


def _broken(line: str) -> list[str]:
    """A line in lines of at most `_WIDTH` characters, with further indent for what goes on."""
    text = _CONTROLS.sub(_escaped, line)
    own_indent = " " * (len(text) - len(text.lstrip()))
    found = textwrap.wrap(
        text.lstrip(),
        _WIDTH,
        initial_indent=_INDENT + own_indent,
        subsequent_indent=_FURTHER + own_indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return found or [""]


def _escaped(found: re.Match[str]) -> str:
    """A control character in the form that Python gives it in a literal."""
    return found[0].encode("unicode_escape").decode()

"""Where a statement was refused: the revision's file and line, and the place in the SQL.

A statement is the file's own text, but a text in quotation marks or a number in it may be a secret,
or the value of a row. So these are left out of what is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from is_db_bootstrap.guests import own_place_of

#: Columns of a line of SQL that are shown, on both sides of the place.
_AROUND = 40
#: Texts in quotation marks or between dollar signs, one that nothing ends, and numbers.
_LITERAL = re.compile(
    r"\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|'.*|\b\d[\d._]*",
    re.DOTALL,
)
#: Stands for the place, in a text whose values are replaced.
_HERE = "\x00"
#: How the server names a function and its line, without the statement that follows (its context is
#: in the server's language, and these words are not translated in English only).
_FUNCTION_LINE = re.compile(r"^(PL/pgSQL function \S.*? line \d+)\b", re.MULTILINE)
#: What a cursor of ours adds to an error: the text as it was sent.
_SENT = "is_db_bootstrap_sent"
_CONTEXT = "is_db_bootstrap_context"


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in a text: the number of the character, beginning at 1."""

    text: str
    position: int


def note_sent(exc: BaseException, text: str) -> None:
    """Add to an error of a driver the statement as it was sent."""
    with suppress(AttributeError):
        setattr(exc, _SENT, text)


def carry_place(exc: BaseException, to: BaseException, statement: str) -> None:
    """Add to the error `to` what `exc`, of another driver, says of the place in a statement.

    What asyncpg says is with the cause of the error that SQLAlchemy makes of it.
    """
    for each in filter(None, (exc, exc.__cause__)):
        found = _place_in(each, statement)
        if found is not None:
            setattr(to, _SENT, found)
        if context := _context_of(each):
            setattr(to, _CONTEXT, context)


def where(*errors: BaseException, statement: str = "") -> str:
    """The file and the line of a revision, the place in the SQL, and the function that was at work.

    `errors` are one error as it came up, and those that it was made from. Empty where nothing is
    known, or sentences with a blank before them.
    """
    return "".join(f" {said}" for said in _sentences(errors, statement))


def _sentences(errors: tuple[BaseException, ...], statement: str) -> Iterator[str]:
    for place in filter(None, map(own_place_of, errors)):
        yield f"That is in {place}."
        break
    for found in filter(None, (_place_in(each, statement) for each in errors)):
        yield _shown(found)
        break
    for each in errors:
        lines = _FUNCTION_LINE.findall(_context_of(each))
        if lines:
            yield f"{', called by '.join(lines)}."
            break


def _context_of(exc: BaseException) -> str:
    """What the server says of the functions that were at work, whatever the driver is."""
    carried = getattr(exc, _CONTEXT, "")
    said = getattr(getattr(exc, "diag", None), "context", None) or getattr(exc, "context", None)
    return str(carried or said or "")


def _place_in(exc: BaseException, statement: str) -> _Place | None:
    """The place that an error of psycopg, psycopg2 or asyncpg names, in the text that was sent."""
    sent: Any = getattr(exc, _SENT, None)
    if isinstance(sent, _Place):
        return sent
    text = sent or statement
    diag = getattr(exc, "diag", None)
    position = getattr(diag, "statement_position", None) or getattr(exc, "position", None)
    if not text or not str(position or "").isdecimal():
        return None
    number = int(str(position))
    # A driver that puts values into the text, or doubles a percent sign, has sent another text.
    is_as_sent = sent is not None or "%" not in text[: number - 1]
    return _Place(text, number) if 0 < number <= len(text) and is_as_sent else None


def _shown(place: _Place) -> str:
    """A line of SQL with an arrow at the place, as a sentence."""
    before, after = place.text[: place.position - 1], place.text[place.position - 1 :]
    masked = _LITERAL.sub(_left_out, f"{before}{_HERE}{after}")
    line = next(each for each in masked.split("\n") if _HERE in each)
    left, _, right = line.partition(_HERE)
    left = left.lstrip() if len(left) <= _AROUND else f"…{left[-_AROUND:]}"
    right = right.rstrip() if len(right) <= _AROUND else f"{right[:_AROUND]}…"
    number = before.count("\n") + 1
    return f'Line {number} of its SQL, at the arrow: "{left}→{right}".'


def _left_out(literal: re.Match[str]) -> str:
    """What stands for a value."""
    shown = "…" if literal[0][0].isdigit() else "'…'"
    return f"{_HERE}{shown}" if _HERE in literal[0] else shown


def shown_statement(text: str) -> str:
    """The beginning of a statement in one line, without its values."""
    line = " ".join(_LITERAL.sub("'…'", text).split())
    return line if len(line) <= 2 * _AROUND else f"{line[: 2 * _AROUND]}…"

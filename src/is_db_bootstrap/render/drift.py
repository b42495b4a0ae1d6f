"""A drift for people: what differs, both sides of it, and what would mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import PENDING
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from is_db_bootstrap.results import Drift

_LAYOUT = re.compile(r"\n +")
#: What stands before the first line and before each further line of a side.
_INDENT = 6
_TITLE_WIDTH = 10


def drift_text(drift: Drift) -> str:
    """The object, and what is wrong with it, as one line."""
    return f"drift: {drift.kind} {drift.object}: {drift.message}"


def drift_lines(drift: Drift) -> Iterator[str]:
    """What is declared, what is there, and what mends it. Nothing is cut.

    The sides are left out of a drift that has none, such as keys that were only counted.
    """
    has_sides = drift.expected is not None or drift.actual is not None
    if drift.message == PENDING:
        is_named = drift.expected in {None, drift.object}
        yield from _titled_lines("to do:", "" if is_named else _one_line(drift.expected or ""))
    elif has_sides:
        yield from _titled_lines("declared:", _one_line(drift.expected or "nothing"))
        yield from _titled_lines("there:", _one_line(drift.actual or "nothing"))
    if drift.fix is not None:
        yield from _titled_lines("mend:", drift.fix)
    elif drift.reason:
        yield from _titled_lines("by hand:", _one_line(drift.reason))
    if drift.not_repaired not in {"", drift.reason}:
        yield from _titled_lines("left:", _one_line(drift.not_repaired))


def _one_line(text: str) -> str:
    """A definition as one line. Where a server has set its clauses below one another is no news.

    Any other line end is escaped with the rest of what a store holds.
    """
    return visible(_LAYOUT.sub(" ", text).strip())


def _titled_lines(title: str, text: str) -> Iterator[str]:
    """A text behind its title, unless it is empty. Further lines begin where the first does.

    Only statements have further lines. Names in them are spelled without a line end.
    """
    if not text:
        return
    for number, line in enumerate(text.split("\n")):
        before = title if number == 0 else ""
        yield f"{'':<{_INDENT}}{before:<{_TITLE_WIDTH}}{line.expandtabs()}"

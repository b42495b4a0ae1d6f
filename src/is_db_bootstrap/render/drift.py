"""A drift for people: what differs, both sides of it, and what would mend it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from is_db_bootstrap.results import Drift

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
    if has_sides:
        yield from _titled_lines("declared:", drift.expected or "nothing")
        yield from _titled_lines("there:", drift.actual or "nothing")
    if drift.fix is not None:
        yield from _titled_lines("mend:", drift.fix)
    elif drift.reason:
        yield from _titled_lines("by hand:", drift.reason)


def _titled_lines(title: str, text: str) -> Iterator[str]:
    """A text behind its title. Further lines of it begin where the first does."""
    for number, line in enumerate(text.split("\n")):
        before = title if number == 0 else ""
        yield f"{'':<{_INDENT}}{before:<{_TITLE_WIDTH}}{line.expandtabs()}"

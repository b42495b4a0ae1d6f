"""What was seen of one rung of the ladder, as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from is_db_bootstrap.rungs import RungResult

_WORDS = {True: "yes", False: "no", None: "open"}


def rung_text(seen: RungResult) -> str:
    """Such as `port answers: yes, localhost:5432`."""
    words = f"{seen.rung.label}: {_WORDS[seen.ok]}"
    return f"{words}, {seen.text}" if seen.text else words

"""The progress of a fleet where there is no terminal: a line now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from is_db_bootstrap.render.fleet import progress_words

if TYPE_CHECKING:
    from is_db_bootstrap.events import FleetProgress

#: Seconds between two lines about the progress.
_LINE_EVERY_S = 10.0


class FleetWatch:
    """Gives `write` a line about the progress every ten seconds. `write` adds the line end."""

    def __init__(self, write: Callable[[str], object], *, quiet: bool) -> None:
        self.tell = write
        self._quiet = quiet
        self._told_at_s = 0.0

    def __call__(self, progress: FleetProgress) -> None:
        """Take in how far the fleet has come."""
        if self._quiet or progress.elapsed_s - self._told_at_s < _LINE_EVERY_S:
            return
        self._told_at_s = progress.elapsed_s
        self.tell(progress_words(progress))

"""Who watches a fleet for the command: a live table on a terminal, lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def fleet_watch(
    write: Callable[[str], object], output: str, *, quiet: bool
) -> Iterator[FleetWatch]:
    """A watch. Only when stderr is a terminal and stdout gets text, the watch draws live.

    `write` takes a line for stderr. A live watch writes its lines itself, above what it redraws.
    """
    is_live = not quiet and output == "text" and sys.stderr.isatty()
    if not is_live:
        yield FleetWatch(write, quiet=quiet)
        return
    from is_db_bootstrap.render.fleet_live import live_fleet_watch

    with live_fleet_watch() as watch:
        yield watch

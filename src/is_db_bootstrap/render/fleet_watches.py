"""Who watches a fleet for the command: a live table on a terminal, lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from is_db_bootstrap.render.fleet_watch import FleetWatch


@contextmanager
def fleet_watch(
    write: Callable[[str], object], output: str, *, quiet: bool, is_lined: bool = False
) -> Iterator[FleetWatch]:
    """A watch. Only when stderr is a terminal and stdout gets text, the watch draws live.

    With `is_lined`, it never draws. `write` takes a line for stderr. A live watch writes its lines
    itself, above what it redraws.
    """
    is_live = not is_lined and not quiet and output == "text" and sys.stderr.isatty()
    if not is_live:
        yield FleetWatch(write, quiet=quiet)
        return
    from is_db_bootstrap.render.fleet_live import live_fleet_watch

    with live_fleet_watch() as watch:
        yield watch

"""The progress of a fleet on a terminal: one line for each target that runs, and a line of all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from is_db_bootstrap.render.fleet import progress_words
from is_db_bootstrap.render.fleet_watch import FleetWatch
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from is_db_bootstrap.events import FleetProgress

#: Seconds between two drawings.
_DRAW_EVERY_S = 0.2
#: Characters of the bar.
_BAR_WIDTH = 30


class LiveFleetWatch(FleetWatch):
    """A watch that draws. It starts no thread, because a program with threads cannot fork."""

    def __init__(self, live: Live) -> None:
        print_line = partial(
            live.console.print, markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        super().__init__(lambda line: print_line(visible(line)), quiet=False)
        self._live = live
        self._drawn_at_s = -_DRAW_EVERY_S

    def __call__(self, progress: FleetProgress) -> None:
        """Draw how far the fleet has come."""
        if progress.elapsed_s - self._drawn_at_s < _DRAW_EVERY_S:
            return
        self._drawn_at_s = progress.elapsed_s
        self._live.update(_drawn_table(progress), refresh=True)


def _drawn_table(progress: FleetProgress) -> Table:
    targets = Table.grid(padding=(0, 2, 0, 0))
    for target in progress.running:
        phase = target.phase or "starting"
        targets.add_row(Text(visible(target.name)), Text(phase), Text(f"{target.phase_s:.0f} s"))
    drawn = Table.grid()
    drawn.add_row(targets)
    drawn.add_row(ProgressBar(progress.total, progress.ended, width=_BAR_WIDTH))
    drawn.add_row(Text(progress_words(progress)))
    return drawn


@contextmanager
def live_fleet_watch() -> Iterator[LiveFleetWatch]:
    """A watch that draws on stderr until the block ends, and then removes what it drew."""
    with Live(
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,  # a thread would do it
        redirect_stdout=False,
        redirect_stderr=False,  # what workers write comes from other processes
    ) as live:
        yield LiveFleetWatch(live)

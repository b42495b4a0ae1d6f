"""Progress on a terminal: one line per store, which is drawn again with each event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from is_db_bootstrap.render.progress import Progress, sentence

if TYPE_CHECKING:
    from is_db_bootstrap.events import Event


class LiveProgress(Progress):
    """An observer that keeps one line per store up to date."""

    def __init__(self, live: Live, *, verbose: bool) -> None:
        write = partial(
            live.console.print, markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        super().__init__(write, verbose=verbose, quiet=False)
        self._live = live
        self._lines: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Redraw the line of the event's store, and write what is worth a line of its own."""
        if event.store:
            self._lines[event.store] = sentence(event)
            self._live.update(self._drawn_table())
        super().__call__(event)

    def _drawn_table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for store, line in self._lines.items():
            table.add_row(Spinner("dots"), Text(store), Text(line))
        return table


@contextmanager
def live_progress(*, verbose: bool) -> Iterator[LiveProgress]:
    """An observer that draws on stderr until the block ends, and then removes what it drew."""
    with Live(
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=8,
        redirect_stdout=False,  # stdout has no text meanwhile: what user code prints is on stderr
    ) as live:
        yield LiveProgress(live, verbose=verbose)

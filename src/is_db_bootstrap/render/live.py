"""Progress on a terminal: one line per store, which is drawn again several times a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.render.progress import Progress, sentence
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from is_db_bootstrap.events import Event

#: As many characters of what a store does as a line shows. The report has the whole of it.
_LONGEST = 200


@dataclass(slots=True)
class _Row:
    """What is drawn of one store. `ended_s` is when it ended its phase, seconds by the clock."""

    line: str = ""
    done: int = 0
    planned: int = 0
    ended_s: float | None = None
    spinner: Spinner = field(default_factory=partial(Spinner, "dots"))


class LiveProgress(Progress):
    """An observer that keeps one line per store: what it does, how far it is, and the time.

    `write` takes the lines that stay. The table is in the order of the report's table. Its times
    are those of the present phase: what it has taken, and what is left of its limit.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        verbose: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(write, verbose=verbose, quiet=False)
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._phase_began_s = clock()
        self._limit_s: float | None = None

    def __call__(self, event: Event) -> None:
        """Note what the event says, and write what is worth a line of its own."""
        if event.kind == "phase":
            self._begin_phase(event)
        elif event.store:
            self._note(event)
        super().__call__(event)

    def _begin_phase(self, event: Event) -> None:
        self._phase_began_s, self._limit_s = self._clock(), event.left_s
        for row in self._rows.values():
            row.ended_s = None

    def _note(self, event: Event) -> None:
        row = self._rows.setdefault(event.store, _Row())
        row.line = visible(sentence(event), _LONGEST)
        if event.kind == "change":
            row.done += 1
        if event.kind in {"store-done", "failed"}:
            row.ended_s = self._clock()
        row.planned = max(row.planned, event.planned)

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """For each store: its name, what it does, how many changes are done, and the two times."""
        in_order = [store for store in STORE_ORDER if store in self._rows]
        return [(store, *self._cells(self._rows[store])) for store in in_order]

    def _cells(self, row: _Row) -> tuple[str, str, str, str]:
        now_s = self._clock() if row.ended_s is None else row.ended_s
        elapsed_s = max(0.0, now_s - self._phase_began_s)
        done = f"{row.done} of {row.planned} done" if row.planned else ""
        left = ""
        if self._limit_s is not None and row.ended_s is None:
            left = f"{max(0.0, self._limit_s - elapsed_s):.0f} s left"
        return row.line, done, f"{elapsed_s:.0f} s", left

    def table(self) -> Table:
        """The table as it is now."""
        table = Table.grid(padding=(0, 1))
        for store, *cells in self.rows():
            table.add_row(self._mark(store), Text(store), *map(Text, cells))
        return table

    def _mark(self, store: str) -> Spinner | Text:
        """What turns while the store is at work."""
        row = self._rows[store]
        return row.spinner if row.ended_s is None else Text(" ")


@contextmanager
def live_progress(*, verbose: bool) -> Iterator[LiveProgress]:
    """An observer that draws on stderr until the block ends, and then removes what it drew."""
    console = Console(stderr=True)
    write = partial(console.print, markup=False, emoji=False, highlight=False, soft_wrap=True)
    observer = LiveProgress(write, verbose=verbose)
    with Live(
        console=console,
        transient=True,
        refresh_per_second=8,
        get_renderable=observer.table,
        redirect_stdout=False,  # stdout has no text meanwhile: what user code prints is on stderr
    ):
        yield observer

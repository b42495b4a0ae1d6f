"""Live progress on stderr: a line per store on a terminal, a line per event otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

if TYPE_CHECKING:
    from is_db_bootstrap.events import Event
    from is_db_bootstrap.settings import Settings


class Progress:
    """An observer. With `live` it redraws one line per store, else it writes what is worth a line."""

    def __init__(self, console: Console, live: Live | None, *, verbose: bool, quiet: bool) -> None:
        self._console = console
        self._live = live
        self.verbose = verbose
        self._quiet = quiet
        self._lines: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def addresses(self, settings: Settings) -> None:
        """Print where each address came from."""
        for store, url in settings.stores.items():
            self._write(f"{store}: {url} (from {url.source})")

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._live is not None and event.store:
            self._lines[event.store] = self._sentence(event)
            self._live.update(self._table())
        if self._quiet or not event.store:
            return
        if event.kind in {"waiting", "cancelling"} and self._said.get(event.store) != event.message:
            self._said[event.store] = event.message
            self._write(f"{event.store}: {self._sentence(event)}")
        elif self.verbose and event.kind == "change" and event.change:
            self._write(f"{event.store}: {self._sentence(event)}")

    def _sentence(self, event: Event) -> str:
        if event.change is not None:
            return f"{event.change.kind} {event.change.name}: {event.change.outcome} in {event.change.duration_s:.2f} s"
        phase = event.phase.value if event.phase else ""
        texts = {
            "waiting": f"{event.message} Trying again.",
            "cancelling": "cancelling what still runs",
            "store-done": f"{phase} done",
        }
        return texts.get(event.kind, event.message or phase)

    def _write(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for store, line in self._lines.items():
            table.add_row(Spinner("dots"), store, line)
        return table


@contextmanager
def progress(output: str, *, verbose: bool, quiet: bool) -> Iterator[Progress]:
    """An observer that writes to stderr; live only on a terminal and for text output."""
    console = Console(stderr=True)
    if quiet or output == "json" or not sys.stderr.isatty():
        yield Progress(console, None, verbose=verbose, quiet=quiet)
        return
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        yield Progress(console, live, verbose=verbose, quiet=quiet)

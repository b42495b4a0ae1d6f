"""Progress while a run goes on: a line for each event that is worth one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from is_db_bootstrap.event_words import rung_text
from is_db_bootstrap.settings import DEFAULT_SOURCE
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from is_db_bootstrap.events import Event
    from is_db_bootstrap.settings import Settings


class Progress:
    """An observer that gives `write` a line for each event that is worth one.

    `write` adds the line end.
    """

    def __init__(self, write: Callable[[str], object], *, verbose: bool, quiet: bool) -> None:
        self._write = write
        self.verbose = verbose
        self._quiet = quiet
        #: The last message about a wait, for each store.
        self._last_waits: dict[str, str] = {}

    def addresses(self, settings: Settings) -> None:
        """Write where each address came from."""
        for store, url in settings.stores.items():
            source = "" if url.source == DEFAULT_SOURCE else f" (from {url.source})"
            self._write(visible(f"{store}: {url}{source}"))

    def __call__(self, event: Event) -> None:
        """Show one event. The same wait is shown once."""
        if self._quiet or not event.store:
            return
        if self._is_worth_a_line(event):
            self._write(visible(f"{event.store}: {sentence(event)}"))

    def _is_worth_a_line(self, event: Event) -> bool:
        if event.kind in {"waiting", "cancelling"}:
            is_new = self._last_waits.get(event.store) != event.message
            self._last_waits[event.store] = event.message
            return is_new
        if event.kind == "still-waiting":
            return True
        is_change = event.kind == "change" and event.change is not None
        return self.verbose and (is_change or event.rung is not None)


def sentence(event: Event) -> str:
    """What an event says, in a few words."""
    if event.change is not None:
        change = event.change
        return f"{change.kind} {change.name}: {change.outcome} in {change.duration_s:.2f} s"
    if event.rung is not None:
        return rung_text(event.rung)
    phase = event.phase.value if event.phase else ""
    sentences = {
        "waiting": f"{event.message} Trying again.",
        "cancelling": "cancelling what still runs",
        "store-done": f"{phase} done",
    }
    return sentences.get(event.kind, event.message or phase)

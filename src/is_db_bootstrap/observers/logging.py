"""Events as log records, for programs that run the orchestrator themselves."""

from __future__ import annotations

import logging

from is_db_bootstrap.events import Event, Observer
from is_db_bootstrap.wording import visible

#: The level of each kind of event. Any other kind is `INFO`.
_LEVELS = {
    "failed": logging.ERROR,
    "waiting": logging.WARNING,
    "still-waiting": logging.WARNING,
    "cancelling": logging.WARNING,
    "phase": logging.DEBUG,
    "rung": logging.DEBUG,
}


def to_log(logger: logging.Logger | None = None) -> Observer:
    """An observer that writes one record per event.

    `logger` is `is_db_bootstrap` when None. No handler is installed.
    """
    target = logger or logging.getLogger("is_db_bootstrap")

    def observe(event: Event) -> None:
        level = _LEVELS.get(event.kind, logging.INFO)
        target.log(level, "%s", visible(_event_text(event)), extra={"event": event})

    return observe


def _event_text(event: Event) -> str:
    """What an event says, in one line."""
    result = event.result
    if result is not None:
        name = result.blueprint or "run"
        return f"{name} {result.mode}: {result.outcome} in {result.duration_s:.1f} s"
    change = event.change
    if change is not None:
        text = f"{change.kind} {change.name} {change.outcome} in {change.duration_s:.2f} s"
    elif event.rung is not None:
        is_reached = {True: "reached", False: "not reached", None: "open"}[event.rung.ok]
        text = f"{event.rung.rung.label} {is_reached} {event.rung.text}".strip()
    else:
        text = event.message or event.kind
        text = f"{event.phase} {text}" if event.phase else text
    return f"{event.store}: {text}" if event.store else text

"""Events as log records, for programs that run the orchestrator themselves."""

from __future__ import annotations

import logging

from is_db_bootstrap.events import Event, Observer

_LEVELS = {
    "failed": logging.ERROR,
    "waiting": logging.WARNING,
    "cancelling": logging.WARNING,
    "phase": logging.DEBUG,
}


def to_log(logger: logging.Logger | None = None) -> Observer:
    """An observer that writes one record an event; `logger` is `is_db_bootstrap` when None.

    No handler is installed.
    """
    target = logger or logging.getLogger("is_db_bootstrap")

    def observe(event: Event) -> None:
        target.log(
            _LEVELS.get(event.kind, logging.INFO), "%s", _sentence(event), extra={"event": event}
        )

    return observe


def _sentence(event: Event) -> str:
    if event.result is not None:
        return f"{event.result.blueprint or 'run'} {event.result.mode}: {event.result.outcome} in {event.result.duration_s:.1f} s"
    if event.change is not None:
        what = f"{event.change.kind} {event.change.name} {event.change.outcome} in {event.change.duration_s:.2f} s"
    else:
        what = " ".join(
            part
            for part in (event.phase or "", event.kind if not event.message else event.message)
            if part
        )
    return f"{event.store}: {what}" if event.store else what

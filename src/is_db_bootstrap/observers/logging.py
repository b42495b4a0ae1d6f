"""Events as log records, for programs that run the orchestrator themselves."""

from __future__ import annotations

import logging

from is_db_bootstrap.event_words import event_level, event_text
from is_db_bootstrap.events import Event, Observer
from is_db_bootstrap.wording import visible


def to_log(logger: logging.Logger | None = None) -> Observer:
    """An observer that writes one record per event.

    `logger` is `is_db_bootstrap` when None. No handler is installed.
    """
    target = logger or logging.getLogger("is_db_bootstrap")

    def observe(event: Event) -> None:
        level = event_level(event).upper()
        target.log(
            logging.getLevelNamesMapping()[level],
            "%s",
            visible(event_text(event)),
            extra={"event": event},
        )

    return observe

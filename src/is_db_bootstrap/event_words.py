"""What an event says, and how loud: for a record of a log."""

from __future__ import annotations

from is_db_bootstrap.events import Event

#: The level of each kind of event. Any other kind is `info`.
_LEVELS = {
    "failed": "error",
    "waiting": "warning",
    "still-waiting": "warning",
    "cancelling": "warning",
    "phase": "debug",
    "rung": "debug",
}
#: What an event says that has no message of its own.
_WORDS = {"phase": "begins", "store-done": "done", "cancelling": "cancelling what still runs"}


def event_level(event: Event) -> str:
    """The level of an event, as the word that loggers of most languages use."""
    return _LEVELS.get(event.kind, "info")


def event_text(event: Event) -> str:
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
        text = event.message or _WORDS.get(event.kind, event.kind)
        text = f"{event.phase} {text}" if event.phase else text
    return f"{event.store}: {text}" if event.store else text

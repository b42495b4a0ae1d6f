"""What an event says, and how loud: for a record of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.events import Event

if TYPE_CHECKING:
    from is_db_bootstrap.rungs import RungResult

#: The level of each kind of event. Any other kind is `info`.
_LEVELS = {
    "failed": "error",
    "waiting": "warning",
    "still-waiting": "warning",
    "cancelling": "warning",
    "phase": "debug",
    "rung": "debug",
}
#: Whether a store stands on a rung.
_REACHED = {True: "yes", False: "no", None: "open"}
#: What an event says that has no message of its own.
_WORDS = {"phase": "begins", "store-done": "done", "cancelling": "cancelling what still runs"}


def event_level(event: Event) -> str:
    """The level of an event, as the word that loggers of most languages use."""
    if event.result is not None and event.result.exit_code:
        return "error"
    if event.rung is not None and event.rung.ok is False:
        return "warning"
    return _LEVELS.get(event.kind, "info")


def rung_text(seen: RungResult) -> str:
    """What was seen of one rung of the ladder, such as `port answers: yes, localhost:5432`."""
    words = f"{seen.rung.label}: {_REACHED[seen.ok]}"
    return f"{words}, {seen.text}" if seen.text else words


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
        text = rung_text(event.rung)
    else:
        text = event.message or _WORDS.get(event.kind, event.kind)
        text = f"{event.phase} {text}" if event.phase else text
    return f"{event.store}: {text}" if event.store else text

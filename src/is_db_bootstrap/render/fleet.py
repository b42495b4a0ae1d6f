"""What became of many targets, for people: a table of looks, a last line, and how far it came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.render.plain import PlainScreen
from is_db_bootstrap.render.report import WIDTH
from is_db_bootstrap.render.screen import Column, Line, Screen
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.stores.kinds import KINDS
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.events import FleetProgress

_COLUMNS = (
    Column("TARGET"),
    Column("STORE"),
    Column("OUTCOME"),
    Column("WHAT", may_break=True),
)
_STYLES = {
    Outcome.PLANNED: "cyan",
    Outcome.SKIPPED: "dim",
    Outcome.DRIFTED: "yellow",
    Outcome.FAILED: "red",
    Outcome.INTERRUPTED: "yellow",
}
#: So many drifts of a store are named in its row. The others are counted.
_NAMED_DRIFTS = 3
#: Seconds in a minute and in an hour.
_MINUTE_S = 60
_HOUR_S = 3600


def fleet_report(
    result: Mapping[str, Any], screen: Screen | None = None, *, done_before: int = 0
) -> str:
    """The last line of a fleet. Where nothing was to be changed, a table stands above the line.

    `result` is the document of the fleet. `done_before` counts the targets that were left out.
    """
    screen = screen or PlainScreen()
    is_look = result["mode"] != Mode.APPLY
    text = _targets_table(result, screen) if is_look and result["targets"] else ""
    return text + screen.line([(_last_line(result, done_before), "")])


def _targets_table(result: Mapping[str, Any], screen: Screen) -> str:
    """A row for each store of each target."""
    rows = [row for target in result["targets"] for row in _target_rows(target)]
    return screen.table(_COLUMNS, rows, width=WIDTH)


def _target_rows(target: Mapping[str, Any]) -> Iterator[list[Line]]:
    if target["message"] or not target["run"]:
        yield _row(target["name"], "-", target["outcome"], target["message"])
    for store in target["run"]["stores"] if target["run"] else ():
        yield _row(target["name"], store["store"], store["outcome"], _store_words(store))


def _row(name: str, store: str, outcome: str, words: str) -> list[Line]:
    style = _STYLES.get(Outcome(outcome), "green")
    return [[(name, "")], [(store, "")], [(str(outcome), style)], [(words or "-", "")]]


def _store_words(store: Mapping[str, Any]) -> str:
    """What there is to say of one store, in a few words."""
    if store["drifts"]:
        return _drift_words(store["drifts"])
    if store["error"]:
        message = str(store["error"]["message"])
        return message.removeprefix(f"{store['store']}: ")
    parts = [_status_words(store["status"])] if store["status"] else []
    parts += change_counts(store)
    return ", ".join(parts)


def _status_words(status: Mapping[str, Any]) -> str:
    lock = f"locked by {status['lock']['who']}" if status["lock"] else "not locked"
    return f"recorded {status['recorded'] or 'nothing'}, head {status['head']}, {lock}"


def _drift_words(drifts: list[Mapping[str, Any]]) -> str:
    named = [f"{drift['kind']} {drift['object']}: {drift['message']}" for drift in drifts]
    words = "; ".join(named[:_NAMED_DRIFTS])
    others = len(drifts) - _NAMED_DRIFTS
    return f"{words}; and {others} more" if others > 0 else words


def change_counts(store: Mapping[str, Any]) -> list[str]:
    """Such as `1 database planned` and `4 revisions planned`, for the document of a store."""
    counts = Counter((change["kind"], change["outcome"]) for change in store["changes"])
    nouns = KINDS[store["store"]].change_nouns
    parts = []
    for (kind, outcome), number in counts.items():
        one, several = nouns.get(kind, (kind, kind))
        parts.append(f"{counted(number, one, several)} {outcome}")
    return parts


def _last_line(result: Mapping[str, Any], done_before: int) -> str:
    """How many targets came to what."""
    numbers = Counter(target["outcome"] for target in result["targets"])
    counts = [f"{number} {outcome}" for outcome, number in numbers.items()]
    if done_before:
        counts.append(f"{done_before} done before")
    total = len(result["targets"]) + done_before
    return (
        f"{result['blueprint']}: {result['mode']} of {counted(total, 'target')}: "
        f"{', '.join(counts) or 'none'} in {result['duration_s']:.1f} s "
        f"(exit {result['exit_code']})"
    )


def progress_words(progress: FleetProgress) -> str:
    """How many targets have ended, how fast that goes, and how long the others may take."""
    words = [f"{progress.ended} of {counted(progress.total, 'target')} done"]
    if progress.failed:
        words.append(f"{progress.failed} failed")
    words.append(f"{_duration(progress.elapsed_s)} so far")
    if progress.rate:
        words += [_rate_words(progress.rate), f"about {_duration(progress.left_s)} left"]
    return ", ".join(words)


def _rate_words(rate: float) -> str:
    """A rate in targets a second, or in targets a minute where it is a slow one."""
    if rate >= 1:
        return f"{rate:.1f} a second"
    return f"{rate * _MINUTE_S:.1f} a minute"


def _duration(seconds: float) -> str:
    """A duration as people say it: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, _MINUTE_S)
    if whole < _HOUR_S:
        return f"{minutes} min {rest_s} s"
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours} h {minutes} min"

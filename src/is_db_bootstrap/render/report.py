"""The result of a run as a table for people, and what there is to say of each store below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from is_db_bootstrap.render.plain import PlainScreen
from is_db_bootstrap.render.screen import Column, Line, Screen
from is_db_bootstrap.results import BootstrapResult, Mode, Outcome, StoreResult
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.results import ChangeResult, Drift

#: Columns of the output when it is no terminal: characters.
WIDTH = 120

_STYLES = {
    Outcome.UNCHANGED: "green",
    Outcome.CHANGED: "green",
    Outcome.PLANNED: "cyan",
    Outcome.SKIPPED: "dim",
    Outcome.DRIFTED: "yellow",
    Outcome.FAILED: "red",
    Outcome.INTERRUPTED: "yellow",
}
_COLUMNS = (
    Column("STORE"),
    Column("SERVER"),
    Column("OUTCOME"),
    Column("CHANGES", may_break=True),
    Column("TIME", is_number=True),
)


def report(result: BootstrapResult, screen: Screen | None = None, *, verbose: bool = False) -> str:
    """Store, server, outcome, changes and time; then every failure with its cause and next step.

    `verbose` lists single changes, which a plan always does.
    """
    screen = screen or PlainScreen()
    rows = [_row(store) for store in result.stores]
    text = screen.table(_COLUMNS, rows, width=WIDTH)
    lists_changes = verbose or result.mode is Mode.PLAN
    for store in result.stores:
        for words, style in _details(store, lists_changes=lists_changes):
            text += screen.line([(f"  {store.store}: {words}", style)])
    return text + screen.line(_last_line(result))


def _last_line(result: BootstrapResult) -> Line:
    return [
        (f"{result.blueprint or 'run'}: {result.mode} ", ""),
        (result.outcome.value, "green" if result.ok else "red"),
        (f" in {result.duration_s:.1f} s (exit {result.exit_code})", ""),
    ]


def _row(store: StoreResult) -> list[Line]:
    outcome = (store.outcome.value, _STYLES[store.outcome])
    cells = [store.store, _server(store), _changes(store), f"{store.duration_s:.2f} s"]
    name, server, changes, time = [[(cell, "")] for cell in cells]
    return [name, server, [outcome], changes, time]


def _server(store: StoreResult) -> str:
    if store.server is None:
        return "-"
    return f"{store.server.version} {store.server.edition or ''}".strip()


def _changes(store: StoreResult) -> str:
    """Such as `1 database, 4 revisions`; what was not applied is said."""
    counts = Counter((change.kind, change.outcome) for change in store.changes)
    told = []
    for (kind, outcome), number in counts.items():
        suffix = "" if outcome is Outcome.CHANGED else f" {outcome.value}"
        told.append(f"{number} {_noun(store, kind, number)}{suffix}")
    return ", ".join(told) or "-"


def _noun(store: StoreResult, kind: str, number: int) -> str:
    """What one or several changes of a kind are called."""
    one, several = KINDS[store.store].change_nouns.get(kind, (kind, kind))
    return one if number == 1 else several


def _details(store: StoreResult, *, lists_changes: bool) -> Iterator[tuple[str, str]]:
    """What there is to say of a store, line by line, each with its colour."""
    if store.status is not None:
        yield _record(store), ""
    if lists_changes:
        yield from ((_change(change), "") for change in store.changes)
    yield from ((f"note: {note}", "dim") for note in store.notes)
    yield from ((_drift(drift), "yellow") for drift in store.drifts)
    if store.error and not store.drifts:
        detail = getattr(store.exception, "detail", "")
        told = f"{store.error.message} {detail}".strip()
        yield f"{store.error.kind}: {told}", "red"
    if store.error and store.error.hint:
        yield f"next: {store.error.hint}", ""


def _record(store: StoreResult) -> str:
    """What `status` found; empty where it was not asked."""
    if store.status is None:
        return ""
    lock = f"locked by {store.status.lock.who}" if store.status.lock else "not locked"
    return f"recorded {store.status.recorded or 'nothing'}, head {store.status.head}, {lock}"


def _change(change: ChangeResult) -> str:
    detail = f" ({change.detail})" if change.detail else ""
    return f"{change.outcome}: {change.kind} {change.name}{detail}"


def _drift(drift: Drift) -> str:
    has_both = drift.expected is not None and drift.actual is not None
    sides = f" (expected {drift.expected}, found {drift.actual})" if has_both else ""
    return f"drift: {drift.kind} {drift.object}: {drift.message}{sides}"

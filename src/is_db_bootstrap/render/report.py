"""The result of a run as a table for people, and what there is to say of each store below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import VerificationFailed
from is_db_bootstrap.render.drift import drift_lines, drift_text
from is_db_bootstrap.render.plain import PlainScreen
from is_db_bootstrap.render.screen import Column, Line, Screen
from is_db_bootstrap.render.statements import statement_lines
from is_db_bootstrap.results import BootstrapResult, Detail, Mode, Outcome, StoreResult
from is_db_bootstrap.stores.kinds import KINDS
from is_db_bootstrap.wording import noun

if TYPE_CHECKING:
    from is_db_bootstrap.results import ChangeResult, LockHolder, Status

#: Columns of the output when it is no terminal: characters.
WIDTH = 120

#: What follows a change that is neither atomic nor repeatable.
_ASKED_AGAIN = " [neither atomic nor repeatable: if it is cut off, a person decides]"

#: Outcomes of a change after which somebody may run it.
_NOT_DONE = {Outcome.PLANNED, Outcome.FAILED}

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
    """A table of the stores, and below it every failure with its cause and next step.

    The report of a plan lists single changes, with the statements of each. With `verbose`, every
    report lists changes, and no list of statements is cut.
    """
    screen = screen or PlainScreen()
    rows = [_store_row(store) for store in result.stores]
    text = screen.table(_COLUMNS, rows, width=WIDTH)
    lists_changes = verbose or result.mode in {Mode.PLAN, Mode.REPAIR, Mode.ADOPT}
    tells_details = verbose or result.mode is Mode.VERIFY
    for each in result.stores:
        store = each if tells_details else without_details(each)
        if store.status is not None:
            text += screen.line([(f"  {store.store}: {_status_text(store.status)}", "")])
        for change in store.changes if lists_changes else ():
            text += screen.line([(f"  {store.store}: {_change_text(change)}", "")])
            for words, style in statement_lines(change, shows_all=verbose):
                text += screen.line([(words, style)])
        for words, style in _detail_lines(store):
            text += screen.line([(f"  {store.store}: {words}", style)])
        for drift in store.drifts:
            text += screen.line([(f"  {store.store}: {drift_text(drift)}", "yellow")])
            text += "".join(screen.line([(line, "")]) for line in drift_lines(drift))
        if store.error and store.error.hint:
            text += screen.line([(f"  {store.store}: next: {store.error.hint}", "")])
    return text + screen.line(_last_line(result))


def without_details(store: StoreResult) -> StoreResult:
    """The result of a store without the notes that every run would repeat."""
    notes = tuple(note for note in store.notes if not isinstance(note, Detail))
    return replace(store, notes=notes)


def _last_line(result: BootstrapResult) -> Line:
    """The outcome of the whole run."""
    name = result.blueprint or "run"
    style = "green" if result.ok else "red"
    return [
        (f"{name}: {result.mode} ", ""),
        (result.outcome.value, style),
        (f" in {result.duration_s:.1f} s (exit {result.exit_code})", ""),
    ]


def _store_row(store: StoreResult) -> list[Line]:
    """The cells of one store, in the order of `_COLUMNS`."""
    return [
        [(store.store, "")],
        [(_server_text(store), "")],
        [(store.outcome.value, _STYLES[store.outcome])],
        [(_changes_text(store), "")],
        [(f"{store.duration_s:.2f} s", "")],
    ]


def _server_text(store: StoreResult) -> str:
    """Version and edition of a server, or `-` for a server that did not answer."""
    if store.server is None:
        return "-"
    return f"{store.server.version} {store.server.edition or ''}".strip()


def _changes_text(store: StoreResult) -> str:
    """Such as `1 database, 4 revisions`. The outcome follows where a change was not applied."""
    counts = Counter((change.kind, change.outcome) for change in store.changes)
    parts = []
    for (kind, outcome), number in counts.items():
        suffix = "" if outcome is Outcome.CHANGED else f" {outcome.value}"
        parts.append(f"{number} {_change_noun(store, kind, number)}{suffix}")
    return ", ".join(parts) or "-"


def _change_noun(store: StoreResult, kind: str, number: int) -> str:
    """The noun for one or for several changes of a kind."""
    return noun(number, *KINDS[store.store].change_nouns.get(kind, (kind,)))


def _detail_lines(store: StoreResult) -> Iterator[tuple[str, str]]:
    """What is left to say of a store behind its changes, line by line, each with its colour."""
    yield from ((f"note: {note}", "dim") for note in store.notes)
    # The drifts of a verification say the same as its error, and more.
    differs = store.error is not None and store.error.kind == VerificationFailed.kind
    is_told = bool(store.drifts) and differs
    if store.error and not is_told:
        detail = getattr(store.exception, "detail", "")
        message = f"{store.error.message} {detail}".strip()
        yield f"{store.error.kind}: {message}", "red"


def _status_text(status: Status) -> str:
    lock = f"locked by {holder_text(status.lock)}" if status.lock else "not locked"
    return f"recorded {status.recorded or 'nothing'}, head {status.head}, {lock}"


def holder_text(holder: LockHolder) -> str:
    """Who holds a lock, since when, and when it lapses, on one line."""
    text = holder.who
    if holder.since is not None:
        text += f", since {holder.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if holder.lease_left_s is not None:
        text += f", lapses in {holder.lease_left_s:.0f} s unless it is renewed"
    return text


def _change_text(change: ChangeResult) -> str:
    detail = f" ({change.detail})" if change.detail else ""
    is_left_to_person = change.outcome in _NOT_DONE and not change.nature.may_run_again
    remark = _ASKED_AGAIN if is_left_to_person else ""
    return f"{change.outcome}: {change.kind} {change.name}{detail}{remark}"

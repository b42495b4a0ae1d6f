"""The page of `doctor`: what a bug report needs, as Markdown that reads well as it is.

The page is the same on a terminal and in a pipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from is_db_bootstrap.event_words import rung_text
from is_db_bootstrap.render.report import holder_text
from is_db_bootstrap.results import Outcome
from is_db_bootstrap.wording import counted, visible

if TYPE_CHECKING:
    from is_db_bootstrap.results import (
        BootstrapResult,
        Diagnosis,
        Fact,
        Machine,
        Privilege,
        Status,
        StoreResult,
    )
    from is_db_bootstrap.rungs import RungResult

#: How a rung is ticked in a list of Markdown.
_TICKS = {True: "[x]", False: "[ ]", None: "[?]"}
_GRANTED = {True: "yes", False: "no", None: "not seen"}
#: Seconds by which two clocks may differ before that is worth a word. A certificate or a token of
#: the server may be refused by then.
_CLOCK_S = 5.0


def doctor_page(result: BootstrapResult) -> str:
    """The whole page, with a line end behind each line."""
    machine = result.machine
    lines = [*_head(result)]
    if machine is not None:
        lines += ["", *_machine_lines(machine)]
    for store in result.stores:
        lines += ["", *_store_lines(store)]
    if machine is not None:
        lines += ["", "## Settings in effect", "", *_facts(machine.settings)]
    return "".join(f"{visible(line)}\n" for line in lines)


def _head(result: BootstrapResult) -> Iterator[str]:
    ready = [store for store in result.stores if store.error is None]
    source = f" ({result.blueprint_source})" if result.blueprint_source else ""
    yield "# is-db-bootstrap doctor"
    yield ""
    yield f"- blueprint: {result.blueprint}{source}"
    yield f"- ready: {len(ready)} of {counted(len(result.stores), 'store')}"
    yield f"- exit code: {result.exit_code}"
    yield f"- looked at: {result.started_at:%Y-%m-%d %H:%M:%S} UTC, for {result.duration_s:.1f} s"
    yield f"- run: {result.run_id}"


def _machine_lines(machine: Machine) -> Iterator[str]:
    yield "## This machine"
    yield ""
    yield f"- is-db-bootstrap: {machine.tool}"
    yield f"- Python: {machine.python}"
    yield f"- system: {machine.system}"
    yield from _facts(machine.versions)
    if not machine.variables:
        yield "- proxies in the environment: none"
    yield from _facts(machine.variables)


def _facts(facts: Iterable[Fact]) -> Iterator[str]:
    for fact in facts:
        yield f"- {fact.name}: {fact.text}"


def _store_lines(store: StoreResult) -> Iterator[str]:
    state = "ready" if store.error is None else "not ready"
    yield f"## {store.store}: {state}"
    yield ""
    yield f"- address: {store.target}"
    for rung in store.rungs:
        yield from _rung_lines(rung)
    if store.error is not None and all(rung.ok is not False for rung in store.rungs):
        yield f"- {store.error.kind}: {store.error.message}"
        yield from ([f"  next: {store.error.hint}"] if store.error.hint else [])
    yield from (f"- note: {note}" for note in store.notes)
    if store.diagnosis is not None:
        yield ""
        yield from _diagnosis_lines(store, store.diagnosis)


def _rung_lines(rung: RungResult) -> Iterator[str]:
    yield f"- {_TICKS[rung.ok]} {rung_text(rung)}"
    if rung.ok is False:
        yield f"  {'waiting does not help' if rung.is_permanent else 'waiting may help'}"
    if rung.hint:
        yield f"  next: {rung.hint}"


def _diagnosis_lines(store: StoreResult, seen: Diagnosis) -> Iterator[str]:
    yield from _facts(seen.facts)
    yield f"- clock: {_clock_text(seen.clock_difference_s)}"
    yield from _listed("in between", seen.between)
    yield from _listed("does not fit", seen.mismatches)
    if seen.privileges is None:
        yield "- privilege: not seen"
    yield from (f"- privilege{_privilege_text(each)}" for each in seen.privileges or ())
    if store.status is None:
        yield "- lock: not seen"
    else:
        yield f"- lock: {_lock_text(store.status)}"
        yield f"- recorded: {store.status.recorded or 'nothing'}"
        yield f"- head: {store.status.head or 'nothing'}"
    yield from _pending_lines(store, seen.pending)
    yield from _listed("remembered", seen.remembered)
    yield from (f"- not seen: {each}" for each in seen.unseen)


def _pending_lines(store: StoreResult, pending: int | None) -> Iterator[str]:
    """How many changes are pending, and how many are passed over on this server."""
    yield f"- pending: {'not seen' if pending is None else counted(pending, 'change')}"
    skipped = [change for change in store.changes if change.outcome is Outcome.SKIPPED]
    if skipped:
        yield f"- skipped: {counted(len(skipped), 'change')}"


def _listed(name: str, texts: tuple[str, ...] | None) -> Iterator[str]:
    """A line for each text. Else one that says that nothing is there, or that nobody could look."""
    for text in ("not seen",) if texts is None else texts or ("nothing",):
        yield f"- {name}: {text}"


def _clock_text(difference_s: float | None) -> str:
    if difference_s is None:
        return "not seen"
    way = "ahead of" if difference_s > 0 else "behind"
    text = f"{abs(difference_s):.2f} s {way} this machine"
    if abs(difference_s) < _CLOCK_S:
        return text
    return f"{text}. Set both clocks right: certificates and leases depend on them"


def _privilege_text(privilege: Privilege) -> str:
    purpose = f" for {privilege.purpose}" if privilege.purpose else ""
    text = f"{purpose}: {privilege.name}: {_GRANTED[privilege.is_granted]}"
    if privilege.is_granted is True or not privilege.statement:
        return text
    role = f" to a role{purpose}" if purpose else ""
    return f"{text}. To grant it{role}: {privilege.statement}"


def _lock_text(status: Status) -> str:
    return f"held by {holder_text(status.lock)}" if status.lock else "held by nobody"

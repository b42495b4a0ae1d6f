"""The result as a table for people."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from is_db_bootstrap.results import BootstrapResult, Mode, Outcome, StoreResult

if TYPE_CHECKING:
    from is_db_bootstrap.results import ChangeResult

_STYLE = {
    Outcome.UNCHANGED: "green",
    Outcome.CHANGED: "green",
    Outcome.PLANNED: "cyan",
    Outcome.SKIPPED: "dim",
    Outcome.DRIFTED: "yellow",
    Outcome.FAILED: "red",
    Outcome.INTERRUPTED: "yellow",
}
#: Kind of a change to what one and several of them are called.
_NOUNS = {
    "database": ("database", "databases"),
    "schema": ("schema", "schemas"),
    "revision": ("revision", "revisions"),
    "cypher": ("Cypher file", "Cypher files"),
    "collection": ("collection", "collections"),
    "index": ("index", "indexes"),
    "partition": ("partition", "partitions"),
    "alias": ("alias", "aliases"),
    "load": ("load", "loads"),
    "conventions": ("set of conventions", "sets of conventions"),
    "seed": ("demo row", "demo rows"),
}


def report(result: BootstrapResult, *, verbose: bool = False) -> None:
    """Print store, server, outcome, changes and time; then every failure with its cause and next step."""
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(_table(result))
    for store in result.stores:
        _details(console, store, result.mode, verbose=verbose)
    style = "green" if result.ok else "red"
    console.print(
        Text.assemble(
            f"{result.blueprint or 'run'}: {result.mode} ", (result.outcome.value, style),
            f" in {result.duration_s:.1f} s (exit {result.exit_code})",
        )
    )  # fmt: skip


def _table(result: BootstrapResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("STORE", "SERVER", "OUTCOME", "CHANGES"):
        table.add_column(name, no_wrap=name != "CHANGES")
    table.add_column("TIME", justify="right", no_wrap=True)
    for store in result.stores:
        server = (
            f"{store.server.version} {store.server.edition or ''}".strip() if store.server else "-"
        )
        outcome = Text(store.outcome.value, style=_STYLE[store.outcome])
        table.add_row(
            store.store, server, outcome, _summary(store.changes), f"{store.duration_s:.2f} s"
        )
    return table


def _summary(changes: tuple[ChangeResult, ...]) -> str:
    """`1 database, 4 revisions` and the like; what was not applied is said."""
    counts = Counter((change.kind, change.outcome) for change in changes)
    return ", ".join(_counted(n, kind, outcome) for (kind, outcome), n in counts.items()) or "-"


def _counted(number: int, kind: str, outcome: Outcome) -> str:
    one, many = _NOUNS.get(kind, (kind, kind))
    suffix = "" if outcome is Outcome.CHANGED else f" {outcome.value}"
    return f"{number} {one if number == 1 else many}{suffix}"


def _details(console: Console, store: StoreResult, mode: Mode, *, verbose: bool) -> None:
    lines: list[tuple[str, str]] = []
    if store.status is not None:
        lock = f", locked by {store.status.lock.who}" if store.status.lock else ", not locked"
        lines.append(
            (f"recorded {store.status.recorded or 'nothing'}, head {store.status.head}{lock}", "")
        )
    if verbose or mode is Mode.PLAN:
        lines += [(f"{c.outcome}: {c.kind} {c.name}{_behind(c.detail)}", "") for c in store.changes]
    lines += [(f"note: {note}", "dim") for note in store.notes]
    lines += [
        (f"drift: {d.kind} {d.object}: {d.message}{_difference(d.expected, d.actual)}", "yellow")
        for d in store.drifts
    ]
    if store.error and not store.drifts:
        detail = store.exception.detail if store.exception else ""
        told = f"{store.error.message} {detail}".strip()
        lines.append((f"{store.error.kind}: {told}", "red"))
    if store.error and store.error.hint:
        lines.append((f"next: {store.error.hint}", ""))
    for text, style in lines:
        console.print(Text(f"  {store.store}: {text}", style=style), soft_wrap=True)


def _behind(detail: str) -> str:
    return f" ({detail})" if detail else ""


def _difference(expected: str | None, actual: str | None) -> str:
    return "" if expected is None or actual is None else f" (expected {expected}, found {actual})"

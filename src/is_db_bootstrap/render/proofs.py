"""The checks of a self-test."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from is_db_bootstrap.render.document import as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.render.screen import Screen
    from is_db_bootstrap.results import Proof

#: A word and a colour for each outcome of a check. None: the check could not be tried.
_OUTCOMES = {True: ("ok", "green"), False: ("failed", "red"), None: ("not tried", "yellow")}


def proof_line(store: StoreName, proof: Proof, screen: Screen) -> str:
    """One check as a line: store, outcome, what was tried, what was found."""
    word, style = _OUTCOMES[proof.ok]
    detail = f"  {proof.detail}" if proof.detail else ""
    pieces = [(f"{store:<9} ", ""), (f"{word:<9}", style), (f" {proof.name}{detail}", "")]
    return screen.line(pieces)


def proofs_total(blueprint: str, proofs: Sequence[Proof], exit_code: int, screen: Screen) -> str:
    """The last line, with the number of checks of each outcome."""
    numbers = Counter(proof.ok for proof in proofs)
    counts = [f"{numbers[ok]} {word}" for ok, (word, _) in _OUTCOMES.items() if numbers[ok]]
    total = ", ".join(counts) or "nothing to try"
    return screen.line([(f"{blueprint}: selftest {total} (exit {exit_code})", "")])


def proofs_document(
    blueprint: str,
    proofs: Sequence[tuple[StoreName, Proof]],
    exit_code: int,
    blueprint_source: str = "",
) -> str:
    """All checks as one JSON document. `blueprint_source` says who named the blueprint."""
    rows = [{"store": store, **asdict(proof)} for store, proof in proofs]
    head = {"blueprint": blueprint, "blueprint_source": blueprint_source}
    return as_json({**head, "exit_code": exit_code, "checks": rows})

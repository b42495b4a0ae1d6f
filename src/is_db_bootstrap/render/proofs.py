"""The checks of a self-test, one line each while they are made."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from is_db_bootstrap.bootstrapper import DatabaseBootstrapper
    from is_db_bootstrap.results import Proof

#: What a check came to, and its colour.
_WORDS = {True: ("ok", "green"), False: ("failed", "red"), None: ("not tried", "yellow")}


def proofs(
    blueprint: str,
    made: Iterable[tuple[DatabaseBootstrapper, Proof]],
    output: str,
    *,
    quiet: bool = False,
) -> int:
    """Print every check to stdout and return the exit code: 3 when one failed, else 0."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    seen: list[tuple[str, Proof]] = []
    for store, proof in made:
        seen.append((store.name, proof))
        if output == "text" and not (quiet and proof.ok):
            word, style = _WORDS[proof.ok]
            detail = f"  {proof.detail}" if proof.detail else ""
            console.print(
                Text.assemble(f"{store.name:<9} ", (f"{word:<9}", style), f" {proof.name}{detail}")
            )
    found = Counter(proof.ok for _, proof in seen)
    code = 3 if found[False] else 0
    if output == "json":
        rows = [{"store": store, **asdict(proof)} for store, proof in seen]
        console.print(
            json.dumps(
                {"blueprint": blueprint, "exit_code": code, "checks": rows},
                indent=2,
                ensure_ascii=False,
            ),
            markup=False,
        )
    elif not quiet:
        counted = ", ".join(f"{found[ok]} {word}" for ok, (word, _) in _WORDS.items() if found[ok])
        console.print(Text(f"{blueprint}: selftest {counted or 'nothing to try'} (exit {code})"))
    return code

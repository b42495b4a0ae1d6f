"""Mermaid diagrams in the fences of Markdown pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from is_db_bootstrap.wording import visible


def mermaid(diagrams: Iterable[Sequence[str]]) -> str:
    """Each diagram, given as its lines, in a fence of its own."""
    texts = ["\n".join(map(visible, lines)) for lines in diagrams]
    return "\n".join(f"```mermaid\n{text}\n```\n" for text in texts)

"""What each store tells of a blueprint, without asking a server.

This is the contract of the module `description` that each store has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from is_db_bootstrap.wording import noun, singular

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint

#: A store's part of a blueprint's document: values that JSON can hold.
Declared = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of an outline, with the lines below it.

    `name` is that of the declared thing, and `text` is what else there is to say. A heading has no
    name.
    """

    name: str = ""
    text: str = ""
    branches: Sequence[Branch] = ()


class StoreDescription(Protocol):
    """The functions of a store's module `description`.

    Every other function takes what `describe` returned.
    """

    def describe(self, blueprint: Blueprint) -> dict[str, Any]:
        """Everything that a blueprint declares about the store.

        The blueprint's settings have been put in before.
        """

    def count_declared(self, declared: Declared) -> dict[str, int]:
        """How many things of each kind are declared. The number may be 0."""

    def outline(self, declared: Declared) -> list[Branch]:
        """What is declared, as an outline for people."""

    def diagram(self, declared: Declared) -> list[str]:
        """The lines of a Mermaid diagram, the first of which names the diagram's type.

        There is at most that line when there is nothing to draw.
        """

    def verified_lines(self, declared: Declared) -> list[str]:
        """One line for each object, or one for all objects.

        The last step of a guided set-up shows these lines.
        """


def listing(title: str, rows: Mapping[str, Any]) -> list[Branch]:
    """A heading with the number of rows, and a line for each row. Nothing without rows."""
    if not rows:
        return []
    lines = [Branch(name, str(definition)) for name, definition in rows.items()]
    return [Branch(text=f"{title} ({len(rows)})", branches=lines)]


def counted(**kinds: int) -> str:
    """Such as `1 trigger, 2 key patterns`, from `triggers=1, key_patterns=2`.

    A kind with the number 0 is left out.
    """
    parts = []
    for kind, number in kinds.items():
        several = kind.replace("_", " ")
        if number:
            parts.append(f"{number} {noun(number, singular(several), several)}")
    return ", ".join(parts)

"""What each store tells of a blueprint, without asking a server: the contract of its module `description`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint

#: A store's part of a blueprint's document: values that JSON can hold.
Declared = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of an outline, with the lines below it.

    `name` is what the declared thing is called, and `text` is what else there is to say. A heading
    has no name.
    """

    name: str = ""
    text: str = ""
    branches: Sequence[Branch] = ()


class StoreDescription(Protocol):
    """The functions of a store's module `description`.

    Each but the first takes what the first returned.
    """

    def describe(self, blueprint: Blueprint) -> dict[str, Any]:
        """Everything that a blueprint declares about the store. Its settings have been put in."""

    def count_declared(self, declared: Declared) -> dict[str, int]:
        """How many of each kind are declared; a kind may have none."""

    def outline(self, declared: Declared) -> list[Branch]:
        """The same as an outline for people."""

    def diagram(self, declared: Declared) -> list[str]:
        """The lines of a Mermaid diagram, the first of which names its type.

        That one alone when there is nothing to draw.
        """

    def verified_lines(self, declared: Declared) -> list[str]:
        """One line for each object, or for all of them, for the last step of a guided set-up."""


def listing(title: str, rows: Mapping[str, Any]) -> list[Branch]:
    """A heading with the number of rows, and a line for each; nothing when there are none."""
    if not rows:
        return []
    lines = [Branch(name, str(definition)) for name, definition in rows.items()]
    return [Branch(text=f"{title} ({len(rows)})", branches=lines)]


def counted(**kinds: int) -> str:
    """Such as `1 trigger, 2 key patterns`, from `triggers=1, key_patterns=2`.

    Kinds of which there are none are left out.
    """
    told = []
    for kind, number in kinds.items():
        several = kind.replace("_", " ")
        noun = several.removesuffix("s") if number == 1 else several
        if number:
            told.append(f"{number} {noun}")
    return ", ".join(told)

"""What a running store holds, as a blueprint would declare it.

This is the contract of the module `existing` that each store has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl, Timing


@dataclass(frozen=True, slots=True)
class Existing:
    """What was found in one store.

    - `declared` maps a field of `Blueprint` to its value, such as `collections` to a tuple.
    - `files` maps a path below the blueprint's folder to the text of a file.
    - `found` says in a few words what is there, for the report.
    - `guesses` are sentences about what a person has to confirm.
    - `unread` are sentences about what could not be read, or cannot be declared.
    - `next_steps` are commands that record what is there already. `{folder}` in them stands for the
      blueprint's folder.
    """

    declared: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    found: str = ""
    guesses: Sequence[str] = ()
    unread: Sequence[str] = ()
    next_steps: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Let each sentence be one plain line, whatever names of a store stand in it."""
        for name in ("guesses", "unread"):
            plain = tuple(_plain_line(sentence) for sentence in getattr(self, name))
            object.__setattr__(self, name, plain)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to declare."""
        return not self.declared and not self.files


def _plain_line(sentence: str) -> str:
    """The sentence with an escape for each character that does not print."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in sentence
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a store.

    `blueprint` is the name of the new blueprint. `environment` is the file of a team's own
    environment, such as `alembic.ini`, and None where none was named or found. At most `most_keys`
    keys of a key-value store are looked at.
    """

    blueprint: str
    environment: Path | None = None
    most_keys: int = 20_000


class ReadsExisting(Protocol):
    """The function of a store's module `existing`."""

    def read_existing(self, url: StoreUrl, timing: Timing, request: Request) -> Existing:
        """Read what the store at `url` holds. This never writes.

        Raises the errors of `is_db_bootstrap.errors` for a store that cannot be reached or read.
        """

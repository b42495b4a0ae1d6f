"""What a person lets run again: changes that have begun without their record (`--retry`)."""

from __future__ import annotations

from collections.abc import Collection


class Consent:
    """The changes of one run that may run again, each over the mark that its first plan found.

    A mark is a value that differs from that of any other try. So a try that another run makes
    meanwhile is not covered.
    """

    def __init__(self) -> None:
        self._changes: frozenset[str] = frozenset()
        self._marks: dict[tuple[str, ...], object] = {}

    def give(self, changes: Collection[str]) -> None:
        """Let `changes` run again from now on, and no others."""
        self._changes = frozenset(changes)
        self._marks.clear()

    def names(self, change: str) -> bool:
        """Whether a change may run again over one mark or another."""
        return change in self._changes

    def covers(self, change: str, mark: object, *place: str) -> bool:
        """Whether a change may run again over `mark`. `place` tells several marks of one apart."""
        if not self.names(change):
            return False
        return self._marks.setdefault((change, *place), mark) == mark

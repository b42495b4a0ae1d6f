"""What the `vector` commands report, as frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a collection.

    `rows` is None when the server could not count, because the version is not loaded. `aliases` are
    all that lead to it. `only_here` names fields that the version behind the alias does not have;
    it is empty where nobody asked for them.
    """

    name: str
    rows: int | None
    is_declared: bool
    is_loaded: bool
    aliases: tuple[str, ...] = ()
    only_here: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """All versions of one declared collection, oldest first, and where its alias leads."""

    declared: str
    alias: str
    target: str | None
    versions: tuple[Version, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of one collection."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far a copy is. `total` is the number of rows to look at, `seconds` the time so far."""

    target: str
    done: int
    total: int
    failed: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """The mean rate so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the mean rate. None before the first row."""
        rate = self.rows_per_second
        return max(self.total - self.done, 0) / rate if rate else None


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row that was not written: its key, and why."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What `vector upgrade` did with one collection.

    - `copied` rows were written, and `present` ones had been written by an earlier call.
    - `failed` counts the rows that were not written. `failures` names the first of them.
    - `source_rows` and `target_rows` were counted at the end. `sampled` rows were compared, and
      `differing` has the keys of those that differ. None is compared where the server makes keys.
    - `notes` say why the alias was not moved.
    - `was_there` says that the alias led to the target before, as it may with another source.
    """

    source: str
    target: str
    alias: str
    copied: int = 0
    present: int = 0
    failed: int = 0
    failures: tuple[FailedRow, ...] = ()
    source_rows: int = 0
    target_rows: int = 0
    sampled: int = 0
    differing: tuple[str, ...] = ()
    is_moved: bool = False
    notes: tuple[str, ...] = ()
    was_there: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of one collection."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Moved:
    """An alias that `vector rollback` moved."""

    alias: str
    source: str
    target: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of one alias."""
        return asdict(self)

"""The ladder that a store climbs until a run can work with it, from the bottom up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Rung(StrEnum):
    """What must be true of a store. Each rung needs all the rungs before it."""

    NAME = "name"
    PORT = "port"
    TLS = "tls"
    LOGIN = "login"
    TARGET = "target"
    WRITABLE = "writable"
    SCHEMA = "schema"

    @property
    def label(self) -> str:
        """What is true of a store that stands on this rung, in a few words."""
        return _LABELS[self]

    @property
    def below(self) -> tuple[Rung, ...]:
        """The rungs before this one, from the bottom up."""
        rungs = tuple(Rung)
        return rungs[: rungs.index(self)]


_LABELS: Mapping[Rung, str] = {
    Rung.NAME: "name resolves",
    Rung.PORT: "port answers",
    Rung.TLS: "TLS",
    Rung.LOGIN: "login",
    Rung.TARGET: "target exists",
    Rung.WRITABLE: "writable",
    Rung.SCHEMA: "schema-capable",
}


@dataclass(frozen=True, slots=True)
class RungResult:
    """What was seen of one rung.

    `ok` is None when that is open: the rung could not be looked at, or a run brings it about. Then
    `text` says why. `hint` is the next step
    of a rung that failed. `is_permanent` says of such a rung that waiting does not help.
    """

    rung: Rung
    ok: bool | None
    text: str = ""
    hint: str = ""
    is_permanent: bool = False

"""What observers receive while a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from is_db_bootstrap.results import BootstrapResult, ChangeResult, ErrorReport
    from is_db_bootstrap.rungs import RungResult


class Phase(StrEnum):
    """The phases of a run, in order, and what is done beside one."""

    WAIT = "wait"
    PLAN = "plan"
    LOCK = "lock"
    REPLAN = "plan again"
    APPLY = "apply"
    VERIFY = "verify"
    STATUS = "status"
    DOCTOR = "doctor"
    SELFTEST = "selftest"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    `kind` is one of `phase`, `waiting`, `still-waiting`, `store-done`, `change-started`,
    `change-ran`, `change`, `rung`, `failed`, `cancelling`, `finished`. A `rung` tells what was seen
    of one rung of the ladder, whenever that is new. A `change-ran` tells of a change that ran in a
    transaction which is still open, so it may be taken back. A `change` tells what became of it. A
    `waiting` is followed by another try. A `still-waiting`
    tells what a call waits for that has not come back. `store` is empty for the run as a whole.
    `elapsed_s` counts seconds since the run began. A `phase` has the seconds that it may take in
    `left_s`, which is None where it has no limit. The `store-done` of a plan has the number of
    changes to come in `planned`. A `failed` has its `error`, with the next step. `run_id` is that
    of the result.
    """

    kind: str
    phase: Phase | None = None
    store: str = ""
    message: str = ""
    elapsed_s: float = 0.0
    change: ChangeResult | None = None
    result: BootstrapResult | None = None
    left_s: float | None = None
    planned: int = 0
    run_id: str = ""
    rung: RungResult | None = None
    error: ErrorReport | None = None


Observer = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class RunningTarget:
    """A target that a worker of a fleet has, the phase of its run, and the seconds in that phase.

    `phase` is empty before the first phase.
    """

    name: str
    phase: str
    phase_s: float


@dataclass(frozen=True, slots=True)
class FleetProgress:
    """How far a fleet has come.

    `total` counts the targets of the call, `ended` those with a result, and `failed` those of them
    with an exit code other than 0. `elapsed_s` counts seconds since the fleet began. `rate` is the
    number of targets a second of late, and 0 before the first one has ended.
    """

    total: int
    ended: int
    failed: int
    elapsed_s: float
    rate: float
    running: tuple[RunningTarget, ...] = ()

    @property
    def left_s(self) -> float:
        """Seconds that the other targets take at this rate. 0 where no rate is known."""
        return (self.total - self.ended) / self.rate if self.rate else 0.0

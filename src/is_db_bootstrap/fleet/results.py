"""The report of a fleet: what became of each target, and of all together."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from is_db_bootstrap.errors import BootstrapError, LockTimeout, StoreUnavailable
from is_db_bootstrap.results import SCHEMA_VERSION, Mode, Outcome, worst

#: What a shell adds to the number of the signal that ended a process.
BY_SIGNAL = 128
#: The exit code of a run that was ended by SIGTERM.
TERMINATED = BY_SIGNAL + signal.SIGTERM
#: Exit codes of failures that a later try may mend.
_WORTH_ANOTHER_TRY = {StoreUnavailable.exit_code, LockTimeout.exit_code}


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What became of a target.

    `run` is the document of the target's run. Without one, `message` and `hint` say why there was
    no run. With one, `message` says what went wrong beside it, such as something that may still go
    on.
    """

    name: str
    outcome: Outcome
    exit_code: int
    run: dict[str, Any] | None = None
    message: str = ""
    hint: str = ""

    @classmethod
    def refused(
        cls, name: str, error: BootstrapError, outcome: Outcome = Outcome.FAILED
    ) -> TargetResult:
        """The result of a run that did not begin."""
        return cls(name, outcome, error.exit_code, None, error.message, error.hint)

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Message and hint of each store that failed, and of what went wrong beside the stores."""
        beside = [(self.message, self.hint)] if self.message else []
        if self.run is None:
            return beside
        return [_failure(store) for store in self.run["stores"] if store["error"]] + beside

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of this target."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "message": self.message,
            "hint": self.hint,
            "run": self.run,
        }


def _failure(store: dict[str, Any]) -> tuple[str, str]:
    error = store["error"]
    message = error["message"].removeprefix(store["store"] + ": ")
    return f"{store['store']}: {message}", error["hint"]


@dataclass(frozen=True, slots=True)
class FleetResult:
    """The report of all targets, in the order of their file.

    `duration_s` is seconds, `started_at` is UTC. `message` says what went wrong beside the targets.
    `blueprint_source` says who named the blueprint. The run of each target has this `run_id` too.
    """

    blueprint: str
    mode: Mode
    outcome: Outcome
    exit_code: int
    started_at: datetime
    duration_s: float
    targets: tuple[TargetResult, ...]
    message: str = ""
    blueprint_source: str = ""
    run_id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: the outcome of all, and below `targets` that of each target."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "blueprint": self.blueprint,
            "blueprint_source": self.blueprint_source,
            "mode": self.mode,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "started_at": self.started_at.isoformat(),
            "duration_s": round(self.duration_s, 3),
            "message": self.message,
            "targets": [target.to_dict() for target in self.targets],
        }


def exit_code_of(targets: Sequence[TargetResult]) -> int:
    """The exit code of the first failure that a later try may mend, else of the first of the worst.

    0 without a failure.
    So whatever starts the fleet tries again while another try is worth it.
    """
    failed = [target for target in targets if target.exit_code]
    for target in failed:
        if target.exit_code in _WORTH_ANOTHER_TRY or target.exit_code > BY_SIGNAL:
            return target.exit_code
    worst_outcome = worst([target.outcome for target in failed])
    codes = [target.exit_code for target in failed if target.outcome is worst_outcome]
    return codes[0] if codes else 0

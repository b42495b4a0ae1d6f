"""What the parts of one run share: its rules, its stores, and the signal to end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.track import LockPolicy, Track
from is_db_bootstrap.errors import BootstrapError, Interrupted
from is_db_bootstrap.events import Phase
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.results import BootstrapResult, ChangeResult, ErrorReport, Mode
from is_db_bootstrap.rungs import RungResult

if TYPE_CHECKING:
    from is_db_bootstrap.engine.adoption import Adopting
    from is_db_bootstrap.engine.bystanders import Bystander

#: Characters of a run's id, which stands in its result and in the owner of its locks.
_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Rules:
    """What the caller of an orchestrator has decided besides its stores."""

    blueprint: str
    retry: RetryPolicy
    lock: LockPolicy
    strict: bool
    allow_ahead: bool
    verify: bool
    retry_changes: tuple[str, ...] = ()
    blueprint_source: str = ""
    is_default_blueprint: bool = False
    #: The id of each run. Empty: each run gets an id of its own.
    run_id: str = ""
    #: The digest of what the blueprint declares. Without one, nothing is recorded of the run.
    fingerprint: str = ""
    #: Whether the records of the stores are read, and a store that was lost fails the run.
    judges_losses: bool = True
    #: Stores that were reset, as the caller knows. They are made anew.
    accept_reset: tuple[str, ...] = ()
    #: All stores of the blueprint, also those that this run leaves out.
    declared_stores: tuple[StoreName, ...] = STORE_ORDER
    #: Whether this is one target of a fleet, whose addresses tell it from the others.
    is_one_of_many: bool = False
    climbs: bool = False
    #: The stores that this run leaves out and that can be asked what they remember.
    bystanders: tuple[Bystander, ...] = ()


class Stop(threading.Event):
    """Set when a run is to end. `exit_code` says by which signal."""

    exit_code = Interrupted.exit_code


#: A change of a repair, as a person has seen it: the store, its kind, its name, its statements.
Approval = tuple[str, str, str, tuple[str, ...]]


class Emit(Protocol):
    """Tells the observers of a run that something happened."""

    def __call__(
        self,
        kind: str,
        *,
        phase: Phase | None = None,
        store: str = "",
        message: str = "",
        change: ChangeResult | None = None,
        result: BootstrapResult | None = None,
        left_s: float | None = None,
        planned: int = 0,
        rung: RungResult | None = None,
        error: ErrorReport | None = None,
    ) -> None:
        """Send one event. The arguments are the fields of `Event`."""


def new_run_id() -> str:
    """An id for a run, which no other run has: twelve hexadecimal digits."""
    return uuid.uuid4().hex[:_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run.

    `adopting` is set for a run that takes its stores over as they are.
    `tells_statements` says whether a plan looks for what would be sent.
    `stop` asks the run to end. `halted` is set once the run ends what is at work. Nothing new
    begins from then on.
    """

    rules: Rules
    mode: Mode
    tracks: Sequence[Track]
    emit: Emit
    stop: Stop
    tells_statements: bool = True
    #: What a repair may do, by store: kind, name and statements of each change. None: only look.
    approved: frozenset[Approval] | None = None
    adopting: Adopting | None = None
    halted: threading.Event = field(default_factory=threading.Event)
    run_id: str = field(default_factory=new_run_id)
    #: The errors that the observers have heard, in the order of these calls.
    _told: list[BootstrapError] = field(default_factory=list)

    @property
    def all_succeeded(self) -> bool:
        """Whether no store has failed so far."""
        return all(track.error is None for track in self.tracks)

    def sleep(self, seconds: float) -> None:
        """Wait. Raises `Interrupted` when the run is halted meanwhile."""
        policy = self.rules.retry
        if policy.sleep is not None:
            policy.sleep(seconds)
        elif self.halted.wait(seconds):
            raise Interrupted("The run was interrupted while it waited.")

    def say_failed(self, phase: Phase, store: str, error: BootstrapError) -> None:
        """Tell the observers why a store has failed, and what the next step is.

        An error is told once.
        """
        if any(told is error for told in self._told):
            return
        self._told.append(error)
        report = error.report()
        self.emit("failed", phase=phase, store=store, message=error.message, error=report)

    def say_all_failed(self, phase: Phase) -> None:
        """Tell the observers of each store that has failed, as far as they have not heard it."""
        for track in self.tracks:
            if track.error is not None:
                self.say_failed(phase, track.store.name, track.error)

    def say_waiting(self, phase: Phase, store: str, message: str) -> None:
        """Tell the observers why the run tries again."""
        for track in self.tracks:
            # One step asks for the locks of all stores.
            if track.store.name == store or phase is Phase.LOCK:
                track.call.refuse(message)
        self.emit("waiting", phase=phase, store=store, message=message)

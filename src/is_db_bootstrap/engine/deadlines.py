"""How long each phase of a run may take. No other module decides this. All times are seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.track import LockPolicy
from is_db_bootstrap.events import Phase

#: What a call gets that was sent at the last moment, where its step looks at the deadline itself.
_LAST_CALL_S = 0.4
#: Phases whose steps end by themselves at their deadline, with an error of their own.
_ENDS_ITSELF = frozenset({Phase.WAIT, Phase.LOCK})


class Deadline:
    """A moment, `seconds` after it has begun. Its time can be stopped, and can begin again.

    0 seconds are over at once.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds
        #: The seconds that were left when the time was stopped. None while it runs.
        self._stopped_with_s: float | None = None

    def left_s(self) -> float:
        """Seconds that are left, never negative."""
        if self._stopped_with_s is not None:
            return self._stopped_with_s
        return max(0.0, self._end - self._clock())

    def over_s(self) -> float:
        """Seconds since the deadline, never negative."""
        return 0.0 if self._stopped_with_s is not None else max(0.0, self._clock() - self._end)

    def stop(self) -> None:
        """Keep what is left for later."""
        self._stopped_with_s = self.left_s()

    def go_on(self) -> None:
        """Go on with what was left when the time was stopped."""
        if self._stopped_with_s is not None:
            self._end = self._clock() + self._stopped_with_s
            self._stopped_with_s = None

    def begin_again(self) -> None:
        """Give the whole time once more."""
        self._stopped_with_s = None
        self._end = self._clock() + self.seconds


class Deadlines:
    """The deadlines of one run.

    Waiting for stores and for locks share one, whose time stands still in between. A plan, the plan
    under the lock, verify, a status and a check of a self-test have one of their own each. Apply
    has one if the caller gave it.
    """

    def __init__(self, retry: RetryPolicy, lock: LockPolicy) -> None:
        self._retry = retry
        self._lock = lock
        #: The deadline of waiting for stores and for locks.
        self.of_waits = Deadline(retry.deadline_s, retry.clock)
        self._of_phase: Deadline | None = None

    def begin(self, phase: Phase) -> Deadline | None:
        """The deadline of a phase that begins now, or goes on. None: it has no limit."""
        if phase in _ENDS_ITSELF:
            self.of_waits.go_on()
            self._of_phase = self.of_waits
            return self.of_waits
        self.of_waits.stop()
        is_apply = phase is Phase.APPLY
        limit_s = self._lock.apply_timeout_s if is_apply else self._lock.phase_timeout_s
        self._of_phase = Deadline(limit_s) if limit_s > 0 else None
        return self._of_phase

    @property
    def limit_s(self) -> float:
        """The seconds that the present phase has in all. 0: no limit."""
        return 0.0 if self._of_phase is None else self._of_phase.seconds

    def is_over(self, phase: Phase) -> bool:
        """Whether what still runs in the phase that has begun is to be ended."""
        if self._of_phase is None:
            return False
        slack_s = _LAST_CALL_S if phase in _ENDS_ITSELF else 0.0
        return self._of_phase.left_s() <= 0 and self._of_phase.over_s() >= slack_s

    def left_s(self) -> float | None:
        """Seconds that the present phase has left. None: it has no limit."""
        return None if self._of_phase is None else self._of_phase.left_s()


def option_of(phase: Phase) -> str:
    """The option that gives a phase another limit."""
    if phase in _ENDS_ITSELF:
        return "--timeout"
    if phase is Phase.APPLY:
        return "--apply-timeout"
    return "--phase-timeout (IS_DB_BOOTSTRAP_PHASE_TIMEOUT)"

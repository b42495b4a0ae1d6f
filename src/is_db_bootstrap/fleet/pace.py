"""How far a fleet has come, and how fast it goes. All times are seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.events import FleetProgress, RunningTarget

if TYPE_CHECKING:
    from is_db_bootstrap.fleet.workers import Worker

#: The rate is that of so many seconds before now.
_WINDOW_S = 60.0


class Pace:
    """Counts the targets of one call as they end. `clock` counts seconds."""

    def __init__(self, total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._began = clock()
        self._ended = 0
        self._failed = 0
        #: When targets ended that a worker has had. The others took no time, so they say nothing
        #: of how long the next ones take.
        self._ends: deque[float] = deque()

    def note(self, *, has_failed: bool, took_time: bool) -> None:
        """Count a target that has ended."""
        self._ended += 1
        self._failed += has_failed
        if took_time:
            self._ends.append(self._clock())

    def progress(self, workers: Sequence[Worker]) -> FleetProgress:
        """How far the fleet has come, and what its workers do now."""
        now = self._clock()
        running = [
            RunningTarget(worker.target.name, worker.phase, now - worker.since)
            for worker in workers
            if worker.target is not None
        ]
        return FleetProgress(
            total=self._total,
            ended=self._ended,
            failed=self._failed,
            elapsed_s=now - self._began,
            rate=self._rate(now),
            running=tuple(running),
        )

    def _rate(self, now: float) -> float:
        """Targets a second in the window. Before its first end, the window begins with the call."""
        elapsed_s = now - self._began
        while len(self._ends) > 1 and self._ends[0] < now - _WINDOW_S:
            self._ends.popleft()
        if not self._ends or elapsed_s <= 0:
            return 0.0
        # The last end stays, however long ago it was: a fleet that has come to a halt slows down.
        window_s = max(min(elapsed_s, _WINDOW_S), now - self._ends[0])
        return len(self._ends) / window_s

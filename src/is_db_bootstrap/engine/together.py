"""Several changes that a store makes in one call, as the engine follows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from is_db_bootstrap.engine.track import Call, Track
from is_db_bootstrap.results import Change

#: Receives a change, the seconds that it took, and a remark for the report.
Record = Callable[[Change, float, str | None], None]


class Together:
    """The changes that a store makes in one call. Each is told as if it was made by itself.

    `refuse` raises when no further change of the track may begin. `started` is told of each change
    once, `ended` of each one that ran and may still be taken back, and `record` of each one that is
    done.
    """

    def __init__(
        self,
        track: Track,
        changes: Sequence[Change],
        *,
        refuse: Callable[[Track], None],
        started: Callable[[Change], None],
        ended: Callable[[Change], None],
        record: Record,
    ) -> None:
        self._track = track
        self._refuse = refuse
        self._started = started
        self._ended = ended
        self._record = record
        self._began: dict[str, float] = {}
        self._durations: dict[str, float] = {}
        self._current: Change | None = None
        #: The changes that are not done, in their order.
        self.left: list[Change] = list(changes)

    @property
    def current(self) -> Change:
        """The change that is being made, or that is the next one."""
        return self._current or self.left[0]

    @property
    def duration_s(self) -> float:
        """Seconds since the present change began."""
        return time.monotonic() - self._began.get(self.current.name, time.monotonic())

    def begin_call(self) -> Call:
        """Note that the store is called with what is left."""
        self._current = None
        return self._new_call()

    def _new_call(self) -> Call:
        change = self.current
        self._track.call = call = Call(change=f"{change.kind} {change.name}")
        return call

    def begin(self, change: Change) -> None:
        """Let a change begin, unless the run is to end."""
        self._track.changing = False
        self._refuse(self._track)
        if change.name not in self._began:
            self._started(change)
        self._began[change.name] = time.monotonic()
        self._current = change
        self._new_call()
        self._track.changing = True

    def ran(self, change: Change) -> None:
        """Note how long a change took that is not committed yet."""
        self._durations[change.name] = time.monotonic() - self._began[change.name]
        self._ended(change)

    def done(self, change: Change, remark: str | None = None) -> None:
        """Record a change that the store has read back."""
        now = time.monotonic()
        took_s = now - self._began.get(change.name, now)
        self.left.remove(change)
        self._record(change, self._durations.get(change.name, took_s), remark)
        if self._current == change:
            self._current = None

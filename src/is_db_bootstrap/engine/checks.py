"""The checks of a self-test, each within its time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.deadlines import Deadlines
from is_db_bootstrap.engine.store import CanSelfTest
from is_db_bootstrap.engine.track import Track
from is_db_bootstrap.engine.workers import Workers
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Proof


class Checks:
    """Makes the checks of the one store of `run`, which can test itself.

    Each check runs in a thread of its own, so that it can be given up.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        [self._track] = run.tracks
        deadlines = Deadlines(run.rules.retry, run.rules.lock)
        self._workers = Workers(run, deadlines, lambda: None)

    def make_all(self) -> Generator[Proof]:
        """Make one check after the other, each when it is read.

        Raises what a check raises, and `StoreUnavailable` for one that takes too long. What a test
        has made on its server is removed when this iterator ends, or is closed.
        """
        store = self._track.store
        if not isinstance(store, CanSelfTest):
            return
        proofs = store.selftest()
        made: list[Proof] = []

        def make_next(_: Track) -> None:
            made[:] = [proof for proof in [next(proofs, None)] if proof is not None]

        try:
            self._finish(Phase.WAIT, self._ping)
            while True:
                self._finish(Phase.SELFTEST, make_next)
                if not made:
                    return
                yield made[0]
        finally:
            self._close(proofs)

    def _ping(self, track: Track) -> None:
        track.server = track.store.ping(self._run.rules.retry.deadline_s)

    def _finish(self, phase: Phase, step: Callable[[Track], None]) -> None:
        """Run one step to its end. Raises its error, or `KeyboardInterrupt` when that came."""
        has_succeeded = self._workers.run_phase(phase, step, quiet=True)
        if self._workers.saw_keyboard_interrupt:
            raise KeyboardInterrupt
        if not has_succeeded:
            raise self._track.error or StoreUnavailable(self._track.store.name, "No answer.")

    def _close(self, proofs: Iterator[Proof]) -> None:
        """Let the test remove what it has made, unless a thread is still in it."""
        close_test = getattr(proofs, "close", None)
        if close_test is not None and not self._workers.unfinished:
            close_test()
        self._workers.close_stores()

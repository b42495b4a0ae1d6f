"""The threads of a run: one per store in each phase. A thread that does not end is ended here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.deadlines import Deadlines, option_of
from is_db_bootstrap.engine.ladder import note_timeout
from is_db_bootstrap.engine.locks import RUN_AGAIN, LockLost
from is_db_bootstrap.engine.store import CanDisconnect, DatabaseBootstrapper, GoesOn
from is_db_bootstrap.engine.threads import call_within, start_thread
from is_db_bootstrap.engine.track import Call, Track
from is_db_bootstrap.engine.waits import Waits
from is_db_bootstrap.errors import BootstrapError, Interrupted, StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.names import STEP_THREAD, StoreName

#: Seconds between two looks at whether the run is to end.
_LOOK_S = 0.2
#: The same, while what runs is being ended.
_ENDING_LOOK_S = 0.1
#: Seconds that a cancelled call gets at least to come back.
_LEAST_GRACE_S = 1.0
#: Seconds that a cancelled look gets to come back. It changes nothing, so nothing is lost when it
#: is given up.
_LOOK_GRACE_S = 0.4
#: Seconds that a call gets to come back after its sessions were ended.
_AFTER_DISCONNECT_S = 1.0
#: Seconds that a store gets to say what is left of its sessions.
_DISCONNECT_S = 10.0
#: Seconds that a store gets to release its connections.
_CLOSE_S = 10.0
#: The same seconds, for what is done after a look was given up.
_HURRIED_S = 0.3
#: The note of a store whose call did not come back. The command and the workers of a fleet end
#: their process then.
_IN_THIS_PROCESS = (
    "A thread of the process that ran this is still in the call that did not end; it ends with that"
    " process. A program that goes on should end itself, and run again."
)
#: The note of a store that cannot say what became of its sessions.
_ON_THE_SERVER = "What was begun did not end when it was cancelled, and may go on on the server."
#: The note of a store whose server did not answer when it was asked what is left.
_UNANSWERED = "What was begun may go on on the server, which gave no answer when it was asked."


class Workers:
    """Runs the steps of a phase in threads, each phase within its deadline.

    `acquiring` returns the store that is being asked for its lock, which is the one to cancel then.
    """

    def __init__(
        self,
        run: RunContext,
        deadlines: Deadlines,
        acquiring: Callable[[], DatabaseBootstrapper | None],
    ) -> None:
        self._run = run
        self._deadlines = deadlines
        self._acquiring = acquiring
        self._policy = run.rules.lock
        self._running: dict[Future[None], Track] = {}
        #: Whether something may still go on on a server, so that the locks must outlast the run.
        self.may_go_on = False
        #: Whether a Ctrl-C came that no signal handler took.
        self.saw_keyboard_interrupt = False
        #: Whether a look was given up, after which the run ends without further waits.
        self.is_hurried = False

    # --- one phase

    def run_phase(
        self,
        phase: Phase,
        step: Callable[[Track], None],
        tracks: Sequence[Track] | None = None,
        *,
        quiet: bool = False,
    ) -> bool:
        """Run `step` for every store in parallel. Returns whether no store has failed.

        With `quiet`, no store is reported as done with the phase.
        """
        of = self._run.tracks if tracks is None else tracks
        return self._run_threads(phase, of, step, quiet=quiet)

    def run_for_all(self, phase: Phase, step: Callable[[Track], None]) -> bool:
        """Run `step` once, for all stores together. Returns whether no store has failed.

        No store is reported as done with the phase.
        """
        return self._run_threads(phase, self._run.tracks[:1], step, quiet=True)

    def _run_threads(
        self, phase: Phase, tracks: Sequence[Track], step: Callable[[Track], None], *, quiet: bool
    ) -> bool:
        self._deadlines.begin(phase)
        self._run.emit("phase", phase=phase, left_s=self._deadlines.left_s())
        for track in tracks:
            track.call = Call()
            call = partial(self._run_step, phase, step, track, quiet=quiet)
            self._running[start_thread(call, STEP_THREAD)] = track
        self._join_steps(phase)
        self._run.say_all_failed(phase)
        return self._run.all_succeeded

    def _run_step(
        self, phase: Phase, step: Callable[[Track], None], track: Track, *, quiet: bool
    ) -> None:
        began = time.monotonic()
        try:
            step(track)
            if not quiet:
                planned = len(track.pending)
                self._run.emit("store-done", phase=phase, store=track.store.name, planned=planned)
        finally:
            track.duration_s += time.monotonic() - began

    def _failed_track(self, error: BootstrapError, track: Track) -> Track:
        """The track of the store that an error names.

        `track` when the error names no store of this run.
        """
        name = getattr(error, "store", "")
        named = [each for each in self._run.tracks if each.store.name == name]
        return named[0] if named else track

    # --- waiting

    def _join_steps(self, phase: Phase) -> None:
        """Wait for all steps, and end them when the run is to end or the phase's time is over."""
        waits = Waits(self._run, phase, self._acquiring)
        while self._running:
            try:
                self._collect_first(_LOOK_S)
                self._run.say_all_failed(phase)
            except KeyboardInterrupt:
                self.saw_keyboard_interrupt = True
                self._run.stop.set()
            if self._run.stop.is_set():
                self._end_interrupted(phase, waits)
                return
            if self._running and self._deadlines.is_over(phase):
                self._end_late(phase, waits)
                return
            if self._running and self._are_all_without_lock():
                self._end_unlocked()
                return
            waits.look_after(list(self._running.values()))

    def _collect_first(self, timeout_s: float) -> None:
        """Wait for the first step that ends. Raises what a bug in a store has raised.

        The error of a step is noted here and not in the step's thread. So a thread that comes back
        after the run has given it up does not change what the run reports, and the observers hear
        of no error that the report does not have.
        """
        done, _ = wait(self._running, timeout=timeout_s, return_when="FIRST_COMPLETED")
        for future in done:
            track = self._running.pop(future)
            error = future.exception()
            if isinstance(error, BootstrapError):
                self._failed_track(error, track).error = error
            elif error is not None:
                raise error

    def _collect_within(self, seconds: float) -> None:
        """Give running steps `seconds` to come back."""
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            with suppress(KeyboardInterrupt):
                self._collect_first(_ENDING_LOOK_S)

    # --- ending what runs

    def _end_interrupted(self, phase: Phase, waits: Waits) -> None:
        """End what runs after a signal. Every store that had not failed counts as interrupted."""
        running = list(self._running.values())
        reasons = waits.known_reasons(running)
        touched = self._end_running(self._policy.grace_s, self._change_grace_s)
        for track in self._run.tracks:
            if track in touched:
                reason = reasons[running.index(track)]
                message = f"The run was interrupted during {phase.value}. {reason}"
                track.error = Interrupted(message)
            elif track.error is None:
                track.error = Interrupted("The run was interrupted.")

    def _end_late(self, phase: Phase, waits: Waits) -> None:
        """End what runs when a phase has taken too long. What was still at work has failed."""
        limit_s = self._deadlines.limit_s
        late = list(self._running.values())
        reasons = waits.reasons(late)
        acquiring = self._acquiring()
        grace_s = _LOOK_GRACE_S
        if phase is Phase.APPLY:
            grace_s = self._change_grace_s
        else:
            self.is_hurried = True
        for track in self._end_running(0.0, grace_s):
            reason = reasons[late.index(track)]
            message = f"{phase.value} did not end within {limit_s:g} s. {reason}"
            store = acquiring or track.store
            error = StoreUnavailable(store.name, message, hint=_hint_for(phase))
            failed = self._failed_track(error, track)
            failed.error = error
            if phase is Phase.WAIT:
                note_timeout(self._run, failed, error)

    def _are_all_without_lock(self) -> bool:
        """Whether each running step has lost its lock, and has not come back since.

        A change was cancelled on its server when its lock was lost.
        """
        lost_at = [track.guard.lost_at for track in self._running.values() if track.guard]
        latest = time.monotonic() - self._change_grace_s
        is_over = [moment is not None and moment < latest for moment in lost_at]
        return len(is_over) == len(self._running) and all(is_over)

    def _end_unlocked(self) -> None:
        """Give up the steps that did not come back after their lock was lost."""
        self.is_hurried = True
        for track in self._end_running(0.0, _LOOK_GRACE_S):
            what = track.call.change or "what this run does"
            track.error = LockLost(
                track.store.name,
                f"The lock of this run was lost, and {what} did not end when it was cancelled.",
                hint=RUN_AGAIN,
            )

    @property
    def _change_grace_s(self) -> float:
        """Seconds that a cancelled change gets to come back."""
        return max(self._policy.grace_s, _LEAST_GRACE_S)

    def _end_running(self, before_s: float, after_s: float) -> list[Track]:
        """Give running steps `before_s`, cancel them on their servers, and give them `after_s`.

        Returns the tracks of the steps that had to be cancelled.
        """
        self._run.halted.set()
        self._collect_within(before_s)
        touched = list(self._running.values())
        self._note_what_goes_on(touched)
        self._cancel_calls(touched)
        self._collect_within(after_s)
        if self._running:
            self._disconnect_running()
        return touched

    def _note_what_goes_on(self, tracks: Sequence[Track]) -> None:
        """Note the changes that a server goes on with after they were cancelled."""
        for track in tracks:
            if track.changing and isinstance(track.store, GoesOn):
                track.note(track.store.what_goes_on())

    def _cancel_calls(self, tracks: Sequence[Track]) -> None:
        """Cancel the calls of these stores, or the one that asks for a lock, on their servers.

        Nobody waits for a server that does not take the cancel.
        """
        acquiring = self._acquiring()
        stores = [track.store for track in tracks] if acquiring is None else [acquiring]
        for store in stores:
            self._run.emit("cancelling", store=store.name)
            start_thread(partial(_cancel_store, store))

    def _disconnect_running(self) -> None:
        """End the sessions of calls that did not come back, and note what goes on, and where."""
        tracks = list(self._running.values())
        within_s = _HURRIED_S if self.is_hurried else _DISCONNECT_S
        said = call_within(within_s, [partial(_disconnect_store, track) for track in tracks])
        for track, future in zip(tracks, said, strict=True):
            left = future.result() if future.done() else _UNANSWERED
            if track.changing or not self.is_hurried:
                self.may_go_on = self.may_go_on or bool(left)
                track.note(left)
        self._collect_within(_HURRIED_S if self.is_hurried else _AFTER_DISCONNECT_S)
        for track in self._running.values():
            track.note(_IN_THIS_PROCESS)

    # --- afterwards

    @property
    def unfinished(self) -> tuple[StoreName, ...]:
        """The stores whose call did not come back."""
        return tuple(track.store.name for track in self._running.values())

    def close_stores(self) -> None:
        """Release the connections of every store but those whose call did not come back."""
        busy = [track.store for track in self._running.values()]
        stores = [*(track.store for track in self._run.tracks), *self._policy.borrow]
        calls = [store.close for store in stores if store not in busy]
        within_s = _HURRIED_S if self.is_hurried else _CLOSE_S
        for future in call_within(within_s, calls):
            if future.done():
                future.result()


def _cancel_store(store: DatabaseBootstrapper) -> None:
    with suppress(BootstrapError):
        store.cancel()


def _disconnect_store(track: Track) -> str:
    """End a store's sessions. Returns what may go on on its server, as a sentence, or nothing."""
    if not isinstance(track.store, CanDisconnect):
        return _ON_THE_SERVER
    try:
        return track.store.disconnect()
    except BootstrapError as exc:
        return f"What was begun may go on on the server, which could not be asked: {exc.message}"


def _hint_for(phase: Phase) -> str:
    """What a person can do about a phase that took too long."""
    option = option_of(phase)
    if phase is Phase.APPLY:
        return f"Give a longer {option}, or none."
    return f"See what holds it up on the server and end that, or give a longer {option}."

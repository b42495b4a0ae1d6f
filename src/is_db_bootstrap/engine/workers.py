"""The threads of a run: one per store in each phase. A thread that does not end is ended here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.store import CanDisconnect, DatabaseBootstrapper, GoesOn
from is_db_bootstrap.engine.track import Track
from is_db_bootstrap.errors import BootstrapError, Interrupted, StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.names import STEP_THREAD, StoreName

#: Seconds between two looks at whether the run is to end.
_LOOK_S = 0.2
#: The same, while what runs is being ended.
_ENDING_LOOK_S = 0.1
#: Seconds that a cancelled call gets at least to come back.
_LEAST_GRACE_S = 1.0
#: Seconds that a call gets to come back after its sessions were ended.
_AFTER_DISCONNECT_S = 1.0
#: The note of a store whose call did not come back. The command and the workers of a fleet end
#: their process then.
_IN_THIS_PROCESS = (
    "A thread of the process that ran this is still in the call that did not end; it ends with that"
    " process. A program that goes on should end itself, and run again."
)
#: The note of a store that cannot say what became of its sessions.
_ON_THE_SERVER = "What was begun did not end when it was cancelled, and may go on on the server."


class Workers:
    """Runs the steps of a phase in threads.

    `acquiring` returns the store that is being asked for its lock, which is the one to cancel then.
    """

    def __init__(
        self, run: RunContext, acquiring: Callable[[], DatabaseBootstrapper | None]
    ) -> None:
        self._run = run
        self._acquiring = acquiring
        self._policy = run.rules.lock
        self._running: dict[Future[None], Track] = {}
        #: Whether something may still go on on a server, so that the locks must outlast the run.
        self.may_go_on = False
        #: Whether a Ctrl-C came that no signal handler took.
        self.saw_keyboard_interrupt = False

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
        self._run.emit("phase", phase=phase)
        for track in tracks:
            call = partial(self._run_step, phase, step, track, quiet=quiet)
            self._running[_start_thread(call)] = track
        self._join_steps(phase)
        return self._run.all_succeeded

    def _run_step(
        self, phase: Phase, step: Callable[[Track], None], track: Track, *, quiet: bool
    ) -> None:
        began = time.monotonic()
        try:
            step(track)
        except BootstrapError as exc:
            failed = self._failed_track(exc, track)
            self._run.emit("failed", phase=phase, store=failed.store.name, message=exc.message)
            raise
        else:
            if not quiet:
                self._run.emit("store-done", phase=phase, store=track.store.name)
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
        """Wait for all steps, and end them when the run is to end or the phase's limit is over."""
        limit_s = self._run.limits.get(phase, 0.0)
        end = time.monotonic() + limit_s if limit_s > 0 else None
        while self._running:
            try:
                self._collect_first(_LOOK_S)
            except KeyboardInterrupt:
                self.saw_keyboard_interrupt = True
                self._run.stop.set()
            if self._run.stop.is_set():
                self._end_interrupted()
                return
            if end is not None and time.monotonic() > end:
                self._end_late(phase, limit_s)
                return

    def _collect_first(self, timeout_s: float) -> None:
        """Wait for the first step that ends. Raises what a bug in a store has raised.

        The error of a step is noted here and not in the step's thread. So a thread that comes back
        after the run has given it up does not change what the run reports.
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

    def _end_interrupted(self) -> None:
        """End what runs after a signal. Every store that had not failed counts as interrupted."""
        touched = self._end_running(self._policy.grace_s)
        for track in self._run.tracks:
            if track in touched or track.error is None:
                track.error = Interrupted("The run was interrupted.")

    def _end_late(self, phase: Phase, limit_s: float) -> None:
        """End what runs when a phase has taken too long. What was still at work has failed."""
        message = f"{phase.value} did not end within {limit_s:g} s."
        for track in self._end_running(0.0):
            track.error = StoreUnavailable(track.store.name, message, hint=_hint_for(phase))

    def _end_running(self, grace_s: float) -> list[Track]:
        """Give running steps `grace_s`, cancel them on their servers, and wait for them again.

        Returns the tracks of the steps that had to be cancelled.
        """
        self._run.halted.set()
        self._collect_within(grace_s)
        touched = list(self._running.values())
        self._note_what_goes_on(touched)
        self._cancel_calls(touched)
        self._collect_within(max(self._policy.grace_s, _LEAST_GRACE_S))
        if self._running:
            self._disconnect_running()
        return touched

    def _note_what_goes_on(self, tracks: Sequence[Track]) -> None:
        """Note the changes that a server goes on with after they were cancelled."""
        for track in tracks:
            if track.changing and isinstance(track.store, GoesOn):
                track.note(track.store.what_goes_on())

    def _cancel_calls(self, tracks: Sequence[Track]) -> None:
        """Cancel the calls of these stores, or the one that asks for a lock, on their servers."""
        acquiring = self._acquiring()
        stores = [track.store for track in tracks] if acquiring is None else [acquiring]
        for store in stores:
            self._run.emit("cancelling", store=store.name)
            with suppress(BootstrapError):
                store.cancel()

    def _disconnect_running(self) -> None:
        """End the sessions of calls that did not come back, and note what goes on, and where."""
        for track in self._running.values():
            left = _disconnect_store(track)
            self.may_go_on = self.may_go_on or bool(left)
            track.note(left)
        self._collect_within(_AFTER_DISCONNECT_S)
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
        for store in [*(track.store for track in self._run.tracks), *self._policy.borrow]:
            if store not in busy:
                store.close()


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
    if phase in {Phase.APPLY, Phase.VERIFY}:
        return "Give a longer --apply-timeout, or none."
    return (
        "Something on the server holds it up, such as a lock. End that, or give a longer --timeout."
    )


def _start_thread(call: Callable[[], None]) -> Future[None]:
    """Run `call` in a daemon thread.

    An executor's threads would keep the process from ending after a signal.
    """
    future: Future[None] = Future()

    def target() -> None:
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - handed to the thread that asks for the result
            future.set_exception(exc)
        except BaseException as exc:  # noqa: BLE001 - an exit in a thread must not end the process
            failure = RuntimeError(f"A step of the run raised {type(exc).__name__}: {exc}.")
            failure.__cause__ = exc
            future.set_exception(failure)
        else:
            future.set_result(None)

    threading.Thread(target=target, name=STEP_THREAD, daemon=True).start()
    return future

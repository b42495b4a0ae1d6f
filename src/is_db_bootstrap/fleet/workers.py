"""The fleet's side of a worker: starting it, giving it a target, hearing from it, ending it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from is_db_bootstrap.events import Phase
from is_db_bootstrap.fleet.keeper import (
    END_NOW,
    IDLE_END_S,
    Died,
    End,
    Ended,
    Given,
    ending_s,
    keep,
)
from is_db_bootstrap.fleet.targets import Target
from is_db_bootstrap.fleet.worker import SIGNALS, Done, Entered, Order, Task
from is_db_bootstrap.leftovers import session_name
from is_db_bootstrap.names import StoreName

#: Seconds beyond all that a worker needs to end a run by itself, before it counts as stuck.
_SLACK_S = 10.0
#: Seconds beyond those of a target's time-outs that a keeper needs to end everything.
_KEEPER_S = 60.0


class Worker:
    """A worker with its keeper, and the target that it has.

    `phase` is the phase that the target's run is in, empty before the first. `since` is when the
    run entered that phase, by the monotonic clock.
    """

    def __init__(self, process: BaseProcess, connection: Connection, control: Connection) -> None:
        self._process = process
        self._connection = connection
        self._control = control
        self._has_died = False
        self._keeper_told = False
        self.target: Target | None = None
        self.phase = ""
        self.since = 0.0

    @property
    def connections(self) -> list[Connection]:
        """What becomes readable when there is something to hear."""
        return [self._connection, self._control]

    def give(self, task: Task) -> bool:
        """Hand over a target. Returns False when the worker had died with nothing to do."""
        self.target = task.target
        self.phase = ""
        self.since = time.monotonic()
        try:
            self._control.send(Given(task.target))
            self._connection.send(task)
        except OSError:
            self.target = None
            return False
        return True

    def hear(self) -> Done | None:
        """The result of the target, if the worker has one. Notes the phases that it tells of."""
        try:
            while self._connection.poll():
                said = self._connection.recv()
                if isinstance(said, Done):
                    return said
                if isinstance(said, Entered):
                    self.phase = said.phase
                    self.since = time.monotonic()
        except (EOFError, OSError):
            self._has_died = True
        return None

    def has_died(self) -> bool:
        """Whether its process has ended by itself.

        A process that it started may keep its connection open.
        """
        try:
            if self._control.poll():
                self._keeper_told = isinstance(self._control.recv(), Died)
                self._has_died = self._has_died or self._keeper_told
        except (EOFError, OSError):
            self._has_died = self._keeper_told = True
        return self._has_died

    def is_stuck(self, stopped_at: float | None) -> bool:
        """Whether the worker should have ended its run by now, but did not."""
        if self.target is None:
            return False
        now = time.monotonic()
        patience_s = ending_s(self.target) + _SLACK_S
        if stopped_at is not None:
            return now > stopped_at + patience_s
        limit_s = self._limit_s(self.target)
        return limit_s > 0 and now > self.since + limit_s + patience_s

    def _limit_s(self, target: Target) -> float:
        """Seconds that the phase may take.

        Before the first one, the worker loads the blueprint. 0 is no limit.
        """
        timing = target.settings.timing
        if self.phase == Phase.WAIT:
            return timing.timeout_s
        if self.phase == Phase.LOCK:
            return 0.0  # a follower waits for as long as another run goes on
        if self.phase in {"", Phase.APPLY}:
            return timing.apply_timeout_s
        return timing.phase_timeout_s

    def interrupt(self) -> None:
        """From a signal handler: let the worker end its run."""
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """From a signal handler: end the worker at once, with all that it has started."""
        self._send_signal(END_NOW)

    def _send_signal(self, number: int) -> None:
        if self._process.pid and self._process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def end(self, silent: tuple[StoreName, ...] = ()) -> Ended:
        """End the worker, all that it has started and their sessions. Waits until they are gone.

        No session is looked for on the `silent` stores.
        """
        patience_s = _KEEPER_S + (ending_s(self.target) if self.target else 0.0)
        ended = self._ended_by_keeper(patience_s, silent)
        self._connection.close()
        self._control.close()
        self._process.join(IDLE_END_S)
        if self._process.exitcode is None:
            self._process.kill()
        self._process.join()
        return ended

    def _ended_by_keeper(self, within_s: float, silent: tuple[StoreName, ...]) -> Ended:
        deadline = time.monotonic() + within_s
        with suppress(EOFError, OSError):
            # The connection of a dying worker ends a moment before its process, which has an exit
            # code.
            if self._has_died and not self._keeper_told:
                self._control.poll(IDLE_END_S)
            with suppress(BrokenPipeError):
                self._control.send(End(silent))
            while self._control.poll(max(0.0, deadline - time.monotonic())):
                said = self._control.recv()
                if isinstance(said, Ended):
                    return said
        return Ended(
            -signal.SIGKILL,
            ("What its revisions had started may go on: the process that watched it was killed.",),
        )

    def dismiss(self) -> None:
        """Let a worker without a target end by itself. `wait_until_gone` waits for it."""
        self._connection.close()
        self._control.close()

    def wait_until_gone(self, deadline: float) -> None:
        """Wait for the end of a worker that was dismissed, and kill it after `deadline`.

        `deadline` is a moment of the monotonic clock.
        """
        self._process.join(max(0.0, deadline - time.monotonic()))
        if self._process.exitcode is None:
            self.kill()
            self._process.join(IDLE_END_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


def start_worker(order: Order, stores: Sequence[StoreName], others: list[Worker]) -> Worker:
    """Start a worker, and add it to `others`, the workers that there are."""
    # A forked worker has the modules already. With threads about, a fork may copy a lock that
    # nobody unlocks.
    can_fork = sys.platform == "linux" and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if can_fork else "spawn")
    connection, its_connection = context.Pipe()
    control, its_control = context.Pipe()
    copies: Iterable[Connection] = (
        [connection, control, *(c for other in others for c in other.connections)]
        if can_fork
        else []
    )
    named = {
        "others": list(copies),
        "order": order,
        "stores": stores,
        "session_name": session_name(),
    }
    make_process = context.Process  # type: ignore[attr-defined]  # of a fork or spawn context
    process = make_process(
        target=keep, args=(its_connection, its_control), kwargs=named, daemon=True
    )
    worker = Worker(process, connection, control)
    # A signal in between waits: a forked process has our handlers until it has its own, and
    # `interrupt` must know of the worker.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
        others.append(worker)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    its_connection.close()
    its_control.close()
    return worker

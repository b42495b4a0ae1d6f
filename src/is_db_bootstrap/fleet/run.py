"""The run of a fleet: worker processes, each of which brings one target after the other to the blueprint.

A worker that leaves something behind (a revision that hangs in Python, say) is killed with all its children before its
target is reported, and another one takes its place. The fleet does not rely on a worker to notice by itself: one whose
interpreter is stuck is killed from outside, when its time is over.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import BootstrapError, LockTimeout, StoreUnavailable
from is_db_bootstrap.events import Event, Phase
from is_db_bootstrap.fleet.targets import Refused, Target
from is_db_bootstrap.results import SCHEMA_VERSION, Mode, Outcome, worst
from is_db_bootstrap.settings import RunOptions

#: Seconds between two looks at whether the fleet is to end.
_LOOK_S = 0.2
_BY_SIGNAL = 128
_TERMINATED = _BY_SIGNAL + signal.SIGTERM
_LATER = {StoreUnavailable.exit_code, LockTimeout.exit_code}
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
#: Phases that `--apply-timeout` bounds; the empty one is before the first, when a worker loads the blueprint.
_BOUNDED = {"", Phase.APPLY, Phase.VERIFY}
#: Seconds beyond all that a worker needs to end a run by itself, before it counts as stuck.
_SLACK_S = 10.0
#: Seconds that a worker without a target gets to end.
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is done with each target.

    `blueprint` is what `load_blueprint` takes, because a worker that is not forked loads it anew.
    """

    blueprint: str
    mode: Mode = Mode.APPLY
    options: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What became of a target. `run` is the document of its run; without one, `message` and `hint` say why there was none."""

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
        """Of a run that did not begin."""
        return cls(name, outcome, error.exit_code, None, error.message, error.hint)

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Message and hint of each store that failed, or of what kept the run from beginning."""
        if self.run is None:
            return [(self.message, self.hint)] if self.message else []
        failed = [store for store in self.run["stores"] if store["error"]]
        return [
            (
                f"{s['store']}: {s['error']['message'].removeprefix(s['store'] + ': ')}",
                s["error"]["hint"],
            )
            for s in failed
        ]


@dataclass(frozen=True, slots=True)
class FleetResult:
    """The report of all targets, in the order of their file. `duration_s` is seconds, `started_at` UTC.

    `message` says what went wrong beside the targets.
    """

    blueprint: str
    mode: Mode
    outcome: Outcome
    exit_code: int
    started_at: datetime
    duration_s: float
    targets: tuple[TargetResult, ...]
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: the outcome of all, and below `targets` that of each, with the document of its run."""
        return {
            "schema_version": SCHEMA_VERSION,
            "blueprint": self.blueprint,
            "mode": self.mode,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "started_at": self.started_at.isoformat(),
            "duration_s": round(self.duration_s, 3),
            "message": self.message,
            "targets": [
                {
                    "name": t.name,
                    "outcome": t.outcome,
                    "exit_code": t.exit_code,
                    "message": t.message,
                    "hint": t.hint,
                    "run": t.run,
                }
                for t in self.targets
            ],
        }


@dataclass(frozen=True, slots=True)
class _Entered:
    """What a worker tells when its run enters a phase."""

    phase: str


@dataclass(frozen=True, slots=True)
class _Done:
    """The result of a target; `unfinished` when something of it still goes on in the worker's process."""

    result: TargetResult
    unfinished: bool


@dataclass(slots=True)
class _Running:
    """A target that a worker has, the phase that its run is in, and since when, by the monotonic clock."""

    target: Target
    phase: str = ""
    since: float = field(default_factory=time.monotonic)

    def enter(self, phase: str) -> None:
        """Its run is in `phase` from now on."""
        self.phase, self.since = phase, time.monotonic()

    def is_stuck(self, stopped_at: float | None) -> bool:
        """Whether its worker should have ended the run by now, but did not."""
        timing = self.target.settings.timing
        now = time.monotonic()
        # Grace, cancelling, grace again, ending sessions: see `engine.orchestrator`.
        ending_s = 2 * max(timing.grace_s, 1.0) + 2 * timing.connect_timeout_s + _SLACK_S
        if stopped_at is not None:
            return now > stopped_at + ending_s
        bounded = timing.apply_timeout_s > 0 and self.phase in _BOUNDED
        return bounded and now > self.since + timing.apply_timeout_s + ending_s


class Fleet:
    """Runs an order on many targets, on `jobs` at a time.

    A target that fails ends the fleet after those that run, unless `continue_on_error`. A worker process that dies fails the
    target that it had, and no other. `report` receives each result as it comes.
    """

    def __init__(
        self, order: Order, *, jobs: int, continue_on_error: bool = False, report: Callable[[TargetResult], None] = lambda _: None
    ) -> None:  # fmt: skip
        self._order = order
        self._blueprint = load_blueprint(order.blueprint)
        self._jobs = jobs
        self._continue = continue_on_error
        self._report = report
        self._workers: dict[Connection, BaseProcess] = {}
        self._stopped_by = 0
        self._stopped_at: float | None = None

    def kill(self) -> None:
        """From a signal handler: end all workers at once, with what they have started."""
        for process in self._workers.values():
            _kill(process)

    def interrupt(self, exit_code: int = 130) -> None:
        """From a signal handler: no target begins any more; those that run are ended as one run is."""
        self._stopped_by = exit_code
        self._stopped_at = time.monotonic()
        for process in self._workers.values():
            if process.pid and process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)

    def run(self, targets: Sequence[Target | Refused]) -> FleetResult:
        """Bring all to the blueprint; errors become results. Broken targets fail first, and with them all, unless told to go on."""
        began, started_at = time.monotonic(), datetime.now(UTC)
        found: dict[
            int, TargetResult
        ] = {}  # by identity: a target may be called as a refused line is
        for each in targets:
            if isinstance(each, Refused):
                self._add(found, each, TargetResult.refused(each.name, each.error))
        if not found or self._continue:
            self._work(deque(t for t in targets if isinstance(t, Target)), found)
        results = tuple(
            found.get(id(t)) or TargetResult(t.name, Outcome.SKIPPED, 0) for t in targets
        )
        code = _exit_code([r.exit_code for r in results if r.exit_code])
        unfinished = self._stopped_by and any(
            r.outcome in {Outcome.SKIPPED, Outcome.INTERRUPTED} for r in results
        )
        return FleetResult(
            self._blueprint.name, self._order.mode, Outcome.INTERRUPTED if unfinished else worst([r.outcome for r in results]),
            self._stopped_by if unfinished else code, started_at, time.monotonic() - began, results,
        )  # fmt: skip

    def _add(
        self, found: dict[int, TargetResult], target: Target | Refused, result: TargetResult
    ) -> None:
        found[id(target)] = result
        self._report(result)

    def _work(self, waiting: deque[Target], found: dict[int, TargetResult]) -> None:
        free = [self._started() for _ in range(min(self._jobs, len(waiting)))]
        running: dict[Connection, _Running] = {}
        try:
            while waiting or running:
                while waiting and free and not self._is_over(found):
                    target = waiting.popleft()
                    running[self._given(free.pop(), target)] = _Running(target)
                if not running:
                    return
                for connection in self._worth_a_look(running):
                    result, usable = self._looked_at(connection, running[connection])
                    if result is None:
                        continue
                    target = running.pop(connection).target
                    self._add(found, target, result)
                    if usable:
                        free.append(connection)
                    elif waiting and not self._is_over(found):
                        free.append(self._started())
        finally:
            self._end()

    def _worth_a_look(self, running: dict[Connection, _Running]) -> list[Connection]:
        """The workers that said something, have died, or should have said something; waits a moment for the first."""
        ready = wait(list(running), _LOOK_S)
        # A process that the worker had started may keep its connection open, so its death is looked for as well.
        return [
            c
            for c, current in running.items()
            if c in ready
            or self._workers[c].exitcode is not None
            or current.is_stuck(self._stopped_at)
        ]

    def _is_over(self, found: dict[int, TargetResult]) -> bool:
        return bool(self._stopped_by) or (
            not self._continue and any(r.exit_code for r in found.values())
        )

    def _started(self) -> Connection:
        # A forked worker has the modules already; with threads about, a fork may copy a lock that nobody unlocks.
        can_fork = sys.platform == "linux" and threading.active_count() == 1
        context = multiprocessing.get_context("fork" if can_fork else "spawn")
        ours, theirs = context.Pipe()
        closing = [ours, *self._workers] if can_fork else []
        process = context.Process(target=_serve, args=(theirs, closing, self._order), daemon=True)  # type: ignore[attr-defined]  # of a fork or spawn context
        # A signal in between waits: a forked worker has our handlers until it has its own, and `interrupt` must know of it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            process.start()
            self._workers[ours] = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return ours

    def _given(self, connection: Connection, target: Target) -> Connection:
        """The worker that has the target now: another one, when this one died with nothing to do."""
        try:
            connection.send(target)
        except OSError:
            self._workers.pop(connection).join()
            connection.close()
            connection = self._started()
            with suppress(OSError):  # told when its result does not come
                connection.send(target)
        return connection

    def _looked_at(
        self, connection: Connection, current: _Running
    ) -> tuple[TargetResult | None, bool]:
        """The result of a worker's target, None while it runs; and whether the worker can take another one."""
        try:
            if connection.poll():
                said = connection.recv()
                if isinstance(said, _Entered):
                    current.enter(said.phase)
                    return None, True
                if said.unfinished:
                    self._discard(connection)
                return said.result, not said.unfinished
        except (EOFError, OSError):
            return self._died(connection, current.target), False
        if self._workers[connection].exitcode is not None:
            return self._died(connection, current.target), False
        if current.is_stuck(self._stopped_at):
            return self._stuck(connection, current), False
        return None, True

    def _discard(self, connection: Connection) -> int:
        """Kill a worker and what it has started; its exit code. The server ends the sessions of a process that is gone."""
        process = self._workers[connection]
        _kill(process)
        process.join()
        del self._workers[connection]
        connection.close()
        return process.exitcode or 0

    def _died(self, connection: Connection, target: Target) -> TargetResult:
        self._workers[connection].join(_END_S)  # its connection has ended, and itself in a moment
        ended = self._discard(connection)
        return TargetResult(
            target.name,
            Outcome.FAILED,
            _BY_SIGNAL - ended if ended < 0 else 1,
            None,
            f"The worker process of this target ended with {ended}.",
            "Run again; what has been applied is recognised.",
        )

    def _stuck(self, connection: Connection, current: _Running) -> TargetResult:
        after_s = time.monotonic() - current.since
        self._discard(connection)
        where = f"in the phase {current.phase}" if current.phase else "before its first phase"
        return TargetResult(
            current.target.name,
            Outcome.INTERRUPTED if self._stopped_by else Outcome.FAILED,
            self._stopped_by or StoreUnavailable.exit_code,
            None,
            f"The worker process of this target said nothing for {after_s:.0f} s {where}, and was killed.",
            "See what the blueprint and its revisions do there. Run again; what has been applied is recognised.",
        )

    def _end(self) -> None:
        """A worker whose connection is closed ends by itself; one that does not is killed."""
        for connection in self._workers:
            connection.close()
        deadline = time.monotonic() + _END_S
        for process in self._workers.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                _kill(process)
                process.join()
        self._workers.clear()


def _kill(process: BaseProcess) -> None:
    """Kill a worker and all that it has started: they are a process group of their own."""
    if process.pid:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.exitcode is None:
            process.kill()


def _exit_code(failed: Sequence[int]) -> int:
    """The first that a later try may mend, so that what starts the fleet tries again; else the first of all."""
    return next((c for c in failed if c in _LATER or c > _BY_SIGNAL), failed[0] if failed else 0)


def _serve(connection: Connection, others: list[Connection], order: Order) -> None:
    """A worker process: targets in, results out, until the connection or the fleet ends."""
    os.setsid()  # what a revision starts belongs to us, and can be killed with us

    def enter(phase: str) -> None:
        with suppress(OSError):  # the fleet has gone, which `_end_with_fleet` notices
            connection.send(_Entered(phase))

    worker = _Worker(order, enter)
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
    ):  # a terminal's go to all; the fleet tells us what they mean
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: worker.interrupt())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    for other in others:
        other.close()
    threading.Thread(
        target=_end_with_fleet, args=(worker,), name="fleet-watch", daemon=True
    ).start()
    left_behind = False
    with suppress(EOFError, OSError):
        while True:
            done = worker.result(connection.recv())
            left_behind = done.unfinished
            connection.send(done)
    if left_behind:  # and the fleet has gone, or it would have killed us
        os.killpg(0, signal.SIGKILL)


def _end_with_fleet(worker: _Worker) -> None:
    """End the run, and then this process with what it has started, when the fleet's process has gone."""
    fleet = multiprocessing.process.parent_process()
    if fleet is None:
        return
    wait([fleet.sentinel])
    worker.interrupt()
    worker.ended.wait(worker.patience_s)
    os.killpg(0, signal.SIGKILL)


class _Worker:
    """Runs one target after the other; `interrupt` ends the one that runs."""

    def __init__(self, order: Order, enter: Callable[[str], None]) -> None:
        self._order = order
        self._enter = enter
        self._blueprint: Blueprint | None = None
        self._engine: BootstrapOrchestrator | None = None
        self._stopped = False
        #: Set while no target runs.
        self.ended = threading.Event()
        self.ended.set()
        #: Seconds that the target which runs may take to end when it is interrupted.
        self.patience_s = 0.0

    def interrupt(self) -> None:
        self._stopped = True
        if self._engine:
            self._engine.interrupt(_TERMINATED)

    def result(self, target: Target) -> _Done:
        """Run one target to its end."""
        timing = target.settings.timing
        self.patience_s = 2 * max(timing.grace_s, 1.0) + 2 * timing.connect_timeout_s
        self.ended.clear()
        try:
            return self._result(target)
        finally:
            self._engine = None
            self.ended.set()

    def _result(self, target: Target) -> _Done:
        order = self._order
        try:
            self._blueprint = self._blueprint or load_blueprint(order.blueprint)
            self._engine = engine = app.orchestrator(
                self._blueprint, target.settings, order.options, observers=[self._tell]
            )
            if self._stopped:
                engine.interrupt(_TERMINATED)
            result = engine.run(order.mode)
        except BootstrapError as exc:
            return _Done(TargetResult.refused(target.name, exc), unfinished=False)
        except Exception as exc:  # noqa: BLE001 - a bug with one target is not to end the others
            traceback.print_exc()
            failed = TargetResult(
                target.name,
                Outcome.FAILED,
                1,
                None,
                f"{type(exc).__name__}, with a text that may hold row values.",
                "This is a bug; its text and traceback are on stderr.",
            )
            return _Done(failed, unfinished=True)
        done = TargetResult(target.name, result.outcome, result.exit_code, result.to_dict())
        return _Done(done, unfinished=bool(engine.unfinished))

    def _tell(self, event: Event) -> None:
        if event.kind == "phase" and event.phase:
            self._enter(event.phase)

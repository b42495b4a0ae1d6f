"""The run of a fleet: worker processes, each of which brings one target after the other to the blueprint."""

from __future__ import annotations

import multiprocessing
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

from is_db_bootstrap import app, blueprints
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import BootstrapError, LockTimeout, StoreUnavailable
from is_db_bootstrap.fleet.targets import Refused, Target
from is_db_bootstrap.orchestrator import BootstrapOrchestrator
from is_db_bootstrap.results import SCHEMA_VERSION, Mode, Outcome, worst

#: Seconds between two looks at whether the fleet is to end.
_LOOK_S = 0.2
_BY_SIGNAL = 128
_TERMINATED = _BY_SIGNAL + signal.SIGTERM
_LATER = {StoreUnavailable.exit_code, LockTimeout.exit_code}
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True, slots=True)
class Order:
    """What is done with each target: mode, stores, and the options of `app.orchestrator`.

    `blueprint` is what `blueprints.load` takes, because a worker that is not forked loads it anew.
    """

    blueprint: str
    mode: Mode = Mode.APPLY
    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)


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
    def refused(cls, name: str, error: BootstrapError, outcome: Outcome = Outcome.FAILED) -> TargetResult:
        """Of a run that did not begin."""
        return cls(name, outcome, error.exit_code, None, error.message, error.hint)

    @property
    def failures(self) -> list[tuple[str, str]]:
        """Message and hint of each store that failed, or of what kept the run from beginning."""
        if self.run is None:
            return [(self.message, self.hint)] if self.message else []
        failed = [store for store in self.run["stores"] if store["error"]]
        return [(f"{s['store']}: {s['error']['message'].removeprefix(s['store'] + ': ')}", s["error"]["hint"]) for s in failed]


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


class Fleet:
    """Runs an order on many targets, on `jobs` at a time.

    A target that fails ends the fleet after those that run, unless `continue_on_error`. A worker process that dies fails the
    target that it had, and no other. `report` receives each result as it comes.
    """

    def __init__(
        self, order: Order, *, jobs: int, continue_on_error: bool = False, report: Callable[[TargetResult], None] = lambda _: None
    ) -> None:  # fmt: skip
        self._order = order
        self._blueprint = blueprints.load(order.blueprint)
        self._jobs = jobs
        self._continue = continue_on_error
        self._report = report
        self._workers: dict[Connection, BaseProcess] = {}
        self._stopped_by = 0

    def interrupt(self, exit_code: int = 130) -> None:
        """From a signal handler: no target begins any more; those that run are ended as one run is."""
        self._stopped_by = exit_code
        for process in self._workers.values():
            if process.pid and process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)

    def run(self, targets: Sequence[Target | Refused]) -> FleetResult:
        """Bring all to the blueprint; errors become results. Broken targets fail first, and with them all, unless told to go on."""
        began, started_at = time.monotonic(), datetime.now(UTC)
        found: dict[int, TargetResult] = {}  # by identity: a target may be called as a refused line is
        for each in targets:
            if isinstance(each, Refused):
                self._add(found, each, TargetResult.refused(each.name, each.error))
        if not found or self._continue:
            self._work(deque(t for t in targets if isinstance(t, Target)), found)
        results = tuple(found.get(id(t)) or TargetResult(t.name, Outcome.SKIPPED, 0) for t in targets)
        code = _exit_code([r.exit_code for r in results if r.exit_code])
        unfinished = self._stopped_by and any(r.outcome in {Outcome.SKIPPED, Outcome.INTERRUPTED} for r in results)
        return FleetResult(
            self._blueprint.name, self._order.mode, Outcome.INTERRUPTED if unfinished else worst([r.outcome for r in results]),
            self._stopped_by if unfinished else code, started_at, time.monotonic() - began, results,
        )  # fmt: skip

    def _add(self, found: dict[int, TargetResult], target: Target | Refused, result: TargetResult) -> None:
        found[id(target)] = result
        self._report(result)

    def _work(self, waiting: deque[Target], found: dict[int, TargetResult]) -> None:
        free = [self._started() for _ in range(min(self._jobs, len(waiting)))]
        running: dict[Connection, Target] = {}
        try:
            while waiting or running:
                while waiting and free and not self._is_over(found):
                    target = waiting.popleft()
                    running[self._given(free.pop(), target)] = target
                if not running:
                    return
                for ready in wait(list(running), _LOOK_S):
                    connection = next(c for c in running if c is ready)
                    target = running.pop(connection)
                    result, usable = self._received(connection, target)
                    self._add(found, target, result)
                    free.append(connection if usable else self._started())
        finally:
            self._end()

    def _is_over(self, found: dict[int, TargetResult]) -> bool:
        return bool(self._stopped_by) or (not self._continue and any(r.exit_code for r in found.values()))

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

    def _received(self, connection: Connection, target: Target) -> tuple[TargetResult, bool]:
        try:
            return connection.recv(), True
        except (EOFError, OSError):
            process = self._workers.pop(connection)
            connection.close()
            process.join()
            ended = process.exitcode or 0
            message = f"The worker process of this target ended with {ended}."
            return TargetResult(
                target.name, Outcome.FAILED, _BY_SIGNAL - ended if ended < 0 else 1, None, message,
                "Run again; what has been applied is recognised.",
            ), False  # fmt: skip

    def _end(self) -> None:
        """A worker whose connection is closed ends by itself."""
        for connection in self._workers:
            connection.close()
        for process in self._workers.values():
            process.join(10)
        self._workers.clear()


def _exit_code(failed: Sequence[int]) -> int:
    """The first that a later try may mend, so that what starts the fleet tries again; else the first of all."""
    return next((c for c in failed if c in _LATER or c > _BY_SIGNAL), failed[0] if failed else 0)


def _serve(connection: Connection, others: list[Connection], order: Order) -> None:
    """A worker process: targets in, results out, until the connection ends."""
    worker = _Worker(order)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to all; the fleet tells us what it means
    signal.signal(signal.SIGTERM, lambda *_: worker.interrupt())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    for other in others:
        other.close()
    with suppress(EOFError, OSError):
        while True:
            connection.send(worker.result(connection.recv()))


class _Worker:
    """Runs one target after the other; `interrupt` ends the one that runs."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._blueprint: Blueprint | None = None
        self._engine: BootstrapOrchestrator | None = None
        self._stopped = False

    def interrupt(self) -> None:
        self._stopped = True
        if self._engine:
            self._engine.interrupt(_TERMINATED)

    def result(self, target: Target) -> TargetResult:
        order = self._order
        try:
            self._blueprint = self._blueprint or blueprints.load(order.blueprint)
            self._engine = app.orchestrator(self._blueprint, target.settings, only=order.only, skip=order.skip, **order.options)
            if self._stopped:
                self._engine.interrupt(_TERMINATED)
            result = self._engine.run(order.mode)
        except BootstrapError as exc:
            return TargetResult.refused(target.name, exc)
        except Exception as exc:  # noqa: BLE001 - a bug with one target is not to end the others
            traceback.print_exc()
            return TargetResult(
                target.name,
                Outcome.FAILED,
                1,
                None,
                f"{type(exc).__name__}, with a text that may hold row values.",
                "This is a bug; its text and traceback are on stderr.",
            )
        finally:
            self._engine = None
        return TargetResult(target.name, result.outcome, result.exit_code, result.to_dict())

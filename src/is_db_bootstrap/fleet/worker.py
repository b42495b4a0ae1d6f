"""A worker: the process that brings one target after the other to the blueprint."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import cast

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.events import Event
from is_db_bootstrap.fleet.results import TERMINATED, TargetResult
from is_db_bootstrap.fleet.silence import Silence, asked_briefly, silences
from is_db_bootstrap.fleet.targets import Target
from is_db_bootstrap.guests import claim_process
from is_db_bootstrap.leftovers import name_sessions
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.process_tree import descendants
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import RunOptions

#: Signals that mean something to a fleet, its keepers and its workers.
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
#: The exit code of a worker that leaves something behind.
LEFT_BEHIND = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What is done with each target.

    `blueprint` is what `load_blueprint` takes, because a worker that is not forked loads it anew.
    """

    blueprint: str
    mode: Mode = Mode.APPLY
    options: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True, slots=True)
class Task:
    """A target for a worker.

    With `asks_first`, one of its servers gave another target no answer. Then a run that only waits
    for the stores comes first, and takes no longer than one connection may.
    """

    target: Target
    asks_first: bool = False


@dataclass(frozen=True, slots=True)
class Entered:
    """What a worker tells when its run enters a phase."""

    phase: str


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a target.

    `unfinished` when something of it may still go on in the worker or below it. `silent` are the
    servers that gave no answer.
    """

    result: TargetResult
    unfinished: bool
    silent: tuple[Silence, ...] = ()


def serve(connection: Connection, order: Order, session_name: str) -> int:
    """Run the targets that come in, until the connection ends. Returns the exit code.

    The sessions that a revision opens by itself are called `session_name` where their client allows
    it.
    """
    claim_process(sys.stderr)
    # A signal that a terminal sends reaches every process. The fleet tells its workers what the
    # signal means.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def tell_phase(phase: str) -> None:
        with suppress(OSError):  # the fleet has gone, and the keeper ends this process
            connection.send(Entered(phase))

    worker = _Worker(order, tell_phase)
    signal.signal(signal.SIGTERM, lambda *_: worker.interrupt())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    name_sessions(session_name)
    unfinished = False
    with suppress(EOFError, OSError):
        while True:
            done = worker.run_target(connection.recv())
            unfinished = done.unfinished
            connection.send(done)
    return LEFT_BEHIND if unfinished else 0


class _Worker:
    """Runs one target after the other. `interrupt` ends the one that runs."""

    def __init__(self, order: Order, tell_phase: Callable[[str], None]) -> None:
        self._order = order
        self._tell_phase = tell_phase
        self._blueprint: Blueprint | None = None
        self._engine: BootstrapOrchestrator | None = None
        self._interrupted = False
        #: Seconds until the first try at each store had failed, in the present run.
        self._first_tries_s: dict[StoreName, float] = {}

    def interrupt(self) -> None:
        """From a signal handler: end the run, and begin no other."""
        self._interrupted = True
        if self._engine:
            self._engine.interrupt(TERMINATED)

    def run_target(self, task: Task) -> Done:
        """Run one target to its end. Errors become results, a bug with one target included."""
        target = task.target
        try:
            if task.asks_first and (refused := self._answer_missing(target)):
                return refused
            return self._outcome_of(target)
        except BootstrapError as exc:
            return Done(TargetResult.refused(target.name, exc), unfinished=_has_started_processes())
        except Exception as exc:  # noqa: BLE001 - a bug with one target is not to end the others
            traceback.print_exc()
            return Done(_bug(target, exc), unfinished=True)
        finally:
            self._engine = None

    def _answer_missing(self, target: Target) -> Done | None:
        """The end of a target whose stores are not there. None when all of them answer."""
        timing = target.settings.timing
        brief = replace(timing, timeout_s=min(timing.timeout_s, timing.connect_timeout_s))
        settings = replace(target.settings, timing=brief)
        done = self._outcome_of(replace(target, settings=settings), Mode.WAIT)
        return replace(done, result=asked_briefly(done.result)) if done.result.exit_code else None

    def _outcome_of(self, target: Target, mode: Mode | None = None) -> Done:
        engine = self._engine = self._orchestrator(target)
        if self._interrupted:
            engine.interrupt(TERMINATED)
        self._first_tries_s = {}
        result = engine.run(mode or self._order.mode)
        unfinished = engine.ended_early or bool(engine.unfinished)
        if result.exit_code and not unfinished:
            unfinished = _has_started_processes()
        document = result.to_dict()
        return Done(
            TargetResult(target.name, result.outcome, result.exit_code, document),
            unfinished,
            tuple(silences(result, target, self._first_tries_s)),
        )

    def _orchestrator(self, target: Target) -> BootstrapOrchestrator:
        if self._blueprint is None:
            self._blueprint = load_blueprint(self._order.blueprint)
        return app.orchestrator(
            self._blueprint,
            target.settings,
            replace(self._order.options, is_one_of_many=True),
            observers=[self._observe],
        )

    def _observe(self, event: Event) -> None:
        if event.kind == "phase" and event.phase:
            self._tell_phase(event.phase)
        if event.kind in {"waiting", "failed"} and event.store:
            self._first_tries_s.setdefault(cast("StoreName", event.store), event.elapsed_s)


def _has_started_processes() -> bool:
    """Whether a process that user code has started is still there, orphans included."""
    return any(pid != os.getpid() for pid in descendants(os.getppid()))


def _bug(target: Target, exc: Exception) -> TargetResult:
    return TargetResult(
        target.name,
        Outcome.FAILED,
        1,
        None,
        f"{type(exc).__name__}, with a text that may hold row values.",
        "This is a bug; its text and traceback are on stderr.",
    )

"""The run of a fleet: workers, each of which brings one target after the other to the blueprint.

A worker that leaves something behind, or whose target was ended before its end, is ended with all
that it has started before its target is reported, and another one takes its place. The fleet does
not rely on a worker to notice by itself: one whose interpreter is stuck is ended from outside.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import wait

from is_db_bootstrap import app
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.events import FleetProgress, Phase
from is_db_bootstrap.fleet.keeper import IDLE_END_S, Ended
from is_db_bootstrap.fleet.pace import Pace
from is_db_bootstrap.fleet.results import BY_SIGNAL, FleetResult, TargetResult, exit_code_of
from is_db_bootstrap.fleet.silence import Doubt, Silences
from is_db_bootstrap.fleet.targets import Refused, Target
from is_db_bootstrap.fleet.worker import Order, Task
from is_db_bootstrap.fleet.workers import Worker, start_worker
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import Outcome, worst
from is_db_bootstrap.stores.kinds import KINDS

#: Seconds between two looks at whether the fleet is to end.
_LOOK_S = 0.2
_RUN_AGAIN = "Run again; what has been applied is recognised."


def _report_nothing(_: TargetResult) -> None:
    """For a fleet whose caller waits for the result of all."""


def _watch_nothing(_: FleetProgress) -> None:
    """For a fleet whose progress nobody watches."""


class Fleet:
    """Runs an order on many targets, on `jobs` at a time.

    A target that fails ends the fleet after those that run, unless `continue_on_error`. A worker
    process that dies fails the target that it had, and no other. `report` receives each result as
    it comes. `watch` receives the progress several times a second. Raises `ConfigurationError` for
    a blueprint that cannot be loaded, and for stores that it does not have.
    """

    def __init__(
        self,
        order: Order,
        *,
        jobs: int,
        continue_on_error: bool = False,
        report: Callable[[TargetResult], None] = _report_nothing,
        watch: Callable[[FleetProgress], None] = _watch_nothing,
    ) -> None:
        self._order = order
        self._blueprint = load_blueprint(order.blueprint)
        self._stores = app.chosen_stores(self._blueprint, order.options.only, order.options.skip)
        self._jobs = jobs
        self._continue = continue_on_error
        self._report = report
        self._watch = watch
        self._workers: list[Worker] = []
        self._silences = Silences(self._stores)
        self._pace = Pace()
        #: By identity: a target may have the name of a line that was refused.
        self._results: dict[int, TargetResult] = {}
        self._stopped_by = 0
        self._stopped_at: float | None = None

    def kill(self) -> None:
        """From a signal handler: end all workers at once, with what they have started."""
        for worker in self._workers:
            worker.kill()

    def interrupt(self, exit_code: int = 130) -> None:
        """From a signal handler: begin no target any more, and end those that run as one run is."""
        self._stopped_by = exit_code
        self._stopped_at = time.monotonic()
        for worker in self._workers:
            worker.interrupt()

    def run(self, targets: Sequence[Target | Refused]) -> FleetResult:
        """Bring all targets to the blueprint. Errors become results.

        Targets that were refused fail first. Then no other begins, unless the fleet goes on in
        spite of errors.
        """
        began = time.monotonic()
        started_at = datetime.now(UTC)
        self._results = {}
        self._pace = Pace(len(targets))
        for each in targets:
            if isinstance(each, Refused):
                self._add(each, TargetResult.refused(each.name, each.error))
        if not self._results or self._continue:
            self._work(deque(t for t in targets if isinstance(t, Target)))
        return self._result(targets, started_at, time.monotonic() - began)

    def _result(
        self, targets: Sequence[Target | Refused], started_at: datetime, duration_s: float
    ) -> FleetResult:
        results = tuple(
            self._results.get(id(t)) or TargetResult(t.name, Outcome.SKIPPED, 0) for t in targets
        )
        outcomes = [result.outcome for result in results]
        not_all = Outcome.SKIPPED in outcomes or Outcome.INTERRUPTED in outcomes
        interrupted = bool(self._stopped_by) and not_all
        return FleetResult(
            blueprint=self._blueprint.name,
            blueprint_source=self._order.options.blueprint_source,
            run_id=self._order.options.run_id,
            mode=self._order.mode,
            outcome=Outcome.INTERRUPTED if interrupted else worst(outcomes),
            exit_code=self._stopped_by if interrupted else exit_code_of(results),
            started_at=started_at,
            duration_s=duration_s,
            targets=results,
        )

    def _add(
        self, target: Target | Refused, result: TargetResult, *, took_time: bool = False
    ) -> None:
        """Report a target that has ended. It counts for the pace when a worker has had it."""
        self._results[id(target)] = result
        self._pace.note(has_failed=bool(result.exit_code), took_time=took_time)
        self._report(result)

    # --- the work

    def _work(self, waiting: deque[Target]) -> None:
        """Give out the targets that wait, and take in results, until no worker has one any more."""
        try:
            for _ in range(min(self._jobs, len(waiting))):
                self._start_worker()
            while True:
                self._give_out(waiting)
                self._watch(self._pace.progress(self._workers))
                busy = [worker for worker in self._workers if worker.target is not None]
                if not busy:
                    return
                self._wait_for_one(busy)
                for worker in busy:
                    self._take_in(worker)
        finally:
            self._dismiss_workers()

    def _give_out(self, waiting: deque[Target]) -> None:
        """Give a target to each worker that has none, and replace the workers that ended."""
        while waiting and not self._is_over():
            doubt = self._silences.doubt(waiting[0])
            if doubt is Doubt.FAIL:
                target = waiting.popleft()
                self._add(target, self._silences.result(target))
                continue
            worker = next((w for w in self._workers if w.target is None), None)
            if worker is None:
                if len(self._workers) >= self._jobs:
                    return
                worker = self._start_worker()
            task = Task(waiting[0], asks_first=doubt is Doubt.ASK)
            if worker.give(task):
                waiting.popleft()
            else:
                self._end_worker(worker)

    def _wait_for_one(self, busy: Sequence[Worker]) -> None:
        """Wait a moment for one of the workers to say something, or to die."""
        wait([connection for worker in busy for connection in worker.connections], _LOOK_S)

    def _take_in(self, worker: Worker) -> None:
        """Report the target of a worker that has a result, has died or is stuck."""
        target = worker.target
        if target is None:
            return
        done = worker.hear()
        if done is not None:
            self._silences.note(target, done.result, done.silent)
        if done is not None and not done.unfinished:
            worker.target = None
            self._add(target, done.result, took_time=True)
        elif done is not None:
            silent = tuple(silence.store for silence in done.silent)
            result = _with_leftovers(done.result, self._end_worker(worker, silent))
            self._add(target, result, took_time=True)
        elif worker.has_died():
            self._add(target, self._result_of_death(worker, target), took_time=True)
        elif worker.is_stuck(self._stopped_at):
            self._add(target, self._result_of_stuck(worker, target), took_time=True)

    def _is_over(self) -> bool:
        failed = any(result.exit_code for result in self._results.values())
        return bool(self._stopped_by) or (failed and not self._continue)

    # --- workers

    def _start_worker(self) -> Worker:
        return start_worker(self._order, self._stores, self._workers)

    def _end_worker(self, worker: Worker, silent: tuple[StoreName, ...] = ()) -> Ended:
        ended = worker.end(silent)
        self._workers.remove(worker)
        return ended

    def _dismiss_workers(self) -> None:
        for worker in self._workers:
            worker.dismiss()
        deadline = time.monotonic() + IDLE_END_S
        for worker in self._workers:
            worker.wait_until_gone(deadline)
        self._workers.clear()

    # --- results of workers that cannot tell them

    def _result_of_death(self, worker: Worker, target: Target) -> TargetResult:
        ended = self._end_worker(worker)
        code = ended.exit_code
        result = TargetResult(
            target.name,
            Outcome.FAILED,
            BY_SIGNAL - code if code < 0 else 1,
            message=f"The worker process of this target ended with {code}.",
            hint=_RUN_AGAIN,
        )
        return _with_leftovers(result, ended, self._unended(worker))

    def _result_of_stuck(self, worker: Worker, target: Target) -> TargetResult:
        after_s = time.monotonic() - worker.since
        ended = self._end_worker(worker)
        where = f"in the phase {worker.phase}" if worker.phase else "before its first phase"
        result = TargetResult(
            target.name,
            Outcome.INTERRUPTED if self._stopped_by else Outcome.FAILED,
            self._stopped_by or StoreUnavailable.exit_code,
            message=f"The worker process of this target said nothing for {after_s:.0f} s {where},"
            " and was killed.",
            hint=f"See what the blueprint and its revisions do there. {_RUN_AGAIN}",
        )
        return _with_leftovers(result, ended, self._unended(worker))

    def _unended(self, worker: Worker) -> list[str]:
        """What stores go on with although the worker has gone, if it was making changes."""
        if worker.phase != Phase.APPLY:
            return []
        return [KINDS[store].unended for store in self._stores if KINDS[store].unended]


def _with_leftovers(result: TargetResult, ended: Ended, more: Sequence[str] = ()) -> TargetResult:
    """The result, and what may go on in spite of its end."""
    told = [result.message, *ended.may_go_on, *more]
    return replace(result, message=" ".join(text for text in told if text))

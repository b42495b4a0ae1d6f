"""The run: wait → plan → lock → plan again → apply → verify, over all the stores of a blueprint."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from is_db_bootstrap.engine.checks import Checks
from is_db_bootstrap.engine.context import Approval, Rules, RunContext, Stop, new_run_id
from is_db_bootstrap.engine.phases import Phases
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.store import CanSelfTest, DatabaseBootstrapper
from is_db_bootstrap.engine.track import LockPolicy, Track
from is_db_bootstrap.errors import ConfigurationError, Interrupted
from is_db_bootstrap.events import Event, Observer, Phase
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.results import (
    BootstrapResult,
    Change,
    ChangeResult,
    ErrorReport,
    Mode,
    Outcome,
    Proof,
    worst,
)
from is_db_bootstrap.rungs import RungResult

if TYPE_CHECKING:
    from is_db_bootstrap.engine.adoption import Adopting
    from is_db_bootstrap.engine.bystanders import Bystander

_log = logging.getLogger(__name__)

#: Kinds of changes that must be made before a lock can be taken.
_BEFORE_LOCKS = {"database", "schema"}


class BootstrapOrchestrator:
    """Brings stores to their blueprint.

    `bootstrappers` are taken in store order. `strict` makes findings drift in `verify`. With
    `allow_ahead=False`, a store whose history goes on beyond ours is a conflict. With
    `verify=False`, `apply` ends with its last change. `retry_changes` names changes that an
    earlier run has begun and not recorded, and that run again all the same. `accepted` names
    differences that an adoption records all the same (see `Adopting`). `blueprint_source` says
    who named the blueprint, for the report. With `is_default_blueprint` nobody did, so a store
    whose records name only other blueprints is a conflict. With the `fingerprint` of what is
    declared, the stores remember that they were converged together. A store that was lost since is
    a `StoreReset`, unless `accept_reset` names it. That is so without a fingerprint, too, and a run
    without `judges_losses` does not look at it. `declared_stores` are all stores of
    the blueprint. `bystanders` are those of them that this run leaves out and that it may ask
    what they remember, before it makes a store anew. With `is_one_of_many`, this is a target of a
    fleet, and its addresses tell it from the others. Each run has the id `run_id`, or without it a
    new one. With `climbs`, a wait looks at each rung of the ladder, and not only whether a store is
    usable. Observers receive events one at a time, from any thread. Raises `ConfigurationError` for
    no bootstrapper, and for two of one store.
    """

    def __init__(
        self,
        bootstrappers: Sequence[DatabaseBootstrapper],
        *,
        blueprint: str = "",
        retry: RetryPolicy | None = None,
        lock: LockPolicy | None = None,
        observers: Sequence[Observer] = (),
        strict: bool = False,
        allow_ahead: bool = True,
        verify: bool = True,
        retry_changes: Sequence[str] = (),
        accepted: Sequence[str] = (),
        blueprint_source: str = "",
        is_default_blueprint: bool = False,
        run_id: str = "",
        fingerprint: str = "",
        accept_reset: Sequence[str] = (),
        judges_losses: bool = True,
        declared_stores: Sequence[StoreName] = STORE_ORDER,
        is_one_of_many: bool = False,
        climbs: bool = False,
        bystanders: Sequence[Bystander] = (),
    ) -> None:
        names = [store.name for store in bootstrappers]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(
                f"A run needs one bootstrapper per store, and at least one; it got {names}."
            )
        self._bootstrappers = sorted(bootstrappers, key=lambda b: STORE_ORDER.index(b.name))
        self._rules = Rules(
            blueprint=blueprint,
            retry=retry or RetryPolicy(),
            lock=lock or LockPolicy(),
            strict=strict,
            allow_ahead=allow_ahead,
            verify=verify,
            retry_changes=tuple(retry_changes),
            blueprint_source=blueprint_source,
            is_default_blueprint=is_default_blueprint,
            run_id=run_id,
            fingerprint=fingerprint,
            accept_reset=tuple(accept_reset),
            judges_losses=judges_losses,
            declared_stores=tuple(declared_stores),
            is_one_of_many=is_one_of_many,
            climbs=climbs,
            bystanders=tuple(bystanders),
        )
        self._run_id = run_id
        self._accepted = tuple(accepted)
        self._observers = tuple(observers)
        self._stop = Stop()
        self._events = threading.Lock()
        self._began = 0.0
        self._unfinished: tuple[StoreName, ...] = ()
        self._ended_early = False

    def interrupt(self, exit_code: int = 130) -> None:
        """End the run. A signal handler or another thread calls this.

        No new change starts, and running changes get `grace_s` to end.
        """
        self._stop.exit_code = exit_code
        self._stop.set()

    def kill(self) -> None:
        """Do nothing, because a run does not outlive its process.

        A signal handler calls this before the process ends at once.
        """

    def run(
        self,
        mode: Mode = Mode.APPLY,
        *,
        tells_statements: bool = True,
        approved: BootstrapResult | None = None,
        foresees: bool = False,
    ) -> BootstrapResult:
        """Run all phases that `mode` asks for, and report.

        Without `tells_statements`, a plan does not look for what would be sent. A repair only looks
        and makes those changes only that the result `approved` of such a look has planned. With
        `foresees`, an adoption only looks, and reports what it would record as planned.
        Errors of `is_db_bootstrap.errors` become results. Ctrl-C ends the run cleanly and is raised
        again afterwards, unless a handler called `interrupt`.
        """
        mode = Mode(mode)  # a text does as well
        self._began = time.monotonic()
        started_at = datetime.now(UTC)
        run = RunContext(
            rules=self._rules,
            mode=_mode_of_phases(mode, foresees=foresees),
            tracks=[Track(store) for store in self._bootstrappers],
            emit=self._emit_event,
            stop=self._stop,
            tells_statements=tells_statements and mode is not Mode.ADOPT,
            run_id=self._begin_id(),
            approved=None if approved is None else _approvals_of(approved),
            adopting=_adopting(self._accepted) if mode is Mode.ADOPT else None,
        )
        phases = _phases_of(run)
        try:
            phases.go_through()
            _tell_losses(run)
        except Interrupted as exc:
            # Between two phases, where no step of a store ends for it.
            for track in run.tracks:
                track.error = track.error or exc
        finally:
            phases.close()
            self._unfinished = phases.workers.unfinished
            self._ended_early = run.halted.is_set()
        result = _result_of(run, started_at, time.monotonic() - self._began)
        result = replace(result, mode=mode)
        self._emit_event("finished", result=result)
        if phases.workers.saw_keyboard_interrupt:
            raise KeyboardInterrupt
        return result

    @property
    def unfinished(self) -> tuple[StoreName, ...]:
        """The stores of the last run whose call did not come back after it was cancelled.

        A thread of this process is still in that call, and ends when the process ends. If the store
        could be disconnected, the call changes nothing through the store any more.
        """
        return self._unfinished

    @property
    def ended_early(self) -> bool:
        """Whether a limit or an interrupt has ended steps of the last run while they were at work.

        What user code had begun beside its stores, such as processes and connections of its own,
        may go on.
        """
        return self._ended_early

    @property
    def stores(self) -> tuple[StoreName, ...]:
        """The names of the stores of this run."""
        return tuple(store.name for store in self._bootstrappers)

    def prepare(self) -> Iterator[tuple[StoreName, Change]]:
        """Create what must be there before a lock can be taken: missing databases and schemas."""
        for store in self._bootstrappers:
            try:
                while change := _first_before_locks(store):
                    store.apply(change)
                    yield store.name, change
            finally:
                store.close()

    def selftest(self) -> Iterator[tuple[DatabaseBootstrapper, Proof]]:
        """Try what was declared, store by store. Each check is made when it is read.

        Raises what a check raises. A check that takes too long is a `StoreUnavailable`.
        """
        for store in self._bootstrappers:
            if not isinstance(store, CanSelfTest):
                continue
            run = RunContext(
                rules=self._rules,
                mode=Mode.VERIFY,
                tracks=[Track(store)],
                emit=self._emit_event,
                stop=self._stop,
                run_id=self._begin_id(),
            )
            with closing(Checks(run).make_all()) as proofs:
                began = time.monotonic()
                for proof in proofs:
                    yield store, replace(proof, duration_s=time.monotonic() - began)
                    began = time.monotonic()

    def _begin_id(self) -> str:
        """The id of the run that begins, which its events have too."""
        self._run_id = self._rules.run_id or new_run_id()
        return self._run_id

    def _emit_event(
        self,
        kind: str,
        *,
        phase: Phase | None = None,
        store: str = "",
        message: str = "",
        change: ChangeResult | None = None,
        result: BootstrapResult | None = None,
        left_s: float | None = None,
        planned: int = 0,
        rung: RungResult | None = None,
        error: ErrorReport | None = None,
    ) -> None:
        """Tell every observer. A failure of an observer is logged and does not end the run."""
        elapsed_s = time.monotonic() - self._began
        run_id = self._run_id
        event = Event(
            kind=kind,
            phase=phase,
            store=store,
            message=message,
            elapsed_s=elapsed_s,
            change=change,
            result=result,
            left_s=left_s,
            planned=planned,
            run_id=run_id,
            rung=rung,
            error=error,
        )
        with self._events:
            for observer in self._observers:
                try:
                    observer(event)
                except KeyboardInterrupt:
                    raise
                except BaseException:  # noqa: BLE001 - the run goes on, also after a sys.exit()
                    _log.exception("An observer failed on %s.", event.kind)


def _mode_of_phases(mode: Mode, *, foresees: bool) -> Mode:
    """The mode whose phases a run goes through."""
    if mode is Mode.SELFTEST:
        return Mode.VERIFY
    if mode is Mode.ADOPT:
        return Mode.PLAN if foresees else Mode.APPLY
    return mode


# What few runs need is imported by those that do, because a pod waits for each start.


def _approvals_of(approved: BootstrapResult) -> frozenset[Approval]:
    from is_db_bootstrap.engine.repair import approvals_of

    return approvals_of(approved)


def _adopting(accepted: Sequence[str]) -> Adopting:
    from is_db_bootstrap.engine.adoption import Adopting

    return Adopting(tuple(accepted))


def _phases_of(run: RunContext) -> Phases:
    if run.mode is not Mode.REPAIR:
        return Phases(run)
    from is_db_bootstrap.engine.repair import RepairPhases

    return RepairPhases(run)


def _tell_losses(run: RunContext) -> None:
    """Say what a fail-over has taken back, if this run has lost a store."""
    if all(track.error is None for track in run.tracks):
        return
    from is_db_bootstrap.engine.losses import tell_losses

    tell_losses(run)


def _first_before_locks(store: DatabaseBootstrapper) -> Change | None:
    """The first change of a store's plan, if it must be made before a lock can be taken."""
    changes = store.plan().changes
    return changes[0] if changes and changes[0].kind in _BEFORE_LOCKS else None


def _result_of(run: RunContext, started_at: datetime, duration_s: float) -> BootstrapResult:
    """The frozen report of a run that has ended."""
    failed = not run.all_succeeded
    stores = tuple(track.result(run.mode, failed=failed) for track in run.tracks)
    if run.stop.is_set() and failed:
        outcome, exit_code = Outcome.INTERRUPTED, run.stop.exit_code
    else:
        outcome = worst([store.outcome for store in stores])
        exit_code = next((t.error.exit_code for t in run.tracks if t.error), 0)
    return BootstrapResult(
        run_id=run.run_id,
        blueprint=run.rules.blueprint,
        blueprint_source=run.rules.blueprint_source,
        mode=run.mode,
        outcome=outcome,
        exit_code=exit_code,
        started_at=started_at,
        duration_s=duration_s,
        stores=stores,
    )

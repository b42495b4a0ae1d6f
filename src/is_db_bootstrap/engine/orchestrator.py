"""The run: wait → plan → lock → plan again → apply → verify, over all the stores of a blueprint."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from is_db_bootstrap.engine.retry import Deadline, RetryPolicy, until, while_busy
from is_db_bootstrap.engine.store import (
    CanAudit,
    CanCheckRights,
    CanCreateDatabase,
    CanDisconnect,
    CanLock,
    CanProve,
    CanReport,
    CanSelfTest,
    DatabaseBootstrapper,
    Lock,
)
from is_db_bootstrap.engine.track import UNVERIFIED, Held, LockPolicy, Track
from is_db_bootstrap.errors import (
    PENDING,
    BootstrapError,
    ConfigurationError,
    Interrupted,
    LockTimeout,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
    VerificationFailed,
)
from is_db_bootstrap.events import Event, Observer, Phase
from is_db_bootstrap.names import STEP_THREAD
from is_db_bootstrap.results import (
    STORE_ORDER,
    BootstrapResult,
    Change,
    ChangeResult,
    Drift,
    LockHolder,
    Mode,
    Outcome,
    Proof,
    StoreName,
    worst,
)

_log = logging.getLogger(__name__)

#: The note of a store whose call did not come back. The command and the workers of a fleet end their process then.
_IN_THIS_PROCESS = (
    "A thread of the process that ran this is still in the call that did not end; it ends with that process."
    " A program that goes on should end itself, and run again."
)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What an orchestrator was told besides its stores."""

    blueprint: str
    retry: RetryPolicy
    lock: LockPolicy
    strict: bool
    allow_ahead: bool
    verify: bool


class _NothingLeft(Exception):
    """Another run has done what this one wanted the lock for."""


class _LockLost(StoreUnavailable):
    """A lock of this run is not its own any more."""


#: Confirmations in a row to which a store gave no answer, after which its lock counts as lost.
_MISSED_BEATS = 2


class _Stop(threading.Event):
    """Set when a run is to end; `exit_code` says by which signal."""

    exit_code = Interrupted.exit_code


class BootstrapOrchestrator:
    """Brings stores to their blueprint.

    `bootstrappers` are taken in store order. `strict` makes findings drift in `verify`; `allow_ahead=False` makes a
    store whose history goes on beyond ours a conflict; `verify=False` ends `apply` with its last change. Observers receive events one at a time, from any thread.
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
    ) -> None:
        names = [b.name for b in bootstrappers]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(
                f"A run needs one bootstrapper a store, at least one; got {names}."
            )
        self._bootstrappers = sorted(bootstrappers, key=lambda b: STORE_ORDER.index(b.name))
        self._rules = _Rules(
            blueprint, retry or RetryPolicy(), lock or LockPolicy(), strict, allow_ahead, verify
        )
        self._observers = tuple(observers)
        self._stop = _Stop()
        self._events = threading.Lock()
        self._began = 0.0
        self._unfinished: tuple[StoreName, ...] = ()

    def interrupt(self, exit_code: int = 130) -> None:
        """From a signal handler or another thread: no new change starts, running ones get `grace_s` to end."""
        self._stop.exit_code = exit_code
        self._stop.set()

    def kill(self) -> None:
        """From a signal handler, before the process ends at once: nothing of a run outlives its process."""

    def run(self, mode: Mode = Mode.APPLY) -> BootstrapResult:
        """Run all phases that `mode` asks for and report; errors of `is_db_bootstrap.errors` become results.

        Ctrl-C ends the run cleanly and is raised again afterwards, unless a handler called `interrupt`.
        """
        self._began = time.monotonic()
        started_at = datetime.now(UTC)
        run = _Run(
            self._rules, mode, [Track(b) for b in self._bootstrappers], self._stop, self._emit
        )
        try:
            run.phases()
        finally:
            run.close()
            self._unfinished = run.unfinished
        result = run.result(started_at, time.monotonic() - self._began)
        self._emit("finished", result=result)
        if run.keyboard:
            raise KeyboardInterrupt
        return result

    @property
    def unfinished(self) -> tuple[StoreName, ...]:
        """The stores of the last run whose call did not come back, although it was cancelled.

        A thread of this process is still in that call. It changes nothing through the store any more, if the store could be
        disconnected; it ends when the process ends.
        """
        return self._unfinished

    @property
    def stores(self) -> tuple[StoreName, ...]:
        """The names of the stores of this run."""
        return tuple(store.name for store in self._bootstrappers)

    def prepare(self) -> Iterator[tuple[StoreName, Change]]:
        """Create what must be there before a lock can be taken: missing databases and schemas."""
        for store in self._bootstrappers:
            try:
                while first := next(
                    (c for c in store.plan().changes[:1] if c.kind in {"database", "schema"}), None
                ):
                    store.apply(first)
                    yield store.name, first
            finally:
                store.close()

    def selftest(self) -> Iterator[tuple[DatabaseBootstrapper, Proof]]:
        """Try what was declared, store by store; each one's checks are made while they are read."""
        for store in self._bootstrappers:
            if isinstance(store, CanSelfTest):
                try:
                    store.ping(self._rules.retry.deadline_s)
                    for proof in store.selftest():
                        yield store, proof
                finally:
                    store.close()

    def _emit(
        self, kind: str, *, phase: Phase | None = None, store: str = "", message: str = "",
        change: ChangeResult | None = None, result: BootstrapResult | None = None,
    ) -> None:  # fmt: skip
        """Tell every observer; one that fails is logged and does not end the run."""
        event = Event(kind, phase, store, message, time.monotonic() - self._began, change, result)
        with self._events:
            for observer in self._observers:
                try:
                    observer(event)
                except KeyboardInterrupt:
                    raise
                except BaseException:  # noqa: BLE001 - whatever an observer does, sys.exit() included, the run goes on
                    _log.exception("An observer failed on %s.", event.kind)


class _Run:
    """One run of an orchestrator; holds what changes meanwhile."""

    def __init__(
        self, rules: _Rules, mode: Mode, tracks: list[Track], stop: _Stop, emit: Callable[..., None]
    ) -> None:
        self._rules = rules
        self._mode = mode
        self._tracks = tracks
        self._stop = stop
        self._emit = emit
        self._policy = rules.retry
        self._locking = rules.lock
        self._deadline = Deadline.of(self._policy)
        self._id = uuid.uuid4().hex[:12]
        self._held: list[Held] = []
        self._released = threading.Event()
        self._halted = threading.Event()
        self._acquiring: DatabaseBootstrapper | None = None
        self._followed = False
        self._running: dict[Future[None], Track] = {}
        self._may_go_on = False
        self.keyboard = False

    # --- phases

    def phases(self) -> None:
        """Go through the phases; one that failed anywhere is the last."""
        if not self._each(Phase.WAIT, self._wait) and self._mode is not Mode.STATUS:
            return
        if self._mode is Mode.WAIT:
            return
        if self._mode is Mode.STATUS:
            self._each(Phase.PLAN, self._report, [t for t in self._tracks if t.error is None])
            return
        if not self._each(Phase.PLAN, self._plan) or self._mode is Mode.PLAN:
            return
        if self._mode is Mode.APPLY and any(t.pending for t in self._tracks) and not self._change():
            return
        if self._mode is Mode.VERIFY or self._rules.verify:
            self._each(Phase.VERIFY, self._verify)
        else:
            for track in self._tracks:
                track.note(UNVERIFIED)

    def _change(self) -> bool:
        if not self._may_begin() or not self._lock():
            return False
        # What another run has left nothing of is not looked at again: nothing may be changed without the lock.
        return self._followed or (
            self._each(Phase.REPLAN, self._plan) and self._each(Phase.APPLY, self._apply)
        )

    def _may_begin(self) -> bool:
        """Whether each store's user may do what is planned, as far as its store can tell."""
        able = [track for track in self._tracks if isinstance(track.store, CanCheckRights)]
        return not able or self._each(Phase.LOCK, self._check_rights, able, everyone=True)

    def _check_rights(self, track: Track) -> None:
        if isinstance(track.store, CanCheckRights):
            while_busy(self._policy, track.store.check_rights, sleep=self._sleep)

    def _wait(self, track: Track) -> None:
        def ping(left_s: float) -> None:
            track.server = track.store.ping(left_s)

        if self._mode is Mode.STATUS:  # one try, which a slow machine gets the usual time for
            ping(self._policy.deadline_s)
            return
        until(
            self._policy,
            self._deadline,
            ping,
            sleep=self._sleep,
            on_retry=lambda e: self._say(Phase.WAIT, track, e.message),
        )

    def _plan(self, track: Track) -> None:
        track.plan = while_busy(self._policy, track.store.plan, sleep=self._sleep)
        track.note(*track.plan.notes)
        if track.plan.ahead and not self._rules.allow_ahead:
            raise StoreConflict(
                track.store.name, "The store's history goes on beyond this version of the blueprint.",
                hint="Run the newer version, or leave out --no-ahead.",
            )  # fmt: skip

    def _apply(self, track: Track) -> None:
        for change in track.pending:
            self._may_change(track)
            began = time.monotonic()
            self._emit(
                "change-started", phase=Phase.APPLY, store=track.store.name, message=change.name
            )
            try:
                remark = while_busy(
                    self._policy, partial(self._attempt, track, change), sleep=self._sleep,
                    on_retry=lambda e: self._say(Phase.APPLY, track, e.message),
                )  # fmt: skip
            except Interrupted:
                raise
            except BootstrapError as exc:
                self._record(track, change, Outcome.FAILED, began)
                self._refuse_ended(track, change, exc)
                raise
            self._record(track, change, Outcome.CHANGED, began)
            track.note(remark or "")
        if track.pending:
            self._refuse_lost_lock(self._held, "before its changes were done")

    def _attempt(self, track: Track, change: Change) -> str | None:
        self._may_change(track)  # again: a change may have been busy for a minute
        track.changing = True
        try:
            return track.store.apply(change)
        finally:
            track.changing = False

    def _may_change(self, track: Track) -> None:
        if self._stop.is_set() or self._halted.is_set():
            raise Interrupted("The run was interrupted before its next change.")
        lost = [held for held in self._held if held.lost]
        self._refuse_lost_lock(
            [*lost, track.guard] if track.guard else lost, "before its next change"
        )

    def _refuse_lost_lock(self, guards: Sequence[Held], when: str) -> None:
        """Raise for the first of `guards` that is not this run's any more; what was confirmed just now counts as ours."""
        for held in guards:
            if not held.confirmed(self._locking.fresh_s):
                raise _LockLost(
                    held.store.name,
                    f"The lock of this run was lost {when}, so another run may have begun; no further change is made.",
                    hint="Run again; what has been applied is recognised.",
                )

    def _refuse_ended(self, track: Track, change: Change, exc: BootstrapError) -> None:
        """Raise for a change that was ended because its lock was lost: what its store said is only the consequence."""
        is_consequence = isinstance(exc, StoreUnavailable) and not isinstance(exc, _LockLost)
        if is_consequence and track.guard is not None and track.guard.lost:
            raise _LockLost(
                track.store.name,
                f"The lock of this run on {track.guard.store.name} was lost while {change.name} was running, "
                f"so the change was ended: {exc.message}",
                hint="Run again; what has been applied is recognised.",
                subject=change.name,
            ) from exc

    def _record(self, track: Track, change: Change, outcome: Outcome, began: float) -> None:
        row = ChangeResult(
            change.name, change.kind, outcome, time.monotonic() - began, change.detail
        )
        track.changes.append(row)
        self._emit("change", phase=Phase.APPLY, store=track.store.name, change=row)

    def _verify(self, track: Track) -> None:
        if self._mode is Mode.APPLY and isinstance(track.store, CanProve):
            track.store.prove()
        if track.plan and track.plan.ahead:
            track.note("Not verified: the store is ahead of this version of the blueprint.")
        elif self._mode is Mode.VERIFY and track.pending:
            track.drifts += [Drift(c.name, c.kind, PENDING) for c in track.pending]
        else:
            track.drifts += track.store.verify()
            self._audit(track)
        track.verified = True
        if track.drifts:
            raise VerificationFailed(track.store.name, track.drifts)

    def _audit(self, track: Track) -> None:
        findings = list(track.store.audit()) if isinstance(track.store, CanAudit) else []
        strict = (
            [f for f in findings if f.finding]
            if self._mode is Mode.VERIFY and self._rules.strict
            else []
        )
        track.drifts += strict
        track.note(*(f"{f.kind} {f.object}: {f.message}" for f in findings if f not in strict))

    def _report(self, track: Track) -> None:
        if isinstance(track.store, CanReport):  # first: a conflict is when one asks
            track.status = track.store.status()
        self._plan(track)

    # --- locks

    def _lock(self) -> bool:
        creating = [t for t in self._tracks if t.pending and t.pending[0].kind == "database"]
        if creating and not self._each(Phase.LOCK, self._create, creating):
            return False
        return self._each(Phase.LOCK, self._take_locks, self._tracks[:1], everyone=True)

    def _create(self, track: Track) -> None:
        began = time.monotonic()
        change = track.pending[0]
        if isinstance(track.store, CanCreateDatabase):
            self._may_change(track)
            remark = while_busy(self._policy, track.store.create_database, sleep=self._sleep) or ""
            track.note(remark)
            self._record(track, change, Outcome.UNCHANGED if remark else Outcome.CHANGED, began)

    def _take_locks(self, _: Track) -> None:
        try:
            self._take_each()
        except _NothingLeft:
            self._followed = True

    def _take_each(self) -> None:
        pending = [t for t in self._tracks if t.pending]
        lockable = [t.store for t in self._tracks if isinstance(t.store, CanLock)]
        needed = [t.store for t in pending if isinstance(t.store, CanLock)]
        shared = None
        if len(needed) < len(pending):
            shared = self._borrowed()
            needed += [] if shared or not lockable or lockable[0] in needed else lockable[:1]
        for store in sorted(needed, key=lambda s: STORE_ORDER.index(s.name)):
            self._hold(store)
        own = {h.store.name: h for h in self._held}
        for track in self._tracks:
            track.guard = own.get(track.store.name) or shared or next(iter(self._held), None)
            if track.pending and track.guard is None:
                track.note(
                    "No store of this run can lock: a second run at the same time is not excluded."
                )

    def _hold(self, store: DatabaseBootstrapper) -> Held:
        """Take a lock and keep it from now on, also while this run still waits for its other locks."""
        held = Held(store, self._acquire(store))
        self._held.append(held)
        keep = partial(self._keep, held, held.heartbeat(self._locking))
        threading.Thread(target=keep, name=f"lock-heartbeat-{store.name}", daemon=True).start()
        return held

    def _borrowed(self) -> Held | None:
        """The lock of the first store outside of this run that can give one: a database that does not exist yet cannot."""
        for store in self._locking.borrow:
            with suppress(StoreConflict):
                return self._hold(store)
        return None

    def _acquire(self, store: DatabaseBootstrapper) -> Lock:
        owner = f"is-db-bootstrap {self._id} on {socket.gethostname()}, {_user()}, process {os.getpid()}"
        holder: list[LockHolder] = []

        def attempt(_: float) -> Lock:
            if not isinstance(store, CanLock):
                raise TypeError(store)
            taken = store.try_lock(owner)
            if isinstance(taken, LockHolder):
                holder[:] = [taken]
                if self._locking.follow and self._nothing_left():
                    raise _NothingLeft
                raise StoreBusy(
                    store.name, f"The lock is held by {taken.who}."
                )  # no age: said once, not at every try
            return taken

        self._acquiring = store
        try:
            while True:
                deadline = Deadline.of(self._policy) if self._locking.follow else self._deadline
                try:
                    return until(self._policy, deadline, attempt, sleep=self._sleep,
                                 on_retry=lambda e: self._emit("waiting", phase=Phase.LOCK, store=store.name, message=e.message))  # fmt: skip
                except StoreBusy:
                    if not (self._locking.follow and holder):
                        raise
                    self._sleep(max(self._policy.initial_s, 0.05))
        except StoreBusy as exc:
            if not holder:
                raise
            raise LockTimeout(
                store.name, f"The lock was not free within {self._policy.deadline_s:g} s: {_described(holder[0])} holds it.",
                hint="Wait for that run to end, or give a longer --timeout.",
            ) from exc  # fmt: skip
        finally:
            self._acquiring = None

    def _nothing_left(self) -> bool:
        """Whether another run has applied by now what this one had planned."""
        for track in self._tracks:
            if track.pending:
                self._plan(track)
        return not any(track.pending for track in self._tracks)

    def _keep(self, held: Held, every_s: float) -> None:
        """Renew one lock until the run ends or the lock is lost; each lock has a thread of its own for this."""
        missed = 0
        while not self._released.wait(every_s):
            ours = held.ask()
            missed = missed + 1 if ours is None else 0
            if ours is False or missed >= _MISSED_BEATS:
                self._lose(held)
                return

    def _lose(self, held: Held) -> None:
        """Begin no further change, and end those on their servers that only this lock protected from a second run."""
        if self._released.is_set():
            return
        held.lost = True
        for track in self._tracks:
            if track.guard is held and track.changing:
                self._emit("cancelling", store=track.store.name)
                with suppress(BootstrapError):
                    track.store.cancel()

    def close(self) -> None:
        """Release locks and connections; what still runs on a server keeps its lock, which ends with it."""
        self._released.set()
        for held in reversed(self._held):
            if self._may_go_on:
                self._track_of(held.store).note(
                    "A statement did not end in time: the lock is left to expire."
                )
                continue
            with suppress(BootstrapError):
                if not held.lock.release():
                    self._track_of(held.store).note(
                        "The lock was not held any more at the end of the run."
                    )
        for store in [*(t.store for t in self._tracks), *self._locking.borrow]:
            if store not in [t.store for t in self._running.values()]:
                store.close()

    @property
    def unfinished(self) -> tuple[StoreName, ...]:
        """The stores whose call did not come back."""
        return tuple(track.store.name for track in self._running.values())

    def _track_of(self, store: DatabaseBootstrapper) -> Track:
        return next((t for t in self._tracks if t.store is store), self._tracks[0])

    # --- threads

    def _each(
        self,
        phase: Phase,
        step: Callable[[Track], None],
        tracks: list[Track] | None = None,
        *,
        everyone: bool = False,
    ) -> bool:
        """Run `step` for every store in parallel and wait for all; False when one failed."""
        self._emit("phase", phase=phase)
        tracks = self._tracks if tracks is None else tracks
        for track in tracks:
            self._running[_spawn(partial(self._step, phase, step, track, quiet=everyone))] = track
        self._join(phase)
        return all(t.error is None for t in self._tracks)

    def _step(
        self, phase: Phase, step: Callable[[Track], None], track: Track, *, quiet: bool
    ) -> None:
        began = time.monotonic()
        try:
            step(track)
        except BootstrapError as exc:
            culprit = next(
                (t for t in self._tracks if t.store.name == getattr(exc, "store", "")), track
            )
            culprit.error = exc
            self._emit("failed", phase=phase, store=culprit.store.name, message=exc.message)
        else:
            if not quiet:
                self._emit("store-done", phase=phase, store=track.store.name)
        finally:
            track.duration_s += time.monotonic() - began

    def _join(self, phase: Phase) -> None:
        bounded = phase in {Phase.APPLY, Phase.VERIFY} and self._locking.apply_timeout_s > 0
        limit = time.monotonic() + self._locking.apply_timeout_s if bounded else None
        while self._running:
            try:
                self._collect(0.2)
            except KeyboardInterrupt:
                self.keyboard = True
                self._stop.set()
            if self._stop.is_set():
                self._end_running(Interrupted("The run was interrupted."), self._locking.grace_s)
                return
            if limit is not None and time.monotonic() > limit:
                seconds = f"{self._locking.apply_timeout_s:g} s"
                self._end_running(None, 0.0, f"{phase.value} did not end within {seconds}.")
                return

    def _collect(self, timeout_s: float) -> None:
        done, _ = wait(self._running, timeout=timeout_s, return_when="FIRST_COMPLETED")
        for future in done:
            self._running.pop(future)
            future.result()

    def _end_running(self, error: BootstrapError | None, grace_s: float, message: str = "") -> None:
        """Give running steps `grace_s`, then cancel them on their servers, then `grace_s` more to come back."""
        self._halted.set()
        self._drain(grace_s)
        touched = list(self._running.values())
        acquiring = self._acquiring
        for store in [acquiring] if acquiring else [t.store for t in touched]:
            self._emit("cancelling", store=store.name)
            with suppress(BootstrapError):
                store.cancel()
        self._drain(max(self._locking.grace_s, 1.0))
        if self._running:
            self._disconnect_running()
        for track in (
            touched if message else [t for t in self._tracks if t in touched or t.error is None]
        ):
            track.error = error or StoreUnavailable(
                track.store.name, message, hint="Give a longer --apply-timeout, or none."
            )

    def _disconnect_running(self) -> None:
        """End the sessions of calls that did not come back, and note what still goes on, and where."""
        for track in self._running.values():
            left = self._left_on_server(track)
            self._may_go_on = self._may_go_on or bool(left)
            track.note(left)
        self._drain(1.0)
        for track in self._running.values():
            track.note(_IN_THIS_PROCESS)

    def _left_on_server(self, track: Track) -> str:
        """What may go on on the server, as a sentence; empty when nothing does."""
        if not isinstance(track.store, CanDisconnect):
            return "What was begun did not end when it was cancelled, and may go on on the server."
        try:
            return track.store.disconnect()
        except BootstrapError as exc:
            return (
                f"What was begun may go on on the server, which could not be asked: {exc.message}"
            )

    def _drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            with suppress(KeyboardInterrupt):
                self._collect(0.1)

    def _sleep(self, seconds: float) -> None:
        if self._policy.sleep is not None:
            self._policy.sleep(seconds)
        elif self._halted.wait(seconds):
            raise Interrupted("The run was interrupted while it waited.")

    def _say(self, phase: Phase, track: Track, message: str) -> None:
        self._emit("waiting", phase=phase, store=track.store.name, message=message)

    # --- report

    def result(self, started_at: datetime, duration_s: float) -> BootstrapResult:
        """The frozen report of what happened."""
        failed = any(t.error for t in self._tracks)
        stores = tuple(t.result(self._mode, failed=failed) for t in self._tracks)
        interrupted = self._stop.is_set() and failed
        code = next((t.error.exit_code for t in self._tracks if t.error), 0)
        return BootstrapResult(
            run_id=self._id,
            blueprint=self._rules.blueprint,
            mode=self._mode,
            outcome=Outcome.INTERRUPTED if interrupted else worst([s.outcome for s in stores]),
            exit_code=self._stop.exit_code if interrupted else code,
            started_at=started_at,
            duration_s=duration_s,
            stores=stores,
        )


def _spawn(call: Callable[[], None]) -> Future[None]:
    """Run `call` in a daemon thread: an executor's threads would keep the process from ending after a signal."""
    future: Future[None] = Future()

    def target() -> None:
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - handed to the thread that asks for the result
            future.set_exception(exc)
        except BaseException as exc:  # noqa: BLE001 - an exit in a store's thread must not end the process with its code
            failure = RuntimeError(f"A step of the run raised {type(exc).__name__}: {exc}.")
            failure.__cause__ = exc
            future.set_exception(failure)
        else:
            future.set_result(None)

    threading.Thread(target=target, name=STEP_THREAD, daemon=True).start()
    return future


def _described(holder: LockHolder) -> str:
    if holder.since is None:
        return holder.who
    age = (datetime.now(UTC) - holder.since).total_seconds()
    return f"{holder.who} since {holder.since:%Y-%m-%d %H:%M:%S} UTC ({age:.0f} s)"


def _user() -> str:
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # a container's uid without an entry in passwd
        return f"uid {os.getuid()}"

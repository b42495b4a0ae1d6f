"""What a run knows of each store, and of each lock that it holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from is_db_bootstrap.engine.memory import Memory, Recall
from is_db_bootstrap.engine.store import DatabaseBootstrapper, Leased, LeftLease, Lock, Seen
from is_db_bootstrap.engine.threads import call_within
from is_db_bootstrap.errors import (
    BootstrapError,
    ConfigurationError,
    Interrupted,
    VerificationFailed,
)
from is_db_bootstrap.results import (
    Change,
    ChangeResult,
    Diagnosis,
    Drift,
    Mode,
    Nature,
    Outcome,
    Plan,
    ServerInfo,
    Status,
    StoreResult,
)
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.settings.timing import BEATS, DEFAULT, LEAST_BEATS, Timing

#: Kind and name of the change that writes what a store remembers.
MEMORY = "memory"
#: Modes in which a store that failed keeps no other store from being looked at.
_LOOKS_AT_EACH = frozenset({Mode.STATUS, Mode.DOCTOR})
#: The note of a run whose caller wanted no verify.
UNVERIFIED = "Not verified, as asked."


@dataclass(frozen=True, slots=True)
class LockPolicy:
    """How locks are kept, and what a run gets to end. All times are seconds."""

    #: Stores outside of this run, left out by `--only`. The first one guards stores that cannot
    #: lock.
    borrow: tuple[DatabaseBootstrapper, ...] = ()
    #: Time between two confirmations of a held lock. None: a sixth of each lock's lease. An
    #: interval above a third of the lease is a `ConfigurationError`.
    heartbeat_s: float | None = DEFAULT.heartbeat_s
    #: A confirmation serves the next change too, up to this age.
    fresh_s: float = 1.0
    #: Time that running changes get after a signal, before they are cancelled.
    grace_s: float = DEFAULT.grace_s
    #: The limit of apply. 0 is no limit.
    apply_timeout_s: float = DEFAULT.apply_timeout_s
    #: The limit of each plan, verify and status, and of each check of a self-test. 0 is no limit.
    phase_timeout_s: float = DEFAULT.phase_timeout_s
    #: A run that meets another one waits as long as that one goes on. When the other one has left
    #: nothing to do, this run verifies without ever having had the lock.
    follow: bool = False

    @classmethod
    def of(
        cls, timing: Timing, *, borrow: tuple[DatabaseBootstrapper, ...] = (), follow: bool = False
    ) -> Self:
        """The policy that `timing` asks for."""
        return cls(
            borrow=borrow,
            heartbeat_s=timing.heartbeat(),
            grace_s=timing.grace_s,
            apply_timeout_s=timing.apply_timeout_s,
            phase_timeout_s=timing.phase_timeout_s,
            follow=follow,
        )


#: Seconds between two confirmations of a lock that has no lease and lapses only with its session.
HEARTBEAT_WITHOUT_LEASE_S = 10.0
#: Seconds that a store gets to confirm a lock that has no lease.
_ANSWER_WITHOUT_LEASE_S = 20.0
#: The least seconds that a store gets to confirm a leased lock.
_LEAST_ANSWER_S = 1.0


@dataclass(slots=True)
class Held:
    """A lock of this run.

    `confirmed_at` is the moment of the last confirmation by the store, on the monotonic clock.
    """

    store: DatabaseBootstrapper
    lock: Lock
    confirmed_at: float = field(default_factory=time.monotonic)
    #: When it was found lost, on the monotonic clock. Set once and for all: a lock that was lost
    #: does not come back to this run.
    lost_at: float | None = None

    @property
    def lost(self) -> bool:
        """Whether the lock does not belong to this run any more."""
        return self.lost_at is not None

    @property
    def _lease_s(self) -> float | None:
        return self.lock.lease_s if isinstance(self.lock, Leased) else None

    @property
    def answer_s(self) -> float:
        """Seconds that the store gets to confirm the lock.

        Two confirmations without an answer, and the pauses before them, fit into a lease.
        """
        if self._lease_s is None:
            return _ANSWER_WITHOUT_LEASE_S
        return max(self._lease_s / LEAST_BEATS, _LEAST_ANSWER_S)

    def heartbeat(self, policy: LockPolicy) -> float:
        """Seconds between two confirmations.

        Raises `ConfigurationError` when the confirmations are too far apart for the lease.
        """
        lease_s = self._lease_s
        if policy.heartbeat_s is None:
            return HEARTBEAT_WITHOUT_LEASE_S if lease_s is None else lease_s / BEATS
        if lease_s is not None and policy.heartbeat_s > lease_s / LEAST_BEATS:
            raise ConfigurationError(
                f"heartbeat_s is {policy.heartbeat_s:g} s, which is above a third of lease_s, "
                f"{lease_s:g} s, on "
                f"{self.store.name}: its lock could lapse while the run goes on.",
                hint="Give a shorter heartbeat or a longer lease, or leave the heartbeat out.",
            )
        return policy.heartbeat_s

    def ask(self) -> bool | None:
        """Whether the store says that the lock is ours. The question renews a lease.

        None when the store gave no answer within `answer_s`, or said that it cannot answer.
        """
        asked_at = time.monotonic()
        [answer] = call_within(self.answer_s, [self.lock.confirm])
        if not answer.done():
            return None
        try:
            ours = answer.result()
        except BootstrapError:
            return None
        if ours:
            self.confirmed_at = asked_at
        return ours

    def confirmed(self, within_s: float = 0.0) -> bool:
        """Whether the store says that the lock is ours.

        The store is not asked when it said so within the last `within_s` seconds.
        """
        if self.lost:
            return False
        seen_at = self.lock.seen_at if isinstance(self.lock, Seen) else 0.0
        if time.monotonic() - max(self.confirmed_at, seen_at) < within_s:
            return True
        return self.ask() is True


@dataclass(slots=True)
class Call:
    """What a store was asked, and what is known of the wait for its answer.

    The times are moments of the monotonic clock.
    """

    #: The change that is being made. Empty for a look.
    change: str = ""
    began_at: float = field(default_factory=time.monotonic)
    #: Why the last try failed. Empty before the first one has ended.
    refusal: str = ""
    #: When the observers last heard what is waited for.
    told_at: float | None = None
    #: Why the engine has ended this call on its server. Empty: it did not.
    ended_because: str = ""

    def refuse(self, message: str) -> None:
        """Note why a try has failed, which the observers hear now unless they know it."""
        if message != self.refusal:
            self.refusal = message
            self.told_at = time.monotonic()


@dataclass(slots=True)
class Track:
    """What is known of one store while a run goes on."""

    store: DatabaseBootstrapper
    server: ServerInfo | None = None
    plan: Plan | None = None
    guard: Held | None = None
    #: The lease that another run has left in a store with nothing pending.
    left_lease: LeftLease | None = None
    #: What the store remembers, by its last plan. None for one that does not remember.
    recall: Recall | None = None
    #: Whether that look has found something that is not there and is to be.
    lacks: bool = False
    #: The record that the store is to get. None when it has the right one.
    memory: Memory | None = None
    status: Status | None = None
    diagnosis: Diagnosis | None = None
    #: What was seen of each rung of the ladder.
    rungs: dict[Rung, RungResult] = field(default_factory=dict)
    #: What the observers have heard last of each rung.
    told_rungs: dict[Rung, RungResult] = field(default_factory=dict)
    changes: list[ChangeResult] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: BootstrapError | None = None
    duration_s: float = 0.0
    #: Whether its verify has come to its end.
    verified: bool = False
    #: Whether that verify could compare the store with the blueprint.
    compared: bool = False
    #: Whether the store is making a change at this moment.
    changing: bool = False
    #: What the store was asked last, and when.
    call: Call = field(default_factory=Call)

    @property
    def pending(self) -> tuple[Change, ...]:
        """What the plan lists."""
        return self.plan.changes if self.plan else ()

    @property
    def needs_lock(self) -> bool:
        """Whether this run is to write something into the store."""
        return bool(self.pending) or self.memory is not None

    @property
    def changed(self) -> bool:
        """Whether this run has changed something."""
        return any(change.outcome is Outcome.CHANGED for change in self.changes)

    @property
    def memory_change(self) -> Change:
        """The change that writes the record, as a plan and a result list it."""
        members = ", ".join(self.memory.members) if self.memory else ""
        return Change(MEMORY, MEMORY, f"remember {members}", Nature.REPEATABLE)

    @property
    def _is_only_memory_due(self) -> bool:
        return self.memory is not None and not self.pending and self.error is None

    def note(self, *texts: str) -> None:
        """Add notes to the result. The same note stands there once."""
        for text in texts:
            if text and text not in self.notes:
                self.notes.append(text)

    def result(self, mode: Mode, *, failed: bool) -> StoreResult:
        """The frozen report. `failed` says whether any store of the run has failed."""
        notes = [*self.notes]
        if mode is Mode.APPLY and self._ended_unverified():
            notes.append("Not verified, because the run ended before.")
        return StoreResult(
            store=self.store.name,
            target=self.store.target,
            outcome=self._store_outcome(mode, failed=failed),
            server=self.server,
            status=self.status,
            diagnosis=self.diagnosis,
            rungs=tuple(self.rungs[rung] for rung in Rung if rung in self.rungs),
            duration_s=self.duration_s,
            changes=(*self.changes, *self._changes_not_made(mode)),
            drifts=tuple(self.drifts),
            notes=tuple(notes),
            is_verified=self.compared,
            error=self.error.report() if self.error else None,
            exception=self.error,
        )

    def _ended_unverified(self) -> bool:
        """Whether this run has changed the store and ended, without an error, before verify."""
        is_as_asked = UNVERIFIED in self.notes
        return self.changed and not self.verified and self.error is None and not is_as_asked

    def _changes_not_made(self, mode: Mode) -> Iterator[ChangeResult]:
        """The changes that are still planned, and those that the server cannot take.

        A verify reports each pending change as drift, so no pending change is listed here then.
        """
        done = {(change.kind, change.name) for change in self.changes}
        if mode is not Mode.VERIFY:
            for change in self.pending:
                if (change.kind, change.name) not in done:
                    yield ChangeResult.of(change, Outcome.PLANNED)
        if mode is Mode.PLAN and self._is_only_memory_due:
            yield ChangeResult.of(self.memory_change, Outcome.PLANNED)
        if self.plan is not None:
            for change in self.plan.skipped:
                yield ChangeResult.of(change, Outcome.SKIPPED)

    def _store_outcome(self, mode: Mode, *, failed: bool) -> Outcome:
        if self.error is not None:
            return _outcome_of(self.error)
        if self.changed:
            return Outcome.CHANGED
        if failed and not self.verified and mode not in _LOOKS_AT_EACH:
            return Outcome.SKIPPED
        if self.pending and mode in {Mode.PLAN, Mode.REPAIR, *_LOOKS_AT_EACH}:
            return Outcome.PLANNED
        if self._is_only_memory_due and mode is Mode.PLAN:
            return Outcome.PLANNED
        return Outcome.UNCHANGED


def _outcome_of(error: BootstrapError) -> Outcome:
    """What became of a store that ended with `error`."""
    if isinstance(error, Interrupted):
        return Outcome.INTERRUPTED
    if isinstance(error, VerificationFailed):
        return Outcome.DRIFTED
    return Outcome.FAILED

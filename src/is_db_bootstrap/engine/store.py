"""The contract of a store, and the optional abilities beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from is_db_bootstrap.engine.memory import Memory, Recall
    from is_db_bootstrap.grant_list import GrantWish, RoleGrants
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.results import (
        Change,
        ChangeResult,
        Diagnosis,
        Drift,
        LockHolder,
        Plan,
        Proof,
        RepairPlan,
        ServerInfo,
        Status,
    )
    from is_db_bootstrap.rungs import RungResult

#: The kind of a change that writes a record of ours, and nothing else.
RECORD = "record"


class DatabaseBootstrapper(Protocol):
    """One store of a blueprint.

    Every method may raise the errors of `is_db_bootstrap.errors`. A caller need not expect any
    other error. No method sleeps, retries, prints or reads the environment, because the
    orchestrator does so for all stores. `timeout_s` is what is left of the deadline, in seconds. A
    client's own retries and waits are set from `timeout_s`.
    """

    name: StoreName
    #: The address without secrets.
    target: str

    def ping(self, timeout_s: float) -> ServerInfo:
        """Try once whether the store is usable, and not just reachable. This never writes."""

    def plan(self) -> Plan:
        """What is missing, in order. This only reads.

        Raises `StoreConflict` when what is there contradicts the blueprint.
        """

    def apply(self, change: Change) -> str | None:
        """Take one step of the plan. Returns a remark for the report, or None.

        A `Found` remark says that the step had been taken already.

        When a crash comes before the step is recorded, the next plan recognises that. `StoreBusy`
        means that nothing was changed and the same call may be repeated.
        """

    def verify(self) -> Sequence[Drift]:
        """Compare every declared object with the live one."""

    def cancel(self) -> None:
        """End the call that runs on the server. Harmless when no call runs.

        Another thread calls this.
        """

    def close(self) -> None:
        """Release every connection. A second call does nothing."""


class MadeByOther(str):
    """A remark on a change that another run or session has made meanwhile.

    The engine tells such a change as unchanged, because this run has not made it.
    """

    __slots__ = ()


class Progress(Protocol):
    """What a store tells of several changes while it makes them in one call."""

    def begin(self, change: Change) -> None:
        """Tell that the store turns to a change, which it has not touched yet.

        Raises `Interrupted` or `LockLost` when no further change may be made. The store lets that
        pass, and takes back what is not committed.
        """

    def ran(self, change: Change) -> None:
        """Tell that a change ran, in a transaction that is still open."""

    def done(self, change: Change, remark: str | None = None) -> None:
        """Tell that a change was read back as recorded, with a remark for the report, or None."""


@runtime_checkable
class CanApplyTogether(Protocol):
    """A store that makes several changes in one call."""

    #: The kinds of these changes. Changes of one kind that follow each other are made together.
    kinds_together: frozenset[str]

    def apply_together(self, changes: Sequence[Change], progress: Progress) -> None:
        """Take these steps of the plan in their order, and tell of each.

        When this raises, the changes that were not told as done are not recorded. Changes that ran
        in one transaction are told as done only when all of them are. `StoreBusy` means that the
        same call may be repeated with the changes that are left.
        """


@runtime_checkable
class CanTellStatements(Protocol):
    """A store that can say what each of its planned changes would send."""

    def with_statements(self, plan: Plan) -> Plan:
        """The same plan. Its changes have `statements` and `is_code`, and its notes say why.

        The engine asks in plan mode only, after the plan, and only when something is pending. The
        store is not written.
        """


class Lock(Protocol):
    """A lock that is held."""

    def confirm(self) -> bool:
        """Whether the lock is still ours. The call renews a lease. Any thread may make the call."""

    def release(self) -> bool:
        """Give the lock up. False when the lock was not ours any more."""


@runtime_checkable
class Leased(Protocol):
    """A lock that lapses by itself when it is not renewed."""

    @property
    def lease_s(self) -> float:
        """Seconds from a renewal to the moment when another run may take the lock over."""


@runtime_checkable
class Seen(Protocol):
    """A lock that its store also looks at when it makes changes."""

    @property
    def seen_at(self) -> float:
        """When the store last saw that the lock is ours, on the monotonic clock. 0 for never."""


@runtime_checkable
class CanLock(Protocol):
    """A store that can exclude a second run on the same blueprint and target."""

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """Try once, without waiting: the lock, or its holder. A person can place `owner`."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A lock that ends with the session that holds it, as two runs can compare it.

    `lock` is the same for all runs that exclude each other with it, and for no others. `session` is
    different for each session that has ever held it.
    """

    lock: str
    session: str


class Life(StrEnum):
    """Whether the holder of a lock is at work."""

    #: It was heard of lately, or its process runs.
    ALIVE = "alive"
    #: Nothing of it is left that could go on.
    DEAD = "dead"
    #: Nobody can tell from here.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PresentLock:
    """A lock that is there now, for a person who wants to remove it.

    `why` is a sentence that says by what its `life` is known, or why it is not. `token` is what
    the store needs in order to remove this lock and no other one.
    """

    holder: LockHolder
    life: Life
    why: str
    token: object = field(compare=False, repr=False)


@runtime_checkable
class CanUnlock(Protocol):
    """A store from which a lock can be removed that its holder has left behind."""

    def present_lock(self) -> PresentLock | None:
        """The lock that is there now, also one that has lapsed. None: there is none.

        This only reads.
        """

    def remove_lock(self, seen: PresentLock) -> bool:
        """Remove the lock that `present_lock` has shown.

        False when it has changed since, as one that was renewed. Nothing was removed then.
        """


@runtime_checkable
class CanAnchor(Protocol):
    """A store whose lock ends with its session, so that its next holder knows it was lost.

    A run takes this lock first, and keeps it to the end, also when nothing is pending there.
    """

    def anchor(self) -> Anchor | None:
        """The lock that this run holds here. None when the server does not tell enough of it."""


@dataclass(frozen=True, slots=True)
class LeftLease:
    """A lease of another run, which may be at work or may have died.

    `anchor` is what the lease records of its run's anchor. None when the lease may not be taken
    over before it lapses.
    """

    holder: LockHolder
    is_over: bool
    anchor: Anchor | None

    def has_lost(self, anchor: Anchor) -> bool:
        """Whether the run of this lease has lost the lock that `anchor` holds now."""
        lost = self.anchor
        return lost is not None and lost.lock == anchor.lock and lost.session != anchor.session


@runtime_checkable
class CanTakeOver(Protocol):
    """A store whose lease may be taken over before it lapses, from a run that lost its anchor."""

    def left_lease(self) -> LeftLease | None:
        """The lease that is there now. None: there is none. This only reads.

        The engine asks in apply mode for a store with nothing pending, whose lock the run does not
        take. A lease that is left there keeps others out, who know no leases.
        """

    def know_anchor(self, anchor: Anchor | None) -> None:
        """Note the anchor that this run holds at this moment. None: it holds none.

        `try_lock` records the anchor in the lease. A lease that records the same lock with another
        session belongs to a run that has lost that lock. `try_lock` may end what is left of that
        run, and take the lease.
        """


@runtime_checkable
class CanReleaseLapsed(CanTakeOver, Protocol):
    """A store whose lock stays visible after its lease is over, to others that know no lease."""

    def release_lapsed(self) -> str | None:
        """Remove the lock of a run that is over. Returns a remark when there was one, else None.

        A lock whose lease goes on, and a lock that has no lease, stay as they are. The engine calls
        this in apply mode for a store with nothing pending, when `left_lease` has shown such a
        lock. That, and taking a lease over to give it back, are the only writes of a run that has
        nothing to do.
        """


@runtime_checkable
class CanCheckRights(Protocol):
    """A store that can find out what its user may do without doing it."""

    def check_rights(self) -> None:
        """Raise `AccessDenied` when the user may not do what the last plan asks for.

        This changes nothing. The engine asks once, in apply mode, before anything is created,
        locked or changed in any store.
        """


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client connects to: a host and a port, or the path of a socket.

    `limit_s` is how long one attempt to connect may take, in seconds. `remark` says whose place it
    is when that is not the store itself, such as a proxy's.
    """

    host: str
    port: int
    limit_s: float
    socket: str = ""
    remark: str = ""

    def __str__(self) -> str:
        if self.socket:
            return self.socket
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@runtime_checkable
class CanClimb(Protocol):
    """A store that tells where it is, and what its user may do there.

    An error of its `ping` names the rung that was not reached (`BootstrapError.at`).
    """

    def places(self) -> Sequence[Place]:
        """Where a client of this address connects to, any of which will do.

        Empty when only the client knows. This asks nobody.
        """

    def rungs(self) -> Sequence[RungResult]:
        """What a successful ping has seen of the rungs from TLS on, and whether a run could write.

        The look at `Rung.SCHEMA` changes nothing. A rung that is left out was reached, and there is
        nothing to say of it. Raises `AccessDenied`, with its rung, when the user may not create
        what a blueprint declares.
        """

    def server_age_s(self) -> float | None:
        """Seconds since the server of the last ping has started. None when it does not tell."""


@runtime_checkable
class CanDiagnose(Protocol):
    """A store that can tell more of its server, and of what lies between, than a run needs."""

    def diagnose(self) -> Diagnosis:
        """Look at the server of the last ping. This only reads, and takes no lock.

        What could not be seen stands in `unseen`.
        """


@runtime_checkable
class CanTellGrants(Protocol):
    """A store that can list the smallest privileges of a role. No server is asked."""

    def grants(self, wish: GrantWish) -> RoleGrants:
        """What an administrator runs, so that the role may do what it is for.

        Raises `ConfigurationError` for the name of a role that the store cannot have.
        """


@runtime_checkable
class CanDisconnect(Protocol):
    """A store that can end its sessions on the server when a call outlasts `cancel`."""

    def disconnect(self) -> str:
        """End every session of this store, and look whether all sessions are gone.

        Another thread calls this. Nothing that the hanging call still does reaches the server
        afterwards. Returns what may go on there all the same, as a sentence for the report. Empty
        when the server says that nothing is left.
        """


@runtime_checkable
class CanTellWait(Protocol):
    """A store that can find out what its running call waits for."""

    def waits_for(self) -> str:
        """What the call that runs now waits for, as a sentence for a person.

        Empty when it waits for nobody, or when that is not known. Another thread calls this. The
        server may give no answer to this question either, so nobody waits for it for long.
        """


@runtime_checkable
class CanEndWait(Protocol):
    """A store whose server lets a statement wait for a lock without a limit."""

    def end_wait(self) -> bool:
        """End the statement of a change on the server if it waits for somebody else's lock.

        Returns whether there was such a statement, and nothing of it is left. Another thread calls
        this. The call that sent the statement then fails.
        """


@runtime_checkable
class GoesOn(Protocol):
    """A store whose server goes on with a change after `cancel`."""

    def what_goes_on(self) -> str:
        """What may go on there, as a sentence for the report."""


@runtime_checkable
class CanRetry(Protocol):
    """A store in which a change may have begun without its record.

    The plan of such a store ends in a conflict over a change that is neither atomic nor repeatable.
    """

    def allow_retry(self, changes: Collection[str]) -> None:
        """Let these changes run again although they have begun, and no others.

        The engine calls this once per run, before the first plan. The plans that follow list such a
        change in `Plan.begun`, as long as no other run has begun it again. This asks no server.
        """


@runtime_checkable
class CanTellBlueprints(Protocol):
    """A store whose records name the blueprints that were applied to it."""

    def recorded_blueprints(self) -> Collection[str]:
        """The blueprints that records here name. Empty where there is no record.

        The look is bounded, and only reads. Records that may not be read are passed over.
        """


@runtime_checkable
class CanRemember(Protocol):
    """A store that keeps a record of the stores that were converged together with it."""

    #: Whether the blueprint can live with its loss. A blank store of this kind is no reset.
    is_cache: bool

    def recall(self) -> Recall:
        """What this store is, and what it remembers. The engine asks after a plan.

        This only reads, and uses what the plan has seen, so that a run with nothing to do costs
        no further round trip where that is possible. Raises `StoreConflict` for a broken record.
        """

    def remember(self, memory: Memory) -> str | None:
        """Write the record, in the place of the one with the same key.

        Returns why it was not written, or None. The engine calls this under the lock, after verify.
        """


@runtime_checkable
class CanForeseeRefusal(Protocol):
    """A store that finds out, without writing anything, whether it may keep a record."""

    def memory_refusal(self) -> str:
        """Why this user may not write the record, as a sentence with the remedy. Empty: it may.

        The engine asks only where a record is due, so that no lock is taken for nothing.
        """


@dataclass(frozen=True, slots=True)
class Adoption:
    """One store, as an adoption finds it."""

    #: The records that are missing, in the order in which they are written.
    changes: tuple[Change, ...] = ()
    #: What is missing, different, undeclared in the declared scope, or cannot be verified.
    differences: tuple[Drift, ...] = ()
    #: Whether nothing is there of what the blueprint declares, nor any record of it.
    is_blank: bool = False
    #: Whether a store of this kind may be blank beside others that are not, as a cache may.
    may_be_blank: bool = False
    #: Why nobody can accept a difference here, as a sentence. Empty where a person can.
    refusal: str = ""
    notes: tuple[str, ...] = ()


@runtime_checkable
class CanAdopt(Protocol):
    """A store that can be taken over as it is, by records alone."""

    def adoption(self) -> Adoption:
        """What differs from the blueprint, and which records are missing. This only reads.

        `apply` takes the changes of the answer, which are of kind `record`, and reads each back.
        Raises `StoreConflict` for records that contradict the blueprint.
        """


@runtime_checkable
class CanCreateDatabase(Protocol):
    """A store whose database may be missing.

    Its `plan` then starts with a change of kind `database`.
    """

    def create_database(self) -> str | None:
        """Create the database. Returns a remark when another run was faster, else None."""


@runtime_checkable
class CanComparePending(Protocol):
    """A store without a history: it compares everything, also while something is pending.

    Its `verify` works also where its `plan` ends in a conflict.
    """

    compares_pending: bool


@runtime_checkable
class CanRepair(Protocol):
    """A store that can mend some of what differs, without any loss."""

    def repair_plan(self) -> RepairPlan:
        """What differs, as changes that mend it, and as drifts that this store cannot mend.

        A change has its statements and its dangers. This only reads. What rows would refuse is
        among the drifts. Nothing is ever dropped, and what is there and different stays as it is.
        """

    def repair(self, change: Change) -> str | None:
        """Make one change of the plan. Returns a remark, or None, as `apply` does.

        Making a change again that was cut off is harmless.
        """


@runtime_checkable
class CanAudit(Protocol):
    """A store that can look for what is not declared, and for data that breaks a convention."""

    def audit(self) -> Sequence[Drift]:
        """Findings: a note in `apply`, drift in `verify --strict`."""


@runtime_checkable
class CanAdvise(Protocol):
    """A store with something to say to a person who is about to mend what differs.

    `drift_advice` is one or two sentences: what of this kind of store is easily overlooked then.
    """

    drift_advice: str


@runtime_checkable
class CanReport(Protocol):
    """A store that can say what its record holds, without a lock and without writing."""

    def status(self) -> Status:
        """What is recorded, what the blueprint's head is, and who holds the lock."""


@runtime_checkable
class CanProve(Protocol):
    """A store whose writability is proved by writing something that is gone at once."""

    def prove(self) -> None:
        """Write something that is gone at once. Raises when that is refused.

        The engine calls this in apply mode before verify, also when nothing was planned.
        """


@runtime_checkable
class CanReadBack(Protocol):
    """A store whose server may be replaced by another one that lacks the last changes."""

    def lost_changes(self, made: Sequence[ChangeResult]) -> Sequence[ChangeResult]:
        """Those of the changes that this run has made and that are not recorded at present.

        The engine asks after it has lost a store. Raises when the store cannot be asked.
        """


@runtime_checkable
class CanSelfTest(Protocol):
    """A store that can show that what was declared takes, finds and refuses what it should."""

    def selftest(self) -> Iterator[Proof]:
        """Try everything once. A test that is ended in the middle leaves nothing behind either."""

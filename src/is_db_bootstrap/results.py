"""The words of a run and its frozen report."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from is_db_bootstrap.names import StoreName
from is_db_bootstrap.rungs import RungResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

#: The version of the JSON document.
SCHEMA_VERSION = 1


class Mode(StrEnum):
    """What a run is asked to do."""

    APPLY = "apply"
    PLAN = "plan"
    VERIFY = "verify"
    WAIT = "wait"
    STATUS = "status"
    #: A look at everything that a run would need, for a bug report.
    DOCTOR = "doctor"
    #: What differs is mended where nothing is lost by that.
    REPAIR = "repair"
    #: A self-test. The engine does the same as for VERIFY, and the checks come afterwards.
    SELFTEST = "selftest"
    #: Stores that were made by other means are compared and recorded. Nothing else is changed.
    ADOPT = "adopt"


class Outcome(StrEnum):
    """What became of a store, a change or a run. The worst store decides for the run."""

    #: As declared before the run began. Nothing to do.
    UNCHANGED = "unchanged"
    #: Brought to the declared state by this run.
    CHANGED = "changed"
    #: Would be changed by `apply`.
    PLANNED = "planned"
    #: A store that was not touched, because another store failed first. Or a change that the server
    #: cannot take.
    SKIPPED = "skipped"
    #: Differs from the declaration although nothing is pending. A person compares.
    DRIFTED = "drifted"
    #: Read `error`, follow its hint, run again.
    FAILED = "failed"
    #: Ended by a signal. What is recorded as applied stays. Run again.
    INTERRUPTED = "interrupted"


class DifferenceKind(StrEnum):
    """How a store differs from its declaration, in a plan, in `verify` and in `repair`."""

    #: Declared, and not there. `actual` is None.
    MISSING = "missing"
    #: There, and not declared. `expected` is None.
    EXTRA = "extra"
    #: Both are there and are not the same.
    DIFFERENT = "different"
    #: What could not be looked at or compared. It may be as declared.
    UNSEEN = "unseen"

    @classmethod
    def of(cls, expected: str | None, actual: str | None) -> DifferenceKind:
        """The kind that follows from both sides. A difference without sides was not seen."""
        if expected is None:
            return cls.UNSEEN if actual is None else cls.EXTRA
        return cls.MISSING if actual is None else cls.DIFFERENT


class Nature(StrEnum):
    """What is left of a change that did not end, and so whether it may run again unasked."""

    #: All of it and its record, or nothing. Run again when nothing was recorded.
    ATOMIC = "atomic"
    #: A part may be left, and running all of it again is harmless.
    REPEATABLE = "repeatable"
    #: A part may be left, and running it again may do that part twice. A person decides.
    NEITHER = "neither"

    @property
    def may_run_again(self) -> bool:
        """Whether a change of this nature may be tried again without asking a person."""
        return self is not Nature.NEITHER


#: Outcomes from the best to the worst.
_SEVERITY = tuple(Outcome)
#: Fields that the JSON document does not have.
_NOT_IN_JSON = {"exception", "finding", "is_awaited"}


def worst(outcomes: list[Outcome]) -> Outcome:
    """The outcome that stands for all of `outcomes`, which is `unchanged` when there are none.

    `skipped` counts only when every outcome is `skipped`.
    """
    not_skipped = [outcome for outcome in outcomes if outcome is not Outcome.SKIPPED]
    counted = not_skipped or outcomes
    return max(counted, key=_SEVERITY.index, default=Outcome.UNCHANGED)


class Detail(str):
    """A note that says the same in every run, because it is of the kind of server.

    The text output shows it in `verify`, whose word it limits, and with `--verbose`.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server that answered: its version text and, where a store has editions, the edition."""

    version: str
    edition: str | None = None


class DangerKind(StrEnum):
    """What a person should look at before a change is applied."""

    #: Rows, columns, tables, nodes or collections are gone afterwards.
    DROPS = "drops"
    #: A table is written anew, so it takes time, space and a lock that nothing passes.
    REWRITES = "rewrites"
    #: Readers or writers wait while the change runs over all rows.
    LOCKS = "locks"
    #: What the store holds now does not allow the change, such as duplicates under a unique key.
    REFUSED = "refused"
    #: What could not be looked at, such as a table that takes too long to read. It may be harmless.
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Danger:
    """One thing to look at before a change is applied.

    `object` names the table, the label or the collection. `text` is one sentence with what was
    seen. `statement` is the position in the change's `statements`, from 0, or None for the whole
    change.
    """

    kind: DangerKind
    object: str
    text: str
    statement: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One pending step. `name` is the revision id, the Cypher file, the collection or the key.

    Each store says of each change what it is. A change of which nothing is said counts as the
    worst, so it is never tried again unasked.

    `expected` is what is declared and `actual` what is there, as in a `Drift`. Without `expected`,
    the detail or the name stands for what is declared.

    `statements` is what would be sent, in order, as the store's language has it. `is_code` says
    that the change runs Python, so `statements` may lack what the code sends by itself. `dangers`
    is what a person should look at first. Only `plan` and `repair` fill these three.
    """

    name: str
    kind: str
    detail: str = ""
    nature: Nature = Nature.NEITHER
    statements: tuple[str, ...] = ()
    is_code: bool = False
    dangers: tuple[Danger, ...] = ()
    expected: str | None = None
    actual: str | None = None

    @property
    def declared(self) -> str:
        """What is declared, in a few words."""
        return self.expected or self.detail or self.name

    def drift(self, not_repaired: str) -> Drift:
        """What a repair would have ended with this change, and why it has left it."""
        return Drift(
            self.name,
            self.kind,
            self.detail,
            self.declared,
            self.actual,
            fix="\n".join(self.statements) or None,
            statements=self.statements,
            not_repaired=not_repaired,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a store lacks, in order.

    `skipped` are steps that this server cannot take and need not take. `ahead` means that the
    recorded history contains ours and goes on. `parts_ahead` names the objects of which that is
    true in a store whose other objects are planned and verified as declared. `begun` names the
    changes that an earlier run has begun without recording them, as far as the store knows.
    """

    changes: tuple[Change, ...] = ()
    skipped: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    ahead: bool = False
    parts_ahead: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordChange:
    """What a stamp changes in the record of revisions or files, each in their order.

    `added` count as applied from then on. `removed` count as not applied, so that the next apply
    runs them. `unknown` are taken out of the record too, and the blueprint does not have them.
    `renewed` were recorded with another text. `lifted` had begun and not ended; the marks that say
    so are taken away.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """One object that differs from its declaration.

    `expected` is what is declared and `actual` what is there; None is nothing. `difference` follows
    from these two, unless the store says otherwise. `fix` is what a
    person would run to mend it, in the store's language or as a command of this tool. It is None
    where there is no such statement, and then `reason` says why and what to do instead.
    `statements` are those of `fix`, one by one, where `fix` is no command of this tool.
    `can_repair` says that `repair` mends it, since nothing is lost by that. `not_repaired` says why
    `repair` has left it as it is.
    A `finding` is something undeclared, or data that breaks a convention. `is_awaited` says that
    another command brings it about. It is no drift right after `apply`, which left it to that one.
    """

    object: str
    kind: str
    message: str
    expected: str | None = None
    actual: str | None = None
    fix: str | None = None
    reason: str = ""
    finding: bool = False
    is_awaited: bool = False
    difference: DifferenceKind | None = None
    statements: tuple[str, ...] = ()
    can_repair: bool = False
    not_repaired: str = ""

    #: The same words as in a `ChangeResult`, so that one reader reads both.
    JSON_NAMES: ClassVar[Mapping[str, str]] = {"name": "object", "detail": "message"}

    def __post_init__(self) -> None:
        """Tell the difference from both sides, where the store has not told it."""
        if self.difference is None:
            found = DifferenceKind.of(self.expected, self.actual)
            object.__setattr__(self, "difference", found)


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What `repair` would do to a store. `left` is what it cannot mend, each with its reason."""

    changes: tuple[Change, ...] = ()
    left: tuple[Drift, ...] = ()

    @classmethod
    def of(cls, drifts: Sequence[Drift]) -> RepairPlan:
        """The drifts of a store in two: those that can be repaired become changes."""
        changes = [
            Change(
                each.object,
                each.kind,
                each.message,
                Nature.REPEATABLE,
                each.statements,
                expected=each.expected,
                actual=each.actual,
            )
            for each in drifts
            if each.can_repair
        ]
        return cls(tuple(changes), tuple(each for each in drifts if not each.can_repair))

    def without_refused(self) -> RepairPlan:
        """The same, where what the data refuses is left with the reason."""
        changes, left = [], [*self.left]
        for change in self.changes:
            texts = [each.text for each in change.dangers if each.kind is DangerKind.REFUSED]
            if texts:
                left.append(change.drift(" ".join(texts)))
            else:
                changes.append(change)
        return RepairPlan(tuple(changes), tuple(left))


@dataclass(frozen=True, slots=True)
class Proof:
    """One check of a self-test.

    `ok` is None when the check could not be tried. Then `detail` says why. `duration_s` is seconds.
    """

    name: str
    ok: bool | None
    detail: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a lock, and since when.

    `who` is free text, such as `pid 4711 (is-db-bootstrap on web-1)`. `host` and `pid` are those of
    the process that took the lock, as it has named itself. `lease_left_s` is seconds by the store's
    clock, after which the lock lapses unless it is renewed. Each is None where nothing is known,
    and `lease_left_s` where the lock does not lapse.
    """

    who: str
    since: datetime | None = None
    host: str | None = None
    pid: int | None = None
    lease_left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What a store's own record says.

    `recorded` is the last applied step, `head` the blueprint's last step, and `lock` the holder of
    the lock.
    """

    recorded: str
    head: str
    lock: LockHolder | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was seen of a store: what it is about, and what was seen."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the program that a run had, without secrets.

    `versions` are those of the client libraries. `variables` are what the environment says of
    proxies. `settings` are the settings in effect, each with where it came from.
    """

    tool: str
    python: str
    system: str
    versions: tuple[Fact, ...] = ()
    variables: tuple[Fact, ...] = ()
    settings: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Privilege:
    """A privilege that a run needs.

    `is_granted` is None when that could not be seen. `statement` grants it, in the store's
    language, and is empty where there is no such statement. `purpose` is what a role is for that
    needs it: `apply` or `verify`. It is empty where that is not told apart.
    """

    name: str
    is_granted: bool | None
    statement: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was seen of a store beside the ladder, without writing anything.

    `clock_difference_s` is the server's clock minus the one of this machine, in seconds. It is None
    where the server does not tell its time. `between` says what stands between this machine and the
    server. `mismatches` says which versions do not fit. `remembered` says what the store remembers
    of the stores that were converged with it. `pending` counts the changes that an apply would
    make. Each of these is None where it could not be looked at, and empty where nothing is there.
    `unseen` says what could not be looked at, and why.
    """

    facts: tuple[Fact, ...] = ()
    clock_difference_s: float | None = None
    between: tuple[str, ...] | None = None
    mismatches: tuple[str, ...] | None = None
    privileges: tuple[Privilege, ...] | None = None
    remembered: tuple[str, ...] | None = None
    pending: int | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """A change and what became of the change. `duration_s` is seconds.

    `nature` is what the change was planned as. It is `neither` once a part was seen to stay.
    `statements`, `is_code` and `dangers` are those of the `Change`, in a run of mode `plan` or
    `repair`. `difference`, `expected` and `actual` are what the change ends, as in a `Drift`.
    """

    name: str
    kind: str
    outcome: Outcome
    duration_s: float = 0.0
    detail: str = ""
    nature: Nature = Nature.NEITHER
    statements: tuple[str, ...] = ()
    is_code: bool = False
    dangers: tuple[Danger, ...] = ()
    difference: DifferenceKind = DifferenceKind.MISSING
    expected: str | None = None
    actual: str | None = None

    @classmethod
    def of(cls, change: Change, outcome: Outcome, duration_s: float = 0.0) -> ChangeResult:
        """The report of a change."""
        return cls(
            change.name,
            change.kind,
            outcome,
            duration_s,
            change.detail,
            change.nature,
            change.statements,
            change.is_code,
            change.dangers,
            DifferenceKind.of(change.declared, change.actual),
            change.declared,
            change.actual,
        )


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as data: its kind, the object concerned, message and next step."""

    kind: str
    object: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What happened to one store. `target` is its address without secrets."""

    store: StoreName
    target: str
    outcome: Outcome
    server: ServerInfo | None = None
    #: Only in a run of mode `status` or `doctor`.
    status: Status | None = None
    #: Only in a run of mode `doctor`.
    diagnosis: Diagnosis | None = None
    #: The rungs of the ladder that were looked at, from the bottom up. A run of mode `wait` or
    #: `doctor` looks at all of them. Other runs look at them when a store did not answer.
    rungs: tuple[RungResult, ...] = ()
    duration_s: float = 0.0
    changes: tuple[ChangeResult, ...] = ()
    drifts: tuple[Drift, ...] = ()
    notes: tuple[str, ...] = ()
    #: Whether this run has compared the store with all that is declared, to the end.
    is_verified: bool = False
    error: ErrorReport | None = None
    #: The exception behind `error`, which the JSON document does not have.
    exception: Exception | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """The report of a run. `duration_s` is seconds, `started_at` UTC."""

    run_id: str
    blueprint: str
    mode: Mode
    outcome: Outcome
    exit_code: int
    started_at: datetime
    duration_s: float
    stores: tuple[StoreResult, ...] = ()
    schema_version: int = SCHEMA_VERSION
    #: Who named the blueprint, such as `--blueprint`. Empty when a program made the run.
    blueprint_source: str = ""
    #: Only what the command `doctor` reports.
    machine: Machine | None = None

    @property
    def ok(self) -> bool:
        """Whether every store is as declared. After a plan: whether every store was looked at."""
        return self.exit_code == 0

    def store(self, name: str) -> StoreResult:
        """The result of one store. Raises `KeyError` when the run did not concern that store."""
        for each in self.stores:
            if each.store == name:
                return each
        raise KeyError(name)

    def raise_for_failure(self) -> None:
        """Raise the error of the first failed store in store order, if any store failed."""
        for each in self.stores:
            if each.exception is not None:
                raise each.exception

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `docs/reference/result.schema.json`."""
        document: dict[str, Any] = json_value(self)
        return document


def json_value(value: Any) -> Any:
    """A value of a result as JSON can hold it. Floats are rounded to three decimals."""
    if is_dataclass(value):
        names = [each.name for each in fields(value) if each.name not in _NOT_IN_JSON]
        found = {name: json_value(getattr(value, name)) for name in names}
        again: Mapping[str, str] = getattr(value, "JSON_NAMES", {})
        return found | {name: found[of] for name, of in again.items()}
    if isinstance(value, tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float):
        return round(value, 3)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value

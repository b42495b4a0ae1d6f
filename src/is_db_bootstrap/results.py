"""The words of a run and its frozen report."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.names import StoreName

if TYPE_CHECKING:
    from datetime import datetime

SCHEMA_VERSION = 1


class Mode(StrEnum):
    """What a run is asked to do."""

    APPLY = "apply"
    PLAN = "plan"
    VERIFY = "verify"
    WAIT = "wait"
    STATUS = "status"


class Outcome(StrEnum):
    """What became of a store, a change or a run; the worst store wins."""

    #: As declared before the run began. Nothing to do.
    UNCHANGED = "unchanged"
    #: Brought to the declared state by this run.
    CHANGED = "changed"
    #: Would be changed by `apply`.
    PLANNED = "planned"
    #: Not touched, because another store failed first (a store) or the server cannot take it (a
    #: change).
    SKIPPED = "skipped"
    #: Differs from the declaration although nothing is pending. A person compares.
    DRIFTED = "drifted"
    #: Read `error`, follow its hint, run again.
    FAILED = "failed"
    #: Ended by a signal. Run again; what is recorded as applied stays.
    INTERRUPTED = "interrupted"


_SEVERITY = tuple(Outcome)


def worst(outcomes: list[Outcome]) -> Outcome:
    """The outcome that stands for all of them; `unchanged` for none."""
    ran = [o for o in outcomes if o is not Outcome.SKIPPED] or outcomes
    return max(ran, key=_SEVERITY.index, default=Outcome.UNCHANGED)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What answered: its version text and, where a store has editions, the edition."""

    version: str
    edition: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One pending step: `name` is the revision id, the Cypher file, the collection, the key."""

    name: str
    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a store lacks, in order.

    `skipped` are steps that this server cannot take and need not; `ahead` means that the recorded
    history contains ours and goes on.
    """

    changes: tuple[Change, ...] = ()
    skipped: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Drift:
    """One declared object that is missing or different, or (`finding`) something undeclared or careless."""

    object: str
    kind: str
    message: str
    expected: str | None = None
    actual: str | None = None
    finding: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """One check of a self-test; `ok` is None when it could not be tried, and `detail` says why."""

    name: str
    ok: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a lock: free text such as `pid 4711 (is-db-bootstrap on web-1)`, and for how long."""

    who: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What a store's own record says: the last applied step, the blueprint's last step, who holds the lock."""

    recorded: str
    head: str
    lock: LockHolder | None = None


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """A change and what became of it; times are seconds."""

    name: str
    kind: str
    outcome: Outcome
    duration_s: float = 0.0
    detail: str = ""


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
    #: Only in a run of mode `status`.
    status: Status | None = None
    duration_s: float = 0.0
    changes: tuple[ChangeResult, ...] = ()
    drifts: tuple[Drift, ...] = ()
    notes: tuple[str, ...] = ()
    error: ErrorReport | None = None
    #: The exception behind `error`; not part of the JSON document.
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

    @property
    def ok(self) -> bool:
        """Whether every store is as declared (or, for a plan, could be looked at)."""
        return self.exit_code == 0

    def store(self, name: str) -> StoreResult:
        """The result of one store; `KeyError` when the run did not concern it."""
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
        document: dict[str, Any] = _jsonable(self)
        return document


def _jsonable(value: Any) -> Any:
    if is_dataclass(value):
        names = [f.name for f in fields(value) if f.name not in {"exception", "finding"}]
        return {name: _jsonable(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return round(value, 3)
    return value.isoformat() if hasattr(value, "isoformat") else value

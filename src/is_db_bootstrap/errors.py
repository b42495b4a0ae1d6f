"""Every way a bootstrap can fail, and the exit code of each.

BootstrapError
├── ConfigurationError           2   a setting or a blueprint is wrong, or another server answers
├── StoreError                   1   one store failed, and the classes below say how
│   ├── StoreUnavailable         4   retried while waiting, within the deadline
│   │   └── StoreBusy            4   retried while applying too, within its own limit
│   ├── AccessDenied             5   wrong password, missing privilege, TLS
│   ├── StoreConflict            6   the store contradicts the blueprint, and a person decides
│   ├── LockTimeout              7   another run holds the lock
│   ├── StoreReset               8   a store that was converged before is blank
│   ├── ChangeFailed             1   one change was refused
│   │   └── HalfDone             1   a part of it stays, so it is not run again unasked
│   └── VerificationFailed       3   everything was applied and the store still differs
└── Interrupted                130   a signal ended the run

The exit code of an interrupted run is 128 plus the signal's number: 129, 130 or 143.

A message names the object, the cause and the next step. Each store translates the errors of its
client in one place, and keeps the client's error as ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from is_db_bootstrap.sentences import drop_second_stop, encodable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.results import Change, Drift, ErrorReport
    from is_db_bootstrap.rungs import Rung


#: The message of a drift whose change has not been applied yet.
PENDING = "is pending"
#: How every command of this tool begins.
TOOL = "is-db-bootstrap "
#: The command that mends it.
APPLY = f"{TOOL}apply"
#: The command that mends what can be mended without loss.
REPAIR = f"{TOOL}repair"


class BootstrapError(Exception):
    """A named failure that becomes part of a result.

    ``message`` names the object and the cause, ``hint`` the next step. ``detail`` holds what a
    server said about single rows and values. ``str()`` and the text output contain the detail, so a
    person at a terminal sees it. JSON documents, termination logs and log records do not contain
    the detail.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"
    #: The rung of the ladder that the store does not reach. None where nobody has said it.
    rung: Rung | None = None

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        message, hint, detail = (
            drop_second_stop(encodable(text)) for text in (message, hint, detail)
        )
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def at(self, rung: Rung) -> Self:
        """The same error, which says that the store does not reach this rung of the ladder."""
        self.rung = rung
        return self

    def report(self) -> ErrorReport:
        """The error as data, for a result."""
        from is_db_bootstrap.results import ErrorReport

        return ErrorReport(self.kind, getattr(self, "subject", ""), self.message, self.hint)

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.detail, self.hint) if part)


class ConfigurationError(BootstrapError):
    """A setting, an option or a declaration is wrong. No store was changed."""

    exit_code = 2
    kind = "configuration"


class StoreError(BootstrapError):
    """Something went wrong with one store.

    ``store`` is the name of the store. ``subject`` names the object concerned, such as a table, a
    collection or a file. ``subject`` is empty when the error concerns the store as a whole.
    """

    kind = "store"

    def __init__(
        self, store: str, message: str, *, hint: str = "", subject: str = "", detail: str = ""
    ) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.store = store
        self.subject = subject

    def __str__(self) -> str:
        return f"{self.store}: {super().__str__()}"


class StoreUnavailable(StoreError):
    """The store does not answer, or cannot be used yet."""

    exit_code = 4
    kind = "unavailable"


class StoreBusy(StoreUnavailable):
    """The store refused for now, because of a lock, a deadlock or a rate limit.

    The same call may succeed shortly.
    """

    kind = "busy"


class AccessDenied(StoreError):
    """The store refused the credentials, a privilege is missing, or TLS failed. Never retried."""

    exit_code = 5
    kind = "access_denied"


class StoreConflict(StoreError):
    """The store contradicts the blueprint. Nothing is dropped or overwritten. A person decides."""

    exit_code = 6
    kind = "conflict"


class LockTimeout(StoreError):
    """Another run held the lock until the deadline. The message says who, and since when."""

    exit_code = 7
    kind = "lock_timeout"


class StoreReset(StoreError):
    """A store that was converged before is blank now."""

    exit_code = 8
    kind = "reset"


class ChangeFailed(StoreError):
    """The store refused one change, which ``change`` names. Earlier changes stay applied."""

    kind = "change_failed"

    def __init__(
        self,
        store: str,
        message: str,
        *,
        change: Change,
        hint: str = "",
        subject: str = "",
        detail: str = "",
    ) -> None:
        subject = subject or change.name
        super().__init__(store, message, hint=hint, subject=subject, detail=detail)
        self.change = change


class HalfDone(ChangeFailed):
    """A change failed and has left a part of its work, or ended without its record.

    It has turned out to be neither atomic nor repeatable, so nobody runs it again unasked.
    """

    kind = "half_done"


class VerificationFailed(StoreError):
    """The live store differs from the declaration. ``drifts`` names each difference."""

    exit_code = 3
    kind = "verification"

    def __init__(self, store: str, drifts: Sequence[Drift], advice: str = "") -> None:
        first = drifts[0]
        more = f" and {len(drifts) - 1} more" if len(drifts) > 1 else ""
        message = f"{first.kind} {first.object}: {first.message}{more}."
        hint = " ".join(sentence for sentence in (_way_out(drifts), advice) if sentence)
        if all(drift.message == PENDING for drift in drifts):
            hint = "Run apply."
        super().__init__(store, message, hint=hint, subject=first.object)
        self.drifts = tuple(drifts)


def _way_out(drifts: Sequence[Drift]) -> str:
    """What a person does about these drifts. Each says itself what mends it, or why nothing does.

    A drift of which a store says neither is compared by hand.
    """
    if all(drift.can_repair for drift in drifts):
        return f"Run `{REPAIR}`, which shows its statements and asks, or declare what is there."
    by_repair = sum(drift.can_repair for drift in drifts)
    if by_repair:
        return (
            f"`{REPAIR}` mends {by_repair} of {len(drifts)} differences, and asks first. Mend the"
            " others by hand, or declare what is there. Then verify again."
        )
    has_fix = [drift.fix is not None for drift in drifts]
    if all(has_fix):
        return "Run what mends each difference, or declare what is there. Then verify again."
    if any(has_fix):
        return (
            "Run what mends a difference where that is told, mend the others by hand, or declare "
            "what is there. Then verify again."
        )
    return "Compare with the blueprint. Mend it by hand, or declare what is there."


class Interrupted(BootstrapError):
    """A signal ended the run. Changes that had been applied stay applied."""

    exit_code = 130
    kind = "interrupted"

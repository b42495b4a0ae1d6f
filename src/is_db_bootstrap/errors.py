"""Every way a bootstrap can fail, and the exit code of each.

BootstrapError
├── ConfigurationError              2   a setting, a blueprint, or an address where something else answers
└── StoreError                      1
    ├── StoreUnavailable            4   retried while waiting, within the deadline
    │   └── StoreBusy               4   retried while applying too, within its own limit
    ├── AccessDenied                5   wrong password, missing privilege, TLS
    ├── StoreConflict               6   what is there contradicts the blueprint; only a person can decide
    ├── LockTimeout                 7   another run holds the lock
    ├── StoreReset                  8   a store that was converged before is blank
    ├── ChangeFailed                1   one change was refused
    └── VerificationFailed          3   everything was applied and the store still differs

Messages name the object, the cause and the next step. Client errors are translated where a
store calls its client, once per store, and kept as ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.results import Change, Drift


#: What a drift says of a change that nobody has applied yet.
PENDING = "is pending"


class BootstrapError(Exception):
    """A named failure that becomes part of a result.

    ``detail`` is what a server said of single rows and values. It is for a person at a terminal:
    ``str()`` and the text output have it, JSON documents, termination logs and log records do not.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.detail, self.hint) if part)


class ConfigurationError(BootstrapError):
    """A setting, an option or a declaration is wrong; no store was changed."""

    exit_code = 2
    kind = "configuration"


class StoreError(BootstrapError):
    """Something went wrong with one store.

    ``store`` is its name; ``subject`` the object concerned (a table, a collection, a file), if one is.
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
    """The store does not answer, or is not usable yet."""

    exit_code = 4
    kind = "unavailable"


class StoreBusy(StoreUnavailable):
    """The store refused for now: a lock, a deadlock, a rate limit. The same call may succeed shortly."""

    kind = "busy"


class AccessDenied(StoreError):
    """The store refused the credentials, a privilege is missing, or TLS failed. Never retried."""

    exit_code = 5
    kind = "access_denied"


class StoreConflict(StoreError):
    """What is there contradicts the blueprint. Nothing is dropped or overwritten; a person decides."""

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
    """One change was refused by the store; ``change`` names it. Earlier changes stay applied."""

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


class VerificationFailed(StoreError):
    """The live store differs from what is declared; ``drifts`` says where."""

    exit_code = 3
    kind = "verification"

    def __init__(self, store: str, drifts: Sequence[Drift]) -> None:
        first = drifts[0]
        more = f" and {len(drifts) - 1} more" if len(drifts) > 1 else ""
        pending = all(drift.message == PENDING for drift in drifts)
        super().__init__(
            store,
            f"{first.kind} {first.object}: {first.message}{more}.",
            hint="Run apply."
            if pending
            else "Compare with the blueprint; what a migration made, only a person repairs.",
            subject=first.object,
        )
        self.drifts = tuple(drifts)


class Interrupted(BootstrapError):
    """The run was ended by a signal; what had been applied stays."""

    exit_code = 130
    kind = "interrupted"

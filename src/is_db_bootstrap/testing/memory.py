"""A store in memory, for unit tests of code that drives bootstrappers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from is_db_bootstrap.engine.store import Lock
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import Change, Drift, LockHolder, Nature, Plan, ServerInfo, Status


class _MemoryLock:
    def __init__(self, store: InMemoryBootstrapper, owner: str) -> None:
        self._store = store
        self._owner = owner

    def confirm(self) -> bool:
        return self._store.lock_owner == self._owner

    def release(self) -> bool:
        was_held = self.confirm()
        self._store.lock_owner = None
        self._store.calls.append("release")
        return was_held


class InMemoryBootstrapper:
    """A store in memory.

    Its declared state is `wanted`, a sequence of names. Its live state is `applied`, a list of
    names. `on_apply` is called with each change before the change is recorded, and may raise or
    block. `unavailable` is how many pings fail before one succeeds. `calls` records what was asked,
    in order. Every call may come from another thread.
    """

    def __init__(
        self,
        name: StoreName = "redis",
        wanted: Sequence[str] = (),
        *,
        applied: Sequence[str] = (),
        unavailable: int = 0,
        on_apply: Callable[[Change], None] = lambda _: None,
    ) -> None:
        self.name: StoreName = name
        self.target = f"memory://{name}"
        self.wanted = tuple(wanted)
        self.applied = list(applied)
        self.unavailable = unavailable
        self.on_apply = on_apply
        self.lock_owner: str | None = None
        self.calls: list[str] = []
        self.cancelled = threading.Event()

    def ping(self, timeout_s: float) -> ServerInfo:  # noqa: ARG002 - nothing to wait for
        """Fail `unavailable` times, then answer."""
        self.calls.append("ping")
        if self.unavailable > 0:
            self.unavailable -= 1
            raise StoreUnavailable(self.name, "The store is not up yet.", hint="Start it.")
        return ServerInfo("1.0", "memory")

    def plan(self) -> Plan:
        """A change for each wanted name that was not applied."""
        self.calls.append("plan")
        return Plan(tuple(_change(name) for name in self._missing_names()))

    def apply(self, change: Change) -> str | None:
        """Record the change, after `on_apply`."""
        self.calls.append(f"apply {change.name}")
        self.on_apply(change)
        self.applied.append(change.name)
        return None

    def verify(self) -> Sequence[Drift]:
        """A drift for each wanted name that was not applied."""
        self.calls.append("verify")
        return [Drift(name, "item", "is missing") for name in self._missing_names()]

    def _missing_names(self) -> list[str]:
        return [name for name in self.wanted if name not in self.applied]

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """The lock, or who holds the lock."""
        self.calls.append("lock")
        if self.lock_owner is not None:
            return LockHolder(self.lock_owner)
        self.lock_owner = owner
        return _MemoryLock(self, owner)

    def status(self) -> Status:
        """The last applied name, the last wanted name, and who holds the lock."""
        last_applied = self.applied[-1] if self.applied else ""
        last_wanted = self.wanted[-1] if self.wanted else ""
        holder = LockHolder(self.lock_owner) if self.lock_owner else None
        return Status(last_applied, last_wanted, holder)

    def cancel(self) -> None:
        """Set `cancelled`, which a blocking `on_apply` may wait for."""
        self.calls.append("cancel")
        self.cancelled.set()

    def close(self) -> None:
        """Record the call, and do nothing else."""
        self.calls.append("close")


def _change(name: str) -> Change:
    """Adding a name to a list of names again is harmless."""
    return Change(name, "item", nature=Nature.REPEATABLE)

"""Removing a lock whose holder is gone: what the command `unlock` does, as a function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from shlex import quote
from typing import TYPE_CHECKING, Self

from is_db_bootstrap.app import bootstrapper, over
from is_db_bootstrap.engine.store import CanUnlock, Life
from is_db_bootstrap.errors import ConfigurationError, LockTimeout, StoreBusy, StoreConflict
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.store import PresentLock
    from is_db_bootstrap.events import Observer
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.results import LockHolder
    from is_db_bootstrap.settings import Settings


@dataclass(frozen=True, slots=True)
class Unlocked:
    """What became of a lock. `now` holds the lock that was seen afterwards, by somebody else."""

    removed: LockHolder
    now: LockHolder | None = None


class LeftLock:
    """The lock of one store of a blueprint, which a person wants to remove.

    Raises `ConfigurationError` for a store that has no lock of its own. Use it as a context
    manager, which closes the store.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        settings: Settings,
        store: StoreName,
        *,
        observers: Sequence[Observer] = (),
        run_id: str = "",
    ) -> None:
        _refuse_borrower(blueprint, store)
        url = settings.need(store)
        wait = over(
            [bootstrapper(store, url, blueprint, settings)],
            blueprint,
            settings,
            RunOptions(run_id=run_id),
            observers=observers,
        )
        wait.run(Mode.WAIT).raise_for_failure()
        # One try on a server that was usable a moment ago may take as long as the wait.
        limit_s = max(settings.timing.connect_timeout_s, settings.timing.timeout_s)
        patient = replace(settings, timing=replace(settings.timing, connect_timeout_s=limit_s))
        found = bootstrapper(store, url, blueprint, patient)
        if not isinstance(found, CanUnlock):
            raise TypeError(found)
        self._store = found
        self._limit_s = limit_s
        self._ping = found.ping
        self._close = found.close
        self.name = store
        self.target = found.target

    def __enter__(self) -> Self:
        try:
            self._ping(self._limit_s)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def look(self) -> PresentLock | None:
        """The lock that is there now. None: there is none. This only reads."""
        return self._store.present_lock()

    def refuse(self, seen: PresentLock, named: str = "") -> None:
        """Raise unless the lock may be removed. Nothing was removed then.

        `LockTimeout` for a holder that is at work. `StoreConflict` when nobody can tell, and the
        person has not `named` the holder, in the words of `status`.
        """
        who = seen.holder.who
        if named and named != who:
            raise StoreConflict(
                self.name,
                f"The lock of {self.target} is held by another one: {who}.",
                hint="Look again: is-db-bootstrap status.",
            )
        if seen.life is Life.ALIVE:
            raise LockTimeout(
                self.name,
                f"The lock of {self.target} is held by {who}, which is at work. {seen.why}",
                hint="Wait for its end, or end that process.",
            )
        if seen.life is Life.UNKNOWN and not named:
            raise StoreConflict(
                self.name,
                f"The lock of {self.target} is held by {who}. {seen.why}",
                hint="Make sure that its process is gone. Then name it: "
                f"is-db-bootstrap unlock {self.name} --holder {quote(who)}",
            )

    def remove(self, seen: PresentLock) -> Unlocked:
        """Remove the lock that was seen, and read back that it is gone.

        Raises `StoreBusy` when it has changed since it was seen, or is still there.
        """
        who = seen.holder.who
        if not self._store.remove_lock(seen):
            raise StoreBusy(
                self.name,
                f"The lock of {self.target} has changed since it was looked at, so its holder may "
                f"be at work: {who}. Nothing was removed.",
                hint="Look again: is-db-bootstrap status.",
            )
        now = self._store.present_lock()
        if now is not None and now.token == seen.token:
            raise StoreBusy(
                self.name,
                f"The lock of {self.target} was to be removed, and is still there: {who}.",
                hint="Run again.",
            )
        return Unlocked(seen.holder, now.holder if now else None)


def _refuse_borrower(blueprint: Blueprint, store: StoreName) -> None:
    """Raise `ConfigurationError` for a store that has no lock, or that the blueprint lacks."""
    if store not in blueprint.stores:
        raise ConfigurationError(
            f"{blueprint.name} has no {store} part.",
            hint=f"It has: {', '.join(blueprint.stores)}.",
        )
    if KINDS[store].can_lock:
        return
    lenders = [each for each in STORE_ORDER if each in blueprint.stores and KINDS[each].can_lock]
    hint = "No store of this blueprint can lock."
    if lenders:
        hint = f"Remove that one: is-db-bootstrap unlock {lenders[0]}"
    raise ConfigurationError(
        f"{store} has no lock of its own. Its changes are guarded by the lock of "
        f"{' or '.join(lenders) or 'nobody'}.",
        hint=hint,
    )

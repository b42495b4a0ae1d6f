"""The `vector` commands as functions: the versions of a blueprint's collections.

Each function takes a loaded `Blueprint` and its `Settings`. They raise the errors of
`is_db_bootstrap.errors`. A function that writes holds the first lock that a store of the blueprint
can lend, which is PostgreSQL's where the blueprint has it, because Milvus has none.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from is_db_bootstrap import client_imports
from is_db_bootstrap.app import bootstrapper, checked, lending_stores
from is_db_bootstrap.engine.locks import LockLost
from is_db_bootstrap.engine.retry import RetryPolicy, while_busy
from is_db_bootstrap.engine.store import CanLock, Lock
from is_db_bootstrap.errors import (
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    LockTimeout,
    StoreConflict,
)
from is_db_bootstrap.results import LockHolder
from is_db_bootstrap.vector_results import CopyProgress, Moved, Upgraded, Version, Versions

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, Collection
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import Settings
    from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
    from is_db_bootstrap.stores.milvus.versions import VersionKeeper

_STORE: StoreName = "milvus"
#: Seconds between two confirmations of the lock.
_CONFIRM_S = 5.0


def status(blueprint: Blueprint, settings: Settings, name: str = "") -> list[Versions]:
    """The versions of each declared collection, or of the one that `name` says."""
    with _Place(blueprint, settings) as place:
        return [place.keeper.versions(each) for each in place.collections(name)]


def upgrade(
    blueprint: Blueprint,
    settings: Settings,
    name: str = "",
    *,
    source: str = "",
    where: str = "",
    batch: int | None = None,
    drop_fields: frozenset[str] = frozenset(),
    keep_alias: bool = False,
    move_anyway: bool = False,
    on_progress: Callable[[CopyProgress], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    on_result: Callable[[Upgraded], None] = lambda _: None,
) -> list[Upgraded]:
    """Fill each declared version from the one that its alias leads to, and move the alias.

    - `source` is the version to copy from, for one collection. Where the alias leads to the
      declared version already, only rows whose key is missing there are written.
    - `drop_fields` are fields of the old version that may be left behind.
    - `where` is a filter of Milvus: rows that fit are written again, whatever is there.
    - `keep_alias` ends with the comparison. `move_anyway` moves the alias although rows failed or
      differ.
    - `on_progress` is told after each page, `on_note` of what the caller should know, and
      `on_result` of each collection when it is done.

    A collection whose alias leads to the declared version already is left out, unless `source` is
    given. A collection that cannot be upgraded does not keep the others from it. The first error is
    raised at the end, and `on_note` is told of the others.
    """
    # pymilvus is imported as everywhere, and reads no `.env` file.
    client_imports.import_module("is_db_bootstrap.stores.milvus.row_copy")
    from is_db_bootstrap.stores.milvus.row_copy import BATCH, RowCopy

    done: list[Upgraded] = []
    failures: list[BootstrapError] = []
    with _Place(blueprint, settings) as place, place.locked(on_note) as lock:

        def upgrade_one(declared: Collection) -> Upgraded | None:
            found = _source_of(place.keeper, declared, source)
            if found is None:
                _note_rows_left(place.keeper, declared, on_note)
                return None
            copy = RowCopy(
                place.keeper,
                declared,
                found.name,
                patient=place.patient,
                on_progress=lock.confirming(on_progress),
                where=where,
                batch=batch or BATCH,
                drop_fields=drop_fields,
                only_missing=found.is_behind,
            )
            result = copy.copy()
            if found.is_behind:
                return replace(result, was_there=True)
            is_wanted = not keep_alias and (move_anyway or not result.notes)
            if is_wanted:
                lock.confirm()
                place.keeper.move_alias(declared.alias, found.name, declared.name)
                result = replace(result, is_moved=True)
            return result

        wanted = [place.one_collection(name)] if source else place.collections(name)
        for declared in wanted:
            try:
                result = upgrade_one(declared)
            except (ChangeFailed, StoreConflict) as exc:
                failures.append(exc)
                continue
            except BootstrapError:
                _tell_failures(failures, on_note)
                raise
            if result is not None:
                done.append(result)
                on_result(result)
    if failures:
        _tell_failures(failures[1:], on_note)
        raise failures[0]
    return done


def _tell_failures(failures: Sequence[BootstrapError], on_note: Callable[[str], None]) -> None:
    """Tell of failures that are not the one that is raised."""
    for each in failures:
        on_note(f"{each.message} {each.hint or ''}".strip())


def rollback(
    blueprint: Blueprint,
    settings: Settings,
    name: str = "",
    *,
    on_note: Callable[[str], None] = lambda _: None,
) -> list[Moved]:
    """Move the alias of one collection back to the version before.

    Without `name`, the blueprint must have one collection with an alias.
    """
    with _Place(blueprint, settings) as place, place.locked(on_note):
        declared = place.one_collection(name)
        return [place.keeper.roll_back(declared)]


def prunable(blueprint: Blueprint, settings: Settings, name: str = "") -> list[Version]:
    """The versions that `prune` would drop: those before the one that the alias leads to."""
    with _Place(blueprint, settings) as place:
        wanted = [each for each in place.collections(name) if each.alias]
        return [version for each in wanted for version in place.keeper.prunable(each)]


def prune(
    blueprint: Blueprint,
    settings: Settings,
    names: Sequence[str],
    *,
    on_note: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Drop these old versions with all their rows. Returns the names of those that it dropped.

    Raises `StoreConflict` for one to which an alias leads by now.
    """
    dropped: list[str] = []
    with _Place(blueprint, settings) as place, place.locked(on_note):
        for declared in place.collections(""):
            if not declared.alias:
                continue
            own = {version.name for version in place.keeper.versions(declared).versions}
            for name in names:
                if name in own:
                    place.keeper.drop(declared, name)
                    dropped.append(name)
    return dropped


class _Source(NamedTuple):
    """The version to copy from. `is_behind` says that the alias leads beyond it already."""

    name: str
    is_behind: bool = False


def _note_rows_left(
    keeper: VersionKeeper, declared: Collection, on_note: Callable[[str], None]
) -> None:
    """Tell of an earlier version that has more rows than the declared one, behind its alias."""
    if not declared.alias:
        return
    found = keeper.versions(declared)
    names = [version.name for version in found.versions]
    if declared.name not in names:
        return
    place = names.index(declared.name)
    current = found.versions[place]
    for version in found.versions[:place]:
        if (version.rows or 0) > (current.rows or 0):
            on_note(
                f"{version.name} has {version.rows} rows, and {declared.name}, to which the alias "
                f"leads, has {current.rows or 0}. To copy what is missing: `is-db-bootstrap "
                f"vector upgrade {declared.alias} --from {version.name}`."
            )


def _source_of(keeper: VersionKeeper, declared: Collection, chosen: str) -> _Source | None:
    """The version to copy from; None when the alias leads to the declared version already.

    `chosen` is a version that the caller names, or empty.
    """
    if not declared.alias:
        return None
    found = keeper.versions(declared)
    names = [version.name for version in found.versions]
    if chosen:
        _refuse_source(found, chosen)
        is_behind = found.target == declared.name
        return _Source(chosen, is_behind=is_behind)
    if found.target == declared.name:
        return None
    if declared.name not in names:
        raise StoreConflict(
            _STORE,
            f"There is no collection {declared.name} yet.",
            subject=declared.name,
            hint="Type `is-db-bootstrap apply` first, which makes it beside the old version.",
        )
    before = names[: names.index(declared.name)]
    if found.target not in before:
        where = f"leads to {found.target}" if found.target else "is not there"
        raise StoreConflict(
            _STORE,
            f"Alias {declared.alias} {where}, which is no earlier version of {declared.name}.",
            subject=declared.alias,
            hint="Nothing was copied. A missing alias is made by `is-db-bootstrap apply`. See "
            "`is-db-bootstrap vector status`.",
        )
    return _Source(found.target)


def _refuse_source(found: Versions, chosen: str) -> None:
    """Raise `StoreConflict` for a chosen source that no rows can be copied from."""
    names = [version.name for version in found.versions]
    is_known = found.declared in names and chosen in names[: names.index(found.declared)]
    if not is_known:
        raise StoreConflict(
            _STORE,
            f"{chosen} is no earlier version of {found.declared} that is there.",
            subject=chosen,
            hint="Nothing was copied. See `is-db-bootstrap vector status`.",
        )
    if found.target in {chosen, found.declared}:
        return
    where = f"leads to {found.target}" if found.target else "is not there"
    raise StoreConflict(
        _STORE,
        f"Alias {found.alias} {where}, and neither to {chosen} nor to {found.declared}.",
        subject=found.alias,
        hint="Nothing was copied. A missing alias is made by `is-db-bootstrap apply`. See "
        "`is-db-bootstrap vector status`.",
    )


class _Place:
    """A blueprint and its vector store, open while the context lasts."""

    def __init__(self, blueprint: Blueprint, settings: Settings) -> None:
        self._blueprint = checked(blueprint, settings)
        self._settings = settings
        if not self._blueprint.collections:
            raise ConfigurationError(f"{blueprint.name} declares no collection.")
        url = settings.need(_STORE)
        made = bootstrapper(_STORE, url, self._blueprint, settings)
        self._store = cast("MilvusBootstrapper", made)
        self._retry = RetryPolicy.of(settings.timing)

    def __enter__(self) -> Self:
        self._store.ping(self._settings.timing.connect_timeout_s)
        self.keeper = self._store.version_keeper()
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def patient(self, call: Callable[[], None]) -> None:
        """Call until the store is not busy, such as by a limited rate."""
        while_busy(self._retry, call)

    def collections(self, name: str) -> list[Collection]:
        """All declared collections, or the one that `name` says: its own name or its alias."""
        declared = list(self._blueprint.collections)
        wanted = [each for each in declared if name in {"", each.name, each.alias}]
        if wanted:
            return wanted
        raise ConfigurationError(
            f"{self._blueprint.name} declares no collection {name}.",
            hint=f"It declares {', '.join(each.name for each in declared)}.",
        )

    def one_collection(self, name: str) -> Collection:
        """The one collection with an alias that is meant."""
        wanted = [each for each in self.collections(name) if each.alias]
        if len(wanted) == 1:
            return wanted[0]
        raise ConfigurationError(
            f"{self._blueprint.name} has {len(wanted)} collections with an alias.",
            hint="Name one of them: is-db-bootstrap vector rollback COLLECTION.",
        )

    @contextmanager
    def locked(self, on_note: Callable[[str], None]) -> Iterator[_Guard]:
        """Hold the first lock that a store of the blueprint can lend, and say if none can."""
        lenders = lending_stores(self._blueprint, self._settings, (_STORE,))
        guard = _Guard(None, "")
        try:
            for store in lenders:
                # The database of a lender may not be there yet, and then it lends no lock.
                with suppress(StoreConflict):
                    store.ping(self._settings.timing.connect_timeout_s)
                    guard = _Guard(_taken(cast("CanLock", store), store.name), store.name)
                    break
            if not guard.is_held:
                on_note("No store can lend a lock: a second run at the same time is not excluded.")
            yield guard
        finally:
            guard.release()
            for store in lenders:
                store.close()


def _taken(store: CanLock, name: str) -> Lock:
    """The lock, tried once. Raises `LockTimeout` when another run holds it."""
    owner = f"is-db-bootstrap vector on {socket.gethostname()}, process {os.getpid()}"
    taken = store.try_lock(owner)
    if isinstance(taken, LockHolder):
        raise LockTimeout(
            name,
            f"Another run holds the lock: {taken.who}.",
            hint="Wait for its end and type the command again.",
        )
    return taken


class _Guard:
    """A lock that is confirmed now and then, or none."""

    def __init__(self, lock: Lock | None, store: str) -> None:
        self._lock = lock
        self._store = store
        self._confirmed_at = time.monotonic()

    @property
    def is_held(self) -> bool:
        """Whether there is a lock at all."""
        return self._lock is not None

    def confirm(self) -> None:
        """Raise `LockLost` when the lock is not ours any more."""
        self._confirmed_at = time.monotonic()
        if self._lock is not None and not self._lock.confirm():
            raise LockLost(
                self._store,
                "The lock was lost, so nothing more was written.",
                hint="Type the command again. It goes on where it ended.",
            )

    def confirming(
        self, on_progress: Callable[[CopyProgress], None]
    ) -> Callable[[CopyProgress], None]:
        """`on_progress`, before which the lock is confirmed every few seconds."""

        def tell(progress: CopyProgress) -> None:
            if time.monotonic() - self._confirmed_at > _CONFIRM_S:
                self.confirm()
            on_progress(progress)

        return tell

    def release(self) -> None:
        """Give the lock up, if there is one."""
        if self._lock is not None:
            self._lock.release()

"""The records that one store keeps of converged stores, as that store hands them over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from is_db_bootstrap.engine.memory import Memory
from is_db_bootstrap.engine.memory_text import BrokenMemory, NewerMemory, from_text
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.wording import counted, visible


@dataclass(frozen=True, slots=True)
class Kept:
    """One record as it lies in a store. `text` is None where there is none in its place."""

    text: str | None
    #: What a person calls the record, such as `node __IsDbBootstrapMemory 4:…:7`.
    where: str
    #: The statement or call that removes the record.
    removal: str
    #: The key under which the record lies. Empty where only its text tells.
    key: str = ""
    #: The object that an error about the record names. Empty: `where`.
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Recalled:
    """The records of one blueprint, and what a person should know of others."""

    memories: tuple[Memory, ...] = ()
    remarks: tuple[str, ...] = ()
    #: The keys of records that a newer version wrote.
    newer_keys: frozenset[str] = frozenset()


def full(store: str, count: int, most: int, removal: str) -> str:
    """Why a store takes no further record. Empty while it takes them.

    Each run reads all records of its store, so their number is bounded.
    """
    if count < most:
        return ""
    return (
        f"{store} remembers {counted(count, 'deployment')} and takes no more. This one is "
        f"remembered by its other stores. To remove the record of one that is gone: {removal}"
    )


def read_kept(store: StoreName, blueprint: str, kept: Iterable[Kept]) -> Recalled:
    """The records of `blueprint`. Raises `StoreConflict` for a record that cannot be read."""
    memories: list[Memory] = []
    remarks: dict[str, None] = {}
    newer_keys: set[str] = set()
    for each in kept:
        try:
            found = from_text(each.text or "")
        except NewerMemory as exc:
            remarks[_told_newer(each, exc)] = None
            newer_keys |= {each.key, exc.key} - {""}
        except BrokenMemory as exc:
            raise _broken(store, each, exc) from None
        else:
            if found.blueprint == blueprint:
                memories.append(found)
    return Recalled(tuple(memories), tuple(remarks), frozenset(newer_keys))


def _told_newer(kept: Kept, newer: NewerMemory) -> str:
    version = visible(newer.version) or "?"
    return (
        f"The {kept.where} was written by version {version} of is-db-bootstrap, which is newer. "
        "It is left alone and not believed."
    )


def _broken(store: StoreName, kept: Kept, broken: BrokenMemory) -> StoreConflict:
    return StoreConflict(
        store,
        f"The {kept.where}, which says what was converged together with this store, cannot be "
        f"read: {broken}.",
        subject=kept.subject or kept.where,
        hint="See first that no other store is blank, because this record may be all that tells of "
        f"its loss. Then remove it and run again: {kept.removal}",
    )

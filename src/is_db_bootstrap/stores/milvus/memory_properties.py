"""The records of converged stores in a Milvus: properties of the collections that they are about.

Each declared collection, and the one behind its alias, carries every record of its blueprint. So
the loss of one collection is noticed by the others. Seen on Milvus Lite 3.2 and Milvus 2.3.5: both
take properties that they do not know, add them to those that are there, also while the collection
is loaded, and keep 200,000 characters. 2.3.5 cannot drop a property, so an empty one counts as
none. `memory_collection` is for a server that refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.engine.memory import Memory, Recall
from is_db_bootstrap.engine.memory_text import to_text
from is_db_bootstrap.errors import AccessDenied, StoreBusy
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.milvus import memory_collection
from is_db_bootstrap.stores.milvus.compare import Live, goes_beyond, lags_behind
from is_db_bootstrap.stores.milvus.errors import Translation
from is_db_bootstrap.stores.milvus.kind import KIND
from is_db_bootstrap.stores.recalled import Kept, Recalled, full, read_kept

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, Collection
    from is_db_bootstrap.stores.milvus.server import Server

#: What a record's key follows in the name of its property.
PREFIX = "is_db_bootstrap.memory."
#: Records that a collection takes. Milvus keeps all properties of a collection in one value of
#: etcd, which takes 1.5 MB.
MOST_RECORDS = 100
_NO_PRIVILEGE = (
    "Milvus does not remember what was converged, because the user may not change properties of "
    "{name}: {told} Let an administrator grant CreateCollection (Global) to the "
    "user's role."
)

_REMOVAL = f"MilvusClient.alter_collection_properties('…', {{'{PREFIX}…': ''}})."


@dataclass(frozen=True, slots=True)
class Seen:
    """A declared collection as it was looked at.

    `behind` is the collection behind its alias where that is another version, else None.
    """

    declared: Collection
    live: Live
    behind: Mapping[str, Any] | None = None

    @property
    def physical(self) -> Sequence[str]:
        """The collections that are there: the declared one, and the one behind the alias."""
        own = [self.declared.name] if self.live.described is not None else []
        return [*own, str(self.live.target)] if self.behind is not None else own

    @property
    def alias_leads(self) -> bool:
        """Whether the alias leads to a collection that is there."""
        is_own = self.live.target == self.declared.name and self.live.described is not None
        return is_own or self.behind is not None

    @property
    def is_to_be_made(self) -> bool:
        """Whether the declared collection is not there, and the plan makes it."""
        return self.live.described is None and not goes_beyond(self.declared, self.live.target)

    @property
    def data_place(self) -> str:
        """The collection that has the data, or will have it when the plan is done."""
        declared, live = self.declared, self.live
        if self.behind is not None or goes_beyond(declared, live.target):
            return str(live.target)
        is_alias_absent = declared.alias and not self.alias_leads
        return live.home.name if is_alias_absent and live.home else declared.name

    @property
    def properties(self) -> Iterator[tuple[str, str, str]]:
        """Collection, key and value of each record."""
        described = [(self.declared.name, self.live.described), (self.live.target, self.behind)]
        for name, found in described:
            for key, value in ((found or {}).get("properties") or {}).items():
                if key.startswith(PREFIX) and value:
                    yield str(name), key, str(value)


class MemoryProperties:
    """The records of `blueprint` on `server`, and what a plan has seen of its collections."""

    def __init__(
        self, server: Server, blueprint: Blueprint, errors: Translation, place: str
    ) -> None:
        self._server = server
        self._blueprint = blueprint
        self._errors = errors
        self._place = place
        #: What was looked at, by declared name. Empty when something was changed since.
        self._lives: dict[str, Live] = {}

    def forget(self) -> None:
        """Take what a look has seen for known no more."""
        self._lives.clear()

    def note(self, declared: Collection, live: Live) -> None:
        """Note what a plan has seen of a declared collection."""
        self._lives[declared.name] = live

    def recall(self) -> Recall:
        """What this Milvus holds and remembers. Raises `StoreConflict` for a broken record."""
        with self._errors("the memory"):
            seen = self._look()
            kept = self._kept(seen)
            count = len({each.key for each in kept})
            recalled = self._read(kept)
            known = {name for each in recalled.memories for name in _own_holds(each)}
            parts = dict(part for each in seen for part in self._parts(each, known))
        is_anything_there = any(each.physical or _other_version(each) for each in seen)
        return Recall(
            place=self._place,
            is_blank=not is_anything_there and not recalled.memories and not recalled.remarks,
            holds=tuple(name for name, is_there in parts.items() if is_there),
            missing=tuple(name for name, is_there in parts.items() if not is_there),
            memories=recalled.memories,
            incomplete=_incomplete_keys(seen, recalled.memories),
            full=full("Milvus", count, MOST_RECORDS, _REMOVAL),
            newer_keys=recalled.newer_keys,
            remarks=recalled.remarks,
        )

    def _look(self) -> list[Seen]:
        """Each declared collection, with the one behind its alias. What a plan saw serves."""
        return [self._seen(declared) for declared in self._blueprint.collections]

    def _seen(self, declared: Collection) -> Seen:
        live = self._lives.get(declared.name)
        if live is None:
            live = self._lives[declared.name] = self._server.live(declared)
        is_other = goes_beyond(declared, live.target) or lags_behind(declared, live.target)
        behind = self._server.described(str(live.target)) if is_other else None
        return Seen(declared, live, behind)

    def _kept(self, seen: Sequence[Seen]) -> list[Kept]:
        found = [_kept(*each) for one in seen for each in one.properties]
        return found or memory_collection.kept(self._server, self._blueprint.name)

    def _read(self, found: Sequence[Kept]) -> Recalled:
        """Of several records under one key, the latest. A key of a newer version is not ours."""
        recalled = read_kept(KIND.name, self._blueprint.name, found)
        newest: dict[str, Memory] = {}
        for each in sorted(recalled.memories, key=lambda memory: memory.recorded_at):
            newest[each.key] = each
        return replace(recalled, memories=tuple(newest.values()))

    def _parts(self, seen: Seen, known: set[str]) -> Iterator[tuple[str, bool]]:
        """What has the data of a declared collection, and whether it is there.

        That is a collection, and the alias that leads there. An alias that is gone is no loss while
        its collection has rows, or is one of which a record (`known`) says that it has the data.
        """
        place, alias = seen.data_place, seen.declared.alias
        is_there = place in seen.physical or self._is_other_there(seen)
        yield place, is_there
        if not alias:
            return
        if seen.alias_leads:
            yield f"alias {alias}", True
            return
        yield f"alias {alias}", is_there and (place in known or self._has_rows(place))

    def _has_rows(self, name: str) -> bool:
        """Whether a collection has rows. A missing right to see that is named for it alone."""
        with self._errors(name):
            return self._server.stored_rows(name) > 0

    def _is_other_there(self, seen: Seen) -> bool:
        """Whether an earlier version is there, to which a missing alias is to lead."""
        home = seen.live.home
        is_other = home is not None and home.name == seen.data_place != seen.declared.name
        return is_other and self._server.described(seen.data_place) is not None

    def remember(self, memory: Memory) -> str | None:
        """Write a record to each collection, and read it back.

        Returns a remark when the user may not change properties.
        """
        key, text = PREFIX + memory.key, to_text(memory)
        change = Change("memory", "memory", nature=Nature.REPEATABLE)
        with self._errors("the memory"):
            names = dict.fromkeys(name for each in self._look() for name in each.physical)
        self.forget()
        for name in names:
            try:
                with self._errors(name, change):
                    if not self._set(name, key, text):
                        memory_collection.write(self._server, memory.key, memory.blueprint, text)
                        return None
            except AccessDenied as exc:
                return _NO_PRIVILEGE.format(name=name, told=exc.message)
        return None

    def _set(self, name: str, key: str, text: str) -> bool:
        """Set a property. Returns False when this server takes no property of ours."""
        client, options = self._server.client, self._server.change_options
        try:
            client.alter_collection_properties(name, {key: text}, **options)
        except (MilvusException, grpc.RpcError) as exc:
            if self._server.is_refused(exc):
                return False
            raise
        kept = (self._server.described(name) or {}).get("properties") or {}
        if kept.get(key) == text:
            return True
        if key not in kept:
            return False
        raise StoreBusy(
            KIND.name,
            f"The record of this run was written to {name}, and another one is there.",
            subject=name,
            hint="Another run is at work. Run again.",
        )


def _incomplete_keys(seen: Sequence[Seen], memories: Sequence[Memory]) -> frozenset[str]:
    """The keys of records that a collection lacks, or has in another text than the others.

    A collection that the plan makes lacks them all. A server that refuses properties has none, and
    keeps each record whole.
    """
    texts: dict[str, dict[str, str]] = {name: {} for each in seen for name in each.physical}
    for each in seen:
        for name, key, text in each.properties:
            texts[name][key.removeprefix(PREFIX)] = text
    if not any(texts.values()):
        return frozenset()
    if any(each.is_to_be_made for each in seen):
        return frozenset(memory.key for memory in memories)
    by_key = {m.key: {kept.get(m.key, "") for kept in texts.values()} for m in memories}
    return frozenset(key for key, found in by_key.items() if len(found) > 1)


def _own_holds(memory: Memory) -> Sequence[str]:
    """What a record says that this store holds."""
    member = memory.members.get(KIND.name)
    return member.holds if member else ()


def _other_version(seen: Seen) -> bool:
    """Whether an earlier version of a declared collection is there, without its alias."""
    home = seen.live.home
    return home is not None and home.name != seen.declared.name


def _kept(collection: str, key: str, text: str) -> Kept:
    return Kept(
        text,
        f"property {key} of {collection}",
        f"MilvusClient.alter_collection_properties({collection!r}, {{{key!r}: ''}}).",
        key=key.removeprefix(PREFIX),
    )

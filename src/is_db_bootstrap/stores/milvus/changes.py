"""What is made of a collection: each step is taken once, waited for, and read back.

A create that succeeds may have made nothing new (milvus#50306), so what counts is what is there
afterwards.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pymilvus import MilvusClient
from pymilvus.client.types import LoadState
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.engine.store import RECORD, MadeByOther
from is_db_bootstrap.errors import ChangeFailed, StoreBusy, StoreUnavailable
from is_db_bootstrap.stores.milvus import planned_calls
from is_db_bootstrap.stores.milvus import schema as milvus_schema
from is_db_bootstrap.stores.milvus.compare import (
    FINISHED,
    Live,
    differences,
    different,
    refuse_different,
    state,
    unindexed_rows,
)
from is_db_bootstrap.stores.milvus.errors import STORE, Translation, exists_already, is_missing
from is_db_bootstrap.stores.milvus.properties import declared_properties, property_differences
from is_db_bootstrap.stores.milvus.rehearsal import rehearse, rehearsed_collection
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection, Index
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.settings import Timing
    from is_db_bootstrap.stores.milvus.properties import PropertyDifference
    from is_db_bootstrap.stores.milvus.server import Server

#: Our own property of a collection: the blueprint, and a digest of what was declared when it was
#: created.
CONTRACT_PROPERTY = "is_db_bootstrap.contract"
#: First and longest pause between two looks at an index or a load, seconds.
LOOK_FIRST_S, LOOK_LONGEST_S = 0.02, 0.5


class Changes:
    """Takes the steps of the blueprint called `blueprint` on `server`."""

    def __init__(self, server: Server, blueprint: str, timing: Timing, errors: Translation) -> None:
        self._server = server
        self._blueprint = blueprint
        self._timing = timing
        self._errors = errors
        #: Names of what this object has begun to make, so that a second try finds its own work.
        self._begun: set[tuple[str, str]] = set()
        #: Rehearsals that a busy server has interrupted, by the name of their collection.
        self._trials: dict[str, Collection] = {}

    def contract(self, declared: Collection) -> str:
        """The blueprint, and a digest of what is declared of a collection."""
        digest = hashlib.sha256(milvus_schema.contract(declared).encode()).hexdigest()
        return f"{self._blueprint}/{digest[:12]}"

    def apply(self, declared: Collection, change: Change) -> str | None:
        """Take one step; a remark on it, if there is any.

        The remark is a `MadeByOther` when somebody else had taken the step already.
        """
        steps: dict[str, Callable[[Collection, Change], str | None]] = {
            "collection": self._create_collection,
            "partition": self._create_partition,
            "index": self._create_index,
            "property": self._set_property,
            "alias": self._create_alias,
            "load": self._load,
            RECORD: self._mark,
        }
        return steps[change.kind](declared, change)

    def shown_call(self, declared: Collection, change: Change) -> str:
        """The call that a step makes, as a person reads it. The server is only looked at."""
        server = self._server
        if change.kind == "collection":
            return planned_calls.create_collection(declared, self._properties(declared))
        if change.kind == "partition":
            return planned_calls.create_partition(declared, change.name.partition(".")[2])
        if change.kind == "index":
            index = _index_of(declared, change)
            type_ = server.index_type(declared, index)
            return planned_calls.create_index(declared, index, type_)
        if change.kind == "property":
            key = change.name.removeprefix(f"{declared.name}.")
            different_now = self._property_difference(declared, key)
            value = different_now.expected if different_now else ""
            given = self._properties_with(declared, key, value)
            return planned_calls.alter_properties(declared, given)
        if change.kind == "alias":
            return planned_calls.create_alias(server.alias_home(declared).name, declared.alias)
        return planned_calls.load_collection(declared)

    def _properties_with(self, declared: Collection, key: str, value: str) -> dict[str, str]:
        """A property, with our own one where the collection has it."""
        given = {key: value}
        recorded = self._server.described(declared.name) or {}
        if CONTRACT_PROPERTY in (recorded.get("properties") or {}):
            given[CONTRACT_PROPERTY] = self.contract(declared)
        return given

    def _found(self, change: Change, remark: str | None = None) -> str | None:
        """The remark for an object that is there, as found unless it was begun here."""
        if (change.kind, change.name) in self._begun:
            return remark
        what = "loaded" if change.kind == "load" else "there"
        noun = "Collection" if change.kind == "load" else change.kind.capitalize()
        return MadeByOther(remark or f"{noun} {change.name} was {what} already.")

    def _begin(self, change: Change) -> None:
        """Note that this object makes the change itself."""
        self._begun.add((change.kind, change.name))

    def _create_collection(self, declared: Collection, change: Change) -> str | None:
        remark = None
        if self._server.described(declared.name) is None:
            self._rehearse(declared)
            try:
                self._call_create(declared)
            except MilvusException as exc:
                if not exists_already(exc):
                    raise  # else another run was faster, and what it made is compared below
                remark = self._found(change)
            else:
                self._begin(change)
        else:
            remark = self._found(change)
        release = self._server.told_release
        live = Live(self._server.described(declared.name), release=release)
        if live.described is None:
            raise StoreBusy(
                STORE,
                f"Collection {declared.name} was created and is not shown yet.",
                subject=declared.name,
                hint="The coordinators of a cluster take seconds to agree.",
            )
        if found := differences(declared, live):
            raise different(declared, found, release)
        return remark

    def _rehearse(self, declared: Collection) -> None:
        """Have the server refuse what it will refuse, before the collection exists."""
        if declared.name not in self._trials:
            self._trials[declared.name] = rehearsed_collection(declared)
        trial = self._trials[declared.name]
        rehearse(self._server, trial, self._call_create, self._call_index)
        del self._trials[declared.name]

    def _call_create(self, declared: Collection) -> None:
        partitions = {"num_partitions": declared.partitions} if declared.partitions else {}
        self._server.client.create_collection(
            declared.name,
            schema=milvus_schema.schema(declared),
            num_shards=declared.shards,
            consistency_level=declared.consistency,
            properties=self._properties(declared),
            **partitions,
            **self._server.change_options,
        )

    def _properties(self, declared: Collection) -> dict[str, str]:
        own = {CONTRACT_PROPERTY: self.contract(declared)}
        if declared.model:
            own[milvus_schema.MODEL_PROPERTY] = declared.model
        return {**declared_properties(declared), **own}

    def is_marked(self, declared: Collection) -> bool:
        """Whether a collection says which blueprint it was made or adopted for."""
        described = self._server.described(declared.name) or {}
        return CONTRACT_PROPERTY in (described.get("properties") or {})

    def _mark(self, declared: Collection, change: Change) -> str | None:
        """Let a collection that others have made say for which blueprint it was adopted.

        A server that does not keep the property leaves the collection as it was, which is said.
        """
        if self.is_marked(declared):
            return self._found(change)
        own = {CONTRACT_PROPERTY: self.contract(declared)}
        client, options = self._server.client, self._server.change_options
        try:
            client.alter_collection_properties(declared.name, own, **options)
        except MilvusException as exc:
            if not self._server.is_refused(exc):
                raise
            return MadeByOther(f"{declared.name} was not marked: {exc.message}")
        if not self.is_marked(declared):
            return MadeByOther(f"{declared.name} was not marked: this server keeps no property.")
        return None

    def _set_property(self, declared: Collection, change: Change) -> str | None:
        """Change a property in place, and read it back."""
        key = change.name.removeprefix(f"{declared.name}.")
        different_now = self._property_difference(declared, key)
        if different_now is None:
            return self._found(change)
        given = self._properties_with(declared, key, different_now.expected)
        client, options = self._server.client, self._server.change_options
        self._begin(change)
        try:
            client.alter_collection_properties(declared.name, given, **options)
        except MilvusException as exc:
            if "loaded" not in str(exc.message).lower():
                raise
            raise ChangeFailed(
                STORE,
                f"{key} of {declared.name} was not changed, because the collection is loaded.",
                change=change,
                hint=f"Searches fail meanwhile: MilvusClient.release_collection({declared.name!r}),"
                " then run again. The run loads it at its end.",
            ) from exc
        left = self._property_difference(declared, key)
        if left is not None:
            raise ChangeFailed(
                STORE,
                f"{key} of {declared.name} {left.words} after it was set: this server does not "
                "keep it.",
                change=change,
                hint="Leave the property out of the declaration, or declare what the server shows.",
            )
        return None

    def _property_difference(self, declared: Collection, key: str) -> PropertyDifference | None:
        live = Live(self._server.described(declared.name))
        found = property_differences(declared, live.properties)
        return next((each for each in found if each.key == key), None)

    def _create_partition(self, declared: Collection, change: Change) -> str | None:
        name = change.name.partition(".")[2]
        server = self._server
        if name in server.client.list_partitions(declared.name, **server.look_options):
            return self._found(change)
        self._begin(change)
        server.client.create_partition(declared.name, name, **server.change_options)
        return None

    def _create_index(self, declared: Collection, change: Change) -> str | None:
        index = _index_of(declared, change)
        is_found = self._server.index(declared.name, index) is not None
        if not is_found:
            is_found = not self._begin_index(declared, index, change)
        self._await_index(declared, index, change)
        remark = self._server.remark_on_type(declared, index)
        return self._found(change, remark) if is_found else remark

    def _call_index(self, declared: Collection, index: Index) -> None:
        type_ = self._server.index_type(declared, index)
        metric = {"metric_type": index.metric} if index.metric else {}
        given = {**metric, "params": planned_calls.index_parameters(index)}
        params = MilvusClient.prepare_index_params()
        params.add_index(index.field, type_, index.name or index.field, **given)
        # sync=True would sleep half a second before its first look
        # (grpc_handler.wait_for_creating_index).
        options = self._server.change_options
        self._server.client.create_index(declared.name, params, sync=False, **options)

    def _begin_index(self, declared: Collection, index: Index, change: Change) -> bool:
        """Have the server begin to build an index. False when another run has done so meanwhile."""
        try:
            self._call_index(declared, index)
        except MilvusException as exc:
            if is_missing(exc):
                raise StoreBusy(
                    STORE,
                    f"Collection {declared.name} is not shown to the index yet.",
                    subject=change.name,
                ) from exc
            if not exists_already(exc):
                raise
            return False
        self._begin(change)
        return True

    def _await_index(self, declared: Collection, index: Index, change: Change) -> None:
        rows = 0
        for _ in self._looks():
            found = self._server.index(declared.name, index)
            if found is None:
                continue
            described = self._server.described(declared.name)
            release = self._server.told_release
            live = Live(described, {index.field: found}, release=release)
            if differs := differences(declared, live):
                raise different(declared, differs, live.release)
            rows = unindexed_rows(found)
            if state(found) == "Failed":
                raise ChangeFailed(
                    STORE,
                    f"The build of index {change.name} failed on the server.",
                    change=change,
                    hint="See the server's log; drop the index (MilvusClient.drop_index) "
                    "and run again.",
                )
            if state(found) == FINISHED and not rows:
                return
        raise StoreUnavailable(
            STORE,
            f"Index {change.name} was not built within {self._timing.index_timeout_s:g} s; "
            f"{counted(rows, 'row')} left.",
            hint="The server goes on; run again later, or give a longer "
            "IS_DB_BOOTSTRAP_INDEX_TIMEOUT.",
            subject=change.name,
        )

    def _create_alias(self, declared: Collection, change: Change) -> str | None:
        """Make the alias, unless it is there.

        The same alias again is an error on one server and silently accepted by another
        (milvus#8637).
        """
        alias, server, remark = declared.alias, self._server, None
        if server.alias_target(alias) is not None:
            remark = self._found(change)
        else:
            found = server.alias_home(declared)
            home = found.name
            refused = Live(server.described(declared.name), release=server.told_release, home=found)
            refuse_different(declared, refused, server.is_collection)
            try:
                server.client.create_alias(home, alias, **server.change_options)
                self._begin(change)
            except MilvusException as exc:
                if not exists_already(exc):
                    raise
                remark = self._found(change)
                # Either another run was faster, or a dropped collection left its alias behind
                # (milvus#36963).
                if server.alias_target(alias) is None and server.described(alias) is None:
                    server.client.alter_alias(home, alias, **server.change_options)
                    remark = (
                        f"Alias {alias} had been left behind by a dropped collection; it points "
                        f"to {home} now."
                    )
        target = server.alias_target(alias)
        if target is None:
            message = f"Alias {alias} was created and is not shown yet."
            raise StoreBusy(STORE, message, subject=alias)
        described, release = server.described(declared.name), server.told_release
        live = Live(described, target=target, release=release)
        refuse_different(declared, live, server.is_collection)
        return remark

    def _load(self, declared: Collection, change: Change) -> str | None:
        server = self._server
        if server.load_state(declared.name) is LoadState.Loaded:
            # Milvus Lite says so of a collection that was created a moment ago.
            is_own = ("collection", declared.name) in self._begun
            return None if is_own else self._found(change)
        self._begin(change)
        server.client.load_collection(declared.name, _async=True, **server.change_options)
        percent = 0
        for _ in self._looks():
            answer = server.client.get_load_state(declared.name, **server.look_options)
            if answer["state"] is LoadState.Loaded:
                return None
            percent = answer.get("progress", percent)
        raise StoreUnavailable(
            STORE,
            f"Collection {declared.name} was not loaded within "
            f"{self._timing.index_timeout_s:g} s; it stands at {percent} %.",
            hint="See memory and number of the query nodes, and their log; loading goes on, so "
            "run again later.",
            subject=declared.name,
        )

    def _looks(self) -> Iterator[None]:
        """Moments to look at what the server is doing, until `index_timeout_s` is over.

        A cancel ends them.
        """
        deadline, pause_s = time.monotonic() + self._timing.index_timeout_s, LOOK_FIRST_S
        while True:
            yield
            if time.monotonic() > deadline:
                return
            if self._errors.cancelled.wait(pause_s):
                raise StoreUnavailable(STORE, "The call was cancelled.")
            pause_s = min(pause_s * 2, LOOK_LONGEST_S)


def _index_of(declared: Collection, change: Change) -> Index:
    """The declared index that a change makes."""
    return next(i for i in declared.indexes if change.name == f"{declared.name}.{i.field}")

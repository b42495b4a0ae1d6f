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

from is_db_bootstrap.errors import ChangeFailed, StoreBusy, StoreUnavailable
from is_db_bootstrap.stores.milvus import schema as milvus_schema
from is_db_bootstrap.stores.milvus.compare import (
    FINISHED,
    Live,
    declared_properties,
    differences,
    different,
    refuse_different,
    state,
    unindexed_rows,
)
from is_db_bootstrap.stores.milvus.errors import STORE, Translation, exists_already, is_missing

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection, Index
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.settings import Timing
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

    def contract(self, declared: Collection) -> str:
        """The blueprint, and a digest of what is declared of a collection."""
        digest = hashlib.sha256(milvus_schema.contract(declared).encode()).hexdigest()
        return f"{self._blueprint}/{digest[:12]}"

    def apply(self, declared: Collection, change: Change) -> str | None:
        """Take one step; a remark on it, if there is any."""
        steps: dict[str, Callable[[Collection, Change], str | None]] = {
            "collection": self._create_collection,
            "partition": self._create_partition,
            "index": self._create_index,
            "alias": self._create_alias,
            "load": self._load,
        }
        return steps[change.kind](declared, change)

    def _create_collection(self, declared: Collection, _change: Change) -> None:
        if self._server.described(declared.name) is None:
            partitions = {"num_partitions": declared.partitions} if declared.partitions else {}
            try:
                self._server.client.create_collection(
                    declared.name,
                    schema=milvus_schema.schema(declared),
                    num_shards=declared.shards,
                    consistency_level=declared.consistency,
                    properties=self._properties(declared),
                    **partitions,
                    **self._server.change_options,
                )
            except MilvusException as exc:
                if not exists_already(exc):
                    raise  # else another run was faster, and what it made is compared below
        live = Live(self._server.described(declared.name))
        if live.described is None:
            raise StoreBusy(
                STORE,
                f"Collection {declared.name} was created and is not shown yet.",
                subject=declared.name,
                hint="The coordinators of a cluster take seconds to agree.",
            )
        if found := differences(declared, live):
            raise different(declared, found)

    def _properties(self, declared: Collection) -> dict[str, str]:
        own = {CONTRACT_PROPERTY: self.contract(declared)}
        if declared.model:
            own[milvus_schema.MODEL_PROPERTY] = declared.model
        if declared.ttl_seconds:
            own[milvus_schema.TTL_PROPERTY] = str(declared.ttl_seconds)
        return {**declared_properties(declared), **own}

    def _create_partition(self, declared: Collection, change: Change) -> None:
        name = change.name.partition(".")[2]
        options = self._server.change_options
        self._server.client.create_partition(declared.name, name, **options)

    def _create_index(self, declared: Collection, change: Change) -> str | None:
        index = next(i for i in declared.indexes if change.name == f"{declared.name}.{i.field}")
        if self._server.index(declared.name, index) is None:
            self._begin_index(declared, index, change)
        self._await_index(declared, index, change)
        return self._server.remark_on_type(declared, index)

    def _begin_index(self, declared: Collection, index: Index, change: Change) -> None:
        """Have the server begin to build an index, unless another run has done so meanwhile."""
        type_ = self._server.index_type(declared, index)
        metric = {"metric_type": index.metric} if index.metric else {}
        given = {**metric, "params": dict(index.params)}
        params = MilvusClient.prepare_index_params()
        params.add_index(index.field, type_, index.name or index.field, **given)
        options = self._server.change_options
        try:
            # sync=True would sleep half a second before its first look
            # (grpc_handler.wait_for_creating_index).
            self._server.client.create_index(declared.name, params, sync=False, **options)
        except MilvusException as exc:
            if is_missing(exc):
                raise StoreBusy(
                    STORE,
                    f"Collection {declared.name} is not shown to the index yet.",
                    subject=change.name,
                ) from exc
            if not exists_already(exc):
                raise

    def _await_index(self, declared: Collection, index: Index, change: Change) -> None:
        rows = 0
        for _ in self._looks():
            found = self._server.index(declared.name, index)
            if found is None:
                continue
            live = Live(self._server.described(declared.name), {index.field: found})
            if differs := differences(declared, live):
                raise different(declared, differs)
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
            f"{rows} rows are left.",
            hint="The server goes on; run again later, or give a longer "
            "IS_DB_BOOTSTRAP_INDEX_TIMEOUT.",
            subject=change.name,
        )

    def _create_alias(self, declared: Collection, _change: Change) -> str | None:
        """Make the alias, unless it is there.

        The same alias again is an error on one server and silently accepted by another
        (milvus#8637).
        """
        alias, server, remark = declared.alias, self._server, None
        if server.alias_target(alias) is None:
            try:
                server.client.create_alias(declared.name, alias, **server.change_options)
            except MilvusException as exc:
                if not exists_already(exc):
                    raise
                # Either another run was faster, or a dropped collection left its alias behind
                # (milvus#36963).
                if server.alias_target(alias) is None and server.described(alias) is None:
                    server.client.alter_alias(declared.name, alias, **server.change_options)
                    remark = (
                        f"Alias {alias} had been left behind by a dropped collection; it points "
                        f"to {declared.name} now."
                    )
        target = server.alias_target(alias)
        if target is None:
            message = f"Alias {alias} was created and is not shown yet."
            raise StoreBusy(STORE, message, subject=alias)
        live = Live(server.described(declared.name), target=target)
        refuse_different(declared, live, server.is_collection)
        return remark

    def _load(self, declared: Collection, _change: Change) -> None:
        server = self._server
        if server.load_state(declared.name) is LoadState.Loaded:
            return
        server.client.load_collection(declared.name, _async=True, **server.change_options)
        percent = 0
        for _ in self._looks():
            answer = server.client.get_load_state(declared.name, **server.look_options)
            if answer["state"] is LoadState.Loaded:
                return
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

"""Milvus: a collection behind an alias, with its indexes, loaded.

Compared attribute by attribute, never dropped or altered.

Changes are of kind `collection` (named as the collection), `index` (`collection.field`), `alias`
(as the alias) and `load` (as the collection). Milvus has no lock to offer; what another run did
meanwhile is found by looking first.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pymilvus
from pymilvus import MilvusClient
from pymilvus.client.types import LoadState
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.errors import (
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import Change, Drift, Plan, Proof, ServerInfo, Status
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.foreign_server import recognised
from is_db_bootstrap.stores.milvus import abilities
from is_db_bootstrap.stores.milvus import errors as milvus_errors
from is_db_bootstrap.stores.milvus import schema as milvus_schema
from is_db_bootstrap.stores.milvus.connection import client_arguments, single_token
from is_db_bootstrap.stores.milvus.kind import KIND
from is_db_bootstrap.stores.milvus.schema import Difference, Live

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, Collection, Index

#: Our own property of a collection: the blueprint, and a digest of what was declared when it was
#: created.
CONTRACT_PROPERTY = "is_db_bootstrap.contract"
#: First server that takes INVERTED on VARCHAR.
INVERTED_SINCE = (2, 4)
OLDEST = (2, 3)
#: First and longest pause between two looks at an index or a load, seconds.
LOOK_FIRST_S, LOOK_LONGEST_S = 0.02, 0.5


class MilvusBootstrapper:
    """The Milvus part of a blueprint, on a server, a cluster or Milvus Lite over TCP.

    `url` is `http://`, `https://` or `tcp://`, with `user:password`, or a token as either of them;
    its path is the database. Of `timing`, `connect_timeout_s` bounds every connection and look,
    `index_timeout_s` every change with the wait for what it started. Raises `ConfigurationError`
    for an address that cannot be one.
    """

    name: StoreName = "milvus"

    def __init__(
        self, url: StoreUrl | str, blueprint: Blueprint, *, timing: Timing | None = None
    ) -> None:
        parsed = StoreUrl.parse("milvus", url) if isinstance(url, str) else url
        self._url = single_token(parsed)
        self._blueprint = blueprint
        self._timing = timing or Timing()
        self._client: MilvusClient | None = None
        self._version = ""
        self._lite = False
        self._cancelled = threading.Event()
        self.target = str(self._url)

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on a new connection: register, ask the version, list the collections, which takes proxy and coordinator.

        `/healthz` is not asked, it says ready before the proxy is (milvus#53731). Raises `StoreUnavailable` while the
        server starts, `AccessDenied`, `ConfigurationError` when something else answers or the database is missing.
        """
        self.close()
        self._cancelled.clear()
        return self._connect(timeout_s)

    def _connect(self, timeout_s: float) -> ServerInfo:
        limit_s = min(timeout_s, self._timing.connect_timeout_s)
        try:
            with self._errors():
                info = self._register(time.monotonic() + limit_s)
        except BaseException as exc:
            self.close()
            if isinstance(exc, StoreUnavailable) and not self._cancelled.is_set():
                self._check_stranger(exc, limit_s)
            raise
        self._check_version()
        return info

    def _register(self, deadline: float) -> ServerInfo:
        def left_s() -> int:
            return _whole(deadline - time.monotonic())

        self._client = client = self._open(left_s())
        text = str(client.get_server_version(timeout=left_s()))
        client.list_collections(timeout=left_s(), **_ONCE)
        self._lite = text.startswith("milvus_lite")
        self._version = text.removeprefix("milvus_lite-").removeprefix("v")
        if self._lite:
            return ServerInfo(self._version, "lite")
        detail = client.get_server_version(detail=True, timeout=left_s())
        return ServerInfo(self._version, str(detail.get("deploy_mode", "")).lower() or None)

    def _open(self, limit_s: int) -> MilvusClient:
        """A client with a connection of its own: shared ones outlive their clients and pass a broken state on."""
        arguments = client_arguments(self._url)
        try:
            return MilvusClient(**arguments, timeout=limit_s, dedicated=True)
        except (OSError, ValueError) as exc:
            error = ConfigurationError(
                f"milvus: the address {self.target} is refused by pymilvus: {exc}."
            )
            raise self._url.masking(error, exc) from exc

    def _check_stranger(self, exc: StoreUnavailable, limit_s: float) -> None:
        if not milvus_errors.was_closed(exc):
            return
        if kind := recognised(
            self._url.host, self._url.port(19530), limit_s / 2, own="a gRPC server"
        ):
            raise ConfigurationError(
                f"milvus: {kind} answers at {self.target}.",
                hint="Give the address of Milvus's gRPC port (19530 by default).",
            ) from exc

    def _check_version(self) -> None:
        if not self._lite and () < self._release < OLDEST:
            raise StoreConflict(
                self.name,
                f"{self.target} is Milvus {self._version}; "
                f"{'.'.join(map(str, OLDEST))} or newer is needed.",
                hint="Upgrade the server.",
            )

    @property
    def _release(self) -> tuple[int, ...]:
        """Major and minor; empty for a build that is named otherwise."""
        found = re.match(r"(\d+)\.(\d+)", self._version)
        return tuple(map(int, found.groups())) if found else ()

    @property
    def _connected(self) -> MilvusClient:
        """The client.

        Connects when nobody has pinged before, but not after a cancel, which only `ping` takes
        back.
        """
        if self._client is None and not self._cancelled.is_set():
            self._connect(self._timing.connect_timeout_s)
        client = self._client
        if client is None or self._cancelled.is_set():
            raise StoreUnavailable(self.name, "The call was cancelled.")
        return client

    @property
    def _look(self) -> dict[str, Any]:
        return {"timeout": _whole(self._timing.connect_timeout_s), **_ONCE}

    @property
    def _change(self) -> dict[str, Any]:
        return {"timeout": _whole(self._timing.index_timeout_s), **_ONCE}

    def _live(self, declared: Collection) -> Live:
        """One look at everything declared; three calls and one an index when nothing is missing."""
        with self._errors(declared.name):
            target = self._alias_target(declared.alias) if declared.alias else None
            if self._goes_beyond(declared, target):
                return Live(target=target)
            described = self._described(declared.name)
            if described is None:
                return Live(target=target)
            indexes = {
                i.field: found for i in declared.indexes if (found := self._index(declared.name, i))
            }
            loaded = self._load_state(declared.name) is LoadState.Loaded if declared.load else None
            named = (
                self._connected.list_partitions(declared.name, **self._look)
                if declared.partition_names
                else ()
            )
            return Live(described, indexes, target, loaded, frozenset(named))

    def _alias_target(self, alias: str) -> str | None:
        answer = _or_none(lambda: self._connected.describe_alias(alias, **self._look))
        return answer.get("collection_name") if answer else None

    def _described(self, name: str) -> dict[str, Any] | None:
        return _or_none(lambda: self._connected.describe_collection(name, **self._look))

    def _index(self, collection: str, index: Index) -> dict[str, Any] | None:
        """The index of a field, under its own name, else under any.

        Milvus Lite answers with whatever index there is.
        """
        client = self._connected
        found: dict[str, Any] | None = None
        try:
            found = client.describe_index(collection, index.name or index.field, **self._look)
        except MilvusException as exc:
            if "multiple indexes" not in str(
                exc.message
            ):  # what Milvus Lite answers when it has several, but not this one
                raise
        if found is None or found["field_name"] != index.field:
            others = client.list_indexes(collection, index.field, **self._look)
            found = client.describe_index(collection, others[0], **self._look) if others else None
        return found

    def _load_state(self, collection: str) -> LoadState:
        state: LoadState = self._connected.get_load_state(collection, **self._look)["state"]
        return state

    def _goes_beyond(self, declared: Collection, target: str | None) -> bool:
        """Whether the alias points to a later version of the collection: someone has re-embedded and moved it."""
        family, version = milvus_schema.version_of(declared.name)
        found_family, found = milvus_schema.version_of(target or "")
        return family == found_family and found > version

    def plan(self) -> Plan:
        """What is missing of each collection, in order.

        `StoreConflict` for anything present but different.
        """
        changes: list[Change] = []
        notes: list[str] = []
        for declared in self._blueprint.collections:
            abilities.check(declared, self._release, self._version, lite=self._lite)
            live = self._live(declared)
            if self._goes_beyond(declared, live.target):
                notes.append(
                    f"Alias {declared.alias} points to {live.target}, a later version of {declared.name}; it is left alone "
                    f"and {declared.name} is not required."
                )
                continue
            self._check(declared, live)
            changes += self._missing(declared, live)
            notes += self._remarks(declared, live)
        return Plan(tuple(changes), notes=tuple(notes))

    def _check(self, declared: Collection, live: Live) -> None:
        """Raise `StoreConflict` for what is present but different.

        Expected, actual and the way out are in it.
        """
        found = milvus_schema.differences(declared, live)
        if found:
            self._conflict(declared, found)
        if live.target is not None and live.target != declared.name:
            raise StoreConflict(
                self.name,
                f"Alias {declared.alias} points to {live.target}, declared {declared.name}.",
                subject=declared.alias,
                hint=f"See who moved it; alter_alias moves it back. {milvus_schema.version_of(declared.name)[0]}_v2 or higher would be accepted.",
            )
        if live.described is None and self._is_collection(declared.alias):
            raise StoreConflict(
                self.name,
                f"A collection has the name {declared.alias}, "
                f"which is declared as an alias of {declared.name}.",
                hint=f"Rename that collection (MilvusClient.rename_collection), or have the application use {declared.name}.",
                subject=declared.alias,
            )

    def _conflict(self, declared: Collection, found: Sequence[Difference]) -> None:
        family, version = milvus_schema.version_of(declared.name)
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""  # noqa: PLR2004 - as many as one reads
        way_out = f"create {family}_v{version + 1}, re-embed into it, move the alias {declared.alias or 'of the application'}"
        raise StoreConflict(
            self.name,
            f"Collection {declared.name} differs from the blueprint: {'; '.join(map(str, found[:5]))}{more}.",
            hint=f"Nothing was changed and nothing is ever dropped. To have what is declared: {way_out}. "
            "To keep what is there: give the settings it was made with.",
            subject=found[0].object,
        )

    def _is_collection(self, name: str) -> bool:
        with self._errors(name):
            found = self._described(name) if name else None
        return found is not None and found.get("collection_name") == name

    def _missing(self, declared: Collection, live: Live) -> Iterator[Change]:
        if live.described is None:
            yield Change(declared.name, "collection", milvus_schema.shape(declared))
        for name in declared.partition_names:
            if name not in live.partitions:
                yield Change(f"{declared.name}.{name}", "partition")
        for index in declared.indexes:
            found = live.indexes.get(index.field)
            if found is None or milvus_schema.state(found) != "Finished":
                yield Change(
                    f"{declared.name}.{index.field}", "index", self._definition(declared, index)
                )
        if declared.alias and (live.target is None or live.described is None):
            yield Change(declared.alias, "alias", f"points to {declared.name}")
        if declared.load and not live.loaded:
            yield Change(declared.name, "load")

    def _remarks(self, declared: Collection, live: Live) -> Iterator[str]:
        for index in declared.indexes:
            if self._index_type(declared, index) != index.type:
                yield self._instead(declared, index)
            rows = milvus_schema.unindexed_rows(live.indexes.get(index.field, {}))
            if rows:
                yield f"The index on {declared.name}.{index.field} does not serve {rows} of its rows yet; the server goes on building it."

    @property
    def _refuses_inverted(self) -> bool:
        """Whether it is a server that takes nothing but Trie on VARCHAR (code 1100).

        Connects to know its version.
        """
        return (
            self._connected is not None and not self._lite and () < self._release < INVERTED_SINCE
        )

    def _index_type(self, declared: Collection, index: Index) -> str:
        text = any(f.name == index.field and f.type == "VARCHAR" for f in declared.fields)
        return (
            "Trie" if index.type == "INVERTED" and text and self._refuses_inverted else index.type
        )

    def _instead(self, declared: Collection, index: Index) -> str:
        return (
            f"The index on {declared.name}.{index.field} is {self._index_type(declared, index)} instead of {index.type}, "
            f"which Milvus {self._version} does not have for VARCHAR (2.4 does)."
        )

    def _definition(self, declared: Collection, index: Index) -> str:
        params = ", ".join(f"{k}={v}" for k, v in index.params.items())
        return " ".join(
            part for part in (self._index_type(declared, index), index.metric, params) if part
        )

    # --- writing

    def apply(self, change: Change) -> str | None:
        """Take one step and read it back, for a create that succeeds may have made nothing new (milvus#50306).

        `StoreBusy` when the server limits the rate, shows its own new collection late (milvus#44507), or has no query
        node yet; `StoreConflict` when someone else made something different meanwhile.
        """
        declared = next(
            c for c in self._blueprint.collections if change.name.split(".")[0] in {c.name, c.alias}
        )
        with self._errors(change.name, change):
            if change.kind == "index":
                return self._create_index(declared, change)
            if change.kind == "partition":
                self._connected.create_partition(
                    declared.name, change.name.partition(".")[2], **self._change
                )
                return None
            steps: dict[str, Callable[[Collection], str | None]] = {
                "collection": self._create_collection,
                "alias": self._create_alias,
                "load": self._load,
            }
            return steps[change.kind](declared)

    def _create_collection(self, declared: Collection) -> str | None:
        if self._described(declared.name) is None:
            client = self._connected
            try:
                client.create_collection(
                    declared.name,
                    schema=milvus_schema.schema(declared),
                    num_shards=declared.shards,
                    consistency_level=declared.consistency,
                    properties=self._properties(declared),
                    **({"num_partitions": declared.partitions} if declared.partitions else {}),
                    **self._change,
                )
            except MilvusException as exc:
                if not milvus_errors.exists_already(exc):
                    raise  # else another run was faster, and what it made is compared below
        live = Live(self._described(declared.name))
        if live.described is None:
            raise StoreBusy(
                self.name,
                f"Collection {declared.name} was created and is not shown yet.",
                subject=declared.name,
                hint="The coordinators of a cluster take seconds to agree.",
            )
        if found := milvus_schema.differences(declared, live):
            self._conflict(declared, found)
        return None

    def _properties(self, declared: Collection) -> dict[str, str]:
        own = {CONTRACT_PROPERTY: self._contract(declared)}
        own |= {milvus_schema.MODEL_PROPERTY: declared.model} if declared.model else {}
        own |= (
            {milvus_schema.TTL_PROPERTY: str(declared.ttl_seconds)} if declared.ttl_seconds else {}
        )
        return {**milvus_schema.declared_properties(declared), **own}

    def _contract(self, declared: Collection) -> str:
        return f"{self._blueprint.name}/{hashlib.sha256(milvus_schema.contract(declared).encode()).hexdigest()[:12]}"

    def _create_index(self, declared: Collection, change: Change) -> str | None:
        index = next(i for i in declared.indexes if change.name == f"{declared.name}.{i.field}")
        type_ = self._index_type(declared, index)
        if self._index(declared.name, index) is None:
            params = MilvusClient.prepare_index_params()
            metric = (
                {"metric_type": index.metric, "params": dict(index.params)}
                if index.metric
                else {"params": dict(index.params)}
            )
            params.add_index(index.field, type_, index.name or index.field, **metric)
            try:
                # sync=True would sleep half a second before its first look
                # (grpc_handler.wait_for_creating_index).
                self._connected.create_index(declared.name, params, sync=False, **self._change)
            except MilvusException as exc:
                if milvus_errors.is_missing(exc):
                    raise StoreBusy(
                        self.name,
                        f"Collection {declared.name} is not shown to the index yet.",
                        subject=change.name,
                    ) from exc
                if not milvus_errors.exists_already(exc):
                    raise
        self._await_index(declared, index, change)
        return None if type_ == index.type else self._instead(declared, index)

    def _await_index(self, declared: Collection, index: Index, change: Change) -> None:
        rows = 0
        for _ in self._looks():
            found = self._index(declared.name, index)
            if found is None:
                continue
            if differs := milvus_schema.differences(
                declared, Live(self._described(declared.name), {index.field: found})
            ):
                self._conflict(declared, differs)
            rows = milvus_schema.unindexed_rows(found)
            if milvus_schema.state(found) == "Failed":
                raise ChangeFailed(
                    self.name,
                    f"The build of index {change.name} failed on the server.",
                    change=change,
                    hint="See the server's log; drop the index (MilvusClient.drop_index) "
                    "and run again.",
                )
            if milvus_schema.state(found) == "Finished" and not rows:
                return
        raise StoreUnavailable(
            self.name,
            f"Index {change.name} was not built within {self._timing.index_timeout_s:g} s; "
            f"{rows} rows are left.",
            hint="The server goes on; run again later, or give a longer "
            "IS_DB_BOOTSTRAP_INDEX_TIMEOUT.",
            subject=change.name,
        )

    def _create_alias(self, declared: Collection) -> str | None:
        """Look first: the same alias again is an error on one server and silently accepted by another (milvus#8637)."""
        alias, client, remark = declared.alias, self._connected, None
        if self._alias_target(alias) is None:
            try:
                client.create_alias(declared.name, alias, **self._change)
            except MilvusException as exc:
                if not milvus_errors.exists_already(exc):
                    raise
                # Either another run was faster, or a dropped collection left its alias behind
                # (milvus#36963).
                if self._alias_target(alias) is None and self._described(alias) is None:
                    client.alter_alias(declared.name, alias, **self._change)
                    remark = f"Alias {alias} had been left behind by a dropped collection; it points to {declared.name} now."
        target = self._alias_target(alias)
        if target is None:
            raise StoreBusy(
                self.name, f"Alias {alias} was created and is not shown yet.", subject=alias
            )
        self._check(declared, Live(self._described(declared.name), target=target))
        return remark

    def _load(self, declared: Collection) -> str | None:
        client = self._connected
        if self._load_state(declared.name) is LoadState.Loaded:
            return None
        client.load_collection(declared.name, _async=True, **self._change)
        percent = 0
        for _ in self._looks():
            answer = client.get_load_state(declared.name, **self._look)
            if answer["state"] is LoadState.Loaded:
                return None
            percent = answer.get("progress", percent)
        raise StoreUnavailable(
            self.name,
            f"Collection {declared.name} was not loaded within {self._timing.index_timeout_s:g} s; it stands at {percent} %.",
            hint="See memory and number of the query nodes, and their log; loading goes on, so run again later.",
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
            if self._cancelled.wait(pause_s):
                raise StoreUnavailable(self.name, "The call was cancelled.")
            pause_s = min(pause_s * 2, LOOK_LONGEST_S)

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Every declared attribute that the server reports.

        Other collections are no findings: a Milvus may be shared.
        """
        return [
            drift for declared in self._blueprint.collections for drift in self._drifts(declared)
        ]

    def _drifts(self, declared: Collection) -> Iterator[Drift]:
        live = self._live(declared)
        if self._goes_beyond(declared, live.target):
            return
        if declared.alias and live.target != declared.name:
            yield Drift(
                declared.alias,
                "alias",
                _should(declared.name, live.target),
                declared.name,
                live.target,
            )
        if live.described is None:
            yield Drift(declared.name, "collection", "is missing", milvus_schema.shape(declared))
            return
        for each in milvus_schema.differences(declared, live):
            yield Drift(
                each.object,
                each.kind,
                f"{each.attribute} is {each.actual}, declared {each.expected}",
                each.expected,
                each.actual,
            )
        for index in declared.indexes:
            state = (
                milvus_schema.state(live.indexes[index.field])
                if index.field in live.indexes
                else "missing"
            )
            if state != "Finished":
                yield Drift(
                    f"{declared.name}.{index.field}",
                    "index",
                    f"is {state}",
                    self._definition(declared, index),
                    state,
                )
        for name in declared.partition_names:
            if name not in live.partitions:
                yield Drift(f"{declared.name}.{name}", "partition", "is missing")
        if declared.load and not live.loaded:
            yield Drift(
                declared.name,
                "load",
                "is not loaded, so it cannot be searched",
                "loaded",
                "not loaded",
            )

    def selftest(self) -> Iterator[Proof]:
        """Fill and search a probe collection like each declared one; see `selftest.py`."""
        from is_db_bootstrap.stores.milvus.selftest import proofs

        with self._errors("a probe collection"):
            for declared in self._blueprint.collections:
                yield from proofs(self._open_probe, self._connected, declared)

    def _open_probe(self, collection: Collection) -> MilvusBootstrapper:
        """The same store for another collection, on a connection of its own."""
        blueprint = replace(self._blueprint, collections=(collection,))
        return MilvusBootstrapper(self._url, blueprint, timing=self._timing)

    def status(self) -> Status:
        """The contract that each collection was created for, and the declared one.

        Milvus has no lock.
        """
        head = [self._contract(c) for c in self._blueprint.collections]
        return Status(
            ", ".join(filter(None, map(self._recorded, self._blueprint.collections))),
            ", ".join(head),
        )

    def _recorded(self, declared: Collection) -> str:
        live = self._live(declared)
        if self._goes_beyond(declared, live.target):
            return f"{live.target} (later than {declared.name})"
        if live.described is None:
            return ""
        return (
            live.properties.get(CONTRACT_PROPERTY) or f"{declared.name} (not created by this tool)"
        )

    # --- ending

    def cancel(self) -> None:
        """From another thread: break the connection.

        What Milvus has begun (an index, a load) it goes on with.
        """
        self._cancelled.set()
        self._release_client()

    def what_goes_on(self) -> str:
        """What the server goes on with after `cancel`, as a sentence for the report."""
        return KIND.unended

    def close(self) -> None:
        """Release the connection."""
        self._release_client()

    def _release_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @contextmanager
    def _errors(self, subject: str = "", change: Change | None = None) -> Iterator[None]:
        """Translate what pymilvus and gRPC raise, once for all calls, and keep pymilvus's log quiet meanwhile."""
        try:
            with milvus_errors.quiet():
                yield
        except (MilvusException, grpc.RpcError) as exc:
            if self._cancelled.is_set():
                raise StoreUnavailable(
                    self.name, "The call was cancelled.", subject=subject
                ) from exc
            versions = (
                f"pymilvus {pymilvus.__version__}, server {self._version or 'of unknown version'}"
            )
            error = milvus_errors.translated(exc, self.target, subject, change, versions)
            raise self._url.masking(error, exc) from exc
        except (ValueError, AttributeError, TypeError) as exc:
            if not self._cancelled.is_set():
                raise
            # What pymilvus stumbles over when its channel is closed by another thread.
            raise StoreUnavailable(self.name, "The call was cancelled.", subject=subject) from exc


#: pymilvus retries a refused rate by itself until its timeout; the engine does that.
_ONCE: Mapping[str, Any] = {"retry_on_rate_limit": False}


def _whole(seconds: float) -> int:
    """Rounded up: pymilvus's waits honour only an integer (grpc_handler.wait_for_creating_index)."""
    return max(1, math.ceil(seconds))


def _or_none(ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return ask()
    except MilvusException as exc:
        if milvus_errors.is_missing(exc):
            return None
        raise


def _should(expected: str, actual: str | None) -> str:
    return "is missing" if actual is None else f"points to {actual}, declared {expected}"

"""One Milvus: how a client of it is opened, and what it is asked about one collection."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymilvus import MilvusClient
from pymilvus.client.types import LoadState
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.errors import (
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import ServerInfo
from is_db_bootstrap.stores.foreign_server import GRPC, recognised
from is_db_bootstrap.stores.milvus.compare import AliasHome, Live, goes_beyond
from is_db_bootstrap.stores.milvus.connection import client_arguments, default_port, tls_way
from is_db_bootstrap.stores.milvus.errors import (
    STORE,
    Translation,
    is_missing,
    translated,
    was_closed,
)
from is_db_bootstrap.stores.milvus.releases import Release
from is_db_bootstrap.stores.milvus.schema import version_of
from is_db_bootstrap.stores.tls_look import TlsFailed, refuse_tls_fault

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection, Index
    from is_db_bootstrap.settings import StoreUrl, Timing

OLDEST = (2, 3)
#: First server that takes INVERTED on VARCHAR.
INVERTED_SINCE = (2, 4)
#: pymilvus retries a refused rate by itself until its timeout; the engine does that.
_ONCE: Mapping[str, Any] = {"retry_on_rate_limit": False}


class Server:
    """A Milvus at `url`, which `open` or the first question connects to.

    `declared_names` are the collections of the blueprint.
    """

    def __init__(
        self,
        url: StoreUrl,
        timing: Timing,
        errors: Translation,
        declared_names: frozenset[str] = frozenset(),
    ) -> None:
        self.declared_names = declared_names
        self._url = url
        self._timing = timing
        self._errors = errors
        self._client: MilvusClient | None = None
        #: As the server writes it, without what stands before the number; empty until connected.
        self.version = ""
        self.is_lite = False

    # --- the connection

    def open(self, timeout_s: float) -> ServerInfo:
        """One try on a new connection: register, ask the version, list the collections."""
        limit_s = min(timeout_s, self._timing.connect_timeout_s)
        try:
            with self._errors():
                info = self._register(time.monotonic() + limit_s)
        except BaseException as exc:
            self.close()
            if self._errors.cancelled.is_set():
                raise
            if isinstance(exc, StoreUnavailable | TlsFailed):
                self._refuse_tls_fault(exc, limit_s)
            if isinstance(exc, StoreUnavailable):
                self._refuse_stranger(exc, limit_s)
            raise
        self._refuse_old()
        return info

    @property
    def client(self) -> MilvusClient:
        """The client.

        Connects when nobody has pinged before, but not after a cancel, which only `ping` takes
        back.
        """
        is_cancelled = self._errors.cancelled.is_set
        if self._client is None and not is_cancelled():
            self.open(self._timing.connect_timeout_s)
        client = self._client
        if client is None or is_cancelled():
            raise StoreUnavailable(STORE, "The call was cancelled.")
        return client

    def close(self) -> None:
        """Release the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _register(self, deadline: float) -> ServerInfo:
        def left_s() -> int:
            return _whole(deadline - time.monotonic())

        self._client = client = self._opened(left_s())
        text = str(client.get_server_version(timeout=left_s()))
        client.list_collections(timeout=left_s(), **_ONCE)
        self.is_lite = text.startswith("milvus_lite")
        self.version = text.removeprefix("milvus_lite-").removeprefix("v")
        self._errors.server_version = self.version
        if self.is_lite:
            return ServerInfo(self.version, "lite")
        detail = client.get_server_version(detail=True, timeout=left_s())
        return ServerInfo(self.version, str(detail.get("deploy_mode", "")).lower() or None)

    def _opened(self, limit_s: int) -> MilvusClient:
        """A client with a connection of its own.

        Shared ones outlive their clients and pass a broken state on.
        """
        arguments = client_arguments(self._url)
        try:
            return MilvusClient(**arguments, timeout=limit_s, dedicated=True)
        except (OSError, ValueError) as exc:
            error = ConfigurationError(
                f"milvus: the address {self._url} is refused by pymilvus: {exc}."
            )
            raise self._url.masking(error, exc) from exc

    def _refuse_tls_fault(self, exc: StoreUnavailable | TlsFailed, limit_s: float) -> None:
        """Raise `AccessDenied` with the cause when TLS, or the lack of it, has kept us out."""
        if isinstance(exc, TlsFailed) or was_closed(exc):
            way, port = tls_way(self._url), default_port(self._url)
            refuse_tls_fault(self._url, way, port, exc, limit_s / 2)

    def _refuse_stranger(self, exc: StoreUnavailable, limit_s: float) -> None:
        """Raise `ConfigurationError` when another kind of server has hung up."""
        if not was_closed(exc):
            return
        host, port = self._url.host, self._url.port(default_port(self._url))
        if kind := recognised(host, port, limit_s / 2, own=GRPC):
            raise ConfigurationError(
                f"milvus: {kind} answers at {self._url}.",
                hint="Give the address of Milvus's gRPC port (19530 by default).",
            ) from exc

    # --- its release

    @property
    def release(self) -> tuple[int, ...]:
        """Major and minor; empty for a build that is named otherwise."""
        found = re.match(r"(\d+)\.(\d+)", self.version)
        return tuple(map(int, found.groups())) if found else ()

    @property
    def told_release(self) -> Release:
        """The release, with what it does not tell as it is. Connects to know it."""
        client = self.client
        numbers = self.release if client else ()
        return Release(numbers, self.version, is_lite=self.is_lite)

    def _refuse_old(self) -> None:
        is_old = () < self.release < OLDEST
        if is_old and not self.is_lite:
            raise StoreConflict(
                STORE,
                f"{self._url} is Milvus {self.version}; "
                f"{'.'.join(map(str, OLDEST))} or newer is needed.",
                hint="Upgrade the server.",
            )

    @property
    def _refuses_inverted(self) -> bool:
        """Whether it is a server that takes nothing but Trie on VARCHAR (code 1100).

        Connects to know its version.
        """
        is_connected = self.client is not None
        return is_connected and not self.is_lite and () < self.release < INVERTED_SINCE

    def index_type(self, declared: Collection, index: Index) -> str:
        """The type that an index gets here: Trie for INVERTED on an old server."""
        is_text = any(f.name == index.field and f.type == "VARCHAR" for f in declared.fields)
        is_refused = index.type == "INVERTED" and is_text and self._refuses_inverted
        return "Trie" if is_refused else index.type

    def remark_on_type(self, declared: Collection, index: Index) -> str | None:
        """That an index has another type than the declared one; None when it has that."""
        type_ = self.index_type(declared, index)
        if type_ == index.type:
            return None
        return (
            f"The index on {declared.name}.{index.field} is {type_} instead of {index.type}, "
            f"which Milvus {self.version} does not have for VARCHAR (2.4 does)."
        )

    def definition(self, declared: Collection, index: Index) -> str:
        """Type, metric and parameters of an index, for a person to read."""
        params = ", ".join(f"{k}={v}" for k, v in index.params.items())
        parts = (self.index_type(declared, index), index.metric, params)
        return " ".join(part for part in parts if part)

    def is_busy(self, exc: MilvusException) -> bool:
        """Whether the server would take the same call later."""
        return isinstance(translated(exc, str(self._url), "", None), StoreUnavailable | StoreBusy)

    def is_refused(self, exc: Exception) -> bool:
        """Whether the server takes such a call from nobody, now and later."""
        if isinstance(exc, MilvusException) and is_missing(exc):
            return False
        return isinstance(translated(exc, str(self._url), "", None), StoreConflict)

    # --- looking

    @property
    def look_options(self) -> dict[str, Any]:
        """What every call that looks is given: one try, within the time of a look."""
        return {"timeout": _whole(self._timing.connect_timeout_s), **_ONCE}

    @property
    def change_options(self) -> dict[str, Any]:
        """What every call that changes is given: one try, within the time of a change."""
        return {"timeout": _whole(self._timing.index_timeout_s), **_ONCE}

    def live(self, declared: Collection) -> Live:
        """One look at everything declared; three calls and one an index when nothing is missing."""
        with self._errors(declared.name):
            release = self.told_release
            target = self.alias_target(declared.alias) if declared.alias else None
            if goes_beyond(declared, target):
                return Live(target=target, release=release)
            home = AliasHome(declared.name)
            if declared.alias and target is None:
                home = self.alias_home(declared)
            described = self.described(declared.name)
            if described is None:
                return Live(target=target, release=release, home=home)
            found = {index.field: self.index(declared.name, index) for index in declared.indexes}
            indexes = {field: index for field, index in found.items() if index}
            loaded = None
            if declared.load:
                loaded = self.load_state(declared.name) is LoadState.Loaded
            partitions: frozenset[str] = frozenset()
            if declared.partition_names:
                named = self.client.list_partitions(declared.name, **self.look_options)
                partitions = frozenset(named)
            return Live(described, indexes, target, loaded, partitions, release, home)

    def alias_target(self, alias: str) -> str | None:
        """The collection behind an alias; None when there is no such alias."""
        answer = _or_none(lambda: self.client.describe_alias(alias, **self.look_options))
        return answer.get("collection_name") if answer else None

    def described(self, name: str) -> dict[str, Any] | None:
        """The collection of that name or alias; None when there is none."""
        return _or_none(lambda: self.client.describe_collection(name, **self.look_options))

    def is_collection(self, name: str) -> bool:
        """Whether there is a collection of that very name."""
        with self._errors(name):
            found = self.described(name) if name else None
        return found is not None and found.get("collection_name") == name

    def index(self, collection: str, index: Index) -> dict[str, Any] | None:
        """The index of a field, under its own name, else under any.

        Milvus Lite answers with whatever index there is.
        """
        client = self.client
        found: dict[str, Any] | None = None
        try:
            name = index.name or index.field
            found = client.describe_index(collection, name, **self.look_options)
        except MilvusException as exc:
            # What Milvus Lite answers when it has several, but not this one.
            if "multiple indexes" not in str(exc.message):
                raise
        if found is None or found["field_name"] != index.field:
            others = client.list_indexes(collection, index.field, **self.look_options)
            found = None
            if others:
                found = client.describe_index(collection, others[0], **self.look_options)
        return found

    def alias_home(self, declared: Collection) -> AliasHome:
        """Where a missing alias is to lead.

        That is the newest earlier version that is there, as long as the declared one has no rows:
        a collection that another tool has made often has no alias.
        """
        earlier = self._earlier_versions(declared)
        if not earlier:
            return AliasHome(declared.name)
        newest = earlier[-1]
        if self.described(declared.name) is None:
            return AliasHome(newest)
        is_in_use = bool(self.aliases(declared.name))
        if is_in_use:
            return AliasHome(declared.name)
        if self._has_rows(declared.name):
            return AliasHome(declared.name, rival=newest)
        return AliasHome(newest)

    def _earlier_versions(self, declared: Collection) -> Sequence[str]:
        """Earlier versions that are there, oldest first, without those that are declared too."""
        family, number = version_of(declared.name)
        names = self.client.list_collections(**self.look_options)
        others = [each for each in names if each not in {declared.alias, *self.declared_names}]
        own = [each for each in others if version_of(each)[0] == family]
        return sorted((each for each in own if version_of(each)[1] < number), key=version_of)

    def _has_rows(self, name: str) -> bool:
        """Whether a collection has rows. One that is not loaded tells only what it has sealed."""
        if self.load_state(name) is LoadState.Loaded:
            return self.count(name) > 0
        told = self.client.get_collection_stats(name, **self.look_options)
        return int(told.get("row_count", 0)) > 0

    def aliases(self, collection: str) -> list[str]:
        """All aliases that lead to a collection, sorted."""
        told = self.client.list_aliases(collection, **self.look_options)
        return sorted(told["aliases"])

    def stored_rows(self, collection: str) -> int:
        """The rows of a collection. One that is not loaded tells only what it has sealed.

        0 also when there is no such collection.
        """
        if self.described(collection) is None:
            return 0
        if self.load_state(collection) is LoadState.Loaded:
            return self.count(collection)
        told = self.client.get_collection_stats(collection, **self.look_options)
        return int(told.get("row_count") or 0)

    def count(self, collection: str, where: str = "") -> int:
        """The rows of a loaded collection, those included that were written a moment ago."""
        answer = self.client.query(
            collection,
            filter=where,
            output_fields=["count(*)"],
            consistency_level="Strong",
            **self.change_options,
        )
        return int(answer[0]["count(*)"])

    def load_state(self, collection: str) -> LoadState:
        """Whether a collection is loaded."""
        state: LoadState = self.client.get_load_state(collection, **self.look_options)["state"]
        return state


def _whole(seconds: float) -> int:
    """Rounded up, at least 1.

    pymilvus's waits honour only an integer (grpc_handler.wait_for_creating_index).
    """
    return max(1, math.ceil(seconds))


def _or_none(ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return ask()
    except MilvusException as exc:
        if is_missing(exc):
            return None
        raise

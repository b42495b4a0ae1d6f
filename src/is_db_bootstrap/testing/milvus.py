"""Milvus for tests: each one gets a database whose collections, indexes and alias were made ahead."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.milvus.connection import client_arguments
from is_db_bootstrap.testing import milvus_content
from is_db_bootstrap.testing.content import Content, Seal
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, Isolation, Pulse, is_dead, process_mark

#: Counts all databases of this process, whichever blueprint they are for.
_NUMBER = itertools.count()
#: The property of a database with the seal of what it held when its session last looked.
_SEAL = "is_db_bootstrap.kept"
#: Seconds between two looks at what a running test has written to a given server.
_LOOK_S = 1.0
_MINE = re.compile(rf"{PREFIX}_(?P<mark>[0-9a-f]{{6}}_\d+_\d+)_\d+")


class MilvusIsolation(Isolation):
    """A database for each test, so that names and alias are those of production.

    The database that the address names (`default` when it names none) must hold no collection;
    nothing is written there. A database's name says which process made it. On a given server each
    one has a seal among its properties. What a killed session has left, or a session has kept, the
    next one drops only when it holds what the seal vouches for.
    """

    store = "milvus"
    client_errors = (MilvusException, grpc.RpcError)

    def __init__(
        self,
        server: StoreUrl,
        blueprint: Blueprint,
        settings: Settings,
        *,
        ahead: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(server, blueprint, settings, **options)
        self._mark = process_mark()
        self._using = threading.Lock()
        self._client = client(server)
        found = milvus_content.collections(self._client)
        if found:
            raise self.not_ours(f"database {server.database or 'default'}", found)
        self._sweep()
        self._databases = Ahead(self._make, self._remove, size=ahead)
        #: A client, and the text of the seal, for each database that a test uses.
        self._in_test: dict[str, tuple[MilvusClient, str]] = {}
        self._noting = threading.Lock()
        self._pulse = Pulse(self._note_all, _LOOK_S, self.client_errors, name="isdb-milvus-look")

    def take(self) -> StoreUrl:
        """A database of its own, loaded as the blueprint says."""
        name = self._databases.take()
        if self.given:
            with self._noting:
                self._in_test[name] = client(replace(self.server, database=name)), ""
            self._pulse.start()
        return replace(self.server, database=name)

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Dropped soon."""
        with self._noting:
            inside, sealed = self._in_test.pop(url.database, (None, ""))
            if inside and keep:
                self._note(url.database, inside, sealed)
        if inside:
            inside.close()
        if not keep:
            self._databases.done(url.database)

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """A user whose role lacks a privilege.

        The code is one for many causes, so the text decides.
        """
        told = str(exc).lower()
        return "privilegenotpermitted" in told or "permission deny" in told

    def close(self) -> None:
        """Drop all databases but those kept."""
        self._pulse.close()
        try:
            self._databases.close()
        finally:
            self._client.close()

    def _make(self) -> str:
        name = f"{PREFIX}_{self._mark}_{next(_NUMBER)}"
        with self._using:
            self._client.create_database(name, **self._first_seal())
            self.apply(replace(self.server, database=name))
        return name

    def _first_seal(self) -> dict[str, Any]:
        """Vouches for empty collections of the declared names, from before they are made."""
        if not self.given:
            return {}
        seal = Seal(milvus_content.empty(self._declared()))
        return {"properties": {_SEAL: seal.text()}}

    def _declared(self) -> list[str]:
        return [collection.name for collection in self.blueprint.collections]

    def _note_all(self) -> None:
        """Vouch for what the running tests have written."""
        with self._noting:
            for name, (inside, sealed) in list(self._in_test.items()):
                self._in_test[name] = inside, self._note(name, inside, sealed)

    def _note(self, name: str, inside: MilvusClient, sealed: str) -> str:
        """Seal what is there now, unless it is as `sealed` says. Returns the seal's text."""
        seal = Seal.of(milvus_content.collections_and_rows(inside)).text()
        if seal != sealed:
            inside.alter_database_properties(name, properties={_SEAL: seal})
        return seal

    def _remove(self, name: str) -> None:
        """A database that holds something cannot be dropped, nor a collection that an alias points at."""
        with self._using:
            inside = client(replace(self.server, database=name))
            try:
                for collection in inside.list_collections():
                    for alias in inside.list_aliases(collection_name=collection)["aliases"]:
                        inside.drop_alias(alias)
                    inside.drop_collection(collection)
            finally:
                inside.close()
            self._client.drop_database(name)

    def _look(self, database: str) -> Content:
        inside = client(replace(self.server, database=database))
        try:
            return milvus_content.collections_and_rows(inside)
        finally:
            inside.close()

    def _sweep(self) -> None:
        """Drop the databases of processes that are gone; another session may be doing the same."""
        left = [
            n
            for n in self._client.list_databases()
            if (match := _MINE.fullmatch(n)) and is_dead(match["mark"])
        ]
        for name in left:
            self._unless_gone(name, self._refuse_changed)
        for name in left:
            self._unless_gone(name, self._remove_unchanged)

    def _remove_unchanged(self, name: str) -> None:
        """Milvus has no transactions: the last look is right before the removal."""
        self._refuse_changed(name)
        self._remove(name)

    def _unless_gone(self, name: str, call: Callable[[str], None]) -> None:
        try:
            call(name)
        except self.client_errors:
            if name in self._client.list_databases():
                raise

    def _refuse_changed(self, name: str) -> None:
        """A database that holds more than its session vouches for belongs to whoever wrote that."""
        if not self.given:
            return
        seal = Seal.read(self._client.describe_database(name).get(_SEAL))
        # Earlier versions sealed only what they kept. What they left otherwise is judged as new.
        vouched = seal.digests if seal else milvus_content.empty(self._declared())
        found = self._look(name).besides(vouched)
        if found:
            raise self.written_by_others(
                f"database {name}",
                found,
                way_out="If it may go, drop its collections and then the database "
                f"{name}. To keep the rows, copy them to a database of another name first.",
            )


def client(url: StoreUrl) -> MilvusClient:
    """A client with a connection of its own: shared ones outlive their clients."""
    return MilvusClient(**_parameters(url), dedicated=True)


def async_client(url: StoreUrl) -> AsyncMilvusClient:
    """The same for asyncio."""
    return AsyncMilvusClient(**_parameters(url))


def _parameters(url: StoreUrl) -> dict[str, Any]:
    # Milvus Lite ends a connection that pings while nothing is asked.
    return client_arguments(url) | {"grpc_options": {"grpc.keepalive_permit_without_calls": 0}}

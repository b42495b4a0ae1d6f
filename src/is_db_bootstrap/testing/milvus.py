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
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, Isolation, is_dead, process_mark

#: Counts all databases of this process, whichever blueprint they are for.
_NUMBER = itertools.count()
#: The property of a database that was kept, with the seal of what it held then.
_KEPT = "is_db_bootstrap.kept"
_MINE = re.compile(rf"{PREFIX}_(?P<mark>[0-9a-f]{{6}}_\d+_\d+)_\d+")


class MilvusIsolation(Isolation):
    """A database for each test, so that names and alias are those of production.

    The database that the address names (`default` when it names none) must hold no collection; nothing is written there.
    A database's name says which process made it. One that was kept on a given server has a seal among its properties: the
    next session drops it only when it holds what the seal vouches for.
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

    def take(self) -> StoreUrl:
        """A database of its own, loaded as the blueprint says."""
        return replace(self.server, database=self._databases.take())

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Dropped soon."""
        if not keep:
            self._databases.done(url.database)
        elif self.given:
            seal = Seal.of(self._look(url.database)).text()
            self._client.alter_database_properties(url.database, properties={_KEPT: seal})

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """A user whose role lacks a privilege; the code is one for many causes, so the text decides."""
        told = str(exc).lower()
        return "privilegenotpermitted" in told or "permission deny" in told

    def close(self) -> None:
        """Drop all databases but those kept."""
        self._databases.close()
        self._client.close()

    def _make(self) -> str:
        name = f"{PREFIX}_{self._mark}_{next(_NUMBER)}"
        with self._using:
            self._client.create_database(name)
            self.apply(replace(self.server, database=name))
        return name

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
            self._unless_gone(name, self._remove)

    def _unless_gone(self, name: str, call: Callable[[str], None]) -> None:
        try:
            call(name)
        except self.client_errors:
            if name in self._client.list_databases():
                raise

    def _refuse_changed(self, name: str) -> None:
        """A database that was kept, and holds something else since then, belongs to whoever wrote that."""
        if not self.given:
            return
        seal = Seal.read(self._client.describe_database(name).get(_KEPT))
        if seal is None:
            return
        found = self._look(name).besides(seal.digests)
        if found:
            raise self.written_by_others(
                f"database {name}",
                found,
                way_out=f"If it may go, drop its collections and then the database {name}. To keep the rows, copy them to a "
                "database of another name first.",
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

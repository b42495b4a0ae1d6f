"""Milvus for tests: each one gets a database whose collections, indexes and alias were made ahead."""

from __future__ import annotations

import itertools
import re
import threading
from dataclasses import replace
from typing import Any

import grpc
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, Isolation, is_dead, process_mark

_MINE = re.compile(rf"{PREFIX}_(?P<mark>[0-9a-f]{{6}}_\d+_\d+)_\d+")


class MilvusIsolation(Isolation):
    """A database for each test, so that names and alias are those of production.

    The database that the address names (`default` when it names none) must hold no collection; nothing is written there.
    A database's name says which process made it.
    """

    store = "milvus"
    client_errors = (MilvusException, grpc.RpcError)

    def __init__(self, server: StoreUrl, blueprint: Blueprint, settings: Settings, *, ahead: int = 2) -> None:
        super().__init__(server, blueprint, settings)
        self._mark = process_mark()
        self._number = itertools.count()
        self._using = threading.Lock()
        self._client = client(server)
        if self._client.list_collections():
            raise self.not_ours(f"database {server.database or 'default'}")
        self._sweep()
        self._databases = Ahead(self._make, self._remove, size=ahead)

    def take(self) -> StoreUrl:
        """A database of its own, loaded as the blueprint says."""
        return replace(self.server, database=self._databases.take())

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Dropped soon."""
        if not keep:
            self._databases.done(url.database)

    def close(self) -> None:
        """Drop all databases but those kept."""
        self._databases.close()
        self._client.close()

    def _make(self) -> str:
        name = f"{PREFIX}_{self._mark}_{id(self) % 1000}{next(self._number)}"
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

    def _sweep(self) -> None:
        """Drop the databases of processes that are gone."""
        for name in self._client.list_databases():
            match = _MINE.fullmatch(name)
            if match and is_dead(match["mark"]):
                self._remove(name)


def client(url: StoreUrl) -> MilvusClient:
    """A client with a connection of its own: shared ones outlive their clients."""
    return MilvusClient(**_parameters(url), dedicated=True)


def async_client(url: StoreUrl) -> AsyncMilvusClient:
    """The same for asyncio."""
    return AsyncMilvusClient(**_parameters(url))


def _parameters(url: StoreUrl) -> dict[str, Any]:
    hosts = url.hosts if re.search(r":\d+$", url.hosts) else f"{url.hosts}:{443 if url.scheme == 'https' else 19530}"
    given = {
        "uri": f"{url.scheme}://{hosts}",
        "token": f"{url.username}:{url.password}" if url.username else url.password,
        "db_name": url.database,
        # Milvus Lite ends a connection that pings while nothing is asked.
        "grpc_options": {"grpc.keepalive_permit_without_calls": 0},
    }
    return given | ({"server_pem_path": url.ca_file} if url.ca_file else {})

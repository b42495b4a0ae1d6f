"""Milvus for the contract suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from adapters.shop import SHOP, run
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from servers import milvus_client

[COLLECTION] = SHOP.collections
KIND_INDEX = COLLECTION.indexes[1]


NATURES = dict.fromkeys(("collection", "partition", "index", "alias", "load"), "repeatable")


class Adapter:
    """A Milvus that holds nothing."""

    OTHER_SERVER = (ConfigurationError,)
    #: What is different and not missing is a conflict already in the plan; see `test_milvus.py`.
    NATURES = NATURES
    TAMPERINGS = ("released", "index dropped", "alias dropped")
    MENDABLE = TAMPERINGS

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = milvus_client(url)

    def close(self) -> None:
        self.client.close()

    def open(self, url: str | None = None, **timing: float) -> MilvusBootstrapper:
        return MilvusBootstrapper(url or self.url, SHOP, timing=Timing(**timing))

    def migrate_further(self, _: Path) -> None:
        """Another collection behind the alias, as after embedding everything again."""
        later = replace(COLLECTION, name="shop_products_v2")
        run(MilvusBootstrapper(self.url, replace(SHOP, collections=(later,))))

    def snapshot(self) -> object:
        return {name: self._collection(name) for name in sorted(self.client.list_collections())}

    def _collection(self, name: str) -> object:
        indexes = [
            self.client.describe_index(name, index)
            for index in sorted(self.client.list_indexes(name))
        ]
        aliases = sorted(self.client.list_aliases(name)["aliases"])
        return (
            self.client.describe_collection(name),
            indexes,
            aliases,
            self.client.get_load_state(name),
        )

    def tamper(self, kind: str) -> None:
        client = self.client
        if kind == "released":
            client.release_collection(COLLECTION.name)
        elif kind == "index dropped":
            client.release_collection(COLLECTION.name)
            client.drop_index(COLLECTION.name, KIND_INDEX.field)
        else:
            client.drop_alias(COLLECTION.alias)

    def lose_lock(self) -> None:
        raise NotImplementedError("Milvus has no lock")

    def wrong_password(self) -> None:
        """Neither server asks for one here; `test_milvus.py` starts one that does."""

    def refused_logins(self) -> None:
        """Not counted."""

    @contextmanager
    def held_call(self, store: MilvusBootstrapper) -> Iterator[Callable[[], object]]:
        """The server's process is stopped meanwhile: connections stay open and nothing is answered."""
        change = store.plan().changes[0]
        pid = self._pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield lambda: store.apply(change)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _pid(self) -> int:
        port = StoreUrl.parse("milvus", self.url).port(19530)
        return next(
            c.pid
            for c in psutil.net_connections("tcp")
            if c.status == "LISTEN" and c.laddr.port == port and c.pid
        )

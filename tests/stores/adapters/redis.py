"""Redis for the contract suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import redis

from adapters.shop import SHOP, run
from is_db_bootstrap.blueprint import KeyPattern
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

RECORD = "is-db-bootstrap:conventions:shop"
LOCK = "is-db-bootstrap:lock:shop"


NATURES = {"conventions": "atomic"}


class Adapter:
    """A Redis that holds nothing but the conventions."""

    OTHER_SERVER = (ConfigurationError,)
    NATURES = NATURES
    TAMPERINGS = ("record deleted", "record changed")
    #: Nothing that a verify sees without --strict. The tests of repairs have lifetimes.
    MENDABLE = ()

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url, decode_responses=True)

    def close(self) -> None:
        self.client.close()

    def open(self, url: str | None = None, **timing: float) -> RedisBootstrapper:
        return RedisBootstrapper(url or self.url, SHOP, timing=Timing(**timing))

    def migrate_further(self, _: Path) -> None:
        more = KeyPattern("more", "shop:more:{id}", "string", 60, "web", "of a newer version")
        run(self.open())
        run(RedisBootstrapper(self.url, replace(SHOP, keys=(*SHOP.keys, more))))

    def snapshot(self) -> object:
        return {
            key: (self.client.dump(key), self.client.pttl(key))
            for key in sorted(self.client.scan_iter())
        }

    def tamper(self, kind: str) -> None:
        if kind == "record deleted":
            self.client.delete(RECORD)
        else:
            self.client.set(RECORD, self.client.get(RECORD).replace("86400", "60"))

    def lose_lock(self) -> None:
        assert self.client.delete(LOCK) == 1

    def wrong_password(self) -> str:
        url = StoreUrl.parse("redis", self.url)
        return f"redis://somebody:wrong@{url.hosts}/0"

    def refused_logins(self) -> int | None:
        return int(self.client.info("commandstats").get("cmdstat_auth", {}).get("failed_calls", 0))

    @contextmanager
    def held_call(self, store: RedisBootstrapper) -> Iterator[Callable[[], object]]:
        change = store.plan().changes[0]
        self.client.client_pause(60_000, all=False)
        try:
            yield lambda: store.apply(change)
        finally:
            self.client.client_unpause()

"""A test session: servers that are started when first needed, and clean stores for one test after the other."""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.testing import clients
from is_db_bootstrap.testing.isolation import Isolation
from is_db_bootstrap.testing.sources import LocalServers, Source, without_addresses

if TYPE_CHECKING:
    import neo4j as neo4j_client
    import pymilvus
    import redis as redis_client
    import sqlalchemy as sa

_ISOLATIONS: Mapping[StoreName, str] = {
    "postgres": "PostgresIsolation",
    "neo4j": "Neo4jIsolation",
    "milvus": "MilvusIsolation",
    "redis": "RedisIsolation",
}


class TestSession:
    """What the tests of one process share.

    An error of a blueprint or server is kept, and raised for each test that needs it.

    `say` tells the user one line while a test waits, and at the end what could not be removed.
    """

    __test__ = False  # pytest would collect the name

    def __init__(
        self,
        source: Source | None = None,
        *,
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - what is said is dropped
    ) -> None:
        self._source = source or LocalServers()
        self._say = say
        self._isolations: dict[tuple[StoreName, int], Isolation | BootstrapError] = {}
        #: All that were begun, also those of which no clean store can be had any more: each is
        #: closed at the end.
        self._begun_ones: list[Isolation] = []
        self._blueprints: dict[str, Blueprint] = {}
        self._addresses: dict[StoreName, StoreUrl] = {}
        self._kept = False
        #: Errors that no test was told of yet.
        self._untold: dict[tuple[StoreName, int], BootstrapError] = {}
        #: What went wrong outside of a test, in words. A session with any must not end as a
        #: success.
        self.troubles: list[str] = []

    def blueprint(self, name: str | Blueprint) -> Blueprint:
        """The blueprint of a name, a folder or `module:ATTRIBUTE`, loaded once."""
        if isinstance(name, Blueprint):
            return self._blueprints.setdefault(f"{name.name} {id(name)}", name)
        if name not in self._blueprints:
            self._blueprints[name] = load_blueprint(name)
        return self._blueprints[name]

    @contextmanager
    def stores(self, name: str | Blueprint) -> Iterator[Stores]:
        """Clean stores of one blueprint; given back at the end, unless `keep` was called."""
        stores = Stores(self, self.blueprint(name))
        try:
            yield stores
        finally:
            stores.close()

    def isolation(self, store: StoreName, blueprint: Blueprint) -> Isolation:
        """What keeps the tests of `store` apart; begun when first asked for."""
        key = store, id(blueprint)
        if key not in self._isolations:
            try:
                self._isolations[key] = self._begun(store, blueprint)
            except BootstrapError as exc:
                self._isolations[key] = exc
        found = self._isolations[key]
        if isinstance(found, BootstrapError):
            self._untold.pop(key, None)
            raise found
        return found

    def prepare(self, blueprint: Blueprint) -> None:
        """Begin all stores of `blueprint` at once; errors are met again when a store is taken."""

        def begin(store: StoreName) -> None:
            with suppress(BootstrapError):
                self.isolation(store, blueprint)

        missing = [s for s in blueprint.stores if (s, id(blueprint)) not in self._isolations]
        if missing:
            with ThreadPoolExecutor(len(missing)) as pool:
                list(pool.map(begin, missing))

    def settings(self, blueprint: Blueprint) -> Settings:
        """The blueprint's own settings as the environment has them, without addresses."""
        return replace(Settings.load(blueprint, environ=without_addresses(os.environ)), stores={})

    def failed(
        self, store: StoreName, blueprint: Blueprint, error: BootstrapError, *, is_told: bool
    ) -> None:
        """Remember that no clean store can be had.

        `is_told` says that a test fails by this error.
        """
        if not is_told:
            self._untold[store, id(blueprint)] = error
        failed = self._isolations.get((store, id(blueprint)))
        self._isolations[store, id(blueprint)] = error
        if isinstance(failed, Isolation):
            with suppress(BootstrapError), failed.errors(failed.server):
                failed.make_way()

    def make_way(self, isolation: Isolation) -> None:
        """Have the isolations of other blueprints give up a place that there is once only."""
        for other in self._begun_ones:
            if other is not isolation and other.store == isolation.store:
                with suppress(BootstrapError), other.errors(other.server):
                    other.make_way()

    def kept(self, store: StoreName) -> None:
        """Servers are to run on.

        The next test of a store with one place only gets another server, if there is one.
        """
        self._kept = True
        if store == "neo4j" and not self._source.given:
            self._addresses.pop(store, None)
            for key in [k for k in self._isolations if k[0] == store]:
                del self._isolations[key]

    def close(self) -> None:
        """Remove what was made and stop what was started, except what is kept."""
        for isolation in self._begun_ones:
            self.make_way(isolation)
            self._close(isolation)
        if self._source.given:  # a server of our own goes, with all that is on it
            for (store, _), error in self._untold.items():
                self._trouble(f"{store}: after its last test: {_in_one_line(error)}")
        self._untold.clear()
        self._isolations.clear()
        self._begun_ones.clear()
        self._source.close(keep=self._kept)

    def _close(self, isolation: Isolation) -> None:
        try:
            with isolation.errors(isolation.server):
                isolation.close()
        except BootstrapError as exc:
            if self._source.given:
                told = _in_one_line(exc)
                self._trouble(
                    f"{isolation.store}: what this test run made could not be removed: {told}"
                )

    def _trouble(self, line: str) -> None:
        self.troubles.append(line)
        self._say(line)

    def _begun(self, store: StoreName, blueprint: Blueprint) -> Isolation:
        try:
            kind = getattr(importlib.import_module(f"{__package__}.{store}"), _ISOLATIONS[store])
        except ModuleNotFoundError as exc:
            raise ConfigurationError(
                f"{store}: its client library is not installed ({exc}).",
                hint=f"pip install 'is-db-bootstrap[{store}]'",
            ) from exc
        if store not in self._addresses:
            self._addresses[store] = self._source.address(store)
        server = self._addresses[store]
        with kind.errors(server):
            begun = cast(
                "Isolation",
                kind(
                    server,
                    blueprint,
                    self.settings(blueprint),
                    given=self._source.given,
                    say=self._say,
                ),
            )
        self._begun_ones.append(begun)
        return begun


def _in_one_line(error: BootstrapError) -> str:
    return " ".join(str(error).split())


class Stores:
    """Clean stores of one blueprint for one test.

    Each is taken, and its client opened, when first used.
    """

    def __init__(self, session: TestSession, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self._session = session
        self._taken: dict[StoreName, StoreUrl] = {}
        self._clients: dict[StoreName, Any] = {}
        self._closing = ExitStack()
        self._keep = False

    @property
    def postgres(self) -> sa.Engine:
        """An engine on a database of its own, at the newest revision."""
        return cast("sa.Engine", self._client("postgres"))

    @property
    def neo4j(self) -> neo4j_client.Driver:
        """A driver on a database without nodes, with the blueprint's constraints and indexes."""
        return cast("neo4j_client.Driver", self._client("neo4j"))

    @property
    def milvus(self) -> pymilvus.MilvusClient:
        """A client on a database of its own, with empty, loaded collections behind their aliases."""
        return cast("pymilvus.MilvusClient", self._client("milvus"))

    @property
    def redis(self) -> redis_client.Redis:
        """A client on a logical database that holds the record of conventions, a mark, and nothing else."""
        return cast("redis_client.Redis", self._client("redis"))

    def url(self, store: StoreName) -> StoreUrl:
        """The address of one clean store. Raises `BootstrapError` when it cannot be had."""
        if store not in self._taken:
            if store not in self.blueprint.stores:
                raise ConfigurationError(
                    f"{self.blueprint.name} declares nothing for {store}.",
                    hint=f"It has {', '.join(self.blueprint.stores)}.",
                )
            isolation = self._session.isolation(store, self.blueprint)
            try:
                self._session.make_way(isolation)
                with isolation.errors(isolation.server):
                    self._taken[store] = isolation.take()
            except BootstrapError as exc:
                self._session.failed(store, self.blueprint, exc, is_told=True)
                raise
        return self._taken[store]

    @property
    def settings(self) -> Settings:
        """What `is_db_bootstrap` itself reads, with the addresses of all the blueprint's stores."""
        self._session.prepare(self.blueprint)
        found = self._session.settings(self.blueprint)
        return replace(found, stores={store: self.url(store) for store in self.blueprint.stores})

    @property
    def environ(self) -> dict[str, str]:
        """`POSTGRES_URL` and so on of all the blueprint's stores, passwords included."""
        return {f"{store.upper()}_URL": url.reveal() for store, url in self.settings.stores.items()}

    @property
    def shown(self) -> dict[str, str]:
        """The addresses of those that were taken, without passwords."""
        return {f"{store.upper()}_URL": str(url) for store, url in self._taken.items()}

    @property
    def taken(self) -> dict[str, str]:
        """The same of those that were taken."""
        return {f"{store.upper()}_URL": url.reveal() for store, url in self._taken.items()}

    def open_async(self, store: StoreName) -> tuple[Any, Callable[[], Any]]:
        """A client for asyncio, and the coroutine function that closes it, to be awaited in the same loop."""
        return clients.open_async_client(
            store, self.url(store), self._session.settings(self.blueprint).schema
        )

    def keep(self) -> None:
        """Leave the stores as they are, and their servers running, until the next session."""
        self._keep = True

    def close(self) -> None:
        """Close the clients and give the stores back."""
        self._closing.close()
        for store, url in self._taken.items():
            try:
                isolation = self._session.isolation(store, self.blueprint)
                with isolation.errors(isolation.server):
                    isolation.give_back(url, keep=self._keep)
            except BootstrapError as exc:
                # The next test must not find what this one left.
                self._session.failed(store, self.blueprint, exc, is_told=False)
            if self._keep:
                self._session.kept(store)
        self._taken.clear()

    def _client(self, store: StoreName) -> Any:
        if store not in self._clients:
            client, close = clients.open_client(
                store, self.url(store), self._session.settings(self.blueprint).schema
            )
            self._clients[store] = client
            self._closing.callback(close)
        return self._clients[store]


_session: TestSession | None = None


@contextmanager
def isolated_stores(blueprint: str | Blueprint) -> Iterator[Stores]:
    """Clean stores of `blueprint` on the local stack, for `unittest` and scripts.

    The servers start with the first use in a process and are left to its end. Raises
    `BootstrapError`.
    """
    global _session  # noqa: PLW0603 - one for the process, as its servers are
    if _session is None:
        _session = TestSession()
        atexit.register(_session.close)
    with _session.stores(blueprint) as stores:
        yield stores

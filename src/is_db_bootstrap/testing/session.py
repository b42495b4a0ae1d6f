"""A test session: servers that start when first needed, and clean stores for each test."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from is_db_bootstrap import client_imports
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.settings.tls import tls_variables
from is_db_bootstrap.stores.kinds import KINDS
from is_db_bootstrap.testing import clients
from is_db_bootstrap.testing.isolation import Isolation
from is_db_bootstrap.testing.sources import LocalServers, Source, without_addresses

if TYPE_CHECKING:
    import neo4j as neo4j_client
    import pymilvus
    import redis as redis_client
    import sqlalchemy as sa

#: The class in each store's module that keeps tests apart.
_ISOLATIONS: Mapping[StoreName, str] = {
    "postgres": "PostgresIsolation",
    "neo4j": "Neo4jIsolation",
    "milvus": "MilvusIsolation",
    "redis": "RedisIsolation",
}


class TestSession:
    """What the tests of one process share.

    An error of a blueprint or server is kept, and raised for each test that needs the same store.
    `run` names the run of pytest-xdist that the process is a worker of. `say` tells the user one
    line while a test waits, and at the end what could not be removed.

    `peers` are the sessions of this process, one for each scope of fixtures. A session adds itself.
    """

    __test__ = False  # pytest would collect the name

    def __init__(
        self,
        source: Source | None = None,
        *,
        run: str = "",
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - no user reads the line
        peers: list[TestSession] | None = None,
    ) -> None:
        self._peers = [] if peers is None else peers
        self._peers.append(self)
        #: The stores that a test, a module or the whole session uses now.
        self.in_use: set[StoreName] = set()
        self._source = source or LocalServers()
        self._run = run
        self._say = say
        self._isolations: dict[tuple[StoreName, int], Isolation | BootstrapError] = {}
        #: All isolations that were begun. Each is closed at the end, also when no clean store can
        #: be had of it any more. Other sessions of this process look here too.
        self.opened: list[Isolation] = []
        self._blueprints: dict[str, Blueprint] = {}
        self._addresses: dict[StoreName, StoreUrl] = {}
        #: Whether a test's stores were kept, so that the servers are to run on.
        self._kept = False
        #: Errors that no test was told of yet.
        self._untold: dict[tuple[StoreName, int], BootstrapError] = {}
        #: What went wrong outside of a test, in words. A session with troubles must not end as a
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
        """Clean stores of one blueprint.

        They are given back at the end of the block, unless `keep` was called.
        """
        stores = Stores(self, self.blueprint(name))
        try:
            yield stores
        finally:
            stores.close()

    def isolation(self, store: StoreName, blueprint: Blueprint) -> Isolation:
        """What keeps the tests of `store` apart, opened when first asked for.

        Raises the `BootstrapError` of the first try, each time.
        """
        key = store, id(blueprint)
        if key not in self._isolations:
            try:
                self._isolations[key] = self._open_isolation(store, blueprint)
            except BootstrapError as exc:
                self._isolations[key] = exc
        found = self._isolations[key]
        if isinstance(found, BootstrapError):
            self._untold.pop(key, None)
            raise found
        return found

    def prepare(self, blueprint: Blueprint) -> None:
        """Open the isolations of all stores of `blueprint`, side by side.

        Errors are kept, and raised when a store is taken. What the threads need is imported before
        they begin: two threads that import the same packages may meet half of one.
        """

        def open_one(store: StoreName) -> None:
            with suppress(BootstrapError):
                self.isolation(store, blueprint)

        missing = [
            store for store in blueprint.stores if (store, id(blueprint)) not in self._isolations
        ]
        for store in missing:
            with suppress(BootstrapError):
                _isolation_class(store)
        if missing:
            with ThreadPoolExecutor(len(missing)) as pool:
                list(pool.map(open_one, missing))

    def settings(self, blueprint: Blueprint) -> Settings:
        """The blueprint's own settings as the environment has them, without addresses."""
        environ = without_addresses(os.environ)
        return replace(Settings.load(blueprint, environ=environ), stores={})

    def remember_failure(
        self, store: StoreName, blueprint: Blueprint, error: BootstrapError, *, is_told: bool
    ) -> None:
        """Remember that no clean store can be had.

        `is_told` says that a test fails by this error.
        """
        key = store, id(blueprint)
        if not is_told:
            self._untold[key] = error
        isolation = self._isolations.get(key)
        self._isolations[key] = error
        if isinstance(isolation, Isolation):
            with suppress(BootstrapError), isolation.errors(isolation.server):
                isolation.make_way()

    def make_way(self, isolation: Isolation) -> None:
        """Have the isolations of other blueprints give up a place that exists only once."""
        for other in [each for peer in self._peers for each in peer.opened]:
            is_beside = other is not isolation and other.store == isolation.store
            if is_beside:
                with suppress(BootstrapError), other.errors(other.server):
                    other.make_way()

    def refuse_if_held(self, isolation: Isolation) -> None:
        """Raise `ConfigurationError` when fixtures of another scope have the only clean store.

        They give it back only after this test, so waiting for it would be in vain.
        """
        store = isolation.store
        is_held = any(store in peer.in_use for peer in self._peers if peer is not self)
        if is_held and isolation.has_one_place:
            raise ConfigurationError(
                f"{store}: {isolation.server} has one clean store only, and fixtures of another "
                "scope (module_…, session_…) use that one now.",
                hint="Use fixtures of one scope for it, or --stores-from local.",
            )

    def note_use(self, store: StoreName, *, begins: bool) -> None:
        """Note that a store is used from now on, or no more."""
        if begins:
            self.in_use.add(store)
        else:
            self.in_use.discard(store)

    def note_kept(self, store: StoreName) -> None:
        """Note that a test's store was kept, so that the servers run on.

        Neo4j has one database only, so its next test gets another server, where we start servers.
        """
        self._kept = True
        if store == "neo4j" and not self._source.given:
            self._addresses.pop(store, None)
            keys = [key for key in self._isolations if key[0] == store]
            for key in keys:
                del self._isolations[key]

    def close(self) -> None:
        """Remove what was made and stop what was started, except what is kept."""
        try:
            for isolation in self.opened:
                self.make_way(isolation)
                self._close_isolation(isolation)
            if self._source.given:  # a server of our own goes, with all that is on it
                for (store, _), error in self._untold.items():
                    self._note_trouble(f"{store}: after its last test: {_one_line(error)}")
        finally:
            self._untold.clear()
            self._isolations.clear()
            self.opened.clear()
            self._source.close(keep=self._kept)

    def _close_isolation(self, isolation: Isolation) -> None:
        """Close one isolation. On a given server, an error is a trouble."""
        try:
            with isolation.errors(isolation.server):
                isolation.close()
        except BootstrapError as exc:
            if self._source.given:
                reason = _one_line(exc)
                self._note_trouble(
                    f"{isolation.store}: what this test run made could not be removed: {reason}"
                )

    def _note_trouble(self, line: str) -> None:
        self.troubles.append(line)
        self._say(line)

    def _open_isolation(self, store: StoreName, blueprint: Blueprint) -> Isolation:
        """The isolation of one store on the source's server, which is started if needed."""
        kind = _isolation_class(store)
        if store not in self._addresses:
            self._addresses[store] = self._source.address(store)
        server = self._addresses[store]
        with kind.errors(server):
            opened = kind(
                server,
                blueprint,
                self.settings(blueprint),
                given=self._source.given,
                run=self._run,
                say=self._say,
            )
        self.opened.append(opened)
        return opened


def _isolation_class(store: StoreName) -> type[Isolation]:
    """The class that keeps the tests of `store` apart.

    What its threads need of the store is imported with it (`TestSession.prepare` says why). Raises
    `ConfigurationError` when the store's client library is not installed.
    """
    try:
        module = client_imports.import_module(f"{__package__}.{store}")
        client_imports.import_module(KINDS[store].module_name("bootstrapper"))
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"{store}: its client library is not installed ({exc}).",
            hint=f"pip install 'is-db-bootstrap[{store}]'",
        ) from exc
    found: type[Isolation] = getattr(module, _ISOLATIONS[store])
    return found


def _url_variable(store: StoreName) -> str:
    """The environment variable that a store's address is read from."""
    return f"{store.upper()}_URL"


def _one_line(error: BootstrapError) -> str:
    return " ".join(str(error).split())


class Stores:
    """Clean stores of one blueprint for one test.

    Each store is taken, and its client opened, when first used.
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
        """An engine on a database of the test's own, at the newest revision."""
        return cast("sa.Engine", self._open_client("postgres"))

    @property
    def neo4j(self) -> neo4j_client.Driver:
        """A driver on a database without nodes, with the blueprint's constraints and indexes."""
        return cast("neo4j_client.Driver", self._open_client("neo4j"))

    @property
    def milvus(self) -> pymilvus.MilvusClient:
        """A client on a database of the test's own.

        The blueprint's collections are there, empty and loaded, behind their aliases.
        """
        return cast("pymilvus.MilvusClient", self._open_client("milvus"))

    @property
    def redis(self) -> redis_client.Redis:
        """A client on a logical database.

        The database holds the record of conventions, a mark, and nothing else.
        """
        return cast("redis_client.Redis", self._open_client("redis"))

    def url(self, store: StoreName) -> StoreUrl:
        """The address of one clean store. Raises `BootstrapError` when there is none."""
        if store not in self._taken:
            self._taken[store] = self._take_store(store)
        return self._taken[store]

    def _take_store(self, store: StoreName) -> StoreUrl:
        """Take a clean store. An error is remembered for the tests that come after."""
        if store not in self.blueprint.stores:
            raise ConfigurationError(
                f"{self.blueprint.name} declares nothing for {store}.",
                hint=f"It has {', '.join(self.blueprint.stores)}.",
            )
        isolation = self._session.isolation(store, self.blueprint)
        self._session.refuse_if_held(isolation)
        try:
            self._session.make_way(isolation)
            with isolation.errors(isolation.server):
                taken = isolation.take()
        except BootstrapError as exc:
            self._session.remember_failure(store, self.blueprint, exc, is_told=True)
            raise
        self._session.note_use(store, begins=True)
        return taken

    @property
    def settings(self) -> Settings:
        """What `is_db_bootstrap` itself reads, with the addresses of all the blueprint's stores."""
        self._session.prepare(self.blueprint)
        found = self._session.settings(self.blueprint)
        addresses = {store: self.url(store) for store in self.blueprint.stores}
        return replace(found, stores=addresses)

    @property
    def environ(self) -> dict[str, str]:
        """`POSTGRES_URL` and so on of all the blueprint's stores, passwords included.

        Where a store has files of TLS, their variables are there too.
        """
        found: dict[str, str] = {}
        for store, url in self.settings.stores.items():
            found |= {_url_variable(store): url.reveal(), **tls_variables(url)}
        return found

    @property
    def shown(self) -> dict[str, str]:
        """The addresses of the stores that were taken, without passwords."""
        return {_url_variable(store): str(url) for store, url in self._taken.items()}

    @property
    def taken(self) -> dict[str, str]:
        """The addresses of the stores that were taken, passwords included."""
        return {_url_variable(store): url.reveal() for store, url in self._taken.items()}

    def open_async(self, store: StoreName) -> tuple[Any, Callable[[], Any]]:
        """A client for asyncio, and the coroutine function that closes it.

        The client must be closed in the event loop in which it was used.
        """
        schema = self._session.settings(self.blueprint).schema
        return clients.open_async_client(store, self.url(store), schema)

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
                # The next test must not find what this test left.
                self._session.remember_failure(store, self.blueprint, exc, is_told=False)
            self._session.note_use(store, begins=False)
            if self._keep:
                self._session.note_kept(store)
        self._taken.clear()

    def _open_client(self, store: StoreName) -> Any:
        if store not in self._clients:
            schema = self._session.settings(self.blueprint).schema
            client, close = clients.open_client(store, self.url(store), schema)
            self._clients[store] = client
            self._closing.callback(close)
        return self._clients[store]


_session: TestSession | None = None


@contextmanager
def isolated_stores(blueprint: str | Blueprint) -> Iterator[Stores]:
    """Clean stores of `blueprint` on the local stack, for `unittest` and scripts.

    The servers start with the first use in a process, and stop at the end of the process. Raises
    `BootstrapError`.
    """
    global _session  # noqa: PLW0603 - a process has one session, as it has one set of servers
    if _session is None:
        _session = TestSession()
        atexit.register(_session.close)
    with _session.stores(blueprint) as stores:
        yield stores

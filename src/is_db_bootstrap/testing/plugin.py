"""The pytest plugin.

Its fixtures are `postgres`, `neo4j`, `milvus`, `redis`, `stores` and `is_db_settings`. Those whose
names begin with `module_` and `session_` are in `scoped_fixtures.py`, those for asyncio in
`async_plugin.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from is_db_bootstrap.testing.fixture_stores import (
    close_sessions,
    configured_blueprint,
    marked_blueprint,
    open_client,
    stores_of_scope,
    take_all,
)
from is_db_bootstrap.testing.plain_imports import import_plainly

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.testing.session import Stores

#: The stores of a test.
_STORES = pytest.StashKey["Stores"]()
#: Whether a worker of xdist could not give all stores back.
_TROUBLED = pytest.StashKey[bool]()
#: The name under which a worker of xdist reports its trouble to the controller.
_TROUBLE = "is_db_bootstrap_trouble"

import_plainly()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini values, described in docs/how-to/test.md."""
    group = parser.getgroup("is-db-bootstrap", "stores for tests (is-db-bootstrap)")
    group.addoption(
        "--stores-from",
        choices=("local", "env", "containers"),
        default=None,
        metavar="SOURCE",
        help="servers of the local stack (default), of the environment (POSTGRES_URL, …), "
        "or in containers",
    )
    group.addoption(
        "--keep-stores",
        action="store_true",
        help="leave the stores of a failing test as they are and say where",
    )
    group.addoption(
        "--keep-servers",
        action="store_true",
        help="leave the servers running, so that the next session starts sooner",
    )
    group.addoption(
        "--store-version",
        action="append",
        default=[],
        metavar="STORE=VERSION",
        help="version of a server that is started, such as postgres=17. May be repeated.",
    )
    parser.addini(
        "is_db_store_versions",
        "defaults of --store-version, one a line",
        type="linelist",
        default=[],
    )
    parser.addini(
        "is_db_blueprint",
        "blueprint of the stores: an installed one, a folder, or module:ATTRIBUTE",
        default="",
    )
    parser.addini("is_db_stores_from", "default of --stores-from", default="local")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and fixtures for asyncio when pytest-asyncio or anyio is there."""
    config.addinivalue_line(
        "markers", "blueprint(name): the blueprint of this test's stores (is-db-bootstrap)"
    )
    from is_db_bootstrap.testing import scoped_fixtures

    config.pluginmanager.register(scoped_fixtures, "is_db_bootstrap_scoped")
    if config.pluginmanager.hasplugin("asyncio") or config.pluginmanager.hasplugin("anyio"):
        from is_db_bootstrap.testing import async_plugin

        config.pluginmanager.register(async_plugin, "is_db_bootstrap_async")
    if config.pluginmanager.hasplugin("asyncio"):
        from is_db_bootstrap.testing import asyncio_clients

        config.pluginmanager.register(asyncio_clients, "is_db_bootstrap_asyncio")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give everything back, after the last fixture. A session that could not do so fails.

    A worker of xdist reports its end only after this hook, and xdist waits for the report.
    """
    own_trouble = close_sessions(session.config)
    troubled = own_trouble or session.config.stash.get(_TROUBLED, False)
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_TROUBLE] = troubled
    if troubled and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001 - xdist's name
    """Note whether the worker of xdist that has ended could not give all stores back."""
    if getattr(node, "workeroutput", {}).get(_TROUBLE):
        node.config.stash[_TROUBLED] = True


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give everything back also from a session that did not come to its end."""
    close_sessions(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 - pytest's name
) -> Generator[None, Any, Any]:
    """Keep the stores of a failing test, and say in its report how to connect.

    CI systems keep reports and pass them on, so passwords stand in a file of mode 0600 only.
    """
    report: Any = yield
    stores = item.stash.get(_STORES, None)
    may_keep = report.failed and item.config.getoption("--keep-stores")
    if may_keep and stores and stores.taken:
        stores.keep()
        section = _kept_section(stores)
        report.sections.append(("stores kept until the next session", section))
    return report


def _kept_section(stores: Stores) -> str:
    """Where the kept stores are, without passwords, and which file has these."""
    from is_db_bootstrap.testing.kept import note

    lines = [f"{name}={url}" for name, url in stores.shown.items()]
    file = note(stores.taken)
    return "\n".join([*lines, f"With passwords, for its owner: {file}"])


@pytest.fixture
def is_db_blueprint(request: pytest.FixtureRequest) -> str | Blueprint:
    """The blueprint: the marker's, else that of the variable, the ini option or the project file.

    Override this fixture to choose another blueprint.
    """
    return marked_blueprint(request) or configured_blueprint(request.config)


@pytest.fixture
def _is_db_stores(
    request: pytest.FixtureRequest, is_db_blueprint: str | Blueprint
) -> Iterator[Stores]:
    with stores_of_scope(request, "function", is_db_blueprint) as stores:
        request.node.stash[_STORES] = stores
        yield stores


@pytest.fixture
def postgres(_is_db_stores: Stores) -> Any:
    """A SQLAlchemy `Engine` on a database of the test's own, at the blueprint's newest revision."""
    return open_client(_is_db_stores, "postgres")


@pytest.fixture
def neo4j(_is_db_stores: Stores) -> Any:
    """A `neo4j.Driver` on a database without nodes.

    The blueprint's constraints and indexes are there.
    """
    return open_client(_is_db_stores, "neo4j")


@pytest.fixture
def milvus(_is_db_stores: Stores) -> Any:
    """A `MilvusClient` on a database of the test's own.

    The blueprint's collections are there, empty and loaded, behind their aliases.
    """
    return open_client(_is_db_stores, "milvus")


@pytest.fixture
def redis(_is_db_stores: Stores) -> Any:
    """A `redis.Redis` on a logical database without keys but the blueprint's record and a mark."""
    return open_client(_is_db_stores, "redis")


@pytest.fixture
def stores(_is_db_stores: Stores) -> Stores:
    """All stores of the blueprint.

    The object has `.postgres`, `.neo4j`, `.milvus`, `.redis`, `.settings` and `.environ`.
    """
    return take_all(_is_db_stores)


@pytest.fixture
def is_db_settings(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> TestedSettings:
    """What the application under test should read.

    `set_environ()` sets the environment for the test.
    """
    return TestedSettings(stores, monkeypatch)


class TestedSettings:
    """The addresses of one test's stores.

    `settings` is for this package, and `environ` for any application.
    """

    __test__ = False  # pytest would collect the name

    def __init__(self, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = stores.settings
        self.environ = stores.environ
        self._monkeypatch = monkeypatch

    def set_environ(self, **names: str) -> None:
        """Set `POSTGRES_URL` and so on until the test's end.

        An argument gives a store's variable another name: `postgres="DATABASE_URL"`. Variables that
        contradict the addresses (`DATABASE_URL`, `DB_HOST`, `POSTGRES_PASSWORD`, …) are unset.
        """
        import os

        from is_db_bootstrap.settings.tls import tls_variables
        from is_db_bootstrap.testing.sources import without_addresses

        kept = without_addresses(os.environ)
        contradicting = [name for name in os.environ if name not in kept]
        for name in contradicting:
            self._monkeypatch.delenv(name)
        for store, url in self.settings.stores.items():
            name = names.get(store, f"{store.upper()}_URL")
            self._monkeypatch.setenv(name, url.reveal())
            for variable, value in tls_variables(url).items():
                self._monkeypatch.setenv(variable, value)

"""The pytest plugin.

Its fixtures are `postgres`, `neo4j`, `milvus`, `redis`, `stores` and `is_db_settings`. Those whose
names begin with `module_` and `session_` are in `scoped_fixtures.py`, those for asyncio in
`async_plugin.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.testing.session import Stores, TestSession

#: The session of stores of each scope.
_SESSIONS = pytest.StashKey[dict[str, "TestSession"]]()
_STORES = pytest.StashKey["Stores"]()
#: The same sessions, as these know each other.
_PEERS = pytest.StashKey[list["TestSession"]]()
#: Whether a worker of xdist could not give all stores back.
_TROUBLED = pytest.StashKey[bool]()
#: The name under which a worker of xdist reports its trouble to the controller.
_TROUBLE = "is_db_bootstrap_trouble"


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
    own_trouble = _close_session(session.config)
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
    _close_session(config)


def _close_session(config: pytest.Config) -> bool:
    """End the process's sessions of stores. Returns whether anything could not be given back."""
    sessions = config.stash.get(_SESSIONS, {})
    config.stash[_SESSIONS] = {}
    config.stash[_PEERS] = []
    with ExitStack() as closing:  # each is closed, also when another one fails
        for session in sessions.values():
            closing.callback(session.close)
    return any(session.troubles for session in sessions.values())


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


def session_of_scope(config: pytest.Config, scope: str) -> TestSession:
    """The process's session of a scope, made when first needed.

    Tests without stores cost nothing. Each scope has a session, because the stores of a module live
    beside those of its tests. Raises `ConfigurationError` for a version that is none.
    """
    sessions = config.stash.setdefault(_SESSIONS, {})
    if scope not in sessions:
        from is_db_bootstrap.testing.choice import chosen_versions, source
        from is_db_bootstrap.testing.session import TestSession

        name = config.getoption("--stores-from") or config.getini("is_db_stores_from")
        chosen = [*config.getini("is_db_store_versions"), *config.getoption("--store-version")]
        servers = source(
            name,
            keep_running=config.getoption("--keep-servers"),
            versions=chosen_versions(chosen),
        )
        worker_input = getattr(config, "workerinput", {})
        sessions[scope] = TestSession(
            servers,
            run=worker_input.get("testrunuid", ""),
            say=lambda line: _print_line(config, line),
            peers=config.stash.setdefault(_PEERS, []),
        )
    return sessions[scope]


def _print_line(config: pytest.Config, line: str) -> None:
    """Print one line on the terminal, whatever pytest captures.

    A worker of xdist writes to the terminal of the session.
    """
    import sys

    capture: Any = config.pluginmanager.getplugin("capturemanager")
    uncaptured = capture.global_and_fixture_disabled() if capture else nullcontext()
    text = f"\nis-db-bootstrap: {line}"
    with uncaptured:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the user reads it


@pytest.fixture
def is_db_blueprint(request: pytest.FixtureRequest) -> str | Blueprint:
    """The blueprint: the marker's, else that of the variable, the ini option or the project file.

    Override this fixture to choose another blueprint.
    """
    return marked_blueprint(request) or configured_blueprint(request.config)


def marked_blueprint(request: pytest.FixtureRequest) -> str | Blueprint:
    """The blueprint of the nearest marker. Empty when there is none."""
    marker = request.node.get_closest_marker("blueprint")
    if marker is None:
        return ""
    chosen: str | Blueprint = marker.args[0]
    return _loadable_name(request.config, chosen) if isinstance(chosen, str) else chosen


def configured_blueprint(config: pytest.Config) -> str:
    """The blueprint that no test names: as for the command, with the ini option as a file.

    The order is: the variable `IS_DB_BOOTSTRAP_BLUEPRINT`, the ini option, the project file from
    pytest's root folder upwards. The test fails when none of them names one, because a default
    would hide that.
    """
    from is_db_bootstrap.blueprint.load import loadable_name
    from is_db_bootstrap.errors import BootstrapError
    from is_db_bootstrap.settings import chosen_blueprint
    from is_db_bootstrap.settings.sources import BLUEPRINT_VARIABLE, process_variable

    named = config.getini("is_db_blueprint")
    if named and not process_variable(BLUEPRINT_VARIABLE):
        return _loadable_name(config, str(named))
    try:
        choice = chosen_blueprint(folder=config.rootpath)
    except BootstrapError as exc:
        fail_test(exc)
    if choice.is_default:
        pytest.fail(
            "No blueprint: set is_db_blueprint in the ini file, "
            "or mark the test with blueprint(…).",
            pytrace=False,
        )
    return loadable_name(choice)


def _loadable_name(config: pytest.Config, name: str) -> str:
    """What loads the blueprint of this name.

    As for the command, an installed name wins over a folder of that name. A path is one in pytest's
    root folder.
    """
    from is_db_bootstrap.blueprint.load import loadable_name
    from is_db_bootstrap.settings import Choice

    return loadable_name(Choice(name, "a test", folder=config.rootpath))


@pytest.fixture
def _is_db_stores(
    request: pytest.FixtureRequest, is_db_blueprint: str | Blueprint
) -> Iterator[Stores]:
    with stores_of_scope(request, "function", is_db_blueprint) as stores:
        request.node.stash[_STORES] = stores
        yield stores


@contextmanager
def stores_of_scope(
    request: pytest.FixtureRequest, scope: str, blueprint: str | Blueprint
) -> Iterator[Stores]:
    """Clean stores of a blueprint, for as long as the scope lasts."""
    from is_db_bootstrap.errors import BootstrapError

    try:
        session = session_of_scope(request.config, scope)
        session.blueprint(blueprint)
    except BootstrapError as exc:
        fail_test(exc)
    with session.stores(blueprint) as stores:
        yield stores


def fail_test(error: Exception) -> NoReturn:
    """Fail the test by one line. Each test that needs the store fails by the same line."""
    line = " ".join(str(error).split())
    failure = pytest.fail.Exception(f"no clean store: {line}", pytrace=False)
    raise failure from None


def open_client(stores: Stores, store: StoreName) -> Any:
    """The client of a store. The test fails when there is no clean store."""
    from is_db_bootstrap.errors import BootstrapError

    try:
        return getattr(stores, store)
    except BootstrapError as exc:
        fail_test(exc)


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


def take_all(stores: Stores) -> Stores:
    """The stores, each of which was taken. The test fails when one cannot be had."""
    from is_db_bootstrap.errors import BootstrapError

    try:
        _ = stores.settings  # takes all stores
    except BootstrapError as exc:
        fail_test(exc)
    return stores


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

        from is_db_bootstrap.testing.sources import without_addresses

        kept = without_addresses(os.environ)
        contradicting = [name for name in os.environ if name not in kept]
        for name in contradicting:
            self._monkeypatch.delenv(name)
        for store, url in self.settings.stores.items():
            name = names.get(store, f"{store.upper()}_URL")
            self._monkeypatch.setenv(name, url.reveal())

"""The pytest plugin.

Its fixtures are `postgres`, `neo4j`, `milvus`, `redis`, `stores` and `is_db_settings`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.testing.session import Stores, TestSession

_SESSION = pytest.StashKey["TestSession"]()
_STORES = pytest.StashKey["Stores"]()
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
    parser.addini(
        "is_db_blueprint",
        "blueprint of the stores: an installed one, a folder, or module:ATTRIBUTE",
        default="",
    )
    parser.addini("is_db_stores_from", "default of --stores-from", default="local")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and asyncio's fixtures when pytest-asyncio is there."""
    config.addinivalue_line(
        "markers", "blueprint(name): the blueprint of this test's stores (is-db-bootstrap)"
    )
    if config.pluginmanager.hasplugin("asyncio"):
        from is_db_bootstrap.testing import async_plugin

        config.pluginmanager.register(async_plugin, "is_db_bootstrap_async")


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
    """End the process's session of stores. Returns whether anything could not be given back."""
    session = config.stash.get(_SESSION, None)
    if session is None:
        return False
    del config.stash[_SESSION]
    session.close()
    return bool(session.troubles)


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


def _test_session(config: pytest.Config) -> TestSession:
    """The process's session, made when first needed, so that tests without stores cost nothing."""
    if _SESSION not in config.stash:
        from is_db_bootstrap.testing.choice import source
        from is_db_bootstrap.testing.session import TestSession

        name = config.getoption("--stores-from") or config.getini("is_db_stores_from")
        servers = source(name, keep_running=config.getoption("--keep-servers"))
        worker_input = getattr(config, "workerinput", {})
        config.stash[_SESSION] = TestSession(
            servers,
            run=worker_input.get("testrunuid", ""),
            say=lambda line: _print_line(config, line),
        )
    return config.stash[_SESSION]


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
    """The blueprint: the marker's, the ini option's, or the one that is set for the command.

    Override this fixture to choose another blueprint.
    """
    chosen = _chosen_blueprint(request)
    if not chosen:
        pytest.fail(
            "No blueprint: set is_db_blueprint in the ini file, "
            "or mark the test with blueprint(…).",
            pytrace=False,
        )
    if not isinstance(chosen, str):
        return chosen
    folder = request.config.rootpath / chosen
    return str(folder) if folder.is_dir() else chosen


def _chosen_blueprint(request: pytest.FixtureRequest) -> str | Blueprint:
    """What the marker, the ini option or the command's settings name. Empty when none does."""
    from is_db_bootstrap.settings import blueprint_name

    marker = request.node.get_closest_marker("blueprint")
    if marker:
        chosen: str | Blueprint = marker.args[0]
        return chosen
    return request.config.getini("is_db_blueprint") or blueprint_name() or ""


@pytest.fixture
def _is_db_stores(
    request: pytest.FixtureRequest, is_db_blueprint: str | Blueprint
) -> Iterator[Stores]:
    from is_db_bootstrap.errors import BootstrapError

    session = _test_session(request.config)
    try:
        session.blueprint(is_db_blueprint)
    except BootstrapError as exc:
        _fail_test(exc)
    with session.stores(is_db_blueprint) as stores:
        request.node.stash[_STORES] = stores
        yield stores


def _fail_test(error: Exception) -> None:
    """Fail the test by one line. Each test that needs the store fails by the same line."""
    line = " ".join(str(error).split())
    failure = pytest.fail.Exception(f"no clean store: {line}", pytrace=False)
    raise failure from None


def _open_client(stores: Stores, store: StoreName) -> Any:
    """The test's client of a store. The test fails when there is no clean store."""
    from is_db_bootstrap.errors import BootstrapError

    try:
        return getattr(stores, store)
    except BootstrapError as exc:
        _fail_test(exc)


@pytest.fixture
def postgres(_is_db_stores: Stores) -> Any:
    """A SQLAlchemy `Engine` on a database of the test's own, at the blueprint's newest revision."""
    return _open_client(_is_db_stores, "postgres")


@pytest.fixture
def neo4j(_is_db_stores: Stores) -> Any:
    """A `neo4j.Driver` on a database without nodes.

    The blueprint's constraints and indexes are there.
    """
    return _open_client(_is_db_stores, "neo4j")


@pytest.fixture
def milvus(_is_db_stores: Stores) -> Any:
    """A `MilvusClient` on a database of the test's own.

    The blueprint's collections are there, empty and loaded, behind their aliases.
    """
    return _open_client(_is_db_stores, "milvus")


@pytest.fixture
def redis(_is_db_stores: Stores) -> Any:
    """A `redis.Redis` on a logical database without keys but the blueprint's record and a mark."""
    return _open_client(_is_db_stores, "redis")


@pytest.fixture
def stores(_is_db_stores: Stores) -> Stores:
    """All stores of the blueprint.

    The object has `.postgres`, `.neo4j`, `.milvus`, `.redis`, `.settings` and `.environ`.
    """
    from is_db_bootstrap.errors import BootstrapError

    try:
        _ = _is_db_stores.settings  # takes all stores
    except BootstrapError as exc:
        _fail_test(exc)
    return _is_db_stores


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

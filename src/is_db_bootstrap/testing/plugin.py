"""The pytest plugin: fixtures `postgres`, `neo4j`, `milvus`, `redis`, `stores`, `is_db_settings`."""

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
#: Whether a worker of xdist could not give all back, and under which name it says so.
_TROUBLED = pytest.StashKey[bool]()
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
        "blueprint of the stores: a built-in name, a folder, or module:ATTRIBUTE",
        default="",
    )
    parser.addini("is_db_stores_from", "default of --stores-from", default="local")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; and asyncio's fixtures, when its plugin is there."""
    config.addinivalue_line(
        "markers", "blueprint(name): the blueprint of this test's stores (is-db-bootstrap)"
    )
    if config.pluginmanager.hasplugin("asyncio"):
        from is_db_bootstrap.testing import async_plugin

        config.pluginmanager.register(async_plugin, "is_db_bootstrap_async")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give everything back, after the last fixture; a session that could not do so fails.

    A worker of xdist reports its end only after this, and is waited for.
    """
    troubled = _close(session.config) or session.config.stash.get(_TROUBLED, False)
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_TROUBLE] = troubled
    if troubled and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001 - the names of xdist
    """A worker of xdist has ended; the session fails when the worker could not give all back."""
    if getattr(node, "workeroutput", {}).get(_TROUBLE):
        node.config.stash[_TROUBLED] = True


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give everything back also from a session that did not come to its end."""
    _close(config)


def _close(config: pytest.Config) -> bool:
    """End the process's session of stores, and say whether that went wrong."""
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

    A report is passed on and kept by CI systems, so passwords stand in a file of mode 0600 only.
    """
    from is_db_bootstrap.testing.kept import note

    report: Any = yield
    stores = item.stash.get(_STORES, None)
    if report.failed and stores and item.config.getoption("--keep-stores") and stores.taken:
        stores.keep()
        lines = "\n".join(f"{name}={url}" for name, url in stores.shown.items())
        where = f"With passwords, for its owner: {note(stores.taken)}"
        report.sections.append(("stores kept until the next session", f"{lines}\n{where}"))
    return report


def _session(config: pytest.Config) -> TestSession:
    """The process's session; made when first needed, so that tests without stores cost nothing."""
    if _SESSION not in config.stash:
        from is_db_bootstrap.testing.choice import source
        from is_db_bootstrap.testing.session import TestSession

        name = config.getoption("--stores-from") or config.getini("is_db_stores_from")
        made = source(name, keep_running=config.getoption("--keep-servers"))
        config.stash[_SESSION] = TestSession(made, say=lambda line: _say(config, line))
    return config.stash[_SESSION]


def _say(config: pytest.Config, line: str) -> None:
    """One line on the terminal, whatever pytest captures.

    A worker of xdist writes to the terminal of the session.
    """
    import sys

    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print(f"\nis-db-bootstrap: {line}", file=sys.stderr, flush=True)  # noqa: T201 - for the user, as a reporter would


@pytest.fixture
def is_db_blueprint(request: pytest.FixtureRequest) -> str | Blueprint:
    """The blueprint: the marker's, the ini option's, or the one that is set for the command.

    Override it to choose otherwise.
    """
    from is_db_bootstrap.settings import blueprint_name

    marker = request.node.get_closest_marker("blueprint")
    chosen = (
        marker.args[0]
        if marker
        else request.config.getini("is_db_blueprint") or blueprint_name() or ""
    )
    if not chosen:
        pytest.fail(
            "No blueprint: set is_db_blueprint in the ini file, or mark the test with blueprint(…).",
            pytrace=False,
        )
    if isinstance(chosen, str) and (request.config.rootpath / chosen).is_dir():
        return str(request.config.rootpath / chosen)
    return chosen


@pytest.fixture
def _is_db_stores(
    request: pytest.FixtureRequest, is_db_blueprint: str | Blueprint
) -> Iterator[Stores]:
    from is_db_bootstrap.errors import BootstrapError

    session = _session(request.config)
    try:
        session.blueprint(is_db_blueprint)
    except BootstrapError as exc:
        _fail(exc)
    with session.stores(is_db_blueprint) as stores:
        request.node.stash[_STORES] = stores
        yield stores


def _fail(error: Exception) -> None:
    """One line, for each test that needs what failed once."""
    failure = pytest.fail.Exception(
        f"no clean store: {' '.join(str(error).split())}", pytrace=False
    )
    raise failure from None


def _opened(stores: Stores, store: StoreName) -> Any:
    from is_db_bootstrap.errors import BootstrapError

    try:
        return getattr(stores, store)
    except BootstrapError as exc:
        _fail(exc)


@pytest.fixture
def postgres(_is_db_stores: Stores) -> Any:
    """A SQLAlchemy `Engine` on a database of the test's own, at the blueprint's newest revision."""
    return _opened(_is_db_stores, "postgres")


@pytest.fixture
def neo4j(_is_db_stores: Stores) -> Any:
    """A `neo4j.Driver` on a database without nodes, with the blueprint's constraints and indexes."""
    return _opened(_is_db_stores, "neo4j")


@pytest.fixture
def milvus(_is_db_stores: Stores) -> Any:
    """A `MilvusClient` on a database of the test's own, with the blueprint's collections and aliases, empty and loaded."""
    return _opened(_is_db_stores, "milvus")


@pytest.fixture
def redis(_is_db_stores: Stores) -> Any:
    """A `redis.Redis` on a logical database without keys but the blueprint's record and a mark."""
    return _opened(_is_db_stores, "redis")


@pytest.fixture
def stores(_is_db_stores: Stores) -> Stores:
    """All stores of the blueprint: `stores.postgres`, `.neo4j`, `.milvus`, `.redis`, `.settings`, `.environ`."""
    from is_db_bootstrap.errors import BootstrapError

    try:
        _ = _is_db_stores.settings
    except BootstrapError as exc:
        _fail(exc)
    return _is_db_stores


@pytest.fixture
def is_db_settings(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> TestedSettings:
    """What the application under test should read.

    `set_environ()` sets the environment for the test.
    """
    return TestedSettings(stores, monkeypatch)


class TestedSettings:
    """The addresses of one test's stores: `settings` for this package, `environ` for any application."""

    __test__ = False  # pytest would collect the name

    def __init__(self, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = stores.settings
        self.environ = stores.environ
        self._monkeypatch = monkeypatch

    def set_environ(self, **names: str) -> None:
        """Set `POSTGRES_URL` and so on until the test's end.

        `postgres="DATABASE_URL"` sets that name instead.

        Variables that would say otherwise (`DATABASE_URL`, `DB_HOST`, `POSTGRES_PASSWORD`, …) are
        unset.
        """
        import os

        from is_db_bootstrap.testing.sources import without_addresses

        kept = without_addresses(os.environ)
        for name in [n for n in os.environ if n not in kept]:
            self._monkeypatch.delenv(name)
        for store, url in self.settings.stores.items():
            self._monkeypatch.setenv(names.get(store, f"{store.upper()}_URL"), url.reveal())

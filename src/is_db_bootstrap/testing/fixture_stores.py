"""What fixtures of every scope do: choose a blueprint, get clean stores, fail in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.testing.session import Stores, TestSession

#: The session of stores of each scope.
_SESSIONS = pytest.StashKey[dict[str, "TestSession"]]()
#: The same sessions, as these know each other.
_PEERS = pytest.StashKey[list["TestSession"]]()


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


def take_all(stores: Stores) -> Stores:
    """The stores, each of which was taken. The test fails when one cannot be had."""
    from is_db_bootstrap.errors import BootstrapError

    try:
        _ = stores.settings  # takes all stores
    except BootstrapError as exc:
        fail_test(exc)
    return stores


def close_sessions(config: pytest.Config) -> bool:
    """End the process's sessions of stores. Returns whether anything could not be given back."""
    sessions = config.stash.get(_SESSIONS, {})
    config.stash[_SESSIONS] = {}
    config.stash[_PEERS] = []
    with ExitStack() as closing:  # each is closed, also when another one fails
        for session in sessions.values():
            closing.callback(session.close)
    return any(session.troubles for session in sessions.values())

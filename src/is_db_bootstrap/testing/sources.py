"""Where a test session's servers come from: the local stack, the environment, or containers."""

from __future__ import annotations

import fcntl
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, ClassVar, Protocol

from is_db_bootstrap import local
from is_db_bootstrap.app import wait_ready
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.local.places import data_root
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.settings import DEFAULT_SOURCE, Settings, StoreUrl

NAMES = ("local", "env", "containers")
#: Seconds that a given server may take to answer.
ANSWER_S = 20.0


class Source(Protocol):
    """Gives the address of a server of each store, without a database of its own choice."""

    #: Whether the servers are not our own. Then other people may write to them, and several
    #: processes meet on one Neo4j.
    given: bool

    def address(self, store: StoreName) -> StoreUrl:
        """The server, started when it is not running. Raises `BootstrapError`."""

    def close(self, *, keep: bool) -> None:
        """No address is needed any more. With `keep`, the servers run on."""


class StartedServers(ABC):
    """Servers that sessions start when they are needed.

    All processes share the servers, but each process has a Neo4j of its own, because Neo4j
    Community has one database only. The last process that uses the servers stops them. With
    `keep_running` the servers run on, and the next session starts sooner. A process that uses the
    servers of a folder holds a lock on the file `in-use` in the folder. The kernel gives the lock
    back when the process dies.

    `versions` are those that the user has chosen. Servers of a chosen version have folders of their
    own, because data of one version are no other's.
    """

    given = False
    #: The name of the folder below which a source of this kind has its folders.
    kind: ClassVar[str]

    def __init__(
        self,
        folder: Path | None = None,
        *,
        keep_running: bool = False,
        versions: Mapping[StoreName, str] | None = None,
    ) -> None:
        root = folder or data_root() / "testing"
        self._folder = root / self.kind
        self._keep_running = keep_running
        self._versions = versions or {}
        #: The lock of each folder that this process uses.
        self._locks: dict[Path, IO[str]] = {}

    @abstractmethod
    def up(self, folder: Path, store: StoreName) -> StoreUrl:
        """Find the server of `folder`, or start it.

        Of several processes that call at once, only one may start the server.
        """

    @abstractmethod
    def down(self, folder: Path) -> None:
        """Stop the servers of `folder`, which nobody uses."""

    def address(self, store: StoreName) -> StoreUrl:
        """The shared server. For Neo4j, the first server that no other process uses."""
        version = self._versions.get(store, "")
        suffix = f"-{store}-{version}" if version else ""
        if store == "neo4j":
            return self.up(self._own_folder(suffix), store)
        return self.up(self._shared_folder(suffix), store)

    def close(self, *, keep: bool) -> None:
        """Stop the servers that nobody else uses."""
        may_stop = not keep and not self._keep_running
        for folder, lock in self._locks.items():
            if may_stop and _try_to_lock(lock):
                with suppress(BootstrapError):
                    self.down(folder)
            lock.close()
        self._locks.clear()

    def _shared_folder(self, suffix: str) -> Path:
        """The folder of the servers that all processes share."""
        folder = self._folder / f"shared{suffix}"
        if folder not in self._locks:
            lock = _open_lock_file(folder)
            self._locks[folder] = lock
            # A session that is stopping these servers has the exclusive lock. Wait for its end.
            fcntl.flock(lock, fcntl.LOCK_SH)
        return folder

    def _own_folder(self, suffix: str) -> Path:
        """The first folder that no other process uses, locked for this process."""
        for number in itertools.count():
            folder = self._folder / f"neo4j-{number}{suffix}"
            if folder in self._locks:
                continue
            lock = _open_lock_file(folder)
            if _try_to_lock(lock):
                self._locks[folder] = lock
                return folder
            lock.close()
        raise AssertionError


def _open_lock_file(folder: Path) -> IO[str]:
    """The open file of the folder's lock. Raises `ConfigurationError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / "in-use").open("a")
    except OSError as exc:
        raise ConfigurationError(
            f"The folder {folder} for test servers cannot be used: {exc.strerror or exc}."
        ) from exc


def _try_to_lock(lock: IO[str]) -> bool:
    """Take the exclusive lock without waiting. False when another process holds a lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class LocalServers(StartedServers):
    """Local stacks for tests alone, beside the stack of `is-db-bootstrap local up`.

    The servers run without durability.
    """

    kind = "local"

    def up(self, folder: Path, store: StoreName) -> StoreUrl:
        """One server of the stack in `folder`."""
        stack = local.up(folder, stores=(store,), durable=False, versions=self._versions)
        [server] = stack.servers
        return StoreUrl.parse(store, server.url, "the local stack for tests")

    def down(self, folder: Path) -> None:
        """Kill the servers, since no data in them is worth an orderly end."""
        local.down(folder, durable=False)


class GivenServers:
    """The servers that the environment names.

    The servers are never started or stopped, and must answer within `ANSWER_S`.
    """

    given = True

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        any_blueprint = Blueprint("postgres", "only its addresses are read")
        self._settings = Settings.load(any_blueprint, environ=self._environ)

    def address(self, store: StoreName) -> StoreUrl:
        """The store's address, as any command reads it. Raises `BootstrapError`."""
        url = self._settings.need(store)
        if url.source == DEFAULT_SOURCE:
            raise ConfigurationError(
                f"{store}: no address is set.",
                hint=f"Set {store.upper()}_URL, or leave out --stores-from env.",
            )
        wait_ready(self._environ, [store], ANSWER_S)
        return url

    def close(self, *, keep: bool) -> None:
        """Do nothing, because no server is ours to stop."""


def without_addresses(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for settings of tests.

    Left out are all variables that say where a store is, or as which user to connect.
    """
    store_prefixes = [f"{store.upper()}_" for store in STORE_ORDER]
    prefixes = (*store_prefixes, "DB_", "DATABASE_URL")
    return {
        name: value
        for name, value in environ.items()
        if name == "DB_SCHEMA" or not name.startswith(prefixes)
    }

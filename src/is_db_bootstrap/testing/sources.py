"""Where the servers of a test session come from: the local stack, the environment, or containers."""

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
from is_db_bootstrap.settings import Settings, StoreUrl

NAMES = ("local", "env", "containers")
#: Seconds that a given server may take to answer.
ANSWER_S = 20.0


class Source(Protocol):
    """Gives the address of a server of each store, without a database of its own choice."""

    #: Whether the servers are not our own: other people may write to them, and several processes
    #: meet on one Neo4j.
    given: bool

    def address(self, store: StoreName) -> StoreUrl:
        """The server, started when it is not running. Raises `BootstrapError`."""

    def close(self, *, keep: bool) -> None:
        """No address is needed any more; with `keep`, servers run on."""


class StartedServers(ABC):
    """Servers that sessions start when they are needed.

    All processes share them, but each has a Neo4j of its own, because Neo4j Community has one
    database only. The last process that uses servers stops them, unless `keep_running`: then the
    next session starts sooner. A file below `folder` is locked while a process uses what belongs to
    it; the kernel unlocks it when that process dies.
    """

    given = False
    #: What tells these folders from those of other kinds.
    kind: ClassVar[str]

    def __init__(self, folder: Path | None = None, *, keep_running: bool = False) -> None:
        self._folder = (folder or data_root() / "testing") / self.kind
        self._keep_running = keep_running
        self._stacks: dict[Path, IO[str]] = {}

    @abstractmethod
    def up(self, folder: Path, store: StoreName) -> StoreUrl:
        """Find the server of `folder`, or start it; only one process is here at a time."""

    @abstractmethod
    def down(self, folder: Path) -> None:
        """Stop the servers of `folder`, which nobody uses."""

    def address(self, store: StoreName) -> StoreUrl:
        """The shared server; for Neo4j the first one that no other process uses."""
        return self.up(self._own_folder() if store == "neo4j" else self._shared_folder(), store)

    def close(self, *, keep: bool) -> None:
        """Stop what nobody else uses."""
        for folder, lock in self._stacks.items():
            if not keep and not self._keep_running and _locked(lock, fcntl.LOCK_EX):
                with suppress(BootstrapError):
                    self.down(folder)
            lock.close()
        self._stacks.clear()

    def _shared_folder(self) -> Path:
        folder = self._folder / "shared"
        if folder not in self._stacks:
            self._stacks[folder] = lock = _opened(folder)
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits for a session that is stopping it
        return folder

    def _own_folder(self) -> Path:
        for number in itertools.count():
            folder = self._folder / f"neo4j-{number}"
            if folder in self._stacks:
                continue
            lock = _opened(folder)
            if _locked(lock, fcntl.LOCK_EX):
                self._stacks[folder] = lock
                return folder
            lock.close()
        raise AssertionError


def _opened(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / "in-use").open("a")
    except OSError as exc:
        raise ConfigurationError(
            f"The folder {folder} for test servers cannot be used: {exc.strerror or exc}."
        ) from exc


def _locked(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class LocalServers(StartedServers):
    """Local stacks for tests alone, without durability, beside the one of `is-db-bootstrap local up`."""

    kind = "local"

    def up(self, folder: Path, store: StoreName) -> StoreUrl:
        """One server of the stack in `folder`."""
        [server] = local.up(folder, stores=(store,), durable=False).servers
        return StoreUrl.parse(store, server.url, "the local stack for tests")

    def down(self, folder: Path) -> None:
        """Killed: nothing in them is worth an orderly end."""
        local.down(folder, durable=False)


class GivenServers:
    """The servers that the environment names.

    They are never started or stopped, and must answer within `ANSWER_S`.
    """

    given = True

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        self._settings = Settings.load(
            Blueprint("postgres", "only its addresses are read"), environ=self._environ
        )

    def address(self, store: StoreName) -> StoreUrl:
        """Its address, as for any command."""
        url = self._settings.need(store)
        if url.source == "default":
            raise ConfigurationError(
                f"{store}: no address is set.",
                hint=f"Set {store.upper()}_URL, or leave out --stores-from env.",
            )
        wait_ready(self._environ, [store], ANSWER_S)
        return url

    def close(self, *, keep: bool) -> None:
        """Nothing is ours to stop."""


def without_addresses(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for settings of tests: nothing in it says where a store is, or who we are there."""
    prefixes = tuple(f"{s.upper()}_" for s in STORE_ORDER)
    return {
        k: v
        for k, v in environ.items()
        if k == "DB_SCHEMA" or not k.startswith((*prefixes, "DB_", "DATABASE_URL"))
    }

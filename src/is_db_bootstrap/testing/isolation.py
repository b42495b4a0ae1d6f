"""What the four kinds of isolation have in common: a clean store for each test, made ahead and cleared away behind its back."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import psutil

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.results import StoreName
from is_db_bootstrap.settings import Settings, StoreUrl

#: Every database that is made here begins with it.
PREFIX = "isdb_test"


class Isolation(ABC):
    """Clean stores of one kind for one process, each at the schema of `blueprint`.

    A store is wiped only where it was empty when we came, or bears our own mark. What a process that died has left is removed
    by the next one on the same server; what belongs to a process that lives never is.
    """

    store: ClassVar[StoreName]
    #: What the store's client raises.
    client_errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, server: StoreUrl, blueprint: Blueprint, settings: Settings) -> None:
        self.server = server
        self.blueprint = blueprint
        self.settings = settings

    @abstractmethod
    def take(self) -> StoreUrl:
        """The address of a clean store."""

    @abstractmethod
    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """It is not needed any more; `keep` leaves it as it is until another session needs the place."""

    @abstractmethod
    def close(self) -> None:
        """Remove what was made, except what is kept."""

    def apply(self, url: StoreUrl) -> None:
        """Bring one store to the blueprint; raises the error of a failed run."""
        settings = replace(self.settings, stores={self.store: url})
        app.orchestrator(self.blueprint, settings, only=[self.store]).run().raise_for_failure()

    @classmethod
    @contextmanager
    def errors(cls, server: StoreUrl) -> Iterator[None]:
        """What the client raises here, as an error that a test can be told of in one line: the server may end at any time."""
        try:
            yield
        except cls.client_errors as exc:
            told = " ".join(str(exc).split())
            raise StoreUnavailable(
                cls.store,
                f"{server} failed a test session: {told[:200] or type(exc).__name__}.",
                hint="Is the server still running?",
            ) from exc

    def not_ours(self, what: str) -> ConfigurationError:
        """The error of a store that is in use by something else."""
        return ConfigurationError(
            f"{self.store}: {what} at {self.server} is not empty and was not made by a test run, so it is left alone.",
            hint=f"Give the address of an empty store (it comes from {self.server.source}).",
        )


class Ahead:
    """Stores made ahead by a thread, which also removes those that are done with.

    `make` and `remove` run in the thread, and in the caller's when nothing has been made ahead; both must be safe there.
    An error ends the thread: the next `take` meets it in the caller, or begins another thread.
    """

    def __init__(self, make: Callable[[], str], remove: Callable[[str], None], *, size: int) -> None:
        self._make, self._remove, self._size = make, remove, size
        self._ready: deque[str] = deque()
        self._done: deque[str] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = False

    def take(self) -> str:
        """One that is ready, or a new one."""
        with self._change:
            name = self._ready.popleft() if self._ready else None
            self._start()
            self._change.notify()
        return name or self._make()

    def done(self, name: str) -> None:
        """Have it removed, soon."""
        with self._change:
            self._done.append(name)
            self._change.notify()

    def close(self) -> None:
        """Remove all that is left."""
        with self._change:
            self._ending = True
            self._change.notify()
        if self._thread:
            self._thread.join()
        for left in (self._ready, self._done):
            while left:
                self._remove(left.popleft())

    def _start(self) -> None:
        if self._thread is None and self._size:
            self._thread = threading.Thread(target=self._work, name="isdb-ahead", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ending or len(self._ready) < self._size or self._done)
                if self._ending:
                    return
                name = None if len(self._ready) < self._size else self._done.popleft()
            try:
                if name:
                    self._remove(name)
                else:
                    made = self._make()
                    with self._change:
                        self._ready.append(made)
            except Exception:  # noqa: BLE001 - the caller's own thread meets it again, and tells it
                self._thread = None
                if name:
                    self._done.append(name)
                return


def process_mark() -> str:
    """Names this process among all that use a server: a digest of the host, the process's number and its birth."""
    return f"{_host()}_{os.getpid()}_{int(psutil.Process().create_time())}"


def is_dead(mark: str) -> bool:
    """Whether the process of `mark` ran on this host and runs no more."""
    host, pid, born = mark.split("_")
    if host != _host():
        return False
    try:
        return abs(int(psutil.Process(int(pid)).create_time()) - int(born)) > 1
    except psutil.NoSuchProcess:
        return True


def _host() -> str:
    return hashlib.sha256(f"{socket.gethostname()} {psutil.boot_time():.0f}".encode()).hexdigest()[:6]

"""What the four kinds of isolation have in common: a clean store for each test, made ahead and cleared away behind its back."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreUnavailable
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl
from is_db_bootstrap.testing.content import Content

#: Every database that is made here begins with it.
PREFIX = "isdb_test"


class Isolation(ABC):
    """Clean stores of one kind for one process, each at the schema of `blueprint`.

    A store is wiped only where it was empty when we came, or bears our own mark. What a process
    that died has left is removed by the next one on the same server; what belongs to a process that
    lives never is.

    `given` says that the server is not one of our own, so that other people may write to it. Then a
    mark is no licence: it says what a session vouches for, and anything else is refused by name.
    `close` leaves such a server as it was found. `say` tells the user one line while a test waits.
    """

    store: ClassVar[StoreName]
    #: What the store's client raises.
    client_errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(
        self,
        server: StoreUrl,
        blueprint: Blueprint,
        settings: Settings,
        *,
        given: bool = True,
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - nobody is there to be told
    ) -> None:
        self.server = server
        self.blueprint = blueprint
        self.settings = settings
        self.given = given
        self.say = say

    @abstractmethod
    def take(self) -> StoreUrl:
        """The address of a clean store."""

    @abstractmethod
    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """It is not needed any more.

        `keep` leaves it as it is until another session needs the place.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove what was made, except what is kept."""

    def make_way(self) -> None:  # noqa: B027 - most stores have more than one place
        """Another isolation of this process wants a place on the same server, and no test is using ours."""

    def apply(self, url: StoreUrl) -> None:
        """Bring one store to the blueprint; raises the error of a failed run."""
        settings = replace(self.settings, stores={self.store: url})
        options = RunOptions(only=(self.store,))
        app.orchestrator(self.blueprint, settings, options).run().raise_for_failure()

    @classmethod
    @contextmanager
    def errors(cls, server: StoreUrl) -> Iterator[None]:
        """What the client raises here, as an error that a test can be told of in one line: the server may end at any time."""
        try:
            yield
        except cls.client_errors as exc:
            told = " ".join(str(exc).split())
            if cls.is_denied(exc):
                raise AccessDenied(
                    cls.store,
                    f"{server} does not let a test session see or do what it must: {told[:200]}.",
                    hint="What cannot be seen is not taken for empty. Grant the privilege, or give a server of its own.",
                ) from exc
            raise StoreUnavailable(
                cls.store,
                f"{server} failed a test session: {told[:200] or type(exc).__name__}.",
                hint="Is the server still running?",
            ) from exc

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:  # noqa: ARG003 - each store has its own sign
        """Whether the client's error says that a privilege is missing."""
        return False

    def not_ours(self, what: str, found: Content) -> ConfigurationError:
        """The error of a store that is in use by something else."""
        return ConfigurationError(
            f"{self.store}: {what} at {self.server} is not empty and was not made by a test run, so it is left alone: "
            f"it holds {found}.",
            hint=f"Give the address of an empty store (it comes from {self.server.source}).",
        )

    def written_by_others(self, what: str, found: Content, *, way_out: str) -> ConfigurationError:
        """The error of a store that was left by a test run, and holds what no test run vouches for."""
        return ConfigurationError(
            f"{self.store}: {what} at {self.server} was left by a test run, and holds what that run does not vouch for: "
            f"{found}. Nothing was deleted.",
            hint=f"{way_out} Or give the address of an empty store (it comes from {self.server.source}).",
        )


class Pulse:
    """A thread that calls `beat` every `seconds` until `close`.

    An error of a client is met by the next beat, or by a test.
    """

    def __init__(
        self,
        beat: Callable[[], None],
        seconds: float,
        errors: tuple[type[Exception], ...],
        *,
        name: str,
    ) -> None:
        self._beat, self._seconds, self._errors = beat, seconds, errors
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def has_begun(self) -> bool:
        """Whether it was started, also when it has ended since."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if not self.has_begun and not self._ending.is_set():
            self._thread.start()

    def close(self) -> None:
        """End, after the beat that is going on."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._ending.wait(self._seconds):
            with suppress(*self._errors):
                self._beat()


class Ahead:
    """Stores made ahead by a thread, which also removes those that are done with.

    `make` and `remove` run in the thread, and in the caller's when nothing has been made ahead;
    both must be safe there. An error ends the thread: the next `take` meets it in the caller, or
    begins another thread.
    """

    def __init__(
        self, make: Callable[[], str], remove: Callable[[str], None], *, size: int
    ) -> None:
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
                self._change.wait_for(
                    lambda: self._ending or len(self._ready) < self._size or self._done
                )
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
    """Where process numbers are comparable: a machine since its start, and in it the container, which has its own numbers."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return hashlib.sha256(
        f"{socket.gethostname()} {psutil.boot_time():.0f} {numbers}".encode()
    ).hexdigest()[:6]

"""What the isolations of the four stores have in common.

Each test gets a clean store. Some stores are made ahead by a thread, which also clears away the
stores that tests are done with.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
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
from is_db_bootstrap.errors import (
    AccessDenied,
    ConfigurationError,
    LockTimeout,
    StoreUnavailable,
)
from is_db_bootstrap.local.process import has_ended
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl
from is_db_bootstrap.testing.content import Content

#: The name of every database that is made here begins with this text.
PREFIX = "isdb_test"
#: Characters of a client's error that a message shows.
_SHOWN = 200
#: Seconds by which two readings of one process's birth may differ.
_BIRTH_TOLERANCE_S = 1
#: Seconds to wait for a store that other processes use.
PATIENCE_S = 600.0
#: Seconds of waiting after which the user is told so for the first time.
_FIRST_TOLD_S = 2.0
#: Seconds between two such lines.
_TOLD_S = 10.0


class Isolation(ABC):
    """Clean stores of one kind for one process, each at the schema of `blueprint`.

    A store is wiped only if the store was empty when this process came, or bears our own mark.
    The next process on the same server removes what a dead process has left. What belongs to a
    living process is never removed.

    `given` says that the server is not one of our own, so that other people may write to it. Then
    the mark alone is no licence to wipe. The mark lists what a session vouches for, and a store
    that holds anything else is refused with the names of what was found. `close` leaves such a
    server as it was found, also after a failed set-up. `say` tells the user one line while a test
    waits.

    `run` names the run of pytest-xdist that this process is a worker of. While a test uses a store
    of a given server, the store bears the name of the run. So when the worker dies in the test,
    other workers of the run know that all in the store is that test's.
    """

    store: ClassVar[StoreName]
    #: The exceptions that the store's client raises.
    client_errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(
        self,
        server: StoreUrl,
        blueprint: Blueprint,
        settings: Settings,
        *,
        given: bool = True,
        run: str = "",
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - no user reads the line
    ) -> None:
        self.server = server
        self.blueprint = blueprint
        self.settings = settings
        self.given = given
        self.run = run if given else ""
        self.say = say

    @abstractmethod
    def take(self) -> StoreUrl:
        """The address of a clean store."""

    @abstractmethod
    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """The test no longer needs the store at `url`.

        With `keep`, the store stays as it is until another session needs its place.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove what was made, except the stores that were kept."""

    @property
    def has_one_place(self) -> bool:
        """Whether the server has one clean store only, which tests use in turns."""
        return False

    def make_way(self) -> None:  # noqa: B027 - only a store with a single place has to do anything
        """Give up the place on the server, while no test uses it.

        Another isolation of this process wants that place.
        """

    def apply(self, url: StoreUrl) -> None:
        """Bring one store to the blueprint. Raises the error of a failed run."""
        settings = replace(self.settings, stores={self.store: url})
        options = RunOptions(only=(self.store,), remembers=False)
        orchestrator = app.orchestrator(self.blueprint, settings, options)
        orchestrator.run().raise_for_failure()

    @classmethod
    @contextmanager
    def errors(cls, server: StoreUrl) -> Iterator[None]:
        """Translate the client's errors into errors that a test can report in one line.

        Raises `AccessDenied` when a privilege is missing, else `StoreUnavailable`, since a server
        may end at any time.
        """
        try:
            yield
        except cls.client_errors as exc:
            text = " ".join(str(exc).split())[:_SHOWN]
            if cls.is_denied(exc):
                raise AccessDenied(
                    cls.store,
                    f"{server} does not let a test session see or do what it must: {text}.",
                    hint="What cannot be seen is not taken for empty. "
                    "Grant the privilege, or give a server of its own.",
                ) from exc
            raise StoreUnavailable(
                cls.store,
                f"{server} failed a test session: {text or type(exc).__name__}.",
                hint="Is the server still running?",
            ) from exc

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:  # noqa: ARG003 - each store has its own sign
        """Whether the client's error says that a privilege is missing."""
        return False

    def not_ours(self, what: str, found: Content, *, way_out: str = "") -> ConfigurationError:
        """The error of a store that is in use by something else.

        `way_out` is a sentence about an empty store that can be had.
        """
        return ConfigurationError(
            f"{self.store}: {what} at {self.server} is not empty and was not made by a test run, "
            f"so it is left alone: it holds {found}.",
            hint=f"{way_out or 'Give the address of an empty store'} (it comes from "
            f"{self.server.source}).",
        )

    def written_by_others(self, what: str, found: Content, *, way_out: str) -> ConfigurationError:
        """The error of a store that a test run left, and that holds more than this run vouches for.

        `way_out` says how to remove or keep what was found.
        """
        return ConfigurationError(
            f"{self.store}: {what} at {self.server} was left by a test run, "
            f"and holds what that run does not vouch for: {found}. Nothing was deleted.",
            hint=f"{way_out} Or give the address of an empty store "
            f"(it comes from {self.server.source}).",
        )


class Waiting:
    """The patience of a process that waits for `what`, which another test session uses.

    `say` tells the user so after `_FIRST_TOLD_S`, and then every `_TOLD_S`.
    """

    def __init__(
        self,
        store: StoreName,
        what: str,
        *,
        say: Callable[[str], None],
        patience_s: float,
        hint: str,
    ) -> None:
        self._store: StoreName = store
        self._what = what
        self._say = say
        self._patience_s = patience_s
        self._hint = hint
        self._began = time.monotonic()
        self._tell_at = self._began + _FIRST_TOLD_S

    def check(self, users: str = "another test session") -> None:
        """Tell the user when it is time to. Raises `LockTimeout` when the patience has run out."""
        now = time.monotonic()
        if now - self._began > self._patience_s:
            raise LockTimeout(
                self._store,
                f"{self._what} was used by {users} for {self._patience_s:.0f} s.",
                hint=self._hint,
            )
        if now > self._tell_at:
            self._tell_at = now + _TOLD_S
            self._say(f"{self._store}: waiting for {self._what}, which is used by {users}.")


class Pulse:
    """A thread that calls `beat` every `seconds` until `close`.

    A client's error (one of `errors`) is ignored. The next beat or a test will meet the same error.
    """

    def __init__(
        self,
        beat: Callable[[], None],
        seconds: float,
        errors: tuple[type[Exception], ...],
        *,
        name: str,
    ) -> None:
        self._beat = beat
        self._seconds = seconds
        self._errors = errors
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_closed, name=name, daemon=True)

    @property
    def has_begun(self) -> bool:
        """Whether the thread was started. Stays true after its end."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin. A second call does nothing."""
        if not self.has_begun and not self._ending.is_set():
            self._thread.start()

    def close(self) -> None:
        """End the thread, after the beat that is going on."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat_until_closed(self) -> None:
        while not self._ending.wait(self._seconds):
            with suppress(*self._errors):
                self._beat()


class Ahead:
    """Up to `size` stores made ahead by a thread, which also removes the stores that are done with.

    `make` returns the name of a new store, and `remove` takes such a name. Both run in the thread,
    and in the caller's own thread when nothing has been made ahead, so both must be safe in either.
    An error ends the thread. The next `take` meets this error in the caller, or begins another
    thread.
    """

    def __init__(
        self, make: Callable[[], str], remove: Callable[[str], None], *, size: int
    ) -> None:
        self._make = make
        self._remove = remove
        self._size = size
        self._ready: deque[str] = deque()
        self._done: deque[str] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = False

    def take(self) -> str:
        """The name of a store that is ready, or of a new one."""
        with self._change:
            name = self._ready.popleft() if self._ready else None
            self._start_thread()
            self._change.notify()
        return name or self._make()

    def done(self, name: str) -> None:
        """Have the store removed, soon."""
        with self._change:
            self._done.append(name)
            self._change.notify()

    def close(self) -> None:
        """Remove all stores that are left."""
        with self._change:
            self._ending = True
            self._change.notify()
        if self._thread:
            self._thread.join()
        for left in (self._ready, self._done):
            while left:
                self._remove(left.popleft())

    def _start_thread(self) -> None:
        if self._thread is None and self._size:
            self._thread = threading.Thread(target=self._work_ahead, name="isdb-ahead", daemon=True)
            self._thread.start()

    def _work_ahead(self) -> None:
        """Make and remove stores until `close`, or until the first error."""
        while True:
            with self._change:
                self._change.wait_for(self._has_work)
                if self._ending:
                    return
                is_short = len(self._ready) < self._size
                name = None if is_short else self._done.popleft()
            try:
                if name:
                    self._remove(name)
                else:
                    self._make_ready()
            except Exception:  # noqa: BLE001 - the caller's own thread meets the error and tells it
                self._thread = None
                if name:
                    self._done.append(name)
                return

    def _has_work(self) -> bool:
        is_short = len(self._ready) < self._size
        return self._ending or is_short or bool(self._done)

    def _make_ready(self) -> None:
        made = self._make()
        with self._change:
            self._ready.append(made)


def process_mark() -> str:
    """A name for this process among all processes that use a server.

    The name has three parts: a digest of the host, the process's number, and its birth in seconds.
    """
    born = int(psutil.Process().create_time())
    return f"{_host_digest()}_{os.getpid()}_{born}"


def is_dead(mark: str) -> bool:
    """Whether the process of `mark` ran on this host and runs no more."""
    host, pid, born = mark.split("_")
    if host != _host_digest():
        return False
    try:
        process = psutil.Process(int(pid))
        born_now = int(process.create_time())
    except psutil.NoSuchProcess:
        return True
    return abs(born_now - int(born)) > _BIRTH_TOLERANCE_S or has_ended(process)


def _host_digest() -> str:
    """Six hexadecimal digits for the place in which process numbers are comparable.

    That place is a machine since its start, and in the machine the container, because a container
    has process numbers of its own.
    """
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    place = f"{socket.gethostname()} {psutil.boot_time():.0f} {numbers}"
    return hashlib.sha256(place.encode()).hexdigest()[:6]

"""A fence around user code that may only compute: nothing outside of its process is changed.

Python tells an audit hook before a file is opened, a socket connects or a program starts (PEP 578).
A hook cannot be taken away again, so this is for a process that does nothing else, and ends.

Two drivers of PostgreSQL connect by libpq, of which Python hears nothing, so their functions are
replaced. So are those that make a pipe or start a process without telling. Not seen is what other
code in C does by itself.
"""

from __future__ import annotations

import _posixsubprocess
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import psycopg

#: Flags of `open` with which a file may be changed.
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: What user code did, by how the name of Python's event begins.
_ACTS = {
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.rmdir": "removes a folder",
    "os.mkdir": "makes a folder",
    "os.link": "makes a link",
    "os.symlink": "makes a link",
    "os.truncate": "changes a file",
    "os.chmod": "changes a file",
    "os.chown": "changes a file",
    "os.utime": "changes a file",
    "os.setxattr": "changes a file",
    "os.removexattr": "changes a file",
    "os.system": "starts a program",
    "os.exec": "starts a program",
    "os.fork": "starts a process",
    "os.forkpty": "starts a process",
    "os.posix_spawn": "starts a program",
    "os.spawn": "starts a program",
    "os.kill": "sends a signal",
    "os.killpg": "sends a signal",
    "subprocess.Popen": "starts a program",
    "pty.spawn": "starts a program",
    "socket.connect": "uses the network",
    "socket.bind": "uses the network",
    "socket.sendto": "uses the network",
    "socket.sendmsg": "uses the network",
    "socket.getaddrinfo": "uses the network",
    "socket.gethostbyname": "uses the network",
    "sqlite3.connect": "opens a database",
}
_CONNECTS = "opens a connection"
#: Functions of which Python tells no hook. `multiprocessing` starts its processes by the last.
_UNTOLD: tuple[tuple[Any, str, str], ...] = (
    (os, "mkfifo", "makes a file"),
    (os, "mknod", "makes a file"),
    (_posixsubprocess, "fork_exec", "starts a program"),
)
#: Drivers by libpq. Their import is refused where they were not replaced before.
_BY_LIBPQ = "psycopg2"


class OutsideRefused(BaseException):
    """User code was about to change something outside of its process.

    No `Exception`, because user code may catch those and go on.
    """


class OutsideFence:
    """Refuses what user code would change outside, in all threads, while it is `closed`."""

    def __init__(self) -> None:
        self._tell: Callable[[str], None] | None = None
        sys.addaudithook(self._look)
        for owner in (psycopg, psycopg.Connection, psycopg.AsyncConnection):
            setattr(owner, "connect", self._guarded(owner.connect))  # noqa: B010 - mypy knows it
        for owner, name, what in _UNTOLD:
            if hasattr(owner, name):
                setattr(owner, name, self._guarded(getattr(owner, name), what))
        if psycopg2 := sys.modules.get(_BY_LIBPQ):
            self._guard_psycopg2(psycopg2)

    def _guard_psycopg2(self, module: Any) -> None:
        module._connect = self._guarded(module._connect)  # noqa: SLF001 - what `connect` calls

    def _guarded(self, function: Callable[..., Any], what: str = _CONNECTS) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            if self._tell is not None:
                self._refuse(what)
            return function(*args, **options)

        return guarded

    @contextmanager
    def closed(self, tell: Callable[[str], None]) -> Iterator[None]:
        """While inside, `tell` hears what is refused, such as `starts a program`.

        Raises `OutsideRefused` in the code that is refused, which may swallow that.
        """
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    def _look(self, event: str, args: tuple[Any, ...]) -> None:
        if self._tell is None:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _WRITES and path != os.devnull:
                self._refuse("opens a file for writing")
        elif event in _ACTS:
            self._refuse(_ACTS[event])
        elif event == "import" and args[0] == _BY_LIBPQ:
            self._refuse(_CONNECTS)

    def _refuse(self, what: str) -> NoReturn:
        if self._tell is not None:
            self._tell(what)
        raise OutsideRefused(what)

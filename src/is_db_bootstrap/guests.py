"""Running code of the user: revisions, blueprints, `configure`, models.

User code is a guest. Whatever it raises becomes an error that names its file and line, `SystemExit`
and the like included: an exit code of a guest would otherwise end the whole run, as a success even.
`os._exit` ends a process without any exception, so a guest that calls it meets one that raises.
What a guest prints goes to stderr, because stdout carries the result of a command.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from is_db_bootstrap.errors import BootstrapError

_PACKAGE = f"{Path(__file__).parent}/"
#: Packages that run user code, and so stand in its tracebacks.
_RUNNERS = ("/alembic/", "/sqlalchemy/", "/psycopg/")


class GuestFailed(Exception):
    """User code raised something.

    `said` is its class and text, `where` its file and line in brackets, or empty.
    """

    def __init__(self, cause: BaseException) -> None:
        self.said = _said(cause)
        self.where = place_of(cause)
        super().__init__(f"{self.said}{self.where}")


@contextmanager
def guest() -> Iterator[None]:
    """Run user code: `GuestFailed` for an exception that is no `Exception`, prints to stderr.

    An ordinary `Exception` passes as it is, because only the caller knows which of them it can
    translate. A Ctrl-C passes too. It is told from a `KeyboardInterrupt` that user code raises by
    the signal, which only a Ctrl-C sends.
    """
    with _prints_to_stderr(), _no_silent_exit(), _real_interrupts() as interrupted:
        try:
            yield
        except Exception:
            raise
        except BaseException as exc:
            if interrupted:
                raise KeyboardInterrupt from exc
            raise GuestFailed(exc) from exc


@contextmanager
def strict_guest() -> Iterator[None]:
    """As `guest`, and every `Exception` becomes a `GuestFailed` as well, but our own errors."""
    try:
        with guest():
            yield
    except (BootstrapError, GuestFailed):
        raise
    except Exception as exc:
        raise GuestFailed(exc) from exc


def place_of(exc: BaseException) -> str:
    """` (FILE, line N)` of the user's own code where `exc` was raised.

    Empty when no frame is known.

    The innermost frame outside of the standard library, of installed packages and of this package
    counts. A blueprint that is itself an installed package has no such frame, so the innermost one
    that does not run or import it counts.
    """
    if isinstance(exc, SyntaxError) and exc.filename:
        return f" ({exc.filename}, line {exc.lineno})"
    import traceback  # with what follows, only when something went wrong

    frames = [f for f in traceback.extract_tb(exc.__traceback__) if not f.filename.startswith("<")]
    guests = [f for f in frames if _is_installed(f.filename) or not _is_library(f.filename)]
    own = [f for f in guests if not _is_installed(f.filename)]
    called = [f for f in guests if not any(name in f.filename for name in _RUNNERS)]
    found = own or called or frames
    return f" ({found[-1].filename}, line {found[-1].lineno})" if found else ""


def _is_installed(filename: str) -> bool:
    """Whether it belongs to an installed package other than this one."""
    return _is_below(filename, "purelib", "platlib") and not filename.startswith(_PACKAGE)


def _is_library(filename: str) -> bool:
    """Whether it belongs to the standard library or to this package."""
    return _is_below(filename, "stdlib", "platstdlib") or filename.startswith(_PACKAGE)


def _is_below(filename: str, *places: str) -> bool:
    import sysconfig

    return filename.startswith(tuple(f"{sysconfig.get_path(place)}/" for place in places))


def _said(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return f"{type(exc).__name__}: {exc.msg}"
    return f"{type(exc).__name__}: {exc}".removesuffix(": ")


@contextmanager
def _real_interrupts() -> Iterator[list[int]]:
    """A list that is not empty once the process was sent SIGINT.

    Only the main thread is interrupted by one.
    """
    received: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        if signal.getsignal(signal.SIGINT) is note:  # user code may have set one of its own
            signal.signal(signal.SIGINT, before)


#: Ends this process at once, also in a signal handler that interrupts a guest.
end_process = os._exit
#: Where user code finds it; `os` has taken it from the other.
_EXITS = [os, *(sys.modules[name] for name in ("posix", "nt") if name in sys.modules)]


@contextmanager
def _no_silent_exit() -> Iterator[None]:
    """While guests run, `os._exit` raises `SystemExit` in their threads.

    A child that a guest has forked ends as ever, and so does a call from any other thread.
    """
    process = os.getpid()

    def guarded_exit(status: int) -> NoReturn:
        if getattr(_here, "depth", 0) and os.getpid() == process:
            raise SystemExit(f"os._exit({status})")
        end_process(status)

    global _exits  # noqa: PLW0603 - `os` is one for the process, so is the count of those who changed it
    with _change:
        _exits += 1
        for module in _EXITS:
            module._exit = guarded_exit  # type: ignore[attr-defined]  # noqa: SLF001 - user code's own name for it
    try:
        yield
    finally:
        with _change:
            _exits -= 1
            for module in _EXITS if not _exits else ():
                module._exit = end_process  # type: ignore[attr-defined]  # noqa: SLF001 - the same


class _Stdout:
    """Stands for `sys.stdout` while guests run: they write to stderr, the other threads to stdout as ever."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr if getattr(_here, "depth", 0) else self.real, name)


_here = threading.local()
_change = threading.Lock()
_guests = 0
_exits = 0


@contextmanager
def _prints_to_stderr() -> Iterator[None]:
    """While this thread is inside, what it writes to `sys.stdout` goes to `sys.stderr`."""
    global _guests  # noqa: PLW0603 - `sys.stdout` is one for the process, so is the count of those who changed it
    with _change:
        _guests += 1
        if not isinstance(sys.stdout, _Stdout):
            sys.stdout = _Stdout(sys.stdout)
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1
        with _change:
            _guests -= 1
            if not _guests and isinstance(sys.stdout, _Stdout):
                sys.stdout = sys.stdout.real

"""How the command ends: output that cannot be written, signals, and the exit code that says so.

While a command runs, `sys.stdout` and `sys.stderr` are a `Stream`. It never raises: what could not
be written is noted, and the work goes on to its end. So a reader that has gone, a full disk or an
encoding without an umlaut costs the text, and neither a termination log nor the orderly end of a
run.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, BinaryIO, TextIO

import click

from is_db_bootstrap.guests import end_process
from is_db_bootstrap.names import STEP_THREAD

#: The exit code of a command that did its work, but whose output could not be written.
UNWRITTEN = 9
#: What a shell adds to the number of the signal that ended a process.
BY_SIGNAL = 128
#: The signals that end a command. SIGHUP is left alone where it is ignored, as under nohup.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ESCAPE = "is-db-bootstrap.escape"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""Write what an encoding lacks as `\uXXXX`, which a person can read and JSON means the same by."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    numbers = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(f"\\u{number:04x}" for number in numbers), error.end


codecs.register_error(_ESCAPE, _escaped)


class Stream(io.TextIOBase):
    """A text stream that takes everything; `failure` says why not all of it was written.

    None for `inner`: it is closed.
    """

    def __init__(
        self, inner: TextIO | None, mask: Callable[[str], str] = lambda text: text
    ) -> None:
        self._inner = inner
        self.mask = mask
        self.failure = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there
        """That of the stream inside."""
        return getattr(self._inner, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What becomes of characters that the encoding lacks."""
        return _ESCAPE

    @property
    def buffer(self) -> BinaryIO:
        """The bytes below.

        Hidden for ASCII, where click would write UTF-8 to them in spite of what was asked for.
        """
        if self._inner is None or codecs.lookup(self.encoding).name == "ascii":
            raise AttributeError("buffer")
        return self._inner.buffer

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return self._inner is not None and self._inner.isatty()

    def fileno(self) -> int:
        """The number of its descriptor."""
        if self._inner is None:
            raise io.UnsupportedOperation("fileno")
        return self._inner.fileno()

    def write(self, text: str) -> int:
        """Write `text`, or note why not."""
        if not isinstance(text, str):  # how click finds out whether a stream is one of bytes
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        length = len(text)
        if text and not self.failure:
            text = self.mask(text)
            self._try("write", text.encode(self.encoding, _ESCAPE).decode(self.encoding))
        return length

    def flush(self) -> None:
        """Write what is held back, or note why not."""
        if self._inner is not None and not self.failure:
            self._try("flush")

    def _try(self, method: str, *args: str) -> None:
        if self._inner is None:
            self.failure = "it is closed"
            return
        try:
            getattr(self._inner, method)(*args)
        except (OSError, ValueError) as exc:
            self.failure = getattr(exc, "strerror", None) or str(exc)
            self._discard()

    def _discard(self) -> None:
        """Let what is held back go nowhere: Python would try again at its end, and complain."""
        with suppress(OSError, ValueError, AttributeError):
            number = self.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


@contextmanager
def streams(
    mask: Callable[[str], str] = lambda text: text,
) -> Iterator[tuple[Stream, Stream]]:
    """Stand in for stdout and stderr, and give a closed stdin its end.

    All text of the command leaves through these two and through `masked`, so `mask` is applied
    once.
    """
    _open_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    out, err = Stream(sys.stdout, mask), Stream(sys.stderr, mask)
    sys.stdin = io.StringIO() if sys.stdin is None else sys.stdin
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _open_descriptors() -> None:
    """Occupy 0 to 2 where they are closed: a connection to a store would get the number, and a child's output with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)  # noqa: FBT003 - the standard library's signature


def masked(text: str) -> str:
    """`text` for a file, as stdout would show it."""
    mask = getattr(sys.stdout, "mask", None)
    return str(mask(text)) if mask else text


def unwritten() -> str:
    """Why what was printed to stdout so far could not be written; empty when it was."""
    sys.stdout.flush()
    return str(getattr(sys.stdout, "failure", ""))


def judged(code: int) -> int:
    """The exit code of a command whose work ended with `code`, when it is known what became of its output."""
    return code or (UNWRITTEN if unwritten() else 0)


class Ending:
    """What ends this process, beside its work."""

    #: The first signal that came.
    signal = 0
    #: Whether threads were left behind in calls that do not end, so that Python must not wait for
    #: anything.
    abandoned = False

    @property
    def code(self) -> int:
        """The exit code of an interrupted command."""
        return BY_SIGNAL + (self.signal or signal.SIGINT)


ending = Ending()


def say(text: bytes) -> None:
    """Write to stderr from a signal handler, where nothing may be raised or waited for."""
    with suppress(OSError):
        os.write(2, text)


@contextmanager
def signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP are raised as KeyboardInterrupt, so that what runs cleans up.

    The second one ends at once.

    A run has handlers of its own meanwhile. What a parent had us ignore stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        if ending.signal:
            end_process(BY_SIGNAL + number)
        ending.signal = number
        raise KeyboardInterrupt

    usual = {signal.SIG_DFL, signal.default_int_handler}
    before: dict[int, Any] = {
        n: signal.getsignal(n) for n in ENDING if signal.getsignal(n) in usual
    }
    ending.signal, ending.abandoned = 0, False
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_a_call_left_behind() -> bool:
    """Whether a thread is still in a call of a run that has ended: such as a revision that hangs."""
    return any(thread.name == STEP_THREAD for thread in threading.enumerate())


def end_children() -> None:
    """Kill what a call that was left behind has started in our process group.

    Servers of `local` are in others.
    """
    try:
        import psutil
    except ImportError:  # only `local` needs it; a container's processes end with its first one
        return
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(child.pid) == os.getpgrp():
                    child.kill()


def finish(code: int, out: Stream, err: Stream) -> int:
    """The exit code of the process; says so when the output could not be written."""
    out.flush()
    if out.failure:
        click.echo(
            f"is-db-bootstrap: standard output could not be written: {out.failure}. The work itself ended with {code}."
            " Run again with an output that can be written.",
            err=True,
        )
    err.flush()
    return code or (UNWRITTEN if out.failure else 0)

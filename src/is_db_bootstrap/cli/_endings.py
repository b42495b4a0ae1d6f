"""How the command ends: output that cannot be written, signals, and the exit code that says so.

While a command runs, `sys.stdout` and `sys.stderr` are a `Stream`. A `Stream` never raises. It
notes what could not be written, and the work goes on to its end. So a reader that has gone, a full
disk or an encoding without an umlaut costs the text, but neither a termination log nor the orderly
end of a run.

The result of a command is printed to `result_stream()`. In a process of the command, that stream
has a descriptor of its own, and descriptor 1 is stderr. So nothing that user code or its children
print can stand in the result.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import click

from is_db_bootstrap.guests import claim_process, end_process
from is_db_bootstrap.names import STEP_THREAD

if TYPE_CHECKING:
    from is_db_bootstrap.cli._json_log import JsonLog

#: The exit codes of `migrate` and `setup`, beside 0.
FAILED = 1
WRONG_USAGE = 2
#: The exit code of a command that did its work, but whose output could not be written.
UNWRITTEN = 9
#: What a shell adds to the number of the signal that ended a process.
BY_SIGNAL = 128
#: The signals that end a command. SIGHUP is left alone where it is ignored, as under nohup.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: What a signal does when nobody has said otherwise.
_USUAL_HANDLERS: set[Any] = {signal.SIG_DFL, signal.default_int_handler}
#: The descriptors of stdin, stdout and stderr.
_STANDARD_DESCRIPTORS = (0, 1, 2)
_STDOUT_DESCRIPTOR = 1
_STDERR_DESCRIPTOR = 2
#: The name of our error handler among the codecs.
_ESCAPE = "is-db-bootstrap.escape"


def _escape_characters(error: UnicodeError) -> tuple[str, int]:
    r"""Write characters that an encoding lacks as `\uXXXX`.

    A person can read that, and it means the same character in JSON.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    code_units = characters.encode("utf-16-be", "surrogatepass")
    pairs = (code_units[i : i + 2] for i in range(0, len(code_units), 2))
    numbers = (int.from_bytes(pair, "big") for pair in pairs)
    escaped = "".join(f"\\u{number:04x}" for number in numbers)
    return escaped, error.end


codecs.register_error(_ESCAPE, _escape_characters)


def _same_text(text: str) -> str:
    return text


class Stream(io.TextIOBase):
    """A text stream that takes everything. `failure` says why not all of it was written.

    `inner` is the stream that it writes to. None means that this stream is closed. `mask` is
    applied to every text.
    """

    def __init__(self, inner: TextIO | None, mask: Callable[[str], str] = _same_text) -> None:
        self._inner = inner
        self.mask = mask
        self.failure = ""
        #: Makes records of what is written. None: the text stays as it is.
        self.log: JsonLog | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # TextIOBase has an attribute there
        """The encoding of the stream inside."""
        return getattr(self._inner, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # TextIOBase has an attribute there
        """What becomes of characters that the encoding lacks."""
        return _ESCAPE

    @property
    def buffer(self) -> BinaryIO:
        """The stream of bytes below.

        It is hidden where the encoding is ASCII. Click would write UTF-8 to it, in spite of the
        encoding that was asked for.
        """
        if self._inner is None or codecs.lookup(self.encoding).name == "ascii":
            raise AttributeError("buffer")
        return cast("BinaryIO", _Bytes(self))

    def __getattr__(self, name: str) -> Any:
        """What the stream inside has besides, such as its `name`.

        User code may read that. Private names are hidden, and so is `buffer`, where this class
        hides it.
        """
        if name.startswith("_") or name == "buffer":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def reconfigure(self, **_: Any) -> None:
        """Change nothing: the output has the encoding that the caller of the command asked for."""

    def detach(self) -> BinaryIO:
        """The stream of bytes below. This stream goes on to write to it."""
        if self._inner is None:
            raise io.UnsupportedOperation("detach")
        return cast("BinaryIO", _Bytes(self))

    def writable(self) -> bool:
        """Whether the stream takes text: always."""
        return True

    def isatty(self) -> bool:
        """Whether a person sees the text."""
        return self._inner is not None and self._inner.isatty()

    def fileno(self) -> int:
        """The number of the stream's descriptor."""
        if self._inner is None:
            raise io.UnsupportedOperation("fileno")
        return self._inner.fileno()

    def write(self, text: str) -> int:
        """Write `text`, or note why that failed. Returns the length of `text` in both cases."""
        if not isinstance(text, str):  # Click tells by this error that the stream is no binary one.
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.write_record(text if self.log is None else self.log.of_text(text))
        return len(text)

    def write_record(self, text: str) -> None:
        """Write `text` without making records of it, or note why that failed."""
        if text and not self.failure:
            masked = self.mask(text)
            encodable = masked.encode(self.encoding, _ESCAPE).decode(self.encoding)
            self._call("write", self._inner, encodable)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, or note why that failed."""
        self.flush()
        if self._inner is not None and not self.failure:
            self._call("write", self._inner.buffer, data)

    def flush(self) -> None:
        """Write what is held back, or note why that failed."""
        if self._inner is not None and not self.failure:
            self._call("flush", self._inner)

    def _call(self, method: str, inner: TextIO | BinaryIO | None, *args: Any) -> None:
        """Call a method of the stream inside, or note why that failed."""
        if inner is None:
            self.failure = "it is closed"
            return
        try:
            getattr(inner, method)(*args)
        except (OSError, ValueError) as exc:
            self.failure = getattr(exc, "strerror", None) or str(exc)
            self._discard_rest()

    def _discard_rest(self) -> None:
        """Let what is held back go nowhere.

        Python would try to write it once more at the end of the process, and complain.
        """
        with suppress(OSError, ValueError, AttributeError):
            _open_nowhere(self.fileno(), os.O_WRONLY)


class _Bytes(io.BufferedIOBase):
    """The bytes below a `Stream`. It takes everything too, and closing it closes nothing."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether a person sees the bytes."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The number of the stream's descriptor."""
        return self._stream.fileno()

    def write(self, data: Any) -> int:
        """Write `data`. Returns its size in bytes."""
        size = memoryview(data).nbytes
        self._stream.write_bytes(bytes(data))
        return size

    def flush(self) -> None:
        """Write what is held back."""
        self._stream.flush()


def _open_nowhere(number: int, flags: int) -> None:
    """Open the null device as descriptor `number`."""
    nowhere = os.open(os.devnull, flags)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


class _PatientFile(io.RawIOBase):
    """Writes bytes to a descriptor, and waits where the descriptor takes none at the moment.

    A caller may hand over a pipe that does not block, as Node.js does. Python's own streams give up
    on such a pipe when the pipe is full.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self.name = name

    def fileno(self) -> int:
        """The descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                written = os.write(self._number, left)
            except BlockingIOError:
                select.select([], [self._number], [])
                continue
            left = left[written:]
        return size


def _patient(stream: TextIO, number: int) -> TextIO:
    """A stream like `stream`, which writes to the descriptor `number` and waits for it."""
    by_line = stream.line_buffering or getattr(stream, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(_PatientFile(number, stream.name)),
        encoding=stream.encoding,
        errors=stream.errors,
        newline="",
        line_buffering=bool(by_line),
    )


def _own_stdout() -> TextIO | None:
    """Stdout on a descriptor of its own. Descriptor 1 is stderr from now on.

    A terminal keeps its descriptor. Nobody takes a document from it, and a prompt needs it.
    """
    stream = sys.stdout
    if stream is not None:
        stream.flush()
        if stream.isatty():
            return _patient(stream, _STDOUT_DESCRIPTOR)
    own = None if stream is None else _patient(stream, os.dup(_STDOUT_DESCRIPTOR))
    os.dup2(_STDERR_DESCRIPTOR, _STDOUT_DESCRIPTOR)
    return own


def own_streams(mask: Callable[[str], str] = _same_text) -> tuple[Stream, Stream]:
    """Stand in for stdout and stderr to the end of a process that is the command's own.

    What Python writes after the command has ended, such as what user code has left to do then,
    still goes through them.
    """
    _occupy_standard_descriptors()
    out = _own_stdout()
    err = None if sys.stderr is None else _patient(sys.stderr, _STDERR_DESCRIPTOR)
    streams = _stand_in(out, err, mask)
    claim_process(streams[1])
    return streams


@contextmanager
def guarded_streams(mask: Callable[[str], str] = _same_text) -> Iterator[tuple[Stream, Stream]]:
    """Stand in for stdout and stderr of a process that goes on after the command.

    All text of the command leaves through these two streams and through `masked_text`, so `mask` is
    applied once.
    """
    _occupy_standard_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    try:
        yield _stand_in(sys.stdout, sys.stderr, mask)
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        _result.stream = _result.log_stream = None


def _stand_in(
    inner_out: TextIO | None, inner_err: TextIO | None, mask: Callable[[str], str]
) -> tuple[Stream, Stream]:
    """Put our streams in the place of Python's, and give a closed stdin its end."""
    out = Stream(inner_out, mask)
    err = _result.log_stream = Stream(inner_err, mask)
    if sys.stdin is None:
        sys.stdin = io.StringIO()
    sys.stdout = _result.stream = out
    sys.stderr = err
    return out, err


class _Result:
    """Where the result of the command that runs is printed."""

    stream: Stream | None = None
    #: What stderr is, for the records of the log.
    log_stream: Stream | None = None


_result = _Result()


def log_as_json(log: JsonLog) -> None:
    """Make records of everything that is written to stderr from now on."""
    if _result.log_stream is not None:
        _result.log_stream.log = log


def write_record(line: str) -> None:
    """Write a record to stderr, which is a line with its end."""
    stream = _result.log_stream
    if stream is not None:
        stream.write_record(line)
        stream.flush()


def log_message(message: str, level: str) -> bool:
    """Write a message as one record where stderr gets records. Returns whether it does."""
    stream = _result.log_stream
    if stream is None or stream.log is None:
        return False
    write_record(stream.log.of_message(message, level))
    return True


def tell_failure(message: str) -> None:
    """Write what went wrong to stderr: a line, or one record of the level "error"."""
    if not log_message(message, "error"):
        click.echo(message, err=True)


def result_stream() -> TextIO:
    """The stream for the result of a command.

    It is stdout, and no other code writes to it. `sys.stdout` is stderr once user code has run.
    """
    return _result.stream or sys.stdout  # type: ignore[return-value]  # a `Stream` is a text stream


def _occupy_standard_descriptors() -> None:
    """Open the descriptors 0 to 2 where they are closed.

    A connection to a store would otherwise get such a number, and with it the output of a child.
    """
    for number in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(number)
        except OSError:
            _open_nowhere(number, os.O_RDWR)
            os.set_inheritable(number, True)  # noqa: FBT003 - the standard library's signature


def masked_text(text: str) -> str:
    """`text` for a file, as stdout would show it."""
    mask = getattr(result_stream(), "mask", None)
    return str(mask(text)) if mask else text


def stdout_failure() -> str:
    """Why what was printed to stdout so far could not be written. Empty when all was written."""
    stream = result_stream()
    stream.flush()
    return str(getattr(stream, "failure", ""))


def code_after_output(code: int) -> int:
    """The exit code of a command whose work ended with `code` and whose output is printed.

    This is for a termination log. A command itself returns `code`, and `finish_output` sees to the
    output.
    """
    if code:
        return code
    return UNWRITTEN if stdout_failure() else 0


class Ending:
    """What ends this process, beside its work."""

    #: The number of the first signal that came. 0 means that none came.
    signal = 0
    #: Whether threads were left behind in calls that do not end. Python must then wait for nothing.
    abandoned = False

    @property
    def code(self) -> int:
        """The exit code of an interrupted command."""
        return BY_SIGNAL + (self.signal or signal.SIGINT)


ending = Ending()


def write_from_handler(text: bytes) -> None:
    """Write to stderr from a signal handler, where nothing may be raised or waited for."""
    log = getattr(_result.log_stream, "log", None)
    if log is not None:
        text = log.of_message(text.decode(errors="replace"), "warning").encode()
    with suppress(OSError):
        os.write(_STDERR_DESCRIPTOR, text)


def know_handlers(handlers: Iterable[Callable[..., object]]) -> None:
    """Count these handlers too as what a signal does when nobody has said otherwise."""
    _USUAL_HANDLERS.update(handlers)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise SIGINT, SIGTERM and SIGHUP as KeyboardInterrupt, so that what runs cleans up.

    The second signal ends the process at once. A run replaces these handlers by its own. A signal
    that a parent process had us ignore stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle_signal(number: int, _: FrameType | None) -> None:
        if ending.signal:
            end_process(BY_SIGNAL + number)
        ending.signal = number
        raise KeyboardInterrupt

    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    replaced = {number: each for number, each in handlers.items() if each in _USUAL_HANDLERS}
    ending.signal = 0
    ending.abandoned = False
    for number in replaced:
        signal.signal(number, handle_signal)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def has_stuck_call() -> bool:
    """Whether a thread is still in a call of a run that has ended, such as a hanging revision."""
    return any(thread.name == STEP_THREAD for thread in threading.enumerate())


def end_children() -> None:
    """Kill what a call that was left behind has started in our process group.

    The servers of `local` are in groups of their own.
    """
    try:
        import psutil
    except (ImportError, OSError):
        # Only `local` needs it. A container's processes end with its first one. A process that may
        # open no more files cannot import it.
        return
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(child.pid) == os.getpgrp():
                    child.kill()


def finish_output(code: int, out: Stream, err: Stream) -> int:
    """Write what is held back, and return the exit code of the process.

    An output that could not be written is told on stderr. It gives a successful command another
    exit code.
    """
    out.flush()
    if out.failure:
        tell_failure(
            f"is-db-bootstrap: standard output could not be written: {out.failure}. "
            f"The work itself ended with {code}. Run again with an output that can be written."
        )
    if err.log is not None:
        err.write_record(err.log.rest())
    err.flush()
    if code:
        return code
    return UNWRITTEN if out.failure else 0

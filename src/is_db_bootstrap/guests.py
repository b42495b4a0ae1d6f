"""Running code of the user: revisions, blueprints, `configure`, models.

User code is a guest. Whatever a guest raises becomes an error that names file and line.
`SystemExit` becomes such an error too, since an exit code of a guest would otherwise end the whole
run, and might even look like success. `os._exit` and `os.exec*` end a process, or its program,
without any exception. So a guest gets functions that raise. What a guest prints goes to stderr,
because stdout carries the result of a command.

A program that uses this package has threads and signal handlers of its own, which are left alone. A
process of the command has none, so a command calls `claim_process`: whatever is not ours is then a
guest's, in every thread.

C code that calls `exit` by itself is seen by nobody here.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from is_db_bootstrap.errors import BootstrapError

_PACKAGE = f"{Path(__file__).parent}/"
#: Packages that run user code, and so stand in its tracebacks.
_RUNNERS = ("/alembic/", "/sqlalchemy/", "/psycopg/")
#: The functions of a revision.
_STEPS = {"upgrade", "downgrade"}
#: The signals that end a process, unless it has a handler that does otherwise.
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class GuestFailed(Exception):
    """User code raised something.

    `str()` has the class, the text, and in brackets the file and line. The text may have values of
    rows, so `general` leaves it out unless it can have none. `detail` is then the text, as a
    sentence. Otherwise it is empty.
    """

    def __init__(self, cause: BaseException) -> None:
        said, where = _class_and_text(cause), place_of(cause)
        super().__init__(f"{said}{where}")
        kind = type(cause).__name__
        is_shown = said == kind or _is_without_values(cause)
        self.general = str(self) if is_shown else f"{kind}{where}"
        self.detail = "" if is_shown else f"It said: {said.removeprefix(f'{kind}: ')}."


@contextmanager
def guest() -> Iterator[None]:
    """Run user code. Raises `GuestFailed` for what user code raises that is no `Exception`.

    An ordinary `Exception` passes as it is, because only the caller knows which ones it can
    translate. A Ctrl-C passes too, and so does what another signal that ends the process raises.
    These come with a signal, and a `KeyboardInterrupt` that user code raises comes without one.
    """
    with _prints_to_stderr(), _no_silent_end(), _real_interrupts() as interrupts:
        try:
            yield
        except Exception:
            raise
        except BaseException as exc:
            if exc in interrupts:
                raise
            if interrupts:
                raise interrupts[0] from exc
            raise GuestFailed(exc) from exc


@contextmanager
def strict_guest() -> Iterator[None]:
    """As `guest`, but every `Exception` except our own errors becomes a `GuestFailed` as well."""
    try:
        with guest():
            yield
    except (BootstrapError, GuestFailed):
        raise
    except Exception as exc:
        raise GuestFailed(exc) from exc


@contextmanager
def host() -> Iterator[None]:
    """Run code of our own that a guest has called back.

    What that code prints goes to stdout, and it may end the process, as it may outside of guests.
    """
    depth = getattr(_here, "depth", 0)
    _here.depth = 0
    try:
        yield
    finally:
        _here.depth = depth


def place_of(exc: BaseException) -> str:
    """` (FILE, line N)` of the user's own code where `exc` was raised.

    Empty when no frame is known.

    The innermost frame outside of the standard library, of installed packages and of this package
    counts. A blueprint that is itself an installed package has no such frame. Then the innermost
    frame counts that does not belong to a package that runs user code, and the line of the revision
    that has called it is named as well.
    """
    if isinstance(exc, SyntaxError) and exc.filename:
        return f" ({exc.filename}, line {exc.lineno})"
    import traceback  # takes a while, and is needed only when something went wrong

    # `<string>` is no file, and a compiled module names a file of the place where it was compiled.
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if Path(f.filename).is_file()]
    guests = [f for f in frames if _is_installed(f.filename) or not _is_library(f.filename)]
    own = [f for f in guests if not _is_installed(f.filename)]
    called = [f for f in guests if not _is_runner(f.filename)]
    found = own or called or frames
    if not found:
        return ""
    innermost = found[-1]
    place = f"{innermost.filename}, line {innermost.lineno}"
    steps = [f for f in found if f.name in _STEPS and f.filename != innermost.filename]
    if steps and not own:
        place += f", called from {steps[0].filename}, line {steps[0].lineno}"
    return f" ({place})"


def own_place_of(exc: BaseException) -> str:
    """`FILE, line N` of the user's own code where `exc`, or what caused it, was raised.

    Empty when no frame is the user's own.
    """
    import traceback  # takes a while, and is needed only when something went wrong

    each: BaseException | None = exc
    while each is not None:
        for frame in reversed(traceback.extract_tb(each.__traceback__)):
            name = frame.filename
            if not _is_installed(name) and not _is_library(name) and Path(name).is_file():
                return f"{name}, line {frame.lineno}"
        each = each.__cause__ or each.__context__
    return ""


def _is_runner(filename: str) -> bool:
    """Whether the file belongs to a package that runs user code."""
    return any(name in filename for name in _RUNNERS)


def _is_installed(filename: str) -> bool:
    """Whether the file belongs to an installed package other than this one."""
    return _is_below(filename, "purelib", "platlib") and not filename.startswith(_PACKAGE)


def _is_library(filename: str) -> bool:
    """Whether the file belongs to the standard library or to this package."""
    return _is_below(filename, "stdlib", "platstdlib") or filename.startswith(_PACKAGE)


def _is_below(filename: str, *places: str) -> bool:
    """Whether the file is below one of these places of the installation, such as `purelib`."""
    import sysconfig  # takes a while, and is needed only when something went wrong

    folders = tuple(f"{sysconfig.get_path(place)}/" for place in places)
    return filename.startswith(folders)


def _class_and_text(exc: BaseException) -> str:
    """Such as `ValueError: no rows`."""
    if isinstance(exc, SyntaxError):
        return f"{type(exc).__name__}: {exc.msg}"
    return f"{type(exc).__name__}: {exc}".removesuffix(": ")


#: What `os._exit` of a guest raises says this.
_SAID_BY_EXIT = re.compile(r"os\._exit\(-?\d+\)")


def _is_without_values(exc: BaseException) -> bool:
    """Whether the text is Python's own about the code, or about an exit, and not one of the code.

    Only Python itself gives an error the name of what is missing, or the file of a syntax error.
    What `eval` runs, or `import_module` imports, may be a value.
    """
    text = str(exc)
    if isinstance(exc, SyntaxError):
        return bool(exc.filename) and not str(exc.filename).startswith("<")
    if isinstance(exc, SystemExit):
        return isinstance(exc.code, int) or bool(_SAID_BY_EXIT.fullmatch(text))
    if isinstance(exc, ModuleNotFoundError):
        return text == f"No module named {exc.name!r}" and _was_raised_in_a_file(exc)
    if isinstance(exc, NameError):
        return text == f"name {exc.name!r} is not defined" and _was_raised_in_a_file(exc)
    return False


def _was_raised_in_a_file(exc: BaseException) -> bool:
    """Whether code of a file raised it.

    The other code is that of `eval` and `exec` (`<string>`) and that of `import_module`
    (`<frozen importlib._bootstrap>`). An `import` statement counts as the file that has it.
    """
    trace = exc.__traceback__
    file = "<nowhere>"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    return not file.startswith("<")


@contextmanager
def _real_interrupts() -> Iterator[list[BaseException]]:
    """A list of what the handlers of `_ENDING_SIGNALS` have raised meanwhile.

    Signals interrupt the main thread only, so the list stays empty in every other thread. A handler
    that user code has set meanwhile stays in a program, and is taken back in a claimed process.
    """
    raised: list[BaseException] = []
    if threading.current_thread() is not threading.main_thread():
        yield raised
        return
    found = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    before: dict[int, Any] = {
        number: handler for number, handler in found.items() if callable(handler)
    }

    def note(number: int, frame: FrameType | None) -> None:
        try:
            before[number](number, frame)
        except BaseException as exc:
            raised.append(exc)
            raise

    for number in before:
        signal.signal(number, note)
    try:
        yield raised
    finally:
        for number, handler in found.items():
            is_ours = signal.getsignal(number) is note
            if handler is not None and (is_ours or _is_claimed()):
                signal.signal(number, handler)


#: Ends this process at once, also in a signal handler that interrupts a guest.
end_process = os._exit
#: The modules in which user code finds what ends a process. `os` has its own from the other one.
_ENDS_IN = [os, *(sys.modules[name] for name in ("posix", "nt") if name in sys.modules)]
#: What ends a process or its program. All other functions of `os` that do so call one of these.
_ENDS: dict[str, Callable[..., NoReturn]] = {
    "_exit": end_process,
    "execv": os.execv,
    "execve": os.execve,
}


class _Claim:
    """What `claim_process` and `settle_code` were told, for one process and not for its forks."""

    def __init__(self) -> None:
        self.process = 0
        self.stderr: Any = None
        self.code: int | None = None


_claim = _Claim()


def claim_process(stderr: Any) -> None:
    """Treat whatever is not ours in this process as a guest's, to the end of the process.

    `os._exit` or `os.exec*` in a thread that user code has started ends the command as SIGTERM
    does. Handlers of the signals that end a process are put back after each guest. `sys.stdout` is
    `stderr` from the first guest on, also for threads and loggers that guests leave behind.
    """
    _claim.process = os.getpid()
    _claim.stderr = stderr
    _claim.code = None
    with _changing:
        _guard_ends()


def settle_code(code: int) -> None:
    """Let a claimed process end with `code` from now on, whoever ends it."""
    _claim.code = code


def _is_claimed() -> bool:
    return _claim.process == os.getpid()


@contextmanager
def _no_silent_end() -> Iterator[None]:
    """While guests run, what ends the process raises `SystemExit` in their threads.

    A child that a guest has forked ends as ever. So does a call from any other thread, unless the
    process is claimed.
    """
    with _changing:
        _counts.ends += 1
        _guard_ends()
    try:
        yield
    finally:
        with _changing:
            _counts.ends -= 1
            if not _counts.ends and not _is_claimed():
                _set_ends(_ENDS)


def _guard_ends() -> None:
    """Let user code find functions that end nothing."""
    process = os.getpid()
    _set_ends({name: _guarded(name, function, process) for name, function in _ENDS.items()})


def _guarded(name: str, function: Callable[..., NoReturn], process: int) -> Callable[..., NoReturn]:
    """`function` for the children of `process`. In `process` itself, guests do not get it."""

    def guarded(*args: Any) -> NoReturn:
        is_in_child = os.getpid() != process
        if is_in_child:
            function(*args)
        called = f"os._exit({args[0]})" if name == "_exit" else f"os.exec*({_program(args[0])})"
        if _is_guest_here():
            raise SystemExit(called)
        if not _is_claimed():
            function(*args)
        _end_command(called)

    return guarded


def _program(path: Any) -> str:
    """The name of a program. `os.execvp` tries it in each folder of PATH, the first one first."""
    return Path(os.fsdecode(path)).name


def _end_command(called: str) -> NoReturn:
    """End a claimed process in an orderly way, because user code wants it to end.

    A thread that user code has started cannot raise anything in the main thread, so it sends a
    signal.
    """
    if _claim.code is not None:
        end_process(_claim.code)
    if threading.current_thread() is not threading.main_thread():
        where = _place_of_caller()
        _claim.stderr.write(
            f"is-db-bootstrap: user code called {called} in a thread{where}. The run ends.\n"
        )
        os.kill(os.getpid(), signal.SIGTERM)
    raise SystemExit(called)


def _place_of_caller() -> str:
    """` (FILE, line N)` of the innermost frame that is neither ours nor the standard library's."""
    found: FrameType | None = sys._getframe()  # noqa: SLF001 - as Python's own `logging` does
    while found is not None and _is_library(found.f_code.co_filename):
        found = found.f_back
    return f" ({found.f_code.co_filename}, line {found.f_lineno})" if found else ""


def _set_ends(functions: Mapping[str, Callable[..., NoReturn]]) -> None:
    """Let user code find these functions in `os`, by their names."""
    for module in _ENDS_IN:
        for name, function in functions.items():
            setattr(module, name, function)


class _Stdout:
    """Stands for `sys.stdout` while guests run.

    Threads of guests write to stderr, and all other threads write to stdout as ever.
    """

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        stream = sys.stderr if _is_guest_here() else self.real
        return getattr(stream, name)


class _Counts:
    """How many guests have changed what is one for the whole process: `os`, `sys.stdout`.

    `streams` are `sys.stdout` and `sys.stderr` as the first of these guests found them, by name.
    """

    def __init__(self) -> None:
        self.ends = 0
        self.prints = 0
        self.streams: dict[str, Any] = {}


_counts = _Counts()
#: Held while what is one for the whole process is changed.
_changing = threading.Lock()
#: `depth` says how many guests run inside each other in a thread.
_here = threading.local()
#: What guests have put in the place of a stream. An `io.TextIOWrapper` that is deleted closes the
#: stream below it, so none is deleted.
_taken_back: list[Any] = []


def _real(stream: Any) -> Any:
    """The stream that an `_Stdout` stands for. Any other stream is returned as it is."""
    return stream.real if isinstance(stream, _Stdout) else stream


def _is_guest_here() -> bool:
    """Whether this thread runs user code at this moment."""
    return getattr(_here, "depth", 0) > 0


@contextmanager
def _prints_to_stderr() -> Iterator[None]:
    """While this thread is inside, what it writes to `sys.stdout` goes to `sys.stderr`.

    When the last guest has gone, both streams are again what they were before the first one came.
    """
    with _changing:
        if not _counts.prints:
            if _is_claimed() and _claim.stderr is not None:
                sys.stdout = _claim.stderr
            _counts.streams = {"stdout": _real(sys.stdout), "stderr": sys.stderr}
        _counts.prints += 1
        if not isinstance(sys.stdout, _Stdout):
            sys.stdout = _Stdout(sys.stdout)
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1
        with _changing:
            _counts.prints -= 1
            put = [] if _counts.prints else _take_streams_back()
        for stream in put:
            with suppress(Exception):
                stream.flush()


def _take_streams_back() -> list[Any]:
    """Put `sys.stdout` and `sys.stderr` back. Returns what guests had put in their place."""
    found = []
    for name, before in _counts.streams.items():
        put = _real(getattr(sys, name))
        is_gone = getattr(before, "closed", False)  # a guest that hung may outlive its stream
        setattr(sys, name, put if is_gone else before)
        if put is not before:
            found.append(put)
    _taken_back.extend(found)
    return found

"""The keeper of a worker: a small process that sees the worker to its end.

The keeper stands between the fleet and its worker. It runs no code of the user, so nothing can hold
it up. Every process that the worker starts is below the keeper, orphans included, whatever process
group, session or environment it chose. When a worker is to end, because the fleet says so, because
it died, or because the fleet has gone, the keeper ends all of these, and then the sessions that
they had on the target's stores. Only then does it report.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from is_db_bootstrap.fleet.targets import Target
from is_db_bootstrap.fleet.worker import SIGNALS, Order, serve
from is_db_bootstrap.guests import end_process
from is_db_bootstrap.leftovers import (
    NOT_LOOKED_FOR,
    end_processes,
    end_sessions,
    sessions_limit_s,
)
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.process_tree import (
    Client,
    adopt_orphans,
    connections,
    descendants,
    is_in_use,
)

#: Tells a keeper to end everything at once.
END_NOW = signal.SIGUSR1
#: Seconds that a worker without a target gets to end by itself.
IDLE_END_S = 10.0
#: Seconds between two looks at a worker that was killed.
_LOOK_S = 0.1
#: Seconds between two looks at who is connected. What was connected for a shorter time is not seen.
_NOTE_S = 1.0
#: Bytes that are read at once from the pipe that a signal wakes the keeper by.
_WAKE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Given:
    """The target that the worker has from now on."""

    target: Target


@dataclass(frozen=True, slots=True)
class End:
    """The keeper is to end the worker and all that it has started.

    No session is looked for on the `silent` stores: they gave the target no answer, so nothing of
    it can go on there, and they would be asked in vain for as long again.
    """

    silent: tuple[StoreName, ...] = ()


@dataclass(frozen=True, slots=True)
class Died:
    """The worker's process has ended by itself."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing is left but what `may_go_on` says, in sentences.

    `exit_code` is the worker's, negative for a signal as in `subprocess`.
    """

    exit_code: int
    may_go_on: tuple[str, ...]


def ending_s(target: Target) -> float:
    """Seconds that a run of `target` may take to end by itself when it is interrupted."""
    timing = target.settings.timing
    # Grace, cancelling, grace again, ending sessions: see `engine.workers`.
    return 2 * max(timing.grace_s, 1.0) + 2 * timing.connect_timeout_s


def keep(
    connection: Connection,
    control: Connection,
    *,
    others: Sequence[Connection],
    order: Order,
    stores: Sequence[StoreName],
    session_name: str,
) -> None:
    """Start a worker that serves `connection`, and see it to its end. Runs in a process of its own.

    `control` leads to the fleet. `others` are the fleet's connections, of which a forked process
    has copies.
    """
    os.setsid()
    for other in others:
        other.close()
    adopt_orphans()
    worker = os.fork()
    if worker == 0:
        os.setsid()  # a group of its own, for systems where nothing but the group can be ended
        control.close()
        _leave_with(lambda: serve(connection, order, session_name))
    connection.close()
    _Keeper(control, worker, stores, session_name).watch()


def _leave_with(work: Callable[[], int]) -> None:
    """End this forked process with the exit code that `work` returns, or with 1 and a traceback."""
    code = 1
    try:
        code = work()
    except BaseException:  # noqa: BLE001 - a forked process must not go on in its parent's code
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        end_process(code)


class _Keeper:
    """Watches one worker."""

    def __init__(
        self, control: Connection, worker: int, stores: Sequence[StoreName], session_name: str
    ) -> None:
        self._control = control
        self._worker = worker
        self._stores = stores
        self._session_name = session_name
        self._target: Target | None = None
        self._exit_code: int | None = None
        self._in_a_hurry = False
        #: Connections of the worker, and of what it started, while it had the target.
        self._seen: set[Client] = set()
        self._woken, self._wake = os.pipe()

    def watch(self) -> None:
        """Do what the fleet says until the worker and all that it started have ended."""
        self._listen_to_signals()
        told_of_death = False
        self._reap()
        while not self._in_a_hurry:
            if self._exit_code is not None and not told_of_death:
                told_of_death = True
                with suppress(OSError):
                    self._control.send(Died())
            self._wait_for_fleet()
            try:
                while self._control.poll():
                    said = self._control.recv()
                    if isinstance(said, Given):
                        self._target = said.target
                        self._seen.clear()
                    else:
                        self._stores = [each for each in self._stores if each not in said.silent]
                        self._control.send(self._end_all())
                        return
            except (EOFError, OSError):
                self._end_without_fleet()
                return
        self._end_all()

    def _listen_to_signals(self) -> None:
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._interrupt_worker())
        signal.signal(END_NOW, lambda *_: self._hurry())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _hurry(self) -> None:
        self._in_a_hurry = True

    def _interrupt_worker(self) -> None:
        if self._exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self._worker, signal.SIGTERM)

    def _wait_for_fleet(self) -> None:
        """Wait for a word of the fleet, or for a signal, such as that of a child's end.

        Meanwhile the connections of the worker and of what it started are noted. A process that
        ends takes its connections out of sight, and the server goes on with what it was asked.
        """
        while not wait([self._control, self._woken], _NOTE_S if self._target else None):
            self._note_clients()
        self._take_signals()

    def _note_clients(self) -> None:
        for pid in descendants(os.getpid()):
            self._seen.update(connections(pid))

    def _wait_for_signal(self, seconds: float) -> None:
        wait([self._woken], seconds)
        self._take_signals()

    def _take_signals(self) -> None:
        """Forget that a signal has come, and do what it asks for.

        Both belong together. A worker that ends in the moment in which the fleet closes its
        connections sends its one signal then, and a keeper that only forgot it would wait for
        another one.
        """
        with suppress(BlockingIOError):
            os.read(self._woken, _WAKE_BYTES)
        self._reap()

    def _reap(self) -> None:
        """Take the exit codes of the worker and of adopted orphans."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._worker:
                    self._exit_code = os.waitstatus_to_exitcode(status)

    def _end_without_fleet(self) -> None:
        """Let the worker end its run, then end whatever it left behind."""
        self._interrupt_worker()
        patience_s = ending_s(self._target) if self._target else IDLE_END_S
        deadline = time.monotonic() + patience_s
        while self._exit_code is None and not self._in_a_hurry:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            self._wait_for_signal(left_s)
        if self._exit_code != 0:
            self._end_all()

    def _end_all(self) -> Ended:
        """End the worker, all that it has started, and their sessions on the target's stores."""
        found, told = end_processes()
        self._kill_group()
        # What is still in use now belongs to another process, which has got the same port since.
        of_the_dead = {client for client in self._seen if not is_in_use(client)}
        told += self._end_sessions(found.clients | of_the_dead)
        code = self._exit_code
        return Ended(-signal.SIGKILL if code is None else code, tuple(told))

    def _kill_group(self) -> None:
        """Kill the worker's process group, which is all that is found without `/proc`."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker, signal.SIGKILL)
        deadline = time.monotonic() + IDLE_END_S
        self._reap()
        while self._exit_code is None and time.monotonic() < deadline:
            self._wait_for_signal(_LOOK_S)

    def _end_sessions(self, clients: Iterable[Client]) -> list[str]:
        """What may go on on the stores, as sentences.

        A child asks them: a client library may hang.
        """
        target = self._target
        if target is None or not self._stores:
            return []
        reader, writer = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            _leave_with(lambda: self._ask_stores(target, clients, writer))
        writer.close()
        try:
            if reader.poll(sessions_limit_s(target.settings)):
                return list(reader.recv())
        except (EOFError, OSError):
            pass
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        return [NOT_LOOKED_FOR]

    def _ask_stores(self, target: Target, clients: Iterable[Client], writer: Connection) -> int:
        told = end_sessions(self._stores, target.settings, self._session_name, clients)
        writer.send(told)
        return 0

"""Starting several servers at once, until each answers its store's own ping."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from is_db_bootstrap.errors import BootstrapError, StoreError
from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.neo4j import Neo4jServer
from is_db_bootstrap.local.process import PYTHON, Process, environment
from is_db_bootstrap.local.server import Server
from is_db_bootstrap.local.stack_folder import StackFolder

#: Seconds that a server may take from its start to its first answer. A cold Neo4j on a busy machine
#: takes 30.
START_S = 120.0
#: Seconds between two looks whether a process that is starting has died.
_LOOK_S = 0.1
#: Seconds that a thread gets to end after its server was ended.
_THREAD_END_S = 5.0


class Start:
    """One start of several servers of a stack.

    Each server has a daemon thread, so that none of them keeps the process from ending after
    Ctrl-C. When one server fails, all that this start has started are ended.
    """

    def __init__(self, folder: StackFolder, listen: str, progress: Progress) -> None:
        self._folder = folder
        self._listen = listen
        self._progress = progress
        self._stop = threading.Event()
        self._spawning = threading.Lock()
        self._clients_are_there = threading.Event()
        self._errors: dict[str, BaseException] = {}
        self._started: list[Server] = []

    def run(self, servers: Sequence[Server]) -> None:
        """Start those of the servers that do not run, and wait until all are ready.

        Raises the first server's error, as servers are ordered.
        """
        threads = [
            threading.Thread(target=self._bring_up_guarded, args=(server,), daemon=True)
            for server in servers
        ]
        try:
            for thread in threads:
                thread.start()
            self._import_clients(servers)
            self._wait_for_all(threads)
            for server in servers:
                if error := self._errors.get(server.store):
                    raise error  # noqa: TRY301 - what was started is undone below
        except BaseException:
            self._undo(threads)
            raise

    def _import_clients(self, servers: Sequence[Server]) -> None:
        """Import what the pings need, in this one thread, while the servers begin to start."""
        from is_db_bootstrap.app import import_bootstrappers

        import_bootstrappers([server.store for server in servers])
        self._clients_are_there.set()

    def _wait_for_all(self, threads: Sequence[threading.Thread]) -> None:
        """Wait until every thread has ended, or one has failed."""
        while not self._errors:
            running = [thread for thread in threads if thread.is_alive()]
            if not running:
                return
            running[0].join(_LOOK_S)

    def _undo(self, threads: Sequence[threading.Thread]) -> None:
        with self._spawning:
            self._stop.set()
        for server in self._started:
            server.kill()
            self._folder.record_server(self._listen, server)
        for thread in threads:
            thread.join(_THREAD_END_S)

    def _bring_up_guarded(self, server: Server) -> None:
        """Bring the server up and keep its error for the caller's thread."""
        try:
            self._bring_up(server)
        except OSError as exc:
            error = StoreError(
                server.store,
                f"{exc.filename or server.home} cannot be used: {exc.strerror or exc}.",
                hint="Make room or mend its permissions, and run again.",
            )
            error.__cause__ = exc
            self._errors[server.store] = error
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
            self._errors[server.store] = exc

    def _bring_up(self, server: Server) -> None:
        if not server.alive():
            server.prepare(self._progress, self._stop)
            self._end_left_behind(server)
            if not self._spawn(server):
                return
        self._wait_until_ready(server)
        if isinstance(server, Neo4jServer):
            _archive_classes(server)
        self._folder.record_server(self._listen, server, is_ready=True)
        self._progress(f"{server.store}: up on {server.host}:{server.port}")

    def _end_left_behind(self, server: Server) -> None:
        """End what a killed start has left without a record: it would hold the data folder."""
        left = Process.left_in(server.data, server.programs)
        if left is None:
            return
        self._progress(
            f"{server.store}: ending process {left.pid}, left behind by an earlier start"
        )
        left.end(server.end_signal, server.patience_s)

    def _spawn(self, server: Server) -> bool:
        """Start the process and record it; False when this start is being undone."""
        with self._spawning:
            if self._stop.is_set():
                return False
            server.start()
            self._started.append(server)
            self._folder.record_server(self._listen, server)
            return True

    def _wait_until_ready(self, server: Server) -> None:
        """Wait for the store's own ping.

        A process that dies is noticed at once, not at the deadline.
        """
        while not self._clients_are_there.wait(_LOOK_S):
            if self._stop.is_set():
                return
        outcome: list[BaseException | None] = []
        ping = threading.Thread(target=_ping, args=(server, outcome.append), daemon=True)
        ping.start()
        while ping.is_alive() and server.alive() and not self._stop.is_set():
            ping.join(_LOOK_S)
        if self._stop.is_set():
            return
        if not server.alive():
            raise server.failed("ended while it started")
        error = outcome[0] if outcome else None
        if isinstance(error, BootstrapError):
            raise server.failed(f"does not answer: {error}") from error
        if error is not None:
            raise error


def _ping(server: Server, report: Callable[[BaseException | None], None]) -> None:
    """Report None when the server is ready, else what was raised."""
    from is_db_bootstrap.app import wait_ready

    try:
        wait_ready({f"{server.store.upper()}_URL": server.url}, [server.store], START_S)
        report(None)
    except BaseException as exc:  # noqa: BLE001 - judged by the caller
        report(exc)


def _archive_classes(server: Neo4jServer) -> None:
    """Have Java's loaded classes written once, in the background.

    The next start is faster for it.
    """
    if server.class_data.exists() or not server.durable:
        return
    module = "is_db_bootstrap.local.class_data"
    with suppress(OSError):
        archiver = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, str(server.pid), str(server.class_data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment(*PYTHON),
        )
        archiver.returncode = 0  # it is meant to outlive us

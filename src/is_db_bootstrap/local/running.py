"""The local stack: what runs, how it is found again, how it comes up together and goes down."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import filelock

from is_db_bootstrap.errors import BootstrapError, ConfigurationError, StoreError
from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.milvus import MilvusServer
from is_db_bootstrap.local.neo4j import Neo4jServer
from is_db_bootstrap.local.places import data_folder, is_root
from is_db_bootstrap.local.postgres import PostgresServer
from is_db_bootstrap.local.process import LOOPBACK, PYTHON, Process, environment
from is_db_bootstrap.local.redis import RedisServer
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.private_files import make_private, write_private

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import Settings

KINDS: Mapping[str, type[Server]] = {
    s.store: s for s in (PostgresServer, Neo4jServer, MilvusServer, RedisServer)
}
#: Seconds that a server may take from its start to its first answer; a cold Neo4j on a busy machine takes 30.
START_S = 120.0
#: A stack's folder is its owner's. Root's lets `nobody` pass, as whom PostgreSQL runs, and read nothing.
STACK_MODE = 0o711 if is_root() else 0o700
#: Seconds between two looks whether a process that is starting has died.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server of the stack; `url` has its password in it and no database."""

    store: str
    version: str
    url: str = field(repr=False)
    pid: int
    log: Path


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A running stack."""

    data_dir: Path
    listen: str
    servers: tuple[LocalServer, ...]

    def environ(self) -> dict[str, str]:
        """`POSTGRES_URL` and so on, passwords included."""
        return {f"{s.store.upper()}_URL": s.url for s in self.servers}

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        servers = [{**asdict(s), "log": str(s.log)} for s in self.servers]
        return {
            "data_dir": str(self.data_dir),
            "listen": self.listen,
            "environ": self.environ(),
            "servers": servers,
        }


def up(
    data_dir: Path | None = None, *, listen: str = LOOPBACK, stores: Sequence[StoreName] = STORE_ORDER, durable: bool = True,
    progress: Progress = silent,
) -> LocalStack:  # fmt: skip
    """Start the stack in `data_dir`, or find the one that runs there and start what of it has died.

    Of `stores` only, when they are given. Servers that are not `durable` may lose data when the machine stops, not when they
    are stopped. Two calls at once give one stack. `listen` other than 127.0.0.1 opens it to the network: all servers have generated
    passwords, and Milvus, which knows none, stays on 127.0.0.1. Raises `ConfigurationError` when a stack runs with
    another `listen`, `StoreError` when a server does not come up; then those that this call started are stopped.
    """
    with _Folder.of(data_dir, durable=durable) as folder:
        return folder.up(listen, progress, stores)


def down(
    data_dir: Path | None = None, *, durable: bool = True, progress: Progress = silent
) -> list[str]:
    """Stop what `up` started in `data_dir` and name it; data stays. Servers that are not `durable` are killed, which is quicker."""
    if not _Folder.exists(data_dir):
        return []
    with _Folder.of(data_dir, durable=durable) as folder:
        return folder.down(progress)


def status(data_dir: Path | None = None) -> LocalStack | None:
    """The servers of the stack that run at this moment; None when there are none. Changes nothing."""
    folder = _Folder(data_folder(data_dir))
    servers = [s for s in folder.servers() if s.alive()]
    return folder.stack(servers) if servers else None


@contextmanager
def stack(
    blueprint: Blueprint,
    data_dir: Path | None = None,
    *,
    ephemeral: bool = False,
    progress: Progress = silent,
) -> Iterator[Settings]:
    """Settings of `blueprint` on a local stack.

    On leaving, a stack that this call has started is stopped; an ephemeral one, always new and in a folder of its
    own, is killed and removed.
    """
    from is_db_bootstrap.settings import Settings

    with ephemeral_stack(progress) if ephemeral else _started(data_dir, progress) as running:
        yield Settings.load(blueprint, environ={**os.environ, **running.environ()})


@contextmanager
def ephemeral_stack(progress: Progress = silent) -> Iterator[LocalStack]:
    """A stack that leaves nothing behind: new, on free ports, in a temporary folder, not durable."""
    place = Path(tempfile.mkdtemp(prefix="is-db-bootstrap-")).resolve()
    place.chmod(STACK_MODE)
    folder = _Folder(place, durable=False)
    try:
        yield folder.up(LOOPBACK, progress)
    finally:
        for server in folder.servers():
            server.kill()
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _started(data_dir: Path | None, progress: Progress) -> Iterator[LocalStack]:
    before = status(data_dir)
    running = up(data_dir, progress=progress)
    try:
        yield running
    finally:
        if before is None:
            down(data_dir, progress=progress)


class _Folder:
    """The folder of one stack: `stack.json` says what runs, `passwords.json` (0600) what opens it, `lock` excludes others."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable
        self._lock = filelock.FileLock(path / "lock")
        self._writing = threading.Lock()

    @classmethod
    def exists(cls, data_dir: Path | None) -> bool:
        return (data_folder(data_dir) / "stack.json").exists()

    @classmethod
    def of(cls, data_dir: Path | None, *, durable: bool = True) -> _Folder:
        path = data_folder(data_dir)
        try:
            make_private(path, STACK_MODE)
            (path / "lock").touch()
        except OSError as exc:
            raise ConfigurationError(
                f"The folder {path} cannot be used: {exc.strerror or exc}.",
                hint="Give another one with --data-dir.",
            ) from exc
        return cls(path, durable=durable)

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    # --- what is known

    def _recorded(self) -> dict[str, Any]:
        return _read(self._path / "stack.json")

    def servers(self) -> list[Server]:
        """All four, each with the port and process it last had."""
        record = self._recorded()
        return [self._server(store, record) for store in STORE_ORDER]

    def _server(self, store: str, record: dict[str, Any]) -> Server:
        known = record.get("servers", {}).get(store, {})
        server = KINDS[store](
            self._path / store,
            listen=record.get("listen", LOOPBACK),
            port=known.get("port", 0),
            password=_read(self._path / "passwords.json").get(store, ""),
            durable=self._durable,
        )
        if known.get("pid"):
            server.process = Process(known["pid"], known["born"])
        return server

    def stack(self, servers: Sequence[Server]) -> LocalStack:
        """What callers see."""
        seen = tuple(LocalServer(s.store, s.version, s.url, s.pid, s.log) for s in servers)
        return LocalStack(self._path, self._recorded().get("listen", LOOPBACK), seen)

    def _remember(self, listen: str, server: Server, *, ready: bool = False) -> None:
        with self._writing:
            record = self._recorded()
            record["listen"] = listen
            born = server.process.born if server.process else 0.0
            known = {"pid": server.pid, "born": born, "port": server.port, "ready": ready}
            record.setdefault("servers", {})[server.store] = known
            _write(self._path / "stack.json", record)

    # --- up and down

    def up(
        self, listen: str, progress: Progress, stores: Sequence[StoreName] = STORE_ORDER
    ) -> LocalStack:
        self._make_passwords()
        record, servers = self._recorded(), [s for s in self.servers() if s.store in stores]
        running = [s for s in servers if s.alive()]
        if running and record.get("listen", LOOPBACK) != listen:
            raise ConfigurationError(
                f"The stack in {self._path} already listens on {record['listen']}.",
                hint="Stop it with `is-db-bootstrap local down` first.",
            )
        if listen != LOOPBACK and not running:
            progress(f"milvus: has no passwords, so it listens on {LOOPBACK} only")
        for server in servers:
            server.listen = listen if server.has_passwords else LOOPBACK
        waited_for = [
            s for s in servers if s not in running or not record["servers"][s.store].get("ready")
        ]
        _Start(self, listen, progress).all(waited_for, {id(s) for s in running})
        return self.stack(servers)

    def _make_passwords(self) -> None:
        file = self._path / "passwords.json"
        if not file.exists():
            _write(
                file, {s: secrets.token_urlsafe(18) for s in STORE_ORDER if KINDS[s].has_passwords}
            )

    def down(self, progress: Progress) -> list[str]:
        running = [s for s in self.servers() if s.alive()]
        if running:
            progress(f"stopping {', '.join(s.store for s in running)}")
        threads = [threading.Thread(target=s.stop if self._durable else s.kill) for s in running]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        record = self._recorded()
        for known in record.get("servers", {}).values():
            known.update(pid=0, ready=False)
        _write(self._path / "stack.json", record)
        return [s.store for s in running]


class _Start:
    """One start of several servers at once, a daemon thread each: none of them keeps us from ending after Ctrl-C."""

    def __init__(self, folder: _Folder, listen: str, progress: Progress) -> None:
        self._folder, self._listen, self._progress = folder, listen, progress
        self._stop = threading.Event()
        self._spawning = threading.Lock()
        self._errors: dict[str, BaseException] = {}
        self._started: list[Server] = []

    def all(self, servers: Sequence[Server], running: set[int]) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(s, id(s) in running), daemon=True)
            for s in servers
        ]
        try:
            for each in threads:
                each.start()
            while any(t.is_alive() for t in threads) and not self._errors:
                threads[next(i for i, t in enumerate(threads) if t.is_alive())].join(_LOOK_S)
            for server in servers:
                if error := self._errors.get(server.store):
                    raise error  # noqa: TRY301 - what was started is undone below
        except BaseException:
            self._undo(threads)
            raise

    def _undo(self, threads: Sequence[threading.Thread]) -> None:
        with self._spawning:
            self._stop.set()
        for server in self._started:
            server.kill()
            self._folder._remember(self._listen, server)  # noqa: SLF001 - one class in two parts
        for each in threads:
            each.join(5.0)

    def _guarded(self, server: Server, running: bool) -> None:
        try:
            self._one(server, running)
        except OSError as exc:
            error = StoreError(
                server.store, f"{exc.filename or server.home} cannot be used: {exc.strerror or exc}.",
                hint="Make room or mend its permissions, and run again.",
            )  # fmt: skip
            error.__cause__ = exc
            self._errors[server.store] = error
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
            self._errors[server.store] = exc

    def _one(self, server: Server, running: bool) -> None:
        if not running:
            server.prepare(self._progress, self._stop)
            if left := Process.left_in(server.data, server.programs):
                self._progress(
                    f"{server.store}: ending process {left.pid}, left behind by an earlier start"
                )
                left.end(server.end_signal, server.patience_s)
            with self._spawning:
                if self._stop.is_set():
                    return
                server.start()
                self._started.append(server)
                self._folder._remember(self._listen, server)  # noqa: SLF001
        self._wait(server)
        if isinstance(server, Neo4jServer):
            _archive_classes(server)
        self._folder._remember(self._listen, server, ready=True)  # noqa: SLF001
        self._progress(f"{server.store}: up on {server.host}:{server.port}")

    def _wait(self, server: Server) -> None:
        """The store's own ping, in a thread: a process that dies is noticed at once, not at the deadline."""
        outcome: list[BaseException | None] = []
        ping = threading.Thread(target=_ping, args=(server, outcome.append), daemon=True)
        ping.start()
        while ping.is_alive() and server.alive() and not self._stop.is_set():
            ping.join(_LOOK_S)
        if self._stop.is_set():
            return
        if not server.alive():
            raise server.failed("ended while it started")
        if outcome and (error := outcome[0]):
            if isinstance(error, BootstrapError):
                raise server.failed(f"does not answer: {error}") from error
            raise error


def _ping(server: Server, tell: Callable[[BaseException | None], None]) -> None:
    from is_db_bootstrap.app import wait_ready

    try:
        wait_ready({f"{server.store.upper()}_URL": server.url}, [server.store], START_S)
        tell(None)
    except BaseException as exc:  # noqa: BLE001 - judged by the caller
        tell(exc)


def _archive_classes(server: Neo4jServer) -> None:
    """Once, in the background; the next start is faster for it."""
    if server.class_data.exists() or not server.durable:
        return
    with suppress(OSError):
        archiver = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "is_db_bootstrap.local.class_data", str(server.pid), str(server.class_data)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=environment(*PYTHON),
        )  # fmt: skip
        archiver.returncode = 0  # it is meant to outlive us


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"{file} cannot be read: {exc}.", hint="Remove it, or give another --data-dir."
        ) from exc
    return dict(found)


def _write(file: Path, content: dict[str, Any]) -> None:
    """Replaced in one step, readable by its owner only."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    write_private(part, json.dumps(content, indent=2))
    part.replace(file)

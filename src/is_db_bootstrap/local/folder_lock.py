"""The lock of a stack's folder. Who waits for it says so, and for whom."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import filelock
import psutil

from is_db_bootstrap.errors import LockTimeout
from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.private_files import write_private

#: Seconds after which a wait is told for the first time, and seconds between two tellings.
_FIRST_TOLD_S = 2.0
_TOLD_S = 10.0
#: Seconds after which a wait is given up. A first `up` downloads 200 MB meanwhile.
PATIENCE_S = 600.0


class FolderLock:
    """Excludes other processes that start, stop or remove servers of one folder.

    `purpose` is what this process does with the folder, such as `local up`. It is written beside
    the lock, for those that wait. `progress` gets a line after 2 s of waiting, and then every 10 s.
    """

    def __init__(self, folder: Path, purpose: str, progress: Progress) -> None:
        self._folder = folder
        self._purpose = purpose
        self._progress = progress
        self._lock = filelock.FileLock(folder / "lock")

    def __enter__(self) -> Self:
        self._acquire()
        with suppress(OSError):  # only those that wait miss it
            write_private(self._holder_file, f"{os.getpid()} {self._purpose}")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._holder_file.unlink(missing_ok=True)
        self._lock.release()

    @property
    def _holder_file(self) -> Path:
        return self._folder / "lock-holder"

    def _acquire(self) -> None:
        """Take the lock. Raises `LockTimeout` after `PATIENCE_S`."""
        began = time.monotonic()
        pause = _FIRST_TOLD_S
        while True:
            with suppress(filelock.Timeout):
                self._lock.acquire(timeout=pause)
                return
            waited = time.monotonic() - began
            if waited >= PATIENCE_S:
                raise LockTimeout(
                    "local",
                    f"The stack in {self._folder} was in use by {self._holder()} for "
                    f"{waited:.0f} s.",
                    hint="See what that process does, end it, and run again.",
                )
            self._progress(
                f"waiting for {self._holder()}, which has the stack in {self._folder} "
                f"({waited:.0f} s)"
            )
            pause = _TOLD_S

    def _holder(self) -> str:
        """The process that has the lock, in words, as far as it can be known."""
        with suppress(OSError, ValueError):
            text = self._holder_file.read_text(encoding="utf-8")
            number, _, purpose = text.partition(" ")
            if psutil.pid_exists(int(number)):
                return f"`{purpose}` (process {number})"
        return "another process"

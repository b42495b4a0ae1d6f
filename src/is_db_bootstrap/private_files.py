"""Files and folders that only their owner may read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

#: The modes that let nobody but the owner in.
_FILE = 0o600
_FOLDER = 0o700


def open_private(path: Path, mode: str) -> IO[str]:
    """Open a text file, as UTF-8. A file that this call makes gets the mode 0600.

    A file that was there keeps its mode, because its owner may have shared it on purpose. Nothing
    is waited for: a named pipe that nobody reads, or whose reader does not keep up, raises
    `OSError`.
    """

    def opener(name: str, flags: int) -> int:
        try:
            return os.open(name, flags | os.O_NONBLOCK, _FILE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                raise OSError(exc.errno, "it is a named pipe that nobody reads", name) from exc
            raise

    # Lines are written one by one. A line that cannot be written is not kept for later.
    return open(path, mode, encoding="utf-8", buffering=1, opener=opener)


def write_private(path: Path, text: str) -> None:
    """Write a file that is ours, and give the file the mode 0600, whatever its mode was before."""
    with open_private(path, "w") as file:
        os.fchmod(file.fileno(), _FILE)
        file.write(text)


def make_private(folder: Path, mode: int = _FOLDER) -> None:
    """Make a folder of the mode 0700, with its parents. A folder that is there keeps its mode."""
    folder.mkdir(mode, parents=True, exist_ok=True)


def close_to_others(folder: Path) -> None:
    """Make a folder of ours private, which an earlier version may have left readable."""
    folder.chmod(_FOLDER)

"""Files and folders that only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

_FILE, _FOLDER = 0o600, 0o700


def open_private(path: Path, mode: str) -> IO[str]:
    """Open a text file, as UTF-8; one that is made by this gets the mode 0600.

    A file that is there keeps its mode, since its owner may have shared it on purpose.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, _FILE)

    # A line at a time: what cannot be written is not kept for later.
    return open(path, mode, encoding="utf-8", buffering=1, opener=opener)


def write_private(path: Path, text: str) -> None:
    """Write a file that is ours, and make its mode 0600 also where it was there with another."""
    with open_private(path, "w") as file:
        os.fchmod(file.fileno(), _FILE)
        file.write(text)


def make_private(folder: Path, mode: int = _FOLDER) -> None:
    """Make a folder of the mode 0700, with its parents; one that is there stays as it is."""
    folder.mkdir(mode, parents=True, exist_ok=True)


def close_to_others(folder: Path) -> None:
    """Make a folder of ours private, which an earlier version may have left readable."""
    folder.chmod(_FOLDER)

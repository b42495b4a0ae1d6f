"""Where the stores of failing tests are, written down for their owner only."""

from __future__ import annotations

import itertools
import os
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from is_db_bootstrap.local.places import data_root
from is_db_bootstrap.private_files import make_private, write_private

#: Seconds after which a note is removed. Stores are kept until the next session only, so an old
#: note leads nowhere.
_OLD_S = 7 * 24 * 3600.0
_number = itertools.count(1)


def note(addresses: Mapping[str, str]) -> Path:
    """Write addresses, passwords included, as lines for a shell into a file of mode 0600.

    Returns the file's path.
    """
    folder = data_root() / "testing" / "kept"
    make_private(folder)
    _remove_old_notes(folder)
    path = folder / f"{os.getpid()}-{next(_number)}.env"
    lines = [f"{name}={shlex.quote(address)}\n" for name, address in addresses.items()]
    write_private(path, "".join(lines))
    return path


def _remove_old_notes(folder: Path) -> None:
    for file in folder.glob("*.env"):
        with suppress(OSError):
            age_s = time.time() - file.stat().st_mtime
            if age_s > _OLD_S:
                file.unlink()

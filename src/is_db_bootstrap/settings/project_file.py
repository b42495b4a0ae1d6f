"""Where the project's own TOML file is: in the folder of the call, or in a folder above it."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from is_db_bootstrap.errors import ConfigurationError

#: Our own file.
FILE_NAME = "is-db-bootstrap.toml"
#: The file of the project, whose table `[tool.is-db-bootstrap]` says the same.
PROJECT_FILE = "pyproject.toml"
#: What the root of a checkout holds. A worktree of git has a file in the place of the folder.
_CHECKOUT_MARKS = (".git", ".hg", ".jj", ".svn")


def find_project_file(start: Path | None = None) -> Path | None:
    """The nearest file that says something of us, from `start` upwards. None when there is none.

    `start` is the working directory when None. In each folder `is-db-bootstrap.toml` comes before
    `pyproject.toml`, which counts only with a table of ours.

    The last folder is the root of a checkout, the user's home, or the root of the file system.
    Above `start`, a folder that everybody may write to ends the search too, because a file there
    may be anybody's, and a blueprint is code.

    A file in the working directory is returned as a relative path, any other as an absolute one.
    Raises `ConfigurationError` for a `pyproject.toml` that cannot be read.
    """
    for folder in _folders_upwards(start):
        own, of_project = folder / FILE_NAME, folder / PROJECT_FILE
        if _is_file(own):
            return own
        if _is_file(of_project) and our_content(of_project) is not None:
            return of_project
    return None


def is_above(path: Path) -> bool:
    """Whether a file that `find_project_file` found lies above the working directory."""
    return path.is_absolute()


def our_content(path: Path) -> dict[str, Any] | None:
    """What a TOML file says of us. None for a `pyproject.toml` without a table of ours.

    Raises `ConfigurationError` for a file that cannot be read, or a table that is none.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigurationError(
            f"{path} cannot be read: {exc}.", hint="Repair it, or name another file by --config."
        ) from exc
    if path.name != PROJECT_FILE:
        return content
    ours = content.get("tool", {}).get("is-db-bootstrap")
    if ours is not None and not isinstance(ours, dict):
        raise ConfigurationError(f"{path}: [tool.is-db-bootstrap] is not a table.")
    return ours


def _folders_upwards(start: Path | None) -> Iterator[Path]:
    """The folders in which the file may lie, the nearest first."""
    first = Path() if start is None else start
    yield first
    try:
        place = first.resolve()
    except (OSError, RuntimeError):
        return  # The working directory is gone.
    home = _home_folder()
    while not _is_last(place, home):
        place = place.parent
        if _is_open_to_all(place):
            return
        yield place


def _is_file(path: Path) -> bool:
    """Whether a file is there. A folder that may not be searched has none."""
    return os.path.isfile(path)  # noqa: PTH113 - `Path.is_file` raises for such a folder


def _is_last(folder: Path, home: Path | None) -> bool:
    """Whether nothing is looked for above `folder`."""
    if folder in {folder.parent, home}:
        return True
    return any(os.path.lexists(folder / mark) for mark in _CHECKOUT_MARKS)


def _home_folder() -> Path | None:
    try:
        return Path.home().resolve()
    except (OSError, RuntimeError):
        return None  # A user without an entry and without HOME.


def _is_open_to_all(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return True

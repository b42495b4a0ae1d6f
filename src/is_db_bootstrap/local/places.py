"""Where the local stack keeps data and downloads, and where it downloads from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import process_variable

NAME = "is-db-bootstrap"
#: The user as whom PostgreSQL runs when we are root. It refuses to run as root.
UNPRIVILEGED = "nobody"


def is_root() -> bool:
    """Whether we are root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except RuntimeError as exc:  # "~" of a user who has no home folder
        raise ConfigurationError(
            f"{path}: there is no such home folder.", hint="Give an absolute path."
        ) from exc


def data_root() -> Path:
    """The folder of all that is kept: `IS_DB_BOOTSTRAP_DATA`, else the user's data folder.

    For root it is below /var/lib, where `nobody` can go.
    """
    if given := process_variable("IS_DB_BOOTSTRAP_DATA"):
        return _expanded(Path(given))
    if is_root():
        return Path("/var/lib") / NAME
    return _folder_of_user(platformdirs.user_data_path, "data", "IS_DB_BOOTSTRAP_DATA")


def data_folder(given: Path | None) -> Path:
    """The stack's folder: `given`, else `local` below `data_root`."""
    return data_root() / "local" if given is None else _expanded(given)


def cache_folder() -> Path:
    """The folder of downloads: `IS_DB_BOOTSTRAP_CACHE`, else the user's cache folder.

    For root it is below /var/cache.
    """
    if given := process_variable("IS_DB_BOOTSTRAP_CACHE"):
        return _expanded(Path(given))
    if is_root():
        return Path("/var/cache") / NAME
    return _folder_of_user(platformdirs.user_cache_path, "downloads", "IS_DB_BOOTSTRAP_CACHE")


def _folder_of_user(find: Callable[[str], Path], what: str, variable: str) -> Path:
    """The user's folder for `what`. A uid without an entry in passwd and without HOME has none."""
    try:
        found = find(NAME)
    except RuntimeError:
        found = None
    if found is None or not found.is_absolute():
        raise ConfigurationError(
            f"This user has no home folder, so there is no place for the {what} of a local stack.",
            hint=f"Set HOME or {variable} to a folder that this user may write to.",
        )
    return found


def maven_address() -> str:
    """The Maven repository: `IS_DB_BOOTSTRAP_MAVEN_URL`, else Maven Central."""
    if given := process_variable("IS_DB_BOOTSTRAP_MAVEN_URL"):
        return given.rstrip("/")
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL).rstrip("/")

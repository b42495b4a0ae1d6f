"""Where the local stack keeps data and downloads, and where it downloads from."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from is_db_bootstrap.settings import process_variable

NAME = "is-db-bootstrap"
#: The user as whom PostgreSQL runs when we are root. It refuses to run as root.
UNPRIVILEGED = "nobody"


def is_root() -> bool:
    """Whether we are root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def data_root() -> Path:
    """The folder of all that is kept: `IS_DB_BOOTSTRAP_DATA`, else the user's data folder.

    For root it is below /var/lib, where `nobody` can go.
    """
    if given := process_variable("IS_DB_BOOTSTRAP_DATA"):
        return Path(given).expanduser().resolve()
    return Path("/var/lib") / NAME if is_root() else platformdirs.user_data_path(NAME)


def data_folder(given: Path | None) -> Path:
    """The stack's folder: `given`, else `local` below `data_root`."""
    return data_root() / "local" if given is None else given.expanduser().resolve()


def cache_folder() -> Path:
    """The folder of downloads: `IS_DB_BOOTSTRAP_CACHE`, else the user's cache folder.

    For root it is below /var/cache.
    """
    if given := process_variable("IS_DB_BOOTSTRAP_CACHE"):
        return Path(given).expanduser().resolve()
    if is_root():
        return Path("/var/cache") / NAME
    return platformdirs.user_cache_path(NAME)


def maven_address() -> str:
    """The Maven repository: `IS_DB_BOOTSTRAP_MAVEN_URL`, else Maven Central."""
    if given := process_variable("IS_DB_BOOTSTRAP_MAVEN_URL"):
        return given.rstrip("/")
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL).rstrip("/")

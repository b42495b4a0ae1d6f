"""Where migrations and Cypher files are: inside the installed package, else beside `src` in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_files"


def root() -> Path:
    """The folder that holds `migrations/` and `cypher/`."""
    return _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent.parent


def is_installed(folder: Path) -> bool:
    """Whether `folder` is inside the installed package, where files are not to be changed."""
    return folder.is_relative_to(_INSTALLED)


def migrations(blueprint: str) -> Path:
    """The folder of a reference system's Alembic revisions. It may not exist."""
    return root() / "migrations" / blueprint


def cypher(blueprint: str) -> Path:
    """The folder of a reference system's Cypher files. It may not exist."""
    return root() / "cypher" / blueprint

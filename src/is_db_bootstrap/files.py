"""Where migrations and Cypher files are: inside the installed package, else beside `src` in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_files"


def root() -> Path:
    """The folder that holds `migrations/` and `cypher/`."""
    return _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent.parent


def migrations(blueprint: str) -> Path:
    """The folder of a built-in blueprint's Alembic revisions; it may not exist."""
    return root() / "migrations" / blueprint


def cypher(blueprint: str) -> Path:
    """The folder of a built-in blueprint's Cypher files; it may not exist."""
    return root() / "cypher" / blueprint

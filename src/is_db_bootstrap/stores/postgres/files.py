"""The files by which a blueprint declares something about PostgreSQL: Alembic revisions."""

from __future__ import annotations

from pathlib import Path

from is_db_bootstrap.stores.postgres.revision_folder import looks_like_revision
from is_db_bootstrap.stores.postgres.revisions import Chain

#: What the files are called in messages.
PLURAL = "Alembic revisions"


def count_files(folder: Path) -> int:
    """How many revisions `folder` holds.

    Raises `ConfigurationError` for whatever is wrong with them.
    """
    return len(Chain.read(folder).order)


def is_declared_file(path: Path) -> bool:
    """Whether the file is a revision."""
    return path.suffix == ".py" and looks_like_revision(path)


def is_stray_file(path: Path) -> bool:
    """Whether the file does not belong beside the module of a blueprint."""
    return is_declared_file(path)

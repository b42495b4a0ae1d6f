"""The files by which a blueprint declares something about Neo4j: Cypher files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.neo4j.cypher_folder import is_cypher_file, looks_like_migration

#: What the files are called in messages.
PLURAL = "Cypher files"


def count_files(folder: Path) -> int:
    """How many migrations `folder` holds.

    Raises `ConfigurationError` for whatever is wrong with them.
    """
    return len(cypher_file.load(folder))


def is_declared_file(path: Path) -> bool:
    """Whether the file's name is that of a migration, in whatever spelling."""
    return looks_like_migration(path)


def is_stray_file(path: Path) -> bool:
    """Whether the file does not belong beside the module of a blueprint."""
    return is_cypher_file(path)


def going_on(paths: Iterable[Path], own: Path) -> Iterator[Path]:
    """Those of `paths`, files that declare something, which are more than `own` has.

    `own` is the folder that is read. A file of a name that it has too is a copy.
    """
    return (path for path in paths if not (own / path.name).exists())

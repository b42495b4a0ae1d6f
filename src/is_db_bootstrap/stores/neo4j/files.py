"""The files by which a blueprint declares something about Neo4j: Cypher files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from is_db_bootstrap.stores.neo4j import cypher_file, cypher_text
from is_db_bootstrap.stores.neo4j.callbacks import Callbacks
from is_db_bootstrap.stores.neo4j.cypher_folder import (
    is_cypher_file,
    looks_like_migration,
    version_in_name,
)

#: What the files are called in messages.
PLURAL = "Cypher files"
#: Files are looked into up to this size. Data may be larger.
_LARGEST_BYTES = 1 << 20


def count_files(folder: Path) -> int:
    """How many migrations `folder` holds.

    Raises `ConfigurationError` for whatever is wrong with them.
    """
    Callbacks.load(folder)
    return len(cypher_file.load(folder))


def is_declared_file(path: Path) -> bool:
    """Whether the file is to be applied.

    It has the name of a migration, in whatever spelling, or a statement that creates or drops a
    constraint or an index. An application's queries have neither.
    """
    return looks_like_migration(path) or _changes_schema(path)


def _changes_schema(path: Path) -> bool:
    """Whether a Cypher file has a schema statement."""
    if not is_cypher_file(path):
        return False
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return False
        statements = list(cypher_text.split(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # the file may not be read, or is no Cypher
        return False
    return any(statement.is_schema for statement in statements)


def is_stray_file(path: Path) -> bool:
    """Whether the file does not belong beside the module of a blueprint."""
    return is_cypher_file(path)


def going_on(paths: Iterable[Path], own: Path, *, in_shared_place: bool) -> Iterator[Path]:
    """Those of `paths`, files that declare something, which are more than `own` has.

    `own` is the folder that is read. A file of a name that it has too is a copy. A file without the
    name of a migration is the application's, such as `tests/setup.cypher`. `in_shared_place`
    says that folders of other blueprints may lie there. Files that have a version of `own` under
    another name are those of another blueprint.
    """
    named = [path for path in paths if looks_like_migration(path)]
    read = list(own.rglob("*.cypher"))
    names = {path.name for path in read}
    more = [path for path in named if path.name not in names]
    if in_shared_place:
        taken = {version_in_name(path) for path in read} - {()}
        if any(version_in_name(path) in taken for path in more):
            return iter(())
    return iter(more)

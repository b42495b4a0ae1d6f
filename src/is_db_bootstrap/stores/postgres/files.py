"""The files by which a blueprint declares something about PostgreSQL: Alembic revisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from is_db_bootstrap.blueprint import AlembicEnvironment
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres.revision_folder import looks_like_revision
from is_db_bootstrap.stores.postgres.revisions import Chain, declared_ids

#: What the files are called in messages.
PLURAL = "Alembic revisions"


def count_files(folder: Path) -> int:
    """How many revisions `folder` holds.

    Raises `ConfigurationError` for whatever is wrong with them.
    """
    return len(Chain.read(folder).order)


def environment_folders(declared: AlembicEnvironment) -> Iterator[Path]:
    """The folders of a team's own environment: that of `env.py`, and those of its revisions."""
    from is_db_bootstrap.stores.postgres.team_environment import read_environment

    environment = read_environment(declared)
    yield environment.folder
    inside = environment.folder
    yield from (place for place in environment.version_locations if inside not in place.parents)


def is_declared_file(path: Path) -> bool:
    """Whether the file is a revision."""
    return path.suffix == ".py" and looks_like_revision(path)


def is_stray_file(path: Path) -> bool:
    """Whether the file does not belong beside the module of a blueprint."""
    return is_declared_file(path)


def going_on(
    paths: Iterable[Path],
    own: Path,
    *,
    in_shared_place: bool,  # noqa: ARG001 - revisions say themselves what they go on from
) -> Iterator[Path]:
    """Those of `paths`, revisions beside the folder `own` that is read, that go on from `own`.

    Files that go on from each other are another application's, even if its revisions have names
    such as `0001` as well, and a revision that `own` has too is a copy.
    """
    beside = {path: declared_ids(path) for path in paths}
    if not any(parents for _, parents in beside.values()):
        return
    try:
        read = set(Chain.read(own).order)
    except ConfigurationError:  # told when `own` is read
        return
    theirs = {revision for revision, _ in beside.values()}
    for path, (revision, parents) in beside.items():
        if revision not in read and read.intersection(parents) - theirs:
            yield path

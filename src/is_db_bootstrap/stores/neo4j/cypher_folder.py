"""A folder of Cypher files: which of its files are migrations, and which would be passed over.

A file that looks like a migration and is not taken is an error that names the file.
Only what is certainly none is passed over: hidden files, and what editors, Finder and Explorer leave.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from is_db_bootstrap.errors import ConfigurationError

SUFFIX = ".cypher"
#: The name of a migration, as neo4j-migrations has it; `_` in a version stands for a dot.
FILE_NAME = re.compile(
    r"(?P<kind>[VR])(?P<version>\d+(?:[_.]\d+)*)__(?P<description>[\w ]+)\.cypher",
)
#: Suffixes that Cypher files go by, in lower case; only `.cypher` is taken.
_CYPHER_SUFFIXES = {".cypher", ".cql", ".cyp"}
#: The beginning of a migration's name, whatever its suffix is: `V001__a.cypher.txt`, `V001__a.xml`.
_LIKE_A_MIGRATION = re.compile(r"[VRU]\d[\d._]*__", re.IGNORECASE)
#: Callbacks of neo4j-migrations, as `afterMigrate.cypher` and `beforeFirstUse__01.cypher`.
_CALLBACK = re.compile(r"(?:before|after)[A-Z]\w*\.cypher")
#: Backups and swap files of editors and of merges.
_EDITORS = re.compile(r".*~|#.*#|.*\.(?:sw[a-p]|bak|orig|rej)", re.IGNORECASE)
#: What the desktops of macOS and Windows put beside files; the first ends in a carriage return.
_DESKTOPS = {"Icon\r", "Thumbs.db", "desktop.ini"}
#: Folders of macOS archives and of Python, which hold no file that a person wrote.
_FOREIGN_FOLDERS = {"__MACOSX", "__pycache__"}

_HINT = (
    "Write V001__what_it_does.cypher, or R001__… to repeat, directly in the folder; move what is no migration "
    "out of it. Nothing was run, because these files would have been passed over."
)


def migration_files(folder: Path) -> list[Path]:
    """The migrations of `folder`, sorted by name.

    Raises `ConfigurationError` when the folder cannot be read, and one that names every file of the
    folder and its sub-folders that looks like a migration but is not taken, with the reason.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"neo4j: the folder {folder} is not there.",
            hint="Correct the blueprint's cypher folder, or leave it out.",
        )
    taken: list[Path] = []
    refused: list[str] = []
    for path in _paths(folder):
        if _is_no_migration(path):
            continue
        reason = _why_refused(path, folder)
        if reason:
            refused.append(reason)
        else:
            taken.append(path)
    if refused:
        raise ConfigurationError(f"neo4j: {folder}: {'; '.join(refused)}.", hint=_HINT)
    return sorted(taken, key=lambda path: path.name)


def _paths(folder: Path) -> Iterator[Path]:
    """Everything in the folder and below that is not hidden, sorted; links to folders are followed once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = sorted(
            name
            for name in folders
            if not _is_foreign_folder(name)
            and os.path.realpath(os.path.join(place, name)) not in seen  # noqa: PTH118 - as os.walk does
        )
        for name in sorted([*folders, *names]):
            yield Path(place, name)


def _unreadable(error: OSError) -> None:
    raise ConfigurationError(
        f"neo4j: the folder {error.filename} cannot be read: {error.strerror}."
    ) from error


def _is_foreign_folder(name: str) -> bool:
    return name.startswith(".") or name in _FOREIGN_FOLDERS


def _is_no_migration(path: Path) -> bool:
    name = path.name
    if name.startswith(".") or name in _DESKTOPS or _EDITORS.fullmatch(name):
        return True
    return path.suffix.lower() not in _CYPHER_SUFFIXES and not _LIKE_A_MIGRATION.match(name)


def _why_refused(path: Path, folder: Path) -> str:
    """What is wrong with `path`, in words that name it; empty for a migration that is taken."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return f"{name} is a folder, not a file"
    if path.parent != folder:
        return f"{name} is in a sub-folder, from which nothing is run"
    if path.suffix != SUFFIX:
        ending = f"ends in {path.suffix}, not" if path.suffix else "does not end"
        return f"the name of {name} {ending} in {SUFFIX}"
    if _CALLBACK.fullmatch(name):
        return f"{name} is a callback of neo4j-migrations, which is not run"
    return "" if FILE_NAME.fullmatch(name) else f"the file name {name} is not understood"

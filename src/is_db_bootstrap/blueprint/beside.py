"""What lies beside a blueprint's module and looks as if it were to be applied, but is not read.

Modules, tests and data of a team are normal there. What is named is a folder of migrations under
another name than the usual one, something else than a folder under the usual name, and a single
migration. Beside a folder that is read, another one of any name may be of another application. It
is named when its migrations go on from those that are read. What the files hold decides, not how
the folder is called.
"""

from __future__ import annotations

import importlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.folders import Entry, entries_below, printable, why_not_a_file
from is_db_bootstrap.stores.kind import StoreKind
from is_db_bootstrap.stores.kinds import KINDS

#: A folder with one of these files is a blueprint of its own, or an environment of Python.
_OTHER_OWNERS = ("blueprint.py", "pyvenv.cfg")


def file_kinds() -> list[StoreKind]:
    """The kinds of store that a blueprint declares by a folder of files."""
    return [kind for kind in KINDS.values() if kind.folder]


def files_module(kind: StoreKind) -> ModuleType:
    """The module that reads the files of a kind of store. Importing it imports no client."""
    return importlib.import_module(kind.module_name("files"))


def holds_installed_packages(folder: Path) -> bool:
    """Whether packages of all kinds are installed into the folder, Alembic itself perhaps."""
    is_pythons_own = str(folder) in sysconfig.get_paths().values()
    return is_pythons_own or any(folder.glob("*.dist-info"))


def brings_environment(kind: StoreKind, blueprint: Blueprint) -> bool:
    """Whether the blueprint names a team's own environment for this kind of store."""
    return bool(kind.environment) and getattr(blueprint, kind.environment) is not None


def refuse_unread(folder: Path, blueprint: Blueprint) -> None:
    """Raise one `ConfigurationError` that names all migrations in `folder` that are not read.

    `folder` is that of the blueprint's module, and the blueprint's own folders are absolute.
    """
    entries = list(entries_below(folder, deep=False))
    kinds = [kind for kind in file_kinds() if not brings_environment(kind, blueprint)]
    found = [text for kind in kinds for text in _unread(kind, folder, blueprint, entries)]
    if found:
        raise ConfigurationError(
            f"{folder}: {'; '.join(found)}.",
            hint=(
                "Rename or move it, or name the folder in the blueprint, as in "
                'Blueprint(…, migrations=Path("db/migrations")). '
                "A blueprint may have a folder of its own."
            ),
        )


def _unread(
    kind: StoreKind, folder: Path, blueprint: Blueprint, entries: list[Entry]
) -> Iterator[str]:
    own = getattr(blueprint, kind.folder)
    for entry in entries:
        if entry.type == "file":
            yield from _why_file_unread(kind, entry, is_read=own == folder)
        elif entry.type != "folder":
            if _has_usual_name(kind, entry):
                yield f"{entry.shown_name} is {why_not_a_file(entry)}, not a folder"
        elif not _is_read(entry.path, own):
            yield from _why_folder_unread(kind, entry, own)
    for place in _places_between(folder, own):
        yield from _going_on_in(kind, folder, place, own)


def _places_between(folder: Path, own: Path | None) -> Iterator[Path]:
    """The folders below `folder` through which the way leads to `own`: `db` for `db/migrations`."""
    if own is not None and folder in own.parents:
        yield from (place for place in own.parents if folder in place.parents)


def _going_on_in(kind: StoreKind, folder: Path, place: Path, own: Path) -> Iterator[str]:
    """What lies in `place`, below the blueprint's `folder`, and goes on from `own`.

    Several blueprints may have their folders there, so each file and folder is looked at alone.
    """
    files = files_module(kind)
    for entry in _entries_of_team(place, deep=False):
        declared: list[Path] = []
        if entry.type == "file":
            declared = list(_declared(kind, [entry]))
        elif entry.type == "folder" and not _is_read(entry.path, own):
            declared = list(_declared_files(kind, entry))
        first = next(files.going_on(declared, own, in_shared_place=True), None)
        if first is not None:
            yield _told(kind, folder, first)


def _has_usual_name(kind: StoreKind, entry: Entry) -> bool:
    return entry.path.name.strip().casefold() == kind.folder


def _why_file_unread(kind: StoreKind, entry: Entry, *, is_read: bool) -> Iterator[str]:
    files = files_module(kind)
    if _has_usual_name(kind, entry):
        yield f"{entry.shown_name} is a file, not a folder"
    elif not is_read and files.is_stray_file(entry.path):
        yield f"{entry.shown_name} is not read: {files.PLURAL} lie in the folder {kind.folder}"


def _why_folder_unread(kind: StoreKind, entry: Entry, own: Path | None) -> Iterator[str]:
    files = files_module(kind)
    if _has_usual_name(kind, entry) and own is None:
        yield f"{entry.shown_name} is not read: the folder is called {kind.folder}"
        return
    declared = _declared_files(kind, entry)
    if own is not None and not _has_usual_name(kind, entry):
        declared = files.going_on(list(declared), own, in_shared_place=False)
    first = next(declared, None)
    if first is not None:
        yield _told(kind, entry.path.parent, first)


def _told(kind: StoreKind, folder: Path, first: Path) -> str:
    """What a message says of the folder, below `folder`, in which the file `first` lies."""
    holder = printable(first.parent.relative_to(folder).as_posix())
    plural = files_module(kind).PLURAL
    return f"{holder} has {plural}, such as {printable(first.name)}, and is not read"


def _has_known_name(kind: StoreKind, entry: Entry) -> bool:
    return entry.path.name.strip().casefold() in {kind.folder, *kind.folder_names}


def _is_read(path: Path, own: Path | None) -> bool:
    """Whether the blueprint reads the folder `path`, or one in it."""
    if own is None:
        return False
    return any(path.samefile(place) for place in (own, *own.parents))


def _declared_files(kind: StoreKind, entry: Entry) -> Iterator[Path]:
    """The files of a folder that declare something.

    A folder of a known name is looked into to the bottom. So is a folder of a known name in one of
    another name, such as `db/migrations`.
    """
    is_known = _has_known_name(kind, entry)
    below = _entries_of_team(entry.path, deep=is_known)
    yield from _declared(kind, below)
    if is_known or entry.is_hidden:
        return
    for inner in below:
        if inner.type == "folder" and _has_known_name(kind, inner):
            yield from _declared(kind, _entries_of_team(inner.path, deep=True))


def _declared(kind: StoreKind, entries: list[Entry]) -> Iterator[Path]:
    files = files_module(kind)
    for entry in entries:
        if entry.type == "file" and _is_declared(files, entry.path):
            yield entry.path


def _is_declared(files: ModuleType, path: Path) -> bool:
    """Whether the file declares something. A file that may not be read is data of a server."""
    try:
        return bool(files.is_declared_file(path))
    except ConfigurationError:
        return False


def _entries_of_team(folder: Path, *, deep: bool) -> list[Entry]:
    """The entries of the folder.

    None of a folder that has another owner, and of one that may not be read: data of a server lies
    beside many blueprints.
    """
    try:
        return [] if _has_another_owner(folder) else list(entries_below(folder, deep=deep))
    except (ConfigurationError, PermissionError):
        return []


def _has_another_owner(folder: Path) -> bool:
    is_owned = any((folder / name).exists() for name in _OTHER_OWNERS)
    return is_owned or holds_installed_packages(folder)

"""What lies in a folder of migrations, and which entries are plainly harmless there.

A list of odd names can never be complete. So the list here is one of harmless kinds. Whoever reads
a folder takes its own files, and names every other entry that this list does not have.
`docs/reference/declarations.md` tells users the same list.

No entry is opened to find out its type, because a named pipe would never answer.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Literal

from is_db_bootstrap.errors import ConfigurationError

EntryType = Literal["file", "folder", "dead link", "special file"]

#: Folders of tools. Nothing in them was written by a person to be applied.
_TOOL_FOLDERS = {
    "__MACOSX",
    "__pycache__",
    ".git",
    ".hg",
    ".idea",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".svn",
    ".vscode",
}
#: Files that projects have in any folder, whatever their ending is. Compared in small letters.
_PROJECT_FILES = {
    "authors",
    "changelog",
    "codeowners",
    "contributing",
    "copying",
    "licence",
    "license",
    "makefile",
    "notice",
    "py.typed",
    "readme",
}
#: What the desktops of macOS and Windows put beside files. The first name ends in a carriage
#: return.
_DESKTOP_FILES = {"Icon\r", "Thumbs.db", "desktop.ini"}
#: Documents and pictures.
_DOCUMENTS = {
    ".adoc",
    ".gif",
    ".htm",
    ".html",
    ".jpeg",
    ".jpg",
    ".log",
    ".markdown",
    ".md",
    ".pdf",
    ".png",
    ".rst",
    ".svg",
    ".txt",
}
#: Data, settings, templates and scripts, which migrations or their authors read.
_DATA = {
    ".cfg",
    ".conf",
    ".csv",
    ".geojson",
    ".ini",
    ".json",
    ".jsonl",
    ".mako",
    ".ndjson",
    ".parquet",
    ".sh",
    ".sql",
    ".toml",
    ".tsv",
    ".xls",
    ".xlsx",
    ".yaml",
    ".yml",
}
#: Documents and data may be compressed.
_COMPRESSIONS = {".bz2", ".gz", ".xz", ".zip", ".zst"}
#: `HEAD` and `EXPAND_HEAD`: projects note their newest revision in such a file, so that merges
#: conflict.
_NOTE_OF_HEADS = re.compile(r"(?:[A-Z]+_)?HEADS?")
#: A copy that an editor or a merge leaves beside the original: `a~`, `#a#`, `a.bak`, `a.orig`.
_COPY = re.compile(r"(.+)~|#(.+)#|(.+)\.(?:bak|orig|rej|sw[a-p])", re.IGNORECASE)
#: The swap file that Vim keeps while a file is open.
_VIM_SWAP = re.compile(r"\..*\.sw[a-p]")
#: The lock that Emacs keeps while a file is open: a link that leads nowhere, else a file of one
#: short line.
_EMACS_LOCK = ".#"
_EMACS_LOCK_BYTES = 256
#: The first bytes of `._a.py`, in which macOS keeps what other file systems cannot hold of `a.py`.
_APPLE_DOUBLE = b"\0\5\26\7"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder or of a folder below it.

    `name` is the path of the entry below the folder, with `/`. `type` says what the entry is, and
    for a link, what the link leads to. A special file is a named pipe, a socket or a device.
    """

    path: Path
    name: str
    type: EntryType

    @property
    def is_below(self) -> bool:
        """Whether the entry lies in a folder below."""
        return "/" in self.name

    @property
    def is_hidden(self) -> bool:
        """Whether the name of the entry, or of a folder above the entry, begins with a dot."""
        return any(part.startswith(".") for part in PurePosixPath(self.name).parts)

    @property
    def shown_name(self) -> str:
        """The name as a message has it (`printable`)."""
        return printable(self.name)


def printable(name: str) -> str:
    """`name` as a message has it: in quotes when a reader would not see all of its characters."""
    is_plain = name.isprintable() and name == name.strip()
    return name if is_plain else repr(name)


def entries_below(folder: Path, *, deep: bool = True) -> Iterator[Entry]:
    """Every entry of `folder`, in the order of names. With `deep`, of the folders below too.

    A folder is looked into once, whatever links lead to it. Folders of tools, such as `.git` and
    `__pycache__`, are no entries. Raises `ConfigurationError` for a folder that cannot be read.
    """
    yield from _entries_from(folder, "", {os.path.realpath(folder)}, deep)


def _entries_from(folder: Path, before: str, seen: set[str], deep: bool) -> Iterator[Entry]:
    """The entries of one folder. `before` is the path to it, and `seen` the folders looked into."""
    for found in _sorted_entries(folder):
        name = found.name
        path = folder / name
        found_type = "file" if _is_plain_file(found) else entry_type(path)
        if found_type is None:
            continue
        if found_type == "folder" and name in _TOOL_FOLDERS:
            continue
        yield Entry(path, before + name, found_type)
        if not deep or found_type != "folder":
            continue
        place = os.path.realpath(path)
        if place not in seen:
            seen.add(place)
            yield from _entries_from(path, f"{before}{name}/", seen, deep)


def _is_plain_file(found: os.DirEntry[str]) -> bool:
    """Whether the folder itself says that an entry is a file and no link."""
    try:
        return found.is_file(follow_symlinks=False)
    except OSError:
        return False  # `entry_type` tells why


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=attrgetter("name"))
    except OSError as exc:
        raise ConfigurationError(
            f"The folder {exc.filename} cannot be read: {exc.strerror}."
        ) from exc


def entry_type(path: Path) -> EntryType | None:
    """What `path` is, or leads to. None when nothing is there. Nothing is opened.

    Raises `ConfigurationError` when the folder does not let us look.
    """
    try:
        mode = _mode_of(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be looked at: {exc.strerror}.") from exc
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "dead link" if stat.S_ISLNK(mode) else "special file"


def _mode_of(path: Path) -> int:
    """The mode of what `path` leads to, or of the link itself when the link leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError:
        return path.lstat().st_mode


def is_harmless_file(entry: Entry) -> bool:
    """Whether the name of a file says that the file may lie beside migrations.

    These kinds may: hidden files, documents, data, what projects have everywhere, what desktops
    leave, and copies that an editor or a merge leaves, as long as the original is there.
    """
    if entry.is_hidden or is_copy(entry):
        return True
    name = entry.path.name
    if name in _DESKTOP_FILES or _NOTE_OF_HEADS.fullmatch(name):
        return True
    if name.lower() in _PROJECT_FILES:
        return True
    return _file_ending(name) in _DOCUMENTS | _DATA


def _file_ending(name: str) -> str:
    """The ending in small letters. For a compressed file, the ending before the last one."""
    path = PurePosixPath(name)
    if path.suffix.lower() in _COMPRESSIONS:
        path = PurePosixPath(path.stem)
    return path.suffix.lower()


def is_copy(entry: Entry) -> bool:
    """Whether an editor or a merge has left the entry of a file, and that file is there."""
    found = _COPY.fullmatch(entry.path.name)
    if found is None or entry.type != "file":
        return False
    original = next(filter(None, found.groups()))
    return entry.path.with_name(original).is_file()


def is_leftover(entry: Entry) -> bool:
    """Whether the entry is a hidden file that an open editor or macOS keeps beside another file."""
    name = entry.path.name
    is_emacs_lock = name.startswith(_EMACS_LOCK)
    if is_emacs_lock and entry.type == "dead link":
        return True
    if entry.type != "file":
        return False
    if is_emacs_lock:
        return b"\n" not in _first_bytes(entry.path, _EMACS_LOCK_BYTES)
    if name.startswith("._"):
        return _first_bytes(entry.path, len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
    return _VIM_SWAP.fullmatch(name) is not None


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}.") from exc


def without_other_ways_to(taken: list[Path], refused: dict[Entry, str]) -> dict[Entry, str]:
    """`refused` without the entries that are another way to a file of `taken`.

    Kubernetes mounts a ConfigMap in this way. The files of the mount are links to files of a hidden
    folder beside them.
    """
    if not refused:
        return refused
    places = {os.path.realpath(path) for path in taken}
    return {
        entry: reason
        for entry, reason in refused.items()
        if os.path.realpath(entry.path) not in places
    }


def why_not_a_file(entry: Entry) -> str:
    """What an entry is that is neither a file nor a folder, in words. Empty for these two."""
    if entry.type == "dead link":
        return "a link that leads nowhere"
    if entry.type == "special file":
        return "a named pipe, socket or device"
    return ""

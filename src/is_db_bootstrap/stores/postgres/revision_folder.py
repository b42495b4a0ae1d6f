"""A folder of Alembic revisions: which of its files Alembic reads, and which it would pass over.

Alembic reads the files of the folder itself whose names end in `.py`, except `__init__.py` and the
locks of Emacs (`ScriptDirectory._list_py_dir`, `script.base._only_source_rev_file` of Alembic 1.13
to 1.17). Every other entry must be of a harmless kind, else it is named.
"""

from __future__ import annotations

import io
import re
import symtable
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.folders import (
    Entry,
    entries_below,
    is_copy,
    is_harmless_file,
    is_leftover,
    why_not_a_file,
    without_other_ways_to,
)

#: What is no revision: `.#x.py` and `__init__.py`, as Alembic has it, and `._x.py`, which macOS
#: leaves.
SKIPPED_NAMES = re.compile(r"\.#|\._|__init__")
#: The names by which Alembic knows a revision's module.
_MARKS = ("revision", "down_revision")
#: Files of other kinds than Python are looked into up to this size. Data may be larger.
_LARGEST_BYTES = 1 << 20
#: How many files a message names.
_SHOWN = 5


#: Of a folder, the revision that counts as one of its files and lies elsewhere.
_DRAFTS: ContextVar[Mapping[Path, Path]] = ContextVar("drafts", default=MappingProxyType({}))


@contextmanager
def with_draft(folder: Path, draft: Path) -> Iterator[None]:
    """Let the revision `draft` count as a file of `folder`, in which nothing is written."""
    token = _DRAFTS.set({**_DRAFTS.get(), folder: draft})
    try:
        yield
    finally:
        _DRAFTS.reset(token)


def draft_of(folder: Path) -> Path | None:
    """The revision that counts as one of `folder` and lies elsewhere. None where there is none."""
    return _DRAFTS.get().get(folder)


def revision_files(folder: Path) -> list[Path]:
    """The files of `folder` that Alembic reads as revisions, sorted by name, and a draft.

    Raises `ConfigurationError` that names each other entry, in folders below too, which is not of a
    harmless kind.
    """
    taken: list[Path] = []
    refused: dict[Entry, str] = {}
    for entry in entries_below(folder):
        if _is_read_by_alembic(entry):
            taken.append(entry.path)
        elif reason := _why_refused(entry):
            refused[entry] = reason
    refused = without_other_ways_to(taken, refused)
    if not taken:
        refused |= _compiled_only(folder)
    if refused:
        raise _passed_over(folder, refused, nothing_else=not taken)
    draft = draft_of(folder)
    return [*sorted(taken), *([draft] if draft else [])]


def looks_like_revision(path: Path) -> bool:
    """Whether the file is Python that gives its module a name by which Alembic knows a revision."""
    return bool(_bound_marks(path))


def _bound_marks(path: Path) -> set[str]:
    """The names by which Alembic knows a revision that the file gives its module.

    Python's own symbol table tells it, so it does not matter how an assignment is written.
    """
    try:
        if path.suffix != ".py" and path.stat().st_size > _LARGEST_BYTES:
            return set()
        code = path.read_bytes()
    except OSError as exc:
        raise unreadable(path, exc) from exc
    if b"revision" not in code:
        return set()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(code).readline)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as escape sequences of a text that is no Python
            table = symtable.symtable(code.decode(encoding), str(path), "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {name for name in _MARKS if _is_bound(table, name)}


def _is_bound(table: symtable.SymbolTable, name: str) -> bool:
    """Whether running the module gives it the global `name`."""
    if name in table.get_identifiers():
        symbol = table.lookup(name)
        is_global = table.get_type() == "module" or symbol.is_declared_global()
        if is_global and (symbol.is_assigned() or symbol.is_imported()):
            return True
    return any(_is_bound(child, name) for child in table.get_children())


def unreadable(path: Path, exc: OSError) -> ConfigurationError:
    """The error of a file that cannot be read."""
    return ConfigurationError(
        f"{path} cannot be read: {exc.strerror or exc}.",
        hint="Make it readable, or move it out of the folder of the revisions.",
    )


def _is_read_by_alembic(entry: Entry) -> bool:
    name = entry.path.name
    is_source = entry.type == "file" and name.endswith(".py")
    return is_source and not entry.is_below and not SKIPPED_NAMES.match(name)


def _why_refused(entry: Entry) -> str:
    """Why an entry that Alembic does not read is not plainly harmless; empty when it is."""
    name = entry.path.name
    if is_leftover(entry) or is_copy(entry):
        return ""
    if entry.type != "file":
        return why_not_a_file(entry)
    if name.endswith(".py"):
        return _why_source_refused(entry)
    if name.endswith(".pyc"):
        return "" if entry.path.with_suffix(".py").is_file() else "compiled, without its source"
    if not is_harmless_file(entry):
        return "its name does not end in .py"
    is_revision = _bound_marks(entry.path) == set(
        _MARKS
    )  # a settings file may well have one of them
    return "a revision whose name does not end in .py" if is_revision else ""


def _why_source_refused(entry: Entry) -> str:
    """Why Python code that Alembic does not read is refused: it is a revision, or could be one."""
    name = entry.path.name
    if looks_like_revision(entry.path):
        return "a revision in a folder below" if entry.is_below else "Alembic skips this name"
    if SKIPPED_NAMES.match(name) and name != "__init__.py":
        return "Alembic skips this name"
    is_plain_helper = name == "__init__.py" or entry.is_hidden or _is_python(entry.path)
    return "" if is_plain_helper else "not understood as Python"


def _is_python(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as exc:
        raise unreadable(path, exc) from exc
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _compiled_only(folder: Path) -> dict[Entry, str]:
    """What is compiled in `__pycache__` of a folder that has no source at all.

    Beside sources, such a file is harmless: it stays when another branch is checked out, and Python
    does not run it.
    """
    cache = folder / "__pycache__"
    if not cache.is_dir():
        return {}
    sources = {path.stem for path in folder.glob("*.py")}
    return {
        Entry(entry.path, f"__pycache__/{entry.name}", entry.type): "compiled, without its source"
        for entry in entries_below(cache)
        if entry.path.suffix == ".pyc" and entry.name.partition(".")[0] not in sources
    }


def _passed_over(
    folder: Path, refused: dict[Entry, str], *, nothing_else: bool
) -> ConfigurationError:
    """The error that names what Alembic would not read, and where it belongs."""
    told = [f"{entry.shown_name} ({reason})" for entry, reason in refused.items()]
    shown = ", ".join(told[:_SHOWN])
    if len(told) > _SHOWN:
        shown += f" and {len(told) - _SHOWN} more"
    return ConfigurationError(
        f"{folder}: {shown} would be passed over: only {folder.name}/*.py is read.",
        hint=_way_out(folder, list(refused), nothing_else=nothing_else),
    )


def _way_out(folder: Path, refused: list[Entry], *, nothing_else: bool) -> str:
    places = {entry.path.parent for entry in refused}
    if places == {folder} or folder / "__pycache__" in places:
        return (
            "Let the names of revisions end in .py. Move what is none out of the folder, "
            "or give it an ending that may stay there, such as .md or .sql."
        )
    inner = next(iter(places - {folder})).relative_to(folder).as_posix()
    is_dated = inner[0].isdigit()  # next month's revisions come into another folder
    if nothing_else and len(places) == 1 and not is_dated:
        return f'Name their folder: Blueprint(…, migrations=Path("{folder.name}/{inner}")).'
    return (
        f"Move them into {folder.name}/ itself, or out of it if they are not to be applied. To "
        'keep them there, name an alembic.ini (alembic = "alembic.ini") that has '
        "recursive_version_locations = true."
    )

"""A folder of Cypher files: which of its files are migrations, and which would be passed over.

Every entry is a migration, or of a harmless kind (`folders`), else it is named. A file of a
harmless kind whose name looks like that of a migration is named too.
"""

from __future__ import annotations

import re
from pathlib import Path

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.folders import (
    Entry,
    entries_below,
    is_copy,
    is_harmless_file,
    is_leftover,
    printable,
    why_not_a_file,
    without_other_ways_to,
)

SUFFIX = ".cypher"
#: The name of a migration. `_` in a version stands for a dot.
FILE_NAME = re.compile(
    r"(?P<kind>[VR])(?P<version>\d+(?:[_.]\d+)*)__(?P<description>[\w \-]+)\.cypher",
)
#: The names that neo4j-migrations takes (`MigrationVersion.VERSION_PATTERN`; tried with 2.19.2).
#: In Java, `\d` and `\w` stand for ASCII only.
_THEIR_FILE_NAME = re.compile(r"[VR](?:\d+(?:_\d+)*|\d+(?:\.\d+)*)__[\w ]+\.cypher", re.ASCII)
#: What no harmless name has: the beginning of a migration's name, or an ending of Cypher files
#: anywhere.
_LIKE_A_MIGRATION = re.compile(r"[VRU]\d.*|.*\.(?:cypher|cql|cyp)\b.*", re.IGNORECASE | re.DOTALL)
#: Endings that Cypher files go by, in small letters. Only the first is taken.
_CYPHER_SUFFIXES = {SUFFIX, ".cql", ".cyp"}
#: Callbacks of neo4j-migrations, as `afterMigrate.cypher` and `beforeFirstUse__01.cypher`
#: (`LifecyclePhase.java`).
CALLBACK_NAME = re.compile(
    r"(?P<phase>beforeFirstUse|(?:before|after)(?:Migrate|Clean|Validate|Info))"
    r"(?:__(?P<description>[\w \-]+))?\.cypher"
)
#: Files of neo4j-migrations that are written in something else than Cypher, by their ending.
_OTHER_LANGUAGES = {
    ".xml": "a catalogue of neo4j-migrations, which is not understood: write its constraints and "
    "indexes as Cypher",
    ".java": "a migration in Java, which is not understood",
    ".class": "a migration in Java, which is not understood",
    ".kt": "a migration in Kotlin, which is not understood",
    ".adoc": "a migration in AsciiDoc, which is not understood: write its statements as Cypher",
    ".md": "a migration in Markdown, which is not understood: write its statements as Cypher",
}
#: Programs that lie beside Cypher files to run them or to write them.
_PROGRAMS = {".py"}
#: How many files a message names.
_SHOWN = 10

_HINT = (
    "Write V001__what_it_does.cypher, or R001__… to repeat. "
    "Move what is no migration out of it, or give it a name that may stay there, such as notes.md. "
    "Nothing was run, because these files would have been passed over."
)


def migration_files(folder: Path) -> list[Path]:
    """The migrations of `folder` and of the folders below it, sorted by name.

    Raises `ConfigurationError` when a folder cannot be read, and one that names every entry that is
    neither a migration, nor a callback, nor of a harmless kind, with the reason.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"neo4j: the folder {folder} is not there.",
            hint="Correct the blueprint's cypher folder, or leave it out.",
        )
    taken: list[Path] = []
    refused: dict[Entry, str] = {}
    for entry in entries_below(folder):
        if _has_name(entry, FILE_NAME) or _has_name(entry, CALLBACK_NAME):
            taken.append(entry.path)
        elif reason := _why_refused(entry):
            refused[entry] = reason
    refused = without_other_ways_to(taken, refused)
    if refused:
        reasons = list(refused.values())
        shown = "; ".join(reasons[:_SHOWN])
        if len(reasons) > _SHOWN:
            shown += f"; and {len(reasons) - _SHOWN} more"
        raise ConfigurationError(f"neo4j: {folder}: {shown}.", hint=_HINT)
    migrations = [path for path in taken if FILE_NAME.fullmatch(path.name)]
    return sorted(migrations, key=lambda path: (path.name, path))


def callback_files(folder: Path) -> list[Path]:
    """The callbacks of `folder` and of the folders below it, sorted by name.

    Raises `ConfigurationError` when a folder cannot be read.
    """
    found = [entry.path for entry in entries_below(folder) if _has_name(entry, CALLBACK_NAME)]
    return sorted(found, key=lambda path: (path.name, path))


def looks_like_migration(path: Path) -> bool:
    """Whether a person could take the file's name for that of a migration."""
    is_numbered = re.match(r"[VR]\d[\d._]*_", path.name, re.IGNORECASE) is not None
    return is_numbered and path.suffix.lower() in _CYPHER_SUFFIXES


def version_in_name(path: Path) -> tuple[int, ...]:
    """The version in the name of a migration, in whatever spelling. Empty without one."""
    found = re.match(r"[VR](\d+(?:[._]\d+)*)_", path.name, re.IGNORECASE)
    return tuple(int(part) for part in re.split("[._]", found[1])) if found else ()


def is_cypher_file(path: Path) -> bool:
    """Whether the file's name has an ending that Cypher files go by."""
    return path.suffix.lower() in _CYPHER_SUFFIXES


def is_known_to_stock_tool(name: str) -> bool:
    """Whether neo4j-migrations takes a file of this name as well."""
    return _THEIR_FILE_NAME.fullmatch(name) is not None


def _has_name(entry: Entry, form: re.Pattern[str]) -> bool:
    is_plain_file = entry.type == "file" and not entry.is_hidden
    return is_plain_file and form.fullmatch(entry.path.name) is not None


def _why_refused(entry: Entry) -> str:
    """Why an entry is not plainly harmless, in words that name it; empty when it is."""
    if is_leftover(entry) or is_copy(entry):
        return ""
    name = entry.path.name
    if entry.type == "folder":
        is_file_name = FILE_NAME.fullmatch(name) is not None
        return f"{entry.shown_name} is a folder, not a file" if is_file_name else ""
    if what := why_not_a_file(entry):
        return f"{entry.shown_name} is {what}"
    is_harmless = is_harmless_file(entry) or entry.path.suffix in _PROGRAMS
    if is_harmless and not _LIKE_A_MIGRATION.fullmatch(name):
        return ""
    return _why_file_refused(entry)


def _why_file_refused(entry: Entry) -> str:
    name, path = entry.shown_name, entry.path
    is_numbered = re.match(r"[VR]\d[\d._]*__", path.name) is not None
    if is_numbered and path.suffix in _OTHER_LANGUAGES:
        return f"{name} is {_OTHER_LANGUAGES[path.suffix]}"
    is_in_hidden = entry.is_hidden and not path.name.startswith(".")
    if is_in_hidden:
        return f"{name} is in a folder whose name begins with a dot, from which nothing is run"
    if path.suffix != SUFFIX:
        ending = f"ends in {printable(path.suffix)}, not" if path.suffix else "does not end"
        return f"the name of {name} {ending} in {SUFFIX}"
    return f"the file name {name} is not understood"

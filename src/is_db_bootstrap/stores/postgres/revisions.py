"""The Alembic revisions of a folder, read without Alembic, and what a database records of them.

A database records in two places. Alembic's table `alembic_version` holds the last revision. A row
of our own (`lineage_table`), written by our runs and by the stock command through
`migrations/env.py`, holds the blueprint and all the revisions that led there. By it, code that is
older than the database can tell a history that goes on from its own (`ahead`) from a foreign one,
and a second blueprint can be named. By it, a revision that was put before the last applied one is
found, which Alembic takes for applied. Earlier versions have written the same into the comment of
Alembic's table, which is read where there is no such row.

A database with neither was migrated by other means. It is adopted when the recorded revision is
known, and what leads there counts as applied. A row or comment that does not end in the recorded
revision is out of date (somebody stamped by other means) and not believed. A step that has begun is
recorded in a table of our own (`begun`), or where that cannot be, by a mark in the comment.
"""

from __future__ import annotations

import ast
import codecs
import heapq
import inspect
import io
import os
import re
import threading
import tokenize
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import NoReturn

from is_db_bootstrap import files
from is_db_bootstrap.engine.lineage import Lineage, Step
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres.file_digest import digest
from is_db_bootstrap.stores.postgres.plain_head import PlainHead, read_plain_head
from is_db_bootstrap.stores.postgres.revision_folder import (
    draft_of,
    looks_like_revision,
    revision_files,
    unreadable,
)

TABLE = "alembic_version"
_MARK = re.compile(r"is-db-bootstrap: blueprint (\S+); revisions((?: \S+)*)")
#: What a step that has begun adds to the comment.
_BEGUN = re.compile(r"(?:; )?begun (upgrade|downgrade) (\S+)$")
#: How a blueprint names a team's own environment, which has several heads and folders below.
_ENVIRONMENT = 'alembic = "alembic.ini"'
#: Chains that a process keeps. A fleet has one blueprint.
_CHAINS_KEPT = 8
#: Where the first function of a file begins. Its newline ends the statement before.
_FIRST_FUNCTION = b"\ndef "
#: What may bind a name by which a file declares a revision. It may also be an argument, or text.
_MAY_DECLARE = re.compile(rb"(?:revision|depends_on)\s*(?:\\\s*)?[:=]")
#: A declared encoding stands in the first two lines (PEP 263). A file with longer ones, and without
#: the word there, is none.
_ENCODING_BYTES = 1000
#: One of our threads parses at a time, and tries so often beside the threads of others.
_ONE_PARSES = threading.Lock()
_PARSE_TRIES = 20


@dataclass(frozen=True, slots=True)
class Chain:
    """Revisions in the order in which they are applied.

    `parents` are what each goes on from, `titles` what it does, and `files` where it was read.
    `digests` are those of the files (`revision_digests`).
    """

    order: tuple[str, ...] = ()
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Chain:
        """Read `revision`, `down_revision` and `depends_on` of every file.

        Files that have not changed since this process has read them are not read again.

        `ConfigurationError` unless there is one head.
        """
        stamp = _stamp(folder)
        return cls._read_anew(folder) if stamp is None else _read_once(folder, stamp)

    @classmethod
    def _read_anew(cls, folder: Path) -> Chain:
        parents: dict[str, tuple[str, ...]] = {}
        titles: dict[str, str] = {}
        places: dict[str, str] = {}
        read: dict[str, Path] = {}
        digests: dict[str, str] = {}
        for path in revision_files(folder):
            revision, before, title, line, found = _declared(path, _changed_ns(path))
            place = f"{path.name}, line {line}"
            if revision in parents:
                raise ConfigurationError(
                    f"{folder}: {places[revision]} and {place} both declare revision {revision}."
                )
            parents[revision], titles[revision], places[revision] = before, title, place
            read[revision] = path
            digests[revision] = found
        _resolve_labels(parents, read)
        chain = cls(tuple(_ordered(parents, folder)), parents, titles, read, digests)
        heads = sorted(set(parents) - {p for before in parents.values() for p in before})
        if len(heads) > 1:
            raise ConfigurationError(
                f"{folder}: several heads: "
                f"{', '.join(f'{head} ({places[head]})' for head in heads)}.",
                hint="Let one go on from the other (down_revision), or merge them: "
                f"down_revision = {tuple(heads)!r}. Where several are meant, name an alembic.ini: "
                f"{_ENVIRONMENT}.",
            )
        return chain

    def refuse_unparsable(self, revisions: Iterable[str]) -> None:
        """Raise `ConfigurationError` for the first of `revisions` whose file is no Python.

        `read` does not look into the functions of a file.
        """
        for revision in revisions:
            if path := self.files.get(revision):
                _refuse_unparsable(path, _changed_ns(path))

    @property
    def head(self) -> str:
        """The last revision; empty when there is none. Several are separated by commas."""
        return ", ".join(self.heads(self.order))

    @property
    def lineage(self) -> Lineage:
        """The revisions as a lineage, with which a recorded one is compared."""
        return Lineage(tuple(Step(name, self.parents[name]) for name in self.order))

    def heads(self, revisions: Iterable[str]) -> tuple[str, ...]:
        """Those of `revisions` from which none of the others goes on, in order."""
        found = set(revisions)
        passed = {before for r in found for before in self.parents[r]}
        return tuple(r for r in self.order if r in found - passed)

    def until(self, revisions: Iterable[str]) -> tuple[str, ...]:
        """`revisions` and all that led to them, in order."""
        wanted, found = list(revisions), set[str]()
        while wanted:
            revision = wanted.pop()
            if revision not in found:
                found.add(revision)
                wanted += self.parents[revision]
        return tuple(r for r in self.order if r in found)


#: The name of each file of a folder, and what changes with its content.
_Stamp = tuple[tuple[str, int, int, int], ...]


def _stamp(folder: Path) -> _Stamp | None:
    """What tells whether a folder has changed. None where that is not known.

    Nothing is known of folders below, which may hold what is refused.
    """
    if draft_of(folder) is not None:
        return None
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == "__pycache__":
                    continue
                if not entry.is_file():
                    return None
                status = entry.stat()
                found.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
    except OSError:
        return None
    return tuple(sorted(found))


@lru_cache(maxsize=_CHAINS_KEPT)
def _read_once(folder: Path, _stamp: _Stamp) -> Chain:
    return Chain._read_anew(folder)  # noqa: SLF001 - this is the memory of `Chain.read`


def declared_ids(path: Path) -> tuple[str, tuple[str, ...]]:
    """The revision that a file declares and what it goes on from. Both empty if it does not say."""
    try:
        revision, parents, *_ = _declared(path, _changed_ns(path))
    except (ConfigurationError, TypeError, RecursionError, MemoryError):
        return "", ()
    return revision, parents


@cache
def _declared(path: Path, _changed_ns: int) -> tuple[str, tuple[str, ...], str, int, str]:
    """Revision, parents, title, the line of the revision, and the digest of the file.

    A fleet asks for every target.
    """
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise unreadable(path, exc) from exc
    head = _head(path, text)
    values = head.values
    if not isinstance(values.get("revision"), str):
        raise _undeclared(path)
    before = [*_tuple(values.get("down_revision")), *_tuple(values.get("depends_on"))]
    title = _title(head.docstring)
    parents = tuple(dict.fromkeys(before))
    return str(values["revision"]), parents, title, head.line, digest(text)


def _head_of_tree(tree: ast.Module, path: Path) -> PlainHead:
    """What a file says that was parsed."""
    values: dict[str, object] = {}
    line = 1
    for node in tree.body:
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        if isinstance(target, ast.Name) and target.id in {
            "revision",
            "down_revision",
            "depends_on",
        }:
            values[target.id] = _literal(getattr(node, "value", None), path)
            line = node.lineno if target.id == "revision" else line
    return PlainHead(values, ast.get_docstring(tree, clean=False) or "", line)


def _resolve_labels(parents: dict[str, tuple[str, ...]], files: Mapping[str, Path]) -> None:
    """Put the revision that has a label in the place of the label, as Alembic does."""
    if all(before in parents for each in parents.values() for before in each):
        return
    labels = {label: revision for revision, path in files.items() for label in _labels(path)}
    for revision, before in parents.items():
        found = (each if each in parents else labels.get(each, each) for each in before)
        parents[revision] = tuple(dict.fromkeys(found))


def _labels(path: Path) -> tuple[str, ...]:
    """The `branch_labels` of a file. Those that are computed are left out."""
    for node in _parsed(path, path.read_bytes()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [each.id for each in targets if isinstance(each, ast.Name)]
        if "branch_labels" in names:
            with suppress(ValueError, TypeError):
                return _tuple(ast.literal_eval(getattr(node, "value", None) or ast.Constant(None)))
    return ()


def _title(text: str) -> str:
    """The first line of a docstring."""
    first = text.partition("\n")[0]
    if not first.strip():
        first = inspect.cleandoc(text).partition("\n")[0]
    return first.strip()


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as exc:
        raise unreadable(path, exc) from exc


def _head(path: Path, text: bytes) -> PlainHead:
    """What a file says up to its first function, where that is all that can declare a revision.

    The functions of a long chain take most of the time. What parses is whole statements, so the
    rest begins with a statement too. A rest that may bind one of the names is parsed as well.
    """
    end = text.find(_FIRST_FUNCTION)
    if end >= 0 and _is_plain(text) and not _MAY_DECLARE.search(text, end):
        plain = read_plain_head(text[: end + 1])
        if plain is not None:
            return plain
        tree = None
        with suppress(SyntaxError, ValueError):
            tree = parse_python(text[: end + 1], str(path))
        if tree is not None:
            return _head_of_tree(tree, path)
    return _head_of_tree(_parsed(path, text), path)


@cache
def _refuse_unparsable(path: Path, _changed_ns: int) -> None:
    """Raise `ConfigurationError` for a file that is no Python. A run plans twice."""
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise unreadable(path, exc) from exc
    _parsed(path, text)


def _is_plain(text: bytes) -> bool:
    """Whether the file is UTF-8 without a byte order mark, and declares no encoding."""
    first_lines = text[:_ENCODING_BYTES]
    if b"coding" in first_lines or text.startswith(codecs.BOM_UTF8):
        return False
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse_python(text: bytes, name: str = "<unknown>") -> ast.Module:
    """What `ast.parse` makes of a text, also beside other threads that parse.

    CPython counts how deep nodes are nested for all threads together, and raises `SystemError`
    ("AST constructor recursion depth mismatch", seen on 3.11.7) when another one parses meanwhile.
    """
    with _ONE_PARSES:
        for _ in range(_PARSE_TRIES):
            with suppress(SystemError):
                return ast.parse(text, name)
        return ast.parse(text, name)


def _parsed(path: Path, text: bytes) -> ast.Module:
    """The text of a file as Python reads it: a byte order mark and a declared encoding count."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(text).readline)
        text.decode(encoding)  # some releases of Python do not look into comments
        return parse_python(text, str(path))
    except UnicodeDecodeError as exc:
        raise ConfigurationError(
            f"{path} is not {exc.encoding}: {exc.reason} at byte {exc.start}.",
            hint="Write it in UTF-8, or declare its encoding in the first line, as in "
            "# -*- coding: latin-1 -*-.",
        ) from exc
    except SyntaxError as exc:
        where = f"{path}, line {exc.lineno}" if exc.lineno else str(path)
        raise ConfigurationError(f"{where}: {exc.msg}.") from exc
    except ValueError as exc:  # a null byte, in some releases of Python
        raise ConfigurationError(f"{path}: {exc}.") from exc


def _undeclared(path: Path) -> ConfigurationError:
    """The error of a file that Alembic would read as a revision and that is none."""
    hint = 'Write revision = "…" and down_revision = "…", or move the file to another folder.'
    if looks_like_revision(path):
        hint = (
            'Write revision = "…" and down_revision = "…", each on a line of its own without an '
            "indent."
        )
    if path.name == "env.py":
        hint = (
            "Name the folder that holds the revisions, as in "
            'Blueprint(…, migrations=Path("migrations/versions")).'
        )
    return ConfigurationError(f"{path}: no revision is declared.", hint=hint)


def _literal(node: ast.expr | None, path: Path) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        raise ConfigurationError(
            f"{path}: revision and down_revision must be written out, not computed."
        ) from None


def _tuple(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(value)  # type: ignore[arg-type]  # Alembic allows a sequence


def _ordered(parents: Mapping[str, Sequence[str]], folder: Path) -> list[str]:
    """Every revision after its parents; among equals in the order of their names."""
    done: list[str] = []
    missing = {revision: len(before) for revision, before in parents.items()}
    children: dict[str, list[str]] = {}
    for revision, before in parents.items():
        for parent in before:
            children.setdefault(parent, []).append(revision)
    ready = [revision for revision, count in missing.items() if not count]
    heapq.heapify(ready)
    while ready:
        revision = heapq.heappop(ready)
        done.append(revision)
        for child in children.get(revision, ()):
            missing[child] -= 1
            if not missing[child]:
                heapq.heappush(ready, child)
    if len(done) < len(parents):
        _refuse_parents({each: parents[each] for each in set(parents) - set(done)}, parents, folder)
    return done


def _refuse_parents(
    left: Mapping[str, Sequence[str]], known: Collection[str], folder: Path
) -> NoReturn:
    """Say why the revisions that are `left` have no order, by what they go on from."""
    for revision, before in sorted(left.items()):
        if absent := [each for each in before if each not in known]:
            raise ConfigurationError(
                f"{folder}: revision {revision} goes on from {', '.join(absent)}, which is not "
                "there.",
                hint="A file names another by its id, or by a label that it has (branch_labels). "
                "What has an @ is for Alembic's commands only."
                if any("@" in each for each in absent)
                else "",
            )
    loop = _loop_in(left)
    path = ", which goes on from ".join([*loop[1:], loop[0]]) if len(loop) > 1 else "itself"
    raise ConfigurationError(
        f"{folder}: revision {loop[0]} goes on from {path}.",
        hint="Correct the down_revision of one: nothing could be the first.",
    )


def _loop_in(left: Mapping[str, Sequence[str]]) -> list[str]:
    """Revisions of which each goes on from the next, and the last one from the first."""
    path = [min(left)]
    while True:
        parent = min(each for each in left[path[-1]] if each in left)
        if parent in path:
            return path[path.index(parent) :]
        path.append(parent)


@dataclass(frozen=True, slots=True)
class RecordedLineage:
    """What our own table says of a version table.

    `revisions` led there when they were written. `planned` is what a run is about to lead to, or
    was about to lead to when it was killed: all revisions, in order. It is empty after a run.
    `digests` are those of the files, by revision (`revision_digests`).
    """

    blueprint: str
    revisions: tuple[str, ...]
    planned: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    def lineages(self, rows: Collection[str]) -> Iterator[tuple[str, ...]]:
        """What may have led to `rows` of the version table. What is written comes first."""
        yield self.revisions
        places = [place for place, name in enumerate(self.planned) if name in rows]
        yield self.planned[: places[-1] + 1] if places else ()


@dataclass(frozen=True, slots=True)
class Record:
    """What a schema records; nothing when there is no version table, or no row in it.

    `begun` is a step that has committed a part of its work and did not end, by the comment: its
    direction (`upgrade` or `downgrade`) and its revision. `may_read_begun` says whether we may read
    the table of begun steps (`stores.postgres.begun`), None when there is no such table.
    `may_read_lineage` says the same of our table of lineages. `in_comment` says that the lineage
    stands in the comment alone, and `has_plan` that a run has written there what it is about to
    lead to, and has not ended. `digests` are what our row says of files, also when it is out of
    date: what was applied then may be applied still.
    """

    revisions: tuple[str, ...] = ()
    blueprint: str = ""
    lineage: tuple[str, ...] = ()
    begun: tuple[str, str] | None = None
    may_read_begun: bool | None = None
    may_read_lineage: bool | None = None
    in_comment: bool = False
    has_plan: bool = False
    digests: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls,
        revisions: Iterable[str],
        comment: str | None,
        recorded: RecordedLineage | None = None,
        *,
        may_read_begun: bool | None = None,
        may_read_lineage: bool | None = None,
    ) -> Record:
        """From the rows of the version table, its comment, and what our own table has `recorded`.

        What is out of date counts for nothing.
        """
        rows = tuple(sorted(revisions))
        text = (comment or "").strip()
        step = _BEGUN.search(text)
        begun = (step[1], step[2]) if step else None
        mark = _MARK.fullmatch(text[: step.start()] if step else text)
        by_comment = RecordedLineage(mark[1], tuple(mark[2].split())) if mark else None
        blueprint, lineage, in_comment = "", tuple[str, ...](), False
        believed = (
            (found, names)
            for found in (recorded, by_comment)
            if found is not None
            for names in found.lineages(rows)
            if _ends_in(names, rows)
        )
        for found, names in believed:
            blueprint, lineage, in_comment = found.blueprint, names, found is by_comment
            break
        return cls(
            rows,
            blueprint,
            lineage,
            begun,
            may_read_begun=may_read_begun,
            may_read_lineage=may_read_lineage,
            in_comment=in_comment,
            has_plan=recorded is not None and bool(recorded.planned),
            digests=recorded.digests if recorded is not None else {},
        )

    def as_lineage(self, chain: Chain) -> Lineage:
        """What is recorded, as a lineage that is compared with that of `chain`.

        A version table alone has the last revisions only. What led to them is taken for complete.
        """
        if not self.lineage:
            return Lineage(tuple(Step(name) for name in self.revisions), is_complete=False)
        names = _without_squashed(self.lineage, chain)
        if any(revision not in chain.parents for revision in self.revisions):
            # The comment does not say from which revision a recorded one went on.
            return Lineage(tuple(Step(name) for name in names))
        return Lineage.in_order(*self._without_undone(names, chain))

    def _without_undone(self, names: Sequence[str], chain: Chain) -> Iterator[str]:
        """Leave out the branches that other means have undone: the comment still has them."""
        done = chain.until(self.revisions)
        for name in names:
            is_passed = name not in chain.parents or name in done
            if is_passed or not {*self.revisions}.isdisjoint(chain.until([name])):
                yield name


def _without_squashed(names: Sequence[str], chain: Chain) -> Sequence[str]:
    """Leave out what led to the first revision of a folder whose older ones were squashed."""
    first = next((i for i, name in enumerate(names) if name in chain.parents), 0)
    is_root = names[first] in chain.parents and not chain.parents[names[first]]
    return names[first:] if is_root else names


def _ends_in(lineage: Sequence[str], rows: Sequence[str]) -> bool:
    """Whether a lineage leads to the recorded revisions, and not beyond."""
    return bool(rows) and {*rows} <= {*lineage} and lineage[-1] in rows


def marked_blueprint(comment: str | None) -> str:
    """The blueprint that a version table's comment names; empty when the comment is not ours."""
    text = (comment or "").strip()
    found = _MARK.fullmatch(_BEGUN.sub("", text))
    return found[1] if found else ""


def blueprint_of(revision: str) -> str:
    """The built-in blueprint that has `revision`; empty when none has."""
    for folder in sorted((files.root() / "migrations").glob("*/")):
        if any(folder.glob("*.py")) and revision in Chain.read(folder).parents:
            return folder.name
    return ""

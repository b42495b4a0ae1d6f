"""A Cypher file of a blueprint: its name, its preconditions, its statements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.neo4j import cypher_text
from is_db_bootstrap.stores.neo4j.cypher_folder import (
    FILE_NAME,
    is_known_to_stock_tool,
    migration_files,
)
from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import Statement
from is_db_bootstrap.stores.neo4j.precondition import Precondition
from is_db_bootstrap.stores.neo4j.version import LARGEST_NUMBER, number

#: What `CypherFile.why_other` says of line ends.
LINE_ENDS = "the line ends"
#: `CREAT INDEX …`. `SHOW INDEXES` has another word.
_MISSPELT_SCHEMA = re.compile(r"\w+(?: \w+){0,3}? (?:INDEX|CONSTRAINT) ", re.IGNORECASE)
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class CypherFile:
    """A `V…__….cypher` file, run once, or an `R…__….cypher` file.

    The second is run again when its text changes. `place` is its path below the folder. With
    `ignores_line_ends`, its text has LF only, and line ends do not count. `alternatives` are the
    checksums of other files of its name: neo4j-migrations takes each of them for this file's.
    """

    name: str
    version: str
    description: str
    repeatable: bool
    text: str
    statements: tuple[Statement, ...]
    preconditions: tuple[Precondition, ...]
    place: str = ""
    ignores_line_ends: bool = False
    alternatives: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, text: str, *, place: str = "", autocrlf: bool = False) -> CypherFile:
        """From its name and text; `ConfigurationError` names the file and the line.

        With `autocrlf`, CRLF stands for LF, as the option of this name of neo4j-migrations has it.
        """
        text = text.replace("\r\n", "\n") if autocrlf else text
        parts = FILE_NAME.fullmatch(name)
        if parts is None:
            raise ConfigurationError(
                f"neo4j: the file name {name} is not understood.",
                hint="Write V001__what_it_does.cypher, or R001__… to repeat.",
            )
        try:
            statements, comments = cypher_text.split_with_comments(text)
            preconditions = tuple(filter(None, map(Precondition.parse, comments)))
        except ValueError as exc:
            raise ConfigurationError(f"neo4j: {name}: {exc}.") from exc
        found = cls(
            name,
            parts["version"].replace("_", "."),
            parts["description"].replace("_", " "),
            parts["kind"] == "R",
            text,
            tuple(statements),
            preconditions,
            place or name,
            autocrlf,
        )
        found._check()
        return found

    def _check(self) -> None:
        refuse_shell_commands(self.name, self.statements)
        if self.transactional:
            return
        for statement in self.statements:
            if statement.is_data and _MISSPELT_SCHEMA.match(statement.tokens):
                raise ConfigurationError(
                    f"neo4j: {self.name}, line {statement.line}: "
                    f"`{statement.text.split(chr(10))[0][:60]}` looks like a schema statement and "
                    "is none, and the statements before it commit by themselves.",
                    hint="Mend its first words.",
                )

    @property
    def transactional(self) -> bool:
        """Whether its statements share one transaction with their record."""
        return all(statement.is_data for statement in self.statements)

    @property
    def may_change_data(self) -> bool:
        """Whether it may change nodes or relationships."""
        return any(statement.may_change_data for statement in self.statements)

    @property
    def is_conditional(self) -> bool:
        """Whether an assumption may keep it out of a history that is otherwise complete."""
        return any(p.is_assumption for p in self.preconditions)

    @property
    def order(self) -> tuple[int, ...]:
        """Its place among the files."""
        return number(self.version)

    @cached_property
    def checksum(self) -> str:
        """What the history records of its text."""
        return cypher_text.checksum(self.text)

    @cached_property
    def checksums(self) -> frozenset[str]:
        """What the history may have recorded of its text.

        It may be without the preconditions, which can be added later, and it may be that of
        another file of this name with other preconditions. With `ignores_line_ends` it may have
        been recorded with CRLF.
        """
        known = {*_checksums(self.text), *self.alternatives}
        if self.preconditions:
            known.add(cypher_text.checksum_without(self.text, _is_precondition))
        if self.ignores_line_ends:
            known.add(cypher_text.checksum(_with_crlf(self.text)))
        return frozenset(known)

    def why_other(self, recorded: str) -> str:
        """What differs from the text that was recorded, if only that; empty when more does."""
        without_mark = self.text.removeprefix(_BYTE_ORDER_MARK)
        variants = {
            LINE_ENDS: (self.text.replace("\r\n", "\n"), _with_crlf(self.text)),
            "the byte order mark": (without_mark, _BYTE_ORDER_MARK + without_mark),
        }
        for what, texts in variants.items():
            if any(recorded in _checksums(text) for text in texts):
                return what
        return ""

    @property
    def unrecognised(self) -> int:
        """How many statements declare nothing that can be compared with a live object."""
        return sum(recognise(s.tokens) is None for s in self.statements)

    @property
    def queries(self) -> tuple[Precondition, ...]:
        """The preconditions that only the database can answer."""
        return tuple(p for p in self.preconditions if p.query)

    def lint(self) -> Iterator[str]:
        """What neo4j-migrations would read differently.

        Also what could not be run twice after a crash.
        """
        theirs = [
            " ".join(s.tokens for s in _lenient(part))
            for part in cypher_text.their_parts(self.text)
        ]
        if [t for t in theirs if t] != [s.tokens for s in self.statements]:
            yield (
                f"Warning: neo4j-migrations splits {self.name} differently and would fail on it: "
                "it ends a statement at `;` + line end only, in strings and comments too."
            )
        if not is_known_to_stock_tool(self.name):
            yield (
                f"Warning: neo4j-migrations would pass over {self.name}: it takes names of ASCII "
                "letters and digits, with either dots or underscores in the version."
            )
        has_batches = any(statement.is_batched for statement in self.statements)
        has_data = any(statement.is_data for statement in self.statements)
        if has_data and not self.transactional and not has_batches:
            yield (
                f"Warning: neo4j-migrations refuses {self.name} unless it is told "
                "--transaction-mode PER_STATEMENT: it has both schema statements and data."
            )
        theirs_see = set(cypher_text.their_comments(self.text))
        for precondition in self.preconditions:
            if precondition.text not in theirs_see:
                yield (
                    f"Warning: neo4j-migrations does not see the precondition "
                    f"`{precondition.text}` of {self.name}: write it into the first lines of the "
                    "file."
                )
        for statement in self.statements:
            found = recognise(statement.tokens)
            if isinstance(found, SchemaObject) and not found.name:
                yield (
                    f"Warning: {self.name}, line {statement.line}: the {found.kind} has no "
                    "name; give it one."
                )


def _lenient(part: str) -> list[Statement]:
    try:
        found = list(cypher_text.split(part))
    except ValueError:
        return [Statement(part, part, 1)]
    is_one = len(found) <= 1
    return found if is_one else [Statement(part, part, 1)]  # theirs would be sent as one


def read_text(path: Path) -> str:
    """What is in a file. Raises `ConfigurationError` when it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode()
    except OSError as exc:
        raise ConfigurationError(f"neo4j: {path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(
            f"neo4j: {path} is not UTF-8: {exc.reason} at byte {exc.start}.",
            hint="Save it as UTF-8.",
        ) from exc


def load(folder: Path, *, autocrlf: bool = False) -> tuple[CypherFile, ...]:
    """The files of a folder and of the folders below it, in order.

    Two files may have one version if their assumptions exclude each other, which only a server can
    tell. Raises `ConfigurationError` for two of one version without assumptions, for a file that
    cannot be read, and for files that look like migrations and would be passed over (see
    `cypher_folder`).
    """
    files = [
        CypherFile.parse(
            path.name, read_text(path), place=str(path.relative_to(folder)), autocrlf=autocrlf
        )
        for path in migration_files(folder)
    ]
    files.sort(key=lambda f: (f.order, f.place))
    for file in files:
        if any(part > LARGEST_NUMBER for part in file.order):
            raise ConfigurationError(
                f"neo4j: {file.name} has a version above {LARGEST_NUMBER}.",
                hint="Neo4j cannot hold it as a number. "
                "Use fewer digits, such as a time in seconds.",
            )
    groups = [tuple(group) for _, group in groupby(files, key=lambda f: f.order)]
    return tuple(file for group in groups for file in _of_one_version(group))


def _of_one_version(group: Sequence[CypherFile]) -> Sequence[CypherFile]:
    """The files of one version, each with the checksums of the others of its name.

    Raises `ConfigurationError` when no server could take one of them only.
    """
    always = [file for file in group if not file.is_conditional]
    if len(always) > 1:
        raise same_version(always)
    return [replace(file, alternatives=_alternatives(file, group)) for file in group]


def _alternatives(file: CypherFile, group: Sequence[CypherFile]) -> tuple[str, ...]:
    if not file.preconditions:
        return ()
    return tuple(
        checksum
        for other in group
        if other is not file and other.name == file.name and other.preconditions
        for checksum in sorted(other.checksums)
    )


def same_version(files: Sequence[CypherFile]) -> ConfigurationError:
    """The error of files that have one version, and that a server would all take."""
    places = " and ".join(file.place for file in files)
    return ConfigurationError(
        f"neo4j: {places} have the same version {files[0].version}.",
        hint="Give each a version of its own, or assumptions that exclude each other, such as "
        "`// assume that edition is enterprise` and `// assume that edition is community`.",
    )


def refuse_shell_commands(name: str, statements: Sequence[Statement]) -> None:
    """Raise `ConfigurationError` for `:use`, `:auto` and other commands of Neo4j's shells."""
    for statement in statements:
        if not statement.tokens.startswith(": "):
            continue
        command = statement.tokens[2:].split(" ")[0].lower()
        where = f"neo4j: {name}, line {statement.line}: `:{command}` is refused, because"
        if command == "use":
            raise ConfigurationError(
                f"{where} a run concerns one database.", hint="Name the database in the address."
            )
        raise ConfigurationError(
            f"{where} it is a command of Neo4j's shells and no Cypher.",
            hint="Leave it out. A statement that commits by itself, such as CALL … IN "
            "TRANSACTIONS, is sent as it needs to be.",
        )


def _checksums(text: str) -> tuple[str, str]:
    return cypher_text.checksum(text), cypher_text.flyway_checksum(text)


def _with_crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _is_precondition(comment: str) -> bool:
    return Precondition.parse(comment) is not None


def order_warning(files: Sequence[CypherFile]) -> str:
    """A warning when version 2 of neo4j-migrations would run the files in another order.

    It sorts versions as text.
    """
    if [f.version for f in files] == sorted(f.version for f in files):
        return ""
    return (
        "Warning: sorted as text the Cypher files stand in another order than by number; use "
        "numbers of one width."
    )

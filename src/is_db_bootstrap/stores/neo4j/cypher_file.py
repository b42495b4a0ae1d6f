"""A Cypher file of a blueprint: its name, its preconditions, its statements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
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

_PRECONDITION = re.compile(
    r"(?P<word>assume|assert) that (?:edition is (?P<edition>enterprise|community)"
    r"|version is (?P<versions>[\d.]+(?:(?: ?,| or) ?[\d.]+)*)"
    r"|version is (?P<compare>ge|lt) (?P<than>[\d.]+))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a file asks of the server.

    Unmet: an `assume` skips the file, an `assert` ends the run.
    """

    text: str
    is_assumption: bool
    edition: str = ""
    versions: tuple[str, ...] = ()
    at_least: str = ""
    below: str = ""

    @classmethod
    def parse(cls, comment: str) -> Precondition | None:
        """From a line comment; `ValueError` when it begins like one and is none that we know."""
        if not re.match(r"(assume|assert)\b", comment, re.IGNORECASE):
            return None
        found = _PRECONDITION.fullmatch(comment)
        if found is None:
            raise ValueError(f"the precondition {comment!r} is not understood")
        compare = (found["compare"] or "").lower()
        return cls(
            text=comment,
            is_assumption=found["word"].lower() == "assume",
            edition=(found["edition"] or "").lower(),
            versions=tuple(re.findall(r"[\d.]+", found["versions"] or "")),
            at_least=found["than"] if compare == "ge" else "",
            below=found["than"] if compare == "lt" else "",
        )

    def holds(self, version: str, edition: str) -> bool:
        """Whether a server of that version and edition meets it.

        Versions are compared as numbers, part by part.
        """
        if self.edition:
            return self.edition == edition
        if self.versions:
            return any(f"{version}.".startswith(f"{v}.") for v in self.versions)
        return (
            number(version) >= number(self.at_least)
            if self.at_least
            else number(version) < number(self.below)
        )


#: The largest number of a version: Neo4j's integers have 64 bits.
LARGEST_NUMBER = 2**63 - 1


def number(version: str) -> tuple[int, ...]:
    """The parts of a version as numbers: the order of files."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


@dataclass(frozen=True)
class CypherFile:
    """A `V…__….cypher` file, run once, or an `R…__….cypher` file.

    The second is run again when its text changes.
    """

    name: str
    version: str
    description: str
    repeatable: bool
    text: str
    statements: tuple[Statement, ...]
    preconditions: tuple[Precondition, ...]

    @classmethod
    def parse(cls, name: str, text: str) -> CypherFile:
        """From its name and text; `ConfigurationError` names the file and the line."""
        parts = FILE_NAME.fullmatch(name)
        if parts is None:
            raise ConfigurationError(
                f"neo4j: the file name {name} is not understood.",
                hint="Write V001__what_it_does.cypher, or R001__… to repeat.",
            )
        try:
            statements = tuple(cypher_text.split(text))
            preconditions = tuple(
                filter(None, map(Precondition.parse, cypher_text.leading_comments(text)))
            )
        except ValueError as exc:
            raise ConfigurationError(f"neo4j: {name}: {exc}.") from exc
        found = cls(
            name,
            parts["version"].replace("_", "."),
            parts["description"].replace("_", " "),
            parts["kind"] == "R",
            text,
            statements,
            preconditions,
        )
        found._check()
        return found

    def _check(self) -> None:
        for statement in self.statements:
            if statement.tokens.lower().startswith(": use "):
                raise ConfigurationError(
                    f"neo4j: {self.name}, line {statement.line}: `:use` is refused, because a "
                    "run concerns one database.",
                    hint="Name the database in the address.",
                )
        apart = [s.is_schema or s.is_batched for s in self.statements]
        if any(apart) and not all(apart):
            other = self.statements[apart.index(not apart[0])]
            raise ConfigurationError(
                f"neo4j: {self.name}, line {other.line}: "
                f"`{other.text.split(chr(10))[0][:60]}` cannot share a transaction with "
                "the statements before it: constraints, indexes and CALL … IN TRANSACTIONS "
                "stand apart from data.",
                hint="Put the two kinds into two files, or mend the word that makes it look like "
                "the other kind.",
            )

    @property
    def transactional(self) -> bool:
        """Whether its statements share one transaction with their record."""
        return not any(s.is_schema or s.is_batched for s in self.statements)

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

    @property
    def checksums(self) -> tuple[str, str]:
        """What the history may have recorded of its text."""
        return self.checksum, cypher_text.flyway_checksum(self.text)

    @property
    def unrecognised(self) -> int:
        """How many statements declare nothing that can be compared with a live object."""
        return sum(recognise(s.tokens) is None for s in self.statements)

    def unmet(self, version: str, edition: str) -> Precondition | None:
        """The first precondition that the server does not meet; assertions come first."""
        unmet = [p for p in self.preconditions if not p.holds(version, edition)]
        return min(unmet, key=lambda p: p.is_assumption, default=None)

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


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as exc:
        raise ConfigurationError(f"neo4j: {path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(
            f"neo4j: {path} is not UTF-8: {exc.reason} at byte {exc.start}.",
            hint="Save it as UTF-8.",
        ) from exc


def load(folder: Path) -> tuple[CypherFile, ...]:
    """The files of a folder in order.

    Raises `ConfigurationError` for two of one number, for a file that cannot be read, and for files
    that look like migrations and would be passed over (see `cypher_folder`).
    """
    texts = {path.name: _text(path) for path in migration_files(folder)}
    files = sorted(
        (CypherFile.parse(name, text) for name, text in texts.items()),
        key=lambda f: (f.order, f.name),
    )
    for file in files:
        if any(part > LARGEST_NUMBER for part in file.order):
            raise ConfigurationError(
                f"neo4j: {file.name} has a version above {LARGEST_NUMBER}.",
                hint="Neo4j cannot hold it as a number. "
                "Use fewer digits, such as a time in seconds.",
            )
    for one, other in pairwise(files):
        if one.order == other.order:
            raise ConfigurationError(
                f"neo4j: {one.name} and {other.name} have the same version {one.version}."
            )
    return tuple(files)


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

"""An SQL file as `pg_dump` writes it, taken apart so that it runs without psql.

A file is sent as it is, in one transaction. It is taken apart only where the server itself does
not read it: at the rows of a `COPY … FROM stdin`, and at commands of psql. So what is recognised
here is where a text, a name, a comment or the body of a function ends (manual, 4.1 Lexical
Structure).

What would leave the transaction or the database is refused by its line before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.postgres import own_schema
from is_db_bootstrap.stores.postgres.errors import translated

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<quoted>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*")
    | (?P<body>\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<end>;)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<meta>\\[^\s\\]*)
    | (?P<unended>['"])
    | (?P<other>.)
    """,
    re.DOTALL | re.VERBOSE,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_REST_OF_LINE = re.compile(r"[^\n]*\n?")
_END_OF_ROWS = re.compile(r"^\\\.\r?$", re.MULTILINE)
#: Commands of psql that concern psql itself: a dump of 2025 and later begins and ends with them.
_SKIPPED_COMMANDS = {"\\restrict", "\\unrestrict"}
#: Beginnings of statements that end a transaction or begin another one.
_LEAVES_TRANSACTION = {
    ("BEGIN",),
    ("START", "TRANSACTION"),
    ("COMMIT",),
    ("END",),
    ("ROLLBACK",),
    ("ABORT",),
    ("SAVEPOINT",),
    ("RELEASE",),
    ("PREPARE", "TRANSACTION"),
}
_ON_SERVER = {
    (act, what)
    for act in ("CREATE", "ALTER", "DROP")
    for what in ("DATABASE", "ROLE", "USER", "GROUP", "TABLESPACE", "SUBSCRIPTION", "SYSTEM")
} - {("CREATE", "SYSTEM"), ("DROP", "SYSTEM")}
#: `CREATE USER MAPPING` is of one database.
_OF_DATABASE = {(act, "USER", "MAPPING") for act in ("CREATE", "ALTER", "DROP")}
#: Settings that change how the file itself is read.
_READ_OTHERWISE = re.compile(
    r"""
    \s*SET\s+(?:
        client_encoding\s*(?:=|TO)\s*'?(?!UTF-?8\b|UNICODE\b)[\w-]+
      | standard_conforming_strings\s*(?:=|TO)\s*'?(?:off|false|0)\b
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A statement that begins in `line`. That of a COPY has its `rows`."""

    text: str
    line: int
    rows: str | None = None


class SqlFile:
    """An SQL file, read and checked. No server is asked.

    Raises `ConfigurationError` with the line for what is not taken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be read: {exc.strerror}.") from exc
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
            raise ConfigurationError(
                f"{path}, line {line}, is not UTF-8.",
                hint="Write the file with: pg_dump --encoding=UTF8.",
            ) from exc
        self.parts = tuple(_Reading(path, text).parts())

    def run(self, session: psycopg.Connection[Any], target: str, change: Change) -> None:
        """Send everything in the transaction of `session`, one statement after the other.

        An error of the server names the line.
        """
        for part in self.parts:
            try:
                _send(session, part)
            except psycopg.Error as exc:
                found = translated(exc, target, change=change, statement=part.text)
                found.message = f"{self.path}, line {_line_of(part, exc)}: {found.message}"
                raise found from exc


def _send(session: psycopg.Connection[Any], part: Part) -> None:
    cursor = psycopg.Cursor(session)
    if part.rows is None:
        cursor.execute(part.text.encode())
        return
    with cursor.copy(part.text.encode()) as copy:
        copy.write(part.rows.encode())


def _line_of(part: Part, exc: psycopg.Error) -> int:
    """The line at which the server has stopped, or the first one of the statement."""
    position = exc.diag.statement_position
    if position is None or part.rows is not None:
        return part.line
    return part.line + part.text.count("\n", 0, int(position) - 1)


class _Reading:
    """Takes the text of a file apart."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._position = 0
        self._begin_statement()

    def _begin_statement(self) -> None:
        self._statement: int | None = None
        self._words: list[str] = []
        self._open = 0
        #: Depth of BEGIN ATOMIC, of CASE inside, in which a semicolon ends no statement.
        self._blocks = 0

    def parts(self) -> Iterator[Part]:
        """The parts of the file, in order."""
        while self._position < len(self._text):
            token = self._next_token()
            kind = token.lastgroup if token.lastgroup != "tag" else "body"
            if kind == "space":
                continue
            if kind == "comment":
                self._skip_comment(token.start())
                continue
            if kind == "unended":
                raise self._refused(token.start(), f"a {token[0]} is opened and not closed")
            if kind == "meta":
                self._skip_command(token)
                continue
            if self._statement is None and kind != "end":
                self._statement = token.start()
            if kind == "end" and not self._open and not self._blocks:
                yield from self._ended_statement(token.end())
            else:
                self._look_at(kind or "", token[0].upper())
        yield from self._ended_statement(len(self._text))

    def _next_token(self) -> re.Match[str]:
        token = _TOKEN.match(self._text, self._position)
        if token is None:
            raise ValueError(self._position)
        self._position = token.end()
        return token

    def _look_at(self, kind: str, word: str) -> None:
        """Follow what may hold semicolons that end no statement, as psql does."""
        self._open += {"open": 1, "close": -1}.get(kind, 0)
        if kind != "word":
            return
        self._words.append(word)
        is_routine = {"FUNCTION", "PROCEDURE"}.intersection(self._words[:4])
        if self._words[0] != "CREATE" or not is_routine:
            return
        if word == "BEGIN" or (self._blocks and word == "CASE"):
            self._blocks += 1
        elif self._blocks and word == "END":
            self._blocks -= 1

    def _skip_comment(self, start: int) -> None:
        depth = 1
        while depth:
            edge = _COMMENT_EDGE.search(self._text, self._position)
            if edge is None:
                raise self._refused(start, "a comment is opened and not closed")
            depth += 1 if edge[0] == "/*" else -1
            self._position = edge.end()

    def _skip_command(self, token: re.Match[str]) -> None:
        """Pass over a command of psql that needs no psql, and refuse every other one."""
        if token[0] not in _SKIPPED_COMMANDS or self._statement is not None:
            raise self._refused(
                token.start(),
                f"{token[0]} is a command of psql, which does not run this file",
                "Write the file with pg_dump, without --create, or put the statements themselves "
                "there.",
            )
        self._skip_line()

    def _skip_line(self) -> str:
        rest = _REST_OF_LINE.match(self._text, self._position)
        self._position = rest.end() if rest else len(self._text)
        return rest[0] if rest else ""

    def _ended_statement(self, end: int) -> Iterator[Part]:
        """The statement that ends at `end`, if there is one, with the rows after it."""
        statement = self._statement
        self._check_statement(end)
        pairs = zip(self._words, self._words[1:], strict=False)
        takes_rows = self._words[:1] == ["COPY"] and ("FROM", "STDIN") in pairs
        self._begin_statement()
        if statement is None:
            return
        text = self._text[statement:end]
        if not takes_rows:
            yield Part(text, self._line(statement))
            return
        if self._skip_line().strip():
            raise self._refused(statement, "the rows of COPY begin in the line after it")
        rows = self._position
        found = _END_OF_ROWS.search(self._text, rows)
        if found is None:
            raise self._refused(statement, r"the rows of COPY do not end: there is no line \.")
        yield Part(text, self._line(statement), self._text[rows : found.start()])
        self._position = found.end()
        self._skip_line()

    def _check_statement(self, end: int) -> None:
        """Refuse what acts beyond the transaction, or beyond the database."""
        if self._statement is None:
            return
        begins = tuple(self._words[:3])
        text = self._text[self._statement : end]
        shown = " ".join(self._words[:2])
        if begins[:1] in _LEAVES_TRANSACTION or begins[:2] in _LEAVES_TRANSACTION:
            raise self._refused(
                self._statement,
                f"{shown}: the file runs in one transaction, together with the record of its "
                "revision",
                "Leave the statement out.",
            )
        if begins[:2] in _ON_SERVER and begins not in _OF_DATABASE:
            raise self._refused(
                self._statement,
                f"{shown}: it acts on the whole server, and not on the one database",
                "Leave the statement out. A dump has none when it is written without --create.",
            )
        if begins == ("CREATE", "SCHEMA", own_schema.SCHEMA.upper()):
            raise self._refused(
                self._statement,
                "the dump has the records of is-db-bootstrap itself",
                f"Write it with: pg_dump --exclude-schema={own_schema.SCHEMA}.",
            )
        if _READ_OTHERWISE.match(text):
            raise self._refused(
                self._statement,
                f"{' '.join(text.rstrip(';').split())}: the file is read as UTF-8 with standard "
                "strings",
                "Write it with: pg_dump --encoding=UTF8.",
            )

    def _line(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1

    def _refused(self, position: int, what: str, hint: str = "") -> ConfigurationError:
        return ConfigurationError(
            f"{self._path}, line {self._line(position)}: {what}. Nothing was run.", hint=hint
        )

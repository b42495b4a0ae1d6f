"""Cypher as text: where a statement ends, what it begins with, and its checksums.

The two checksums are those of neo4j-migrations.

PyPI has no kept Cypher lexer: that of Pygments knows no block comments. Telling strings, names and
comments apart is all that is needed here, since the server parses the rest.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:(?P<word>\d+\.\d+|\w+)
    |(?P<comment>//[^\r\n]*|/\*.*?(?:\*/|(?P<open_comment>\Z)))
    |(?P<string>'(?:\\.|[^'\\])*(?:'|(?P<open_single>\Z))|"(?:\\.|[^"\\])*(?:"|(?P<open_double>\Z)))
    |(?P<name>`(?:``|[^`])*(?:`|(?P<open_name>\Z)))
    |(?P<end>;)
    |(?P<mark>\S))""",
    re.VERBOSE | re.DOTALL,
)
_OPEN = {"open_comment": "/*", "open_single": "'", "open_double": '"', "open_name": "`"}
#: The kinds of tokens that always have an end.
_PLAIN_KINDS = {"word", "mark"}
#: What may stand before a statement and changes nothing of what it is: the version of Cypher and
#: options of the planner.
_PREPARSER = re.compile(
    r"CYPHER(?: \d+(?:\.\d+)?(?= [A-Z]))?(?: \w+ = \w+)* (?=[A-Z])", re.IGNORECASE
)
_SCHEMA = re.compile(
    r"(?:CREATE|DROP)(?: OR REPLACE)?"
    r"(?: (?:RANGE|TEXT|POINT|FULLTEXT|VECTOR|LOOKUP|BTREE))? (?:INDEX|CONSTRAINT)\b",
    re.IGNORECASE,
)
_BATCHED = re.compile(
    r"\} IN (?:\S+ )?(?:CONCURRENT )?TRANSACTIONS\b|\bUSING PERIODIC COMMIT\b", re.IGNORECASE
)

_CHANGES = re.compile(r"\b(?:CREATE|MERGE|SET|DELETE|REMOVE|CALL|FOREACH|INSERT)\b", re.IGNORECASE)

#: What neo4j-migrations splits at: a semicolon and a line end, wherever they stand.
_THEIR_END = re.compile(r";(?:\r\n|\n|\r)")
_THEIR_LINE_END = re.compile(r"\r\n|\n|\r")
_THEIR_BLANKS = "".join(map(chr, range(0x21)))
_THEIR_USE = re.compile(r"(?im)^[ \t]*(:use[ \t]+[^\s;]+)[ \t]*;?[ \t]*(?:\r\n|\n|\r|\Z)")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as it is sent, and its tokens without comments, one space between two.

    The tokens do not have what stands before it for the planner, as `CYPHER 25`. `line` counts from
    1 and is that of its first token. `comments` are the line comments before its first token,
    without their slashes.
    """

    text: str
    tokens: str
    line: int
    comments: tuple[str, ...] = ()

    @property
    def is_schema(self) -> bool:
        """Whether it creates or drops a constraint or an index.

        No other statement may share a transaction with it.
        """
        return _SCHEMA.match(self.tokens) is not None

    @property
    def is_batched(self) -> bool:
        """Whether it commits by itself: `CALL { … } IN TRANSACTIONS`."""
        return _BATCHED.search(self.tokens) is not None

    @property
    def is_data(self) -> bool:
        """Whether it may share a transaction with other statements and with a record."""
        return not (self.is_schema or self.is_batched)

    @property
    def may_change_data(self) -> bool:
        """Whether it may change nodes or relationships, as far as its words tell."""
        return not self.is_schema and _CHANGES.search(self.tokens) is not None


@dataclass(frozen=True, slots=True)
class Token:
    """A part of a statement. `kind` is word, number, string, name or mark. `line` is from 1."""

    kind: str
    text: str
    line: int

    @property
    def upper(self) -> str:
        """The text in capitals, as keywords are compared."""
        return self.text.upper()

    @property
    def shape(self) -> str:
        """The text without what a person chooses: `~` for a name in backticks, `""` for a text."""
        return {"name": "~", "string": '""'}.get(self.kind, self.text)


def token_lists(text: str) -> Iterator[list[Token]]:
    """The tokens of each statement without comments; `ValueError` as for `split`."""
    found: list[Token] = []
    line, counted = 1, 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind not in _PLAIN_KINDS:
            _refuse_open(text, match)
        begin = match.start(kind)
        line += text.count("\n", counted, begin)
        counted = begin
        if kind == "end":
            if found:
                yield found
            found = []
        elif kind != "comment" and match[kind] != "\ufeff":
            is_number = kind == "word" and match[kind][0].isdigit()
            found.append(Token("number" if is_number else kind, match[kind], line))
    if found:
        yield found


def split(text: str) -> Iterator[Statement]:
    """The statements of a file; `ValueError` for a string, name or comment without end."""
    return (found for found in _read(text) if found.tokens)


def split_with_comments(text: str) -> tuple[list[Statement], list[str]]:
    """The statements, and the line comments before each of them and behind the last one.

    Comments come without their slashes. `ValueError` as for `split`.
    """
    found = list(_read(text))
    comments = [comment for each in found for comment in each.comments]
    return [each for each in found if each.tokens], comments


def _read(text: str) -> Iterator[Statement]:
    """The statements, and what is behind the last one as a statement without tokens."""
    begin = counted = 0
    line = first_line = 1
    tokens: list[str] = []
    comments: list[str] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        part = match[kind]
        if kind == "end":
            if tokens:
                yield _statement(text[begin : match.start(kind)], tokens, first_line, comments)
                tokens, comments = [], []
            begin = match.end()
            continue
        if kind not in _PLAIN_KINDS:
            _refuse_open(text, match)
        if kind == "comment":
            if part.startswith("//") and not tokens:
                comments.append(part[2:].strip())
        elif part != "\ufeff":
            if not tokens:
                # Lines are counted on from the statement before, so that each is counted once.
                line += text.count("\n", counted, match.start(kind))
                counted, first_line = match.start(kind), line
            tokens.append(part)
    yield _statement(text[begin:], tokens, first_line, comments)


def _refuse_open(text: str, match: re.Match[str]) -> None:
    for group, sign in _OPEN.items():
        if match[group] is not None:
            # The group is the end of the text. What has no end begins behind the blanks.
            begin = match.end() - len(match[0].lstrip())
            line = text.count("\n", 0, begin) + 1
            raise ValueError(f"line {line}: what begins with {sign} has no end")


def _statement(text: str, tokens: list[str], line: int, comments: list[str]) -> Statement:
    words = " ".join(tokens)
    if words[:7].upper() == "CYPHER ":
        words = _PREPARSER.sub("", words, count=1)
    return Statement(text.strip("\ufeff \t\r\n"), words, line, tuple(comments))


def their_parts(text: str) -> list[str]:
    """The statements as neo4j-migrations 2.19 sees them."""
    parts = []
    for raw in _THEIR_END.split(text):
        part = raw.strip(_THEIR_BLANKS).removesuffix(";").strip(_THEIR_BLANKS)
        use = _THEIR_USE.search(part)
        if use:
            parts.append(use[1])
            part = (part[: use.start()] + part[use.end() :]).strip(_THEIR_BLANKS)
        if part:
            parts.append(part)
    return parts


def checksum(text: str) -> str:
    """CRC-32 over the statements as neo4j-migrations splits them, unsigned decimal.

    Line ends and comments count.
    """
    return _crc(their_parts(text))


def checksum_without(text: str, is_left_out: Callable[[str], bool]) -> str:
    """The same without leading line comments for which `is_left_out` is true.

    neo4j-migrations takes this one too, so that preconditions may be added to a file that was
    applied. A comment is given without its slashes.
    """
    return _crc(_without_comments(part, is_left_out) for part in their_parts(text))


def their_comments(text: str) -> Iterator[str]:
    """The line comments in which neo4j-migrations looks for preconditions, without slashes.

    These are the first lines of each of its parts, up to one that is no line comment.
    """
    for part in their_parts(text):
        yield from map(str.strip, _leading_line_comments(part))


def _without_comments(part: str, is_left_out: Callable[[str], bool]) -> str:
    left_out = [
        re.escape(f"//{comment}")
        for comment in _leading_line_comments(part)
        if is_left_out(comment.strip())
    ]
    if not left_out:
        return part
    return re.sub(rf"(?:{'|'.join(left_out)})(?:\r?\n|\r)", "", part)


def _leading_line_comments(part: str) -> Iterator[str]:
    for line in _THEIR_LINE_END.split(part):
        trimmed = line.strip(_THEIR_BLANKS)
        if not trimmed.startswith("//"):
            return
        yield trimmed[2:]


def _crc(parts: Iterable[str]) -> str:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part.encode(), crc)
    return str(crc)


def flyway_checksum(text: str) -> str:
    """CRC-32 over the lines without their ends, signed.

    `--use-flyway-compatible-checksums` stores this one.
    """
    crc = 0
    for line in re.split(r"\r\n|\n|\r", text):
        crc = zlib.crc32(line.encode(), crc)
    return str(crc - (1 << 32) if crc >= 1 << 31 else crc)


def quoted(name: str) -> str:
    """A name as Cypher takes any name."""
    return "`" + name.replace("`", "``") + "`"

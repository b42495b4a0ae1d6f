"""Cypher as text: where a statement ends, what it begins with, and its checksums.

The two checksums are those of neo4j-migrations.

PyPI has no kept Cypher lexer: that of Pygments knows no block comments. Telling strings, names and
comments apart is all that is needed here, since the server parses the rest.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<comment>//[^\r\n]*|/\*.*?(?:\*/|(?P<open_comment>\Z)))
    |(?P<string>'(?:\\.|[^'\\])*(?:'|(?P<open_single>\Z))|"(?:\\.|[^"\\])*(?:"|(?P<open_double>\Z)))
    |(?P<name>`(?:``|[^`])*(?:`|(?P<open_name>\Z)))
    |(?P<end>;)
    |(?P<word>\d+\.\d+|\w+)
    |(?P<space>\s+)
    |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_OPEN = {"open_comment": "/*", "open_single": "'", "open_double": '"', "open_name": "`"}
_SCHEMA = re.compile(
    r"(?:CREATE|DROP)(?: OR REPLACE)?"
    r"(?: (?:RANGE|TEXT|POINT|FULLTEXT|VECTOR|LOOKUP|BTREE))? (?:INDEX|CONSTRAINT)\b",
    re.IGNORECASE,
)
_BATCHED = re.compile(
    r"\} IN (?:\S+ )?(?:CONCURRENT )?TRANSACTIONS\b|\bUSING PERIODIC COMMIT\b", re.IGNORECASE
)

#: What neo4j-migrations splits at: a semicolon and a line end, wherever they stand.
_THEIR_END = re.compile(r";(?:\r\n|\n|\r)")
_THEIR_BLANKS = "".join(map(chr, range(0x21)))
_THEIR_USE = re.compile(r"(?im)^[ \t]*(:use[ \t]+[^\s;]+)[ \t]*;?[ \t]*(?:\r\n|\n|\r|\Z)")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as it is sent, and its tokens without comments, one space between two.

    `line` counts from 1 and is that of its first token.
    """

    text: str
    tokens: str
    line: int

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


def split(text: str) -> Iterator[Statement]:
    """The statements of a file; `ValueError` for a string, name or comment without end."""
    begin, first = 0, 0
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        _refuse_open(text, match)
        kind = match.lastgroup
        if kind == "end":
            if tokens:
                yield _statement(text, begin, match.start(), tokens, first)
            begin, tokens = match.end(), []
        elif kind not in {"comment", "space"} and match[0] != "\ufeff":
            first = first if tokens else match.start()
            tokens.append(match[0])
    if tokens:
        yield _statement(text, begin, len(text), tokens, first)


def _refuse_open(text: str, match: re.Match[str]) -> None:
    for group, sign in _OPEN.items():
        if match[group] is not None:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(f"line {line}: what begins with {sign} has no end")


def _statement(text: str, begin: int, end: int, tokens: list[str], first: int) -> Statement:
    return Statement(
        text[begin:end].strip("\ufeff \t\r\n"), " ".join(tokens), text.count("\n", 0, first) + 1
    )


def leading_comments(text: str) -> Iterator[str]:
    """The line comments before the first statement, without their slashes."""
    for match in _TOKEN.finditer(text.lstrip("\ufeff")):
        if match.lastgroup not in {"comment", "space"} and match["comment"] is None:
            return
        if match[0].startswith("//"):
            yield match[0][2:].strip()


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
    crc = 0
    for part in their_parts(text):
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

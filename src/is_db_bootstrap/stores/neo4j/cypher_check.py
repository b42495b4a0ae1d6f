"""What is wrong with Cypher, as far as that can be said without a server.

No parser of PyPI knows the schema commands of Neo4j 5 and later (antlr4-cypher 0.1 and
libcypher-parser have openCypher 9). So each statement is held against what is sure: how it begins,
the grammar of constraints and indexes, brackets, and keywords that are misspelt where no name can
be. A false alarm is worse than a miss here, so what is not known is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from is_db_bootstrap.nearest import nearest
from is_db_bootstrap.stores.neo4j import cypher_text
from is_db_bootstrap.stores.neo4j.cypher_keywords import (
    CREATED,
    DROPPED,
    FIRST,
    FOLLOWED,
    KEYWORDS,
    OFTEN,
)
from is_db_bootstrap.stores.neo4j.cypher_text import Token

_OPENING = {"(": ")", "[": "]", "{": "}"}
_CLOSING = {closing: opening for opening, closing in _OPENING.items()}
#: A shorter word is too like others.
_SHORTEST = 4
#: The end of a sentence about a word that is like no keyword.
_NONE_MEANT = "."
_INDEX_KINDS = {"BTREE", "FULLTEXT", "LOOKUP", "POINT", "RANGE", "TEXT", "VECTOR"}
_OF_PLANNER = {"CYPHER", "EXPLAIN", "PROFILE", "DRYRUN", "USE"}

_NAME = r"(?:\$ )?(?:~|\w+) "
#: A name, and not the word behind it. `FOR FOR` has the name FOR.
_OWN_NAME = rf"(?!IF NOT |FOR (?!FOR |IF )|ON (?!FOR |ON |IF )){_NAME}"
_PATTERN = r"(?:\(\) |\[\] |- |< |> )+"
_PROPERTIES = rf"(?:\(\) |\[\] |(?:{_NAME}\. {_NAME}(?:, )?)+|\w+ \(\) )"
#: The parts of a constraint in their order: what stands there, what is expected, whether it must.
_CONSTRAINT = (
    (_OWN_NAME, "a name", False),
    (r"IF NOT EXISTS ", "IF NOT EXISTS", False),
    (r"(?:FOR|ON) ", "FOR", True),
    (_PATTERN, "a pattern such as (n:Label)", True),
    (r"(?:REQUIRE|ASSERT) ", "REQUIRE", True),
    (_PROPERTIES, "a property such as n.name", True),
)
_CONSTRAINT_END = (
    (r"IS ", "IS", True),
    (
        r"(?:(?:NODE |RELATIONSHIP |REL )?(?:UNIQUE|KEY) |NOT NULL |(?:: :|:: |TYPED) )",
        "UNIQUE, KEY, NOT NULL or :: with a type",
        True,
    ),
)
_INDEX = (
    (_OWN_NAME, "a name", False),
    (r"IF NOT EXISTS ", "IF NOT EXISTS", False),
    (r"FOR ", "FOR", True),
    (_PATTERN, "a pattern such as (n:Label)", True),
    (r"ON ", "ON", True),
    (r"EACH ", "EACH", False),
    (_PROPERTIES, "properties such as (n.name)", True),
)
#: `CREATE INDEX ON :Label(property)`, which Neo4j 4 took.
_OLD_INDEX = re.compile(rf"ON : {_NAME}\(\) ")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the line of the text on which it is, from 1."""

    line: int
    text: str


def problems(text: str) -> Iterator[Problem]:
    """What is wrong with the statements of a Cypher file.

    A string, name or comment without an end is one problem, behind which nothing is looked at.
    """
    try:
        statements = list(cypher_text.token_lists(text))
    except ValueError as exc:
        line, _, words = str(exc).partition(": ")
        yield Problem(int(line.removeprefix("line ")), f"{words}.")
        return
    for tokens in statements:
        yield from _of_statement(tokens)


def _of_statement(tokens: Sequence[Token]) -> Iterator[Problem]:
    if tokens[0].text == ":":
        return  # a command of Neo4j's shells, which loading the file refuses
    unbalanced = _unbalanced(tokens)
    if unbalanced:
        yield unbalanced
        return
    outside = _outside_brackets(tokens)
    found = _beginning(outside) or _schema_command(outside) or _missing_semicolon(outside)
    found = found or _misspelt(tokens)
    if found:
        yield found


def _unbalanced(tokens: Sequence[Token]) -> Problem | None:
    opened: list[Token] = []
    for token in tokens:
        if token.kind != "mark":
            continue
        if token.text in _OPENING:
            opened.append(token)
        elif token.text in _CLOSING:
            if not opened or opened[-1].text != _CLOSING[token.text]:
                what = f", while {opened[-1].text} is open" if opened else ""
                return Problem(token.line, f"{token.text} closes nothing{what}.")
            opened.pop()
    if opened:
        return Problem(opened[-1].line, f"{opened[-1].text} is not closed.")
    return None


def _outside_brackets(tokens: Sequence[Token]) -> list[Token]:
    """The tokens outside of brackets. Each pair of brackets is one token, such as `()`."""
    found: list[Token] = []
    depth = 0
    for token in tokens:
        if token.kind == "mark" and token.text in _OPENING:
            if depth == 0:
                found.append(Token("mark", token.text + _OPENING[token.text], token.line))
            depth += 1
        elif token.kind == "mark" and token.text in _CLOSING:
            depth -= 1
        elif depth == 0:
            found.append(token)
    return found


def _beginning(outside: Sequence[Token]) -> Problem | None:
    first = outside[0]
    if first.kind != "word":
        return None
    if first.upper not in FIRST:
        meant = _meant(first, FIRST)
        is_passed_over = first.upper in KEYWORDS and meant == _NONE_MEANT
        text = f"No statement begins with `{first.text}`{meant}"
        return None if is_passed_over else Problem(first.line, text)
    allowed = {"CREATE": CREATED, "DROP": DROPPED}.get(first.upper)
    second = outside[1] if len(outside) > 1 else None
    if allowed is None or second is None or second.kind != "word" or second.upper in allowed:
        return None
    third = outside[2].text if outside[2:] else ""
    is_pattern = first.upper == "CREATE" and third in {"=", "()"}
    meant = _meant(second, allowed)
    if is_pattern or (second.upper in KEYWORDS and meant == _NONE_MEANT):
        return None
    return Problem(second.line, f"`{first.text} {second.text}` is no command{meant}")


def _schema_command(outside: Sequence[Token]) -> Problem | None:
    place = _place_of_kind(outside)
    if place is None:
        return None
    kind = outside[place].upper
    rest = outside[place:]
    words = "".join(f"{token.shape} " for token in rest[1:])
    if outside[0].upper == "DROP":
        return _dropped(kind, rest, words)
    if kind == "INDEX":
        parts: Sequence[tuple[str, str, bool]] = () if _OLD_INDEX.match(words) else _INDEX
    else:
        is_old = re.search(r"\bASSERT EXISTS \(\) |\bASSERT exists \(\) ", words, re.IGNORECASE)
        parts = _CONSTRAINT if is_old else (*_CONSTRAINT, *_CONSTRAINT_END)
    return _wrong_part(parts, rest, words, f"CREATE {kind}")


def _place_of_kind(outside: Sequence[Token]) -> int | None:
    """Where CONSTRAINT or INDEX is in a command that begins with CREATE or DROP."""
    if outside[0].upper not in {"CREATE", "DROP"}:
        return None
    for place, token in enumerate(outside[1:4], 1):
        if token.upper in {"CONSTRAINT", "INDEX"} and token.kind == "word":
            return place
        if token.upper not in _INDEX_KINDS | {"OR", "REPLACE"}:
            return None
    return None


def _dropped(kind: str, rest: Sequence[Token], words: str) -> Problem | None:
    if words.startswith("ON "):  # as Neo4j 4 took it
        return None
    parts = ((_NAME, "a name", True), (r"IF EXISTS ", "IF EXISTS", False))
    return _wrong_part(parts, rest, words, f"DROP {kind}")


def _wrong_part(
    parts: Sequence[tuple[str, str, bool]], rest: Sequence[Token], words: str, command: str
) -> Problem | None:
    """The first part of a command that is not as Cypher has it. `rest` begins with its kind."""
    place = 0
    for pattern, expected, is_needed in parts:
        found = re.compile(pattern, re.IGNORECASE).match(words, place)
        if found:
            place = found.end()
        elif is_needed:
            return _unexpected(rest, words[:place].count(" ") + 1, expected, command)
    left = rest[words[:place].count(" ") + 1 :]
    if parts and left and left[0].kind == "word" and left[0].upper not in KEYWORDS:
        meant = _meant(left[0], {"OPTIONS", "EXISTS", "NULL", "KEY", "UNIQUE"})
        if meant != _NONE_MEANT:
            return Problem(left[0].line, f"{command} goes on with `{left[0].text}`{meant}")
    return None


def _unexpected(rest: Sequence[Token], place: int, expected: str, command: str) -> Problem:
    if place >= len(rest):
        return Problem(rest[-1].line, f"{command} ends where {expected} is expected.")
    token = rest[place]
    meant = _meant(token, set(re.findall(r"[A-Z]{2,}", expected)) or OFTEN)
    if meant == _NONE_MEANT:
        meant = _meant(token, OFTEN)
    return Problem(token.line, f"{command} has `{token.text}` where {expected} is expected{meant}")


def _missing_semicolon(outside: Sequence[Token]) -> Problem | None:
    """A schema command that begins inside another statement."""
    if outside[0].upper in _OF_PLANNER:
        return None
    for place in range(1, len(outside) - 1):
        token = outside[place]
        if token.kind != "word" or token.upper not in {"CREATE", "DROP"}:
            continue
        if outside[place - 1].text in {".", ":", "ON"}:
            continue
        kind = _place_of_kind(outside[place:])
        has_form = kind is not None and any(t.upper in {"FOR", "EXISTS"} for t in outside[place:])
        if has_form:
            what = f"{token.text} {outside[place + (kind or 0)].text}"
            return Problem(token.line, f"`{what}` begins inside a statement: a ; is missing.")
    return None


def _misspelt(tokens: Sequence[Token]) -> Problem | None:
    """A word that is no keyword, where only a keyword can be."""
    earlier = ""
    for before, token in pairwise(tokens):
        meant = _NONE_MEANT
        if token.kind == "word" and token.text.isalpha() and token.upper not in KEYWORDS:
            is_name = earlier in {".", ":", "$", "AS"}
            expected = FOLLOWED.get(before.upper, frozenset()) if not is_name else frozenset()
            if _is_behind_value(before):
                expected = expected or OFTEN
            meant = _meant(token, expected)
        if meant != _NONE_MEANT:
            return Problem(token.line, f"`{token.text}` is no keyword{meant}")
        earlier = before.upper
    return None


def _is_behind_value(before: Token) -> bool:
    """Whether no name can follow: behind a bracket, a text, a number or another name."""
    is_value = before.text in _CLOSING or before.kind in {"string", "number"}
    return is_value or (before.kind == "word" and before.upper not in KEYWORDS)


def _meant(token: Token, keywords: Collection[str]) -> str:
    """The end of a sentence that asks whether a keyword was meant. A full stop when none is."""
    if len(token.text) < _SHORTEST or token.kind != "word":
        return _NONE_MEANT
    near = nearest(token.upper, keywords)
    return f": did you mean {near}?" if near and near != token.upper else _NONE_MEANT

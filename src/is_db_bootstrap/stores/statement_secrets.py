"""Secrets in statements that are shown to a person: passwords in literals and in addresses."""

from __future__ import annotations

import re

from is_db_bootstrap.settings.secrets import HIDDEN

#: Words behind which a literal is a secret. They may end a longer one, such as `access_token`.
_NAME = r"\b(?:\w*_)?(?:password|passwd|secret|token|api_?key)\b"
#: What of a statement is read as a whole: a comment, or a literal. `\'` is a quote in Cypher, and
#: in SQL it is the end of `ESCAPE '\'`.
_PART = re.compile(
    r"""(?P<comment>(?:--|//)[^\n]*|/\*.*?\*/)
    |'\\'(?=[\s;,)]|\Z)
    |'(?P<body>(?:''|\\.|[^'\\])*)'
    |"(?:\\.|[^"\\])*"
    |(?P<tag>\$\w*\$)(?P<block>.*?)(?P=tag)""",
    re.VERBOSE | re.DOTALL,
)
#: What stands before a secret, as in `ALTER ROLE a PASSWORD 'b'`, `OPTIONS (password 'b')`, `SET
#: a.token TO 'b'` and `'password' => 'b'`.
_BEFORE = re.compile(
    rf"""(?:{_NAME}["`]?\s*(?:=>|:=|=|:)?|{_NAME}'\s*(?:=>|:=|=|:))\s*[EeUN]?&?\Z""",
    re.IGNORECASE | re.VERBOSE,
)
#: The same before a literal in single quotes only, because a name may stand in double ones.
_BEFORE_TEXT = re.compile(rf"{_NAME}\s+TO\s+[EeUN]?&?\Z", re.IGNORECASE)
#: Characters before a literal in which its name is looked for.
_NEAR = 100
#: In a literal: JSON, and SQL whose quotes are doubled.
_WITHIN = re.compile(
    rf"""(?P<word>{_NAME}["']*\s*(?:=>|:=|=|:)?\s*)(?:"(?:\\.|[^"\\])*"|''[^'\s,]+'')""",
    re.IGNORECASE | re.VERBOSE,
)
#: As libpq has it, as in `CONNECTION 'host=a password=b'`.
_WORD = re.compile(r"(\bpassword\s*=\s*)[^\s'\"$]+", re.IGNORECASE)
#: As in `postgresql://user:password@host`.
_ADDRESS = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.\-]*://[^\s:/@'\"]*):[^\s'\"]+@")


def without_secrets(statement: str) -> str:
    """A statement in which the passwords that its words tell stand as `***`.

    A secret that no word tells of, such as one in a row of data, is not recognised.
    """
    shown = _PART.sub(_shown_part, statement)
    shown = _WORD.sub(rf"\1{HIDDEN}", shown)
    return _ADDRESS.sub(rf"\1:{HIDDEN}@", shown)


def _shown_part(found: re.Match[str]) -> str:
    if found["comment"] is not None:
        return found[0]
    before = found.string[max(0, found.start() - _NEAR) : found.start()]
    is_text = not found[0].startswith('"')
    if _BEFORE.search(before) or (is_text and _BEFORE_TEXT.search(before)):
        return f"'{HIDDEN}'"
    if found["block"] is not None:
        return f"{found['tag']}{without_secrets(found['block'])}{found['tag']}"
    if found["body"] is not None:
        body = _WITHIN.sub(_hidden_within, found["body"])
        return f"'{body}'"
    return found[0]


def _hidden_within(found: re.Match[str]) -> str:
    quote = '"' if found[0].endswith('"') else "''"
    return f"{found['word']}{quote}{HIDDEN}{quote}"

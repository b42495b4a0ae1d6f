"""Secrets in statements that are shown to a person: passwords in literals and in addresses."""

from __future__ import annotations

import re

from is_db_bootstrap.settings.secrets import HIDDEN

#: The literal behind the word, as in `ALTER ROLE a PASSWORD 'b'`, `OPTIONS (password 'b')`, `SET
#: PASSWORD 'b'` and `"password": "b"`.
_LITERAL = re.compile(
    r"""(?P<word>\b(?:password|passwd|secret|token|api_?key)\b["'`]?\s*(?:=>|:=|=|:)?\s*[EeUN]?&?)
    (?:'(?:''|\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?P<tag>\$\w*\$).*?(?P=tag))""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
#: As libpq has it, as in `CONNECTION 'host=a password=b'`.
_WORD = re.compile(r"(\bpassword\s*=\s*)[^\s'\"$]+", re.IGNORECASE)
#: As in `postgresql://user:password@host`.
_ADDRESS = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.\-]*://[^\s:/@'\"]*):[^\s'\"]+@")


def without_secrets(statement: str) -> str:
    """A statement in which the passwords that its words tell stand as `***`.

    A secret that no word tells of, such as one in a row of data, is not recognised.
    """
    shown = _LITERAL.sub(rf"\g<word>'{HIDDEN}'", statement)
    shown = _WORD.sub(rf"\1{HIDDEN}", shown)
    return _ADDRESS.sub(rf"\1:{HIDDEN}@", shown)

r"""How text that comes from elsewhere, and how numbers of things, are written.

A store may hold any character in the name of a key, in a comment or in what a session calls itself.
A terminal would obey some of these characters. A reader of a log would take a line end for the end
of a message. So such characters are written as Python writes them, such as `\x1b`, wherever a line
is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable

#: Characters that are obeyed or hidden instead of shown: controls (C0, C1, DEL), marks that change
#: the direction of what follows, characters without width, other line ends, and lone surrogates,
#: which no encoding has.
_UNSEEN_RANGES = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff"
)
_UNSEEN = re.compile(f"[{_UNSEEN_RANGES}]")
#: The same, but for the end of a line.
_UNSEEN_IN_LINE = re.compile(f"(?!\n)[{_UNSEEN_RANGES}]")
#: As many characters of one line as anybody reads. The rest is counted.
LONGEST_LINE = 10_000
#: As many characters of a name that a user of a store has chosen.
LONGEST_NAME = 300

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_BYTE, _TWO_BYTES = 0xFF, 0xFFFF


def visible(text: str, limit: int = LONGEST_LINE) -> str:
    """`text` as one line, in which no character does anything but show itself.

    A text of more than `limit` characters is cut, and the number of the others is told.
    """
    return _UNSEEN.sub(_escaped, cut(text, limit))


def visible_lines(text: str) -> str:
    """The same for a text of several lines, such as a statement. Tabs become blanks."""
    return _UNSEEN_IN_LINE.sub(_escaped, text.expandtabs())


def visible_json(text: str) -> str:
    """A JSON document that has such characters as JSON escapes, so it means the same.

    JSON itself escapes those below a blank only.
    """
    return _UNSEEN_IN_LINE.sub(_json_escaped, text)


def cut(text: str, limit: int) -> str:
    """The first `limit` characters of a text, and how many more there are."""
    more = len(text) - limit
    return text if more <= 0 else f"{text[:limit]}… ({more:,} more characters)"


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things, such as `1 key` or `2 keys`.

    `several` is the noun for any number but one, unless it is `one` with an s.
    """
    return f"{number} {noun(number, one, several)}"


def noun(number: int, one: str, several: str = "") -> str:
    """The noun alone, as `counted` chooses it."""
    return one if number == 1 else several or f"{one}s"


def singular(several: str) -> str:
    """The noun for one: `index` of `indexes`, `property` of `properties`, `key` of `keys`."""
    if several.endswith("ies"):
        return f"{several.removesuffix('ies')}y"
    return several.removesuffix("es" if several.endswith("xes") else "s")


def has_unseen(text: str) -> bool:
    """Whether a character of `text` would be escaped. A statement then needs another spelling."""
    return _UNSEEN.search(text) is not None


def spelled(text: str, spell: Callable[[str], str]) -> str:
    """`text` with each such character as `spell` writes it, such as an escape of a language."""
    return _UNSEEN.sub(lambda found: spell(found[0]), text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code <= _BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _TWO_BYTES else f"\\U{code:08x}"


def _json_escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    numbers = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(f"\\u{number:04x}" for number in numbers)

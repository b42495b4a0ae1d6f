"""The commands that give a key what its pattern declares, as `redis-cli` reads them.

`redis-cli` without arguments reads commands from its input. It takes quotes and escapes there, so
that any name can be written.
"""

from __future__ import annotations

import string

_PLAIN = frozenset((string.ascii_letters + string.digits + ":_-.{}/+@").encode())
_DEL = 0x7F


def written_key(name: bytes) -> str:
    """The name of a key for redis-cli: as it is, or in quotes with escapes."""
    if name and _PLAIN.issuperset(name):
        return name.decode()
    return '"' + "".join(map(_written_byte, name)) + '"'


def _written_byte(byte: int) -> str:
    character = chr(byte)
    if character in '"\\':
        return f"\\{character}"
    return character if ord(" ") <= byte < _DEL else f"\\x{byte:02x}"


def expiry(name: bytes, seconds: int) -> str:
    """The command that gives a key a lifetime."""
    return f"EXPIRE {written_key(name)} {seconds}"


def persistence(name: bytes) -> str:
    """The command that takes the lifetime of a key away."""
    return f"PERSIST {written_key(name)}"

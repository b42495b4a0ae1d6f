"""How the server writes an expression again after a dump and a restore.

`varchar IN ('a', 'b')` is kept as an array of varchar that is cast as a whole:
`(ARRAY['a'::character varying, …])::text[]`. When the server reads that text, as `pg_restore` has
it do, it casts each element instead: `ARRAY[('a'::character varying)::text, …]`. The two mean the
same. Of 40 expressions that were dumped and restored on PostgreSQL 15, nothing else came out
otherwise, and a second dump changed nothing more (`test_a_restored_dump_is_no_drift`).
"""

from __future__ import annotations

import re

_TEXT = r"'(?:[^']|'')*'::character varying"
#: An element that is cast. Where the server is asked for pretty text, the brackets are left out.
_CAST_ELEMENT = re.compile(rf"(?:(?<=\[)|(?<=, ))(?:\(({_TEXT})\)|({_TEXT}))::text(?=, |\])")
#: An array that is cast.
_ELEMENTS = rf"{_TEXT}(?:, {_TEXT})*"
_CAST_ARRAY = re.compile(rf"\(ARRAY\[({_ELEMENTS})\]\)::text\[\]|ARRAY\[({_ELEMENTS})\]::text\[\]")

#: An index whose build was cut off.
INVALID = "INVALID"
#: A constraint whose rows were not checked.
NOT_VALID = "NOT VALID"
UNFINISHED = (INVALID, NOT_VALID)


def same_after_restore(text: str) -> str:
    """A definition in a form that is the same before a dump and after its restore.

    It is for comparing only: the casts are left out of it.
    """
    if "::character varying" not in text:
        return text
    plain_elements = _CAST_ELEMENT.sub(lambda found: found[1] or found[2], text)
    return _CAST_ARRAY.sub(lambda found: f"ARRAY[{found[1] or found[2]}]", plain_elements)


def is_same(expected: str | None, actual: str | None) -> bool:
    """Whether two definitions are the same, also when one of them has been dumped and restored."""
    if expected == actual:
        return True
    if expected is None or actual is None:
        return False
    return same_after_restore(expected) == same_after_restore(actual)


def is_unfinished(expected: str | None, actual: str | None) -> bool:
    """Whether an object is as declared, and the server has not checked or built all of it yet."""
    if expected is None:
        return False
    return any(is_same(f"{expected} {state}", actual) for state in UNFINISHED)

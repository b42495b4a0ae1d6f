"""Sentences whose end is somebody else's text, such as the message of a client's error."""

from __future__ import annotations

#: The marks that end a sentence.
_MARKS = (".", "!", "?", "…")
#: What somebody's text may end with, and a sentence of ours may not.
_LOOSE_ENDS = ":;, \t\r\n"
_DOTS = "..."


def end_sentence(text: str) -> str:
    """`text` with one mark at its end. A text that has none gets a full stop.

    Empty text stays empty.
    """
    bare = text.rstrip(_LOOSE_ENDS)
    if not bare or bare.endswith(_MARKS):
        return bare
    return f"{bare}."


def drop_second_stop(text: str) -> str:
    """`text` without a full stop behind another mark, as in "refused.." or "is it up?.".

    Three dots stay, because they say that something was left out.
    """
    if not text.endswith("."):
        return text
    before = text[:-1].rstrip(_LOOSE_ENDS)
    if not before:
        return text
    if before.endswith(_DOTS):
        return before
    if text.endswith(_DOTS):
        return text
    return before if before.endswith(_MARKS) else f"{before}."


def encodable(text: str) -> str:
    r"""`text` with each byte of a path that is no UTF-8 as `\udcXX`.

    Python keeps such a byte as half a character, which no encoding takes. In JSON, `\udcXX` means
    the same half character.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

"""Passwords that no program expects, and a search for what became of them."""

from __future__ import annotations

import base64
import random
import string

from is_db_bootstrap.settings.secrets import forms

#: Characters of the random words at three places of each password. Nothing else has them by chance.
MARKER = 12
#: As many characters of a password in one piece are a leak, whichever they are.
PIECE = 10
#: Every printable character that means something somewhere, and letters of other alphabets.
SPECIAL = string.punctuation + "  " + "äßéЖ中文😀"


def passwords(count, seed):
    """Passwords that together have every printable ASCII character; the same ones for one seed."""
    rng = random.Random(seed)
    letters = string.ascii_letters + string.digits
    special = list(SPECIAL)
    rng.shuffle(special)
    # Some always: those that take addresses, shells, JSON and TOML apart.
    always = ["@", ":", "/", "?", "#", "%", "\\", '"', "'", " ", "[", "]", "&", "="]
    for number in range(count):
        chunk = special[number::count] + always
        rng.shuffle(chunk)
        middle = len(chunk) // 2
        words = ["M" + "".join(rng.choices(letters, k=MARKER - 1)) for _ in range(3)]
        yield f"{words[0]}{''.join(chunk[:middle])}{words[1]}{''.join(chunk[middle:])}{words[2]}"


class Search:
    """Looks for passwords in texts, and counts what it has seen."""

    def __init__(self):
        self.texts = self.characters = 0

    def leaks(self, text, secret):
        """The pieces of `secret` that are in `text`, in any form."""
        self.texts += 1
        self.characters += len(text)
        pieces = {
            form[at : at + PIECE]
            for form in {*forms(secret), base64.b64encode(secret.encode()).decode()}
            for at in range(len(form) - PIECE + 1)
        }
        return sorted(piece for piece in pieces if piece in text)

"""How sentences end in what a command prints for a person."""

from __future__ import annotations

import re

#: Two full stops behind a word, or a full stop behind another mark. Three dots are no mistake.
_TWO_STOPS = re.compile(r"""[\w)'"`]\.\.(?=\s|$)|[?!]\.(?=\s|$)""")


def sentences_with_two_stops(text):
    """The lines of `text` in which a sentence ends twice."""
    return [line for line in text.splitlines() if _TWO_STOPS.search(line)]

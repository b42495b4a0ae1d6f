"""What a Cypher file asks of its server and its database, in comments.

The forms are those of neo4j-migrations (`Precondition.java`). A comment that only begins like one,
such as `// assume nothing`, is a comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from is_db_bootstrap.stores.neo4j.version import number

_LIKE_ONE = re.compile(r"(assume|assert)(?: in (?:schema|target))? (?:that|q').*", re.IGNORECASE)
_VERSION = r"\d+(?:\.\d+)*"
_PRECONDITION = re.compile(
    r"(?P<word>assume|assert)(?:"
    r" that edition is *(?P<edition>enterprise|community)"
    rf"| that version is (?P<compare>ge|lt) (?P<than>{_VERSION}).*"
    rf"| that version is *(?P<versions>{_VERSION}(?: ?(?:,|or) ?{_VERSION})*)"
    r"|(?: in (?:schema|target))? q'(?P<query>.+)"
    r")",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a file asks of the server, or of the database.

    Unmet: an `assume` skips the file, an `assert` ends the run. `query` is a question to the
    database, which answers true or false. It is empty for any other precondition.
    """

    text: str
    is_assumption: bool
    edition: str = ""
    versions: tuple[str, ...] = ()
    at_least: str = ""
    below: str = ""
    query: str = ""

    @classmethod
    def parse(cls, comment: str) -> Precondition | None:
        """From a line comment; None for any other comment.

        Raises `ValueError` for one that is meant as a precondition and is none that we know.
        """
        if not _LIKE_ONE.match(comment):
            return None
        found = _PRECONDITION.fullmatch(comment)
        if found is None or (found["query"] is not None and not found["query"].strip()):
            raise ValueError(f"the precondition {comment!r} is not understood")
        compare = (found["compare"] or "").lower()
        return cls(
            text=comment,
            is_assumption=found["word"].lower() == "assume",
            edition=(found["edition"] or "").lower(),
            versions=tuple(re.findall(_VERSION, found["versions"] or "")),
            at_least=found["than"] if compare == "ge" else "",
            below=found["than"] if compare == "lt" else "",
            query=(found["query"] or "").strip(),
        )

    def holds(self, version: str, edition: str) -> bool:
        """Whether a server of that version and edition meets it.

        Versions are compared as numbers, part by part. The answer to a query is not known here:
        it counts as met.
        """
        if self.query:
            return True
        if self.edition:
            return self.edition == edition
        if self.versions:
            return any(f"{version}.".startswith(f"{v}.") for v in self.versions)
        if self.at_least:
            return number(version) >= number(self.at_least)
        return number(version) < number(self.below)

    def is_read_differently(self, version: str) -> bool:
        """Whether neo4j-migrations says that such a server meets it, and we say that it does not.

        It compares versions as text, so that 5.2 stands for 5.26 too.
        """
        meets_theirs = any(version.startswith(v) for v in self.versions)
        return meets_theirs and not self.holds(version, "")

"""The versions in the names of Cypher files, and of servers."""

from __future__ import annotations

import re

#: The largest number of a version: Neo4j's integers have 64 bits.
LARGEST_NUMBER = 2**63 - 1


def number(version: str) -> tuple[int, ...]:
    """The parts of a version as numbers: the order of files."""
    return tuple(int(part) for part in re.findall(r"\d+", version))

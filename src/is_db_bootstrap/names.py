"""The names of the stores, and the name that somebody may have meant.

The names stand apart from `results`, because `--help` needs the names and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

StoreName = Literal["postgres", "neo4j", "milvus", "redis"]

#: Store order: locks are taken, and failures are reported, in this order.
STORE_ORDER: tuple[StoreName, ...] = ("postgres", "neo4j", "milvus", "redis")

#: The name of each thread in which a run works on one store.
STEP_THREAD = "is-db-bootstrap-step"


def nearest(typed: str, names: Iterable[str]) -> str:
    """The name that is most like `typed`, or "" where none is near. Case does not count."""
    from difflib import get_close_matches

    by_letters = {name.casefold(): name for name in names}
    found = get_close_matches(typed.casefold(), by_letters, n=1)
    return by_letters[found[0]] if found else ""

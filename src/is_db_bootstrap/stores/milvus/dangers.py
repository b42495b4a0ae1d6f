"""What a person should look at before a collection that has rows is changed.

An apply drops no collection and moves no alias, so little is left: what takes long over many rows,
and a time to live, after which the server removes rows itself.
"""

from __future__ import annotations

from collections.abc import Callable

from is_db_bootstrap.results import Change, Danger, DangerKind
from is_db_bootstrap.stores.milvus.properties import TTL_PROPERTY
from is_db_bootstrap.wording import noun

#: From so many rows on, an index and a load are told.
MANY = 10_000


def dangers_of(change: Change, collection: str, rows: Callable[[], int]) -> tuple[Danger, ...]:
    """The dangers of one change of `collection`. `rows` counts those that are known."""
    if change.kind == "property" and change.name.endswith(f".{TTL_PROPERTY}"):
        text = (
            f"Rows older than the time to live are removed, of at least {rows():,} that are there."
        )
        return (Danger(DangerKind.DROPS, collection, text, 0),)
    if change.kind not in {"index", "load"}:
        return ()
    number = rows()
    if number < MANY:
        return ()
    many = f"{number:,} {noun(number, 'row')}"
    text = f"The index is built over at least {many}, and the run waits for it."
    if change.kind == "load":
        text = f"At least {many} are loaded into the memory of the query nodes."
    return (Danger(DangerKind.LOCKS, change.name, text, 0),)

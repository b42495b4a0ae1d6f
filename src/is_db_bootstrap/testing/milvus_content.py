"""What a Milvus database holds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pymilvus import MilvusClient, MilvusException

from is_db_bootstrap.testing.content import Content, Thing, digest

#: Rows of a collection that are compared. The server's own limit of one query is 16,384.
_ROWS = 1_000


def collections(client: MilvusClient) -> Content:
    """The collections by name, with their rows as the server counts them without a search."""
    return Content(
        tuple(_collection_with_count(client, name) for name in client.list_collections())
    )


def collections_and_rows(client: MilvusClient) -> Content:
    """The collections by name, with digests that follow up to 1,000 of their rows."""
    return Content(tuple(_collection_with_rows(client, name) for name in client.list_collections()))


def _collection_with_count(client: MilvusClient, name: str) -> Thing:
    rows = client.get_collection_stats(name)["row_count"]
    in_words = f"{name} with {_rows_in_words(rows)}"
    return Thing("collection", name=in_words, digest=digest(name, rows))


def empty_digests(names: Iterable[str]) -> frozenset[str]:
    """The digests that collections of these names have while they hold no row."""
    return frozenset(digest(name, []) for name in names)


def _collection_with_rows(client: MilvusClient, name: str) -> Thing:
    """The collection, with a digest of its rows.

    A collection that cannot be compared has no digest, so nobody can vouch for it.
    """
    rows = _some_rows(client, name)
    if rows is None:
        return Thing("collection", name=f"{name}, which is not loaded and is not compared")
    if len(rows) > _ROWS:
        why = f"has more than {_ROWS} rows"
        return Thing("collection", name=f"{name}, which {why} and is not compared")
    row_digests = sorted(digest(dict(row)) for row in rows)
    in_words = f"{name} with {_rows_in_words(len(rows))}"
    return Thing("collection", name=in_words, digest=digest(name, row_digests))


def _some_rows(client: MilvusClient, name: str) -> list[dict[str, Any]] | None:
    """All rows, or one more than are compared. None for a collection that is not loaded."""
    with suppress(MilvusException):  # a collection that is not loaded answers no query
        rows: list[dict[str, Any]] = client.query(
            name, filter="", limit=_ROWS + 1, output_fields=["*"], consistency_level="Strong"
        )
        return rows
    return [] if _flushed_rows(client, name) == 0 else None


def _flushed_rows(client: MilvusClient, name: str) -> int:
    """The server's count, which is right for rows that are flushed."""
    client.flush(name)
    return int(client.get_collection_stats(name)["row_count"])


def _rows_in_words(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"

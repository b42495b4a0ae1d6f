"""What a Milvus database holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from pymilvus import MilvusClient, MilvusException

from is_db_bootstrap.testing.content import Content, Thing, digest

#: Rows of a collection that are compared. The server's own limit of one query is 16,384.
_ROWS = 1_000


def collections(client: MilvusClient) -> Content:
    """The collections by name, with their rows as the server counts them without a search."""
    return Content(tuple(_counted(client, name) for name in client.list_collections()))


def collections_and_rows(client: MilvusClient) -> Content:
    """The same; the digest of a collection follows its rows, up to 1,000 of them."""
    return Content(tuple(_with_rows(client)))


def _counted(client: MilvusClient, name: str) -> Thing:
    rows = client.get_collection_stats(name)["row_count"]
    return Thing("collection", name=f"{name} with {_in_words(rows)}", digest=digest(name, rows))


def empty(names: Iterable[str]) -> frozenset[str]:
    """The digests that collections of these names have while they hold no row."""
    return frozenset(digest(name, []) for name in names)


def _with_rows(client: MilvusClient) -> Iterator[Thing]:
    for name in client.list_collections():
        rows = None
        with suppress(MilvusException):  # one that is not loaded answers no query
            rows = client.query(
                name, filter="", limit=_ROWS + 1, output_fields=["*"], consistency_level="Strong"
            )
        if rows is None and _flushed_rows(client, name) == 0:
            rows = []
        if rows is None or len(rows) > _ROWS:
            # Without a digest: nobody can vouch for it.
            why = "is not loaded" if rows is None else f"has more than {_ROWS} rows"
            yield Thing("collection", name=f"{name}, which {why} and is not compared")
            continue
        told = sorted(digest(dict(row)) for row in rows)
        yield Thing(
            "collection", name=f"{name} with {_in_words(len(rows))}", digest=digest(name, told)
        )


def _flushed_rows(client: MilvusClient, name: str) -> int:
    """The server's count, which is right for rows that are flushed."""
    client.flush(name)
    return int(client.get_collection_stats(name)["row_count"])


def _in_words(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"

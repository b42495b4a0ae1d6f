"""The constraints and the index that this tool needs for itself: which of them a database lacks."""

from __future__ import annotations

from collections.abc import Mapping

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.neo4j.compare import described
from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import split
from is_db_bootstrap.stores.neo4j.schema_forecast import is_unfinished


def absent(schema: Mapping[str, str], live: LiveSchema) -> dict[str, str]:
    """The statements of `schema`, by name, whose objects `live` does not have under any name.

    Raises `StoreConflict` when one of the names stands for something else.
    """
    return {name: text for name, text in schema.items() if not _is_there(_wanted(text), live)}


def _wanted(text: str) -> SchemaObject:
    (statement,) = split(text)
    found = recognise(statement.tokens)
    if not isinstance(found, SchemaObject):
        raise TypeError(text)
    return found


def _is_there(wanted: SchemaObject, live: LiveSchema) -> bool:
    found = live.find(wanted)
    if found is None or is_unfinished(wanted, found):
        return False
    if not wanted.matches(found):
        raise StoreConflict(
            "neo4j",
            f"{wanted} is needed for the history or the lock as {described(wanted)}, "
            f"but the database has {described(found)} of that name.",
            hint=f"Drop it (DROP {found.kind.upper()} {found.name}), and run again.",
            subject=wanted.name,
        )
    return True

"""The records of converged stores on a Milvus that refuses our properties.

Each record is a tiny collection of ours. It is never filled, indexed or loaded. The record is its
description, and a property that it is created with: Milvus Lite keeps no description. Its blueprint
is kept in the same two ways. None of these is changed, so a new record is a new collection, and
then the old one is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymilvus import DataType, MilvusClient

from is_db_bootstrap.errors import StoreBusy
from is_db_bootstrap.stores.milvus.kind import KIND
from is_db_bootstrap.stores.recalled import Kept

if TYPE_CHECKING:
    from is_db_bootstrap.stores.milvus.server import Server

#: What a record's key and a digest of its text follow in the name of the collection.
PREFIX = "is_db_bootstrap_memory_"
#: The property that such a collection is created with.
_PROPERTY = "is_db_bootstrap.record"
#: The property that says of which blueprint the record is. The description of a field says it too.
_BLUEPRINT = "is_db_bootstrap.blueprint"
_FIELD = "unused"
#: The least number of dimensions that every release takes.
_DIM = 2


def is_memory(name: str) -> bool:
    """Whether a collection of that name is one of these."""
    return name.startswith(PREFIX)


def kept(server: Server, blueprint: str) -> list[Kept]:
    """The records of one blueprint that lie in such collections, and those that say of none."""
    found = []
    for name in _names(server):
        described = server.described(name)
        if described is not None and _blueprint_of(described) in {"", blueprint}:
            text = next(filter(None, _texts_of(described)), "")
            removal = f"MilvusClient.drop_collection({name!r})."
            key = name.removeprefix(PREFIX).rpartition("_")[0]
            found.append(Kept(text, f"record in collection {name}", removal, key=key))
    return found


def write(server: Server, key: str, blueprint: str, text: str) -> None:
    """Keep a record, and drop the earlier one of its key once the new one was read back.

    Raises `StoreBusy` when the server does not show the new one.
    """
    own = f"{PREFIX}{key}_"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = f"{own}{digest}"
    if server.described(name) is None:
        schema = MilvusClient.create_schema(auto_id=True, description=text)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(_FIELD, DataType.FLOAT_VECTOR, dim=_DIM, description=blueprint)
        properties = {_PROPERTY: text, _BLUEPRINT: blueprint}
        server.client.create_collection(
            name, schema=schema, properties=properties, **server.change_options
        )
    if text not in _texts_of(server.described(name) or {}):
        raise StoreBusy(
            KIND.name,
            f"The record of this run was written to {name}, and is not shown there.",
            subject=name,
            hint="The earlier record is left. Run again.",
        )
    for other in _names(server):
        if other.startswith(own) and other != name:
            server.client.drop_collection(other, **server.change_options)


def _texts_of(described: Mapping[str, Any]) -> tuple[str, str]:
    """What a collection has as its property, and as its description."""
    properties = described.get("properties") or {}
    return str(properties.get(_PROPERTY) or ""), str(described.get("description") or "")


def _blueprint_of(described: Mapping[str, Any]) -> str:
    """The blueprint of a record. Empty for one of an earlier version, which only its text names."""
    told = str((described.get("properties") or {}).get(_BLUEPRINT) or "")
    fields = described.get("fields") or ()
    return told or next((f.get("description", "") for f in fields if f["name"] == _FIELD), "")


def _names(server: Server) -> list[str]:
    names = server.client.list_collections(**server.look_options)
    return sorted(name for name in names if is_memory(name))

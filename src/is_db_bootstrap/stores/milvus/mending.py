"""The calls that bring a collection back to what is declared, for a `client` of pymilvus.

A person makes them: `client = MilvusClient(uri=…)`. What `apply` makes by itself has that command
instead, since that chooses what the release can take.
"""

from __future__ import annotations

from collections.abc import Sequence

from is_db_bootstrap.blueprint import Collection
from is_db_bootstrap.errors import APPLY


def alias_call(declared: Collection) -> str:
    """The call that lets an alias that leads elsewhere lead to the declared collection."""
    return f"client.alter_alias({declared.name!r}, {declared.alias!r})"


def load_call(declared: Collection) -> str:
    """The call that loads a collection."""
    return f"client.load_collection({declared.name!r})"


def partition_call(declared: Collection, name: str) -> str:
    """The call that makes a partition."""
    return f"client.create_partition({declared.name!r}, {name!r})"


def property_call(declared: Collection, key: str, value: str) -> str:
    """The call that sets a property."""
    return f"client.alter_collection_properties({declared.name!r}, {{{key!r}: {value!r}}})"


def index_calls(declared: Collection, fields: Sequence[str]) -> str:
    """The calls that drop indexes, and the command that builds them as declared."""
    calls = [f"client.release_collection({declared.name!r})"]
    calls += [f"client.drop_index({declared.name!r}, {field!r})" for field in fields]
    return "\n".join([*calls, APPLY])

"""The calls of `MilvusClient` that planned changes make, written for a person to read.

Milvus has no language of statements. The calls stand as a Python program would make them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.milvus.schema import field_arguments

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection, Field, Function, Index

_INDENT = "    "


def create_collection(declared: Collection, properties: Mapping[str, str]) -> str:
    """The collection with its fields, functions and properties, a line for each."""
    lines = [
        f"create_collection({declared.name!r},",
        *(f"{_INDENT}{_field(each)}," for each in declared.fields),
        *(f"{_INDENT}{_function(each)}," for each in declared.functions),
    ]
    options = {
        "enable_dynamic_field": declared.dynamic or None,
        "num_shards": declared.shards,
        "num_partitions": declared.partitions,
        "consistency_level": declared.consistency,
        "properties": dict(properties),
    }
    given = [f"{_INDENT}{name}={value!r}," for name, value in options.items() if value]
    return "\n".join([*lines, *given, ")"])


def _field(each: Field) -> str:
    """Such as `Field('id', VARCHAR, is_primary=True, max_length=64)`."""
    given = "".join(f", {name}={_shown(value)}" for name, value in field_arguments(each).items())
    return f"Field({each.name!r}, {each.type}{given})"


def _function(each: Function) -> str:
    params = f", params={dict(each.params)!r}" if each.params else ""
    inputs, outputs = [*each.inputs], [*each.outputs]
    return f"Function({each.name!r}, {each.type}, {inputs!r}, {outputs!r}{params})"


def _shown(value: Any) -> str:
    """A value as a program would write it. A data type has its name only."""
    return str(getattr(value, "name", None) or repr(value))


def create_partition(declared: Collection, name: str) -> str:
    """One partition."""
    return f"create_partition({declared.name!r}, {name!r})"


def create_index(declared: Collection, index: Index, type_: str) -> str:
    """One index. `type_` is the type that this server gets."""
    name = index.name or index.field
    metric = f", metric_type={index.metric!r}" if index.metric else ""
    parameters = index_parameters(index)
    params = f", params={parameters!r}" if parameters else ""
    return (
        f"create_index({declared.name!r}, field={index.field!r}, name={name!r},\n"
        f"{_INDENT}index_type={type_!r}{metric}{params},\n)"
    )


def index_parameters(index: Index) -> dict[str, Any]:
    """What an index is built with, as the server takes it."""
    return {key: _whole_number(value) for key, value in index.params.items()}


def alter_properties(declared: Collection, properties: Mapping[str, str]) -> str:
    """Properties that are changed in place."""
    return f"alter_collection_properties({declared.name!r},\n{_INDENT}{dict(properties)!r},\n)"


def create_alias(collection: str, alias: str) -> str:
    """An alias that leads to a collection."""
    return f"create_alias({collection!r}, {alias!r})"


def load_collection(declared: Collection) -> str:
    """The load, without which nothing can be searched."""
    return f"load_collection({declared.name!r})"


def _whole_number(value: Any) -> Any:
    """64 for 64.0, which Milvus 2.3 takes for no number. Any other value is returned as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value

"""What a declared Milvus collection is to its server: schema, family and version, contract.

No call to a server is made here.
"""

from __future__ import annotations

import re
from typing import Any

import pymilvus
from pymilvus import DataType, FunctionType, MilvusClient

from is_db_bootstrap.blueprint import Collection, Field
from is_db_bootstrap.stores.milvus import defaults

MODEL_PROPERTY = "embedding.model"


def version_of(collection: str) -> tuple[str, int]:
    """`novel_embeddings_v1` is ("novel_embeddings", 1).

    A name without version is its own family, version 0.
    """
    found = re.fullmatch(r"(.+)_v(\d+)", collection)
    return (found[1], int(found[2])) if found else (collection, 0)


def shape(declared: Collection) -> str:
    """Number of fields and the vectors, for a person to read."""
    vectors = ", ".join(f"{f.name} {f.type.lower()}[{f.dim}]" for f in declared.fields if f.dim)
    return (
        f"{len(declared.fields)} fields, {vectors}" if vectors else f"{len(declared.fields)} fields"
    )


def schema(declared: Collection) -> Any:
    """What `MilvusClient.create_collection` takes."""
    made = MilvusClient.create_schema(
        enable_dynamic_field=declared.dynamic, description=declared.description
    )
    for each in declared.fields:
        made.add_field(each.name, DataType[each.type], **field_arguments(each))
    for function in declared.functions:
        kind = FunctionType[function.type]
        made.add_function(
            pymilvus.Function(
                function.name,
                kind,
                [*function.inputs],
                [*function.outputs],
                params=dict(function.params),
            )
        )
    return made


def field_arguments(each: Field) -> dict[str, Any]:
    """What `add_field` takes for a field besides name and type.

    What is not declared is left to the server.
    """
    given = {
        "is_primary": each.primary,
        "auto_id": each.auto_id,
        "is_partition_key": each.partition_key,
        "dim": each.dim,
        "max_length": each.max_length,
        "nullable": each.nullable,
        "element_type": DataType[each.element_type] if each.element_type else None,
        "max_capacity": each.max_capacity,
        "is_clustering_key": each.clustering_key,
    }
    given = {
        name: value for name, value in given.items() if value is not None and value is not False
    }
    if each.default is not None:
        given["default_value"] = defaults.encoded(each)
    return given | dict(each.params)


def contract(declared: Collection) -> str:
    """The text that names what is declared.

    Parts that were added to the language later count only where they are used.
    """
    fields = ", ".join(map(_written, declared.fields)) + ("," if len(declared.fields) == 1 else "")
    indexes = [(i.field, i.type, i.metric, sorted(i.params.items())) for i in declared.indexes]
    later = (
        f", {declared.functions!r}, {declared.partition_names!r}"
        if declared.functions or declared.partition_names
        else ""
    )
    return (
        f"({declared.name!r}, ({fields}), {indexes!r}, {declared.dynamic!r}, "
        f"{declared.ttl_seconds!r}{later})"
    )


def _written(each: Field) -> str:
    first = ("name", "type", "primary", "auto_id", "partition_key", "dim", "max_length")
    parts = [f"{name}={getattr(each, name)!r}" for name in first]
    parts += ["nullable=True"] if each.nullable else []
    parts += [f"default={each.default!r}"] if each.default is not None else []
    parts += [
        f"{name}={value!r}"
        for name in ("element_type", "max_capacity", "clustering_key")
        if (value := getattr(each, name))
    ]
    parts += [f"params={sorted(each.params.items())!r}"] if each.params else []
    return f"Field({', '.join(parts)})"

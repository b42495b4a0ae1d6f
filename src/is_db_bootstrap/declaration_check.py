"""What is wrong with a declaration, found before any store is touched.

Names of types are those of pymilvus 2.6 to 3; what a certain server can do is checked when it is known.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern
from is_db_bootstrap.errors import ConfigurationError

_DENSE = {"FLOAT_VECTOR", "FLOAT16_VECTOR", "BFLOAT16_VECTOR", "INT8_VECTOR"}
VECTORS = _DENSE | {"BINARY_VECTOR", "SPARSE_FLOAT_VECTOR"}
SCALARS = {
    "BOOL", "INT8", "INT16", "INT32", "INT64", "FLOAT", "DOUBLE", "VARCHAR", "TEXT", "ARRAY", "JSON", "GEOMETRY", "TIMESTAMPTZ",
    "STRUCT",
}  # fmt: skip
#: Integer types and their bits.
_INTEGERS = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64}
#: Metrics of each kind of vector.
METRICS = {
    **{kind: {"L2", "IP", "COSINE"} for kind in _DENSE},
    "BINARY_VECTOR": {"HAMMING", "JACCARD", "SUBSTRUCTURE", "SUPERSTRUCTURE", "MHJACCARD"},
    "SPARSE_FLOAT_VECTOR": {"IP", "BM25"},
}
VECTOR_INDEXES = {
    "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "IVF_RABITQ", "HNSW", "HNSW_SQ", "HNSW_PQ", "HNSW_PRQ", "DISKANN", "SCANN", "AUTOINDEX",
    "GPU_CAGRA", "GPU_IVF_FLAT", "GPU_IVF_PQ", "GPU_BRUTE_FORCE", "BIN_FLAT", "BIN_IVF_FLAT", "MINHASH_LSH",
    "SPARSE_INVERTED_INDEX", "SPARSE_WAND",
}  # fmt: skip
SCALAR_INDEXES = {"INVERTED", "BITMAP", "STL_SORT", "Trie", "NGRAM", "AUTOINDEX", "RTREE"}
FUNCTIONS = {"BM25", "TEXTEMBEDDING", "RERANK", "MINHASH"}
KEY_TYPES = {"string", "list", "set", "zset", "hash", "stream"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def check(blueprint: Blueprint) -> None:
    """Raise one `ConfigurationError` that names every wrong field of the declarations."""
    found = list(problems(blueprint))
    if found:
        raise ConfigurationError(f"The blueprint {blueprint.name} cannot be: {'; '.join(found)}.")


def problems(blueprint: Blueprint) -> Iterator[str]:
    """Each thing that is wrong, as `collections[0].fields[2] 'embedding': …`."""
    if not _NAME.fullmatch(blueprint.name):
        yield f"name {blueprint.name!r}: letters, digits and _ only"
    for number, collection in enumerate(blueprint.collections):
        yield from _of_collection(f"collections[{number}] {collection.name!r}", collection)
    names = [c.name for c in blueprint.collections] + [
        c.alias for c in blueprint.collections if c.alias
    ]
    yield from (f"collections: the name {name!r} is there twice" for name in _twice(names))
    for number, key in enumerate(blueprint.keys):
        yield from (f"keys[{number}] {key.name!r}: {what}" for what in _of_key(key))
    yield from (
        f"keys: the name {name!r} is there twice" for name in _twice(k.name for k in blueprint.keys)
    )
    yield from (
        f"keys: the pattern {p!r} is there twice" for p in _twice(_shape(k) for k in blueprint.keys)
    )
    yield from (
        f"channels: the name {name!r} is there twice"
        for name in _twice(c.name for c in blueprint.channels)
    )
    yield from (
        f"settings: the name {name!r} is there twice"
        for name in _twice(s.name for s in blueprint.settings)
    )
    if blueprint.seed_rows and blueprint.migrations_dir is None:
        yield "seed_rows: there are no migrations that make their tables"
    if (blueprint.seed_nodes or blueprint.seed_relationships) and blueprint.cypher_dir is None:
        yield "seed_nodes: there are no Cypher files"


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _of_collection(place: str, collection: Collection) -> Iterator[str]:
    types = {each.name: each for each in collection.fields}
    if not _NAME.fullmatch(collection.name):
        yield f"{place}: letters, digits and _ only"
    for number, each in enumerate(collection.fields):
        yield from (f"{place}.fields[{number}] {each.name!r}: {what}" for what in _of_field(each))
    for number, index in enumerate(collection.indexes):
        yield from (
            f"{place}.indexes[{number}]: {what}"
            for what in _of_index(index, types.get(index.field))
        )
    yield from (f"{place}: {what}" for what in _as_a_whole(collection))
    for number, function in enumerate(collection.functions):
        if function.type not in FUNCTIONS:
            yield f"{place}.functions[{number}] {function.name!r}: the type {function.type!r} is none of {_listed(FUNCTIONS)}"
        for name in (*function.inputs, *function.outputs):
            if name not in types:
                yield f"{place}.functions[{number}] {function.name!r}: there is no field {name!r}"


def _as_a_whole(collection: Collection) -> Iterator[str]:
    if sum(each.primary for each in collection.fields) != 1:
        yield "exactly one field is the primary key"
    for what, names in (
        ("field", [each.name for each in collection.fields]), ("index of a field", [index.field for index in collection.indexes]),
        ("function", [function.name for function in collection.functions]), ("partition", list(collection.partition_names)),
    ):  # fmt: skip
        yield from (f"the {what} {name!r} is there twice" for name in _twice(names))
    keyed = any(each.partition_key for each in collection.fields)
    if collection.partition_names and keyed:
        yield "partition_names and a partition key exclude each other"
    if collection.partitions and not keyed:
        yield "partitions counts those behind a partition key, and no field is one"
    if collection.ttl_seconds < 0 or collection.shards < 1 or collection.partitions < 0:
        yield "ttl_seconds and partitions are at least 0, shards at least 1"


def _of_field(each: Field) -> Iterator[str]:
    if each.type not in VECTORS | SCALARS:
        yield f"the type {each.type!r} is none of {_listed(VECTORS | SCALARS)}"
        return
    if each.type in _DENSE | {"BINARY_VECTOR"} and not each.dim:
        yield "a vector needs dim"
    if each.type == "BINARY_VECTOR" and each.dim and each.dim % 8:
        yield f"dim {each.dim} of a binary vector is no multiple of 8"
    if each.type == "SPARSE_FLOAT_VECTOR" and each.dim:
        yield "a sparse vector has no dim"
    if each.type == "VARCHAR" and not each.max_length:
        yield "a VARCHAR needs max_length"
    if each.type == "ARRAY" and (
        each.element_type not in SCALARS - {"ARRAY", "JSON"} or not each.max_capacity
    ):
        yield "an ARRAY needs element_type and max_capacity"
    if each.primary and each.type not in {"INT64", "VARCHAR"}:
        yield f"a primary key is INT64 or VARCHAR, not {each.type}"
    if each.primary and (each.nullable or each.default is not None):
        yield "a primary key is neither nullable nor has a default"
    if each.default is not None and (wrong := wrong_default(each)):
        yield f"the default {each.default!r} {wrong}"


def wrong_default(each: Field) -> str:
    """Why the field cannot have its default; empty when it can. The server would refuse it, or keep another value."""
    value = each.default
    if each.type in _INTEGERS:
        limit = 2 ** (_INTEGERS[each.type] - 1)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return (
            ""
            if is_integer and -limit <= value < limit
            else f"is no {each.type} (an integer from {-limit} to {limit - 1})"
        )
    if each.type in {"FLOAT", "DOUBLE"}:
        return _wrong_number(each.type, value)
    if each.type == "BOOL":
        return "" if isinstance(value, bool) else "is neither True nor False"
    if each.type == "TIMESTAMPTZ":
        return _wrong_time(value)
    if each.type in {"VARCHAR", "TEXT", "GEOMETRY"}:
        return _wrong_text(each, value)
    return f"cannot be: Milvus keeps no default for {each.type}"


def _wrong_number(kind: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is no number"
    try:
        number = float(value)
        struct.pack("<f" if kind == "FLOAT" else "<d", number)
    except OverflowError:
        return f"is too large for {kind}"
    return "" if math.isfinite(number) else "is no finite number"


def _wrong_text(each: Field, value: object) -> str:
    if not isinstance(value, str):
        return "is no text"
    length = len(value.encode("utf-8", "surrogatepass"))
    if each.max_length and length > each.max_length:
        return f"has {length} bytes, and max_length is {each.max_length}"
    return ""


def _wrong_time(value: object) -> str:
    """Accepted are microseconds since 1970 in UTC, a text in ISO 8601, and a datetime with a time zone."""
    if isinstance(value, datetime):
        return "" if value.tzinfo is not None else "has no time zone"
    if isinstance(value, int) and not isinstance(value, bool):
        return ""
    try:
        datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        return "is no time: give a datetime with a time zone, a text in ISO 8601, or microseconds since 1970"
    return ""


def _of_index(index: Index, each: Field | None) -> Iterator[str]:
    if each is None:
        yield f"there is no field {index.field!r}"
        return
    vector = each.type in VECTORS
    known = VECTOR_INDEXES if vector else SCALAR_INDEXES
    if index.type not in known:
        yield f"the type {index.type!r} on {each.type} {index.field!r} is none of {_listed(known)}"
    if vector and index.metric not in METRICS[each.type]:
        yield f"the metric {index.metric!r} on {each.type} {index.field!r} is none of {_listed(METRICS[each.type])}"
    if not vector and index.metric:
        yield f"{index.field!r} is no vector and has no metric"


def _of_key(key: KeyPattern) -> Iterator[str]:
    if key.type not in KEY_TYPES:
        yield f"the type {key.type!r} is none of {_listed(KEY_TYPES)}"
    shortest, longest = key.ttl if isinstance(key.ttl, tuple) else (key.ttl, key.ttl)
    if shortest is not None and longest is not None and not 0 < shortest <= longest:
        yield f"the lifetime {key.ttl!r} is no range of seconds"
    if key.ttl is None and not key.reason:
        yield "a persistent key needs a reason"
    yield from _of_pattern(key)


def _of_pattern(key: KeyPattern) -> Iterator[str]:
    names = re.findall(r"\{(\w+)\}", key.pattern)
    left = re.sub(r"\{\w+\}", "", key.pattern)
    if not key.pattern or "{" in left or "}" in left:
        yield f"the pattern {key.pattern!r} has a brace without its other half"
    if _twice(names):
        yield f"the pattern {key.pattern!r} names a placeholder twice"
    for name, expression in key.placeholders.items():
        if name not in names:
            yield f"the placeholder {name!r} is not in the pattern {key.pattern!r}"
        try:
            re.compile(expression)
        except re.error as exc:
            yield f"the expression {expression!r} of {name!r}: {exc}"


def _shape(key: KeyPattern) -> str:
    return re.sub(r"\{\w+\}", "{}", key.pattern)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

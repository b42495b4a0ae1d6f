"""What is wrong with a blueprint's collections, seen without a server.

Names of types are those of pymilvus 2.6 to 3. What a certain server can do is checked when its
release is known (`abilities`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from is_db_bootstrap.blueprint.check import NAME, comma_list, repeated_names
from is_db_bootstrap.blueprint.declarations import Blueprint, Collection, Field, Index
from is_db_bootstrap.stores.milvus.properties import TTL_PROPERTY, normal_text

_DENSE_VECTORS = {"BFLOAT16_VECTOR", "FLOAT16_VECTOR", "FLOAT_VECTOR", "INT8_VECTOR"}
_VECTORS = _DENSE_VECTORS | {"BINARY_VECTOR", "SPARSE_FLOAT_VECTOR"}
_SCALARS = {
    "ARRAY",
    "BOOL",
    "DOUBLE",
    "FLOAT",
    "GEOMETRY",
    "INT16",
    "INT32",
    "INT64",
    "INT8",
    "JSON",
    "STRUCT",
    "TEXT",
    "TIMESTAMPTZ",
    "VARCHAR",
}
#: The property of a collection in which a time without an offset is meant.
TIME_ZONE_PROPERTY = "timezone"
#: Integer types and their bits.
_INTEGER_BITS = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64}
#: Metrics of each kind of vector.
_METRICS = {
    **{kind: {"COSINE", "IP", "L2"} for kind in _DENSE_VECTORS},
    "BINARY_VECTOR": {"HAMMING", "JACCARD", "MHJACCARD", "SUBSTRUCTURE", "SUPERSTRUCTURE"},
    "SPARSE_FLOAT_VECTOR": {"BM25", "IP"},
}
_VECTOR_INDEXES = {
    "AUTOINDEX",
    "BIN_FLAT",
    "BIN_IVF_FLAT",
    "DISKANN",
    "FLAT",
    "GPU_BRUTE_FORCE",
    "GPU_CAGRA",
    "GPU_IVF_FLAT",
    "GPU_IVF_PQ",
    "HNSW",
    "HNSW_PQ",
    "HNSW_PRQ",
    "HNSW_SQ",
    "IVF_FLAT",
    "IVF_PQ",
    "IVF_RABITQ",
    "IVF_SQ8",
    "MINHASH_LSH",
    "SCANN",
    "SPARSE_INVERTED_INDEX",
    "SPARSE_WAND",
}
#: Build parameters of each type of index, as Milvus 2.3 to 2.6 name them. A type that is not here
#: (`AUTOINDEX`) chooses by itself, and its parameters are not looked at.
_IVF_PARAMETERS = {"nlist"}
_PQ_PARAMETERS = {"m", "nbits"}
_HNSW_PARAMETERS = {"M", "efConstruction"}
_REFINE_PARAMETERS = {"refine", "refine_type"}
_SPARSE_PARAMETERS = {
    "bm25_avgdl",
    "bm25_b",
    "bm25_k1",
    "drop_ratio_build",
    "inverted_index_algo",
}
_JSON_PARAMETERS = {"json_cast_function", "json_cast_type", "json_path"}
_PARAMETERS = {
    "BIN_FLAT": set(),
    "BIN_IVF_FLAT": _IVF_PARAMETERS,
    "BITMAP": _JSON_PARAMETERS,
    "FLAT": set(),
    "GPU_BRUTE_FORCE": set(),
    "HNSW": _HNSW_PARAMETERS,
    "HNSW_PQ": _HNSW_PARAMETERS | _PQ_PARAMETERS | _REFINE_PARAMETERS,
    "HNSW_PRQ": _HNSW_PARAMETERS | _PQ_PARAMETERS | _REFINE_PARAMETERS | {"nrq"},
    "HNSW_SQ": _HNSW_PARAMETERS | _REFINE_PARAMETERS | {"sq_type"},
    "INVERTED": _JSON_PARAMETERS,
    "IVF_FLAT": _IVF_PARAMETERS,
    "IVF_PQ": _IVF_PARAMETERS | _PQ_PARAMETERS,
    "IVF_RABITQ": _IVF_PARAMETERS | _REFINE_PARAMETERS | {"rbq_query_bits"},
    "IVF_SQ8": _IVF_PARAMETERS,
    "NGRAM": _JSON_PARAMETERS | {"max_gram", "min_gram"},
    "SCANN": _IVF_PARAMETERS | {"with_raw_data"},
    "SPARSE_INVERTED_INDEX": _SPARSE_PARAMETERS,
    "SPARSE_WAND": _SPARSE_PARAMETERS,
    "STL_SORT": _JSON_PARAMETERS,
    "Trie": set(),
}
#: Ranges of build parameters, as servers name them when they refuse a value.
_RANGES = {
    "M": (1, 2048),
    "efConstruction": (1, 2**31 - 1),
    "nlist": (1, 65_536),
    "nbits": (1, 64),
}
#: Properties of a collection that are on or off.
_SWITCHES = {"mmap.enabled", "partitionkey.isolation", "lazyload.enabled"}
#: Parameters that say where an index lies, which every type has: `mmap.enabled`, `warmup`.
_PLACE_PARAMETERS = {"mmap.enabled", "mmap_enabled", "warmup"}
#: The largest values that every release of Milvus takes: components of a vector, UTF-8 bytes of a
#: VARCHAR, elements of an ARRAY.
_MAX_DIM = 32_768
_MAX_LENGTH = 65_535
_MAX_CAPACITY = 4_096
_SCALAR_INDEXES = {"AUTOINDEX", "BITMAP", "INVERTED", "NGRAM", "RTREE", "STL_SORT", "Trie"}
_FUNCTIONS = {"BM25", "MINHASH", "RERANK", "TEXTEMBEDDING"}
_PRIMARY_TYPES = {"INT64", "VARCHAR"}


def vector_types() -> frozenset[str]:
    """The types of fields that hold a vector."""
    return frozenset(_VECTORS)


def problems(blueprint: Blueprint) -> Iterator[str]:
    """Each thing that is wrong, as `collections[0].fields[2] 'embedding': …`."""
    for number, collection in enumerate(blueprint.collections):
        yield from _collection_problems(f"collections[{number}] {collection.name!r}", collection)
    names = [collection.name for collection in blueprint.collections]
    aliases = [collection.alias for collection in blueprint.collections if collection.alias]
    for name in repeated_names(names + aliases):
        yield f"collections: the name {name!r} is there twice"


def refusals(collection: Collection) -> Iterator[str]:
    """What a server would refuse or keep otherwise, after a part of the collection is made."""
    for each in collection.fields:
        wrong = wrong_default(each) if each.default is not None else ""
        if wrong:
            yield f"{collection.name}.{each.name}: the default {each.default!r} {wrong}"
    fields = {each.name: each for each in collection.fields}
    for index in (index for index in collection.indexes if index.field in fields):
        for problem in _parameter_problems(index, fields[index.field]):
            yield f"{collection.name}.{index.field}: {problem}"
    for problem in (*_property_problems(collection), *_unfilled_problems(collection)):
        yield f"{collection.name}: {problem}"
    for name in filter(None, (collection.name, collection.alias)):
        if not NAME.fullmatch(name):
            yield f"the name {name!r} has more than letters, digits and _"


def _collection_problems(place: str, collection: Collection) -> Iterator[str]:
    fields = {each.name: each for each in collection.fields}
    if not NAME.fullmatch(collection.name):
        yield f"{place}: letters, digits and _ only"
    if collection.alias and not NAME.fullmatch(collection.alias):
        yield f"{place}: the alias {collection.alias!r} has more than letters, digits and _"
    for number, each in enumerate(collection.fields):
        for problem in _field_problems(each):
            yield f"{place}.fields[{number}] {each.name!r}: {problem}"
    for number, index in enumerate(collection.indexes):
        for problem in _index_problems(index, fields.get(index.field)):
            yield f"{place}.indexes[{number}]: {problem}"
    looks = (_shape_problems, _property_problems, _version_problems, _unfilled_problems)
    for look in looks:
        for problem in look(collection):
            yield f"{place}: {problem}"
    yield from _function_problems(place, collection)


def _property_problems(collection: Collection) -> Iterator[str]:
    """Values of known properties that a server would keep as something else, or drop."""
    ttl = collection.properties.get(TTL_PROPERTY)
    if ttl is not None:
        text = normal_text(ttl)
        if not text.isdecimal():
            yield f"the property {TTL_PROPERTY!r} is {ttl!r}, which is no number of seconds"
        elif collection.ttl_seconds and text != str(collection.ttl_seconds):
            yield f"ttl_seconds is {collection.ttl_seconds}, and {TTL_PROPERTY!r} is {ttl!r}"
    for key in _SWITCHES & set(collection.properties):
        if normal_text(collection.properties[key]) not in {"true", "false"}:
            yield f"the property {key!r} is neither true nor false"


def _version_problems(collection: Collection) -> Iterator[str]:
    """What `vector upgrade` could not do."""
    if collection.reembed is not None and not collection.alias:
        yield "reembed is for a new version behind an alias, and there is no alias"


def _unfilled_problems(collection: Collection) -> Iterator[str]:
    """An index for what a BM25 function makes, without such a function."""
    made = {
        name
        for function in collection.functions
        if function.type == "BM25"
        for name in function.outputs
    }
    for index in collection.indexes:
        if index.metric == "BM25" and index.field not in made:
            yield f"the metric BM25 of {index.field!r} needs a function of type BM25 that fills it"


def _function_problems(place: str, collection: Collection) -> Iterator[str]:
    names = {each.name for each in collection.fields}
    for number, function in enumerate(collection.functions):
        here = f"{place}.functions[{number}] {function.name!r}"
        if function.type not in _FUNCTIONS:
            yield f"{here}: the type {function.type!r} is none of {comma_list(_FUNCTIONS)}"
        for name in (*function.inputs, *function.outputs):
            if name not in names:
                yield f"{here}: there is no field {name!r}"


def _shape_problems(collection: Collection) -> Iterator[str]:
    """What is wrong with the collection as a whole."""
    if sum(each.primary for each in collection.fields) != 1:
        yield "exactly one field is the primary key"
    named = {
        "field": [each.name for each in collection.fields],
        "index of a field": [index.field for index in collection.indexes],
        "function": [function.name for function in collection.functions],
        "partition": list(collection.partition_names),
    }
    for what, names in named.items():
        for name in repeated_names(names):
            yield f"the {what} {name!r} is there twice"
    has_partition_key = any(each.partition_key for each in collection.fields)
    if collection.partition_names and has_partition_key:
        yield "partition_names and a partition key exclude each other"
    if collection.partitions and not has_partition_key:
        yield "partitions counts those behind a partition key, and no field is one"
    zone = str(collection.properties.get(TIME_ZONE_PROPERTY, "UTC"))
    if not _is_time_zone(zone):
        yield f"the property {TIME_ZONE_PROPERTY!r} is {zone!r}, which is no time zone here"
    if collection.ttl_seconds < 0 or collection.shards < 1 or collection.partitions < 0:
        yield "ttl_seconds and partitions are at least 0, shards at least 1"


def _field_problems(each: Field) -> Iterator[str]:
    if each.type not in _VECTORS | _SCALARS:
        yield f"the type {each.type!r} is none of {comma_list(_VECTORS | _SCALARS)}"
        return
    yield from _size_problems(each)
    if each.primary and each.type not in _PRIMARY_TYPES:
        yield f"a primary key is INT64 or VARCHAR, not {each.type}"
    if each.primary and (each.nullable or each.default is not None):
        yield "a primary key is neither nullable nor has a default"
    wrong = wrong_default(each) if each.default is not None else ""
    if wrong:
        yield f"the default {each.default!r} {wrong}"


def _size_problems(each: Field) -> Iterator[str]:
    """What is wrong with the sizes that a type needs."""
    if each.type in _DENSE_VECTORS | {"BINARY_VECTOR"} and each.dim is None:
        yield "a vector needs dim"
    if each.type == "BINARY_VECTOR" and each.dim and each.dim % 8:
        yield f"dim {each.dim} of a binary vector is no multiple of 8"
    if each.type == "SPARSE_FLOAT_VECTOR" and each.dim:
        yield "a sparse vector has no dim"
    if each.type == "VARCHAR" and each.max_length is None:
        yield "a VARCHAR needs max_length"
    if each.type == "ARRAY":
        has_elements = each.element_type in _SCALARS - {"ARRAY", "JSON"}
        if not has_elements or each.max_capacity is None:
            yield "an ARRAY needs element_type and max_capacity"
    yield from _out_of_range(each)


def _out_of_range(each: Field) -> Iterator[str]:
    """The sizes that no server takes."""
    sizes = [
        ("dim", each.dim, _MAX_DIM * (8 if each.type == "BINARY_VECTOR" else 1)),
        ("max_length", each.max_length, _MAX_LENGTH),
        ("max_capacity", each.max_capacity, _MAX_CAPACITY),
    ]
    for name, size, largest in sizes:
        if size is not None and not 1 <= size <= largest:
            yield f"{name} {size} is not between 1 and {largest}"


def wrong_default(each: Field) -> str:
    """Why the field cannot have its default; empty when it can.

    The server would refuse such a default, or keep another value.
    """
    value = each.default
    if each.type in _INTEGER_BITS:
        return _wrong_integer(each.type, value)
    if each.type in {"FLOAT", "DOUBLE"}:
        return _wrong_number(each.type, value)
    if each.type == "BOOL":
        return "" if isinstance(value, bool) else "is neither True nor False"
    if each.type == "TIMESTAMPTZ":
        return _wrong_time(value)
    if each.type in {"VARCHAR", "TEXT", "GEOMETRY"}:
        return _wrong_text(each, value)
    return f"cannot be: Milvus keeps no default for {each.type}"


def _wrong_integer(kind: str, value: object) -> str:
    limit = 2 ** (_INTEGER_BITS[kind] - 1)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if is_integer and -limit <= value < limit:
        return ""
    return f"is no {kind} (an integer from {-limit} to {limit - 1})"


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
    try:
        length = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        return "has a character that UTF-8 cannot hold"
    if each.max_length and length > each.max_length:
        return f"has {length} bytes, and max_length is {each.max_length}"
    return ""


def _wrong_time(value: object) -> str:
    """What is wrong with a time.

    Microseconds since 1970 in UTC, a text in ISO 8601 and a datetime with a time zone are right.
    """
    if isinstance(value, datetime):
        return "" if value.tzinfo is not None else "has no time zone"
    if isinstance(value, int) and not isinstance(value, bool):
        return _wrong_microseconds(value)
    try:
        datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        return (
            "is no time: give a datetime with a time zone, a text in ISO 8601, "
            "or microseconds since 1970"
        )
    return ""


def _index_problems(index: Index, each: Field | None) -> Iterator[str]:
    if each is None:
        yield f"there is no field {index.field!r}"
        return
    is_vector = each.type in _VECTORS
    known = _VECTOR_INDEXES if is_vector else _SCALAR_INDEXES
    where = f"on {each.type} {index.field!r}"
    if index.type not in known:
        yield f"the type {index.type!r} {where} is none of {comma_list(known)}"
    if is_vector and index.metric not in _METRICS[each.type]:
        metrics = comma_list(_METRICS[each.type])
        yield f"the metric {index.metric!r} {where} is none of {metrics}"
    if not is_vector and index.metric:
        yield f"{index.field!r} is no vector and has no metric"
    yield from _parameter_problems(index, each)


def _parameter_problems(index: Index, each: Field) -> Iterator[str]:
    """Build parameters that no server takes."""
    where = f"on {each.type} {index.field!r}"
    for name in _unknown_parameters(index):
        known_names = comma_list(_PARAMETERS[index.type]) or "none"
        yield f"{index.type} {where} has no parameter {name!r} (it has {known_names})"
    for name, (least, most) in _RANGES.items():
        value = index.params.get(name)
        if value is not None and not _is_between(value, least, most):
            yield f"{name}={value!r} {where} is not between {least} and {most}"


def _unknown_parameters(index: Index) -> list[str]:
    """Parameters that no release of Milvus knows for this type of index."""
    known = _PARAMETERS.get(index.type)
    return [] if known is None else sorted(set(index.params) - known - _PLACE_PARAMETERS)


def _is_between(value: object, least: int, most: int) -> bool:
    """Whether a parameter is a whole number in this range. It may be written as a text."""
    text = normal_text(value)
    return text.isdecimal() and least <= int(text) <= most


def _wrong_microseconds(value: int) -> str:
    """What is wrong with microseconds since 1970."""
    try:
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
    except OverflowError:
        return "is not between the years 1 and 9999 (an integer is microseconds since 1970)"
    return ""


def _is_time_zone(name: str) -> bool:
    """Whether this machine knows a time zone of this name."""
    try:
        ZoneInfo(name)
    except (TypeError, ValueError, OSError, ZoneInfoNotFoundError):
        return False
    return True

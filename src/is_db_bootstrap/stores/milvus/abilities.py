"""Which release of Milvus can do what, and what Milvus Lite cannot.

Asked before anything is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from is_db_bootstrap.blueprint import Collection, Field
from is_db_bootstrap.errors import ConfigurationError, StoreConflict
from is_db_bootstrap.stores.milvus.check import refusals

#: Release that brought a field type, an index type, or something else (Milvus release notes 2.4 to
#: 2.6).
_FIELD_TYPES: Mapping[str, tuple[int, int]] = {
    "SPARSE_FLOAT_VECTOR": (2, 4),
    "FLOAT16_VECTOR": (2, 4),
    "BFLOAT16_VECTOR": (2, 4),
    "INT8_VECTOR": (2, 6),
    "GEOMETRY": (2, 6),
    "TIMESTAMPTZ": (2, 6),
}
_INDEX_TYPES: Mapping[str, tuple[int, int]] = {
    "SPARSE_INVERTED_INDEX": (2, 4),
    "SPARSE_WAND": (2, 4),
    "BITMAP": (2, 5),
    "HNSW_SQ": (2, 5),
    "HNSW_PQ": (2, 5),
    "HNSW_PRQ": (2, 5),
    "NGRAM": (2, 6),
    "IVF_RABITQ": (2, 6),
    "RTREE": (2, 6),
}
_NULLABLE, _CLUSTERING, _FUNCTIONS, _ANALYZER, _JSON_PATH = (2, 5), (2, 4), (2, 5), (2, 5), (2, 6)
#: What Milvus Lite refuses (3.2.2, tried): these types, and every scalar index but INVERTED.
_NOT_LITE = {"FLOAT16_VECTOR", "BFLOAT16_VECTOR", "INT8_VECTOR", "BINARY_VECTOR"}
_LITE_TOKENIZERS = {"standard", "jieba"}


def check(declared: Collection, release: tuple[int, ...], version: str, *, lite: bool) -> None:
    """Raise `StoreConflict` for the first thing that this server cannot do.

    An unknown release is believed to do all.

    What no server can take is a `ConfigurationError`. A blueprint that was not loaded by its name,
    or that `configure` made, has not been looked at before.
    """
    wrong = list(refusals(declared))
    if wrong:
        raise ConfigurationError(f"milvus: {'; '.join(wrong)}.")
    for name, what, since in _needed(declared):
        if not lite and release and release < since:
            raise _refusal(
                declared,
                name,
                what,
                f"Milvus {version}",
                f"It needs Milvus {since[0]}.{since[1]} or newer.",
            )
    for name, what in _not_lite(declared) if lite else ():
        raise _refusal(declared, name, what, f"Milvus Lite {version}", "It needs a Milvus server.")


def _refusal(declared: Collection, name: str, what: str, server: str, hint: str) -> StoreConflict:
    return StoreConflict(
        "milvus",
        f"{declared.name}.{name}: {server} does not support {what}; nothing was changed.",
        subject=f"{declared.name}.{name}",
        hint=hint,
    )


def _needed(declared: Collection) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Each thing that needs a release: where it is declared, what it is, since when it is there."""
    for each in declared.fields:
        yield from ((each.name, what, since) for what, since in _of_field(each))
    for index in declared.indexes:
        if since := _INDEX_TYPES.get(index.type.upper()):
            yield index.field, f"the index type {index.type}", since
        if "json_path" in index.params:
            yield index.field, "an index on a JSON path", _JSON_PATH
    for function in declared.functions:
        yield function.name, f"the function {function.type}", _FUNCTIONS


def _of_field(each: Field) -> Iterator[tuple[str, tuple[int, int]]]:
    if since := _FIELD_TYPES.get(each.type):
        yield f"the field type {each.type}", since
    if each.nullable:
        yield "nullable fields", _NULLABLE
    if each.default is not None:
        yield "default values", _NULLABLE
    if each.clustering_key:
        yield "clustering keys", _CLUSTERING
    if each.params.get("enable_analyzer") or each.params.get("enable_match"):
        yield "analysed text", _ANALYZER


def _not_lite(declared: Collection) -> Iterator[tuple[str, str]]:
    types = {each.name: each.type for each in declared.fields}
    for each in declared.fields:
        if each.type in _NOT_LITE:
            yield each.name, f"the field type {each.type}"
        tokenizer = (each.params.get("analyzer_params") or {}).get("type", "standard")
        if tokenizer not in _LITE_TOKENIZERS:
            yield each.name, f"the analyzer {tokenizer}"
    for index in declared.indexes:
        scalar = not types.get(index.field, "").endswith("VECTOR")
        if scalar and index.type != "INVERTED":
            yield index.field, f"the scalar index {index.type}"
        elif scalar and types.get(index.field) == "JSON":
            yield index.field, "an index on a JSON field"

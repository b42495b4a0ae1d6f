"""A declared Milvus collection against what the server reports of it.

No call to a server is made here.

What a server does not report is not compared. Milvus Lite leaves out description and build
parameters, and reports consistency level, number of partitions and (right after create) load state
wrongly, so those are never compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pymilvus
from pymilvus import DataType, FunctionType, MilvusClient

from is_db_bootstrap.blueprint import Collection, Field, Index
from is_db_bootstrap.stores.milvus import defaults

MODEL_PROPERTY, TTL_PROPERTY = "embedding.model", "collection.ttl.seconds"
UNSPECIFIED = "unspecified"
_GRAVE = {"dim", "metric", "embedding model"}
#: Scalar indexes that serve the same queries on VARCHAR; `INVERTED` is refused before 2.4.
_SAME_INDEX = {"INVERTED": {"INVERTED", "TRIE"}}


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
        made.add_field(each.name, DataType[each.type], **_arguments(each))
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


def _arguments(each: Field) -> dict[str, Any]:
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
    return f"({declared.name!r}, ({fields}), {indexes!r}, {declared.dynamic!r}, {declared.ttl_seconds!r}{later})"


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


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute that is not as declared. `object` is the collection, or `collection.field`."""

    object: str
    kind: str
    attribute: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.object}: {self.attribute} is {self.actual}, declared {self.expected}"


@dataclass(frozen=True, slots=True)
class Live:
    """What the server reports of one collection and its alias.

    `described` is None when the collection is missing, `indexes` has an entry a field with an
    index, `target` is the collection behind the alias, `loaded` None when it was not asked.
    `partitions` are the named ones, when any are declared.
    """

    described: Mapping[str, Any] | None = None
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: str | None = None
    loaded: bool | None = None
    partitions: frozenset[str] = frozenset()

    @property
    def properties(self) -> Mapping[str, str]:
        """The collection's properties; none when it is missing."""
        return (self.described or {}).get("properties") or {}


def state(described: Mapping[str, Any]) -> str:
    """`Finished`, `InProgress`, `Failed`, …; a server that reports none has finished."""
    return str(described.get("state") or "Finished")


def unindexed_rows(described: Mapping[str, Any]) -> int:
    """Rows that the index does not serve yet.

    Its state may be `Finished` before they are none (milvus#40580).
    """
    total, indexed = int(described.get("total_rows") or 0), int(described.get("indexed_rows") or 0)
    return max(int(described.get("pending_index_rows") or 0), total - indexed, 0)


def differences(declared: Collection, live: Live) -> list[Difference]:
    """Every attribute of an existing collection and its indexes that is not as declared.

    Missing indexes are none.

    What makes vectors useless comes first, since a message names five.
    """
    if live.described is None:
        return []
    found = [
        *_of_collection(declared, live),
        *_of_fields(declared, live.described),
        *_of_functions(declared, live.described),
    ]
    for index in declared.indexes:
        if index.field in live.indexes:
            found += _of_index(declared, index, live.indexes[index.field])
    return sorted(found, key=lambda d: d.attribute not in _GRAVE)


def _of_collection(declared: Collection, live: Live) -> Iterator[Difference]:
    described, properties = live.described or {}, live.properties
    facts = [
        ("name", declared.name, described.get("collection_name", declared.name)),
        ("dynamic field", declared.dynamic, bool(described.get("enable_dynamic_field"))),
        ("lifetime (s)", declared.ttl_seconds, max(0, int(properties.get(TTL_PROPERTY) or 0))),
    ]
    facts += [
        (key, value, properties[key])
        for key, value in declared_properties(declared).items()
        if key in properties
    ]
    model = recorded_model(live)
    if {declared.model, model}.isdisjoint({"", UNSPECIFIED}):
        facts.append(("embedding model", declared.model, model))
    yield from _unequal(declared.name, "collection", facts)


def declared_properties(declared: Collection) -> dict[str, str]:
    """The declared properties as Milvus keeps them: texts, where `True` is `"true"`."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in declared.properties.items()
    }


def recorded_model(live: Live) -> str:
    """The model in the property, else the one in the description, else empty."""
    found = re.search(
        r"\[embedding_model=([^;\]]*)", str((live.described or {}).get("description", ""))
    )
    return live.properties.get(MODEL_PROPERTY) or (found[1] if found else "")


def _of_fields(declared: Collection, described: Mapping[str, Any]) -> Iterator[Difference]:
    fields = {f["name"]: f for f in described["fields"]}
    for each in declared.fields:
        name = f"{declared.name}.{each.name}"
        if each.name not in fields:
            yield Difference(name, "field", "the field", each.type, "missing")
        else:
            yield from _unequal(name, "field", _field_facts(each, fields[each.name]))
            yield from _default_difference(declared, each, fields[each.name])
    known = {f.name for f in declared.fields}
    for name, found in fields.items():
        # A field that needs no value may be added by an application (since 2.6) and harms no
        # writer.
        if (
            name not in known
            and not found.get("nullable")
            and defaults.shown(found.get("default_value")) is None
        ):
            yield Difference(
                f"{declared.name}.{name}", "field", "the field", "none", _type_name(found)
            )


def _field_facts(declared: Field, found: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    params = found.get("params") or {}
    facts = [
        ("type", declared.type, _type_name(found)),
        ("primary key", declared.primary, bool(found.get("is_primary"))),
        ("auto id", declared.auto_id, bool(found.get("auto_id"))),
        ("partition key", declared.partition_key, bool(found.get("is_partition_key"))),
    ]
    facts += [("dim", declared.dim, _number(params.get("dim")))] if declared.dim else []
    facts += (
        [("max_length", declared.max_length, _number(params["max_length"]))]
        if declared.max_length and "max_length" in params
        else []
    )
    facts += (
        [("max_capacity", declared.max_capacity, _number(params.get("max_capacity")))]
        if declared.max_capacity
        else []
    )
    facts += (
        [("element type", declared.element_type, DataType(found["element_type"]).name)]
        if declared.element_type
        else []
    )
    facts += [("nullable", declared.nullable, bool(found.get("nullable")))]
    if "is_clustering_key" in found:
        facts.append(("clustering key", declared.clustering_key, bool(found["is_clustering_key"])))
    return facts


def _default_difference(
    collection: Collection, declared: Field, found: Mapping[str, Any]
) -> Iterator[Difference]:
    live = defaults.shown(found.get("default_value"))
    if not defaults.is_same(collection, declared, live):
        name = f"{collection.name}.{declared.name}"
        yield Difference(
            name, "field", "default", _shown_default(declared.default), _shown_default(live)
        )


def _shown_default(value: Any) -> str:
    """As Python writes it, so that an empty text and `0` differ from no default."""
    return "none" if value is None else repr(value)


def _of_functions(declared: Collection, described: Mapping[str, Any]) -> Iterator[Difference]:
    """Functions by name; a server that reports none although some are declared has none."""
    found = {f["name"]: f for f in described.get("functions") or ()}
    for each in declared.functions:
        name, live = f"{declared.name}.{each.name}", found.get(each.name)
        if live is None:
            yield Difference(name, "function", "the function", each.type, "missing")
            continue
        inputs, outputs = (
            tuple(live.get(f"{side}_field_names") or ()) for side in ("input", "output")
        )
        facts = [
            ("type", each.type, FunctionType(live["type"]).name),
            ("inputs", each.inputs, inputs),
            ("outputs", each.outputs, outputs),
        ]
        yield from _unequal(name, "function", facts)


def _type_name(found: Mapping[str, Any]) -> str:
    name: str = DataType(found["type"]).name
    return name


def _number(text: Any) -> Any:
    return int(text) if str(text).isdecimal() else text


def _of_index(declared: Collection, index: Index, found: Mapping[str, Any]) -> Iterator[Difference]:
    given = {**found, **(found.get("params") or {})}  # flat in 2.3, nested in later versions
    type_ = str(found.get("index_type", index.type))
    accepted = _SAME_INDEX.get(index.type.upper(), {index.type.upper()})
    facts = [("index type", index.type, index.type if type_.upper() in accepted else type_)]
    if index.metric:
        facts.append(("metric", index.metric, str(found.get("metric_type", index.metric))))
    for key, value in index.params.items():
        if key in given and not _same_parameter(value, given[key]):
            facts.append((key, str(value), str(given[key])))
    yield from _unequal(f"{declared.name}.{index.field}", "index", facts)


def _same_parameter(declared: Any, live: Any) -> bool:
    """Whether two values are one: servers send every parameter as text, `1.0` as `1` and `True` as `true`."""
    if isinstance(declared, bool):
        return str(declared).lower() == str(live).lower()
    if str(declared) == str(live):
        return True
    try:
        return float(declared) == float(live)
    except (TypeError, ValueError):
        return False


def _unequal(name: str, kind: str, facts: list[tuple[str, Any, Any]]) -> Iterator[Difference]:
    for attribute, expected, actual in facts:
        if expected != actual:
            yield Difference(name, kind, attribute, _shown(expected), _shown(actual))


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)

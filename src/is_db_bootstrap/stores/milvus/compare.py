"""A declared Milvus collection against what the server reports of it.

No call to a server is made here.

What a release leaves out or misreports stands in `releases`, and is not compared there. The
description is never compared: no application depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pymilvus import DataType, FunctionType

from is_db_bootstrap.blueprint import Collection, Field, Index
from is_db_bootstrap.engine.lineage import Lineage, Standing
from is_db_bootstrap.errors import APPLY, StoreConflict
from is_db_bootstrap.results import Change, Drift, Nature
from is_db_bootstrap.stores.milvus import defaults
from is_db_bootstrap.stores.milvus.errors import STORE
from is_db_bootstrap.stores.milvus.mending import (
    alias_call,
    index_calls,
    load_call,
    partition_call,
    property_call,
)
from is_db_bootstrap.stores.milvus.properties import normal_text, property_differences
from is_db_bootstrap.stores.milvus.releases import (
    ADDS_FIELDS_SINCE,
    CONSISTENCY,
    PARTITIONS,
    SHARDS,
    UNKNOWN_RELEASE,
    Release,
)
from is_db_bootstrap.stores.milvus.schema import MODEL_PROPERTY, shape, version_of

UNSPECIFIED = "unspecified"
#: What a server calls an index that is built.
FINISHED = "Finished"
#: As many differences as a message names.
_NAMED = 5
_GRAVE = {"dim", "metric", "embedding model"}
_THE_FIELD, _MISSING = "the field", "missing"
_THE_FUNCTION, _UNDECLARED = "the function", "none"
#: Scalar indexes that serve the same queries on VARCHAR; `INVERTED` is refused before 2.4.
_SAME_INDEX = {"INVERTED": {"INVERTED", "TRIE"}}


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
class AliasHome:
    """The collection to which a missing alias is to lead, so that its rows are found.

    `rival` is an earlier version that is there too, when the declared version has rows and no
    alias tells which of both is in use. Nobody but a person knows it then.
    """

    name: str
    rival: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """What the server reports of one collection and its alias.

    `described` is None when the collection is missing, `indexes` has an entry a field with an
    index, `target` is the collection behind the alias, `loaded` None when it was not asked.
    `partitions` are the named ones, when any are declared. `release` is the server's. `home` says
    where a missing alias is to lead.
    """

    described: Mapping[str, Any] | None = None
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: str | None = None
    loaded: bool | None = None
    partitions: frozenset[str] = frozenset()
    release: Release = UNKNOWN_RELEASE
    home: AliasHome | None = None

    @property
    def properties(self) -> Mapping[str, str]:
        """The collection's properties; none when it is missing."""
        return (self.described or {}).get("properties") or {}


def state(described: Mapping[str, Any]) -> str:
    """`Finished`, `InProgress`, `Failed`, …; a server that reports none has finished."""
    return str(described.get("state") or FINISHED)


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
    described = live.described or {}
    facts = [
        ("name", declared.name, described.get("collection_name", declared.name)),
        ("dynamic field", declared.dynamic, bool(described.get("enable_dynamic_field"))),
    ]
    told = [
        (CONSISTENCY, declared.consistency, described.get("consistency_level_name")),
        (SHARDS, declared.shards, described.get("num_shards")),
    ]
    if declared.partitions:
        told.append((PARTITIONS, declared.partitions, described.get("num_partitions")))
    untold = live.release.untold
    facts += [fact for fact in told if fact[0] not in untold and fact[2] is not None]
    model = recorded_model(live)
    if {declared.model, model}.isdisjoint({"", UNSPECIFIED}):
        facts.append(("embedding model", declared.model, model))
    yield from _unequal(declared.name, "collection", facts)


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
            yield Difference(name, "field", _THE_FIELD, each.type, _MISSING)
        else:
            yield from _unequal(name, "field", _field_facts(each, fields[each.name]))
            yield from _default_difference(declared, each, fields[each.name])
    known = {f.name for f in declared.fields}
    for name, found in fields.items():
        # A field that needs no value may be added by an application (since 2.6) and harms no
        # writer.
        has_default = defaults.shown(found.get("default_value")) is not None
        needs_value = not found.get("nullable") and not has_default
        if name not in known and needs_value:
            place = f"{declared.name}.{name}"
            yield Difference(place, "field", _THE_FIELD, _UNDECLARED, _type_name(found))


def _field_facts(declared: Field, found: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    params = found.get("params") or {}
    facts = [
        ("type", declared.type, _type_name(found)),
        ("primary key", declared.primary, bool(found.get("is_primary"))),
        ("auto id", declared.auto_id, bool(found.get("auto_id"))),
        ("partition key", declared.partition_key, bool(found.get("is_partition_key"))),
    ]
    if declared.dim:
        facts.append(("dim", declared.dim, _number(params.get("dim"))))
    if declared.max_length and "max_length" in params:
        facts.append(("max_length", declared.max_length, _number(params["max_length"])))
    if declared.max_capacity:
        capacity = _number(params.get("max_capacity"))
        facts.append(("max_capacity", declared.max_capacity, capacity))
    if declared.element_type:
        element_type = DataType(found["element_type"]).name
        facts.append(("element type", declared.element_type, element_type))
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
            yield Difference(name, "function", _THE_FUNCTION, each.type, _MISSING)
            continue
        inputs = tuple(live.get("input_field_names") or ())
        outputs = tuple(live.get("output_field_names") or ())
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
    """Whether two values are one.

    Servers send every parameter as text, `1.0` as `1` and `True` as `true`.
    """
    return normal_text(declared) == normal_text(live)


def _unequal(name: str, kind: str, facts: list[tuple[str, Any, Any]]) -> Iterator[Difference]:
    for attribute, expected, actual in facts:
        if expected != actual:
            yield Difference(name, kind, attribute, _shown(expected), _shown(actual))


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def goes_beyond(declared: Collection, target: str | None) -> bool:
    """Whether the alias points to a later version of the collection.

    Someone has re-embedded and moved it then. The names of the versions tell their order.
    """
    return _standing(declared, target) is Standing.AHEAD


def lags_behind(declared: Collection, target: str | None) -> bool:
    """Whether the alias points to an earlier version of the collection.

    The declared version is new then, and the alias moves when its rows are there.
    """
    return _standing(declared, target) is Standing.PENDING


def _standing(declared: Collection, target: str | None) -> Standing | None:
    """How the version behind the alias stands to the declared one. None for another family."""
    family, version = version_of(declared.name)
    found_family, found = version_of(target or "")
    if family != found_family:
        return None
    recorded, ours = _line(found, version, until=found), _line(found, version, until=version)
    return recorded.compare(ours).standing


def _line(*versions: int, until: int) -> Lineage:
    """The versions of one collection, in their order, up to one of them."""
    return Lineage.in_order(*(str(number) for number in sorted({*versions}) if number <= until))


def refuse_different(
    declared: Collection, live: Live, is_collection: Callable[[str], bool]
) -> None:
    """Raise `StoreConflict` for what is present but different.

    Expected, actual and the way out are in it. `is_collection` says whether there is a collection
    of that very name.
    """
    found = differences(declared, live)
    if found:
        raise different(declared, found, live.release)
    is_foreign = live.target not in {None, declared.name} and not lags_behind(declared, live.target)
    if is_foreign:
        family, _ = version_of(declared.name)
        raise StoreConflict(
            STORE,
            f"Alias {declared.alias} points to {live.target}, declared {declared.name}.",
            subject=declared.alias,
            hint=f"{live.target} is no version of {family}. To move the alias back: "
            f"MilvusClient.alter_alias({declared.name!r}, {declared.alias!r}).",
        )
    _refuse_rival(declared, live)
    if live.described is None and is_collection(declared.alias):
        raise StoreConflict(
            STORE,
            f"A collection has the name {declared.alias}, "
            f"which is declared as an alias of {declared.name}.",
            hint="Rename that collection (MilvusClient.rename_collection), or have the application "
            f"use {declared.name}.",
            subject=declared.alias,
        )


def different(
    declared: Collection, found: Sequence[Difference], release: Release = UNKNOWN_RELEASE
) -> StoreConflict:
    """The conflict of a collection that differs in `found`, with what to type."""
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    named = "; ".join(map(str, found[:_NAMED]))
    addable = [_addable_field(declared, each) for each in found]
    if all(addable):
        way_out = _add_fields(declared, [each for each in addable if each], release)
    elif all(each.kind == "index" for each in found):
        way_out = _build_again(declared, found)
    else:
        way_out = _new_version(declared)
    return StoreConflict(
        STORE,
        f"Collection {declared.name} differs from the blueprint: {named}{more}.",
        hint=f"Nothing was changed and nothing is ever dropped. {way_out} "
        "To keep what is there: give the settings it was made with.",
        subject=found[0].object,
    )


def _new_version(declared: Collection) -> str:
    """What to do when a collection cannot be changed in place."""
    return f"To have what is declared: {_declare_next(declared)}"


def _declare_next(declared: Collection) -> str:
    """How the next version takes the place of this one, as the end of a sentence."""
    family, version = version_of(declared.name)
    name = f"{family}_v{version + 1}"
    if not declared.alias:
        return f"declare it as {name}, with an alias for applications."
    return (
        f"declare it as {name} with the same alias, and type "
        "`is-db-bootstrap apply`, then `is-db-bootstrap vector upgrade`, which copies the rows or "
        f"embeds them again and moves the alias {declared.alias}."
    )


def _build_again(declared: Collection, found: Sequence[Difference]) -> str:
    """The calls that drop indexes, which the next run builds as declared."""
    fields = dict.fromkeys(each.object.removeprefix(f"{declared.name}.") for each in found)
    calls = [f"release_collection({declared.name!r})"]
    calls += [f"drop_index({declared.name!r}, {field!r})" for field in fields]
    return (
        f"To have the index as declared: call MilvusClient.{', '.join(calls)}, then type "
        "`is-db-bootstrap apply`. The rows stay, and searches fail meanwhile. So that searches go "
        f"on: {_declare_next(declared)}"
    )


def _addable_field(declared: Collection, difference: Difference) -> Field | None:
    """The declared field that is missing and that a server can add, because rows need no value."""
    if difference.attribute != _THE_FIELD or difference.actual != _MISSING:
        return None
    name = difference.object.removeprefix(f"{declared.name}.")
    each = next(field for field in declared.fields if field.name == name)
    return each if each.nullable and not each.type.endswith("VECTOR") else None


def _add_fields(declared: Collection, added: Sequence[Field], release: Release) -> str:
    """The calls that add fields in place, and the release that has them."""
    calls = " and ".join(_call_to_add(declared, each) for each in added)
    since = ".".join(map(str, ADDS_FIELDS_SINCE))
    if release.can_add_fields:
        return f"To add the field in place (Milvus {since} or newer): call {calls}, and run again."
    return (
        f"{release.label} cannot add a field in place. Milvus {since} or newer can: {calls}. "
        f"Or else {_declare_next(declared)}"
    )


def _call_to_add(declared: Collection, each: Field) -> str:
    sizes = [("max_length", each.max_length), ("max_capacity", each.max_capacity)]
    given = [f", {name}={size}" for name, size in sizes if size]
    if each.element_type:
        given.append(f", element_type=DataType.{each.element_type}")
    if each.default is not None:
        given.append(f", default_value={each.default!r}")
    return (
        f"MilvusClient.add_collection_field({declared.name!r}, {each.name!r}, "
        f"DataType.{each.type}, nullable=True{''.join(given)})"
    )


def _change(
    name: str,
    kind: str,
    detail: str = "",
    *,
    expected: str | None = None,
    actual: str | None = None,
) -> Change:
    """A step of Milvus. What is there already is found and compared, so it may run again."""
    return Change(name, kind, detail, Nature.REPEATABLE, expected=expected, actual=actual)


def missing(
    declared: Collection, live: Live, definition: Callable[[Collection, Index], str]
) -> Iterator[Change]:
    """What is to be made of a collection, in order; `definition` tells an index in words."""
    if live.described is None:
        yield _change(declared.name, "collection", shape(declared))
    for name in declared.partition_names:
        if name not in live.partitions:
            yield _change(f"{declared.name}.{name}", "partition")
    for index in declared.indexes:
        found = live.indexes.get(index.field)
        if found is None or state(found) != FINISHED:
            name = f"{declared.name}.{index.field}"
            yield _change(name, "index", definition(declared, index))
    if live.described is not None:
        for each in property_differences(declared, live.properties):
            yield _change(
                f"{declared.name}.{each.key}",
                "property",
                each.words,
                expected=each.expected,
                actual=each.actual,
            )
    is_left_behind = live.described is None and live.target == declared.name
    if declared.alias and (live.target is None or is_left_behind):
        target = _first_target(declared, live)
        yield _change(declared.alias, "alias", target, expected=declared.name)
    if declared.load and not live.loaded:
        yield _change(declared.name, "load", expected="loaded")


def _first_target(declared: Collection, live: Live) -> str:
    """Where a missing alias is made to lead, and what moves it from there."""
    home = live.home.name if live.home else declared.name
    if home == declared.name:
        return f"points to {declared.name}"
    return alias_stays(declared, home)


def _refuse_rival(declared: Collection, live: Live) -> None:
    """Refuse to choose between two versions with rows, of which no alias tells the one in use."""
    rival = live.home.rival if live.home else ""
    if not rival:
        return
    raise StoreConflict(
        STORE,
        f"Alias {declared.alias} is missing. {declared.name} has rows, and an earlier version "
        f"{rival} is there too.",
        subject=declared.alias,
        hint=f"If {declared.name} has all the rows: MilvusClient.create_alias({declared.name!r}, "
        f"{declared.alias!r}). Otherwise: MilvusClient.create_alias({rival!r}, "
        f"{declared.alias!r}), and then `is-db-bootstrap vector upgrade {declared.alias}`.",
    )


def drifts(
    declared: Collection, live: Live, definition: Callable[[Collection, Index], str]
) -> Iterator[Drift]:
    """Everything of a collection and its alias that is missing or different."""
    if declared.alias and live.target != declared.name:
        yield from _alias_drift(declared, live)
    if live.described is None:
        yield Drift(declared.name, "collection", "is missing", shape(declared), None, APPLY)
        return
    for each in differences(declared, live):
        yield _attribute_drift(declared, each, live.release)
    for wrong in property_differences(declared, live.properties):
        name = f"{declared.name}.{wrong.key}"
        call = property_call(declared, wrong.key, wrong.expected)
        yield _mendable(Drift(name, "property", wrong.words, wrong.expected, wrong.actual, call))
    for index in declared.indexes:
        if drift := _index_drift(declared, index, live, definition):
            yield drift
    for name in declared.partition_names:
        if name not in live.partitions:
            call = partition_call(declared, name)
            place = f"{declared.name}.{name}"
            yield _mendable(Drift(place, "partition", "is missing", name, None, call))
    if declared.load and not live.loaded:
        message = "is not loaded, so it cannot be searched"
        load = load_call(declared)
        yield _mendable(Drift(declared.name, "load", message, "loaded", None, load))


def _mendable(drift: Drift) -> Drift:
    """The drift, which `repair` mends by the calls that are its fix."""
    statements = tuple((drift.fix or "").splitlines())
    return replace(drift, statements=statements, can_repair=True)


def _index_drift(
    declared: Collection,
    index: Index,
    live: Live,
    definition: Callable[[Collection, Index], str],
) -> Drift | None:
    """An index that is missing, is not built yet, or could not be built."""
    found = live.indexes.get(index.field)
    actual = None if found is None else state(found)
    if actual == FINISHED:
        return None
    name, expected = f"{declared.name}.{index.field}", definition(declared, index)
    message = f"is {actual or _MISSING}"
    drift = Drift(name, "index", message, expected, actual, APPLY)
    # One that failed has to be dropped first.
    return replace(drift, can_repair=actual != "Failed")


def _attribute_drift(declared: Collection, found: Difference, release: Release) -> Drift:
    """One attribute that differs, with what mends it.

    An index can be built again, and some releases take another field. Nothing else of a collection
    changes in place.
    """
    message = f"{found.attribute} is {found.actual}, declared {found.expected}"
    fix, reason = None, _new_version(declared)
    added = _addable_field(declared, found)
    if found.kind == "index":
        fix, reason = index_calls(declared, [found.object.removeprefix(f"{declared.name}.")]), ""
    elif added and release.can_add_fields:
        call = _call_to_add(declared, added).removeprefix("MilvusClient.")
        fix, reason = f"client.{call}", ""
    is_missing, is_extra = found.actual == _MISSING, found.expected == _UNDECLARED
    is_object = found.attribute in {_THE_FIELD, _THE_FUNCTION}
    return Drift(
        found.object,
        found.kind,
        message,
        None if is_object and is_extra else found.expected,
        None if is_object and is_missing else found.actual,
        fix,
        reason,
        statements=tuple(call for call in (fix or "").splitlines() if call != APPLY),
    )


def _alias_drift(declared: Collection, live: Live) -> Iterator[Drift]:
    """An alias that does not lead to the declared collection.

    One that leads to an earlier version is awaited to move, or moves by hand.
    """
    message, is_awaited = "is missing", False
    # Which version has the rows is found out by a run.
    fix = APPLY if live.target is None else alias_call(declared)
    statements: tuple[str, ...] = () if live.target is None else (fix,)
    if lags_behind(declared, live.target):
        if declared.alias_moves == "by hand":
            return
        message, is_awaited = alias_stays(declared, live.target), True
        fix, statements = f"is-db-bootstrap vector upgrade {declared.alias}", ()
    elif live.target is not None:
        message = f"points to {live.target}, declared {declared.name}"
    yield Drift(
        declared.alias,
        "alias",
        message,
        declared.name,
        live.target,
        fix,
        is_awaited=is_awaited,
        statements=statements,
        can_repair=live.target is None and live.described is not None,
    )


def alias_stays(declared: Collection, target: str | None) -> str:
    """Where the alias leads, and what moves it."""
    moves = "`is-db-bootstrap vector upgrade` copies the rows and moves it"
    if declared.alias_moves == "by hand":
        moves = "it is declared to move by hand"
    return f"leads to {target}, an earlier version of {declared.name}; {moves}"

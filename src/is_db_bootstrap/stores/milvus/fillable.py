"""Whether the rows of one version can be made from those of another, seen before the first row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pymilvus import DataType

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.milvus.compare import UNSPECIFIED, Live, recorded_model
from is_db_bootstrap.stores.milvus.errors import STORE

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection, Field

#: Types whose values another type holds as well.
_WIDER: Mapping[str, set[str]] = {
    "INT8": {"INT16", "INT32", "INT64"},
    "INT16": {"INT32", "INT64"},
    "INT32": {"INT64"},
    "FLOAT": {"DOUBLE"},
}


def primary_field(declared: Collection) -> Field:
    """The field that is the primary key."""
    return next(each for each in declared.fields if each.primary)


def made_by_functions(declared: Collection) -> set[str]:
    """Fields that the server fills."""
    return {name for function in declared.functions for name in function.outputs}


def copied_fields(declared: Collection, source: Mapping[str, Any]) -> list[str]:
    """The declared fields that a row of the source has in a form that fits."""
    found = {each["name"]: each for each in source["fields"]}
    made = made_by_functions(declared)
    return [
        each.name
        for each in declared.fields
        if each.name in found and each.name not in made and _fits(each, found[each.name])
    ]


def unfit_fields(declared: Collection, source: Mapping[str, Any]) -> list[str]:
    """The declared fields that the source has too, but of another type."""
    found = {each["name"]: each for each in source["fields"]}
    made = made_by_functions(declared)
    return [
        each.name
        for each in declared.fields
        if each.name in found
        and each.name not in made
        and not each.auto_id
        and not _fits(each, found[each.name])
    ]


def dropped_fields(declared: Collection, source: Mapping[str, Any]) -> list[str]:
    """The fields of the source for whose values the declared version has no place.

    What functions of the source made is made again, and is none of them.
    """
    kept = {each.name for each in declared.fields}
    made = {n for each in source.get("functions") or () for n in each["output_field_names"]}
    names = [each["name"] for each in source["fields"]]
    return [name for name in names if name not in kept | made]


def _fits(declared: Field, found: Mapping[str, Any]) -> bool:
    """Whether a value of the source's field is one of the declared field."""
    kind: str = DataType(found["type"]).name
    if declared.primary and declared.auto_id:
        return False
    if kind != declared.type and declared.type not in _WIDER.get(kind, set()):
        return False
    if declared.element_type:
        return bool(DataType(found["element_type"]).name == declared.element_type)
    dim = (found.get("params") or {}).get("dim")
    return not declared.dim or int(dim or 0) == declared.dim


def refuse_unfillable(declared: Collection, source: Mapping[str, Any]) -> None:
    """Raise `StoreConflict` when rows of the source cannot become rows of the declared version.

    A function `reembed` may give every field, so its rows are looked at one by one instead.
    """
    if declared.reembed is not None:
        return
    wrong = list(_unfillable(declared, source))
    if not wrong:
        return
    raise StoreConflict(
        STORE,
        f"The rows of {source['collection_name']} cannot be copied to {declared.name}: "
        f"{'; '.join(wrong)}.",
        subject=declared.name,
        hint=f"Give the collection a function that makes them: Collection({declared.name!r}, …, "
        "reembed=embed_rows), where embed_rows(rows) returns a list of dictionaries, one for each "
        "row, with the fields that are new. Then type `is-db-bootstrap vector upgrade` again.",
    )


def _unfillable(declared: Collection, source: Mapping[str, Any]) -> Iterator[str]:
    copied = set(copied_fields(declared, source))
    made = made_by_functions(declared)
    found = {each["name"]: each for each in source["fields"]}
    unfit = set(unfit_fields(declared, source))
    for each in declared.fields:
        needs_value = not (each.nullable or each.default is not None or each.auto_id)
        if each.name in copied | made:
            continue
        # A nullable field that is there in another type would lose its values.
        if each.name in unfit:
            yield f"{each.name} is {_type_text(found[each.name])} there and {_declared_text(each)}"
        elif needs_value and not _may_be_dynamic(each, source):
            yield f"{each.name} is not there"
    model = recorded_model(Live(source))
    has_vectors = any(name in copied for name in _vectors(declared))
    is_other = declared.model != model and {declared.model, model}.isdisjoint({"", UNSPECIFIED})
    if has_vectors and is_other:
        yield f"its vectors are of the model {model}, and {declared.model} is declared"


def _may_be_dynamic(each: Field, source: Mapping[str, Any]) -> bool:
    """Whether rows of the source may have the value among their dynamic ones."""
    return bool(source.get("enable_dynamic_field")) and not each.type.endswith("VECTOR")


def _vectors(declared: Collection) -> list[str]:
    return [each.name for each in declared.fields if each.type.endswith("VECTOR")]


def _type_text(found: Mapping[str, Any]) -> str:
    dim = (found.get("params") or {}).get("dim")
    return f"{DataType(found['type']).name}{f'[{dim}]' if dim else ''}"


def _declared_text(each: Field) -> str:
    return f"{each.type}{f'[{each.dim}]' if each.dim else ''} is declared"

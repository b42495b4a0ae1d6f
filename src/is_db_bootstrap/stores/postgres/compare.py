"""The declared objects of a schema against the live ones, object by object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from is_db_bootstrap.results import Drift
from is_db_bootstrap.stores.postgres.catalogue import PARTITION, Objects

#: Kinds of object that belong to a table; their names begin with it.
PARTS = ("column", "constraint", "index", "trigger", "policy")
#: Kinds whose undeclared objects are worth telling. Functions, types and views of others in the
#: schema are their business.
AUDITED = ("table", *PARTS)


def drifts(declared: Objects, found: Objects) -> Iterator[Drift]:
    """Every declared object that is missing or different.

    Of a missing table, the table alone.
    """
    tables = found.get("table", {})
    for kind, objects in declared.items():
        for name, expected in objects.items():
            actual = found.get(kind, {}).get(name)
            if actual == expected or _is_part_of_another(kind, name, tables):
                continue
            yield _drift(kind, name, expected, actual)


def findings(declared: Objects, found: Objects) -> Iterator[Drift]:
    """Undeclared tables of the schema, and undeclared parts of the declared tables.

    A partition of a declared table is part of that table, whoever made it and whenever.
    """
    tables = declared.get("table", {})
    partitions = {name for name, root in found.get(PARTITION, {}).items() if root in tables}
    for kind in AUDITED:
        for name, actual in found.get(kind, {}).items():
            is_declared = name in declared.get(kind, {})
            is_partition = kind == "table" and name in partitions
            if is_declared or is_partition or _is_part_of_another(kind, name, tables):
                continue
            message = "is not declared by the blueprint"
            yield Drift(name, kind, message, None, actual, finding=True)


def in_schema(schema: str, found: Iterable[Drift]) -> Iterator[Drift]:
    """The same drifts, each with the name of its schema before that of its object."""
    for each in found:
        yield replace(each, object=f"{schema}.{each.object}")


def _is_part_of_another(kind: str, name: str, tables: Mapping[str, str]) -> bool:
    """Whether it is a part of a table that is none of `tables`."""
    return kind in PARTS and name.partition(".")[0] not in tables


def _drift(kind: str, name: str, expected: str, actual: str | None) -> Drift:
    if actual is None:
        return Drift(name, kind, "is missing", expected)
    if actual == f"{expected} INVALID":
        message = (
            "is invalid: its creation was interrupted. Drop it and create it again, or REINDEX it"
        )
        return Drift(name, kind, message, expected, actual)
    message = f"is {_brief(actual)}, declared as {_brief(expected)}"
    return Drift(name, kind, message, expected, actual)


def _brief(text: str) -> str:
    longest = 200
    return text if len(text) <= longest else f"{text[:longest]}…"

"""The declared objects of a schema against the live ones, object by object."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from is_db_bootstrap.results import Drift
from is_db_bootstrap.stores.postgres.catalogue import (
    GRANTS,
    PARTITION,
    PRIVILEGES,
    QUERIES,
    Catalogue,
    Objects,
    first_part,
    named_roles,
)
from is_db_bootstrap.stores.postgres.dump_form import (
    INVALID,
    is_same,
    is_unfinished,
    same_after_restore,
)

#: Kinds of object that have parts.
_WHOLES = ("table", *QUERIES)
#: Kinds of object that belong to a table or a view; their names begin with its name.
PARTS = frozenset(
    {
        "column",
        "constraint",
        "index",
        "trigger",
        "policy",
        "policy roles",
        "rule",
        "statistics",
        "replica identity",
        "table option",
        "view option",
        "view column",
        "owner",
        "grant",
    }
)
#: Kinds whose undeclared objects are worth telling. Functions, types and views of others in the
#: schema are their business. So is how a table is tuned.
AUDITED = (
    "table",
    "column",
    "constraint",
    "index",
    "trigger",
    "policy",
    "rule",
    "statistics",
    "replica identity",
    "view option",
    "view column",
)
OF_VIEWS = frozenset({"view option", "view column"})
#: Kinds of grant, each with the kinds of object that it is on.
_GRANTED_ON = {
    "grant": _WHOLES,
    "sequence grant": ("sequence",),
    "function grant": ("function", "procedure", "aggregate"),
    "type grant": ("enum", "domain", "composite type", "range type", "base type"),
    "foreign server grant": ("foreign server",),
}
_COLUMNS_FIRST = "Columns of its table differ. Mend those first."
#: A text in quotes, or a name with a dot behind it.
_QUALIFIER = re.compile(r"('(?:[^']|'')*')|(?:[^\W\d]\w*|\"(?:[^\"]|\"\")*\")\.")


def drifts(
    declared: Objects,
    found: Objects,
    *,
    roles: Collection[str] = (),
    exact_queries: bool = True,
) -> Iterator[Drift]:
    """Every declared object that is missing or different.

    Of a missing table, the table alone. What is declared of a role that is none of `roles`, those
    of the server, is left out; `missing_roles` tells it. With `exact_queries` false, a query is
    compared without the tables of its columns: the server writes them where another version does
    not.
    """
    wholes = _names_of(found, _WHOLES)
    roles_there = frozenset(roles)
    for kind, objects in declared.items():
        for name, expected in objects.items():
            actual = found.get(kind, {}).get(name)
            if is_same(expected, actual) or _is_part_of_another(kind, name, wholes):
                continue
            if kind in QUERIES and not exact_queries and _is_same_query(expected, actual):
                continue
            if not roles_there.issuperset(named_roles(kind, name, expected)):
                continue
            yield _drift(kind, name, expected, actual)


def findings(declared: Objects, found: Objects) -> Iterator[Drift]:
    """Undeclared tables of the schema, and undeclared parts of the declared tables and views.

    A partition of a declared table is part of that table, whoever made it and whenever.
    """
    tables = declared.get("table", {})
    wholes = _names_of(declared, _WHOLES)
    partitions = {name for name, root in found.get(PARTITION, {}).items() if root in tables}
    for kind in AUDITED:
        for name, actual in found.get(kind, {}).items():
            is_declared = name in declared.get(kind, {})
            is_partition = kind == "table" and name in partitions
            if is_declared or is_partition or _is_part_of_another(kind, name, wholes):
                continue
            message = "is not declared by the blueprint"
            yield Drift(name, kind, message, None, actual, finding=True)
    yield from _undeclared_grants(declared, found)


def _undeclared_grants(declared: Objects, found: Objects) -> Iterator[Drift]:
    """The grants on declared objects that no revision makes: one for each role.

    Where revisions grant nothing, grants are the business of others.
    """
    if not any(kind in declared for kind in GRANTS):
        return
    by_role: dict[str, list[tuple[str, str, str]]] = {}
    for kind, on_kinds in _GRANTED_ON.items():
        objects = _names_of(declared, on_kinds)
        for name, actual in found.get(kind, {}).items():
            on, _, role = name.rpartition(" to ")
            is_on_declared = (first_part(on) if kind == "grant" else on) in objects
            if is_on_declared and name not in declared.get(kind, {}):
                by_role.setdefault(role, []).append((kind, name, actual))
    for role, grants in by_role.items():
        kind, name, actual = grants[0]
        others = f", nor are {len(grants) - 1} more to {role}" if len(grants) > 1 else ""
        message = f"is not declared by the blueprint{others}"
        yield Drift(name, kind, message, None, actual, finding=True)


def missing_roles(catalogue: Catalogue, there: Collection[str]) -> Iterator[Drift]:
    """Each role that the catalogue names and the server does not have, with what is not compared.

    These are remarks, no drift: who may do what differs from place to place.
    """
    counts: Counter[str] = Counter()
    for objects in (catalogue.objects, *catalogue.schemas.values()):
        for kind in PRIVILEGES.intersection(objects):
            for name, definition in objects[kind].items():
                counts.update(named_roles(kind, name, definition))
    for role, count in sorted(counts.items()):
        if role not in there:
            what = (
                "1 declared owner or grant is"
                if count == 1
                else (f"{count} declared owners and grants are")
            )
            message = f"is not on this server, so {what} not compared"
            yield Drift(role, "role", message)


def after_columns(drifts: Iterable[Drift]) -> list[Drift]:
    """The drifts, of which none can be repaired on a table whose columns differ.

    A column whose rows were not checked yet is as declared for the others.
    """
    found = list(drifts)
    tables = {
        first_part(each.object)
        for each in found
        if each.kind == "column" and not is_unfinished(each.expected, each.actual)
    }
    return [
        replace(each, can_repair=False, not_repaired=_COLUMNS_FIRST)
        if each.can_repair and first_part(each.object) in tables
        else each
        for each in found
    ]


def in_schema(schema: str, found: Iterable[Drift]) -> Iterator[Drift]:
    """The same drifts, each with the name of its schema before that of its object."""
    for each in found:
        yield replace(each, object=f"{schema}.{each.object}")


def _names_of(objects: Objects, kinds: Iterable[str]) -> frozenset[str]:
    return frozenset(name for kind in kinds for name in objects.get(kind, ()))


def _is_part_of_another(kind: str, name: str, wholes: Collection[str]) -> bool:
    """Whether it is a part of a table or a view that is none of `wholes`."""
    return kind in PARTS and first_part(name) not in wholes


def _is_same_query(expected: str, actual: str | None) -> bool:
    if actual is None:
        return False
    expected, actual = same_after_restore(expected), same_after_restore(actual)
    return _unqualified(expected) == _unqualified(actual)


def _unqualified(query: str) -> str:
    """A query without the names before a dot. Texts in quotes stay."""
    return _QUALIFIER.sub(lambda found: found[1] or "", query)


def _drift(kind: str, name: str, expected: str, actual: str | None) -> Drift:
    if actual is None:
        return Drift(name, kind, "is missing", expected)
    if is_same(f"{expected} {INVALID}", actual):
        message = (
            "is invalid: its creation was interrupted. Drop it and create it again, or REINDEX it"
        )
        return Drift(name, kind, message, expected, actual)
    message = f"is {_brief(actual)}, declared as {_brief(expected)}"
    return Drift(name, kind, message, expected, actual)


def _brief(text: str) -> str:
    longest = 200
    return text if len(text) <= longest else f"{text[:longest]}…"

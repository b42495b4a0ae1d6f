"""Declared constraints and indexes against the live ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Drift
from is_db_bootstrap.stores.neo4j.cypher_schema import LiveIndex, LiveSchema, SchemaObject
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.mending import FROM_FILE, creation, removal, waiting


def drifts(wanted: Iterable[SchemaObject], live: LiveSchema) -> Iterator[Drift]:
    """Each object that is missing, different, or not usable."""
    for thing in wanted:
        if found := _drift(thing, live):
            yield found


def findings(
    declared: Mapping[str, SchemaObject], own: Iterable[str], live: LiveSchema
) -> Iterator[Drift]:
    """Constraints and indexes that are neither declared nor one of `own`, which are names.

    The server's own token lookups are none.
    """
    known = {*declared, *own}
    for thing in live.objects.values():
        if thing.name in known or thing.type == "LOOKUP":
            continue
        if any(wanted.matches(thing) for wanted in declared.values()):
            continue
        actual = described(thing)
        drop = f"{removal(thing)};"
        message = "is not declared"
        found = Drift(thing.name, thing.kind, message, None, actual, fix=drop, finding=True)
        yield replace(found, statements=(drop,))


def _drift(wanted: SchemaObject, live: LiveSchema) -> Drift | None:
    found = live.find(wanted)
    name, expected = wanted.name or wanted.definition, described(wanted)
    if found is None:
        return _with_fix(Drift(name, wanted.kind, "is missing", expected), wanted, None)
    if not wanted.matches(found):
        differs = Drift(name, wanted.kind, "differs", expected, described(found))
        return _with_fix(differs, wanted, found)
    index = live.indexes.get(found.name)
    if index is None or index.state == "ONLINE":
        return None
    message = f"is {index.state}: {why_unusable(index)}"
    unusable = Drift(name, wanted.kind, message, "ONLINE", index.state)
    if index.state == "FAILED":
        return _with_fix(unusable, wanted, found)
    wait = f"{waiting(index.name)};"
    return replace(unusable, fix=wait, statements=(wait,))


def _with_fix(drift: Drift, wanted: SchemaObject, found: SchemaObject | None) -> Drift:
    """The drift with the statements that make the object as declared, after a drop if need be."""
    create = creation(wanted)
    if create is None:
        return replace(drift, reason=FROM_FILE)
    drop = [] if found is None else [removal(found)]
    statements = tuple(f"{statement};" for statement in [*drop, create])
    is_missing = found is None
    return replace(drift, fix="\n".join(statements), statements=statements, can_repair=is_missing)


def why_unusable(index: LiveIndex) -> str:
    """Where the server says why an index is not usable: what it says may name values of rows."""
    if index.failure.strip():
        return f"see failureMessage of SHOW INDEXES WHERE name = '{index.name}'"
    return "not usable yet"


def different(wanted: SchemaObject, live: SchemaObject, file: str) -> StoreConflict:
    """The conflict of one name and two definitions."""
    is_index_of_constraint = wanted.kind == "constraint" and live.kind == "index"
    whose = ""
    if is_index_of_constraint:
        whose = "A server that is killed while it makes a constraint leaves such an index. "
    return StoreConflict(
        STORE,
        f"{wanted.name} of {file} is declared as {described(wanted)}, "
        f"but the database has {described(live)} of that name.",
        hint=f"{whose}It is left as it is. Drop it (DROP {live.kind.upper()} {live.name}) or give "
        "the new one another name.",
        subject=wanted.name,
    )


def described(thing: SchemaObject) -> str:
    """Its definition with its options."""
    options = ", ".join(f"{k}: {v}" for k, v in thing.options)
    return thing.definition + (f" {{{options}}}" if options else "")


def twins(wanted: Iterable[SchemaObject], live: LiveSchema) -> list[str]:
    """Notes about declared objects that are there under another name."""
    found = ((w, live.find(w)) for w in wanted if w.name)
    return [
        f"{w} is there under the name {o.name}, which is accepted."
        for w, o in found
        if o is not None and o.name != w.name
    ]

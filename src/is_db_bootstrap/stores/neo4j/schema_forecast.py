"""What pending Cypher files will meet.

Conflicts of names and definitions are found before anything is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.neo4j.compare import different
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.cypher_schema import Drop, LiveSchema, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.kind import STORE

#: An index of this type stands behind these constraints, so that both cannot be on one schema
#: (neo4j#1538).
_BACKED = {"UNIQUENESS", "KEY"}
_BACKING = "RANGE"
#: Constraints that the Community Edition refuses.
_ENTERPRISE_ONLY = {"KEY", "EXISTENCE", "TYPE"}


def declared(files: Iterable[CypherFile]) -> dict[str, SchemaObject]:
    """What is there after all of `files`: by name, or by definition for what has no name."""
    objects: dict[str, SchemaObject] = {}
    for file in files:
        for statement in file.statements:
            found = recognise(statement.tokens)
            if isinstance(found, Drop):
                objects.pop(found.name, None)
            elif found is not None:
                objects[found.name or found.definition] = found
    return objects


@dataclass(frozen=True, slots=True)
class Forecast:
    """The objects that pending files will make.

    `new` are judged by the data that is there now. Of `unforeseen`, by name or definition, that is
    not possible: the script that is named comes first, and may change data.
    """

    new: tuple[SchemaObject, ...]
    unforeseen: Mapping[str, str]

    def notes(self) -> list[str]:
        """What is not known before the scripts have run."""
        return [
            f"Whether values block {name} depends on what {script} does, so it is looked at right "
            "before the constraint is made."
            for name, script in self.unforeseen.items()
        ]


def forecast(
    files: Iterable[CypherFile], live: LiveSchema, *, edition: str = "", before: str = ""
) -> Forecast:
    """Go through pending files on paper.

    `before` names a script that runs before them and may change data. Raises `StoreConflict` for a
    name that stands for something else, for an index that is in a constraint's way, and for what
    the `edition` of the server refuses.
    """
    objects = dict(live.objects)
    new: list[SchemaObject] = []
    unforeseen: dict[str, str] = {}
    changed_by = before
    for file in files:
        for statement in file.statements:
            if statement.may_change_data:
                changed_by = file.name
            found = recognise(statement.tokens)
            if isinstance(found, Drop):
                objects.pop(found.name, None)
            elif found is not None and not _is_there(found, objects, live, file.name):
                if edition == "community" and found.type in _ENTERPRISE_ONLY:
                    raise enterprise_only(found, file.name)
                key = found.name or found.definition
                objects[key] = found
                if changed_by and has_index(found):
                    unforeseen[key] = changed_by
                else:
                    new.append(found)
    return Forecast(tuple(new), unforeseen)


def enterprise_only(thing: SchemaObject, file: str) -> StoreConflict:
    """The conflict of a constraint that this edition does not have."""
    return StoreConflict(
        STORE,
        f"{thing} of {file} requires the Enterprise Edition.",
        hint="Begin the file with `// assume that edition is enterprise` to have it skipped here.",
        subject=thing.name,
    )


def _is_there(
    wanted: SchemaObject, objects: Mapping[str, SchemaObject], live: LiveSchema, file: str
) -> bool:
    named = objects.get(wanted.name)
    if named is not None:
        if is_unfinished(wanted, named) and not _is_online(live, named):
            return False  # the server finishes it or refuses the name
        if not wanted.matches(named):
            raise different(wanted, named, file)
        return True
    for other in objects.values():
        if wanted.matches(other):
            return True
        if other.schema == wanted.schema and _in_the_way(wanted.type, other.type):
            raise StoreConflict(
                STORE,
                f"{file} declares {wanted} ({wanted.definition}), but {other} is on the same "
                "properties: a uniqueness or key constraint has an index of its own.",
                hint=(
                    f"Drop it first (DROP {other.kind.upper()} {other.name} IF EXISTS), or leave "
                    f"{wanted.name} out. Nothing was changed."
                ),
                subject=wanted.name,
            )
    return False


def is_unfinished(wanted: SchemaObject, live: SchemaObject) -> bool:
    """Whether `live` is only the index of the constraint `wanted`.

    The constraint is being made, or its making was cut off.
    """
    return live.schema == wanted.schema and has_index(wanted) and live.type == _BACKING


def _is_online(live: LiveSchema, index: SchemaObject) -> bool:
    """Whether an index is in use. One that waits for its constraint never is."""
    state = live.indexes.get(index.name)
    return state is not None and state.state == "ONLINE"


def has_index(thing: SchemaObject) -> bool:
    """Whether it is a constraint that has an index of its own."""
    return thing.type in _BACKED


def _in_the_way(one: str, other: str) -> bool:
    return (one in _BACKED and other == _BACKING) or (one == _BACKING and other in _BACKED)

"""The names of the story world: labels, relationship types and their properties, as read-only data.

Neo4j cannot restrict the ends of a relationship, and a name that came from input must never become part of a query:
writers take names from these lists and everything else as query parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from is_db_bootstrap.blueprint import Ends

#: Label to the names of its properties; the first one is the unique key.
NODE_PROPERTIES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "Novel": ("novel_id", "app_id", "title", "created_at"),
    "Character": (
        "id", "novel_id", "name", "appearance", "personality", "background", "motivation", "goals", "obstacles", "arc",
        "wounds", "created_at",
    ),
    "CharacterState": ("id", "character_id", "chapter", "age", "status", "attributes"),
    "WorldRule": ("id", "novel_id", "dimension", "rule", "priority", "scope", "examples", "constraints", "created_at"),
    "Event": ("id", "novel_id", "description", "timestamp", "type"),
    "Location": ("id", "novel_id", "name", "x", "y", "timestamp"),
    "Transportation": ("id", "type", "speed"),
    "Organization": ("id", "novel_id", "name", "kind", "description", "created_at"),
})  # fmt: skip


def _ends(start: str, end: str, *properties: str) -> Ends:
    return Ends(frozenset(start.split()), frozenset(end.split()), properties)


#: Relationship type to the labels that it starts from, the labels that it leads to, and its properties.
RELATIONSHIPS: Mapping[str, Ends] = MappingProxyType({
    "BELONGS_TO": _ends("Character Event Location Organization", "Novel"),
    "GOVERNS": _ends("WorldRule", "Novel"),
    "RELATES_TO": _ends("Character", "Character", "strength", "type", "symmetric", "since_chapter"),
    "CONFLICTS_WITH": _ends("WorldRule", "WorldRule", "severity"),
    "MEMBER_OF": _ends("Character", "Organization", "role", "since_chapter"),
    "HAS_STATE": _ends("Character", "CharacterState"),
    "LOCATED_AT": _ends("Character Organization", "Location", "timestamp"),
    "USES": _ends("Character", "Transportation"),
    "CAUSES": _ends("Event", "Event"),
    "INVOLVES": _ends("Event", "Character Organization"),
    "OCCURS_AT": _ends("Event", "Location"),
})  # fmt: skip


def check_relationship(type: str, from_label: str, to_label: str, properties: Iterable[str] = ()) -> None:  # noqa: A002 - the word of the graph
    """Raise `ValueError` for a type, a label at either end, or a property that `RELATIONSHIPS` does not list."""
    ends = RELATIONSHIPS.get(type)
    if ends is None:
        raise ValueError(f"{type!r} is no relationship type; there are {', '.join(RELATIONSHIPS)}.")
    if from_label not in ends.from_labels:
        raise ValueError(f"{type} does not start from {from_label!r}, but from {', '.join(sorted(ends.from_labels))}.")
    if to_label not in ends.to_labels:
        raise ValueError(f"{type} does not lead to {to_label!r}, but to {', '.join(sorted(ends.to_labels))}.")
    unknown = sorted(set(properties) - set(ends.properties))
    if unknown:
        raise ValueError(f"{type} has no property {', '.join(unknown)}; it has {', '.join(ends.properties) or 'none'}.")

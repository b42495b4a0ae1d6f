"""The names of the story world as read-only data: labels, relationship types and properties.

Neo4j cannot restrict which labels a relationship joins. A name that came from user input must
never become part of a query. So writers take names from these lists and pass everything else as
query parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from is_db_bootstrap.blueprint import Ends

#: Each label and the names of its properties. The first property is the unique key.
NODE_PROPERTIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Novel": ("novel_id", "app_id", "title", "created_at"),
        "Character": (
            "id",
            "novel_id",
            "name",
            "appearance",
            "personality",
            "background",
            "motivation",
            "goals",
            "obstacles",
            "arc",
            "wounds",
            "created_at",
        ),
        "CharacterState": ("id", "character_id", "chapter", "age", "status", "attributes"),
        "WorldRule": (
            "id",
            "novel_id",
            "dimension",
            "rule",
            "priority",
            "scope",
            "examples",
            "constraints",
            "created_at",
        ),
        "Event": ("id", "novel_id", "description", "timestamp", "type"),
        "Location": ("id", "novel_id", "name", "x", "y", "timestamp"),
        "Transportation": ("id", "type", "speed"),
        "Organization": ("id", "novel_id", "name", "kind", "description", "created_at"),
    }
)


def _allowed_ends(
    from_labels: Collection[str],
    to_labels: Collection[str],
    properties: Collection[str] = (),
) -> Ends:
    return Ends(frozenset(from_labels), frozenset(to_labels), tuple(properties))


#: Each relationship type, the labels that it may start from and lead to, and its properties.
RELATIONSHIPS: Mapping[str, Ends] = MappingProxyType(
    {
        "BELONGS_TO": _allowed_ends(
            ["Character", "Event", "Location", "Organization"],
            ["Novel"],
        ),
        "GOVERNS": _allowed_ends(["WorldRule"], ["Novel"]),
        "RELATES_TO": _allowed_ends(
            ["Character"],
            ["Character"],
            ["strength", "type", "symmetric", "since_chapter"],
        ),
        "CONFLICTS_WITH": _allowed_ends(["WorldRule"], ["WorldRule"], ["severity"]),
        "MEMBER_OF": _allowed_ends(["Character"], ["Organization"], ["role", "since_chapter"]),
        "HAS_STATE": _allowed_ends(["Character"], ["CharacterState"]),
        "LOCATED_AT": _allowed_ends(["Character", "Organization"], ["Location"], ["timestamp"]),
        "USES": _allowed_ends(["Character"], ["Transportation"]),
        "CAUSES": _allowed_ends(["Event"], ["Event"]),
        "INVOLVES": _allowed_ends(["Event"], ["Character", "Organization"]),
        "OCCURS_AT": _allowed_ends(["Event"], ["Location"]),
    }
)


def check_relationship(
    type: str,  # noqa: A002 - the word of the graph
    from_label: str,
    to_label: str,
    properties: Iterable[str] = (),
) -> None:
    """Raise `ValueError` for a relationship that `RELATIONSHIPS` does not list.

    The type, the label at each end, and the names of the properties are checked.
    """
    ends = RELATIONSHIPS.get(type)
    if ends is None:
        known = ", ".join(RELATIONSHIPS)
        raise ValueError(f"{type!r} is not a relationship type. The types are {known}.")
    if from_label not in ends.from_labels:
        allowed = ", ".join(sorted(ends.from_labels))
        raise ValueError(f"{type} does not start from {from_label!r}, but from {allowed}.")
    if to_label not in ends.to_labels:
        allowed = ", ".join(sorted(ends.to_labels))
        raise ValueError(f"{type} does not lead to {to_label!r}, but to {allowed}.")
    unknown = sorted(set(properties) - set(ends.properties))
    if unknown:
        known = ", ".join(ends.properties) or "none"
        raise ValueError(f"{type} has no property {', '.join(unknown)}. Its properties: {known}.")

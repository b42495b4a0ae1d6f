"""Pydantic models of the story world, and the only statements that write it.

Labels, types and property names come from `graph`. Everything else is a query parameter. The
property `created_at` is set when a node is created and never changes. A reference to a node that
does not exist is an error, not an empty result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from is_db_bootstrap.blueprints.novel_genesis.graph import (
    NODE_PROPERTIES,
    RELATIONSHIPS,
    check_relationship,
)


class Dimension(StrEnum):
    """What a rule of the world is about."""

    GEOGRAPHY = "geography"
    HISTORY = "history"
    CULTURE = "culture"
    RULES = "rules"
    SOCIETY = "society"


class OrganizationKind(StrEnum):
    """The kind of an organization."""

    GUILD = "guild"
    GOVERNMENT = "government"
    RELIGIOUS = "religious"
    MILITARY = "military"
    COMMERCIAL = "commercial"
    FAMILY = "family"
    OTHER = "other"


class RelationType(StrEnum):
    """What two characters are to each other."""

    FRIEND = "friend"
    ENEMY = "enemy"
    FAMILY = "family"
    RIVAL = "rival"
    LOVER = "lover"
    MENTOR = "mentor"
    KNOWS_OF = "knows_of"


class Severity(StrEnum):
    """How badly two rules contradict each other."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"


def _canonical_uuid(text: str) -> str:
    return str(UUID(text))


Id = Annotated[str, AfterValidator(_canonical_uuid)]
#: A structured value, written as JSON text because a node property cannot hold a map.
Structured = dict[str, JsonValue] | list[JsonValue] | None


class _Strict(BaseModel):
    """Accepts no unknown fields and no infinite numbers."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class Node(_Strict):
    """A node. The class name is the label, and the fields are the properties in `graph`."""

    @property
    def label(self) -> str:
        """The label, which is the name of the class."""
        return type(self).__name__

    @property
    def key(self) -> tuple[str, str]:
        """The name and the value of the unique property."""
        name = NODE_PROPERTIES[self.label][0]
        return name, str(getattr(self, name))


class Novel(Node):
    """A novel."""

    novel_id: Id
    app_id: str = "is-db-bootstrap"
    title: str
    created_at: AwareDatetime | None = None


class Character(Node):
    """A person of the story."""

    id: Id
    novel_id: Id
    name: str
    appearance: str = ""
    personality: str = ""
    background: str = ""
    motivation: str = ""
    goals: str = ""
    obstacles: str = ""
    arc: str = ""
    wounds: str = ""
    created_at: AwareDatetime | None = None


class CharacterState(Node):
    """What a character is like in one chapter."""

    id: Id
    character_id: Id
    chapter: int
    age: int | None = None
    status: str | None = None
    attributes: Structured = None


class WorldRule(Node):
    """A rule of the world."""

    id: Id
    novel_id: Id
    dimension: Dimension
    rule: str
    priority: int = 0
    scope: Structured = None
    examples: Structured = None
    constraints: Structured = None
    created_at: AwareDatetime | None = None


class Event(Node):
    """Something that happens. Examples of `type` are normal, time_skip and battle."""

    id: Id
    novel_id: Id
    description: str
    timestamp: AwareDatetime | None = None
    type: str | None = None


class Location(Node):
    """A place."""

    id: Id
    novel_id: Id
    name: str
    x: float = 0.0
    y: float = 0.0
    timestamp: AwareDatetime | None = None


class Transportation(Node):
    """A way to travel.

    Examples of `type` are walk, horse, car and teleport. `speed` is kilometres per hour.
    """

    id: Id
    type: str
    speed: Annotated[float, Field(ge=0)] | None = None


class Organization(Node):
    """A group of people."""

    id: Id
    novel_id: Id
    name: str
    kind: OrganizationKind
    description: str | None = None
    created_at: AwareDatetime | None = None


class NoProperties(_Strict):
    """The properties of a relationship that has none."""


class RelatesTo(_Strict):
    """The properties of `RELATES_TO`, of which each ordered pair has at most one per `type`."""

    strength: Annotated[int, Field(ge=-10, le=10)]
    type: RelationType
    symmetric: bool
    since_chapter: int | None = None


class ConflictsWith(_Strict):
    """The properties of `CONFLICTS_WITH`.

    A conflict is stored once, from the smaller id to the larger, and matched without direction.
    """

    severity: Severity = Severity.MAJOR


class MemberOf(_Strict):
    """The properties of `MEMBER_OF`."""

    role: str | None = None
    since_chapter: int | None = None


class LocatedAt(_Strict):
    """The properties of `LOCATED_AT`."""

    timestamp: AwareDatetime | None = None


_NODE_CLASSES = (
    Novel,
    Character,
    CharacterState,
    WorldRule,
    Event,
    Location,
    Transportation,
    Organization,
)
#: Each label and the model of its nodes.
NODES: Mapping[str, type[Node]] = MappingProxyType({kind.__name__: kind for kind in _NODE_CLASSES})
#: Each relationship type and the model of its properties.
PROPERTIES: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        **dict.fromkeys(RELATIONSHIPS, NoProperties),
        "RELATES_TO": RelatesTo,
        "CONFLICTS_WITH": ConflictsWith,
        "MEMBER_OF": MemberOf,
        "LOCATED_AT": LocatedAt,
    }
)
#: The property that tells two relationships of the same type between the same nodes apart.
_DISCRIMINATOR = {"RELATES_TO": "type"}
#: Labels whose nodes refer to no novel, and the novel itself.
_WITHOUT_NOVEL = {"Novel", "CharacterState", "Transportation"}
#: Fails when the novel does not exist. Cypher has no statement that raises an error, but every
#: version fails on a division by zero.
_NOVEL_EXISTS = "OPTIONAL MATCH (novel:Novel {novel_id: $novel_id}) WITH 1 / count(novel) AS found"


def merge_node(model: Node) -> tuple[str, dict[str, Any]]:
    """The statement that creates a node or updates its properties, and its parameters.

    The statement returns the node as `n`. The server raises an error (division by zero) when the
    node belongs to a novel that does not exist.
    """
    key_name, key_value = model.key
    values = _property_values(model)
    created_at = values.pop("created_at", None)
    has_created_at = "created_at" in type(model).model_fields
    has_novel = model.label not in _WITHOUT_NOVEL

    changeable = {name: value for name, value in values.items() if name != key_name}
    parameters = {"key": key_value, "values": changeable}
    lines = []
    if has_novel:
        lines.append(_NOVEL_EXISTS)
        parameters["novel_id"] = values["novel_id"]
    lines.append(f"MERGE (n:{model.label} {{{key_name}: $key}})")
    if has_created_at:
        lines.append("ON CREATE SET n.created_at = coalesce($created_at, datetime())")
        parameters["created_at"] = created_at
    lines += ["SET n += $values", "RETURN n"]
    return "\n".join(lines), parameters


def merge_relationship(
    type: str,  # noqa: A002 - the word of the graph
    start: Node,
    end: Node,
    properties: BaseModel | Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, Any]]:
    """The statement that joins two existing nodes once, and its parameters.

    The statement returns the relationship as `r`. The server raises an error (division by zero)
    when a node does not exist. `properties` are checked against the model in `PROPERTIES`. Raises
    `ValueError` for an unknown type, for a label that the type does not allow at an end, for an
    unlisted property, and for a rule in conflict with itself.
    """
    check_relationship(type, start.label, end.label)
    values = _checked_properties(type, properties)
    check_relationship(type, start.label, end.label, values)
    if type == "CONFLICTS_WITH":
        start, end = _smaller_key_first(start, end)
    start_name, start_value = start.key
    end_name, end_value = end.key
    parameters = {"start": start_value, "end": end_value, "values": values}

    pattern = ""
    discriminator = _DISCRIMINATOR.get(type)
    if discriminator:
        pattern = f" {{{discriminator}: $discriminator}}"
        parameters["discriminator"] = values[discriminator]
    lines = [
        f"OPTIONAL MATCH (a:{start.label} {{{start_name}: $start}})",
        f"OPTIONAL MATCH (b:{end.label} {{{end_name}: $end}})",
        "WITH a, b, 1 / (count(a) * count(b)) AS found",
        f"MERGE (a)-[r:{type}{pattern}]->(b)",
        "SET r += $values",
        "RETURN r",
    ]
    return "\n".join(lines), parameters


def _checked_properties(
    relationship_type: str,
    properties: BaseModel | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The properties as the driver takes them. Raises `ValidationError` for invalid ones."""
    model = PROPERTIES[relationship_type]
    if not isinstance(properties, model):
        properties = model.model_validate(dict(properties or {}))
    return _property_values(properties)


def _smaller_key_first(start: Node, end: Node) -> tuple[Node, Node]:
    """Both ends in the order of their keys. Raises `ValueError` when both are the same node."""
    if start.key == end.key:
        raise ValueError(f"CONFLICTS_WITH: both ends are {start.label} {start.key[1]}.")
    if start.key[1] < end.key[1]:
        return start, end
    return end, start


def _property_values(model: BaseModel) -> dict[str, Any]:
    """Properties as the driver takes them. Absent properties are left out."""
    values = {name: _property_value(getattr(model, name)) for name in type(model).model_fields}
    return {name: value for name, value in values.items() if value is not None}


def _property_value(value: Any) -> Any:
    """The value as the driver takes it: an enum as its text, a structure as JSON text."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value

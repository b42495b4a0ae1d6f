"""Pydantic models of the story world, and the only statements that write it.

Labels, types and property names come from `graph`; everything else is a query parameter. `created_at` is set when a node
is created and never again. What refers to something that is not there is an error, not an empty result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from is_db_bootstrap.blueprints.novel_genesis.graph import NODE_PROPERTIES, RELATIONSHIPS, check_relationship


class Dimension(StrEnum):
    """What a rule of the world is about."""

    GEOGRAPHY = "geography"
    HISTORY = "history"
    CULTURE = "culture"
    RULES = "rules"
    SOCIETY = "society"


class OrganizationKind(StrEnum):
    """What kind of organization it is."""

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


def _canonical(text: str) -> str:
    return str(UUID(text))


Id = Annotated[str, AfterValidator(_canonical)]
#: A structured value. It is written as JSON text, because a node property cannot hold a map.
Structured = dict[str, JsonValue] | list[JsonValue] | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class Node(_Strict):
    """A node: its class is its label, its fields are the properties that `graph` lists."""

    @property
    def label(self) -> str:
        """The label."""
        return type(self).__name__

    @property
    def key(self) -> tuple[str, str]:
        """Name and value of the unique property."""
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
    """Something that happens; `type` is such as normal, time_skip, battle."""

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
    """A way to travel; `type` is such as walk, horse, car, teleport, `speed` in km/h."""

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
    """`RELATES_TO`: at most one per ordered pair and `type`."""

    strength: Annotated[int, Field(ge=-10, le=10)]
    type: RelationType
    symmetric: bool
    since_chapter: int | None = None


class ConflictsWith(_Strict):
    """`CONFLICTS_WITH`: stored once, from the smaller id to the larger, and matched without direction."""

    severity: Severity = Severity.MAJOR


class MemberOf(_Strict):
    """`MEMBER_OF`."""

    role: str | None = None
    since_chapter: int | None = None


class LocatedAt(_Strict):
    """`LOCATED_AT`."""

    timestamp: AwareDatetime | None = None


NODES: Mapping[str, type[Node]] = MappingProxyType({
    kind.__name__: kind
    for kind in (Novel, Character, CharacterState, WorldRule, Event, Location, Transportation, Organization)
})  # fmt: skip
#: Relationship type to the model of its properties.
PROPERTIES: Mapping[str, type[BaseModel]] = MappingProxyType({
    **dict.fromkeys(RELATIONSHIPS, NoProperties),
    "RELATES_TO": RelatesTo,
    "CONFLICTS_WITH": ConflictsWith,
    "MEMBER_OF": MemberOf,
    "LOCATED_AT": LocatedAt,
})  # fmt: skip
#: Property of a relationship that tells two of one pair and type apart.
_DISCRIMINATOR = {"RELATES_TO": "type"}
#: Labels whose `novel_id` is the novel's own key, or which have none.
_WITHOUT_NOVEL = {"Novel", "CharacterState", "Transportation"}


def merge_node(model: Node) -> tuple[str, dict[str, Any]]:
    """The statement that creates the node or updates its properties, and its parameters; it returns the node as `n`.

    A node of a novel that does not exist is an error of the server (division by zero), not an empty result.
    """
    name, value = model.key
    values = _written(model)
    created = values.pop("created_at", None)
    create = {"created_at": created} if "created_at" in type(model).model_fields else {}
    lines = [] if model.label in _WITHOUT_NOVEL else [_NOVEL_EXISTS]
    lines += [f"MERGE (n:{model.label} {{{name}: $key}})"]
    if create:
        lines += ["ON CREATE SET n.created_at = coalesce($created_at, datetime())"]
    lines += ["SET n += $values", "RETURN n"]
    parameters = {"key": value, "values": {k: v for k, v in values.items() if k != name}, **create}
    if model.label not in _WITHOUT_NOVEL:
        parameters["novel_id"] = values["novel_id"]
    return "\n".join(lines), parameters


#: Cypher has no way to raise of its own; a division by zero is one that every version knows.
_NOVEL_EXISTS = "OPTIONAL MATCH (novel:Novel {novel_id: $novel_id}) WITH 1 / count(novel) AS found"


def merge_relationship(
    type: str,  # noqa: A002 - the word of the graph
    start: Node,
    end: Node,
    properties: BaseModel | Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, Any]]:
    """The statement that joins two existing nodes once, and its parameters; it returns the relationship as `r`.

    A node that does not exist is an error of the server (division by zero). `properties` are checked against the model in
    `PROPERTIES`. Raises `ValueError` for an unknown type, a label at either end, a property that is not listed, or a rule in conflict with itself.
    """
    check_relationship(type, start.label, end.label)
    model = PROPERTIES[type]
    checked = properties if isinstance(properties, model) else model.model_validate(dict(properties or {}))
    if type == "CONFLICTS_WITH":
        start, end = _from_smaller(start, end)
    values = _written(checked)
    check_relationship(type, start.label, end.label, values)
    discriminator = _DISCRIMINATOR.get(type)
    pattern = f" {{{discriminator}: $discriminator}}" if discriminator else ""
    text = "\n".join((
        f"OPTIONAL MATCH (a:{start.label} {{{start.key[0]}: $start}})",
        f"OPTIONAL MATCH (b:{end.label} {{{end.key[0]}: $end}})",
        "WITH a, b, 1 / (count(a) * count(b)) AS found",
        f"MERGE (a)-[r:{type}{pattern}]->(b)",
        "SET r += $values",
        "RETURN r",
    ))  # fmt: skip
    parameters = {"start": start.key[1], "end": end.key[1], "values": values}
    return text, parameters | ({"discriminator": values[discriminator]} if discriminator else {})


def _from_smaller(start: Node, end: Node) -> tuple[Node, Node]:
    """Both ends, the smaller id first; a rule does not contradict itself."""
    if start.key == end.key:
        raise ValueError(f"CONFLICTS_WITH: both ends are {start.label} {start.key[1]}.")
    return (start, end) if start.key[1] < end.key[1] else (end, start)


def _written(model: BaseModel) -> dict[str, Any]:
    """Properties as the driver takes them: enums and JSON as text, absent ones left out."""
    return {name: value for name in type(model).model_fields if (value := _value(model, name)) is not None}


def _value(model: BaseModel, name: str) -> Any:
    value = getattr(model, name)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value

"""Demo data of novel_genesis: one small story world and one dialogue about it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from is_db_bootstrap.blueprint import SeedNode, SeedRelationship, SeedRow

_CREATED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def demo_id(row: str) -> UUID:
    """The fixed id of the demo row `row`. The id is the same on every machine."""
    return uuid5(NAMESPACE_URL, f"urn:is-db-bootstrap:novel_genesis:{row}")


_NOVEL = str(demo_id("novels:demo"))
_TITLE = "The Keeper of Gull Point"
_EMPTY_TEXTS = {
    "appearance": "",
    "personality": "",
    "background": "",
    "motivation": "",
    "goals": "",
    "obstacles": "",
    "arc": "",
    "wounds": "",
}


def _story_node(label: str, row: str, /, **values: object) -> SeedNode:
    """A node of the demo novel."""
    return SeedNode(label, {"id": str(demo_id(row))}, {"novel_id": _NOVEL, **values})


novel = SeedNode(
    "Novel",
    {"novel_id": _NOVEL},
    {"app_id": "is-db-bootstrap", "title": _TITLE, "created_at": _CREATED_AT},
)
mara = _story_node(
    "Character",
    "characters:mara-venn",
    name="Mara Venn",
    created_at=_CREATED_AT,
    **_EMPTY_TEXTS,
)
tobias = _story_node(
    "Character",
    "characters:tobias-hale",
    name="Tobias Hale",
    created_at=_CREATED_AT,
    **_EMPTY_TEXTS,
)
gull_point = _story_node(
    "Location",
    "locations:gull-point",
    name="Gull Point",
    x=12.5,
    y=48.0,
)
guild = _story_node(
    "Organization",
    "organizations:lantern-guild",
    name="Lantern Guild",
    kind="guild",
    description="",
    created_at=_CREATED_AT,
)
tides = _story_node(
    "WorldRule",
    "world_rules:tides-remember",
    dimension="rules",
    rule="The tide returns what it was told.",
    priority=0,
    created_at=_CREATED_AT,
)

NODES = (novel, mara, tobias, gull_point, guild, tides)

RELATIONSHIPS = (
    SeedRelationship("BELONGS_TO", mara, novel),
    SeedRelationship("BELONGS_TO", tobias, novel),
    SeedRelationship("BELONGS_TO", gull_point, novel),
    SeedRelationship("BELONGS_TO", guild, novel),
    SeedRelationship("GOVERNS", tides, novel),
    SeedRelationship(
        "RELATES_TO",
        mara,
        tobias,
        {"type": "mentor", "strength": 6, "symmetric": False},
    ),
    SeedRelationship("MEMBER_OF", mara, guild),
    SeedRelationship("LOCATED_AT", mara, gull_point),
    SeedRelationship("LOCATED_AT", tobias, gull_point),
)

_SESSION = demo_id("conversation_sessions:demo")

ROWS = (
    SeedRow(
        "conversation_sessions",
        {"id": _SESSION},
        {
            "scope_type": "GENESIS",
            "scope_id": _NOVEL,
            "status": "ACTIVE",
            "stage": "WORLDVIEW",
            "state": {"title": _TITLE},
            "round_sequence": 2,
        },
    ),
    SeedRow(
        "conversation_rounds",
        {"session_id": _SESSION, "round_path": "1"},
        {"role": "user", "input": {"text": "Who keeps the light?"}},
    ),
    SeedRow(
        "conversation_rounds",
        {"session_id": _SESSION, "round_path": "2"},
        {"role": "assistant", "output": {"text": "Mara Venn, and she is not alone."}},
    ),
)

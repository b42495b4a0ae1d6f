"""Demo data of novel_genesis: one small story world and one dialogue about it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from is_db_bootstrap.blueprint import SeedNode, SeedRelationship, SeedRow

_CREATED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def demo_id(row: str) -> UUID:
    """The id of a demo row: the same on every machine."""
    return uuid5(NAMESPACE_URL, f"urn:is-db-bootstrap:novel_genesis:{row}")


_NOVEL = str(demo_id("novels:demo"))
_TITLE = "The Keeper of Gull Point"
_CHARACTER_TEXTS = dict.fromkeys(
    ("appearance", "personality", "background", "motivation", "goals", "obstacles", "arc", "wounds"), ""
)


def _node(label: str, row: str, /, **values: object) -> SeedNode:
    return SeedNode(label, {"id": str(demo_id(row))}, {"novel_id": _NOVEL, **values})


def _character(row: str, name: str) -> SeedNode:
    return _node("Character", f"characters:{row}", name=name, created_at=_CREATED_AT, **_CHARACTER_TEXTS)


novel = SeedNode("Novel", {"novel_id": _NOVEL}, {"app_id": "is-db-bootstrap", "title": _TITLE, "created_at": _CREATED_AT})
mara = _character("mara-venn", "Mara Venn")
tobias = _character("tobias-hale", "Tobias Hale")
gull_point = _node("Location", "locations:gull-point", name="Gull Point", x=12.5, y=48.0)
guild = _node(
    "Organization", "organizations:lantern-guild", name="Lantern Guild", kind="guild", description="", created_at=_CREATED_AT
)
tides = _node(
    "WorldRule", "world_rules:tides-remember", dimension="rules", rule="The tide returns what it was told.", priority=0,
    created_at=_CREATED_AT,
)  # fmt: skip

NODES = (novel, mara, tobias, gull_point, guild, tides)

RELATIONSHIPS = (
    *(SeedRelationship("BELONGS_TO", node, novel) for node in (mara, tobias, gull_point, guild)),
    SeedRelationship("GOVERNS", tides, novel),
    SeedRelationship("RELATES_TO", mara, tobias, {"type": "mentor", "strength": 6, "symmetric": False}),
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

"""What a blueprint declares about Redis, as a part of its document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.blueprint.plain import plain_value


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Key patterns and channels, as values that JSON can hold."""
    return {
        "keys": [plain_value(key) for key in blueprint.keys],
        "channels": [plain_value(channel) for channel in blueprint.channels],
    }


def counts(part: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind the part of a document has."""
    return {"key patterns": len(part["keys"]), "channels": len(part["channels"])}

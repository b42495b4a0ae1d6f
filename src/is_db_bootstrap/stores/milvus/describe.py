"""What a blueprint declares about Milvus, as a part of its document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.blueprint.plain import plain_value


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """The collections, as values that JSON can hold."""
    return {"collections": [plain_value(collection) for collection in blueprint.collections]}


def counts(part: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind the part of a document has."""
    return {"collections": len(part["collections"])}

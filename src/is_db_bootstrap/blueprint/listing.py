"""The list of installed blueprints, one row per entry point.

The five reference systems have their rows in a file, so that a list needs no import of them.
Blueprints of other packages are loaded.
"""

from __future__ import annotations

import json
from typing import Any

from is_db_bootstrap.blueprint.describe import INDEX, describe, index_row
from is_db_bootstrap.blueprint.load import (
    blueprint_names,
    is_reference_system,
    load_blueprint,
)
from is_db_bootstrap.errors import BootstrapError


def installed_rows() -> list[dict[str, Any]]:
    """One row per installed blueprint, sorted by name: `name`, `stores`, `counts` and `summary`.

    A blueprint that cannot be loaded has the key `error`, with no stores and no counts.
    """
    written = {row["name"]: row for row in json.loads(INDEX.read_text(encoding="utf-8"))}
    return [
        written[name] if is_reference_system(name) else _loaded_row(name)
        for name in blueprint_names()
    ]


def _loaded_row(name: str) -> dict[str, Any]:
    """The row of a blueprint that has none in the file."""
    try:
        # The entry point's name is what a user types, whatever the blueprint is called.
        return index_row(describe(load_blueprint(name))) | {"name": name}
    except BootstrapError as exc:
        return {"name": name, "stores": [], "counts": {}, "summary": "", "error": str(exc)}

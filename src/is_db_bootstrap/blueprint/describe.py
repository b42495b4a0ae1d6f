"""What a blueprint declares, as one document, and the index of the built-in blueprints.

No server is asked.

    python -m is_db_bootstrap.blueprint.describe

writes the index again after something has been declared or removed. Each kind of store describes
its own part, in its module `describe`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.blueprint.plain import plain_value
from is_db_bootstrap.stores.kind import StoreKind
from is_db_bootstrap.stores.kinds import KINDS, declared_kinds

#: Names, stores, counts and summaries, so that listing them imports none.
INDEX = Path(__file__).parents[1] / "blueprints" / "index.json"


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Everything that is declared, as values that JSON can hold; settings have their defaults.

    Tables are those of `catalogue.json`. Without that file `tables` is empty and `revisions` is all
    there is.
    """
    resolved = blueprint.resolve({})
    return {
        "name": blueprint.name,
        "summary": blueprint.summary,
        "settings": [plain_value(setting) for setting in blueprint.settings],
        "stores": {
            kind.name: _describe_module(kind).describe(resolved)
            for kind in declared_kinds(blueprint)
        },
    }


def counts(document: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind a document of `describe` holds. Kinds with none are left out."""
    found: dict[str, int] = {}
    for kind in KINDS.values():
        part = document["stores"].get(kind.name)
        if part:
            found |= _describe_module(kind).counts(part)
    return {what: number for what, number in found.items() if number}


def _describe_module(kind: StoreKind) -> ModuleType:
    """The module that describes a kind of store. Importing it imports no client."""
    return importlib.import_module(kind.module_name("describe"))


def index() -> str:
    """The text of the index file."""
    documents = [describe(load_blueprint(name)) for name in blueprint_names()]
    rows = [
        {
            "name": document["name"],
            "stores": list(document["stores"]),
            "counts": counts(document),
            "summary": document["summary"],
        }
        for document in documents
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")

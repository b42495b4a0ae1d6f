"""What a blueprint declares, as one document, without asking any server.

And the index of the built-in ones.

    python -m is_db_bootstrap.blueprint.describe

writes the index again after something has been declared or removed.

Each store's part of the document is made and read by that store's module `description`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from is_db_bootstrap.blueprint import Blueprint, Setting
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.blueprint.plain import plain_value
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings.secrets import shown
from is_db_bootstrap.stores.description import Branch, StoreDescription
from is_db_bootstrap.stores.kinds import KINDS

#: Names, stores, counts and summaries, so that listing them imports none.
INDEX = Path(__file__).parents[1] / "blueprints" / "index.json"


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Everything that is declared, as values that JSON can hold; settings have their defaults."""
    resolved = blueprint.resolve({})
    return {
        "name": blueprint.name,
        "summary": blueprint.summary,
        "settings": [_setting_row(setting) for setting in blueprint.settings],
        "stores": {store: _of(store).describe(resolved) for store in blueprint.stores},
    }


def counts(document: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind a document of `describe` holds.

    Kinds of which there are none are left out.
    """
    found: dict[str, int] = {}
    for store, declared in document["stores"].items():
        found |= _of(store).count_declared(declared)
    return {kind: number for kind, number in found.items() if number}


def outline(document: Mapping[str, Any]) -> Branch:
    """A document of `describe` as an outline.

    The outline has the blueprint, its stores with what they declare, and its settings.
    """
    branches = [
        Branch(store, "", _of(store).outline(declared))
        for store, declared in document["stores"].items()
    ]
    if document["settings"]:
        settings = [_setting(setting) for setting in document["settings"]]
        branches.append(Branch("settings", "", settings))
    return Branch(document["name"], document["summary"], branches)


def diagrams(document: Mapping[str, Any]) -> list[list[str]]:
    """The lines of each store's diagram, of a document of `describe`.

    None for a store with nothing to draw.
    """
    drawn = [_of(store).diagram(declared) for store, declared in document["stores"].items()]
    return [lines for lines in drawn if len(lines) > 1]


def verified_lines(document: Mapping[str, Any], store: StoreName) -> list[str]:
    """What is declared of one store, in a line for each object.

    The last step of a guided set-up shows these lines.
    """
    return _of(store).verified_lines(document["stores"][store])


def _of(store: StoreName) -> StoreDescription:
    """The store's module `description`."""
    return cast("StoreDescription", import_module(KINDS[store].module_name("description")))


def _setting_row(setting: Setting) -> dict[str, Any]:
    """A setting as values that JSON can hold. A default of 0 is one, a secret in one is hidden."""
    row: dict[str, Any] = plain_value(setting)
    if setting.default != "":
        default = setting.default
        row["default"] = shown(default) if isinstance(default, str) else default
    return row


def _setting(setting: Mapping[str, Any]) -> Branch:
    return Branch(f"{setting['name']}={setting.get('default', '')}", setting["meaning"])


def index() -> str:
    """The text of the index file."""
    rows = [index_row(describe(load_blueprint(name))) for name in blueprint_names()]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def index_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a document of `describe` in a list of blueprints."""
    return {
        "name": document["name"],
        "stores": list(document["stores"]),
        "counts": counts(document),
        "summary": document["summary"],
    }


if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")

"""What a blueprint declares about PostgreSQL, as a part of its document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.stores.postgres.revisions import Chain

#: Kinds of a catalogue that are told with their table, and what several are called.
_OF_TABLES = {
    "column": "columns",
    "constraint": "constraints",
    "index": "indexes",
    "trigger": "triggers",
    "policy": "policies",
}
#: Kinds of a catalogue that stand by themselves.
_OF_SCHEMAS = {
    "enum": "enums",
    "domain": "domains",
    "function": "functions",
    "procedure": "procedures",
    "view": "views",
    "materialized view": "materialized_views",
    "sequence": "sequences",
    "extension": "extensions",
}
_FOREIGN_KEY = re.compile(
    r"FOREIGN KEY \((?P<columns>[^)]+)\) "
    r"REFERENCES (?P<table>[^(]+)\((?P<to>[^)]+)\)(?: ON DELETE (?P<rule>.+))?"
)


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Revisions, and tables with what hangs on them; empty without a folder of revisions.

    Tables are those of `catalogue.json`. There are none without that file.
    """
    folder = blueprint.migrations
    if folder is None:
        return {}
    chain = Chain.read(folder)
    objects = _catalogue_objects(folder)
    standing = {
        several: objects[kind] for kind, several in _OF_SCHEMAS.items() if objects.get(kind)
    }
    return {
        "revisions": [{"id": id_, "title": chain.titles[id_]} for id_ in chain.order],
        "tables": _table_parts(objects),
        **standing,
    }


def counts(part: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind the part of a document has."""
    tables = part["tables"].values()
    of_tables = {
        kind: sum(len(table[kind]) for table in tables)
        for kind in ("columns", "indexes", "triggers")
    }
    return {"tables": len(tables), **of_tables, "enums": len(part.get("enums", {}))}


def _catalogue_objects(folder: Path) -> dict[str, Any]:
    """What `catalogue.json` says is there, by kind; empty without the file."""
    file = folder / "catalogue.json"
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["objects"]
    return found


def _table_parts(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each table with its columns, constraints, indexes, triggers, policies and references."""
    tables: dict[str, dict[str, Any]] = {}
    for name in objects.get("table", ()):
        tables[name] = {several: {} for several in _OF_TABLES.values()}
    for kind, several in _OF_TABLES.items():
        for name, definition in objects.get(kind, {}).items():
            table, _, part = name.partition(".")
            tables[table][several][part] = definition
    for parts in tables.values():
        found = map(_FOREIGN_KEY.match, parts["constraints"].values())
        parts["references"] = [_reference_part(match) for match in found if match]
    return tables


def _reference_part(match: re.Match[str]) -> dict[str, Any]:
    """A foreign key: `columns` refer to the columns `to` of `table`.

    `rule` is what happens on delete, empty for NO ACTION.
    """
    parts = match.groupdict(default="")
    return {**parts, "columns": parts["columns"].split(", "), "to": parts["to"].split(", ")}

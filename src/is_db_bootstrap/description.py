"""What a blueprint declares, as one document, without asking any server; and the index of the built-in ones.

    python -m is_db_bootstrap.description

writes the index again after something has been declared or removed.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from is_db_bootstrap import blueprints
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject
from is_db_bootstrap.stores.neo4j.schema_forecast import declared
from is_db_bootstrap.stores.postgres.revisions import Chain

#: Names, stores, counts and summaries, so that listing them imports none.
INDEX = Path(blueprints.__file__).with_name("index.json")
#: Kinds of a catalogue that are told with their table, and what several are called.
_OF_TABLES = {
    "column": "columns",
    "constraint": "constraints",
    "index": "indexes",
    "trigger": "triggers",
    "policy": "policies",
}
_OF_THEIR_OWN = {
    "enum": "enums", "domain": "domains", "function": "functions", "procedure": "procedures", "view": "views",
    "materialized view": "materialized_views", "sequence": "sequences", "extension": "extensions",
}  # fmt: skip
_FOREIGN_KEY = re.compile(
    r"FOREIGN KEY \((?P<columns>[^)]+)\) REFERENCES (?P<table>[^(]+)\((?P<to>[^)]+)\)(?: ON DELETE (?P<rule>.+))?"
)


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Everything that is declared, as values that JSON can hold; settings have their defaults.

    Tables are those of `catalogue.json`; without one, `tables` is empty and `revisions` is all there is.
    """
    resolved = blueprint.resolve({})
    parts = {
        "postgres": _postgres(resolved),
        "neo4j": _neo4j(resolved),
        "milvus": {"collections": [_plain(c) for c in resolved.collections]},
        "redis": {
            "keys": [_plain(k) for k in resolved.keys],
            "channels": [_plain(c) for c in resolved.channels],
        },
    }
    return {
        "name": blueprint.name,
        "summary": blueprint.summary,
        "settings": [_plain(s) for s in blueprint.settings],
        "stores": {store: parts[store] for store in blueprint.stores},
    }


def counts(document: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind a document of `describe` holds; kinds of which there are none are left out."""
    stores = document["stores"]
    postgres, neo4j = stores.get("postgres", {}), stores.get("neo4j", {})
    tables = postgres.get("tables", {}).values()
    found = {
        "tables": len(tables),
        **{
            kind: sum(len(table[kind]) for table in tables)
            for kind in ("columns", "indexes", "triggers")
        },
        "enums": len(postgres.get("enums", {})),
        "labels": len(neo4j.get("labels", {})),
        "relationships": len(neo4j.get("relationships", {})),
        "graph constraints": sum(
            o["kind"] == "constraint" for f in neo4j.get("files", ()) for o in f["objects"]
        ),
        "graph indexes": sum(
            o["kind"] == "index" for f in neo4j.get("files", ()) for o in f["objects"]
        ),
        "collections": len(stores.get("milvus", {}).get("collections", ())),
        "key patterns": len(stores.get("redis", {}).get("keys", ())),
        "channels": len(stores.get("redis", {}).get("channels", ())),
    }
    return {kind: number for kind, number in found.items() if number}


def _postgres(blueprint: Blueprint) -> dict[str, Any]:
    folder = blueprint.migrations_dir
    if folder is None:
        return {}
    chain = Chain.read(folder)
    file = folder / "catalogue.json"
    objects = json.loads(file.read_text(encoding="utf-8"))["objects"] if file.is_file() else {}
    tables: dict[str, dict[str, Any]] = {
        name: {kind: {} for kind in _OF_TABLES.values()} for name in objects.get("table", ())
    }
    for kind, several in _OF_TABLES.items():
        for name, definition in objects.get(kind, {}).items():
            table, _, part = name.partition(".")
            tables[table][several][part] = definition
    for table in tables.values():
        table["references"] = [
            _reference(m)
            for text in table["constraints"].values()
            if (m := _FOREIGN_KEY.match(text))
        ]
    own = {several: objects[kind] for kind, several in _OF_THEIR_OWN.items() if objects.get(kind)}
    return {
        "revisions": [{"id": r, "title": chain.titles[r]} for r in chain.order],
        "tables": tables,
        **own,
    }


def _reference(match: re.Match[str]) -> dict[str, Any]:
    """A foreign key: `columns` refer to the columns `to` of `table`; `rule` on delete, empty for NO ACTION."""
    parts = match.groupdict(default="")
    return {**parts, "columns": parts["columns"].split(", "), "to": parts["to"].split(", ")}


def _neo4j(blueprint: Blueprint) -> dict[str, Any]:
    folder = blueprint.cypher_dir
    if folder is None:
        return {}
    read = cypher_file.load(folder)
    left = declared(read)  # what a later file drops is not declared any more
    files = [
        {
            "name": file.name,
            "preconditions": [p.text for p in file.preconditions],
            "objects": [
                _schema_object(o) for name, o in declared([file]).items() if left.get(name) == o
            ],
            "other_statements": file.unrecognised,
        }
        for file in read
    ]
    return {
        "files": files,
        "labels": {label: list(properties) for label, properties in blueprint.labels.items()} or _labels_of(files),
        "relationships": {
            name: {"from": sorted(ends.from_labels), "to": sorted(ends.to_labels), "properties": list(ends.properties)}
            for name, ends in blueprint.relationships.items()
        },
    }  # fmt: skip


def _schema_object(found: SchemaObject) -> dict[str, Any]:
    return {
        "kind": found.kind, "name": found.name, "type": found.type, "entity": found.entity,
        "labels": list(found.labels), "properties": list(found.properties), "options": dict(found.options),
    }  # fmt: skip


def _labels_of(files: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What constraints and indexes tell of nodes, where the blueprint does not list its labels."""
    labels: dict[str, dict[str, None]] = defaultdict(dict)
    for found in (o for file in files for o in file["objects"] if o["entity"] == "NODE"):
        for label in found["labels"]:
            labels[label].update(dict.fromkeys(found["properties"]))
    return {label: list(properties) for label, properties in labels.items()}


def _plain(value: Any) -> Any:
    """Frozen values as what JSON can hold; empty fields are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        named = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
        return {
            name: _plain(held)
            for name, held in named
            if held not in (None, (), "", False) and held != {}
        }
    if isinstance(value, Mapping | MappingProxyType):
        return {str(key): _plain(held) for key, held in value.items()}
    return [_plain(held) for held in value] if isinstance(value, tuple | list) else value


def index() -> str:
    """The text of the index file."""
    documents = [describe(blueprints.load(name)) for name in blueprints.names()]
    rows = [
        {
            "name": d["name"],
            "stores": list(d["stores"]),
            "counts": counts(d),
            "summary": d["summary"],
        }
        for d in documents
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")

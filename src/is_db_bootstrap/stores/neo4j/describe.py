"""What a blueprint declares about Neo4j, as a part of its document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject
from is_db_bootstrap.stores.neo4j.schema_forecast import declared


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Cypher files with what they make, labels and relationships; empty without a folder."""
    if blueprint.cypher is None:
        return {}
    files = _file_parts(cypher_file.load(blueprint.cypher))
    named_labels = {label: list(names) for label, names in blueprint.labels.items()}
    return {
        "files": files,
        "labels": named_labels or _labels_of_nodes(files),
        "relationships": {
            name: {
                "from": sorted(ends.from_labels),
                "to": sorted(ends.to_labels),
                "properties": list(ends.properties),
            }
            for name, ends in blueprint.relationships.items()
        },
    }


def counts(part: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind the part of a document has."""
    kinds = [made["kind"] for file in part["files"] for made in file["objects"]]
    return {
        "labels": len(part["labels"]),
        "relationships": len(part["relationships"]),
        "graph constraints": kinds.count("constraint"),
        "graph indexes": kinds.count("index"),
    }


def _file_parts(files: Iterable[CypherFile]) -> list[dict[str, Any]]:
    """Each file with the objects that it makes and that no later file drops or makes anew."""
    read = list(files)
    left = declared(read)
    return [
        {
            "name": file.name,
            "preconditions": [precondition.text for precondition in file.preconditions],
            "objects": [
                _object_part(made)
                for name, made in declared([file]).items()
                if left.get(name) == made
            ],
            "other_statements": file.unrecognised,
        }
        for file in read
    ]


def _object_part(found: SchemaObject) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "name": found.name,
        "type": found.type,
        "entity": found.entity,
        "labels": list(found.labels),
        "properties": list(found.properties),
        "options": dict(found.options),
    }


def _labels_of_nodes(files: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Labels and properties that constraints and indexes of nodes name."""
    labels: dict[str, dict[str, None]] = defaultdict(dict)
    for made in (made for file in files for made in file["objects"]):
        if made["entity"] != "NODE":
            continue
        for label in made["labels"]:
            labels[label].update(dict.fromkeys(made["properties"]))
    return {label: list(properties) for label, properties in labels.items()}

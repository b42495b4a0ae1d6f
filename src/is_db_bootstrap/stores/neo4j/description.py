"""What a blueprint declares about Neo4j.

Its Cypher files with their constraints and indexes, its labels and its relationships.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.description import Branch, Declared, counted, listing
from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.neo4j.schema_forecast import declared as declared_objects

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Files, labels and relationships.

    What a later file drops is not declared any more, and is left out.
    """
    folder = blueprint.cypher
    if folder is None:
        return {}
    read = cypher_file.load(folder)
    left = declared_objects(read)
    files = []
    for file in read:
        kept = [
            found for name, found in declared_objects([file]).items() if left.get(name) == found
        ]
        files.append(
            {
                "name": file.name,
                "preconditions": [precondition.text for precondition in file.preconditions],
                "objects": [_schema_object(found) for found in kept],
                "other_statements": file.unrecognised,
            }
        )
    labels = {label: list(properties) for label, properties in blueprint.labels.items()}
    return {
        "files": files,
        "labels": labels or _labels_of(files),
        "relationships": _relationships(blueprint),
    }


def count_declared(declared: Declared) -> dict[str, int]:
    """How many labels, relationships, constraints and indexes."""
    kinds = [found["kind"] for file in declared.get("files", ()) for found in file["objects"]]
    return {
        "labels": len(declared.get("labels", {})),
        "relationships": len(declared.get("relationships", {})),
        "graph constraints": kinds.count("constraint"),
        "graph indexes": kinds.count("index"),
    }


def outline(declared: Declared) -> list[Branch]:
    """Each file with what it declares, then labels and relationships."""
    branches = [_file(file) for file in declared["files"]]
    labels = {label: ", ".join(properties) for label, properties in declared["labels"].items()}
    relationships = {name: _ends(ends) for name, ends in declared["relationships"].items()}
    return [
        *branches,
        *listing("labels", labels),
        *listing("relationships", relationships),
    ]


def diagram(declared: Declared) -> list[str]:
    """A graph: labels with their properties, and the relationships between them."""
    lines = ["graph LR"]
    for label, properties in declared.get("labels", {}).items():
        lines.append(f'    {label}["<b>{label}</b><br/>{"<br/>".join(properties)}"]')
    for name, ends in declared.get("relationships", {}).items():
        for start in ends["from"]:
            lines += [f"    {start} -->|{name}| {end}" for end in ends["to"]]
    return lines


def verified_lines(declared: Declared) -> list[str]:
    """One line for each file, with the number of its objects and with what it is only run for."""
    lines = []
    for file in declared["files"]:
        preconditions = "".join(f" ({text})" for text in file["preconditions"])
        lines.append(f"{file['name']}: {counted(objects=len(file['objects']))}{preconditions}")
    return lines


def _schema_object(found: SchemaObject) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "name": found.name,
        "type": found.type,
        "entity": found.entity,
        "labels": list(found.labels),
        "properties": list(found.properties),
        "options": dict(found.options),
    }


def _labels_of(files: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What constraints and indexes tell of nodes, where the blueprint does not list its labels."""
    labels: dict[str, dict[str, None]] = defaultdict(dict)
    for file in files:
        of_nodes = [found for found in file["objects"] if found["entity"] == "NODE"]
        for found in of_nodes:
            for label in found["labels"]:
                labels[label].update(dict.fromkeys(found["properties"]))
    return {label: list(properties) for label, properties in labels.items()}


def _relationships(blueprint: Blueprint) -> dict[str, Any]:
    return {
        name: {
            "from": sorted(ends.from_labels),
            "to": sorted(ends.to_labels),
            "properties": list(ends.properties),
        }
        for name, ends in blueprint.relationships.items()
    }


def _file(file: Mapping[str, Any]) -> Branch:
    lines = [Branch(f"{found['kind']} {found['name']}", _place(found)) for found in file["objects"]]
    if file["other_statements"]:
        lines.append(Branch(text=counted(other_statements=file["other_statements"])))
    return Branch(file["name"], "; ".join(file["preconditions"]), lines)


def _place(found: Mapping[str, Any]) -> str:
    """What a constraint or index is on, as Cypher writes it."""
    labels = "|".join(found["labels"])
    entity = f"(:{labels})" if found["entity"] == "NODE" else f"()-[:{labels}]-()"
    return f"{found['type']} on {entity} ({', '.join(found['properties'])})"


def _ends(ends: Mapping[str, Any]) -> str:
    properties = f"  {{{', '.join(ends['properties'])}}}" if ends["properties"] else ""
    return f"{', '.join(ends['from'])} → {', '.join(ends['to'])}{properties}"

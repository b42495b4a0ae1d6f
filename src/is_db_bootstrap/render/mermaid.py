"""A blueprint's document as Mermaid diagrams, in the fences that Markdown pages show them by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: What a diagram calls a type, where the server's own name is long.
_SHORT = {
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}
_TYPE = re.compile(r"(?P<type>.+?)(?: COLLATE \S+)? (?P<null>NOT NULL|NULL)\b")


def mermaid(document: Mapping[str, Any]) -> str:
    """The diagrams of a document of `description.describe`; stores without something to draw have none."""
    stores = document["stores"]
    diagrams = (
        _tables(stores.get("postgres", {}).get("tables", {})),
        _graph(stores.get("neo4j", {})),
        _collections(stores.get("milvus", {}).get("collections", ())),
    )
    drawn = ["\n".join(lines) for lines in map(list, diagrams) if len(lines) > 1]
    return "\n".join(f"```mermaid\n{text}\n```\n" for text in drawn)


def _tables(tables: Mapping[str, Any]) -> Iterator[str]:
    yield "erDiagram"
    for name, table in tables.items():
        yield f"    {name} {{"
        keys = _keys(table)
        for column, definition in table["columns"].items():
            yield f"        {_type(definition)} {column} {', '.join(keys.get(column, ()))}".rstrip()
        yield "    }"
    for name, table in tables.items():
        for key in table["references"]:
            optional = any("NOT NULL" not in table["columns"][column] for column in key["columns"])
            yield f'    {key["table"]} {"|o" if optional else "||"}--o{{ {name} : "{", ".join(key["columns"])}"'


def _keys(table: Mapping[str, Any]) -> dict[str, list[str]]:
    """Column to the kinds of key that it is part of."""
    found: dict[str, list[str]] = {}
    for word, mark in (("PRIMARY KEY", "PK"), ("UNIQUE", "UK")):
        for definition in table["constraints"].values():
            for column in _listed(definition) if definition.startswith(word) else ():
                found.setdefault(column, []).append(mark)
    for column in (c for key in table["references"] for c in key["columns"]):
        found.setdefault(column, []).append("FK")
    return found


def _listed(definition: str) -> list[str]:
    return definition[definition.index("(") + 1 : definition.index(")")].split(", ")


def _type(definition: str) -> str:
    match = _TYPE.match(definition)
    text = match["type"] if match else definition
    for long, short in _SHORT.items():
        text = text.replace(long, short)
    return re.sub(r"[^\w()\[\]-]", "_", text.replace(", ", "_"))


def _graph(declared: Mapping[str, Any]) -> Iterator[str]:
    yield "graph LR"
    for label, properties in declared.get("labels", {}).items():
        yield f'    {label}["<b>{label}</b><br/>{"<br/>".join(properties)}"]'
    for name, ends in declared.get("relationships", {}).items():
        for start in ends["from"]:
            for end in ends["to"]:
                yield f"    {start} -->|{name}| {end}"


def _collections(collections: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "classDiagram"
    for collection in collections:
        yield f"    class {collection['name']} {{"
        for declared in collection["fields"]:
            size = next((f"({declared[s]})" for s in ("dim", "max_length") if s in declared), "")
            yield f"        {declared['type']}{size} {declared['name']}"
        yield "    }"
        if collection.get("alias"):
            yield f"    {collection['alias']} ..> {collection['name']} : alias of"

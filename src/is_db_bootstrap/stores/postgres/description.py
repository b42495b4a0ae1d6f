"""What a blueprint declares about PostgreSQL: its revisions, and what `catalogue.json` lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.description import Branch, Declared, counted, listing
from is_db_bootstrap.stores.postgres.catalogue import Catalogue, Objects, first_part
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of, folder_of
from is_db_bootstrap.wording import noun

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint

#: Kinds of a catalogue that are told with their table, and what several are called.
_OF_TABLES = {
    "column": "columns",
    "constraint": "constraints",
    "index": "indexes",
    "trigger": "triggers",
    "policy": "policies",
}
#: Kinds of a catalogue that belong to no table, and what several are called.
_OF_THEIR_OWN = {
    "enum": "enums",
    "domain": "domains",
    "function": "functions",
    "procedure": "procedures",
    "view": "views",
    "materialized view": "materialized_views",
    "sequence": "sequences",
    "composite type": "composite_types",
    "range type": "range_types",
    "aggregate": "aggregates",
    "operator": "operators",
    "collation": "collations",
    "extension": "extensions",
}
_FOREIGN_KEY = re.compile(
    r"FOREIGN KEY \((?P<columns>[^)]+)\) REFERENCES (?P<table>[^(]+)\((?P<to>[^)]+)\)"
    r"(?: ON DELETE (?P<rule>.+))?"
)
#: The words with which a definition of a key begins, and its mark in a diagram.
_KEY_MARKS = {"PRIMARY KEY": "PK", "UNIQUE": "UK"}
#: What a diagram calls a type, where the server's own name is long.
_SHORT_TYPES = {
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}
_COLUMN = re.compile(r"(?P<type>.+?)(?: COLLATE \S+)? (?P<null>NOT NULL|NULL)\b")


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """Revisions, tables, and what belongs to no table.

    Tables are those of `catalogue.json`; without that file `tables` is empty, and `revisions` is
    all there is.
    """
    if blueprint.migrations is None and blueprint.alembic is None:
        return {}
    chain = chain_of(blueprint)
    folder = folder_of(blueprint)
    objects = _catalogue(folder) if folder else {}
    own: dict[str, Any] = {
        several: objects[kind] for kind, several in _OF_THEIR_OWN.items() if objects.get(kind)
    }
    return {
        "revisions": [{"id": name, "title": chain.titles[name]} for name in chain.order],
        "tables": _tables(objects),
        **own,
    }


def count_declared(declared: Declared) -> dict[str, int]:
    """How many tables, columns, indexes, triggers and enums."""
    tables = declared.get("tables", {}).values()
    counts = {"tables": len(tables)}
    for kind in ("columns", "indexes", "triggers"):
        counts[kind] = sum(len(table[kind]) for table in tables)
    counts["enums"] = len(declared.get("enums", {}))
    return counts


def outline(declared: Declared) -> list[Branch]:
    """Revisions, then each table with its parts, then what belongs to no table."""
    branches = listing("revisions", {row["id"]: row["title"] for row in declared["revisions"]})
    tables = [Branch(name, "", _parts(table)) for name, table in declared["tables"].items()]
    if tables:
        branches.append(Branch(text=f"tables ({len(tables)})", branches=tables))
    for kind, rows in declared.items():
        if kind not in {"revisions", "tables"}:
            branches += listing(kind.replace("_", " "), rows)
    return branches


def diagram(declared: Declared) -> list[str]:
    """An entity-relationship diagram: tables with their columns and keys, and their references."""
    tables = declared.get("tables", {})
    lines = ["erDiagram"]
    for name, table in tables.items():
        lines += [f"    {name} {{", *_column_lines(table), "    }"]
    for name, table in tables.items():
        lines += _reference_lines(name, table)
    return lines


def verified_lines(declared: Declared) -> list[str]:
    """One line for each table, with the number of its parts."""
    lines = []
    for name, table in declared["tables"].items():
        kinds = {kind: len(table[kind]) for kind in ("columns", "constraints", "triggers")}
        indexes = len(table["indexes"])
        lines.append(
            f"table {name}: {counted(**kinds)}, {indexes} {noun(indexes, 'index', 'indexes')}"
        )
    return lines


def _catalogue(folder: Path) -> Objects:
    """Kind of object to name to definition; empty when the folder has no `catalogue.json`."""
    found = Catalogue.read(folder)
    return found.objects if found else {}


def _tables(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Table to kind of part to name of part to its definition.

    And `references`, a list of the table's foreign keys.
    """
    tables: dict[str, dict[str, Any]] = {
        name: {kind: {} for kind in _OF_TABLES.values()} for name in objects.get("table", ())
    }
    for kind, several in _OF_TABLES.items():
        for name, definition in objects.get(kind, {}).items():
            table = first_part(name)
            if table in tables:  # else it is a part of a view
                tables[table][several][name[len(table) + 1 :]] = definition
    for parts in tables.values():
        parts["references"] = list(_references(parts["constraints"].values()))
    return tables


def _references(definitions: Any) -> Iterator[dict[str, Any]]:
    """Foreign keys: `columns` refer to the columns `to` of `table`.

    `rule` on delete, empty for NO ACTION.
    """
    for definition in definitions:
        match = _FOREIGN_KEY.match(definition)
        if match is None:
            continue
        found = match.groupdict(default="")
        columns, to = found["columns"].split(", "), found["to"].split(", ")
        yield {**found, "columns": columns, "to": to}


def _parts(table: Mapping[str, Any]) -> list[Branch]:
    """The parts of a table by kind. Its references are among the constraints."""
    branches: list[Branch] = []
    for kind, rows in table.items():
        if kind != "references":
            branches += listing(kind, rows)
    return branches


def _column_lines(table: Mapping[str, Any]) -> Iterator[str]:
    marks = _key_marks(table)
    for column, definition in table["columns"].items():
        keys = ", ".join(marks.get(column, ()))
        yield f"        {_diagram_type(definition)} {column} {keys}".rstrip()


def _key_marks(table: Mapping[str, Any]) -> dict[str, list[str]]:
    """Column to the marks of the keys that it is part of."""
    marks: dict[str, list[str]] = {}
    for words, mark in _KEY_MARKS.items():
        for definition in table["constraints"].values():
            columns = _columns_in(definition) if definition.startswith(words) else []
            for column in columns:
                marks.setdefault(column, []).append(mark)
    for reference in table["references"]:
        for column in reference["columns"]:
            marks.setdefault(column, []).append("FK")
    return marks


def _columns_in(definition: str) -> list[str]:
    """The columns that a definition lists in its first parentheses."""
    start, end = definition.index("(") + 1, definition.index(")")
    return definition[start:end].split(", ")


def _diagram_type(definition: str) -> str:
    """The type of a column as one word, which is all that a diagram takes."""
    match = _COLUMN.match(definition)
    text = match["type"] if match else definition
    for long, short in _SHORT_TYPES.items():
        text = text.replace(long, short)
    return re.sub(r"[^\w()\[\]-]", "_", text.replace(", ", "_"))


def _reference_lines(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    for reference in table["references"]:
        columns = reference["columns"]
        is_optional = any("NOT NULL" not in table["columns"][column] for column in columns)
        one = "|o" if is_optional else "||"
        yield f'    {reference["table"]} {one}--o{{ {name} : "{", ".join(columns)}"'

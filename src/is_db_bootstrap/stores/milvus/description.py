"""What a blueprint declares about Milvus: its collections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.blueprint.plain import plain_value
from is_db_bootstrap.stores.description import Branch, Declared, counted, listing
from is_db_bootstrap.wording import noun

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint


def describe(blueprint: Blueprint) -> dict[str, Any]:
    """The collections."""
    return {"collections": [plain_value(collection) for collection in blueprint.collections]}


def count_declared(declared: Declared) -> dict[str, int]:
    """How many collections."""
    return {"collections": len(declared.get("collections", ()))}


def outline(declared: Declared) -> list[Branch]:
    """Each collection with its fields, indexes and other parts, then its own options."""
    return [_collection(collection) for collection in declared["collections"]]


def diagram(declared: Declared) -> list[str]:
    """A class diagram: collections with their fields, and the aliases that lead to them."""
    lines = ["classDiagram"]
    for collection in declared.get("collections", ()):
        name, alias = collection["name"], collection.get("alias")
        lines += [f"    class {name} {{", *_field_lines(collection), "    }"]
        if alias:
            lines.append(f"    {alias} ..> {name} : alias of")
    return lines


def verified_lines(declared: Declared) -> list[str]:
    """One line for each collection, with the number of its fields and indexes."""
    return [
        f"collection {collection['name']}: {counted(fields=len(collection['fields']))}, "
        f"{_index_count(collection)}"
        for collection in declared["collections"]
    ]


def _index_count(collection: Mapping[str, Any]) -> str:
    number = len(collection.get("indexes", ()))
    return f"{number} {noun(number, 'index', 'indexes')}"


def _collection(collection: Mapping[str, Any]) -> Branch:
    alias = collection.get("alias")
    lines: list[Branch] = []
    for part, rows in collection.items():
        if isinstance(rows, list):
            lines += listing(part, _named_rows(rows))
    options = {name: held for name, held in collection.items() if not isinstance(held, list)}
    lines.append(Branch(text=_in_words(options, "name", "alias")))
    return Branch(collection["name"], f"alias {alias}" if alias else "", lines)


def _named_rows(rows: list[Any]) -> dict[str, str]:
    """Name of a field, an index or a function to what else is declared of it.

    An index has the name of its field.
    """
    named = [row for row in rows if isinstance(row, dict)]
    return {row.get("name") or row["field"]: _in_words(row, "name", "field") for row in named}


def _in_words(row: Mapping[str, Any], *without: str) -> str:
    """Such as `dim 768, primary`: a name with its value, and what is true by its name alone."""
    words = []
    for name, held in row.items():
        if name not in without:
            words.append(name if held is True else f"{name} {held}")
    return ", ".join(words)


def _field_lines(collection: Mapping[str, Any]) -> Iterator[str]:
    for field in collection["fields"]:
        sizes = [field[name] for name in ("dim", "max_length") if name in field]
        size = f"({sizes[0]})" if sizes else ""
        yield f"        {field['type']}{size} {field['name']}"

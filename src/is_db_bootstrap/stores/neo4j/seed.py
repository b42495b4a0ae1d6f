"""Demo nodes and relationships: created where their key is missing, never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from is_db_bootstrap.blueprint import SeedNode, SeedRelationship
from is_db_bootstrap.errors import ChangeFailed
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.stores.neo4j.planned_statements import shown_query

KIND = "seed"
#: Sends one statement and returns its rows.
Run = Callable[..., list[dict[str, Any]]]


class Seed:
    """The demo data of a blueprint; each node and each relationship is one change."""

    def __init__(
        self, nodes: Sequence[SeedNode], relationships: Sequence[SeedRelationship]
    ) -> None:
        self._items: dict[str, SeedNode | SeedRelationship] = {_node_name(n): n for n in nodes}
        self._items |= {_relationship_name(r): r for r in relationships}

    def missing(self, run: Run) -> list[Change]:
        """What is not there, nodes first; one query for all."""
        if not self._items:
            return []
        parts: list[str] = []
        parameters: dict[str, Any] = {}
        for i, item in enumerate(self._items.values()):
            pattern, values = _present(item, f"p{i}_")
            parts.append(f"MATCH {pattern} RETURN {i} AS i LIMIT 1")
            parameters |= values
        present = {row["i"] for row in run(" UNION ALL ".join(parts), **parameters)}
        return [
            Change(name, KIND, nature=Nature.ATOMIC)
            for i, name in enumerate(self._items)
            if i not in present
        ]

    def statement(self, change: Change) -> str:
        """What creates an item, with its values as literals."""
        return shown_query(*_created(self._items[change.name]))

    def create(self, change: Change, run: Run) -> None:
        """MERGE on the key; properties are set on creation only.

        `ChangeFailed` when an end is missing.
        """
        item = self._items[change.name]
        text, parameters = _created(item)
        found = run(text, **parameters)
        if isinstance(item, SeedRelationship) and not found[0]["n"]:
            raise ChangeFailed(
                "neo4j",
                f"{change.name} was not created: one of its nodes is missing.",
                change=change,
                hint="See who deleted it, and run again.",
            )


def _created(item: SeedNode | SeedRelationship) -> tuple[str, dict[str, Any]]:
    """The statement that creates an item, and its parameters."""
    values = {"values": dict(item.values)}
    if isinstance(item, SeedNode):
        pattern, key = _node("n", item, "k_")
        return f"MERGE {pattern} ON CREATE SET n += $values", values | key
    start, one = _node("a", item.start, "a_")
    end, other = _node("b", item.end, "b_")
    text = (
        f"MATCH {start} MATCH {end} MERGE (a)-[r:{quoted(item.type)}]->(b) "
        "ON CREATE SET r += $values RETURN count(r) AS n"
    )
    return text, values | one | other


def _present(item: SeedNode | SeedRelationship, prefix: str) -> tuple[str, dict[str, Any]]:
    if isinstance(item, SeedNode):
        return _node("n", item, prefix)
    start, one = _node("a", item.start, f"{prefix}a_")
    end, other = _node("b", item.end, f"{prefix}b_")
    return f"{start}-[:{quoted(item.type)}]->{end}", one | other


def _node(variable: str, node: SeedNode, prefix: str) -> tuple[str, dict[str, Any]]:
    names = {f"{prefix}{i}": (key, value) for i, (key, value) in enumerate(node.key.items())}
    body = ", ".join(f"{quoted(key)}: ${name}" for name, (key, _) in names.items())
    return f"({variable}:{quoted(node.label)} {{{body}}})", {
        name: value for name, (_, value) in names.items()
    }


def _node_name(node: SeedNode) -> str:
    return f"{node.label} {_key(node.key)}"


def _relationship_name(item: SeedRelationship) -> str:
    return f"{_node_name(item.start)} {item.type} {_node_name(item.end)}"


def _key(key: Mapping[str, Any]) -> str:
    return "/".join(str(value) for value in key.values())

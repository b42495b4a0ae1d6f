"""What is wrong with a blueprint's declarations about Neo4j."""

from __future__ import annotations

from collections.abc import Iterator

from is_db_bootstrap.blueprint.declarations import Blueprint


def problems(blueprint: Blueprint) -> Iterator[str]:
    """Each thing that is wrong, with the field of the blueprint. No server is asked."""
    has_seed = bool(blueprint.seed_nodes or blueprint.seed_relationships)
    if has_seed and blueprint.cypher is None:
        yield "seed_nodes: there are no Cypher files"

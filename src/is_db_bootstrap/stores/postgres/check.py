"""What is wrong with a blueprint's declarations about PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

from is_db_bootstrap.blueprint.declarations import Blueprint


def problems(blueprint: Blueprint) -> Iterator[str]:
    """Each thing that is wrong, with the field of the blueprint. No server is asked."""
    if blueprint.seed_rows and blueprint.migrations is None and blueprint.alembic is None:
        yield "seed_rows: there are no migrations that make their tables"
    if blueprint.migrations is not None and blueprint.alembic is not None:
        yield "migrations and alembic: one of them names the revisions"
    if blueprint.alembic is not None and blueprint.portable:
        yield "portable: revisions of an environment of their own run on PostgreSQL only"

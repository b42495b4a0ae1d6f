"""The revisions that a blueprint declares: in a folder of its own, or by a team's environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.stores.postgres.revisions import Chain

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint


def chain_of(blueprint: Blueprint) -> Chain:
    """The revisions of a blueprint, of a folder of its own or of the team's environment."""
    if blueprint.alembic is not None:
        from is_db_bootstrap.stores.postgres.team_environment import read_environment

        return read_environment(blueprint.alembic).chain
    return Chain.read(blueprint.migrations) if blueprint.migrations else Chain()


def folder_of(blueprint: Blueprint) -> Path | None:
    """The folder in which the catalogue lies: that of the revisions, or of the team's `env.py`."""
    if blueprint.alembic is not None:
        from is_db_bootstrap.stores.postgres.team_environment import read_environment

        return read_environment(blueprint.alembic).folder
    return blueprint.migrations

"""A plugin of Alembic: autogenerate does not look into the schema of our own records.

A team whose `env.py` has `include_schemas` would get a revision that drops them. Alembic loads the
plugin by its entry point, wherever this package is installed (`alembic.plugins`, Alembic 1.18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.util import DispatchPriority, PriorityDispatchResult

from is_db_bootstrap.stores.postgres.own_schema import SCHEMA

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin


def setup(plugin: Plugin) -> None:
    """Alembic's hook: register what the plugin does."""
    plugin.add_autogenerate_comparator(
        _without_our_records, "schema", priority=DispatchPriority.FIRST
    )


def _without_our_records(_: Any, __: Any, schemas: set[str | None]) -> PriorityDispatchResult:
    """Take our schema from those that are compared."""
    schemas.discard(SCHEMA)
    return PriorityDispatchResult.CONTINUE

"""A plugin of Alembic: autogenerate does not look into the schema of our own records.

A team whose `env.py` has `include_schemas` would get a revision that drops them. Alembic loads the
plugin by its entry point, wherever this package is installed (`alembic.plugins`, Alembic 1.18).

Every `import alembic` of such an environment imports this module, and fails where it fails. So the
module itself imports nothing: drivers may be missing there, and Alembic is half imported then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult

#: `own_schema.SCHEMA`, whose module imports a driver.
SCHEMA = "is_db_bootstrap"


def setup(plugin: Plugin) -> None:
    """Alembic's hook: register what the plugin does."""
    from alembic.util import DispatchPriority

    plugin.add_autogenerate_comparator(
        _without_our_records, "schema", priority=DispatchPriority.FIRST
    )


def _without_our_records(_: Any, __: Any, schemas: set[str | None]) -> PriorityDispatchResult:
    """Take our schema from those that are compared."""
    from alembic.util import PriorityDispatchResult

    schemas.discard(SCHEMA)
    return PriorityDispatchResult.CONTINUE


class _PluginModule(ModuleType):
    """The module as Alembic 1.18 and 1.19 want it.

    They iterate over what the entry point names, and fail at import where it is a plain module
    (sqlalchemy/alembic #1873). Later ones take the module itself.
    """

    def __iter__(self) -> Iterator[ModuleType]:
        return iter((self,))


sys.modules[__name__].__class__ = _PluginModule

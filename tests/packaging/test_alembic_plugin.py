"""Alembic loads our plugin in every environment that has both. It must not break one of them."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from types import ModuleType

from is_db_bootstrap.stores.postgres import autogenerate_plugin, own_schema

_WITHOUT_DRIVERS = """
import sys
for missing in ("psycopg", "psycopg2", "asyncpg"):
    sys.modules[missing] = None
import alembic.command
from alembic.runtime import plugins
print(sorted(name for name in plugins._all_plugins if "is_db_bootstrap" in name))
"""


def test_the_plugin_is_a_module_and_can_be_iterated_as_alembic_1_18_and_1_19_do() -> None:
    """Those versions run `for module in entrypoint.load()` at import (sqlalchemy/alembic #1873)."""
    (entry,) = (
        entry for entry in entry_points(group="alembic.plugins") if "is_db_bootstrap" in entry.name
    )
    loaded = entry.load()
    assert isinstance(loaded, ModuleType)
    assert [module.setup for module in loaded] == [autogenerate_plugin.setup]


def test_alembic_can_be_imported_where_no_driver_of_postgresql_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_DRIVERS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['alembic.autogenerate.is_db_bootstrap']"


def test_the_plugin_names_the_schema_of_our_records() -> None:
    assert autogenerate_plugin.SCHEMA == own_schema.SCHEMA

"""A scratch database brought to head, and the `catalogue.json` that is generated from it.

    python -m is_db_bootstrap.stores.postgres_scratch novel_genesis

writes the file again after a revision has been added or changed. The address of a server, any of 14 to 18, is taken
from the settings; its databases are left alone.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap import blueprints
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings, StoreUrl, Timing
from is_db_bootstrap.stores.postgres import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres_catalogue import FILE_NAME, Catalogue, live
from is_db_bootstrap.stores.postgres_connection import MAINTENANCE, connect, errors, identifier, session_settings

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint


@contextmanager
def scratch_database(url: StoreUrl, timing: Timing) -> Iterator[StoreUrl]:
    """The address of a database that does not exist yet, on the server of `url`; dropped afterwards."""
    name = f"is_db_bootstrap_scratch_{secrets.token_hex(6)}"
    try:
        yield replace(url, database=name)
    finally:
        with connect(url, timing.connect_timeout_s, database=MAINTENANCE) as connection, errors(str(url), name):
            connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)".encode())


def generate(url: StoreUrl, blueprint: Blueprint, timing: Timing | None = None) -> Catalogue:
    """The catalogue of `blueprint` at its head, read from a scratch database on the server of `url`."""
    timing = timing or Timing()
    with scratch_database(url, timing) as scratch:
        store = PostgreSQLBootstrapper(scratch, blueprint.without_seed(), timing=timing)
        try:
            store.ping(timing.timeout_s)
            for change in store.plan().changes:
                store.apply(change)
            head = store.status().head
        finally:
            store.close()
        with connect(scratch, timing.connect_timeout_s, settings=session_settings("public")) as connection:
            return Catalogue(blueprint.name, head, live(connection, "public"))


def write(url: StoreUrl, blueprint: Blueprint, timing: Timing | None = None) -> Path:
    """Generate the file beside the revisions."""
    if blueprint.migrations_dir is None:
        raise ConfigurationError(f"{blueprint.name} has no migrations.")
    path = blueprint.migrations_dir / FILE_NAME
    path.write_text(generate(url, blueprint, timing).text(), encoding="utf-8")
    return path


if __name__ == "__main__":
    _declared = blueprints.load(sys.argv[1])
    _settings = Settings.load(_declared)
    sys.stdout.write(f"{write(_settings.need('postgres'), _declared, _settings.timing)}\n")

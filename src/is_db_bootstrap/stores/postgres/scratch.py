"""A scratch database brought to head, the `catalogue.json` that is generated from it, and `schema.sql`.

    python -m is_db_bootstrap.stores.postgres.scratch novel_genesis

writes both files again after a revision has been added or changed. The address of a server, any of 14 to 18, is taken
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
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import FILE_NAME, Catalogue, live
from is_db_bootstrap.stores.postgres.connection import MAINTENANCE, connect, errors, identifier, session_settings
from is_db_bootstrap.stores.postgres.revisions import Chain

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint


#: Beside `catalogue.json`, for teams whose DBA applies it.
SCHEMA_NAME = "schema.sql"


@contextmanager
def scratch_database(url: StoreUrl, timing: Timing) -> Iterator[StoreUrl]:
    """The address of a database that does not exist yet, on the server of `url`; dropped afterwards."""
    name = f"is_db_bootstrap_scratch_{secrets.token_hex(6)}"
    try:
        yield replace(url, database=name)
    finally:
        with connect(url, timing.connect_timeout_s, database=MAINTENANCE) as connection, errors(str(url), name):
            connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)".encode())


@contextmanager
def at_head(url: StoreUrl, blueprint: Blueprint, timing: Timing) -> Iterator[StoreUrl]:
    """The address of a scratch database that is at the blueprint's head."""
    with scratch_database(url, timing) as scratch:
        store = PostgreSQLBootstrapper(scratch, blueprint, timing=timing)
        try:
            store.ping(timing.timeout_s)
            for change in store.plan().changes:
                store.apply(change)
        finally:
            store.close()
        yield scratch


def generate(url: StoreUrl, blueprint: Blueprint, timing: Timing | None = None) -> Catalogue:
    """The catalogue of `blueprint` at its head, read from a scratch database on the server of `url`."""
    timing = timing or Timing()
    head = Chain.read(blueprint.migrations_dir).head if blueprint.migrations_dir else ""
    with (
        at_head(url, blueprint, timing) as scratch,
        connect(scratch, timing.connect_timeout_s, settings=session_settings("public")) as connection,
    ):
        return Catalogue(blueprint.name, head, live(connection, "public"))


def schema_sql(blueprint: Blueprint) -> str:
    """The SQL that takes an empty database to head, for psql; it records the revision as our own runs do."""
    from is_db_bootstrap.stores.postgres.alembic import offline_sql

    head = (
        f"-- Blueprint {blueprint.name}: what `is-db-bootstrap migrate sql` prints for an empty schema public. Generated.\n\n"
    )
    return head + offline_sql(blueprint, "public", "head")


def write(url: StoreUrl, blueprint: Blueprint, timing: Timing | None = None) -> tuple[Path, Path]:
    """Generate both files beside the revisions."""
    folder = blueprint.migrations_dir
    if folder is None:
        raise ConfigurationError(f"{blueprint.name} has no migrations.")
    catalogue, schema = folder / FILE_NAME, folder / SCHEMA_NAME
    catalogue.write_text(generate(url, blueprint, timing).text(), encoding="utf-8")
    schema.write_text(schema_sql(blueprint), encoding="utf-8")
    return catalogue, schema


if __name__ == "__main__":
    for _name in sys.argv[1:]:
        _declared = blueprints.load(_name)
        _settings = Settings.load(_declared)
        for _written in write(_settings.need("postgres"), _declared, _settings.timing):
            sys.stdout.write(f"{_written}\n")

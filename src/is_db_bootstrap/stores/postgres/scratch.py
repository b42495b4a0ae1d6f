"""A scratch database brought to head, the `catalogue.json` that is generated from it, and `schema.sql`.

    python -m is_db_bootstrap.stores.postgres.scratch novel_genesis

writes both files again after a revision has been added or changed. The address of a server, any of 14 to 18, is taken
from the settings; its databases are left alone.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap import blueprints, files
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings, StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import FILE_NAME, Catalogue, live
from is_db_bootstrap.stores.postgres.connection import (
    MAINTENANCE,
    SCRATCH,
    connect,
    errors,
    identifier,
    session_settings,
)
from is_db_bootstrap.stores.postgres.revisions import Chain

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint


#: Beside `catalogue.json`, for teams whose DBA applies it.
SCHEMA_NAME = "schema.sql"


@contextmanager
def scratch_database(url: StoreUrl, timing: Timing) -> Iterator[StoreUrl]:
    """The address of a database that does not exist yet, on the server of `url`; dropped afterwards."""
    name = f"{SCRATCH}{secrets.token_hex(6)}"
    try:
        yield replace(url, database=name)
    finally:
        with (
            connect(url, timing.connect_timeout_s, database=MAINTENANCE) as connection,
            errors(str(url), name),
        ):
            connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)".encode())


@contextmanager
def at_head(url: StoreUrl, blueprint: Blueprint, timing: Timing) -> Iterator[StoreUrl]:
    """The address of a scratch database that is at the blueprint's head."""
    with at_revisions(url, blueprint, None, timing) as scratch:
        yield scratch


@contextmanager
def at_revisions(
    url: StoreUrl,
    blueprint: Blueprint,
    done: Collection[str] | None,
    timing: Timing,
    schema: str = "public",
) -> Iterator[StoreUrl]:
    """The address of a scratch database that has the revisions `done`, all of them for None, in `schema`."""
    with scratch_database(url, timing) as scratch:
        store = PostgreSQLBootstrapper(scratch, blueprint, timing=timing, schema=schema)
        try:
            store.ping(timing.timeout_s)
            for change in store.plan().changes:
                if done is None or change.kind != "revision" or change.name in done:
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
        connect(
            scratch, timing.connect_timeout_s, settings=session_settings("public")
        ) as connection,
    ):
        return Catalogue(blueprint.name, head, live(connection, "public"))


def schema_sql(blueprint: Blueprint) -> str:
    """The SQL that takes an empty database to head, for psql; it records the revision as our own runs do."""
    from is_db_bootstrap.stores.postgres.alembic import offline_sql

    head = f"-- Blueprint {blueprint.name}: what `is-db-bootstrap migrate sql` prints for an empty schema public. Generated.\n\n"
    return head + offline_sql(blueprint, "public", "head")


def write(
    url: StoreUrl,
    blueprint: Blueprint,
    timing: Timing | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[Path, ...]:
    """Generate both files beside the revisions, and replace them only when both could be generated.

    A revision that cannot be written as SQL is told to `warn`, and `schema.sql` stays as it is.
    """
    folder = blueprint.migrations_dir
    if folder is None:
        raise ConfigurationError(f"{blueprint.name} has no migrations.")
    texts = {folder / FILE_NAME: generate(url, blueprint, timing).text()}
    try:
        texts[folder / SCHEMA_NAME] = schema_sql(blueprint)
    except ConfigurationError as exc:
        warn(f"{SCHEMA_NAME} was not written. {exc}")
    for path, text in texts.items():
        files.replace_text(path, text)
    return tuple(texts)


if __name__ == "__main__":
    for _name in sys.argv[1:]:
        _declared = blueprints.load(_name)
        _settings = Settings.load(_declared)
        for _written in write(_settings.need("postgres"), _declared, _settings.timing):
            sys.stdout.write(f"{_written}\n")

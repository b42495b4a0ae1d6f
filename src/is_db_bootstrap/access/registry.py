"""The open databases of this process, one a blueprint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from is_db_bootstrap import migrate as migrations
from is_db_bootstrap.access.database import Database
from is_db_bootstrap.blueprint.load import DEFAULT, load_blueprint
from is_db_bootstrap.settings import blueprint_name

_open: dict[str, Database] = {}


def _name(blueprint: str | None, environ: Mapping[str, str] | None) -> str:
    return load_blueprint(blueprint or blueprint_name(environ) or DEFAULT).name


async def init_db(
    blueprint: str | None = None, environ: Mapping[str, str] | None = None, *, migrate: bool = False
) -> Database:
    """Open and register the database of a blueprint. None means the configured one.

    A second call, also a concurrent one, gets the same database. `migrate` upgrades to head first,
    under the migration lock. That is for development: production changes a schema by an explicit
    command only. Raises `StoreUnavailable`, and what `migrate.init` raises.
    """
    name = _name(blueprint, environ)
    if (
        name not in _open
    ):  # no await between the look and the entry, so that concurrent calls get one
        _open[name] = Database.for_blueprint(name, environ)
    database = _open[name]
    try:
        if migrate:
            await asyncio.to_thread(migrations.init, name, environ=environ)
        await database.open()
    except BaseException:
        if not database.is_open and _open.get(name) is database:
            del _open[name]
        raise
    return database


def get_db(blueprint: str | None = None) -> Database:
    """The open database of a blueprint, or the only one.

    Raises `RuntimeError` when it is not open, or when several are.
    """
    if blueprint is not None:
        name = load_blueprint(blueprint).name
        found = [database for key, database in _open.items() if key == name and database.is_open]
    else:
        found = [database for database in _open.values() if database.is_open]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RuntimeError(
            f"No database{f' of {blueprint}' if blueprint else ''} is open: await init_db() first."
        )
    raise RuntimeError(
        f"Several databases are open ({', '.join(sorted(_open))}): name the blueprint."
    )


async def close_db(blueprint: str | None = None) -> None:
    """Close and forget the database of a blueprint, or all; again: nothing."""
    names = list(_open) if blueprint is None else [load_blueprint(blueprint).name]
    for name in names:
        database = _open.pop(name, None)
        if database is not None:
            await database.close()

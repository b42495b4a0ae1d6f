"""The open databases of this process, one per blueprint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from is_db_bootstrap import migrate as migrations
from is_db_bootstrap.access.database import Database
from is_db_bootstrap.app import refuse_other_blueprints
from is_db_bootstrap.blueprint.load import load_blueprint, load_chosen
from is_db_bootstrap.settings import Settings, chosen_blueprint

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint

_log = logging.getLogger(__name__)

_open: dict[str, Database] = {}


def _chosen(blueprint: str | None, environ: Mapping[str, str] | None) -> tuple[Blueprint, bool]:
    """The blueprint that is asked for, else the configured one, and whether nobody named it."""
    choice = chosen_blueprint(blueprint, environ=environ)
    if choice.is_default:
        _log.warning("The blueprint of this database is %s.", choice)
    return load_chosen(choice), choice.is_default


def _migrate(blueprint: Blueprint, environ: Mapping[str, str] | None, *, is_default: bool) -> None:
    """Upgrade to head. A blueprint that nobody named is refused beside others."""
    if is_default:
        settings = Settings.load(blueprint, environ=environ)
        refuse_other_blueprints(blueprint, settings, ("postgres",))
    migrations.init(blueprint, environ=environ)


async def init_db(
    blueprint: str | None = None, environ: Mapping[str, str] | None = None, *, migrate: bool = False
) -> Database:
    """Open and register the database of a blueprint. None means the configured one.

    A second call, also a concurrent one, gets the same database. `migrate` upgrades to head first,
    under the migration lock. Only development needs `migrate`, since in production an explicit
    command changes a schema. A blueprint that nobody named is logged, and `migrate` then raises
    `StoreConflict` when the database carries others only. Raises `StoreUnavailable`, and what
    `migrate.init` raises.
    """
    chosen, is_default = _chosen(blueprint, environ)
    name = chosen.name
    # No await stands between the look and the entry, so that concurrent calls get one database.
    if name not in _open:
        _open[name] = Database.for_blueprint(chosen, environ)
    database = _open[name]
    try:
        if migrate:
            await asyncio.to_thread(_migrate, chosen, environ, is_default=is_default)
        await database.open()
    except BaseException:
        if not database.is_open and _open.get(name) is database:
            del _open[name]
        raise
    return database


def get_db(blueprint: str | None = None) -> Database:
    """The open database of a blueprint, or the only one.

    Raises `RuntimeError` when that database is not open, or when several databases are open.
    """
    opened = {name: database for name, database in _open.items() if database.is_open}
    if blueprint is None:
        found = list(opened.values())
    else:
        name = load_blueprint(blueprint).name
        found = [opened[name]] if name in opened else []
    if len(found) == 1:
        return found[0]
    if not found:
        of_which = f" of {blueprint}" if blueprint else ""
        raise RuntimeError(f"No database{of_which} is open: await init_db() first.")
    names = ", ".join(sorted(opened))
    raise RuntimeError(f"Several databases are open ({names}): name the blueprint.")


async def close_db(blueprint: str | None = None) -> None:
    """Close and forget the database of a blueprint, or all databases when None.

    A second call does nothing.
    """
    names = list(_open) if blueprint is None else [load_blueprint(blueprint).name]
    for name in names:
        database = _open.pop(name, None)
        if database is not None:
            await database.close()

"""The parts of the desk.

Each part is built once in a process, after the parts that it needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any

from is_db_bootstrap.blueprints.helpdesk import BLUEPRINT, database
from is_db_bootstrap.blueprints.helpdesk.agents import AgentDirectory
from is_db_bootstrap.blueprints.helpdesk.archives import SessionArchive
from is_db_bootstrap.blueprints.helpdesk.audit import AuditLog
from is_db_bootstrap.blueprints.helpdesk.cache import Cache
from is_db_bootstrap.blueprints.helpdesk.emails import EmailRecords
from is_db_bootstrap.blueprints.helpdesk.tickets import TicketStore
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.redis.connection import client_arguments


class Component(StrEnum):
    """A part of the desk."""

    DATABASE = "database"
    CACHE = "cache"
    TICKETS = "tickets"
    AGENTS = "agents"
    AUDIT = "audit"
    ARCHIVES = "archives"
    EMAILS = "emails"


#: Each part and the parts that it needs, in the order in which they are built.
NEEDS: Mapping[Component, tuple[Component, ...]] = {
    Component.DATABASE: (),
    Component.CACHE: (Component.DATABASE,),
    Component.TICKETS: (Component.DATABASE, Component.CACHE),
    Component.AGENTS: (Component.DATABASE, Component.CACHE),
    Component.AUDIT: (Component.DATABASE, Component.CACHE),
    Component.ARCHIVES: (Component.DATABASE,),
    Component.EMAILS: (Component.DATABASE,),
}

_built: dict[Component, Any] = {}
_lock = threading.RLock()


def _build_database(environ: Mapping[str, str] | None) -> Any:
    return database.init_database(database.DatabaseConfig.from_env(environ))


def _build_cache(environ: Mapping[str, str] | None) -> Any:
    address = Settings.load(BLUEPRINT, environ=environ).need("redis")
    arguments = client_arguments(address)
    return Cache.from_url(arguments.pop("url"), database.get_db_session, **arguments)


def _build_with_cache(service: Callable[..., Any], _: Mapping[str, str] | None) -> Any:
    return service(database.get_db_session, _built[Component.CACHE])


def _build_plain(service: Callable[..., Any], _: Mapping[str, str] | None) -> Any:
    return service(database.get_db_session)


_BUILDERS: Mapping[Component, Callable[[Mapping[str, str] | None], Any]] = {
    Component.DATABASE: _build_database,
    Component.CACHE: _build_cache,
    Component.TICKETS: partial(_build_with_cache, TicketStore),
    Component.AGENTS: partial(_build_with_cache, AgentDirectory),
    Component.AUDIT: partial(_build_with_cache, AuditLog),
    Component.ARCHIVES: partial(_build_plain, SessionArchive),
    Component.EMAILS: partial(_build_plain, EmailRecords),
}


def init_components(
    components: Iterable[Component],
    environ: Mapping[str, str] | None = None,
) -> dict[Component, Any]:
    """Build the named parts and the parts that they need, and return all of them by name.

    A part that the process has is not built again. `environ` replaces the environment of the
    process. Raises `ConfigurationError` for a variable that is wrong or missing.
    """
    with _lock:
        wanted: list[Component] = []
        for component in components:
            wanted += [*NEEDS[component], component]
        for component in wanted:
            if component not in _built:
                _built[component] = _BUILDERS[component](environ)
        return {component: _built[component] for component in wanted}


def get_component(component: Component) -> Any:
    """A part that was built. Raises `RuntimeError` when the part was not built."""
    part = _built.get(component)
    if part is None:
        raise RuntimeError(
            f"{component} has not been built. "
            f"Call init_components([Component.{component.name}]) first."
        )
    return part


def is_initialized(component: Component) -> bool:
    """Whether the part was built."""
    return component in _built


def reset_components() -> None:
    """Forget every part, and dispose of the database."""
    with _lock:
        _built.clear()
        database.reset_database()

"""The parts of the desk, each built once in a process, what it needs first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
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


class Component(StrEnum):
    """A part of the desk."""

    DATABASE = "database"
    CACHE = "cache"
    TICKETS = "tickets"
    AGENTS = "agents"
    AUDIT = "audit"
    ARCHIVES = "archives"
    EMAILS = "emails"


#: What a part needs, in the order in which it is built.
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


def _database(environ: Mapping[str, str] | None) -> Any:
    return database.init_database(database.DatabaseConfig.from_env(environ))


def _cache(environ: Mapping[str, str] | None) -> Any:
    url = Settings.load(BLUEPRINT, environ=environ).need("redis")
    if url.ca_file:  # redis-py takes it from the address
        url = replace(url, query=(*url.query, ("ssl_ca_certs", url.ca_file)))
    return Cache.from_url(url.reveal(), database.get_db_session)


def _cached(service: Callable[..., Any], _: Mapping[str, str] | None) -> Any:
    return service(database.get_db_session, _built[Component.CACHE])


def _plain(service: Callable[..., Any], _: Mapping[str, str] | None) -> Any:
    return service(database.get_db_session)


_MAKERS: Mapping[Component, Callable[[Mapping[str, str] | None], Any]] = {
    Component.DATABASE: _database,
    Component.CACHE: _cache,
    Component.TICKETS: partial(_cached, TicketStore),
    Component.AGENTS: partial(_cached, AgentDirectory),
    Component.AUDIT: partial(_cached, AuditLog),
    Component.ARCHIVES: partial(_plain, SessionArchive),
    Component.EMAILS: partial(_plain, EmailRecords),
}


def init_components(components: Iterable[Component], environ: Mapping[str, str] | None = None) -> dict[Component, Any]:
    """Build the named parts and what they need, each once; all of these by name. `environ` replaces the environment."""
    with _lock:
        wanted: dict[Component, None] = {}
        for component in components:
            wanted |= dict.fromkeys((*NEEDS[component], component))
        for component in wanted:
            if component not in _built:
                _built[component] = _MAKERS[component](environ)
        return {component: _built[component] for component in wanted}


def get_component(component: Component) -> Any:
    """A part that was built; `RuntimeError` before."""
    try:
        return _built[component]
    except KeyError:
        raise RuntimeError(f"{component} has not been built: init_components([Component.{component.name}]) first.") from None


def is_initialized(component: Component) -> bool:
    """Whether the part was built."""
    return component in _built


def reset_components() -> None:
    """Forget every part and dispose of the database."""
    with _lock:
        _built.clear()
        database.reset_database()

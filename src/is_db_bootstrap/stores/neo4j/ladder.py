"""The rungs on which Neo4j can stand, told from the address and from the server's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.engine.store import Place
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.neo4j.connection import tls_way
from is_db_bootstrap.stores.neo4j.kind import KIND
from is_db_bootstrap.stores.neo4j.privileges import Privileges

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl


def places_of(url: StoreUrl, limit_s: float) -> list[Place]:
    """Where the driver asks first. A server of a cluster then leads it to others."""
    servers = url.hosts_with_ports(KIND.default_port)
    return [Place(host, port, limit_s) for host, port in servers]


def rungs_of(url: StoreUrl, database: str, privileges: Privileges) -> Sequence[RungResult]:
    """What a successful ping means for each rung from TLS on."""
    way = tls_way(url)
    tls = "not in use, the address asks for none"
    if way.is_asked_for:
        tls = "in use, the server's certificate is checked" if way.is_checked else "in use"
    login = f"as {url.username}" if url.username else "without a login, which the server takes"
    return [
        RungResult(Rung.TLS, ok=True, text=tls),
        RungResult(Rung.LOGIN, ok=True, text=login),
        RungResult(Rung.TARGET, ok=True, text=f"database {database or 'of the user'} is online"),
        RungResult(Rung.WRITABLE, ok=True, text="a server that takes writes"),
        RungResult(Rung.SCHEMA, ok=privileges.may_change_schema, text=privileges.told),
    ]

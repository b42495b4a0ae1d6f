"""The rungs on which Redis can stand, told from the address and from INFO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.engine.store import Place
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.redis import connection
from is_db_bootstrap.stores.redis.kind import KIND

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.redis.server import Server


def places_of(url: StoreUrl, limit_s: float) -> list[Place]:
    """Where the client connects to first: a server, nodes of a cluster, or Sentinels."""
    if url.scheme == KIND.socket_scheme:
        return [Place("", 0, limit_s, socket=url.host)]
    place = connection.Place.of(url)
    remark = " (a Sentinel)" if place.service else ""
    return [
        Place(host or "localhost", port, limit_s, remark=remark) for host, port in place.servers
    ]


def rungs_of(url: StoreUrl, server: Server) -> Sequence[RungResult]:
    """What a successful ping, and a look at the user's rights, mean for each rung from TLS on."""
    tls = (
        "in use"
        if connection.tls_way(url).is_asked_for
        else "not in use, the address asks for none"
    )
    login = f"as {url.username or 'default'}"
    if not url.password:
        login += ", without a password"
    kind = "a cluster" if server.is_cluster else "one server"
    if url.service:
        kind = f"the master of the Sentinels' service {url.service}"
    return [
        RungResult(Rung.TLS, ok=True, text=tls),
        RungResult(Rung.LOGIN, ok=True, text=login),
        RungResult(Rung.TARGET, ok=True, text=f"database {url.database or 0}, {kind}"),
        RungResult(Rung.WRITABLE, ok=True, text="a master that takes writes"),
        RungResult(Rung.SCHEMA, ok=True, text="may write our records, and read what is there"),
    ]

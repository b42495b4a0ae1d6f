"""The rungs on which Milvus can stand, told from the address and from the proxy's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from is_db_bootstrap.engine.store import Place
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.milvus.connection import default_port, tls_way

if TYPE_CHECKING:
    from is_db_bootstrap.results import Privilege
    from is_db_bootstrap.settings import StoreUrl

#: The port of a proxy that names none.
_PROXY_PORT = 80


def places_of(url: StoreUrl, limit_s: float) -> list[Place]:
    """Where gRPC connects to: the server, or the proxy that a variable puts in between."""
    if url.proxy is not None:
        proxy = urlsplit(url.proxy.server)
        host, port = proxy.hostname or "", proxy.port or _PROXY_PORT
        return [Place(host, port, limit_s, remark=f", {url.proxy}")]
    servers = url.hosts_with_ports(default_port(url))
    return [Place(host, port, limit_s) for host, port in servers]


def rungs_of(url: StoreUrl, privilege: Privilege) -> Sequence[RungResult]:
    """What a successful ping means for each rung from TLS on."""
    tls = "in use" if tls_way(url).is_asked_for else "not in use, the address asks for none"
    login = "without a login, which the server takes"
    if url.username or url.password:
        login = f"as {url.username}" if url.username else "with a token"
    return [
        RungResult(Rung.TLS, ok=True, text=tls),
        RungResult(Rung.LOGIN, ok=True, text=login),
        RungResult(Rung.TARGET, ok=True, text=f"database {url.database or 'default'}"),
        RungResult(Rung.WRITABLE, ok=None, text="Milvus tells of a full quota only when it writes"),
        RungResult(Rung.SCHEMA, ok=privilege.is_granted, text=privilege.name),
    ]

"""The rungs on which PostgreSQL can stand, told from the address and from a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from is_db_bootstrap.engine.store import Place
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.postgres.kind import KIND

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.settings import StoreUrl

#: Options of an address with which only libpq knows where it connects to.
_PLACES_OF_LIBPQ = frozenset({"service", "hostaddr", "host", "port"})


def places_of(url: StoreUrl, limit_s: float) -> list[Place]:
    """Where libpq connects to. Empty where it reads that in its environment or in a file."""
    if any(name in _PLACES_OF_LIBPQ and value for name, value in url.query):
        return []
    found = []
    for host, written in url.servers:
        port = int(written or KIND.default_port)
        if not host or host.startswith("@"):
            return []
        # The name of the socket's file is in the manual, under unix_socket_directories.
        socket = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else ""
        found.append(Place(host, port, limit_s, socket=socket))
    return found


def rungs_of(
    session: psycopg.Connection[Any], url: StoreUrl, schema_text: str, *, is_missing: bool
) -> list[RungResult]:
    """What a session has seen. `is_missing` says that it is in the database `postgres`."""
    target = RungResult(Rung.TARGET, ok=True, text=f"database {url.database}")
    if is_missing:
        text = f"database {url.database} does not exist yet, and apply creates it"
        target = RungResult(Rung.TARGET, ok=None, text=text)
    return [
        RungResult(Rung.TLS, ok=True, text=tls_text(session)),
        RungResult(Rung.LOGIN, ok=True, text=f"as {session.info.user}"),
        target,
        RungResult(Rung.WRITABLE, ok=True, text="a primary that takes writes"),
        RungResult(Rung.SCHEMA, ok=True, text=schema_text),
    ]


def tls_text(session: psycopg.Connection[Any]) -> str:
    """Whether this connection is encrypted, and how."""
    connection = session.pgconn
    if not connection.ssl_in_use:
        return "not in use, and not needed"
    return f"in use, {_version_of_tls(connection)}"


def _version_of_tls(connection: Any) -> str:
    protocol = getattr(connection, "ssl_attribute", None)
    found = protocol(b"protocol") if protocol else None
    return found.decode() if found else "with a version that psycopg does not tell"

"""The rungs on which PostgreSQL can stand, told from the address and from a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from is_db_bootstrap.engine.store import Place
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.postgres.hosts import FOR_APPLY, IS_STANDBY, WISH, hosts_of

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.settings import StoreUrl

#: The option of an address that names a section of a file with further options, which libpq reads.
_FILE_OF_LIBPQ = "service"
_STANDBY = f"{IS_STANDBY.removeprefix('is ')}, which the address asks for with {WISH}"


def places_of(url: StoreUrl, limit_s: float) -> list[Place]:
    """Where libpq connects to. Empty where it reads that in its environment or in a file."""
    if any(name == _FILE_OF_LIBPQ and value for name, value in url.query):
        return []
    found = []
    for server in hosts_of(url):
        host, port = server.hostaddr or server.name, int(server.port)
        if not host or host.startswith("@"):
            return []
        # The name of the socket's file is in the manual, under unix_socket_directories.
        socket = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else ""
        found.append(Place(host, port, limit_s, socket=socket))
    return found


def rungs_of(
    session: psycopg.Connection[Any],
    url: StoreUrl,
    schema: RungResult,
    *,
    is_missing: bool,
    is_standby: bool,
) -> list[RungResult]:
    """What a session has seen. `is_missing` says that it is in the database `postgres`.

    `is_standby` says that the server takes no writes. A run gets there only when the address asks
    for a standby. `schema` is what was seen of the highest rung.
    """
    target = RungResult(Rung.TARGET, ok=True, text=f"database {url.database}")
    if is_missing:
        text = f"database {url.database} does not exist yet, and apply creates it"
        target = RungResult(Rung.TARGET, ok=None, text=text)
    writable = RungResult(Rung.WRITABLE, ok=True, text="a primary that takes writes")
    if is_standby:
        writable = RungResult(Rung.WRITABLE, ok=False, text=_STANDBY, hint=FOR_APPLY)
    return [
        RungResult(Rung.TLS, ok=True, text=tls_text(session)),
        RungResult(Rung.LOGIN, ok=True, text=f"as {session.info.user}"),
        target,
        writable,
        schema,
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

"""The members of a cluster, as `SHOW DATABASE` and routing tables tell of them.

A cluster answers `SHOW DATABASE` with one row for each member that has the database. A single
server answers with one row. Sources are the manual's pages "Listing databases" and "Clustering".
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.stores.neo4j.connection import addresses_of
from is_db_bootstrap.stores.neo4j.kind import STORE

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

Row = Mapping[str, Any]

#: What the scheme of an address begins with whose client asks for the members and their roles.
ROUTING = "neo4j"
_DEFAULT_PORT = "7687"
TO_WRITER = (
    "Write neo4j:// instead of bolt:// to be led to the writer; bolt:// only when exactly one "
    "server is reachable."
)
#: What an address of `neo4j://` needs no change for.
WAIT_FOR_LEADER = "Another member may be becoming the leader. Run again in some seconds."
TO_ONE_SERVER = (
    "Let the server tell an address that is reached from here (server.bolt.advertised_address). "
    "Write bolt:// instead of neo4j:// when exactly one server is reachable, as through a "
    "port-forward."
)


def way_to_writer(target: str) -> str:
    """What to do about a member that is no writer, by the scheme of the address."""
    return WAIT_FOR_LEADER if target.startswith(ROUTING) else TO_WRITER


def refuse_members(url: StoreUrl, rows: Sequence[Row]) -> None:
    """Raise `StoreUnavailable` when the database cannot be written to at this address now.

    `rows` are those of `SHOW DATABASE` with name, address, currentStatus, statusMessage, access and
    writer. With `bolt://`, the row of the very server counts, where its address is the one that it
    tells itself. Else any member's does. No rows say nothing.
    """
    mine = [row for row in rows if _is_of(url, row)]
    if mine or len(rows) == 1:
        for row in mine or rows:
            _refuse_offline(url, row)
    if not rows or any(_is_writer(row) for row in mine or rows):
        return
    name = rows[0]["name"]
    writers = [str(row["address"]) for row in rows if _is_writer(row)]
    if writers:
        raise StoreUnavailable(
            STORE,
            f"{url} is not the writer of database {name}. Its writer is {', '.join(writers)}.",
            hint=TO_WRITER,
        ).at(Rung.WRITABLE)
    if len(rows) > 1:
        states = ", ".join(f"{row['address']} {row['currentStatus']}" for row in rows)
        raise StoreUnavailable(
            STORE,
            f"No member of the cluster at {url} is the writer of database {name} at present, or it "
            f"is read-only: {states}.",
            hint=WAIT_FOR_LEADER,
        ).at(Rung.WRITABLE)
    raise StoreUnavailable(
        STORE,
        f"{url} is not the writer of database {name}, or it is read-only.",
        hint=way_to_writer(str(url)),
    ).at(Rung.WRITABLE)


def _is_of(url: StoreUrl, row: Row) -> bool:
    """Whether a row is of the server that a direct address leads to."""
    is_direct = not url.scheme.startswith(ROUTING)
    return is_direct and str(row["address"]).lower() in addresses_of(url)


def _is_writer(row: Row) -> bool:
    return bool(
        row["writer"] and row["access"] == "read-write" and row["currentStatus"] == "online"
    )


def _refuse_offline(url: StoreUrl, row: Row) -> None:
    if row["currentStatus"] == "online":
        return
    told = f": {row['statusMessage']}" if row["statusMessage"] else ""
    raise StoreUnavailable(
        STORE,
        f"Database {row['name']} at {url} is {row['currentStatus']}{told}.",
        hint="Wait for it, start it (START DATABASE), or see its log.",
    ).at(Rung.TARGET)


def writers_told(table: Sequence[Row]) -> list[str]:
    """The addresses of writers in the `servers` of a routing table."""
    return [
        str(address) for each in table if each["role"] == "WRITE" for address in each["addresses"]
    ]


def refuse_unreachable(url: StoreUrl, writers: Sequence[str], limit_s: float) -> None:
    """Raise `StoreUnavailable` when none of the told writers can be reached from here.

    Each one is tried for `limit_s` seconds at most. Without a writer, a leader is being chosen.
    """
    if not writers:
        raise StoreUnavailable(
            STORE, f"{url} answers and names no writer at present.", hint=WAIT_FOR_LEADER
        ).at(Rung.WRITABLE)
    failures = {address: _failure(address, limit_s) for address in writers}
    if all(failures.values()):
        said = ", ".join(f"{address} ({failure})" for address, failure in failures.items())
        raise StoreUnavailable(
            STORE,
            f"{url} answers, but the writer that it names cannot be reached from here: {said}.",
            hint=TO_ONE_SERVER,
        ).at(Rung.TARGET)


def _failure(address: str, limit_s: float) -> str:
    """Why no connection can be made. Empty when one can."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port or _DEFAULT_PORT)), limit_s).close()
    except (OSError, ValueError) as exc:
        return str(getattr(exc, "strerror", "") or exc)
    return ""

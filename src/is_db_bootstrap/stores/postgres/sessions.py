"""Ending the sessions that processes beside us have on the server.

A revision may open connections of its own: with `psycopg.connect`, with another driver, or in a
process that it starts. The server does not notice at once that such a process is gone, and goes on
with the statement that it was given, commit included. So these sessions are ended on the server.

They are recognised by the name that the environment gives to every session of libpq (`PGAPPNAME`),
and by the address and port of their client, which the server has in `pg_stat_activity`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from is_db_bootstrap.process_tree import Client, plain_address
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.connection import MAINTENANCE, TERMINATE_MS, connect
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors

#: Looks at the sessions; what is still there after the last one is told.
_LOOKS = 3
#: PostgreSQL shows names and clients of other roles' sessions too, clients only to some (the
#: manual's table "pg_stat_activity View" and its note on `pg_read_all_stats`).
_SESSIONS = """
    SELECT pid, usename, application_name, host(client_addr), client_port FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND usename IS NOT NULL
"""
_TERMINATE = "SELECT pg_terminate_backend(%s, %s)"


def end_sessions(
    url: StoreUrl, connect_timeout_s: float, name: str, clients: Iterable[Client]
) -> str:
    """End the sessions called `name` and those of `clients`, and wait for their end.

    Sessions in every database of the server are meant. Returns the sessions that could not be
    ended, as a sentence; empty when none is left. Raises the errors of `connection.connect` when
    the server cannot be asked. Times are seconds.
    """
    try:
        connection = connect(url, connect_timeout_s)
    except DatabaseMissing:
        connection = connect(url, connect_timeout_s, database=MAINTENANCE)
    with connection, errors(str(url)):
        ports = _our_ports(connection, clients)
        found: list[tuple[int, str]] = []
        for _ in range(_LOOKS):
            found = _sessions(connection, name, ports)
            if not found:
                return ""
            for pid, _user in found:
                _terminate(connection, pid)
        found = _sessions(connection, name, ports)
    if not found:
        return ""
    told = ", ".join(f"{pid} of {user}" for pid, user in found)
    return f"{url} did not end session {told}, which a revision had opened; what it does may go on."


def _our_ports(
    connection: psycopg.Connection[Any], clients: Iterable[Client]
) -> set[tuple[str, int]]:
    """Address and port of the clients that talk to the server which `connection` talks to.

    A port alone is not enough: one port of a machine may be in use towards several servers.
    """
    server = (plain_address(connection.info.hostaddr), connection.info.port)
    return {
        (client.address, client.port)
        for client in clients
        if (client.server_address, client.server_port) == server
    }


def _sessions(
    connection: psycopg.Connection[Any], name: str, ports: set[tuple[str, int]]
) -> list[tuple[int, str]]:
    """Process id and user of each session called `name`, or whose client is one of `ports`."""
    rows = connection.execute(_SESSIONS.encode()).fetchall()
    return [
        (pid, user)
        for pid, user, called, address, port in rows
        if called == name or (plain_address(address or ""), port) in ports
    ]


def _terminate(connection: psycopg.Connection[Any], pid: int) -> None:
    """End a session and wait for it; one that we may not end is looked for once more, and told."""
    try:
        connection.execute(_TERMINATE.encode(), [pid, TERMINATE_MS])
    except psycopg.errors.InsufficientPrivilege:
        return

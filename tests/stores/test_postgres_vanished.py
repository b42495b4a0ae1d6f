"""A client that vanishes, as a machine does that loses its power or its network.

Its packets are dropped in a network namespace that is made for this, so that no other connection
of this machine is touched. The server runs inside the namespace too.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.results import LockHolder
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import SERVER_KEEPALIVE, connect
from servers import wait_until_up

pytestmark = pytest.mark.postgres

#: The bound of the issue, in seconds.
BOUND_S = 60
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


class Namespace:
    """A network namespace of its own. Its loopback device is up."""

    def __init__(self) -> None:
        self.name = f"is-db-bootstrap-{os.getpid()}"
        self._command("ip", "netns", "add", self.name)

    def up(self) -> None:
        self.run("ip", "link", "set", "lo", "up")
        self.run("iptables", "-L")

    def enter(self) -> None:
        """Move the calling thread into the namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{self.name}").open() as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "The network namespace cannot be entered.")

    def run(self, *arguments: str) -> None:
        self._command("ip", "netns", "exec", self.name, *arguments)

    def inside(self, call: Callable[[], T]) -> T:
        """What `call` returns. It runs in a thread of this process that is in the namespace."""
        results: list[T] = []
        raised: list[BaseException] = []

        def enter_and_call() -> None:
            try:
                self.enter()
                results.append(call())
            except BaseException as exc:  # noqa: BLE001 - raised again in the test's own thread
                raised.append(exc)

        thread = threading.Thread(target=enter_and_call)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        return results[0]

    def drop_packets_of(self, port: int) -> None:
        """From now on, nothing reaches the client at `port`, and nothing comes from it."""
        self.run("iptables", "-A", "INPUT", "-p", "tcp", "--sport", str(port), "-j", "DROP")
        self.run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP")

    def close(self) -> None:
        self._command("ip", "netns", "delete", self.name)

    @staticmethod
    def _command(*arguments: str) -> None:
        subprocess.run(arguments, check=True, capture_output=True, timeout=60)


@pytest.fixture
def namespace():
    if not (shutil.which("ip") and shutil.which("iptables")):
        pytest.skip("ip or iptables is not installed")
    try:
        made = Namespace()
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no network namespace can be made here: {exc.stderr.decode().strip()}")
    try:
        made.up()
        made.inside(lambda: None)
        yield made
    except (subprocess.CalledProcessError, PermissionError) as exc:
        pytest.skip(f"the network namespace cannot be used here: {exc}")
    finally:
        made.close()


def port_of(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT inet_client_port()").fetchone()[0]


def test_a_node_that_vanishes_frees_the_lock_and_ends_its_transactions(namespace, farm):
    server = farm.make("postgres", start=False, password="a password")

    def start() -> None:
        server.start()
        wait_until_up(server)

    namespace.inside(start)
    url = StoreUrl.parse("postgres", f"{server.url}/postgres")
    timing = Timing(connect_timeout_s=BOUND_S)

    def store() -> PostgreSQLBootstrapper:
        return PostgreSQLBootstrapper(url, Blueprint("mine", "test"), timing=timing)

    def open_sessions() -> list[psycopg.Connection]:
        lock = store().try_lock("the node that vanishes")
        assert not isinstance(lock, LockHolder)
        working = connect(url, BOUND_S)
        working.execute("BEGIN; CREATE TABLE half_done ()")
        return [lock.connection, working]

    def wait_for_lock() -> float:
        began = time.monotonic()
        assert isinstance(store().try_lock("too early"), LockHolder)
        while isinstance(taken := store().try_lock("the next run"), LockHolder):
            assert time.monotonic() - began < BOUND_S
            time.sleep(0.5)
        assert taken.release()
        with connect(url, BOUND_S) as looking:
            count = "SELECT count(*) FROM pg_stat_activity WHERE client_port = ANY(%s)"
            while looking.execute(count, [ports]).fetchone() != (0,):
                assert time.monotonic() - began < BOUND_S
                time.sleep(0.5)
        return time.monotonic() - began

    sessions = namespace.inside(open_sessions)
    ports = [port_of(session) for session in sessions]
    for port in ports:
        namespace.drop_packets_of(port)
    assert namespace.inside(wait_for_lock) < BOUND_S
    for session in sessions:
        session.close()


def test_each_session_has_the_keep_alives_of_its_server_set(postgres_url):
    """Also one that is opened without settings of its own."""
    url = StoreUrl.parse("postgres", postgres_url)
    utc = {"TimeZone": "UTC"}
    with (
        connect(url, BOUND_S, database="postgres", settings=utc) as one,
        connect(url, BOUND_S, database="postgres") as two,
    ):
        for session in (one, two):
            rows = session.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)",
                [list(SERVER_KEEPALIVE)],
            ).fetchall()
            assert dict(rows) == SERVER_KEEPALIVE

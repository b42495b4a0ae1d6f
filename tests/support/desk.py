"""A desk on two real servers, and ways to take them away."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from is_db_bootstrap.blueprints.helpdesk.agents import AgentDirectory
from is_db_bootstrap.blueprints.helpdesk.archives import SessionArchive
from is_db_bootstrap.blueprints.helpdesk.audit import AuditLog
from is_db_bootstrap.blueprints.helpdesk.cache import Cache
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AuditEntry, Ticket
from is_db_bootstrap.blueprints.helpdesk.emails import EmailRecords
from is_db_bootstrap.blueprints.helpdesk.tickets import TicketStore

PATTERNS = ("ticket:*", "agent:*", "agent_id:*", "audit_log:*")


@dataclass
class Desk:
    """What one process of the application has."""

    engine: Any
    sessions: Any
    cache: Cache | None
    tickets: TicketStore
    agents: AgentDirectory
    audit: AuditLog
    archives: SessionArchive
    emails: EmailRecords


def open_desk(postgres_url, redis_url=None):
    """`redis_url` None: without a cache."""
    engine = create_engine(
        postgres_url.replace("postgresql://", "postgresql+psycopg://"),
        pool_size=20,
        pool_pre_ping=True,
        # The test's server does not wait for its log, and would lose a commit when it is killed.
        connect_args={"connect_timeout": 5, "options": "-c synchronous_commit=on"},
    )
    sessions = sessionmaker(engine, autoflush=False, expire_on_commit=False).begin
    cache = Cache.from_url(redis_url, sessions) if redis_url else None
    return Desk(
        engine,
        sessions,
        cache,
        TicketStore(sessions, cache),
        AgentDirectory(sessions, cache),
        AuditLog(sessions, cache),
        SessionArchive(sessions),
        EmailRecords(sessions),
    )


def copied_keys(redis):
    return {key for pattern in PATTERNS for key in redis.scan_iter(pattern)} - {"ticket:index"}


def assert_copies_equal_postgres(sessions, redis):
    """Field by field, with types and lifetimes, and not one key more."""
    tickets = TicketStore(sessions, None).find(limit=500)[1]
    agents = AgentDirectory(sessions, None).find(limit=500)[1]
    with sessions() as session:
        audited = (
            session.connection()
            .exec_driver_sql("SELECT DISTINCT ticket_id FROM audit_logs")
            .scalars()
            .all()
        )
    expected = {f"ticket:{each.ticket_id}" for each in tickets} | {
        f"audit_log:{name}" for name in audited
    }
    expected |= {f"agent:{each.username}" for each in agents} | {
        f"agent_id:{each.id}" for each in agents
    }
    assert copied_keys(redis) == expected
    assert redis.smembers("ticket:index") == {each.ticket_id for each in tickets}
    for each in tickets:
        assert Ticket.model_validate_json(redis.get(f"ticket:{each.ticket_id}")) == each
        assert redis.ttl(f"ticket:{each.ticket_id}") == -1
    for each in agents:
        assert Agent.model_validate_json(redis.get(f"agent:{each.username}")) == each
        assert redis.get(f"agent_id:{each.id}") == each.username
    for name in audited:
        copies = [
            AuditEntry.model_validate_json(text)
            for text in redis.lrange(f"audit_log:{name}", 0, -1)
        ]
        assert copies == AuditLog(sessions, None).find(name, limit=500)


@contextlib.contextmanager
def hanging(server):
    """SIGSTOP: its port accepts, and nothing is answered."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.contextmanager
def killed(server):
    """SIGKILL, and started again at the end, on the same port."""
    from servers import wait_until_up

    server.kill()
    try:
        yield
    finally:
        server.start()
        wait_until_up(server)


class Proxy:
    """Stands before a server. `break_next` ends the connection that sends something next;
    `hold(b"…")` keeps back, on the way to the server, the first chunk that contains this and all
    that follows it on its connection, until `release`.
    """

    def __init__(self, host, port):
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.broken = 0
        self._break_next = False
        self._hold = None
        self.held = threading.Event()
        self._released = threading.Event()
        self.delivered = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def break_next(self):
        self._break_next = True

    def hold(self, part):
        self._hold = part

    def release(self):
        self._released.set()
        assert self.delivered.wait(5)

    def close(self):
        self._released.set()
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(self._target) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    chunk = ready.recv(1 << 16)
                    if not chunk:
                        return
                    if ready is server:
                        client.sendall(chunk)
                    elif self._break_next:
                        self._break_next = False
                        self.broken += 1
                        return
                    elif self._hold and self._hold in chunk:
                        self._hold = None
                        self._deliver_late(server, chunk)
                        return
                    else:
                        server.sendall(chunk)

    def _deliver_late(self, server, chunk):
        self.held.set()
        self._released.wait(30)
        server.sendall(chunk)
        server.settimeout(5)
        server.recv(1 << 16)  # it was executed
        self.delivered.set()


def eventually(fact, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)

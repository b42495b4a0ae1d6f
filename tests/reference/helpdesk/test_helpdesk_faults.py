"""Random work under random faults: afterwards the copies equal PostgreSQL, and meanwhile nobody
reads what is older than his own write.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import redis as redis_client
from sqlalchemy.exc import DBAPIError

from desk import Proxy, assert_copies_equal_postgres, hanging, killed, open_desk
from is_db_bootstrap.blueprints.helpdesk.domain import Agent, AuditEntry, Ticket, TicketComment
from is_db_bootstrap.blueprints.helpdesk.errors import HelpdeskError
from servers import PASSWORD, clone, wait_until_up

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

#: Longer than the two tries of a refresh, seconds.
LAST_S = 3.0
#: A write may fail, and then nobody knows whether it happened.
UNKNOWN = object()


class Worker:
    """One thread of a process; `username` is written by nobody else, the tickets by all."""

    def __init__(self, desk, number, ticket_ids, seed):
        self.desk, self.ticket_ids, self.random = (
            desk,
            ticket_ids,
            random.Random(seed * 100 + number),
        )
        self.agent = desk.agents.create(
            Agent(username=f"agent-{number}", password_hash="0", name="A")
        )
        self.hash = "0"
        self.done = Counter()

    def run(self, until):
        steps = (
            self.save,
            self.save,
            self.replace,
            self.audit,
            self.rehash,
            self.rehash,
            self.look,
            self.look,
        )
        while time.monotonic() < until:
            step = self.random.choice(steps)
            try:
                step()
                self.done[step.__name__] += 1
            except (DBAPIError, HelpdeskError) as exc:
                self.done[type(exc).__name__] += 1

    def save(self):
        ticket = self.desk.tickets.get(self.random.choice(self.ticket_ids))
        if ticket:
            ticket.comments = [*ticket.comments[-3:], TicketComment(content="c", author_id="a")]
            self.desk.tickets.save(ticket)

    def replace(self):
        ticket_id = self.random.choice(self.ticket_ids)
        if not self.desk.tickets.delete(ticket_id):
            self.desk.tickets.create(
                Ticket(ticket_id=ticket_id, title="t", description="", created_by="c")
            )

    def audit(self):
        ticket_id = self.random.choice(self.ticket_ids)
        self.desk.audit.add(
            AuditEntry(ticket_id=ticket_id, event_type="commented", operator_id="a")
        )

    def rehash(self):
        new, self.hash = str(self.random.random()), UNKNOWN
        self.desk.agents.update(self.agent.id, password_hash=new)
        self.hash = new

    def look(self):
        for agent in (
            self.desk.agents.get_by_username(self.agent.username),
            self.desk.agents.get_by_id(self.agent.id),
        ):
            assert self.hash in {UNKNOWN, agent.password_hash}


def terminate_somebody(url):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                              WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2""")


def hang(server, seconds):
    with hanging(server):
        time.sleep(seconds)


def lose(server):
    with killed(server):
        time.sleep(0.2)


def disturb(faults, chance, until, server):
    """At the end Redis hangs, so that something is left to repair."""
    while time.monotonic() < until - LAST_S:
        time.sleep(chance.uniform(0.02, 0.4))
        chance.choice(faults)()
    with hanging(server):
        time.sleep(until + LAST_S - time.monotonic())


@pytest.mark.soak
@pytest.mark.parametrize("redis_loses_its_data", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_after_any_faults_a_repair_makes_the_copies_equal(farm, redis_loses_its_data, seed):
    postgres, redis_server = farm.make("postgres", password=PASSWORD), farm.make("redis")
    url = clone(farm, postgres, "helpdesk")
    proxy = Proxy(redis_server.host, redis_server.port)
    chance = random.Random(seed)
    desks = [open_desk(url, f"redis://127.0.0.1:{proxy.port}") for _ in range(2)]
    ticket_ids = [f"TKT-{number}" for number in range(6)]
    workers = [Worker(desk, number, ticket_ids, seed) for number, desk in enumerate(desks * 3)]
    faults = [
        lambda: hang(redis_server, chance.uniform(0.05, 3.5)),
        lambda: hang(redis_server, chance.uniform(0.8, 1.3)),
        proxy.break_next,
        proxy.break_next,
        lambda: terminate_somebody(url),
        *([lambda: lose(redis_server)] if redis_loses_its_data else []),
    ]
    until = time.monotonic() + 25
    try:
        with ThreadPoolExecutor(len(workers) + 1) as threads:
            running = [threads.submit(worker.run, until) for worker in workers]
            running.append(threads.submit(disturb, faults, chance, until, redis_server))
            for each in running:
                each.result()
        wait_until_up(redis_server)
        assert all(desk.cache.pending() for desk in desks)
        for desk in desks:
            assert desk.cache.repair(full=redis_loses_its_data).failed == ()
            assert desk.cache.pending() == frozenset()
        done = sum((worker.done for worker in workers), Counter())
        assert min(done[name] for name in ("save", "replace", "audit", "rehash", "look")) > 5, done
        with redis_client.Redis.from_url(redis_server.url, decode_responses=True) as redis:
            assert_copies_equal_postgres(desks[0].sessions, redis)
    finally:
        for desk in desks:
            desk.engine.dispose()
        proxy.close()
        postgres.kill()
        redis_server.kill()

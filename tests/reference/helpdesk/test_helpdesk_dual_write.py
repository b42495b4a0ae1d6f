"""Two stores, and one of them stops, hangs, breaks or comes back. Numbers are those of the
blueprint's acceptance checks.
"""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import redis as redis_client
from sqlalchemy.exc import OperationalError

from desk import (
    Proxy,
    assert_copies_equal_postgres,
    copied_keys,
    eventually,
    hanging,
    killed,
    open_desk,
)
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.blueprints.helpdesk.components import (
    Component,
    init_components,
    reset_components,
)
from is_db_bootstrap.blueprints.helpdesk.domain import (
    Agent,
    AgentSkill,
    AuditEntry,
    Ticket,
    TicketAssignment,
    TicketAttachment,
    TicketComment,
    TicketCustomer,
    TicketPriority,
    TicketStatus,
    TicketStatusHistory,
)
from is_db_bootstrap.blueprints.helpdesk.errors import RecordNotFound, StaleRecord
from servers import PASSWORD, clone, drop_database

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

YEAR_S = 31_536_000


@pytest.fixture(scope="module")
def postgres(farm):
    """A server of this module's own: it gets killed."""
    server = farm.make("postgres", password=PASSWORD)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def redis_server(farm):
    server = farm.make("redis")
    yield server
    server.kill()


@pytest.fixture
def url(farm, postgres):
    address = clone(farm, postgres, "helpdesk")
    yield address
    drop_database(postgres, address.rpartition("/")[2])


@pytest.fixture
def redis(redis_server):
    """What other processes see; with more patience than the desk has."""
    with redis_client.Redis.from_url(redis_server.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def new_desk(url, redis, redis_server):
    """`new_desk()`: what a new process would have."""
    made = []

    def make(redis_url=redis_server.url):
        made.append(open_desk(url, redis_url))
        return made[-1]

    yield make
    for each in made:
        each.engine.dispose()


@pytest.fixture
def desk(new_desk):
    return new_desk()


@pytest.fixture
def proxy(redis_server):
    proxy = Proxy(redis_server.host, redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("is_db_bootstrap")
    ]


def ticket(**fields):
    return Ticket(**({"title": "No sound", "description": "", "created_by": "customer-1"} | fields))


def agent(username, **fields):
    return Agent(username=username, password_hash="$2b$12$hash", name=username.title(), **fields)


def audit(ticket_id, **fields):
    return AuditEntry(ticket_id=ticket_id, event_type="created", operator_id="agent-1", **fields)


def comment(content, **fields):
    return TicketComment(content=content, author_id="agent-1", **fields)


def attachment(filename, **fields):
    return TicketAttachment(
        filename=filename, stored_path="/files/x", size=3, uploader_id="agent-1", **fields
    )


def change(reason, **fields):
    return TicketStatusHistory(
        to_status="pending", changed_by="agent-1", change_reason=reason, **fields
    )


def full_ticket():
    return ticket(
        customer=TicketCustomer(name="Ünal", email="u@example.org"),
        metadata={"order": {"lines": [1, 2.5, None, "ü"]}},
        comments=[comment("one", mentions=["bo"]), comment("two"), comment("three")],
        attachments=[attachment("a.txt"), attachment("b.txt"), attachment("c.txt")],
        history=[change("first"), change("second"), change("third")],
        assignments=[TicketAssignment(agent_id="a", assigned_at=1.5)] * 2
        + [TicketAssignment(agent_id="b", assigned_at=2)],
    )


def age(redis, key, seconds):
    """As if the copy had been written that long ago."""
    assert redis.pexpire(key, int((YEAR_S - seconds) * 1000))


def everything(redis):
    """Every key with its value, for comparison; lifetimes left out."""
    return {key: redis.dump(key) for key in redis.scan_iter("*")}


def sql(url, statement, *parameters):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement, parameters or None).rowcount


# 14


def test_hd_14_every_write_is_found_in_both_stores(desk, redis):
    kept = desk.tickets.create(full_ticket())
    gone = desk.tickets.create(ticket())
    desk.tickets.save(kept.model_copy(update={"title": "Still no sound"}))
    assert desk.tickets.delete(gone.ticket_id)
    assert not desk.tickets.delete(gone.ticket_id)
    anna = desk.agents.create(agent("anna", skills=[AgentSkill(category="Audio")]))
    bob = desk.agents.create(agent("bob"))
    assert desk.agents.update(anna.id, username="anne", status="online").username == "anne"
    assert desk.agents.delete(bob.id)
    assert not desk.agents.delete(bob.id)
    desk.audit.add(audit(gone.ticket_id, details={"n": 1}))
    desk.audit.add(audit(gone.ticket_id, details={"n": 2}))
    assert copied_keys(redis) == {
        f"ticket:{kept.ticket_id}",
        "agent:anne",
        f"agent_id:{anna.id}",
        f"audit_log:{gone.ticket_id}",
    }
    assert desk.tickets.get(kept.ticket_id).title == "Still no sound"
    assert_copies_equal_postgres(desk.sessions, redis)
    assert desk.cache.pending() == frozenset()


def test_hd_14_copies_have_the_declared_type_and_lifetime(desk, redis):
    stored = desk.tickets.create(ticket())
    anna = desk.agents.create(agent("anna"))
    desk.audit.add(audit(stored.ticket_id))
    declared = {each.name: each for each in load_blueprint("helpdesk").keys}
    keys = {
        "ticket": f"ticket:{stored.ticket_id}",
        "ticket_index": "ticket:index",
        "agent": "agent:anna",
        "agent_id": f"agent_id:{anna.id}",
        "audit_log": f"audit_log:{stored.ticket_id}",
    }
    for name, key in keys.items():
        assert redis.type(key) == declared[name].type
    assert YEAR_S - 10 <= redis.ttl("agent:anna") <= YEAR_S
    assert YEAR_S - 10 <= redis.ttl(f"agent_id:{anna.id}") <= YEAR_S
    assert {redis.ttl(keys[name]) for name in ("ticket", "ticket_index", "audit_log")} == {-1}
    assert json.loads(redis.get("agent:anna"))["password_hash"] == "$2b$12$hash"


# 15


def test_hd_15_saving_children_leaves_exactly_them(desk, redis):
    stored = desk.tickets.create(full_ticket())
    changed = stored.model_copy(deep=True)
    for children, field in (
        (changed.comments, "content"),
        (changed.attachments, "filename"),
        (changed.history, "comment"),
    ):
        setattr(children[1], field, "changed")
        del children[0]
    changed.comments.append(comment("four"))
    changed.attachments.append(attachment("d.txt"))
    changed.history.append(change("fourth"))
    changed.assignments = [
        TicketAssignment(agent_id="a", assigned_at=1.5),
        TicketAssignment(agent_id="b", note="changed", assigned_at=2),
        TicketAssignment(agent_id="c", assigned_at=3),
    ]
    given = changed.model_copy(deep=True)
    saved = desk.tickets.save(changed)
    assert changed == given
    assert saved == given.model_copy(update={"updated_at": saved.updated_at})
    assert saved.updated_at > stored.updated_at
    assert [each.content for each in saved.comments] == ["changed", "three", "four"]
    assert desk.tickets.get(saved.ticket_id) == saved
    assert Ticket.model_validate_json(redis.get(f"ticket:{saved.ticket_id}")) == saved


def test_hd_15_children_that_did_not_change_are_not_written(desk, url):
    stored = desk.tickets.create(full_ticket())
    with psycopg.connect(url) as connection:
        tables = (
            "ticket_comments",
            "ticket_attachments",
            "ticket_status_history",
            "ticket_assignments",
        )
        before = {
            table: connection.execute(f"SELECT id, xmin FROM {table} ORDER BY id").fetchall()
            for table in tables
        }
        desk.tickets.save(stored.model_copy(update={"title": "Other"}))
        connection.rollback()
        assert before == {
            table: connection.execute(f"SELECT id, xmin FROM {table} ORDER BY id").fetchall()
            for table in tables
        }


def test_hd_15_repeated_assignments_are_counted(desk):
    one = TicketAssignment(agent_id="a", assigned_at=1)
    stored = desk.tickets.create(ticket(assignments=[one, one]))
    assert (
        desk.tickets.save(stored.model_copy(update={"assignments": [one] * 3})).assignments
        == [one] * 3
    )
    assert desk.tickets.save(
        desk.tickets.get(stored.ticket_id).model_copy(update={"assignments": [one]})
    ).assignments == [one]


# 16


def test_hd_16_without_postgres_every_write_raises_and_redis_is_unchanged(desk, redis, postgres):
    stored = desk.tickets.create(full_ticket())
    anna = desk.agents.create(agent("anna"))
    desk.audit.add(audit(stored.ticket_id))
    before = everything(redis)
    writes = [
        lambda: desk.tickets.create(ticket()),
        lambda: desk.tickets.save(stored),
        lambda: desk.tickets.delete(stored.ticket_id),
        lambda: desk.agents.create(agent("bob")),
        lambda: desk.agents.update(anna.id, name="Other"),
        lambda: desk.agents.delete(anna.id),
        lambda: desk.audit.add(audit(stored.ticket_id)),
    ]
    with killed(postgres):
        for write in writes:
            with pytest.raises(OperationalError):
                write()
    assert everything(redis) == before
    assert desk.cache.pending() == frozenset()
    assert_copies_equal_postgres(desk.sessions, redis)


def test_hd_16_a_commit_without_an_answer_marks_its_keys(desk, url, redis):
    """It may have happened; then the copy is old."""
    sql(
        url,
        """CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$""",
    )
    stored = desk.tickets.create(ticket())
    sql(
        url,
        "CREATE CONSTRAINT TRIGGER ends AFTER UPDATE ON tickets DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION ends()",
    )
    before = everything(redis)
    with pytest.raises(OperationalError):
        desk.tickets.save(stored.model_copy(update={"title": "Other"}))
    assert everything(redis) == before
    assert desk.cache.pending() == {f"ticket:{stored.ticket_id}"}
    assert desk.cache.repair().repaired == (f"ticket:{stored.ticket_id}",)
    assert_copies_equal_postgres(desk.sessions, redis)


# 17


def writes_of_each_kind(desk):
    """Before the store fails: seven calls, each of which concerns keys of its own, and those keys."""
    saved, gone = desk.tickets.create(ticket()), desk.tickets.create(ticket())
    anna, bob = desk.agents.create(agent("anna")), desk.agents.create(agent("bob"))
    fresh, cleo = ticket(), agent("cleo")
    calls = [
        lambda: desk.tickets.create(fresh),
        lambda: desk.tickets.save(saved.model_copy(update={"title": "New state"})),
        lambda: desk.tickets.delete(gone.ticket_id),
        lambda: desk.agents.create(cleo),
        lambda: desk.agents.update(anna.id, username="anne"),
        lambda: desk.agents.delete(bob.id),
        lambda: desk.audit.add(audit(saved.ticket_id)),
    ]
    keys = {f"ticket:{each.ticket_id}" for each in (fresh, saved, gone)} | {
        f"audit_log:{saved.ticket_id}"
    }
    keys |= {f"agent:{name}" for name in ("cleo", "anna", "anne", "bob")}
    keys |= {f"agent_id:{each.id}" for each in (cleo, anna, bob)}

    def assert_new_state():
        assert desk.tickets.get(fresh.ticket_id) == fresh
        assert desk.tickets.get(saved.ticket_id).title == "New state"
        assert desk.tickets.get(gone.ticket_id) is None
        assert desk.tickets.find()[0] == 2
        assert desk.agents.get_by_username("cleo") == cleo
        assert desk.agents.get_by_username("anna") is None
        assert desk.agents.get_by_username("anne").id == anna.id
        assert desk.agents.get_by_id(anna.id).username == "anne"
        assert desk.agents.get_by_username("bob") is None
        assert desk.agents.get_by_id(bob.id) is None
        assert len(desk.audit.find(saved.ticket_id)) == 1

    return calls, keys, assert_new_state


def timed(call):
    start = time.monotonic()
    call()
    return time.monotonic() - start


def test_hd_17_without_redis_every_write_succeeds_and_repair_brings_the_copies(
    desk, redis, redis_server, warnings
):
    calls, keys, assert_new_state = writes_of_each_kind(desk)
    with killed(redis_server):
        assert max(timed(call) for call in calls) < 2
        assert len(warnings()) == len(calls)
        assert desk.cache.pending() == keys
        assert_new_state()
        assert desk.cache.repair().failed == tuple(sorted(keys))
        assert desk.cache.pending() == keys
    assert_new_state()
    assert len(warnings()) == len(calls) + 1
    assert desk.cache.repair().repaired == tuple(sorted(keys))
    assert desk.cache.pending() == frozenset()
    assert_new_state()
    assert_copies_equal_postgres(desk.sessions, redis)


def test_hd_17_while_redis_hangs_every_write_takes_about_two_seconds(
    desk, redis, redis_server, warnings
):
    calls, keys, assert_new_state = writes_of_each_kind(desk)
    with hanging(redis_server):
        with ThreadPoolExecutor(len(calls)) as threads:
            times = list(threads.map(timed, calls))
        assert min(times) > 1.9
        assert max(times) < 4
        assert len(warnings()) == len(calls)
        assert all("TimeoutError" in message for message in warnings())
        assert desk.cache.pending() == keys
        assert timed(assert_new_state) < 3  # pending keys are not asked of Redis
    assert set(desk.cache.repair().repaired) == keys
    assert desk.cache.pending() == frozenset()
    assert_new_state()
    assert_copies_equal_postgres(desk.sessions, redis)


def test_hd_17_while_redis_hangs_writers_of_one_key_take_about_four_seconds(
    desk, redis, redis_server, warnings
):
    with hanging(redis_server):
        with ThreadPoolExecutor(3) as threads:
            times = list(threads.map(timed, [lambda: desk.audit.add(audit("TKT-1"))] * 3))
        assert max(times) < 6.5
        assert len(warnings()) == 3
    assert desk.cache.repair().repaired == ("audit_log:TKT-1",)
    assert redis.llen("audit_log:TKT-1") == 3


def test_hd_17_a_mark_that_is_set_during_a_refresh_stays(desk, url, redis):
    stored = desk.tickets.create(ticket())
    key = f"ticket:{stored.ticket_id}"
    desk.cache.mark([key])
    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as thread:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
        refreshed = thread.submit(desk.cache.refresh, key)
        eventually(lambda: sql_waits(url))
        desk.cache.mark([key])
        other.rollback()
        assert refreshed.result()
    assert desk.cache.pending() == {key}
    assert desk.cache.refresh(key)
    assert desk.cache.pending() == frozenset()


def sql_waits(url):
    return sql(url, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


def test_hd_17_a_key_that_others_hold_for_long_becomes_pending(desk, url, warnings):
    with psycopg.connect(url) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('audit_log:TKT-1', 0))")
        assert 1.9 < timed(lambda: desk.audit.add(audit("TKT-1"))) < 4
    assert len(warnings()) == 1
    assert desk.cache.repair().repaired == ("audit_log:TKT-1",)


# 18


def test_hd_18_one_failure_of_redis_is_made_up_by_the_retry(new_desk, proxy, redis, warnings):
    desk = new_desk(f"redis://127.0.0.1:{proxy.port}")
    stored = desk.tickets.create(ticket())
    proxy.break_next()
    desk.tickets.save(stored.model_copy(update={"title": "Other"}))
    assert proxy.broken == 1
    assert desk.cache.pending() == frozenset()
    assert warnings() == []
    assert_copies_equal_postgres(desk.sessions, redis)


def test_hd_18_one_failure_of_postgres_is_made_up_by_the_retry(desk, url, redis, warnings):
    stored = desk.tickets.create(ticket())
    key = f"ticket:{stored.ticket_id}"
    redis.delete(key)
    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as thread:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
        refreshed = thread.submit(desk.cache.refresh, key)
        eventually(lambda: sql_waits(url))
        sql(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND "
            "NOT granted",
        )
        eventually(lambda: sql_waits(url))
        other.rollback()
        assert refreshed.result()
    assert warnings() == []
    assert_copies_equal_postgres(desk.sessions, redis)


@pytest.mark.parametrize("deleted", [False, True])
def test_hd_18_a_late_write_cannot_undo_a_newer_one(new_desk, proxy, redis, deleted):
    """What a connection sent before it timed out may arrive when its lock is long gone."""
    slow, quick = new_desk(f"redis://127.0.0.1:{proxy.port}"), new_desk()
    stored = quick.tickets.create(ticket())
    if deleted:
        redis.flushall()  # the late one would bring back a ticket that nobody knows
    proxy.hold(b"MULTI")
    with ThreadPoolExecutor(1) as thread:
        refreshed = thread.submit(slow.cache.refresh, f"ticket:{stored.ticket_id}")
        assert proxy.held.wait(5)
        if deleted:
            eventually(lambda: quick.tickets.delete(stored.ticket_id))
        else:
            quick.tickets.save(stored.model_copy(update={"title": "Newer"}))
        refreshed.result()
    proxy.release()
    assert_copies_equal_postgres(quick.sessions, redis)


# 19


def test_hd_19_a_new_process_repairs_stale_missing_and_orphaned_copies(desk, new_desk, redis, url):
    tickets = [desk.tickets.create(full_ticket()) for _ in range(120)]
    anna, bob = desk.agents.create(agent("anna")), desk.agents.create(agent("bob"))
    for each in tickets[:3]:
        desk.audit.add(audit(each.ticket_id))
    sql(
        url,
        "UPDATE tickets SET title = 'behind the back' WHERE ticket_id = %s",
        tickets[0].ticket_id,
    )
    sql(url, "UPDATE agents SET username = 'bert' WHERE username = 'bob'")
    sql(url, "DELETE FROM audit_logs WHERE ticket_id = %s", tickets[1].ticket_id)
    redis.delete(
        f"ticket:{tickets[1].ticket_id}",
        "agent:anna",
        f"agent_id:{anna.id}",
        f"audit_log:{tickets[2].ticket_id}",
    )
    redis.srem("ticket:index", tickets[2].ticket_id)
    redis.sadd("ticket:index", "TKT-none", "TKT-orphan")
    redis.set("ticket:TKT-orphan", ticket(ticket_id="TKT-orphan").model_dump_json())
    redis.set("agent:ghost", agent("ghost").model_dump_json())
    redis.set("agent_id:ghost", "ghost")
    redis.set(f"ticket:{tickets[3].ticket_id}", "no JSON")
    redis.delete(f"ticket:{tickets[4].ticket_id}")
    redis.rpush(f"ticket:{tickets[4].ticket_id}", "of another type")
    redis.rpush("audit_log:TKT-orphan", audit("TKT-orphan").model_dump_json())
    others = {"ticket_template:index": "x", "agent_stats:1:20260101": "x", "session:s": "x"}
    redis.mset(others)
    report = new_desk().cache.repair(full=True, discard_orphans=True)
    assert report.failed == report.orphans == ()
    assert {f"agent_id:{bob.id}", "agent:bob", "agent:bert", "ticket:TKT-orphan"} <= set(
        report.repaired
    )
    assert_copies_equal_postgres(desk.sessions, redis)
    assert redis.mget(list(others)) == list(others.values())


def test_hd_19_an_index_of_another_type_is_rebuilt(desk, redis):
    desk.tickets.create(ticket())
    redis.delete("ticket:index")
    redis.set("ticket:index", "no set")
    assert desk.cache.repair(full=True).failed == ()
    assert_copies_equal_postgres(desk.sessions, redis)


def test_hd_19_one_row_that_is_no_valid_record_fails_alone(desk, redis, url, warnings):
    tickets = [desk.tickets.create(ticket()) for _ in range(5)]
    sql(url, "UPDATE tickets SET title = '' WHERE ticket_id = %s", tickets[2].ticket_id)
    redis.flushall()
    report = desk.cache.repair(full=True)
    assert report.failed == (f"ticket:{tickets[2].ticket_id}",)
    assert desk.cache.pending() == set(report.failed)
    assert len(report.repaired) == 4
    assert len(warnings()) == 1


def test_hd_19_a_full_repair_that_cannot_look_through_redis_is_made_up_by_the_next(
    desk, redis, redis_server
):
    desk.tickets.create(ticket())
    with hanging(redis_server):
        report = desk.cache.repair(full=True)
        assert "ticket:index" in report.failed
        assert desk.cache.pending() == set(report.failed)
    redis.set("agent:ghost", agent("ghost").model_dump_json())
    assert desk.cache.repair(discard_orphans=True).failed == ()
    assert desk.cache.pending() == frozenset()
    assert_copies_equal_postgres(desk.sessions, redis)


# 20


def save_again(store, ticket_id, change_it):
    while True:
        current = store.get(ticket_id)
        change_it(current)
        try:
            return store.save(current)
        except StaleRecord:
            continue


def test_hd_20_four_threads_saving_one_ticket_lose_no_change(desk, redis):
    stored = desk.tickets.create(ticket(metadata={"count": 0}))

    def work(name):
        for number in range(12):

            def add(current, number=number):
                current.metadata = current.metadata | {"count": current.metadata["count"] + 1}
                current.comments.append(comment(f"{name}-{number}"))
                current.assignments.append(TicketAssignment(agent_id=name, assigned_at=1))

            save_again(desk.tickets, stored.ticket_id, add)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, "abcd"))
    final = desk.tickets.get(stored.ticket_id)
    assert final.metadata == {"count": 48}
    assert sorted(each.content for each in final.comments) == sorted(
        f"{name}-{n}" for name in "abcd" for n in range(12)
    )
    assert len(final.assignments) == 48
    desk.cache.repair()  # a refresh that waited more than a second has left a mark
    assert_copies_equal_postgres(desk.sessions, redis)


def half_done(url, read):
    """What `read` gives when a ticket is saved between its row and its children."""
    waits = "SELECT 1 FROM pg_locks WHERE relation = 'ticket_comments'::regclass AND NOT granted"
    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as thread:
        other.execute("LOCK TABLE ticket_comments")
        reading = thread.submit(read)
        eventually(lambda: sql(url, waits))
        other.execute("UPDATE tickets SET title = 'Other', updated_at = updated_at + 1")
        other.execute("DELETE FROM ticket_comments")
        other.commit()
        return reading.result()


def test_hd_20_no_reader_and_no_copy_has_half_a_save(desk, url, redis):
    stored = desk.tickets.create(full_ticket())
    assert half_done(url, lambda: desk.tickets.get(stored.ticket_id)) == stored
    saved = desk.tickets.save(
        desk.tickets.get(stored.ticket_id).model_copy(
            update={"comments": stored.comments, "title": "One"}
        )
    )
    assert half_done(url, lambda: desk.cache.refresh(f"ticket:{stored.ticket_id}"))
    copy = Ticket.model_validate_json(redis.get(f"ticket:{stored.ticket_id}"))
    assert (copy.title, copy.comments, copy.updated_at) == ("Other", [], saved.updated_at + 1)


# 21


def test_hd_21_without_postgres_redis_answers_and_says_so(desk, redis, postgres, warnings):
    stored = desk.tickets.create(full_ticket())
    urgent = desk.tickets.create(
        ticket(priority=TicketPriority.URGENT, status=TicketStatus.CLOSED, assigned_agent_id="a")
    )
    hidden = desk.tickets.create(ticket())
    redis.set(f"ticket:{hidden.ticket_id}", "no JSON")
    entry = desk.audit.add(audit(stored.ticket_id))
    newer = desk.audit.add(audit(stored.ticket_id, created_at=entry.created_at))
    anna = desk.agents.create(agent("anna"))
    for key in ("agent:anna", f"agent_id:{anna.id}"):
        age(redis, key, 100_000)
    with killed(postgres):
        answers = {
            desk.tickets.get: [
                ((stored.ticket_id,), {}, stored),
                ((hidden.ticket_id,), {}, None),
                (("TKT-no",), {}, None),
            ],
            desk.tickets.find: [
                ((), {}, (2, [urgent, stored])),
                ((), {"limit": 1, "offset": 1}, (2, [stored])),
                (
                    (),
                    {"status": "closed", "priority": "urgent", "assigned_agent_id": "a"},
                    (1, [urgent]),
                ),
                ((), {"status": "archived"}, (0, [])),
            ],
            desk.audit.find: [
                ((stored.ticket_id,), {}, [newer, entry]),
                ((stored.ticket_id,), {"limit": 1}, [newer]),
                (("TKT-no",), {}, []),
            ],
            desk.agents.get_by_username: [(("anna",), {}, anna)],
            desk.agents.get_by_id: [((anna.id,), {}, anna)],
        }
        for read, cases in answers.items():
            for positional, named, expected in cases:
                before = len(warnings())
                assert read(*positional, **named) == expected
                assert len(warnings()) == before + 1
        with pytest.raises(OperationalError):
            desk.agents.find()


def test_hd_21_the_components_answer_from_redis_too(url, redis, postgres, redis_server):
    names = [Component.TICKETS, Component.AGENTS, Component.AUDIT]
    reset_components()
    try:
        tickets, agents, audits = map(
            init_components(names, {"POSTGRES_URL": url, "REDIS_URL": redis_server.url}).get, names
        )
        stored, anna = tickets.create(full_ticket()), agents.create(agent("anna"))
        entry = audits.add(audit(stored.ticket_id))
        age(redis, "agent:anna", 100_000)
        with killed(postgres):
            assert tickets.get(stored.ticket_id) == stored
            assert tickets.find() == (1, [stored])
            assert audits.find(stored.ticket_id) == [entry]
            assert agents.get_by_username("anna") == agents.get_by_id(anna.id) == anna
            with pytest.raises(OperationalError):
                tickets.save(stored)
    finally:
        reset_components()


def test_hd_21_a_pending_key_is_not_answered_but_raises(desk, redis, postgres, redis_server):
    stored, other = desk.tickets.create(ticket()), desk.tickets.create(ticket())
    anna, bob = desk.agents.create(agent("anna")), desk.agents.create(agent("bob"))
    desk.audit.add(audit(stored.ticket_id))
    desk.cache.mark(
        [
            f"ticket:{stored.ticket_id}",
            f"audit_log:{stored.ticket_id}",
            "agent:anna",
            f"agent_id:{bob.id}",
        ]
    )
    reads = [
        lambda: desk.tickets.get(stored.ticket_id),
        lambda: desk.audit.find(stored.ticket_id),
        lambda: desk.agents.get_by_username("anna"),
        lambda: desk.agents.get_by_id(anna.id),  # its username leads to a pending key
        lambda: desk.agents.get_by_id(bob.id),
    ]
    with killed(postgres):
        for read in reads:
            with pytest.raises(OperationalError):
                read()
        assert desk.tickets.find() == (1, [other])
        assert desk.agents.get_by_username("bob") == bob
        desk.cache.mark(["ticket:index"])
        with pytest.raises(OperationalError):
            desk.tickets.find()


def test_hd_21_without_both_the_exception_is_that_of_postgres(desk, postgres, redis_server):
    stored = desk.tickets.create(ticket())
    desk.agents.create(agent("anna"))
    with killed(postgres), killed(redis_server):
        for read in (
            lambda: desk.tickets.get(stored.ticket_id),
            desk.tickets.find,
            lambda: desk.audit.find(stored.ticket_id),
            lambda: desk.agents.get_by_username("anna"),
        ):
            with pytest.raises(OperationalError):
                read()


# 22


def test_hd_22_a_copy_of_an_agent_is_believed_for_sixty_seconds(desk, redis, url):
    anna = desk.agents.create(agent("anna"))
    reads = (lambda: desk.agents.get_by_username("anna"), lambda: desk.agents.get_by_id(anna.id))
    sql(url, "UPDATE agents SET name = 'New' WHERE username = 'anna'")
    for key in ("agent:anna", f"agent_id:{anna.id}"):
        age(redis, key, 55)
    assert {read().name for read in reads} == {"Anna"}
    age(redis, "agent:anna", 61)
    assert reads[1]().name == "New"
    assert json.loads(redis.get("agent:anna"))["name"] == "New"
    assert redis.ttl("agent:anna") > YEAR_S - 10
    sql(url, "UPDATE agents SET name = 'Newer' WHERE username = 'anna'")
    assert {read().name for read in reads} == {"New"}
    redis.persist("agent:anna")
    assert {read().name for read in reads} == {"Newer"}
    assert redis.ttl("agent:anna") > YEAR_S - 10
    redis.set("agent:anna", "no JSON", ex=YEAR_S)
    assert reads[0]().name == "Newer"
    assert_copies_equal_postgres(desk.sessions, redis)


def test_hd_22_a_young_copy_is_answered_without_postgres(desk, postgres, warnings):
    anna = desk.agents.create(agent("anna"))
    with killed(postgres):
        assert desk.agents.get_by_username("anna") == desk.agents.get_by_id(anna.id) == anna
    assert warnings() == []


def test_hd_22_an_agent_deleted_while_redis_was_down_is_found_for_sixty_seconds_at_most(
    desk, new_desk, redis, redis_server
):
    anna = desk.agents.create(agent("anna"))
    other = new_desk()
    with hanging(redis_server):
        assert desk.agents.delete(anna.id)
    # Nothing of the deletion may have reached Redis.
    assert copied_keys(redis) == {"agent:anna", f"agent_id:{anna.id}"}
    assert desk.agents.get_by_username("anna") is None
    assert desk.agents.get_by_id(anna.id) is None
    assert other.agents.get_by_username("anna") == anna
    for key in ("agent:anna", f"agent_id:{anna.id}"):
        age(redis, key, 61)
    assert other.agents.get_by_id(anna.id) is None
    assert other.agents.get_by_username("anna") is None
    assert copied_keys(redis) == set()
    desk.cache.repair()
    assert desk.cache.pending() == frozenset()


def test_hd_22_a_username_in_new_hands_is_not_answered_for_the_old_id(desk, redis):
    anna = desk.agents.create(agent("anna"))
    old = redis.get(f"agent_id:{anna.id}")
    desk.agents.update(anna.id, username="anne")
    heir = desk.agents.create(agent("anna"))
    redis.set(
        f"agent_id:{anna.id}", old, ex=YEAR_S
    )  # as another process's lost write would have left it
    assert desk.agents.get_by_id(anna.id).username == "anne"
    assert desk.agents.get_by_username("anna") == heir
    assert redis.get(f"agent_id:{anna.id}") == "anne"


# 29


def fill_redis_alone(redis):
    tickets = [full_ticket() for _ in range(100)]
    agents = [
        agent(f"agent-{number}", skills=[AgentSkill(category="x", tags=["y"])])
        for number in range(10)
    ]
    audits = {
        each.ticket_id: [
            audit(each.ticket_id, created_at=float(created), details={"n": n})
            for n, created in enumerate((5, 5, 3))
        ]
        for each in tickets
    }
    for each in tickets:
        redis.set(f"ticket:{each.ticket_id}", each.model_dump_json())
        redis.sadd("ticket:index", each.ticket_id)
        redis.rpush(
            f"audit_log:{each.ticket_id}",
            *[entry.model_dump_json() for entry in audits[each.ticket_id]],
        )
    for each in agents:
        redis.set(f"agent:{each.username}", each.model_dump_json())
        redis.set(f"agent_id:{each.id}", each.username)
    return tickets, agents, audits


def test_hd_29_a_desk_that_lived_in_redis_alone_moves_in(desk, new_desk, redis):
    tickets, agents, audits = fill_redis_alone(redis)
    redis.set("ticket:TKT-broken", '{"ticket_id": "TKT-broken", "title": 3}')
    before = everything(redis)
    keys = tuple(sorted(copied_keys(redis)))
    report = desk.cache.repair(full=True)
    assert (report.repaired, report.failed, report.orphans) == ((), (), keys)
    assert everything(redis) == before

    adopted = desk.cache.adopt()
    assert (adopted.tickets, adopted.agents, adopted.audit_entries) == (100, 10, 300)
    [(key, reason)] = adopted.refused
    assert key == "ticket:TKT-broken"
    assert "title" in reason
    assert everything(redis) == before
    alone = open_desk(desk.engine.url.render_as_string(hide_password=False).replace("+psycopg", ""))
    assert sorted(alone.tickets.find(limit=500)[1], key=lambda each: each.ticket_id) == sorted(
        tickets, key=lambda each: each.ticket_id
    )
    assert alone.agents.find()[1] == sorted(agents, key=lambda each: each.username)
    assert {each.ticket_id: alone.audit.find(each.ticket_id) for each in tickets} == audits
    alone.engine.dispose()

    again = desk.cache.adopt()
    assert (again.tickets, again.agents, again.audit_entries, again.refused) == (
        0,
        0,
        0,
        adopted.refused,
    )
    assert new_desk().cache.repair(full=True).orphans == ("ticket:TKT-broken",)
    redis.set("agent:ghost", agent("ghost").model_dump_json())
    assert desk.cache.repair(full=True).orphans == ("agent:ghost", "ticket:TKT-broken")
    assert redis.exists("agent:ghost", "ticket:TKT-broken") == 2
    assert desk.cache.repair(full=True, discard_orphans=True).orphans == ()
    assert_copies_equal_postgres(desk.sessions, redis)


def test_hd_29_what_is_refused_says_why_and_shows_no_secret(desk, redis):
    stored = desk.tickets.create(ticket(comments=[comment("mine")]))
    theirs = ticket(ticket_id="TKT-1", comments=stored.comments)
    redis.set("ticket:TKT-1", theirs.model_dump_json())
    redis.set("ticket:TKT-2", theirs.model_dump_json())
    redis.rpush("ticket:TKT-3", "a list")
    redis.set(
        "agent:eve", json.dumps({"username": "eve", "password_hash": "$2b$secret", "name": 1})
    )
    redis.rpush("audit_log:TKT-1", audit("TKT-1").model_dump_json(), "no JSON")
    reasons = dict(desk.cache.adopt().refused)
    assert set(reasons) == {
        "ticket:TKT-1",
        "ticket:TKT-2",
        "ticket:TKT-3",
        "agent:eve",
        "audit_log:TKT-1",
    }
    assert "ix_ticket_comments_comment_id" in reasons["ticket:TKT-1"]
    assert reasons["ticket:TKT-2"] == "ticket_id is 'TKT-1', and the key says 'TKT-2'"
    assert "secret" not in reasons["agent:eve"]
    assert desk.audit.find("TKT-1") == []


def test_only_copies_can_be_refreshed(desk):
    for key in ("ticket:index", "session:x", "ticket:", "ticket_template:x"):
        with pytest.raises(ValueError, match="is no copy"):
            desk.cache.refresh(key)
    assert desk.cache.refresh()


def test_a_refused_write_changes_no_copy(desk, redis):
    stored = desk.tickets.create(ticket())
    before = everything(redis)
    with pytest.raises(StaleRecord):
        desk.tickets.save(stored.model_copy(update={"updated_at": 1.0}))
    with pytest.raises(RecordNotFound):
        desk.tickets.save(ticket())
    assert everything(redis) == before

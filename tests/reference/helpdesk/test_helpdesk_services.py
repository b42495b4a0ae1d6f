"""The five services, with and without a cache. Numbers are those of the blueprint's acceptance
checks.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis as redis_client
from pydantic import ValidationError
from sqlalchemy.exc import DataError

from desk import Desk, open_desk
from is_db_bootstrap.blueprints.helpdesk.domain import (
    Agent,
    AgentRole,
    AgentStatus,
    ArchivedSession,
    AuditEntry,
    EmailRecord,
    EmailStatus,
    SessionMessage,
    Ticket,
    TicketComment,
    TicketPriority,
    TicketStatus,
)
from is_db_bootstrap.blueprints.helpdesk.errors import (
    DuplicateRecord,
    HelpdeskError,
    RecordNotFound,
    StaleRecord,
)

pytestmark = [pytest.mark.postgres, pytest.mark.redis]


@pytest.fixture(params=["with a cache", "cache=None"])
def desk(request, migrated):
    """A desk on a database of its own."""
    cached = request.param == "with a cache"
    desk = open_desk(migrated("helpdesk"), request.getfixturevalue("redis_url") if cached else None)
    yield desk
    desk.engine.dispose()


@pytest.fixture
def rows(desk):
    """All rows of all tables."""

    def read():
        tables = (
            "agents",
            "tickets",
            "ticket_comments",
            "audit_logs",
            "session_archives",
            "email_records",
        )
        with desk.engine.connect() as connection:
            return {
                table: connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY id").all()
                for table in tables
            }

    return read


def ticket(**fields):
    return Ticket(**({"title": "No sound", "description": "", "created_by": "customer-1"} | fields))


def agent(username, **fields):
    return Agent(username=username, password_hash="hash", name=username.title(), **fields)


def audit(ticket_id="TKT-1", **fields):
    return AuditEntry(ticket_id=ticket_id, event_type="commented", operator_id="agent-1", **fields)


def email(**fields):
    return EmailRecord(
        subject="Hello", from_email="desk@example.org", **({"to_email": "c@example.org"} | fields)
    )


def archived(**fields):
    return ArchivedSession(session_id="s", **fields)


def comment(**fields):
    return TicketComment(content="text", author_id="agent-1", **fields)


# 14


def test_hd_14_what_was_written_is_read_again(desk: Desk):
    stored = desk.tickets.create(ticket(comments=[comment()], metadata={"a": [1, None]}))
    assert desk.tickets.get(stored.ticket_id) == stored
    saved = desk.tickets.save(
        stored.model_copy(update={"status": TicketStatus.RESOLVED, "resolved_at": 3.25})
    )
    assert desk.tickets.get(stored.ticket_id) == saved
    assert saved.updated_at > stored.updated_at
    assert desk.tickets.delete(stored.ticket_id)
    assert desk.tickets.get(stored.ticket_id) is None
    assert not any(map(desk.tickets.delete, (stored.ticket_id, "index", "")))
    assert (
        desk.tickets.get("index")
        is desk.agents.get_by_id("")
        is desk.agents.get_by_username("")
        is None
    )
    anna = desk.agents.create(agent("anna"))
    assert desk.agents.get_by_username("anna") == desk.agents.get_by_id(anna.id) == anna
    anne = desk.agents.update(anna.id, username="anne", max_sessions=2)
    assert anne == anna.model_copy(update={"username": "anne", "max_sessions": 2})
    assert desk.agents.get_by_username("anne") == desk.agents.get_by_id(anna.id) == anne
    assert desk.agents.get_by_username("anna") is None
    assert desk.agents.delete(anna.id)
    assert desk.agents.get_by_username("anne") is desk.agents.get_by_id(anna.id) is None
    assert not desk.agents.delete(anna.id)
    entry = desk.audit.add(audit())
    assert desk.audit.find("TKT-1") == [entry]
    assert desk.audit.find("TKT-2") == []


def test_hd_14_saving_is_later_even_if_the_clock_stands_still(desk: Desk):
    far = 4e12
    stored = desk.tickets.create(ticket(updated_at=far))
    assert desk.tickets.save(stored).updated_at > far


# 23


def test_hd_23_a_taken_value_is_refused_by_the_name_of_its_index(desk: Desk, rows):
    anna, bob = desk.agents.create(agent("anna")), desk.agents.create(agent("bob"))
    first = desk.tickets.create(ticket(comments=[comment()]))
    second = desk.tickets.create(ticket())
    entry, sent, finished = (
        desk.audit.add(audit()),
        desk.emails.add(email()),
        desk.archives.archive(archived()),
    )
    taken = first.comments[0]
    refusals = [
        ("ix_agents_username", lambda: desk.agents.create(agent("anna"))),
        ("ix_agents_username", lambda: desk.agents.update(bob.id, username="anna", name="Other")),
        ("ix_agents_agent_id", lambda: desk.agents.create(agent("cleo", id=anna.id))),
        ("ix_tickets_ticket_id", lambda: desk.tickets.create(ticket(ticket_id=first.ticket_id))),
        ("ix_ticket_comments_comment_id", lambda: desk.tickets.create(ticket(comments=[taken]))),
        (
            "ix_ticket_comments_comment_id",
            lambda: desk.tickets.save(second.model_copy(update={"comments": [taken]})),
        ),
        (
            "ix_ticket_comments_comment_id",
            lambda: desk.tickets.save(first.model_copy(update={"comments": [taken, taken]})),
        ),
        ("ix_email_records_record_id", lambda: desk.emails.add(email(record_id=sent.record_id))),
        ("ix_audit_logs_audit_id", lambda: desk.audit.add(audit("TKT-2", id=entry.id))),
        (
            "ix_session_archives_archive_id",
            lambda: desk.archives.archive(archived(archive_id=finished.archive_id)),
        ),
    ]
    before = rows()
    for constraint, write in refusals:
        with pytest.raises(DuplicateRecord) as refusal:
            write()
        assert refusal.value.constraint == constraint
        assert constraint in str(refusal.value)
    assert rows() == before
    assert desk.agents.get_by_username("anna") == anna


def test_hd_23_what_is_not_there_cannot_be_changed(desk: Desk, rows):
    before = rows()
    for record_id, write in [
        ("TKT-1", lambda: desk.tickets.save(ticket(ticket_id="TKT-1"))),
        ("agent_1", lambda: desk.agents.update("agent_1", name="Other")),
        ("mail_1", lambda: desk.emails.update("mail_1", status="sent")),
    ]:
        with pytest.raises(RecordNotFound) as refusal:
            write()
        assert refusal.value.record_id == record_id
        assert isinstance(refusal.value, HelpdeskError)
    assert rows() == before


def test_hd_23_what_postgres_refuses_otherwise_is_raised_as_it_is(desk: Desk, rows):
    before = rows()
    with pytest.raises(DataError):
        desk.tickets.create(ticket().model_copy(update={"title": "t" * 501}))
    assert rows() == before


# 24


def test_hd_24_of_two_concurrent_saves_one_is_stale(desk: Desk):
    stored = desk.tickets.create(ticket())
    together = threading.Barrier(2)

    def save(title):
        together.wait()
        try:
            return desk.tickets.save(stored.model_copy(update={"title": title}))
        except StaleRecord as exc:
            return exc

    for _ in range(5):
        with ThreadPoolExecutor(2) as threads:
            results = list(threads.map(save, ["one", "two"]))
        [saved] = [each for each in results if isinstance(each, Ticket)]
        [refused] = [each for each in results if isinstance(each, StaleRecord)]
        assert refused.record_id == stored.ticket_id
        assert desk.tickets.get(stored.ticket_id) == saved
        stored = saved


# 25


def test_hd_25_concurrent_updates_of_different_fields_are_both_kept(desk: Desk):
    anna = desk.agents.create(agent("anna"))

    def present(number):
        desk.agents.update(anna.id, status="online", last_active_at=float(number))

    def rehash(number):
        desk.agents.update(anna.id, password_hash=f"hash-{number}")

    with ThreadPoolExecutor(4) as threads:
        running = [
            threads.submit(change, number) for number in range(10) for change in (present, rehash)
        ]
    assert [each.result() for each in running] == [None] * 20
    final = desk.agents.get_by_id(anna.id)
    assert final.status is AgentStatus.ONLINE
    assert final.last_active_at in range(10)
    assert final.password_hash in {f"hash-{number}" for number in range(10)}


def test_hd_25_a_presence_update_cannot_undo_a_password_change(desk: Desk):
    """The second waits for the row and then reads what the first has written."""
    anna = desk.agents.create(agent("anna"))
    with desk.engine.begin() as other, ThreadPoolExecutor(1) as thread:
        other.exec_driver_sql("UPDATE agents SET password_hash = 'new' WHERE username = 'anna'")
        waiting = thread.submit(desk.agents.update, anna.id, status="online")
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        other.commit()
        assert waiting.result().password_hash == "new"


def test_hd_25_an_update_is_validated_as_a_whole(desk: Desk, rows):
    anna = desk.agents.create(agent("anna"))
    before = rows()
    for changes, error in [
        ({"id": "agent_2"}, "id cannot be changed"),
        ({"created_at": 1.0, "name": "Other"}, "created_at cannot be changed"),
        ({"nickname": "A"}, "nickname"),
        ({"max_sessions": -1}, "max_sessions"),
        ({"username": "a:b"}, "username"),
    ]:
        with pytest.raises(ValueError, match=error):
            desk.agents.update(anna.id, **changes)
    assert rows() == before


# 26


def test_hd_26_audit_entries_are_newest_first_and_the_copy_has_500(desk: Desk, redis_url):
    entries = [audit(created_at=float(number // 2)) for number in range(598)]
    with desk.sessions() as session:
        from is_db_bootstrap.blueprints.helpdesk.converters import audit_log_to_orm

        session.add_all([audit_log_to_orm(each) for each in entries])
    entries += [desk.audit.add(audit(created_at=1e9)), desk.audit.add(audit(created_at=1e9))]
    newest = entries[::-1]
    assert desk.audit.find("TKT-1") == newest[:100]
    assert desk.audit.find("TKT-1", limit=3) == newest[:3]
    assert desk.audit.find("TKT-1", limit=500) == newest[:500]
    if desk.cache:
        with redis_client.Redis.from_url(redis_url) as redis:
            copies = redis.lrange("audit_log:TKT-1", 0, -1)
        assert [AuditEntry.model_validate_json(text) for text in copies] == newest[:500]


# 27


def test_hd_27_a_failed_email_is_recorded_and_later_sent(desk: Desk):
    failed = desk.emails.add(
        email(status="failed", error_message="mailbox full", cc_emails=["a@b.c", "d@e.f"])
    )
    assert desk.emails.get(failed.record_id) == failed
    assert failed.sent_at is None
    sent = desk.emails.update(failed.record_id, status="sent", external_id="x-1", retry_count=1)
    assert sent.sent_at >= sent.created_at
    assert sent == failed.model_copy(
        update={
            "status": EmailStatus.SENT,
            "sent_at": sent.sent_at,
            "external_id": "x-1",
            "retry_count": 1,
        }
    )
    assert (
        desk.emails.update(failed.record_id, external_response={"ok": True}).sent_at == sent.sent_at
    )
    assert desk.emails.add(email(status="sent")).sent_at is not None
    assert desk.emails.add(email(status="sent", sent_at=5.0)).sent_at == 5.0
    assert desk.emails.get("mail_none") is None
    for name in ("record_id", "created_at"):
        with pytest.raises(ValueError, match=f"{name} cannot be changed"):
            desk.emails.update(failed.record_id, **{name: "1"})


def test_hd_27_recording_follows_the_sending(desk: Desk):
    with desk.emails.recording(email()) as record:
        assert desk.emails.get(record.record_id).status is EmailStatus.PENDING
        desk.emails.update(record.record_id, external_id="x-1")
    sent = desk.emails.get(record.record_id)
    assert (sent.status, sent.external_id) == (EmailStatus.SENT, "x-1")
    assert sent.sent_at is not None
    with pytest.raises(ConnectionError, match="refused"), desk.emails.recording(email()) as record:
        raise ConnectionError("SMTP refused\0")
    failed = desk.emails.get(record.record_id)
    assert (failed.status, failed.error_message, failed.sent_at) == (
        EmailStatus.FAILED,
        "SMTP refused",
        None,
    )


def test_hd_27_the_error_of_sending_is_raised_when_it_cannot_be_recorded(desk: Desk, caplog):
    record = email()

    def send():
        with desk.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM email_records")
        raise ConnectionError("SMTP refused")

    with pytest.raises(ConnectionError, match="refused"), desk.emails.recording(record):
        send()
    assert record.record_id in caplog.text


def test_hd_27_an_archived_session_is_found(desk: Desk):
    messages = [
        SessionMessage(role="user", content="", timestamp=1.0),
        SessionMessage(role="agent", content="Hi", timestamp=2.0),
    ]
    first = desk.archives.archive(
        archived(messages=messages, customer_email="c@example.org", agent_id="a", archived_at=10.0)
    )
    second = desk.archives.archive(
        archived(customer_email="c@example.org", archived_at=20.0, channel="web")
    )
    third = desk.archives.archive(archived(agent_id="a", archived_at=30.0))
    assert desk.archives.get(first.archive_id) == first
    assert first.message_count == 2
    assert desk.archives.get("archive_none") is None
    assert desk.archives.find() == (3, [third, second, first])
    assert desk.archives.find(customer_email="c@example.org") == (2, [second, first])
    assert desk.archives.find(agent_id="a") == (2, [third, first])
    assert desk.archives.find(start_time=10.0, end_time=20.0) == (2, [second, first])
    assert desk.archives.find(start_time=10.5) == (2, [third, second])
    assert desk.archives.find(end_time=0.0) == (0, [])
    assert desk.archives.find(agent_id="a", end_time=29.0) == (1, [first])


# 28


def test_hd_28_totals_order_and_pages(desk: Desk):
    tickets = [
        desk.tickets.create(
            ticket(
                ticket_id=f"TKT-{n}", updated_at=float(n // 2), priority="high" if n % 3 else "low"
            )
        )
        for n in range(7)
    ]
    ordered = sorted(tickets, key=lambda each: (-each.updated_at, each.ticket_id))
    assert desk.tickets.find() == (7, ordered)
    assert desk.tickets.find(limit=3, offset=2) == (7, ordered[2:5])
    assert desk.tickets.find(offset=7) == (7, [])
    low = [each for each in ordered if each.priority is TicketPriority.LOW]
    assert desk.tickets.find(priority=TicketPriority.LOW, limit=2) == (3, low[:2])
    assert desk.tickets.find(priority="low", status="closed") == (0, [])
    agents = [
        desk.agents.create(agent(name, role="admin" if name < "c" else "agent"))
        for name in ("d", "a", "c", "b")
    ]
    by_name = sorted(agents, key=lambda each: each.username)
    assert desk.agents.find(limit=3, offset=1) == (4, by_name[1:])
    assert desk.agents.find(role=AgentRole.ADMIN) == (2, by_name[:2])
    assert desk.agents.find(status="online") == (0, [])
    records = [
        desk.emails.add(
            email(
                record_id=f"mail_{n}",
                created_at=float(n // 2),
                ticket_id=f"TKT-{n % 2}",
                session_id="s",
            )
        )
        for n in range(5)
    ]
    latest = sorted(records, key=lambda each: (-each.created_at, each.record_id))
    assert desk.emails.find(limit=2, offset=1) == (5, latest[1:3])
    assert (
        desk.emails.find(
            ticket_id="TKT-1", to_email="c@example.org", session_id="s", status="pending"
        )[0]
        == 2
    )
    assert desk.emails.find(to_email="nobody@example.org") == (0, [])
    finished = [
        desk.archives.archive(archived(archive_id=f"archive_{n}", archived_at=1.0))
        for n in (2, 0, 1)
    ]
    assert desk.archives.find(limit=2) == (3, [finished[1], finished[2]])


@pytest.mark.parametrize("limit", [0, 501, -1])
def test_hd_28_a_limit_out_of_range_is_refused(desk: Desk, limit):
    for find in (
        desk.tickets.find,
        desk.agents.find,
        desk.archives.find,
        desk.emails.find,
        lambda limit: desk.audit.find("x", limit=limit),
    ):
        with pytest.raises(ValueError, match="limit"):
            find(limit=limit)


def test_hd_28_a_negative_offset_and_an_unknown_status_are_refused(desk: Desk):
    for find in (desk.tickets.find, desk.agents.find, desk.archives.find, desk.emails.find):
        with pytest.raises(ValueError, match="offset"):
            find(offset=-1)
    with pytest.raises(ValueError, match="'open'"):
        desk.tickets.find(status="open")
    with pytest.raises(ValidationError):
        desk.emails.update(desk.emails.add(email()).record_id, status="open")

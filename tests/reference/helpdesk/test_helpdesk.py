"""Schema, conventions, domain and database component of helpdesk. Numbers are those of the
blueprint's acceptance checks.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import time

import psycopg
import pytest
import redis
from pydantic import ValidationError
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.blueprints.helpdesk import converters, database, domain, models
from is_db_bootstrap.blueprints.helpdesk.components import (
    Component,
    get_component,
    init_components,
    is_initialized,
    reset_components,
)
from is_db_bootstrap.blueprints.helpdesk.database import DatabaseConfig
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from specification import column, insert, refused, value

BLUEPRINT = load_blueprint("helpdesk")
on_postgres = pytest.mark.postgres
on_redis = pytest.mark.redis
both_ends = pytest.mark.parametrize("version", ["18", "14"])
CHILDREN = ["ticket_assignments", "ticket_attachments", "ticket_comments", "ticket_status_history"]


@pytest.fixture
def version():
    return None


@pytest.fixture
def url(migrated, version):
    return migrated("helpdesk", version)


@pytest.fixture
def db(url):
    with psycopg.connect(url) as connection:
        yield connection


@pytest.fixture
def fresh():
    """A process without a database component, before and after."""
    database.reset_database()
    yield
    reset_components()
    database.reset_database()


# --- 1 to 5: the schema


@on_postgres
@both_ends
def test_hd_01_the_catalogue_is_that_of_the_page(db, version):
    tables = column(
        db,
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> "
        "'alembic_version'",
    )
    assert sorted(tables) == sorted(t.name for t in models.Base.metadata.sorted_tables)
    assert len(tables) == 9
    columns = db.execute(
        "SELECT table_name || '.' || column_name, column_default FROM "
        "information_schema.columns WHERE table_schema = 'public' AND table_name <> "
        "'alembic_version'"
    ).fetchall()
    assert len(columns) == 123
    assert {name for name, default in columns if default is not None} == {f"{t}.id" for t in tables}
    indexes = dict(
        db.execute(
            "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public' AND "
            "indexname LIKE 'ix%'"
        )
    )
    declared = {i.name: i for t in models.Base.metadata.sorted_tables for i in t.indexes}
    assert len(declared) == 52
    assert set(indexes) == set(declared)
    assert sum(i.unique for i in declared.values()) == 9
    for name, definition in indexes.items():
        assert re.search(r"\(([^)]*)\)$", definition)[1].split(", ") == list(
            declared[name].columns.keys()
        )
        assert ("UNIQUE" in definition) == bool(declared[name].unique)
    keys = db.execute(
        "SELECT conname::text, confdeltype::text, confupdtype::text FROM pg_constraint WHERE "
        "contype = 'f' ORDER BY 1"
    ).fetchall()
    assert keys == [(f"fk_{t}_ticket_id_tickets", "c", "a") for t in CHILDREN]
    assert (
        value(
            db,
            "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND "
            "conrelid::regclass::text = ANY(%s)",
            tables,
        )
        == 13
    )
    assert (
        value(
            db,
            "SELECT count(*) FROM pg_constraint WHERE contype = 'u' AND connamespace = "
            "'public'::regnamespace",
        )
        == 0
    )
    assert value(db, "SELECT count(*) FROM pg_type WHERE typtype = 'e'") == 0


@on_postgres
def test_hd_01_an_empty_server_reaches_the_head(postgres_url):
    assert migrate.init("helpdesk", url=postgres_url).revisions == ("hd_0001",)
    assert migrate.init("helpdesk", url=postgres_url).revisions == ()


@on_postgres
def test_hd_02_after_down_only_the_empty_version_table_is_left(url, db):
    assert migrate.downgrade("helpdesk", url=url).revisions == ("hd_0001",)
    left = (
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    assert column(db, left) == ["alembic_version", "alembic_version_pkc"]
    assert value(db, "SELECT count(*) FROM alembic_version") == 0
    assert (
        value(
            db,
            "SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace AND "
            "typname !~ 'alembic'",
        )
        == 0
    )
    assert migrate.upgrade("helpdesk", url=url).revisions == ("hd_0001",)


@on_postgres
@both_ends
def test_hd_03_models_and_database_do_not_differ(url, version):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda n, k, _: k != "table" or n != "alembic_version",
        }
        assert (
            compare_metadata(
                MigrationContext.configure(connection, opts=options), models.Base.metadata
            )
            == []
        )
    engine.dispose()


ROWS = {
    "agents": {
        "agent_id": "a",
        "username": "u",
        "password_hash": "h",
        "name": "n",
        "role": "agent",
        "status": "offline",
        "max_sessions": 5,
        "created_at": 1,
        "updated_at": 1,
    },
    "tickets": {
        "ticket_id": "t",
        "title": "t",
        "description": "d",
        "ticket_type": "complaint",
        "status": "pending",
        "priority": "low",
        "created_by": "c",
        "reopened_count": 0,
        "created_at": 1,
        "updated_at": 1,
    },
    "ticket_comments": {
        "comment_id": "c",
        "ticket_id": "t",
        "content": "c",
        "author_id": "a",
        "comment_type": "public",
        "created_at": 1,
        "updated_at": 1,
    },
    "ticket_attachments": {
        "attachment_id": "a",
        "ticket_id": "t",
        "filename": "f",
        "stored_path": "p",
        "size": 1,
        "comment_type": "public",
        "uploader_id": "u",
        "created_at": 1,
        "updated_at": 1,
    },
    "ticket_status_history": {
        "history_id": "h",
        "ticket_id": "t",
        "to_status": "closed",
        "changed_by": "c",
        "changed_at": 1,
    },
    "ticket_assignments": {"ticket_id": "t", "assigned_at": 1},
    "audit_logs": {
        "audit_id": "a",
        "ticket_id": "t",
        "event_type": "created",
        "operator_id": "o",
        "created_at": 1,
    },
    "session_archives": {"archive_id": "a", "session_id": "s", "archived_at": 1},
    "email_records": {
        "record_id": "r",
        "subject": "s",
        "from_email": "f",
        "to_email": "t",
        "status": "pending",
        "retry_count": 0,
        "created_at": 1,
    },
}
ENUMERATED = {
    "agents": ["role", "status"],
    "tickets": ["ticket_type", "status", "priority"],
    "ticket_comments": ["comment_type"],
    "ticket_attachments": ["comment_type"],
    "ticket_status_history": ["from_status", "to_status"],
    "audit_logs": ["event_type"],
    "session_archives": ["channel"],
    "email_records": ["email_type", "status"],
}


@on_postgres
def test_hd_04_enumerated_columns_refuse_other_values_and_nullable_ones_take_null(db):
    assert sum(map(len, ENUMERATED.values())) == 13
    insert(db, "tickets", **ROWS["tickets"])
    for table, names in ENUMERATED.items():
        for name in names:
            with refused(db, "23514"):
                insert(
                    db,
                    table,
                    **ROWS[table]
                    | {name: "no such value"}
                    | ({"ticket_id": "t2"} if table == "tickets" else {}),
                )
    for table, name in (
        ("ticket_status_history", "from_status"),
        ("session_archives", "channel"),
        ("email_records", "email_type"),
    ):
        assert insert(db, table, **ROWS[table] | {name: None})[name] is None


@on_postgres
def test_hd_05_children_go_with_their_ticket_and_records_stay(db):
    for table in ("tickets", *CHILDREN, "audit_logs"):
        insert(db, table, **ROWS[table])
    insert(db, "session_archives", **ROWS["session_archives"], ticket_id="t")
    insert(db, "email_records", **ROWS["email_records"], ticket_id="t")
    db.execute("DELETE FROM tickets")
    assert [value(db, f"SELECT count(*) FROM {t}") for t in CHILDREN] == [0, 0, 0, 0]
    assert [
        value(db, f"SELECT count(*) FROM {t}")
        for t in ("audit_logs", "session_archives", "email_records")
    ] == [1, 1, 1]


# --- 6: Redis

CONVENTIONS = {
    "ticket:{ticket_id}": ("string", None),
    "ticket:index": ("set", None),
    "agent:{username}": ("string", 31536000),
    "agent_id:{agent_id}": ("string", 31536000),
    "audit_log:{ticket_id}": ("list", None),
    "session:{session_name}": ("string", 86400),
    "status:{session_status}": ("set", None),
    "ticket_template:{template_id}": ("string", None),
    "ticket_template:index": ("set", None),
    "quick_reply:{reply_id}": ("string", None),
    "quick_reply:index": ("set", None),
    "quick_reply:category:{category}": ("set", None),
    "quick_reply:agent:{created_by}": ("set", None),
    "agent_stats:{agent_id}:{yyyymmdd}": ("hash", 7776000),
    "security:blacklist:ip:{ip}": ("string", None),
    "security:login_failures:{username}": ("string", 900),
    "security:account_locked:{username}": ("string", 900),
}


def test_hd_06_exactly_the_17_patterns_are_declared_and_persistent_ones_say_why():
    assert {key.pattern: (key.type, key.ttl) for key in BLUEPRINT.keys} == CONVENTIONS
    assert len(BLUEPRINT.keys) == 17
    assert [key.name for key in BLUEPRINT.keys if (key.ttl is None) != bool(key.reason)] == []


@on_redis
def test_hd_06_bootstrapping_leaves_no_key_of_these_patterns(redis_url):
    assert BootstrapOrchestrator([RedisBootstrapper(redis_url, BLUEPRINT)]).run().exit_code == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*") == [b"is-db-bootstrap:conventions:helpdesk"]


@on_redis
def test_hd_06_the_closest_pattern_judges_a_key_and_persistent_keys_are_no_findings(redis_url):
    store = RedisBootstrapper(redis_url, BLUEPRINT)
    BootstrapOrchestrator([store]).run().raise_for_failure()
    with redis.Redis.from_url(redis_url) as client:
        client.set("ticket:TKT-1", "{}")
        client.sadd("ticket:index", "TKT-1")
        client.sadd("quick_reply:category:greetings:short", "1")
        client.set("security:blacklist:ip:2001:db8::1", "1")
        client.set("security:blacklist:ip:192.0.2.1", "1", ex=10)
        client.set("session:s", "{}")
        client.set("quick_reply:agent:me", "{}")
    found = {d.object: d.message for d in store.audit()}
    store.close()
    assert set(found) == {"session:s", "quick_reply:agent:me"}
    assert "quick_reply_agent" in found["quick_reply:agent:me"]


# --- 7 to 10: the package


def test_hd_07_importing_the_package_imports_no_client():
    code = (
        "import sys, is_db_bootstrap.blueprints.helpdesk; print({'sqlalchemy', 'pydantic', "
        "'redis'} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        == "set()\n"
    )


HISTORY = [
    domain.TicketStatusHistory(to_status="pending", changed_by="c", changed_at=1.5),
    domain.TicketStatusHistory(
        from_status="pending", to_status="closed", changed_by="c", change_reason="r", comment="c"
    ),
]
FULL = {
    "ticket": domain.Ticket(
        title="t",
        description="",
        session_name="s",
        ticket_type="complaint",
        status="closed",
        priority="urgent",
        created_by="c",
        created_by_name="C",
        assigned_agent_id="a",
        assigned_agent_name="A",
        customer=domain.TicketCustomer(name="n", email="e", phone="p", country="c"),
        metadata={"a": [1, None, {"b": 1.5}]},
        closed_at=1.25,
        archived_at=2.5,
        first_response_at=3.75,
        resolved_at=4.125,
        reopened_at=5.5,
        reopened_count=2,
        reopened_by="r",
        created_at=1.1,
        updated_at=2.2,
        comments=[
            domain.TicketComment(
                content="c",
                author_id="a",
                author_name="A",
                comment_type="public",
                mentions=["x", " x ", "", "y"],
            ),
            domain.TicketComment(content="d", author_id="a"),
        ],
        attachments=[
            domain.TicketAttachment(
                filename="f",
                stored_path="p",
                content_type="c",
                size=2147483647,
                uploader_id="u",
                uploader_name="U",
            )
        ],
        history=HISTORY,
        assignments=[
            domain.TicketAssignment(),
            domain.TicketAssignment(),
            domain.TicketAssignment(
                agent_id="a", agent_name="A", assigned_by="b", note="n", assigned_at=1
            ),
        ],
    ),
    "agent": domain.Agent(
        username="ü",
        password_hash="h",
        name="n",
        avatar_url="",
        role="admin",
        status="lunch",
        status_note="n",
        status_updated_at=1,
        last_active_at=2,
        last_login=3,
        max_sessions=0,
        skills=[domain.AgentSkill(category=" VPN ", level="senior", tags=["A", "a ", ""])],
    ),
    "audit_log": domain.AuditEntry(
        ticket_id="t",
        event_type="assigned",
        operator_id="o",
        operator_name="O",
        details={"a": True},
    ),
    "session_archive": domain.ArchivedSession(
        session_id="s",
        session_name="n",
        customer_id="c",
        customer_email="e",
        customer_name="n",
        agent_id="a",
        agent_name="A",
        channel="chat",
        messages=[
            domain.SessionMessage(
                role="user", content="", timestamp=1.5, agent_id="a", agent_name="A"
            )
        ],
        ticket_id="t",
        started_at=1,
        ended_at=10.9,
        archived_at=11,
    ),
    "email_record": domain.EmailRecord(
        subject="",
        from_email="f",
        to_email="",
        cc_emails=["a", "b"],
        bcc_emails=["c"],
        body_text="t",
        body_html="h",
        email_type=None,
        template_id="t",
        session_id="s",
        ticket_id="t",
        customer_id="c",
        status="failed",
        error_message="e",
        retry_count=1,
        external_id="x",
        external_response={"id": 1},
        created_at=1,
        sent_at=2,
    ),
}
LEAST = {
    "ticket": domain.Ticket(title="t", description="d", created_by="c"),
    "agent": domain.Agent(username="u", password_hash="h", name="n"),
    "audit_log": domain.AuditEntry(ticket_id="t", event_type="created", operator_id="o"),
    "session_archive": domain.ArchivedSession(session_id="s"),
    "email_record": domain.EmailRecord(subject="s", from_email="f", to_email="t"),
}


@pytest.mark.parametrize("values", [FULL, LEAST], ids=["every field", "required fields"])
@pytest.mark.parametrize("name", FULL)
def test_hd_08_a_value_and_its_row_are_equal(name, values):
    to, back = getattr(converters, f"{name}_to_orm"), getattr(converters, f"{name}_from_orm")
    assert back(to(values[name])) == values[name]


@on_postgres
@pytest.mark.parametrize("values", [FULL, LEAST], ids=["every field", "required fields"])
def test_hd_08_a_value_and_its_stored_row_are_equal(url, values):
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        for name, held in values.items():
            session.add(getattr(converters, f"{name}_to_orm")(held))
        session.commit()
    with Session(engine) as session:
        for name, kind in (
            ("ticket", models.TicketModel),
            ("agent", models.AgentModel),
            ("audit_log", models.AuditLogModel),
            ("session_archive", models.SessionArchiveModel),
            ("email_record", models.EmailRecordModel),
        ):
            assert (
                getattr(converters, f"{name}_from_orm")(session.query(kind).one()) == values[name]
            )
    engine.dispose()


@pytest.mark.parametrize("name", ["comment", "attachment", "status_history", "assignment"])
def test_hd_08_children_convert_with_the_ticket_they_belong_to(name):
    ticket = FULL["ticket"]
    held = {
        "comment": ticket.comments,
        "attachment": ticket.attachments,
        "status_history": ticket.history,
        "assignment": ticket.assignments,
    }[name][0]
    row = getattr(converters, f"{name}_to_orm")(held, "TKT-9")
    assert row.ticket_id == "TKT-9"
    assert getattr(converters, f"{name}_from_orm")(row) == held


def test_hd_08_null_in_a_json_column_reads_as_empty():
    row = converters.ticket_to_orm(LEAST["ticket"])
    row.extra_data = None
    assert converters.ticket_from_orm(row).metadata == {}
    archived = converters.session_archive_to_orm(FULL["session_archive"])
    archived.message_count = None
    assert converters.session_archive_from_orm(archived).message_count == 1
    archived.messages = None
    assert converters.session_archive_from_orm(archived).messages == []


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (domain.Ticket, {"title": "x" * 501}),
        (domain.Ticket, {"title": ""}),
        (domain.Ticket, {"ticket_id": "index"}),
        (domain.Ticket, {"unknown": 1}),
        (domain.Ticket, {"status": "lost"}),
        (domain.Ticket, {"reopened_count": -1}),
        (domain.Ticket, {"closed_at": math.inf}),
        (domain.Ticket, {"metadata": []}),
        (domain.Ticket, {"metadata": {"a": "\0"}}),
        (domain.Ticket, {"title": "a\0"}),
        (domain.Ticket, {"customer": {"nothing": 1}}),
        (domain.Agent, {"username": "a:b"}),
        (domain.Agent, {"username": "a b"}),
        (domain.Agent, {"username": "x" * 51}),
        (domain.Agent, {"role": "boss"}),
        (domain.Agent, {"max_sessions": -1}),
        (domain.Agent, {"password_hash": ""}),
        (domain.EmailRecord, {"to_email": "a,b"}),
        (domain.EmailRecord, {"cc_emails": ["a,b"]}),
        (domain.EmailRecord, {"cc_emails": ["x" * 500, "y" * 500]}),
        (domain.EmailRecord, {"external_response": [1]}),
        (domain.ArchivedSession, {"channel": "fax"}),
        (domain.AuditEntry, {"event_type": "closed"}),
    ],
)
def test_hd_09_what_the_columns_or_rules_forbid_is_refused(model, fields):
    least = next(v for v in LEAST.values() if type(v) is model).model_dump()
    with pytest.raises(ValidationError):
        model(**least | fields)


def test_hd_09_assignment_is_validated_and_a_refused_one_changes_nothing():
    mail = LEAST["email_record"].model_copy(deep=True)
    with pytest.raises(ValidationError):
        mail.cc_emails = ["x" * 500, "y" * 501]
    assert mail.cc_emails == []


def test_hd_09_ids_have_their_form_and_counts_are_worked_out():
    ticket = LEAST["ticket"]
    assert re.fullmatch(r"TKT-\d{14}-[0-9A-F]{6}", ticket.ticket_id)
    assert re.fullmatch(r"comment_[0-9a-f]{12}", FULL["ticket"].comments[0].comment_id)
    assert re.fullmatch(r"audit_[0-9a-f]{16}", FULL["audit_log"].id)
    assert (FULL["session_archive"].message_count, FULL["session_archive"].duration_seconds) == (
        1,
        9,
    )
    assert LEAST["session_archive"].duration_seconds is None
    assert FULL["agent"].skills == [domain.AgentSkill(category="vpn", level="senior", tags=["a"])]
    assert FULL["ticket"].comments[0].mentions == ["x", "y"]


def test_hd_10_hashes_and_passwords_are_not_shown():
    assert "secret-hash" not in repr(
        domain.Agent(username="u", password_hash="secret-hash", name="n")
    )
    config = DatabaseConfig("postgresql://u:secret@h/d")
    assert "secret" not in repr(config)
    assert "postgresql://u:***@h/d" in repr(config)


# --- 11 to 13: the database component


def test_hd_11_defaults_and_what_the_environment_says():
    config = DatabaseConfig.from_env({})
    assert (
        config.pool_size,
        config.max_overflow,
        config.pool_timeout,
        config.pool_recycle,
        config.echo,
    ) == (
        10,
        20,
        30,
        1800,
        False,
    )
    assert "localhost:5432/helpdesk" in repr(config)
    given = {
        "DB_POOL_SIZE": "2",
        "DB_MAX_OVERFLOW": "3",
        "DB_POOL_TIMEOUT": "1.5",
        "DB_POOL_RECYCLE": "60",
        "DB_ECHO": "TRUE",
        "DB_SCHEMA": "desk",
        "DATABASE_URL": "postgresql://u:p@h",
    }
    config = DatabaseConfig.from_env(given)
    assert (
        config.pool_size,
        config.max_overflow,
        config.pool_timeout,
        config.pool_recycle,
        config.echo,
        config.schema,
    ) == (
        2,
        3,
        1.5,
        60,
        True,
        "desk",
    )
    for variable in ("DB_POOL_SIZE", "DB_MAX_OVERFLOW", "DB_POOL_TIMEOUT", "DB_POOL_RECYCLE"):
        with pytest.raises(ConfigurationError, match=variable):
            DatabaseConfig.from_env({variable: "many"})


@on_postgres
def test_hd_11_the_engine_is_made_without_a_server_and_only_once(fresh):
    config = DatabaseConfig("postgresql://u:p@127.0.0.1:1/x")
    engines = []
    threads = [
        threading.Thread(target=lambda: engines.append(database.init_database(config)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in engines}) == 1
    assert database.is_database_initialized()
    assert database.init_database(DatabaseConfig("postgresql://other/x")) is engines[0]


@on_postgres
def test_hd_12_the_status_tells_what_is(fresh, make_server):
    assert database.get_database_status() == {"status": "not_initialized"}
    server = make_server("postgres", password="pw")
    database.init_database(DatabaseConfig(f"{server.url}/postgres", pool_size=2))
    found = database.get_database_status()
    assert (found["status"], found["connection"]) == ("ok", "ok")
    assert found["pool"] == {
        "status": "ok",
        "pool_size": 2,
        "checked_in": 1,
        "checked_out": 0,
        "overflow": 0,
        "invalid": 0,
    }
    server.kill()
    found = database.get_database_status()
    assert (found["status"], found["connection"]) == ("error", "failed")
    assert set(found["pool"]) == {
        "status",
        "pool_size",
        "checked_in",
        "checked_out",
        "overflow",
        "invalid",
    }
    assert found["pool"]["invalid"] >= 1
    assert all(isinstance(v, int) and v >= 0 for k, v in found["pool"].items() if k != "status")


@on_postgres
def test_hd_12_overflow_counts_connections_beyond_the_pool(fresh, url):
    engine = database.init_database(DatabaseConfig(url, pool_size=1, max_overflow=2))
    assert database.get_database_status()["pool"]["overflow"] == 0
    with engine.connect(), engine.connect():
        pool = database.get_database_status()["pool"]
        # The status asks on a third connection, which then is the one that the pool keeps.
        assert (pool["checked_out"], pool["checked_in"], pool["overflow"]) == (2, 1, 2)


@on_postgres
def test_hd_13_a_session_commits_and_an_exception_rolls_back(fresh, url):
    database.init_database(DatabaseConfig(url))
    with database.get_db_session() as session:
        session.add(converters.agent_to_orm(LEAST["agent"]))
        assert not session.autoflush
        assert session.scalar(text("SHOW timezone")) == "UTC"
    with pytest.raises(ZeroDivisionError):
        broken()
    with database.get_db_session() as session:
        assert session.scalar(text("SELECT count(*) FROM agents")) == 1


def broken():
    with database.get_db_session() as session:
        session.add(
            converters.agent_to_orm(domain.Agent(username="v", password_hash="h", name="n"))
        )
        session.flush()
        raise ZeroDivisionError


@on_postgres
def test_an_update_moves_updated_at_unless_it_sets_it(fresh, url):
    database.init_database(DatabaseConfig(url))
    with database.get_db_session() as session:
        session.add(row := converters.agent_to_orm(LEAST["agent"]))
        session.flush()
        row.updated_at = 1.0
        session.flush()
        assert row.updated_at == 1.0
        row.name = "other"
        session.flush()
        assert time.time() - row.updated_at < 30


@on_postgres
@on_redis
def test_hd_30_components_are_built_once_with_what_they_need(fresh, url, redis_url):
    environ = {"DATABASE_URL": url, "REDIS_URL": redis_url}
    with pytest.raises(RuntimeError, match="TICKETS"):
        get_component(Component.TICKETS)
    built = init_components([Component.TICKETS], environ)
    assert list(built) == [Component.DATABASE, Component.CACHE, Component.TICKETS]
    assert (
        init_components([Component.TICKETS, Component.EMAILS], environ)[Component.TICKETS]
        is built[Component.TICKETS]
    )
    assert get_component(Component.TICKETS) is built[Component.TICKETS]
    assert is_initialized(Component.EMAILS)
    assert not is_initialized(Component.AUDIT)
    ticket = built[Component.TICKETS].create(
        domain.Ticket(title="t", description="", created_by="c")
    )
    assert built[Component.TICKETS].get(ticket.ticket_id) == ticket
    with redis.Redis.from_url(redis_url) as client:
        assert client.exists(f"ticket:{ticket.ticket_id}")
    reset_components()
    assert not is_initialized(Component.DATABASE)
    assert not database.is_database_initialized()


def test_the_address_may_be_given_in_any_form():
    assert (
        DatabaseConfig(StoreUrl.parse("postgres", "postgresql+asyncpg://u:p@h/d")).address.database
        == "d"
    )

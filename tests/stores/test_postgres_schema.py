"""What novel_genesis declares in PostgreSQL, on real servers and with plain SQL.

Numbers are those of the blueprint's checks.
"""

from __future__ import annotations

import json
import threading
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprints.novel_genesis import models
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres.alembic import engine
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import Catalogue, live
from is_db_bootstrap.stores.postgres.connection import connect, session_settings
from is_db_bootstrap.stores.postgres.scratch import generate

pytestmark = pytest.mark.postgres
every_version = pytest.mark.parametrize("postgres_url", ["14", "15", "18"], indirect=True)

BLUEPRINT = Blueprint(
    "novel_genesis", "read from its files alone", migrations=files.migrations("novel_genesis")
)
TABLES = [
    "command_inbox",
    "conversation_rounds",
    "conversation_sessions",
    "domain_events",
    "event_outbox",
]


def migrate(url):
    store = PostgreSQLBootstrapper(url, BLUEPRINT)
    for change in store.plan().changes:
        store.apply(change)
    store.close()


@pytest.fixture
def db(postgres_url):
    migrate(postgres_url)
    with connect(
        StoreUrl.parse("postgres", postgres_url), 5, settings=session_settings("public")
    ) as connection:
        yield connection


def declared():
    return Catalogue.read(BLUEPRINT.migrations)


def new_session(db, scope_id="n-1", **columns):
    columns = {"scope_type": "GENESIS", "scope_id": scope_id, **columns}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    return db.execute(
        f"INSERT INTO conversation_sessions ({names}) VALUES ({marks}) RETURNING id",
        list(columns.values()),
    ).fetchone()[0]


def new_round(db, session, path="1", role="user", correlation=None):
    db.execute(
        "INSERT INTO conversation_rounds (session_id, round_path, role, correlation_id) "
        "VALUES (%s, %s, %s, %s)",
        [session, path, role, correlation],
    )


def new_command(db, session, *, key=None, status="RECEIVED"):
    return db.execute(
        "INSERT INTO command_inbox (session_id, command_type, idempotency_key, status)"
        " VALUES (%s, 'START_GENESIS', %s, %s) RETURNING id",
        [session, key or str(uuid4()), status],
    ).fetchone()[0]


def new_event(db):
    return db.execute(
        "INSERT INTO domain_events (event_type, aggregate_type, aggregate_id) "
        "VALUES ('STAGE_ENTERED', 'novel', 'n-1') RETURNING event_id"
    ).fetchone()[0]


def new_message(db, **columns):
    columns = {"topic": "novels", "payload": Jsonb({}), **columns}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    return db.execute(
        f"INSERT INTO event_outbox ({names}) VALUES ({marks}) RETURNING id", list(columns.values())
    ).fetchone()[0]


def value(db, query, *parameters):
    return db.execute(query, parameters).fetchone()[0]


@every_version
def test_ng_01_an_empty_server_gets_the_whole_catalogue(db):
    assert value(db, "SELECT version_num FROM alembic_version") == "ng_0004"
    found = live(db, "public")
    assert found == declared().objects
    assert list(found["table"]) == TABLES
    assert found["enum"] == {
        "command_status_enum": "'RECEIVED', 'PROCESSING', 'COMPLETED', 'FAILED'",
        "outbox_status_enum": "'PENDING', 'PROCESSING', 'SENT', 'FAILED'",
    }
    assert [len(found[kind]) for kind in ("index", "trigger", "function")] == [44, 4, 3]


def test_ng_01_every_table_and_every_column_with_a_meaning_has_a_comment(db):
    silent = db.execute(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "AND a.attnum > 0 WHERE c.relname = ANY(%s) AND col_description(c.oid, a.attnum) IS NULL",
        [TABLES],
    ).fetchall()
    assert {column for _, column in silent} <= {
        "id",
        "created_at",
        "session_id",
        "tokens_in",
        "tokens_out",
        "latency_ms",
        "payload",
        "status",
        "retry_count",
        "metadata",
    }
    assert (
        value(
            db,
            "SELECT count(*) FROM pg_class WHERE relname = ANY(%s) "
            "AND obj_description(oid, 'pg_class') IS NOT NULL",
            TABLES,
        )
        == 5
    )


@every_version
def test_ng_01_the_catalogue_file_is_what_a_scratch_database_at_head_says(postgres_url):
    generated = generate(StoreUrl.parse("postgres", postgres_url), BLUEPRINT)
    assert generated.text() == (BLUEPRINT.migrations / "catalogue.json").read_text(
        encoding="utf-8"
    ), "catalogue.json is stale: is-db-bootstrap revision --refresh --blueprint novel_genesis"


def test_ng_02_a_second_run_plans_nothing_and_leaves_the_data(db, postgres_url):
    session = new_session(db)
    store = PostgreSQLBootstrapper(postgres_url, BLUEPRINT)
    assert store.plan().changes == ()
    assert list(store.verify()) == []
    store.close()
    assert value(db, "SELECT id FROM conversation_sessions") == session


def test_ng_04_only_the_columns_without_default_are_needed(db):
    session = new_session(db)
    new_round(db, session)
    new_command(db, session)
    new_event(db)
    new_message(db)
    assert db.execute(
        "SELECT status, version, round_sequence, state, stage FROM conversation_sessions"
    ).fetchone() == (
        "ACTIVE",
        0,
        0,
        None,
        None,
    )
    assert db.execute("SELECT status, retry_count FROM command_inbox").fetchone() == ("RECEIVED", 0)
    assert db.execute("SELECT id, event_version FROM domain_events").fetchone() == (1, 1)
    assert db.execute(
        "SELECT status, retry_count, max_retries, sent_at, scheduled_at = created_at "
        "FROM event_outbox"
    ).fetchone() == (
        "PENDING",
        0,
        5,
        None,
        True,
    )


def test_ng_05_a_scope_has_one_active_session(db):
    first = new_session(db)
    with pytest.raises(pg.UniqueViolation):
        new_session(db)
    new_session(db, "n-2")
    db.execute("UPDATE conversation_sessions SET status = 'COMPLETED' WHERE id = %s", [first])
    new_session(db)


def test_ng_06_the_trigger_alone_decides_the_version(db):
    session = new_session(db)
    update = (
        "UPDATE conversation_sessions SET stage = %s, version = %s WHERE id = %s RETURNING version"
    )
    assert value(db, update, "WORLDVIEW", 77, session) == 1
    assert (
        value(
            db,
            "UPDATE conversation_sessions SET stage = stage WHERE id = %s RETURNING version",
            session,
        )
        == 1
    )
    with db.transaction():
        other = new_session(db, "n-2")
        created = value(db, "SELECT updated_at FROM conversation_sessions WHERE id = %s", other)
        assert (
            value(
                db,
                "UPDATE conversation_sessions SET stage = 'x' WHERE id = %s RETURNING updated_at",
                other,
            )
            > created
        )
    stale = db.execute(
        "UPDATE conversation_sessions SET stage = 'y' WHERE id = %s AND version = 0", [session]
    )
    assert stale.rowcount == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"scope_type": "POEM"},
        {"scope_id": " \t"},
        {"status": "active"},
        {"version": -1},
        {"round_sequence": -1},
        {"state": Jsonb([1])},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_ng_07_unknown_values_of_a_session_are_refused(db, columns):
    with pytest.raises(pg.CheckViolation):
        new_session(db, **columns)


def test_ng_07_paths_and_roles_of_rounds_are_checked(db):
    session = new_session(db)
    for path in ("1..2", "0", "01", "", "1.", ".1", "1.0", "a"):
        with pytest.raises(pg.CheckViolation):
            new_round(db, session, path)
    with pytest.raises(pg.CheckViolation):
        new_round(db, session, role="narrator")
    for path in ("1", "2.1.1", "10.20"):
        new_round(db, session, path)


def test_ng_08_rounds_go_with_their_session_and_a_request_makes_one(db):
    session = new_session(db)
    new_round(db, session, "1", correlation="r-1")
    new_round(db, session, "2")
    new_round(db, session, "3")
    with pytest.raises(pg.UniqueViolation):
        new_round(db, session, "4", correlation="r-1")
    db.execute("DELETE FROM conversation_sessions WHERE id = %s", [session])
    assert value(db, "SELECT count(*) FROM conversation_rounds") == 0


def test_ng_09_one_pending_command_of_a_type_and_a_key_only_once(db):
    session = uuid4()
    first = new_command(db, session, key="k-1")
    for status in ("RECEIVED", "PROCESSING"):
        db.execute("UPDATE command_inbox SET status = %s WHERE id = %s", [status, first])
        with pytest.raises(pg.UniqueViolation):
            new_command(db, session)
    db.execute("UPDATE command_inbox SET status = 'COMPLETED' WHERE id = %s", [first])
    second = new_command(db, session)
    db.execute(
        "UPDATE command_inbox SET status = 'FAILED', error_message = 'no model' WHERE id = %s",
        [second],
    )
    new_command(db, session)
    with pytest.raises(pg.UniqueViolation):
        new_command(db, uuid4(), key="k-1")
    with pytest.raises(pg.CheckViolation):
        new_command(db, uuid4(), status="FAILED")


@every_version
def test_ng_10_events_are_only_ever_added(db):
    event = new_event(db)
    again = (
        "INSERT INTO domain_events (event_id, event_type, aggregate_type, aggregate_id) "
        "VALUES (%s, 'A', 'b', 'c')"
    )
    for statement in (
        "UPDATE domain_events SET event_version = 2",
        "UPDATE domain_events SET event_version = 2 WHERE false",
        "DELETE FROM domain_events",
        "DELETE FROM domain_events WHERE false",
        "TRUNCATE domain_events CASCADE",
        f"{again} ON CONFLICT (event_id) DO UPDATE SET event_version = 2".replace(
            "%s", "gen_random_uuid()"
        ),
    ):
        with pytest.raises(pg.RestrictViolation) as refused:
            db.execute(statement)
        assert "domain_events is append-only" in str(refused.value)
    with pytest.raises(pg.FeatureNotSupported):
        db.execute("TRUNCATE domain_events")
    with pytest.raises(pg.UniqueViolation):
        db.execute(again, [event])
    db.execute(f"{again} ON CONFLICT DO NOTHING", [event])
    with pytest.raises(pg.GeneratedAlways):
        db.execute(
            "INSERT INTO domain_events (id, event_type, aggregate_type, aggregate_id) "
            "VALUES (9, 'A', 'b', 'c')"
        )
    assert value(db, "SELECT count(*) FROM domain_events") == 1


@pytest.mark.parametrize(
    ("columns", "refusal"),
    [
        ({"status": "SENT"}, pg.CheckViolation),
        ({"sent_at": "2026-01-01"}, pg.CheckViolation),
        ({"retry_count": 6}, pg.CheckViolation),
        ({"status": "FAILED"}, pg.CheckViolation),
        ({"scheduled_at": "2020-01-01"}, pg.CheckViolation),
        ({"headers": Jsonb([])}, pg.CheckViolation),
        ({"event_id": UUID(int=0)}, pg.ForeignKeyViolation),
        ({"status": "LOST"}, pg.InvalidTextRepresentation),
    ],
    ids=str,
)
def test_ng_11_messages_that_contradict_themselves_are_refused(db, columns, refusal):
    with pytest.raises(refusal):
        new_message(db, **columns)


def test_ng_11_a_message_keeps_its_event(db):
    new_message(db, event_id=new_event(db))
    db.execute("ALTER TABLE domain_events DISABLE TRIGGER trg_domain_events_append_only")
    with pytest.raises((pg.ForeignKeyViolation, pg.RestrictViolation)):
        db.execute("DELETE FROM domain_events")


CLAIM = """
    WITH due AS (
        SELECT id FROM event_outbox
        WHERE status = 'PENDING' AND scheduled_at <= now()
        ORDER BY scheduled_at, created_at LIMIT 100 FOR UPDATE SKIP LOCKED
    )
    UPDATE event_outbox AS o SET status = 'PROCESSING', scheduled_at = now() + interval '60 seconds'
    FROM due WHERE o.id = due.id RETURNING o.id
"""
NOT_DELIVERED = """
    UPDATE event_outbox
    SET retry_count  = least(retry_count + 1, max_retries),
        status       = (
            CASE WHEN retry_count + 1 >= max_retries THEN 'FAILED' ELSE 'PENDING' END
        )::outbox_status_enum,
        last_error   = 'broker away',
        scheduled_at = now() + make_interval(secs => least(60, power(2, least(retry_count, 6))))
    WHERE id = %s AND status = 'PROCESSING'
"""
RECLAIM = """
    UPDATE event_outbox
    SET retry_count  = least(retry_count + 1, max_retries),
        status       = (
            CASE WHEN retry_count + 1 >= max_retries THEN 'FAILED' ELSE 'PENDING' END
        )::outbox_status_enum,
        last_error   = 'lease expired', scheduled_at = now()
    WHERE id IN (
        SELECT id FROM event_outbox WHERE status = 'PROCESSING' AND scheduled_at <= now()
        FOR UPDATE SKIP LOCKED
    )
"""


def test_ng_12_two_relays_never_claim_the_same_message(db, postgres_url):
    db.execute(
        "INSERT INTO event_outbox (topic, payload) SELECT 't', '{}' FROM generate_series(1, 300)"
    )
    claimed, ready = [], threading.Barrier(2)

    def relay():
        with psycopg.connect(postgres_url) as own:
            for _ in range(2):
                ready.wait()
                claimed.extend(row[0] for row in own.execute(CLAIM).fetchall())
                ready.wait()
                own.commit()

    threads = [threading.Thread(target=relay) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 300


def test_ng_12_the_claim_uses_its_index(db):
    db.execute(
        "INSERT INTO event_outbox (topic, payload, created_at, scheduled_at) SELECT 't', '{}', "
        "t, t FROM generate_series(now() - interval '5000 s', now(), interval '1 s') AS t"
    )
    db.execute("VACUUM ANALYZE event_outbox")
    plan = "\n".join(row[0] for row in db.execute(f"EXPLAIN {CLAIM}").fetchall())
    assert "idx_event_outbox_pending_scheduled" in plan


def test_ng_12_the_last_failure_gives_up_and_a_lapsed_lease_is_handed_out_again(db):
    message = new_message(db)
    for _ in range(5):
        db.execute(
            "UPDATE event_outbox SET created_at = now() - interval '1 h', scheduled_at = now() "
            "WHERE status = 'PENDING'"
        )
        assert [row[0] for row in db.execute(CLAIM).fetchall()] == [message]
        db.execute(NOT_DELIVERED, [message])
    assert db.execute("SELECT status, retry_count, last_error FROM event_outbox").fetchone() == (
        "FAILED",
        5,
        "broker away",
    )
    leased = new_message(db)
    db.execute(CLAIM)
    assert db.execute(RECLAIM).rowcount == 0
    db.execute(
        "UPDATE event_outbox SET created_at = now() - interval '1 h', scheduled_at = now() - "
        "interval '1 s' WHERE id = %s",
        [leased],
    )
    assert db.execute(RECLAIM).rowcount == 1
    assert [row[0] for row in db.execute(CLAIM).fetchall()] == [leased]


@pytest.mark.parametrize("table", ["command_inbox", "domain_events", "event_outbox"])
def test_ng_13_payloads_are_found_by_their_gin_index(db, table):
    db.execute("SET enable_seqscan = off")
    plan = "\n".join(
        row[0]
        for row in db.execute(
            f"""EXPLAIN SELECT * FROM {table} WHERE payload @> '{{"a": 1}}'"""
        ).fetchall()
    )
    assert f"idx_{table}_payload" in plan


def test_the_models_write_and_read_what_the_tables_hold(db, postgres_url):
    own = engine(StoreUrl.parse("postgres", postgres_url), "public", Timing())
    with Session(own) as session:
        dialogue = models.ConversationSession(
            scope_type=models.ScopeType.GENESIS, scope_id="n-1", state={"title": "A"}
        )
        dialogue.rounds.append(
            models.ConversationRound(round_path="1", role=models.Role.USER, input={"text": "?"})
        )
        message = models.OutboxMessage(topic="novels", payload={}, event_id=None)
        session.add_all(
            [
                dialogue,
                message,
                models.DomainEvent(event_type="A", aggregate_type="b", aggregate_id="c"),
            ]
        )
        session.commit()
        assert (dialogue.version, dialogue.status, message.status) == (
            0,
            "ACTIVE",
            models.OutboxStatus.PENDING,
        )
        before = dialogue.updated_at
        dialogue.stage = "WORLDVIEW"
        session.commit()
        assert dialogue.version == 1
        assert dialogue.updated_at > before
        session.delete(dialogue)
        session.commit()
    own.dispose()
    assert value(db, "SELECT count(*) FROM conversation_rounds") == 0
    assert db.execute("SELECT status::text, headers FROM event_outbox").fetchone() == (
        "PENDING",
        None,
    )


def test_the_models_enums_have_the_labels_of_the_catalogue():
    enums = declared().objects["enum"]
    for kind, name in (
        (models.CommandStatus, "command_status_enum"),
        (models.OutboxStatus, "outbox_status_enum"),
    ):
        assert ", ".join(f"'{label}'" for label in kind) == enums[name]


def test_the_file_is_json_with_one_definition_a_line():
    text = (BLUEPRINT.migrations / "catalogue.json").read_text(encoding="utf-8")
    assert json.loads(text)["head"] == "ng_0004"
    assert "public." not in text

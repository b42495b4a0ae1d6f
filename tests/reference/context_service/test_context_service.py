"""What context_service declares, on real servers. Numbers are those of the blueprint's acceptance
checks.
"""

from __future__ import annotations

import asyncio
import uuid

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.blueprints.context_service import queue
from is_db_bootstrap.blueprints.context_service.models import QueuedEvent
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from specification import column, insert, plan_of, refused, value

pytestmark = pytest.mark.postgres
both_ends = pytest.mark.parametrize("version", ["18", "14"])

BLUEPRINT = load_blueprint("context_service")
INDEXES = [
    "idx_agents_name",
    "idx_agents_status",
    "idx_tasks_status",
    "idx_tasks_agent_status",
    "idx_tasks_parent",
    "idx_tasks_scheduled",
    "idx_task_slices_task",
    "idx_task_slices_task_index",
    "idx_event_queue_available",
    "idx_event_queue_task",
    "idx_event_queue_priority_available",
    "idx_tools_name",
    "idx_tools_execution_mode",
    "idx_tool_keywords_keyword",
    "idx_tool_keywords_tool",
    "idx_task_results_task",
    "idx_task_results_tool",
    "idx_task_results_type",
    "idx_task_results_created",
    "idx_review_status",
    "idx_review_task",
    "idx_review_created",
]
TABLES = [
    "agents",
    "event_queue",
    "review_records",
    "task_results",
    "task_slices",
    "tasks",
    "tool_keywords",
    "tools",
]


@pytest.fixture
def version():
    return None


@pytest.fixture
def db(migrated, version):
    """A connection in a transaction of its own: refusals leave it usable."""
    with psycopg.connect(migrated("context_service", version)) as connection:
        yield connection


def agent(db, name="a", **columns):
    return insert(db, "agents", "id", name=name, base_prompt="p", **columns)


def task(db, of=None, **columns):
    return insert(
        db, "tasks", "id", agent_id=of or agent(db, str(uuid.uuid4())), **{"payload": {}, **columns}
    )


def tool(db, name="t", **columns):
    return insert(db, "tools", "id", name=name, schema={}, **columns)


def run(url, seed=False, schema="public"):
    store = PostgreSQLBootstrapper(url, BLUEPRINT, schema=schema, seed=seed)
    return BootstrapOrchestrator([store]).run()


# --- 1: the catalogue


def test_ctx_01_an_empty_server_reaches_the_head(postgres_url):
    result = run(postgres_url)
    assert (result.exit_code, [c.name for c in result.stores[0].changes][1:]) == (
        0,
        ["ctx_0001", "ctx_0002", "ctx_0003"],
    )
    with psycopg.connect(postgres_url) as db:
        assert value(db, "SELECT version_num FROM alembic_version") == "ctx_0003"


@both_ends
def test_ctx_01_the_catalogue_is_that_of_the_page(db, version):
    assert (
        column(
            db,
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename "
            "<> 'alembic_version' ORDER BY 1",
        )
        == TABLES
    )
    labels = dict(
        db.execute(
            "SELECT t.typname, array_agg(e.enumlabel::text ORDER BY enumsortorder) FROM "
            "pg_type t JOIN pg_enum e ON enumtypid = t.oid GROUP BY 1"
        )
    )
    assert labels == {
        "agent_status_enum": ["active", "inactive", "error"],
        "task_status_enum": ["pending", "in_progress", "completed", "failed", "cancelled"],
        "tool_mode_enum": ["cloud", "local"],
        "result_type_enum": ["tool_result", "task_result"],
        "review_status_enum": ["pass", "fail"],
    }
    listed = dict(
        db.execute(
            "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public' AND "
            "indexname LIKE 'idx%'"
        )
    )
    assert sorted(listed) == sorted(INDEXES)
    assert [n for n, text in listed.items() if "gin" in text] == ["idx_tool_keywords_keyword"]
    assert "gin (keyword gin_trgm_ops)" in listed["idx_tool_keywords_keyword"]
    counts = dict(
        db.execute(
            "SELECT contype::text, count(*) FROM pg_constraint WHERE connamespace = "
            "'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version' GROUP "
            "BY 1"
        )
    )
    assert (counts["p"], counts["f"], counts["u"]) == (8, 8, 4)
    assert value(db, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 5
    assert sorted(
        column(db, "SELECT confdeltype::text FROM pg_constraint WHERE contype = 'f'")
    ) == ["c"] * 6 + ["n", "r"]


def test_ctx_01_every_table_and_every_column_with_a_meaning_has_a_comment(db):
    assert column(
        db,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind = 'r' AND obj_description(oid) IS NULL",
    ) == ["alembic_version"]
    told = column(
        db,
        "SELECT attrelid::regclass || '.' || attname FROM pg_attribute WHERE "
        "col_description(attrelid, attnum) IS NOT NULL AND attrelid::regclass::text = ANY(%s)",
        TABLES,
    )
    assert len(told) == 27
    assert {
        "event_queue.available_at",
        "tools.schema",
        "review_records.score",
        "agents.updated_at",
    } <= set(told)


# --- 2: down and up


def test_ctx_02_an_extension_that_was_there_is_kept_and_used_where_it_is(postgres_url):
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute(
            "CREATE SCHEMA elsewhere; CREATE EXTENSION pg_trgm SCHEMA elsewhere; COMMENT ON "
            "EXTENSION pg_trgm IS 'ours'"
        )
    assert run(postgres_url).exit_code == 0
    assert run(postgres_url).outcome == "unchanged"
    from is_db_bootstrap import migrate

    migrate.downgrade("context_service", "base", url=postgres_url)
    with psycopg.connect(postgres_url) as db:
        assert (
            value(
                db,
                "SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname "
                "= 'pg_trgm'",
            )
            == "ours"
        )


def test_ctx_02_an_extension_of_ours_stays_while_others_use_it(migrated):
    from is_db_bootstrap import migrate

    url = migrated("context_service")
    with psycopg.connect(url, autocommit=True) as db:
        assert (
            value(
                db,
                "SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname "
                "= 'pg_trgm'",
            )
            == "created by is-db-bootstrap"
        )
        db.execute(
            "CREATE SCHEMA other; CREATE TABLE other.words (w text); CREATE INDEX ON "
            "other.words USING gin (w gin_trgm_ops)"
        )
    migrate.downgrade("context_service", "base", url=url)
    with psycopg.connect(url) as db:
        assert value(db, "SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'") == 1
        assert (
            value(
                db,
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                "AND relkind IN ('r', 'S') AND relname <> 'alembic_version'",
            )
            == 0
        )


def test_ctx_02_base_leaves_nothing_and_each_step_works_both_ways(migrated):
    from is_db_bootstrap import migrate

    url = migrated("context_service")
    with psycopg.connect(url, autocommit=True) as db:
        before = objects(db)
        for revision in ("ctx_0002", "ctx_0001"):
            migrate.downgrade("context_service", url=url)
            assert value(db, "SELECT version_num FROM alembic_version") == revision
        migrate.downgrade("context_service", url=url)
        assert objects(db) == []
        for revision in ("ctx_0001", "ctx_0002", "ctx_0003"):
            migrate.upgrade("context_service", "+1", url=url)
            assert value(db, "SELECT version_num FROM alembic_version") == revision
        assert objects(db) == before


def objects(db):
    """Tables, indexes, sequences, types, functions, triggers, constraints and extensions of ours,
    by name.
    """
    return column(
        db,
        """
        SELECT relkind::text || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ '^alembic_version'
        UNION ALL SELECT 't' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
        UNION ALL SELECT 'f' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'g' || tgname FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'c' || conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conname !~ '^alembic_version'
        UNION ALL SELECT 'e' || extname FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1
        """,
    )


# --- 3 to 7: rows


def test_ctx_03_only_the_columns_without_default_are_needed(db):
    found = insert(db, "agents", name="a", base_prompt="p")
    assert (found["allowed_tool_ids"], found["status"], found["description"]) == (
        [],
        "active",
        None,
    )
    job = insert(db, "tasks", agent_id=found["id"], payload={})
    assert (job["status"], job["priority"], job["retries"]) == ("pending", 100, 0)
    assert (job["parent_task_id"], job["scheduled_at"], job["started_at"], job["completed_at"]) == (
        None,
    ) * 4
    assert (
        insert(db, "task_slices", task_id=job["id"], slice_index=0, content={})["status"]
        == "pending"
    )
    waiting = insert(db, "event_queue", task_id=job["id"], payload={})
    assert (
        waiting["priority"],
        waiting["visibility_timeout"],
        waiting["attempts"],
        waiting["max_attempts"],
    ) == (
        100,
        300,
        0,
        3,
    )
    assert waiting["available_at"] == waiting["created_at"] == waiting["updated_at"]
    made = insert(db, "tools", name="t", schema={})
    assert (made["version"], made["execution_mode"], made["description"]) == (
        "v1.0.0",
        "cloud",
        None,
    )
    assert insert(db, "tool_keywords", tool_id=made["id"], keyword="k")["id"] == 1
    result = insert(
        db, "task_results", task_id=job["id"], result_type="task_result", data=Jsonb([1])
    )
    assert (result["tool_id"], result["data"]) == (None, [1])
    assert (
        insert(db, "review_records", task_id=job["id"], status="pass", reviewer="r")["score"]
        is None
    )
    for row in (found, job, waiting, made, result):
        assert isinstance(row["id"], uuid.UUID)
        assert row["created_at"].utcoffset() is not None


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("agents", {"name": " "}),
        ("agents", {"allowed_tool_ids": [None]}),
        ("tasks", {"started_at": "2026-01-02", "completed_at": "2026-01-01"}),
        ("tasks", {"priority": -1}),
        ("tasks", {"retries": -1}),
        ("tasks", {"payload": Jsonb([])}),
        ("task_slices", {"slice_index": -1}),
        ("task_slices", {"content": Jsonb([])}),
        ("event_queue", {"priority": -1}),
        ("event_queue", {"attempts": -1}),
        ("event_queue", {"max_attempts": 0}),
        ("event_queue", {"attempts": 4, "max_attempts": 3}),
        ("event_queue", {"visibility_timeout": 0}),
        ("event_queue", {"payload": Jsonb([])}),
        ("review_records", {"score": 100.01}),
        ("review_records", {"score": -0.01}),
        ("review_records", {"reviewer": "\t"}),
        ("tools", {"name": ""}),
        ("tools", {"schema": Jsonb([])}),
    ],
)
def test_ctx_04_a_row_that_breaks_a_check_is_refused(db, table, columns):
    least = {
        "agents": lambda: {"name": "a", "base_prompt": "p"},
        "tasks": lambda: {"agent_id": agent(db), "payload": {}},
        "task_slices": lambda: {"task_id": task(db), "slice_index": 0, "content": {}},
        "event_queue": lambda: {"task_id": task(db), "payload": {}},
        "review_records": lambda: {"task_id": task(db), "status": "pass", "reviewer": "r"},
        "tools": lambda: {"name": "t", "schema": {}},
    }[table]()
    insert(db, table, **least)
    with refused(db, "23514"):
        insert(db, table, **({**least, "name": "other"} if "name" in least else least) | columns)


def test_ctx_04_a_task_is_not_its_own_parent(db):
    job = task(db)
    with refused(db, "23514"):
        db.execute("UPDATE tasks SET parent_task_id = id WHERE id = %s", [job])


def test_ctx_05_what_must_be_unique_is_refused_twice(db):
    job, made = task(db, agent(db, "same")), tool(db)
    insert(db, "task_slices", task_id=job, slice_index=0, content={})
    insert(db, "tool_keywords", tool_id=made, keyword="k")
    for again in (
        lambda: agent(db, "same"),
        lambda: insert(db, "task_slices", task_id=job, slice_index=0, content={}),
        lambda: tool(db),
        lambda: insert(db, "tool_keywords", tool_id=made, keyword="k"),
    ):
        with refused(db, "23505"):
            again()
    tool(db, version="v2")


def test_ctx_05_a_reference_to_nothing_an_unknown_label_and_an_own_identity_are_refused(db):
    nothing = uuid.uuid4()
    with refused(db, "23503"):
        insert(db, "event_queue", task_id=nothing, payload={})
    with refused(db, "23503"):
        insert(db, "task_slices", task_id=nothing, slice_index=0, content={})
    with refused(db, "22P02"):
        agent(db, status="asleep")
    with refused(db, "428C9"):
        insert(db, "tool_keywords", id=1, tool_id=tool(db), keyword="k")


@pytest.mark.parametrize(("version", "state"), [("18", "23001"), ("14", "23503")])
def test_ctx_06_an_agent_that_has_tasks_stays(db, version, state):
    owner = agent(db)
    task(db, owner)
    with refused(db, state):
        db.execute("DELETE FROM agents WHERE id = %s", [owner])


def test_ctx_06_everything_goes_with_its_task_and_a_result_outlives_its_tool(db):
    owner, made = agent(db), tool(db)
    job = task(db, owner)
    child = task(db, owner, parent_task_id=job)
    insert(db, "task_slices", task_id=child, slice_index=0, content={})
    insert(db, "event_queue", task_id=job, payload={})
    insert(db, "review_records", task_id=job, status="fail", reviewer="r")
    result = insert(
        db, "task_results", "id", task_id=job, tool_id=made, result_type="tool_result", data={}
    )
    insert(db, "tool_keywords", tool_id=made, keyword="k")
    db.execute("DELETE FROM tools WHERE id = %s", [made])
    assert value(db, "SELECT count(*) FROM tool_keywords") == 0
    assert column(db, "SELECT tool_id FROM task_results WHERE id = %s", result) == [None]
    db.execute("DELETE FROM tasks WHERE id = %s", [job])
    for table in ("tasks", "task_slices", "event_queue", "review_records", "task_results"):
        assert value(db, f"SELECT count(*) FROM {table}") == 0


def test_ctx_07_updated_at_moves_also_within_the_inserting_transaction(db):
    job, made = task(db), tool(db)
    insert(db, "task_slices", task_id=job, slice_index=0, content={})
    insert(db, "event_queue", task_id=job, payload={})
    for table, change in {
        "agents": "description = 'x'",
        "tasks": "priority = 1",
        "task_slices": "slice_index = 1",
        "event_queue": "priority = 1",
        "tools": "description = 'x'",
    }.items():
        before = db.execute(f"SELECT created_at, updated_at FROM {table}").fetchone()
        after = db.execute(
            f"UPDATE {table} SET {change} RETURNING created_at, updated_at"
        ).fetchone()
        assert after[0] == before[0]
        assert after[1] > before[1]
    assert made


# --- 8: the queue


@pytest.fixture
async def sessions(migrated):
    """A maker of sessions on a database of one's own, and its address."""
    url = migrated("context_service")
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), pool_size=12
    )
    yield lambda: AsyncSession(engine, expire_on_commit=False), url
    await engine.dispose()


def waiting(url, *rows):
    """Put rows into the queue; each is a dict of columns."""
    with psycopg.connect(url) as db:
        job = task(db)
        return [insert(db, "event_queue", "id", task_id=job, payload={}, **row) for row in rows]


async def test_ctx_08_rows_come_by_priority_and_then_by_time(sessions):
    make, url = sessions
    late, urgent, early, future = waiting(
        url,
        {"available_at": "2026-01-02"},
        {"available_at": "2026-01-03", "priority": 1},
        {"available_at": "2026-01-01"},
        {"available_at": "2999-01-01", "priority": 0},
    )
    async with make() as session, session.begin():
        assert [row.id for row in await queue.claim(session, 10)] == [urgent, early, late]
        assert future not in [row.id for row in await queue.claim(session, 10)]


async def test_ctx_08_ten_parallel_claimers_never_share_a_row(sessions):
    make, url = sessions
    rows = waiting(url, *[{}] * 100)

    async def work():
        mine = []
        while True:
            async with make() as session, session.begin():
                claimed = await queue.claim(session, 3)
            if not claimed:
                return mine
            mine += [row.id for row in claimed]

    taken = [row for mine in await asyncio.gather(*[work() for _ in range(10)]) for row in mine]
    assert sorted(taken) == sorted(rows)


async def test_ctx_08_a_claimed_row_is_hidden_and_then_due_again_until_its_last_attempt(sessions):
    make, url = sessions
    [row] = waiting(url, {"visibility_timeout": 1, "max_attempts": 2})
    async with make() as session, session.begin():
        [claimed] = await queue.claim(session)
    assert (claimed.id, claimed.attempts) == (row, 1)
    async with make() as session, session.begin():
        assert await queue.claim(session) == []
    await asyncio.sleep(1.05)
    async with make() as session, session.begin():
        [again] = await queue.claim(session)
    assert (again.id, again.attempts) == (row, 2)
    await asyncio.sleep(1.05)
    async with make() as session, session.begin():
        assert await queue.claim(session) == []


async def test_ctx_08_an_outdated_claim_changes_nothing(sessions):
    make, url = sessions
    waiting(url, {"visibility_timeout": 1})
    async with make() as session, session.begin():
        [first] = await queue.claim(session)
    await asyncio.sleep(1.05)
    async with make() as session, session.begin():
        [second] = await queue.claim(session)
    async with make() as session, session.begin():
        assert await queue.done(session, first) is False
        assert await queue.give_back(session, first, 0) is False
        assert (await session.get(QueuedEvent, second.id)).attempts == 2
        assert await queue.done(session, second) is True
        assert await session.get(QueuedEvent, second.id, populate_existing=True) is None


async def test_ctx_08_a_row_that_is_given_back_is_due_after_the_delay(sessions):
    make, url = sessions
    waiting(url, {})
    async with make() as session, session.begin():
        [row] = await queue.claim(session)
        assert await queue.give_back(session, row, 0.2) is True
        assert await queue.claim(session) == []
    await asyncio.sleep(0.25)
    async with make() as session, session.begin():
        [again] = await queue.claim(session)
    assert (again.id, again.attempts) == (row.id, 2)


# --- 9 and 10: keywords and demo data


def test_ctx_09_a_misspelt_word_finds_its_keyword_by_the_index(postgres_url):
    run(postgres_url, seed=True)
    with psycopg.connect(postgres_url) as db:
        assert column(
            db, "SELECT keyword FROM tool_keywords WHERE keyword %% %s", "notificaton"
        ) == ["notification"]
        assert "idx_tool_keywords_keyword" in plan_of(
            db, "SELECT * FROM tool_keywords WHERE keyword %% %s", "notificaton"
        )


def test_ctx_10_demo_data_comes_once_and_leaves_what_was_edited(postgres_url):
    assert run(postgres_url, seed=True).exit_code == 0
    with psycopg.connect(postgres_url, autocommit=True) as db:
        assert counts(db) == {"agents": 1, "tools": 3, "tool_keywords": 9}
        db.execute("UPDATE tools SET description = 'mine' WHERE name = 'crm_query'")
        assert run(postgres_url, seed=True).outcome == "unchanged"
        assert (
            value(
                db,
                "SELECT description FROM tools WHERE id = '8be33f0c-1fb2-53ac-956f-f822eef2f880'",
            )
            == "mine"
        )
        found = db.execute(
            "SELECT id, name, status::text, description, base_prompt, allowed_tool_ids FROM agents"
        ).fetchone()
        tools = dict(db.execute("SELECT name, id FROM tools"))
    assert found == (
        uuid.UUID("4c0bf64f-5543-53b2-8df9-c4dec9683b4c"),
        "test_agent",
        "active",
        "Test agent for exercising the context service.",
        "You are a test agent. You are used to check that the context service works.",
        [tools["notification_service"], tools["crm_query"], tools["local_file_reader"]],
    )
    assert {name: str(key) for name, key in tools.items()} == {
        "notification_service": "cbda3124-ef12-5a56-af98-f1124dd3f9a8",
        "crm_query": "8be33f0c-1fb2-53ac-956f-f822eef2f880",
        "local_file_reader": "2c8c7244-ad65-5f97-bd5f-aefde30589d3",
    }


def test_ctx_10_a_row_of_the_same_natural_key_is_left_and_keywords_hang_on_it(migrated):
    url = migrated("context_service")
    with psycopg.connect(url, autocommit=True) as db:
        mine = tool(db, "crm_query", description="was here first")
        agent(db, "test_agent")
        assert run(url, seed=True).exit_code == 0
        assert run(url, seed=True).outcome == "unchanged"
        assert counts(db) == {"agents": 1, "tools": 3, "tool_keywords": 9}
        assert column(
            db, "SELECT keyword FROM tool_keywords WHERE tool_id = %s ORDER BY 1", mine
        ) == [
            "crm",
            "customer",
            "query",
        ]


def test_ctx_10_without_seed_all_tables_are_empty(db):
    assert counts(db, *TABLES) == dict.fromkeys(TABLES, 0)


def counts(db, *tables):
    return {
        t: value(db, f"SELECT count(*) FROM {t}")
        for t in tables or ("agents", "tools", "tool_keywords")
    }

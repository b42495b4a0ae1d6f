"""The connection layer for applications, on real servers.

Numbers are those of the blueprints' acceptance checks.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import asynccontextmanager
from decimal import Decimal
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy.exc
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.engine import make_url

from is_db_bootstrap import migrate
from is_db_bootstrap.access import Database, PoolProfile, close_db, get_db, init_db
from is_db_bootstrap.blueprints.context_service.models import Agent
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreUnavailable
from is_db_bootstrap.settings import pool_profile
from specification import value

pytestmark = pytest.mark.postgres
SMALL = PoolProfile(1, 2, acquire_timeout=0.2)


@pytest.fixture
def url(migrated):
    return migrated("context_service")


@pytest.fixture
async def database(url):
    async with Database(url, profile=SMALL, blueprint="context_service") as database:
        yield database


@pytest.fixture
async def registry():
    yield
    await close_db()


def connections(url, name="is-db-bootstrap:%"):
    """How many connections of ours the server has on that database."""
    with psycopg.connect(url) as connection:
        return value(
            connection,
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE %s",
            name,
        )


def none_is_left(url):
    """Whether the server sees no connection of ours any more.

    It notices a moment after a connection was closed.
    """
    return any(connections(url) == 0 or time.sleep(0.02) for _ in range(100))


def parts(url):
    """An address as DB_* variables."""
    found = psycopg.conninfo.conninfo_to_dict(url)
    return {
        "DB_HOST": found["host"],
        "DB_PORT": found["port"],
        "DB_USER": found["user"],
        "DB_PASSWORD": found["password"],
        "DB_NAME": found["dbname"],
    }


# --- settings


@pytest.mark.parametrize(
    ("variable", "given", "shown"),
    [
        ("DB_HOST", "db", "postgresql://postgres:***@db:5432/context_service"),
        ("DB_PORT", "5433", "postgresql://postgres:***@localhost:5433/context_service"),
        ("DB_NAME", "n", "postgresql://postgres:***@localhost:5432/n"),
        ("DB_USER", "u", "postgresql://u:***@localhost:5432/context_service"),
        ("DB_PASSWORD", "secret", "postgresql://postgres:***@localhost:5432/context_service"),
    ],
)
def test_ctx_11_each_variable_has_its_default_on_its_own(variable, given, shown):
    assert shown in repr(Database.for_blueprint("context_service", {variable: given}))


async def test_ctx_11_any_password_connects_through_both_ways_and_is_shown_nowhere(url, capfd):
    password, role = "@:/%? '\"", f"role_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
                sql.Identifier(role), sql.Literal(password)
            )
        )
    try:
        given = parts(url) | {"DB_USER": role, "DB_PASSWORD": password}
        place = f"{given['DB_HOST']}:{given['DB_PORT']}/{given['DB_NAME']}"
        encoded = f"postgresql://{role}:{quote(password, safe='')}@{place}"
        for environ in (given, {"DATABASE_URL": encoded}):
            async with Database.for_blueprint("context_service", environ) as database:
                assert await database.fetchval("SELECT current_user") == role
                assert password not in repr(database)
                assert password not in str(await database.check())
            assert migrate.current("context_service", environ=environ).is_head
            assert migrate.init("context_service", environ=environ).revisions == ()
        shown = capfd.readouterr()
        assert password not in shown.out + shown.err
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_ctx_11_a_schema_and_a_pool_are_configured():
    found = pool_profile(
        PoolProfile(10, 30),
        {
            "DB_POOL_MIN_SIZE": "2",
            "DB_POOL_MAX_SIZE": "3",
            "DB_POOL_TIMEOUT": "1.5",
            "DB_POOL_RECYCLE": "60",
            "DB_COMMAND_TIMEOUT": "2",
            "DB_PREPARE_THRESHOLD": "none",
        },
    )
    assert found == PoolProfile(2, 3, 1.5, 60, 2, None)
    for variable, wrong in (
        ("DB_POOL_MAX_SIZE", "many"),
        ("DB_POOL_TIMEOUT", "-1"),
        ("DB_POOL_MIN_SIZE", "1.5"),
        ("DB_POOL_MIN_SIZE", "31"),
    ):
        with pytest.raises(ConfigurationError, match=variable):
            pool_profile(PoolProfile(10, 30), {variable: wrong})


def test_a_pool_that_cannot_be_is_refused():
    for sizes in ((2, 1), (0, 0), (-1, 1)):
        with pytest.raises(ValueError, match="cannot be"):
            PoolProfile(*sizes)


async def test_agt_11_init_db_takes_any_password_and_the_drivers_of_applications(
    migrated, registry
):
    given = migrated("agentic_projects").replace("postgresql://", "postgresql+asyncpg://")
    database = await init_db("agentic_projects", {"DATABASE_URL": given})
    assert await database.fetchval("SELECT count(*) FROM templates") == 0
    with pytest.raises(ConfigurationError, match="asyncpg"):
        await init_db("context_service", {"DATABASE_URL": "postgresql+pg8000://u@h/d"})


# --- ctx 12: the pool and its sessions


async def test_ctx_12_fifty_concurrent_opens_make_one_pool_of_ten(url):
    database = Database(url, profile=PoolProfile(10, 30), blueprint="context_service")
    await asyncio.gather(*[database.open() for _ in range(50)])
    assert connections(url, "is-db-bootstrap:context_service") == 10
    status = database.pool_status()
    assert (
        status.size,
        status.checked_in,
        status.checked_out,
        status.overflow,
        status.max_size,
    ) == (10, 10, 0, 0, 30)
    await database.close()
    await database.close()
    assert none_is_left(url)
    assert database.pool_status() == type(status)(0, 0, 0, 0, 30)
    await database.open()
    assert await database.fetchval("SELECT 1") == 1
    await database.close()


async def test_ctx_12_a_session_commits_nothing_and_a_transaction_does(database):
    async with database.session() as session:
        session.add(Agent(name="a", base_prompt="p"))
        await session.flush()
    assert await database.fetchval("SELECT count(*) FROM agents") == 0
    with pytest.raises(ZeroDivisionError):
        await broken(database)
    assert await database.fetchval("SELECT count(*) FROM agents") == 0
    async with database.transaction() as session:
        session.add(agent := Agent(name="a", base_prompt="p"))
    assert await database.fetchval("SELECT count(*) FROM agents") == 1
    assert agent.name == "a"
    async for session in database.sessions():
        assert (await session.scalar(text("SELECT count(*) FROM agents"))) == 1


async def broken(database):
    async with database.transaction() as session:
        session.add(Agent(name="a", base_prompt="p"))
        await session.flush()
        raise ZeroDivisionError


async def test_ctx_12_close_waits_for_open_and_takes_what_is_in_use_when_it_is_given_back(url):
    database = Database(url, profile=SMALL)
    opening = asyncio.create_task(database.open())
    await asyncio.sleep(0)
    await database.close()
    await opening
    assert not database.is_open
    assert none_is_left(url)
    await database.open()
    async with database.acquire() as connection:
        await database.close()
        assert await connection.scalar(text("SELECT 1")) == 1
    assert none_is_left(url)


async def test_ctx_12_use_before_open_is_an_error(url):
    database = Database(url, profile=SMALL)
    with pytest.raises(RuntimeError, match="not open"):
        await database.fetch("SELECT 1")
    with pytest.raises(RuntimeError, match="not open"):
        async with database.session():
            pass


async def test_ctx_12_the_31st_checkout_waits_and_then_gives_up(url):
    async with Database(url, profile=PoolProfile(10, 30, acquire_timeout=0.3)) as database:
        await _exhausted(database, 30)
        assert connections(url) == 10


async def _exhausted(database, most):
    """`most` checkouts at once succeed, and one more times out."""
    enough, go = asyncio.Semaphore(0), asyncio.Event()

    async def hold():
        async with database.acquire() as connection:
            await connection.execute(text("SELECT 1"))
            enough.release()
            await go.wait()

    holders = [asyncio.create_task(hold()) for _ in range(most)]
    for _ in holders:
        await asyncio.wait_for(enough.acquire(), 20)
    assert database.pool_status().checked_out == most
    began = time.monotonic()
    with pytest.raises(sqlalchemy.exc.TimeoutError):
        async with database.acquire():
            pass
    assert time.monotonic() - began >= 0.25
    go.set()
    await asyncio.gather(*holders)
    async with database.acquire() as connection:
        await connection.execute(text("SELECT 1"))


async def test_ctx_12_a_restart_in_between_costs_no_error(make_server):
    server = make_server("postgres", password="hidden")
    url = f"{server.url}/postgres"
    async with Database(url, profile=PoolProfile(3, 5)) as database:
        assert await database.fetchval("SELECT 1") == 1
        server.stop()
        server.start()
        for _ in range(100):
            if (await database.check(1)).ok:
                break
            await asyncio.sleep(0.05)
        assert [await database.fetchval("SELECT 1") for _ in range(4)] == [1] * 4


# --- ctx 13: health and time limits


async def test_ctx_13_health_of_a_server_that_is_up(url):
    database = Database(url, profile=SMALL, blueprint="context_service")
    found = await database.check()
    assert (found.ok, found.revision, found.head, found.error) == (
        True,
        "ctx_0003",
        "ctx_0003",
        None,
    )
    assert found.latency_ms > 0
    assert found.database == url.rpartition("/")[2]
    assert found.server_version.startswith("18.")
    assert none_is_left(url)
    migrate.downgrade("context_service", "base", url=url)
    assert (await database.check()).ok
    assert (await database.check()).revision is None


async def test_ctx_13_a_server_that_is_down_or_hangs_is_ill_within_the_timeout(make_server):
    server = make_server("postgres", password="hidden")
    database = Database(f"{server.url}/postgres", profile=SMALL)
    assert (await database.check()).ok
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    found = await database.check(timeout=0.5)
    os.kill(server.pid, signal.SIGCONT)
    assert (found.ok, found.latency_ms) == (False, None)
    assert time.monotonic() - began < 1.5
    assert "0.5 s" in found.error
    server.kill()
    found = await database.check(timeout=2)
    assert not found.ok
    assert "does not answer" in found.error
    assert "hidden" not in found.error


async def test_ctx_13_a_path_that_dies_within_a_query_is_ill_within_the_timeout(url):
    async with dying_path(url) as through:
        began = time.monotonic()
        found = await Database(through, profile=SMALL).check(timeout=0.5)
        assert not found.ok
        assert time.monotonic() - began < 1.5


@asynccontextmanager
async def dying_path(url):
    """The address of a proxy that lets a login through and nothing that is asked afterwards."""
    address, tasks = make_url(url), []

    async def pass_on(reader, writer, until=()):
        try:
            while (data := await reader.read(65536)) and data[:1] not in until:
                writer.write(data)
            await asyncio.Event().wait()
        finally:
            writer.close()

    async def joined(reader, writer):
        there, back = await asyncio.open_connection(address.host, address.port)
        ends = (pass_on(reader, back, (b"P", b"Q")), pass_on(there, writer))
        tasks.extend(asyncio.create_task(end) for end in ends)

    async with await asyncio.start_server(joined, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield address.set(port=port).render_as_string(hide_password=False)
        server.close()
        await asyncio.sleep(0.05)  # for who was about to join
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_ctx_13_an_address_without_a_database_is_ill_when_it_is_down():
    assert (
        "does not answer"
        in (await Database("postgresql://u:secret@127.0.0.1:1", profile=SMALL).check()).error
    )


@pytest.mark.parametrize("host", ["h..x", "a" * 64 + ".example"])
async def test_ctx_13_a_host_name_that_cannot_be_is_told_without_its_password(host):
    database = Database(f"postgresql://u:secret@{host}/x", profile=SMALL)
    assert "not valid" in (await database.check()).error
    with pytest.raises(ConfigurationError, match="not valid") as refusal:
        await database.open()
    assert "secret" not in str(refusal.value)


async def test_ctx_13_a_server_that_hides_its_revision_has_answered(url):
    role = f"role_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'hidden'").format(sql.Identifier(role))
        )
        try:
            found = await Database(
                make_url(url)
                .set(username=role, password="hidden")
                .render_as_string(hide_password=False),
                profile=SMALL,
            ).check()
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    assert (found.ok, found.revision) == (True, None)
    assert "permission denied" in found.error
    assert "hidden" not in found.error


async def test_ctx_13_a_statement_over_its_time_is_cancelled(url):
    async with Database(url, profile=PoolProfile(1, 1, command_timeout=0.2)) as database:
        for call in (
            database.fetch("SELECT pg_sleep(5)"),
            database.fetch("SELECT pg_sleep($1)", 5),
        ):
            with pytest.raises(sqlalchemy.exc.OperationalError) as cancelled:
                await call
            assert cancelled.value.orig.sqlstate == "57014"
        assert await database.fetchval("SELECT 1") == 1


# --- agt 10: the profile of agentic_projects


async def test_agt_10_the_pool_of_the_service(migrated, registry):
    url = migrated("agentic_projects")
    environ = {"DATABASE_URL": url, "DB_POOL_TIMEOUT": "0.3"}
    opened = await asyncio.gather(*[init_db("agentic_projects", environ) for _ in range(20)])
    assert len({id(database) for database in opened}) == 1
    assert get_db() is get_db("agentic-projects") is opened[0]
    assert connections(url, "is-db-bootstrap:agentic_projects") == 10
    assert await opened[0].fetchval("SHOW statement_timeout") == "1min"
    assert await opened[0].fetchval("SHOW timezone") == "UTC"
    await _exhausted(opened[0], 50)
    await close_db()
    await close_db()
    assert none_is_left(url)
    with pytest.raises(RuntimeError, match="init_db"):
        get_db()


async def test_get_db_without_a_name_needs_exactly_one(migrated, registry):
    for name in ("agentic_projects", "context_service"):
        await init_db(name, {"DATABASE_URL": migrated(name), "DB_POOL_MIN_SIZE": "1"})
    with pytest.raises(RuntimeError, match="name the blueprint"):
        get_db()
    await close_db("context_service")
    assert get_db() is get_db("agentic_projects")
    with pytest.raises(RuntimeError, match="context_service"):
        get_db("context_service")


async def test_init_db_migrates_only_when_it_is_asked_to(postgres_url, registry):
    environ = {"DATABASE_URL": postgres_url, "DB_POOL_MIN_SIZE": "1"}
    with pytest.raises(StoreUnavailable, match="migrate init"):
        await init_db("context_service", environ)
    with pytest.raises(RuntimeError):
        get_db()
    database = await init_db("context_service", environ, migrate=True)
    assert await database.fetchval("SELECT version_num FROM alembic_version") == "ctx_0003"


async def test_a_refused_opening_names_the_cause_and_leaves_nothing(url):
    wrong = url.replace("://postgres:", "://nobody_there:")
    for database, error in (
        (Database(wrong, profile=SMALL), AccessDenied),
        (Database("postgresql://u:secret@127.0.0.1:1/x", profile=SMALL), StoreUnavailable),
    ):
        with pytest.raises(error) as refusal:
            await database.open()
        assert "***" in str(refusal.value)
        assert "secret" not in str(refusal.value)
        assert not database.is_open
    assert none_is_left(url)


# --- statements and values


async def test_values_are_bound_by_name_or_by_position_and_never_both(database):
    assert (
        await database.execute(
            "INSERT INTO agents (name, base_prompt) VALUES (:name, :prompt)",
            name="o'hara",
            prompt=":x %s",
        )
        == 1
    )
    assert (
        await database.fetchval("SELECT base_prompt FROM agents WHERE name = $1", "o'hara")
        == ":x %s"
    )
    assert await database.fetch("SELECT name FROM agents WHERE name = :name", name="o'hara") == [
        {"name": "o'hara"}
    ]
    assert (
        await database.fetchrow("SELECT name FROM agents WHERE name = :name", name="nobody") is None
    )
    assert await database.fetchval(r"SELECT '\:name'") == ":name"
    assert await database.fetchval("SELECT '%s' || $1::text", "a") == "%sa"
    assert (
        await database.execute("UPDATE agents SET description = $2 WHERE name = $1", "o'hara", "d")
        == 1
    )
    with pytest.raises(ValueError, match="not both"):
        await database.fetch("SELECT $1, :a", 1, a=1)


async def test_types_arrive_as_python_has_them(database):
    now = dt.datetime.now(dt.UTC)
    row = await database.fetchrow(
        "SELECT CAST(:j AS jsonb) AS j, CAST(:l AS text[]) AS l, CAST(:n AS numeric) AS n,"
        " CAST(:u AS uuid) AS u, CAST(:t AS timestamptz) AS t, CAST(:k AS jsonb) AS k",
        j={"a": [1, None]},
        l=["x", "y"],
        n=Decimal("1.50"),
        u=uuid.UUID(int=1),
        t=now,
        k=Jsonb([1, 2]),
    )
    assert row == {
        "j": {"a": [1, None]},
        "l": ["x", "y"],
        "n": Decimal("1.50"),
        "u": uuid.UUID(int=1),
        "t": now,
        "k": [1, 2],
    }
    assert row["t"].utcoffset() == dt.timedelta(0)
    raw = await database.fetchrow("SELECT $1::jsonb AS j, $2::text[] AS l", {"a": 1}, ["x"])
    assert raw == {"j": {"a": 1}, "l": ["x"]}


async def test_a_statement_is_prepared_at_its_fifth_use(url):
    async with Database(url, profile=PoolProfile(1, 1)) as database:
        prepared = (
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%FROM agents%'"
        )
        for _ in range(4):
            await database.fetch("SELECT name FROM agents WHERE name = :name", name="a")
        assert await database.fetchval(prepared) == 0
        await database.fetch("SELECT name FROM agents WHERE name = :name", name="a")
        assert await database.fetchval(prepared) == 1
    async with Database(url, profile=PoolProfile(1, 1, prepare_threshold=None)) as database:
        for _ in range(8):
            await database.fetch("SELECT name FROM agents WHERE name = :name", name="a")
        assert await database.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0


async def test_a_failed_statement_leaves_the_connection_usable(database):
    for call in (
        lambda: database.fetch("SELECT nothing"),
        lambda: database.fetch("SELECT nothing FROM agents WHERE name = $1", "a"),
    ):
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            await call()
    assert await database.fetchval("SELECT 1") == 1
    assert database.pool_status().checked_out == 0


def test_importing_it_needs_no_client_of_another_store():
    code = (
        "import sys, is_db_bootstrap.access\n"
        "print({'neo4j', 'pymilvus', 'redis'} & set(sys.modules))\n"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        == "set()\n"
    )

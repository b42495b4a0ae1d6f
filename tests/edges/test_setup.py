"""The guided set-up, on real servers, with and without a terminal. Numbers are those of
agentic_projects' checks.
"""

from __future__ import annotations

import psycopg
import pytest

from commands import answered, command
from is_db_bootstrap import migrate
from specification import column, value

pytestmark = pytest.mark.postgres
AGT = ["setup", "--blueprint", "agentic_projects"]


def databases(url):
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres") as connection:
        return column(connection, "SELECT datname FROM pg_database WHERE datname = %s", name)


def test_agt_12_no_at_the_terminal_creates_nothing(postgres_url):
    code, shown = answered("no", *AGT, environ={"POSTGRES_URL": postgres_url})
    assert code == 1
    assert "does not exist" in shown
    assert "Nothing was changed" in shown
    assert databases(postgres_url) == []


@pytest.mark.parametrize("answer", ["y", "YES"])
def test_agt_12_yes_at_the_terminal_goes_through_all_four_steps(postgres_url, answer):
    code, shown = answered(answer, *AGT, environ={"POSTGRES_URL": postgres_url})
    assert code == 0, shown
    assert all(f"Step {n} of 4" in shown for n in (1, 2, 3, 4))
    assert migrate.current("agentic_projects", url=postgres_url).is_head


def test_agt_12_without_a_terminal_and_without_a_target_nothing_is_waited_for():
    code, out, err = command(*AGT)
    assert code == 2
    assert "--yes" in err
    assert "DATABASE_URL" in err
    assert any("localhost:5432/agentic_projects (default)" in line for line in out)


def test_agt_12_without_a_terminal_a_missing_database_ends_it(postgres_url):
    code, _, err = command(*AGT, environ={"DATABASE_URL": postgres_url})
    assert code == 2
    assert "Step 2, Connection" in err
    assert databases(postgres_url) == []


def test_agt_12_with_yes_it_runs_through_and_again_it_changes_nothing(postgres_url):
    environ = {"DATABASE_URL": postgres_url}
    code, out, err = command(*AGT, "--yes", "--seed", environ=environ)
    assert (code, err) == (0, "")
    assert [line.split()[2] for line in out if " revision " in line] == [
        "agt_0001",
        "agt_0002",
        "agt_0003",
    ]
    assert [line.split()[2].strip(":") for line in out if " table " in line] == [
        "modifications",
        "project_contexts",
        "templates",
    ]
    with psycopg.connect(postgres_url) as connection:
        assert value(connection, "SELECT count(*) FROM templates") == 5
    code, again, _ = command(*AGT, environ=environ)
    assert code == 0
    assert any("nothing to do" in line for line in again)


def test_agt_12_a_server_that_is_down_ends_it_at_step_2():
    code, _, err = command(
        *AGT,
        "--yes",
        "--timeout",
        "0.5",
        environ={"POSTGRES_URL": "postgresql://u:p@127.0.0.1:1/x"},
    )
    assert code == 1
    assert "Step 2, Connection" in err


def test_what_is_not_as_declared_ends_it_at_step_4(migrated):
    url = migrated("agentic_projects")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP INDEX idx_templates_tags")
    code, _, err = command(*AGT, environ={"POSTGRES_URL": url})
    assert code == 1
    assert "idx_templates_tags" in err


@pytest.mark.neo4j
@pytest.mark.milvus
@pytest.mark.redis
def test_every_store_of_a_blueprint_is_set_up(postgres_url, neo4j_url, milvus_url, redis_url):
    environ = {
        "POSTGRES_URL": postgres_url,
        "NEO4J_URL": neo4j_url,
        "MILVUS_URL": milvus_url,
        "REDIS_URL": redis_url,
    }
    code, out, _ = command("setup", "--yes", "--blueprint", "novel_genesis", environ=environ)
    assert code == 0
    for store in ("postgres", "neo4j", "milvus", "redis"):
        assert len([line for line in out if line.strip().startswith(store)]) >= 4
    assert command("setup", "--blueprint", "novel_genesis", environ=environ)[0] == 0

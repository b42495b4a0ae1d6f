"""The stock `alembic` command and our runs read and write the same databases."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import psycopg
import pytest

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import live
from is_db_bootstrap.stores.postgres.connection import connect, session_settings

pytestmark = pytest.mark.postgres
every_version = pytest.mark.parametrize("postgres_url", ["14", "15", "18"], indirect=True)

BLUEPRINT = Blueprint(
    "novel_genesis", "read from its files alone", migrations=files.migrations("novel_genesis")
)


@pytest.fixture
def url(postgres_url):
    return StoreUrl.parse("postgres", postgres_url)


@pytest.fixture
def alembic(postgres_url, tmp_path):
    """Run the stock command in an empty folder; its output, standard error last."""

    def run(*arguments, code=0, **environment):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "alembic",
                "-c",
                files.root() / "migrations" / "alembic.ini",
                "-n",
                "novel_genesis",
                *arguments,
            ],
            env={**os.environ, "POSTGRES_URL": postgres_url, **environment},
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def store(url):
    opened = PostgreSQLBootstrapper(url, BLUEPRINT)
    yield opened
    opened.close()


def apply_all(store):
    for change in store.plan().changes:
        store.apply(change)


def objects(url, schema="public"):
    with connect(url, 5, settings=session_settings(schema)) as connection:
        return live(connection, schema)


@every_version
def test_ng_03_down_to_base_and_up_again_gives_the_same_catalogue(alembic, store, url):
    apply_all(store)
    before = objects(url)
    alembic("downgrade", "base")
    assert objects(url) == {}
    with connect(url, 5) as connection:
        left = (
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
            "UNION SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace "
            "AND typname NOT LIKE '%alembic_version'"
        )
        assert {row[0] for row in connection.execute(left).fetchall()} == {
            "alembic_version",
            "alembic_version_pkc",
        }
    alembic("upgrade", "head")
    assert objects(url) == before


def test_ng_03_each_single_step_down_and_up_works(alembic, store, url):
    apply_all(store)
    steps = [objects(url)]
    for _ in range(4):
        alembic("downgrade", "-1")
        steps.append(objects(url))
    assert steps[-1] == {}
    for before in reversed(steps[:-1]):
        alembic("upgrade", "+1")
        assert objects(url) == before


def test_a_function_that_others_use_survives_the_downgrade(alembic, store, url):
    apply_all(store)
    with connect(url, 5) as connection:
        connection.execute("CREATE TABLE theirs (id integer, updated_at timestamptz)")
        connection.execute(
            "CREATE TRIGGER touch BEFORE UPDATE ON theirs FOR EACH ROW "
            "EXECUTE FUNCTION set_updated_at()"
        )
    alembic("downgrade", "base")
    assert list(objects(url)["function"]) == ["set_updated_at()"]
    alembic("upgrade", "head")
    assert list(store.verify()) == []


@every_version
def test_check_finds_nothing_to_do_on_a_migrated_database(alembic, store):
    apply_all(store)
    assert "No new upgrade operations detected" in alembic("check")


def test_the_stock_command_sees_what_we_did(alembic, store):
    apply_all(store)
    assert "ng_0004 (head)" in alembic("current")
    assert re.findall(r"-> (ng_\d+)", alembic("history")) == [
        "ng_0004",
        "ng_0003",
        "ng_0002",
        "ng_0001",
    ]


def test_we_go_on_where_the_stock_command_stopped(alembic, store):
    store.create_database()
    assert "Running upgrade ng_0001 -> ng_0002" in alembic("upgrade", "ng_0002")
    assert [change.name for change in store.plan().changes] == ["ng_0003", "ng_0004"]
    apply_all(store)
    assert list(store.verify()) == []


def test_the_stock_command_records_the_blueprint_as_we_do(alembic, store, url):
    store.create_database()
    alembic("upgrade", "head")
    with connect(url, 5) as connection:
        lineage = "SELECT schema_name, blueprint, revisions FROM is_db_bootstrap.lineage"
        revisions = ["ng_0001", "ng_0002", "ng_0003", "ng_0004"]
        assert connection.execute(lineage).fetchall() == [("public", "novel_genesis", revisions)]
        comment = "SELECT obj_description('alembic_version'::regclass)"
        assert connection.execute(comment).fetchone()[0] is None


def test_the_stock_command_creates_a_schema_that_is_missing(alembic, store, url):
    store.create_database()
    alembic("upgrade", "head", DB_SCHEMA='Odd "one')
    assert "No new upgrade operations detected" in alembic("check", DB_SCHEMA='Odd "one')
    odd = PostgreSQLBootstrapper(url, BLUEPRINT, schema='Odd "one')
    assert odd.plan().changes == ()
    assert list(odd.verify()) == []
    odd.close()


def test_tables_of_others_are_not_what_check_looks_at(alembic, store, url):
    store.create_database()
    with connect(url, 5) as connection:
        connection.execute("CREATE TABLE theirs (id integer)")
    alembic("upgrade", "head", DB_SCHEMA="ours")
    assert "No new upgrade operations detected" in alembic("check", DB_SCHEMA="ours")


def test_written_as_sql_the_revisions_make_the_same_catalogue(alembic, store, url, postgres_url):
    store.create_database()
    script = alembic("upgrade", "head", "--sql").split("INFO")[0]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(script)
    assert store.plan().changes == ()
    assert list(store.verify()) == []


def test_a_missing_database_is_told_without_a_traceback(alembic, url):
    output = alembic("current", code=255)
    assert f"FAILED: Database {url.database} does not exist." in output
    assert "Traceback" not in output


@pytest.mark.parametrize("driver", ["", "+psycopg", "+asyncpg"])
def test_text_for_the_driver_is_sent_as_the_driver_of_the_address_would(
    postgres_url, tmp_path, driver
):
    (tmp_path / "p1.py").write_text(
        "from alembic import op\n\nrevision = 'p1'\ndown_revision = None\n\n\n"
        "def upgrade():\n    send = op.get_bind().exec_driver_sql\n"
        "    send(\"CREATE TABLE said AS SELECT format('%I', 'a b') AS x WHERE 'ab' LIKE 'a%'\")\n"
        "    send(\"INSERT INTO said VALUES ('%s')\")\n"
        "    send(\"INSERT INTO said VALUES ('%%')\")\n"
        "    op.execute(\"INSERT INTO said VALUES ('%%%')\")\n"
    )
    address = postgres_url.replace("postgresql://", f"postgresql{driver}://")
    blueprint = Blueprint("said", "for tests", migrations=tmp_path)
    store = PostgreSQLBootstrapper(StoreUrl.parse("postgres", address), blueprint)
    try:
        apply_all(store)
    finally:
        store.close()
    with psycopg.connect(postgres_url) as connection:
        found = [x for (x,) in connection.execute("SELECT x FROM said")]
    assert found == ['"a b"', "%s", "%%" if driver == "+asyncpg" else "%", "%%%"]

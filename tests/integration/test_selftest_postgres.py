"""The self-test of PostgreSQL: it tries everything, sees what does not work, and leaves nothing."""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap import blueprints
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.orchestrator import BootstrapOrchestrator
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.selftest import SelfTest

pytestmark = pytest.mark.postgres
WITH_POSTGRES = [name for name in blueprints.names() if "postgres" in blueprints.load(name).stores]


def applied(url, name):
    store = PostgreSQLBootstrapper(url, blueprints.load(name))
    BootstrapOrchestrator([store]).run().raise_for_failure()
    return store


def proofs(connection, *tables):
    with connection.transaction(force_rollback=True):
        return {p.name: p for p in SelfTest(connection, "public", tables).proofs()}


@pytest.fixture
def database(postgres_url):
    """A connection to an empty database."""
    BootstrapOrchestrator(
        [PostgreSQLBootstrapper(postgres_url, Blueprint("empty", "for tests"))]
    ).run(mode="wait")
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    with psycopg.connect(postgres_url) as connection:
        yield connection


@pytest.mark.parametrize("postgres_url", ["18", "14"], indirect=True)
@pytest.mark.parametrize("name", WITH_POSTGRES)
def test_every_object_of_a_built_in_blueprint_is_tried_and_works(postgres_url, name):
    made = list(applied(postgres_url, name).selftest())
    assert [p for p in made if not p.ok] == []
    declared = PostgreSQLBootstrapper(postgres_url, blueprints.load(name))._catalogue.objects
    tried = " ".join(p.name for p in made)
    for kind in ("constraint", "index", "trigger"):
        assert [n for n in declared.get(kind, ()) if n not in tried] == []


def test_nothing_is_left(postgres_url):
    store = applied(postgres_url, "novel_genesis")
    list(store.selftest())
    with psycopg.connect(postgres_url) as connection:
        tables = [
            t
            for (t,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            )
        ]
        counted = {
            t: connection.execute(f'SELECT count(*) FROM "{t}"').fetchone()[0] for t in tables
        }
    assert counted == dict.fromkeys(tables, 0) | {"alembic_version": 1}


def test_rows_of_an_application_stay_and_do_not_disturb(postgres_url):
    store = applied(postgres_url, "novel_genesis")
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO conversation_sessions (scope_type, scope_id) SELECT 'GENESIS', n::text FROM generate_series(1, 500) n"
        )
    assert all(p.ok for p in store.selftest())
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM conversation_sessions").fetchone() == (500,)


def test_a_check_that_holds_nothing_back_is_seen(database):
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, CONSTRAINT never CHECK (n IS NULL OR true))"
    )
    found = proofs(database, "t")["t.never refuses what breaks it"]
    assert found.ok is None
    assert "no value was found that never refuses" in found.detail


def test_an_index_that_is_not_valid_fails(database):
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE INDEX broken ON t (n)")
    database.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass")
    assert proofs(database, "t")["t.broken finds a row"].ok is False


def test_a_trigger_without_visible_effect_is_counted_and_one_that_did_not_fire_is_told(database):
    database.execute("""
        CREATE TABLE t (id int PRIMARY KEY, n int);
        CREATE FUNCTION one() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE FUNCTION two() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER called BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION one();
        CREATE TRIGGER picky BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.n = 4711) EXECUTE FUNCTION two();
        CREATE TRIGGER off BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION one();
        ALTER TABLE t DISABLE TRIGGER off;
    """)
    found = proofs(database, "t")
    assert found["t.called fires"].ok is True
    assert found["t.picky fires"].ok is None
    assert "t.off fires" not in found


def test_rules_of_foreign_keys_are_tried(database):
    database.execute("""
        CREATE TABLE p (id int PRIMARY KEY);
        CREATE TABLE c (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int NOT NULL, b int, d int,
            CONSTRAINT cascades FOREIGN KEY (a) REFERENCES p ON DELETE CASCADE,
            CONSTRAINT nulls FOREIGN KEY (b) REFERENCES p ON DELETE SET NULL,
            CONSTRAINT keeps FOREIGN KEY (d) REFERENCES p);
    """)
    found = proofs(database, "p", "c")
    assert [p for p in found.values() if not p.ok] == []
    assert {
        "c.cascades deletes rows with their parent",
        "c.nulls becomes NULL with its parent",
        "c.keeps keeps a parent that has rows",
    } <= set(found)


def test_a_role_that_is_no_superuser_may_try(database):
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n > 0)); CREATE ROLE plain NOSUPERUSER; GRANT ALL ON t TO plain; SET ROLE plain"
    )
    found = proofs(database, "t")
    database.rollback()
    assert [p for p in found.values() if p.ok is False] == []

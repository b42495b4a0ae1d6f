"""The self-test of PostgreSQL: it tries everything, sees what does not work, and leaves nothing."""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import Catalogue
from is_db_bootstrap.stores.postgres.selftest import SelfTest

pytestmark = pytest.mark.postgres
WITH_POSTGRES = [name for name in blueprint_names() if "postgres" in load_blueprint(name).stores]


def applied(url, name):
    store = PostgreSQLBootstrapper(url, load_blueprint(name))
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
    declared = Catalogue.read(load_blueprint(name).migrations).objects
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
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                "AND relkind = 'r'"
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
            "INSERT INTO conversation_sessions (scope_type, scope_id) SELECT 'GENESIS', n::text "
            "FROM generate_series(1, 500) n"
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
        CREATE TRIGGER picky BEFORE UPDATE ON t FOR EACH ROW
            WHEN (NEW.n = 4711) EXECUTE FUNCTION two();
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
        CREATE TABLE c (
            id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int NOT NULL, b int, d int,
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


def test_a_reference_to_another_schema_is_told_as_not_tried(database):
    """Also where a table of the same name is tried."""
    database.execute("""
        CREATE SCHEMA sales; CREATE TABLE sales.c (id int PRIMARY KEY);
        CREATE TABLE c (id int PRIMARY KEY REFERENCES sales.c);
    """)
    found = proofs(database, "c")
    assert {p.ok for p in found.values()} == {None}
    assert {p.detail for p in found.values()} == {
        "table sales.c is in another schema, which is not tried"
    }


def test_a_role_that_is_no_superuser_may_try(database):
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n > 0)); "
        "CREATE ROLE plain NOSUPERUSER; GRANT ALL ON t TO plain; SET ROLE plain"
    )
    found = proofs(database, "t")
    database.rollback()
    assert [p for p in found.values() if p.ok is False] == []


def test_a_table_whose_columns_may_all_be_left_out_takes_a_row(database):
    database.execute("CREATE TABLE t (id int, at timestamptz NOT NULL DEFAULT now())")
    assert [p for p in proofs(database, "t").values() if p.ok is not True] == []


KINDS = """
    tstzrange int4range daterange int4multirange macaddr interval point tsvector bit(4) varbit(9)
    xml jsonpath hstore oid pg_lsn polygon mail pair mood[] regclass circle line box
"""


def test_values_of_rare_types_are_asked_of_the_server_and_what_has_none_is_not_tried(database):
    database.execute("""
        CREATE EXTENSION IF NOT EXISTS hstore;
        CREATE TYPE mood AS ENUM ('ok');
        CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN mail AS text CHECK (VALUE ~ '^[^@]+@[^@]+$');
        CREATE DOMAIN nil AS text CHECK (false);
        CREATE TABLE nothing (id int PRIMARY KEY, v nil NOT NULL);
    """)
    for number, kind in enumerate(KINDS.split()):
        database.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v {kind} NOT NULL)")
    found = proofs(database, "nothing", *(f"t{number}" for number in range(len(KINDS.split()))))
    assert {p.ok for name, p in found.items() if not name.startswith("nothing")} == {True}
    assert {p.ok for name, p in found.items() if name.startswith("nothing")} == {None}
    assert "no value is known for nothing.v (nil)" in {p.detail for p in found.values()}


#: A partitioned table and its parts, by the way in which it is partitioned.
PARTITIONED = {
    "range of dates long ago": """
        CREATE TABLE r (
            id bigint, at date NOT NULL, note text, n int CHECK (n > 0),
            PRIMARY KEY (id, at)
        ) PARTITION BY RANGE (at);
        CREATE TABLE r_10 PARTITION OF r FOR VALUES FROM ('2020-10-01') TO ('2020-11-01');
        CREATE TABLE r_old PARTITION OF r FOR VALUES FROM (MINVALUE) TO ('2019-01-01');
        CREATE INDEX by_note ON r (note);
        CREATE UNIQUE INDEX by_n ON r (at, n);
    """,
    "times with a default": """
        CREATE TABLE r (id int, at timestamptz NOT NULL DEFAULT now()) PARTITION BY RANGE (at);
        CREATE TABLE r_10 PARTITION OF r FOR VALUES FROM ('2020-10-01') TO ('2020-11-01');
    """,
    "list": """
        CREATE TABLE p (id int PRIMARY KEY);
        CREATE TABLE r (id int NOT NULL, kind text, p int REFERENCES p ON DELETE CASCADE)
            PARTITION BY LIST (kind);
        CREATE TABLE r_a PARTITION OF r FOR VALUES IN ('alpha', 'beta');
        CREATE INDEX by_kind ON r (kind);
    """,
    "hash": """
        CREATE TABLE r (id uuid PRIMARY KEY, n int) PARTITION BY HASH (id);
        CREATE TABLE r_0 PARTITION OF r FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE r_1 PARTITION OF r FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    """,
    "two levels and a default": """
        CREATE TABLE r (id int NOT NULL, at date NOT NULL, PRIMARY KEY (id, at))
            PARTITION BY RANGE (at);
        CREATE TABLE r_20 PARTITION OF r FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')
            PARTITION BY LIST (id);
        CREATE TABLE r_20_7 PARTITION OF r_20 FOR VALUES IN (7, 8, 9);
        CREATE TABLE r_rest PARTITION OF r DEFAULT;
    """,
}


@pytest.mark.parametrize("way", PARTITIONED)
def test_a_partitioned_table_is_tried_through_a_partition_that_is_there(database, way):
    database.execute(PARTITIONED[way])
    tables = [
        name
        for (name,) in database.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') ORDER BY 1"
        )
    ]
    found = proofs(database, *tables)
    assert [p for p in found.values() if p.ok is False] == []
    assert found["r takes a row and gives it back"].ok
    assert [p.name for p in found.values() if p.ok is None and p.name.startswith("r.")] == []


def test_a_partitioned_table_without_a_partition_is_named_as_not_tried(database):
    database.execute("CREATE TABLE r (id int, at date NOT NULL) PARTITION BY RANGE (at)")
    found = proofs(database, "r")
    assert {p.ok for p in found.values()} == {None}
    assert all("r has no partition" in p.detail for p in found.values())

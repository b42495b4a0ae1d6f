"""The self-test of PostgreSQL: it tries everything, sees what does not work, and leaves nothing."""

from __future__ import annotations

import tracemalloc

import psycopg
import pytest

from commands import command
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
    details = " ".join(p.detail for p in found.values())
    assert "no value is known for nothing.v (nil). Of the first text that was tried " in details
    assert "the server says 23514: value for domain nil violates check constraint" in details


@pytest.mark.parametrize("postgres_url", ["15"], indirect=True)
def test_a_text_that_an_extensions_type_refuses_as_an_internal_error_fails_nothing(database):
    database.execute("""
        CREATE EXTENSION hstore;
        CREATE DOMAIN pairs AS hstore CHECK (VALUE ? 'never tried');
        CREATE TABLE taken (id int PRIMARY KEY, v hstore);
        CREATE TABLE unknown (id int PRIMARY KEY, v pairs NOT NULL);
    """)
    found = proofs(database, "taken", "unknown")
    assert {p.ok for name, p in found.items() if name.startswith("taken")} == {True}
    taken = found["unknown takes a row and gives it back"]
    assert taken.ok is None
    assert "no value is known for unknown.v (pairs)" in taken.detail
    assert "XX000: Unexpected end of string" in taken.detail


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


# --- what is hard to try


def test_types_of_ones_own_are_tried(database):
    database.execute(
        """
        CREATE TYPE mood AS ENUM ('ok', 'sad');
        CREATE DOMAIN feeling AS mood;
        CREATE DOMAIN code AS varchar(3) CHECK (VALUE ~ '^[A-Z1]+$');
        CREATE DOMAIN short AS code CHECK (length(VALUE) < 2);
        CREATE TYPE triple AS (a int, b text, c date);
        CREATE TYPE span AS RANGE (subtype = inet);
        CREATE TABLE t (id int PRIMARY KEY, f feeling NOT NULL, s short NOT NULL,
                        c triple NOT NULL, r span NOT NULL, m multirange_of_span NOT NULL);
    """.replace("multirange_of_span", "span_multirange")
    )
    found = proofs(database, "t")
    assert {p.ok for p in found.values()} == {True}, found


def test_an_exclusion_constraint_is_tried(database):
    database.execute("""
        CREATE TABLE t (id int PRIMARY KEY, during tstzrange NOT NULL,
                        CONSTRAINT apart EXCLUDE USING gist (during WITH &&));
        CREATE TABLE loose (id int PRIMARY KEY, during tstzrange NOT NULL,
                            CONSTRAINT never EXCLUDE USING gist (during WITH -|-));
    """)
    found = proofs(database, "t", "loose")
    assert found["t.apart refuses a second row"].detail == "23P01"
    assert found["loose.never refuses a second row"].ok is None
    assert {p.ok for name, p in found.items() if not name.startswith("loose.never")} == {True}


@pytest.mark.parametrize(
    ("kind", "number", "check"),
    [("text", 1500, "c1 <> 'A' AND c2 IS NOT NULL"), ("boolean NOT NULL", 300, "c1 OR c2")],
)
def test_a_wide_table_takes_a_row(database, kind, number, check):
    """A row with 1,500 texts would not fit into a page of 8 KiB."""
    columns = ", ".join(f"c{n} {kind}" for n in range(number))
    database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, {columns}, CONSTRAINT two CHECK ({check}))"
    )
    found = proofs(database, "t")
    assert {p.ok for p in found.values()} == {True}, found
    expected = "100 of 301 columns (23502)" if number == 300 else "1 column (23502)"
    assert found["t refuses NULL where it is not allowed"].detail == expected


def test_many_layers_are_tried_row_by_row(database):
    """Each table has two parents in the next layer: all ways through them are too many to make."""
    database.execute("CREATE TABLE layer_0 (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
    for n in range(1, 25):
        database.execute(
            f"CREATE TABLE layer_{n} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            f"a int NOT NULL REFERENCES layer_{n - 1}, b int NOT NULL REFERENCES layer_{n - 1})"
        )
    found = proofs(database, *(f"layer_{n}" for n in range(24, -1, -1)))
    assert {p.ok for p in found.values()} == {True}
    assert "layer_24.layer_24_b_fkey keeps a parent that has rows" in found


def test_what_another_rule_refuses_fails_nothing_and_a_broken_trigger_fails(database):
    database.execute("""
        CREATE TABLE shut (id int PRIMARY KEY, n int UNIQUE, CHECK (n > 0));
        CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION 'closed on Sundays'; END $$;
        CREATE TRIGGER shut BEFORE INSERT ON shut FOR EACH ROW EXECUTE FUNCTION no();
        CREATE TABLE broken (id int PRIMARY KEY);
        CREATE FUNCTION wrong() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN NEW.not_there := 1; RETURN NEW; END $$;
        CREATE TRIGGER broken BEFORE INSERT ON broken FOR EACH ROW EXECUTE FUNCTION wrong();
        CREATE TABLE nothing ();
    """)
    found = proofs(database, "shut", "broken", "nothing")
    assert not any(p.ok is False for name, p in found.items() if name.startswith("shut"))
    taken = found["shut takes a row and gives it back"]
    assert (taken.ok, taken.detail.partition(":")[0]) == (None, "P0001")
    assert found["broken takes a row and gives it back"].ok is False
    assert found["nothing takes a row and gives it back"].ok is None


def test_a_setting_that_only_the_application_makes_fails_nothing(database):
    database.execute("""
        CREATE TABLE rented (id int PRIMARY KEY, tenant text NOT NULL);
        CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            NEW.tenant := current_setting('shop.tenant'); RETURN NEW; END $$;
        CREATE TRIGGER mine BEFORE INSERT ON rented FOR EACH ROW EXECUTE FUNCTION mine();
        CREATE TABLE broken (id int PRIMARY KEY);
        CREATE FUNCTION wrong() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM 'a'::not_there; RETURN NEW; END $$;
        CREATE TRIGGER broken BEFORE INSERT ON broken FOR EACH ROW EXECUTE FUNCTION wrong();
    """)
    found = proofs(database, "rented", "broken")
    taken = found["rented takes a row and gives it back"]
    assert (taken.ok, taken.detail.partition(":")[0]) == (None, "42704")
    assert not any(p.ok is False for name, p in found.items() if name.startswith("rented"))
    assert found["broken takes a row and gives it back"].ok is False


def test_memory_does_not_grow_with_the_rows(database):
    database.execute("""
        CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, flag boolean NOT NULL,
                        note text);
        CREATE INDEX by_flag ON t (flag);
        INSERT INTO t (flag, note) SELECT n % 2 = 0, repeat('x', 50) FROM generate_series(1, 60000) n;
    """)
    tracemalloc.start()
    try:
        found = proofs(database, "t")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {p.ok for p in found.values()} == {True}
    assert peak < 5_000_000


# --- where it is tried

SHOP = '''"""First."""
from alembic import op

revision = "shop_0001"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE item (id serial PRIMARY KEY, n int CHECK (n > 0))")


def downgrade():
    op.execute("DROP TABLE item")
'''


def test_the_command_tries_in_a_scratch_database_unless_it_is_told_to_try_here(
    postgres_url, tmp_path
):
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "shop_0001.py").write_text(SHOP)
    (tmp_path / "blueprint.py").write_text(
        'from is_db_bootstrap.blueprint import Blueprint\n\nBLUEPRINT = Blueprint("shop", "x")\n'
    )

    def run(name, *options, url=postgres_url):
        arguments = ["-b", str(tmp_path), "--postgres-url", url, *options]
        code, out, err = command(name, *arguments)
        return code, [line for line in out if not line.startswith("shop:")], err

    assert run("apply")[0] == 0
    with psycopg.connect(postgres_url, autocommit=True) as connection:

        def last_number():
            row = connection.execute("SELECT last_value, is_called FROM item_id_seq").fetchone()
            return row[0] if row[1] else 0

        code, out, err = run("selftest")
        assert (code, {line.split()[1] for line in out}, last_number()) == (0, {"ok"}, 0), err
        assert run("selftest", "--here")[:2] == (0, out)
        assert last_number() > 0
        role = f"tester_{abs(hash(postgres_url))}"
        connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'secret'")
        try:
            connection.execute(f"ALTER ROLE {role} NOSUPERUSER")
            connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
            place = postgres_url.rpartition("@")[2]
            code, out, err = run("selftest", url=f"postgresql://{role}:secret@{place}")
            assert (code, len(out)) == (0, 1), err
            assert "not tried" in out[0]
            assert "may not create it" in out[0]
            assert "--here" in out[0]
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

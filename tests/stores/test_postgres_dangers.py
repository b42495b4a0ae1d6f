"""What a plan marks in the SQL of pending revisions, on a real server with small tables."""

from __future__ import annotations

import sys

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.render.report import report
from is_db_bootstrap.results import Change, DangerKind, Mode
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.dangers import PlanDangers, with_dangers

pytestmark = pytest.mark.postgres

DROPS, REWRITES = DangerKind.DROPS, DangerKind.REWRITES
LOCKS, REFUSED, UNSEEN = DangerKind.LOCKS, DangerKind.REFUSED, DangerKind.UNSEEN

#: `t` has three rows, of which two share `twice` and one has no `gap`. `empty` has none.
TABLES = """
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1), (2);
CREATE TABLE t (
    id int PRIMARY KEY, twice int, gap text, name varchar(10) NOT NULL, free text, amount numeric,
    cents numeric(6, 2), stamp timestamptz DEFAULT now(), parent_id int, code char(3), unused int
);
INSERT INTO t (id, twice, gap, name, free, amount, cents, parent_id) VALUES
    (1, 7, 'a', 'ann', 'x', 1.25, 1.25, 1),
    (2, 7, NULL, 'bob', 'a long text', 2, 2, 2),
    (3, 8, 'c', 'cat', '12', 3, 3, 9);
CREATE INDEX by_twice ON t (twice);
CREATE TABLE empty (id int PRIMARY KEY, a int, name varchar(10));
CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS a;
CREATE MATERIALIZED VIEW seen AS SELECT id FROM t;
CREATE UNIQUE INDEX seen_id ON seen (id);
CREATE TABLE whole (id int NOT NULL, a int) PARTITION BY RANGE (id);
CREATE TABLE part (id int NOT NULL, a int);
INSERT INTO part VALUES (1, 1);
CREATE SCHEMA other;
CREATE TABLE other.things AS SELECT 1 AS a;
CREATE UNIQUE INDEX of_name ON t (name);
ALTER TABLE t ADD CONSTRAINT old_gap CHECK (gap <> 'c') NOT VALID;
ALTER TABLE t ADD CONSTRAINT old_parent FOREIGN KEY (parent_id) REFERENCES parent NOT VALID;
CREATE TABLE proven (a int, CONSTRAINT has_a CHECK (a IS NOT NULL));
INSERT INTO proven VALUES (1);
ANALYZE;
"""


@pytest.fixture
def db(postgres_url):
    url, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{url}/postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


def dangers_of(statements, session):
    """The dangers of one revision. A busy machine has the time that it needs."""
    return PlanDangers(session, query_s=60, all_s=600).of(statements)


def kinds(found):
    return sorted({each.kind for each in found})


FOUND = {
    "DROP TABLE t CASCADE": [DROPS],
    "DROP TABLE IF EXISTS t": [DROPS],
    "DROP SCHEMA other CASCADE": [DROPS],
    "DROP INDEX by_twice": [DROPS],
    "DROP MATERIALIZED VIEW seen": [DROPS],
    "DROP VIEW v CASCADE": [DROPS],
    "DROP OWNED BY somebody": [DROPS],
    "TRUNCATE t": [DROPS],
    "DELETE FROM t": [DROPS],
    "ALTER TABLE t DROP COLUMN free": [DROPS],
    "ALTER TABLE public.t DROP COLUMN free, DROP CONSTRAINT old_gap": [DROPS],
    "DO $$ BEGIN IF true THEN DROP TABLE t; END IF; END $$": [DROPS],
    "ALTER TABLE t ALTER COLUMN id TYPE bigint": [REWRITES],
    "ALTER TABLE t ALTER COLUMN code TYPE char(5)": [REWRITES],
    "ALTER TABLE t ALTER COLUMN name TYPE varchar(12) USING upper(name)": [REWRITES],
    "ALTER TABLE t ALTER COLUMN cents TYPE numeric(8, 3)": [REWRITES],
    "ALTER TABLE t ADD COLUMN b uuid DEFAULT gen_random_uuid()": [REWRITES],
    "ALTER TABLE t ADD COLUMN b timestamptz NOT NULL DEFAULT clock_timestamp()": [REWRITES],
    "ALTER TABLE t ADD COLUMN b bigserial": [REWRITES],
    "ALTER TABLE t ADD COLUMN b int GENERATED ALWAYS AS IDENTITY": [REWRITES],
    "ALTER TABLE t ADD COLUMN b int GENERATED ALWAYS AS (id * 2) STORED": [REWRITES],
    "ALTER TABLE t SET UNLOGGED": [REWRITES],
    "ALTER TABLE fleeting SET LOGGED": [REWRITES],
    "ALTER TABLE t SET ACCESS METHOD columnar": [REWRITES],
    "ALTER TABLE t SET TABLESPACE fast": [REWRITES],
    "CLUSTER t USING by_twice": [REWRITES],
    "VACUUM FULL t": [REWRITES],
    "VACUUM (FULL, ANALYZE) t": [REWRITES],
    "CREATE INDEX i ON t (twice)": [LOCKS],
    "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0)": [LOCKS],
    "ALTER TABLE t ALTER COLUMN name SET NOT NULL, ALTER COLUMN twice SET NOT NULL": [LOCKS],
    "ALTER TABLE t ADD CONSTRAINT c UNIQUE (id, twice)": [LOCKS],
    "ALTER TABLE t ADD EXCLUDE (twice WITH =)": [LOCKS, UNSEEN],
    "ALTER TABLE whole ATTACH PARTITION part FOR VALUES FROM (1) TO (9)": [LOCKS],
    "REFRESH MATERIALIZED VIEW seen": [LOCKS],
    "REINDEX TABLE t": [LOCKS],
    "REINDEX INDEX by_twice": [LOCKS],
    "LOCK TABLE t": [LOCKS],
    "UPDATE t SET twice = 1": [LOCKS],
    "ALTER TABLE t ALTER COLUMN gap SET NOT NULL": [LOCKS, REFUSED],
    "ALTER TABLE t ADD COLUMN b int NOT NULL": [REFUSED],
    "ALTER TABLE t ADD CONSTRAINT c UNIQUE (twice)": [LOCKS, REFUSED],
    "ALTER TABLE t ADD CONSTRAINT c CHECK (twice < 8)": [LOCKS, REFUSED],
    "ALTER TABLE t ADD FOREIGN KEY (parent_id) REFERENCES parent (id)": [LOCKS, REFUSED],
    "ALTER TABLE t ADD FOREIGN KEY (parent_id) REFERENCES parent": [LOCKS, REFUSED],
    "CREATE UNIQUE INDEX CONCURRENTLY i ON t (twice)": [REFUSED],
    "CREATE UNIQUE INDEX CONCURRENTLY i ON t (twice) WHERE id < 3": [REFUSED],
    "CREATE UNIQUE INDEX CONCURRENTLY i ON t (length(name))": [REFUSED],
    "ALTER TABLE t VALIDATE CONSTRAINT old_gap": [REFUSED],
    "ALTER TABLE t VALIDATE CONSTRAINT old_parent": [REFUSED],
    "ALTER TABLE t ALTER COLUMN free TYPE varchar(5)": [REFUSED, REWRITES],
    "ALTER TABLE t ALTER COLUMN free TYPE int": [REFUSED, REWRITES],
    "ALTER TABLE t ALTER COLUMN free TYPE int USING free::int": [REFUSED, REWRITES],
    "ALTER TABLE t ALTER COLUMN free TYPE varchar(5) USING free::varchar(5)": [DROPS, REWRITES],
    "ALTER TABLE t ALTER COLUMN amount TYPE int": [DROPS, REWRITES],
    "CREAT TABLE x (a int)": [UNSEEN],
    "DO $$ BEGIN EXECUTE 'DROP TABLE ' || 't'; END $$": [UNSEEN],
    "CALL tidy()": [UNSEEN],
}

NONE = [
    "ALTER TABLE t ALTER COLUMN name TYPE varchar(20)",
    "ALTER TABLE t ALTER COLUMN name TYPE varchar",
    "ALTER TABLE t ALTER COLUMN name TYPE text",
    "ALTER TABLE t ALTER COLUMN name TYPE text USING name::text",
    "ALTER TABLE t ALTER COLUMN cents TYPE numeric(8, 2)",
    "ALTER TABLE t ALTER COLUMN cents TYPE numeric",
    "ALTER TABLE empty ALTER COLUMN a TYPE bigint",
    "ALTER TABLE t ADD COLUMN b int",
    "ALTER TABLE t ADD COLUMN b int NOT NULL DEFAULT 0",
    "ALTER TABLE t ADD COLUMN b timestamptz NOT NULL DEFAULT now()",
    "ALTER TABLE t ADD COLUMN b timestamptz DEFAULT CURRENT_TIMESTAMP",
    "ALTER TABLE t ADD COLUMN b int REFERENCES parent",
    "ALTER TABLE t ADD COLUMN IF NOT EXISTS gap text NOT NULL",
    "ALTER TABLE empty ADD COLUMN b int NOT NULL",
    "ALTER TABLE empty ALTER COLUMN a SET NOT NULL",
    "ALTER TABLE empty ADD CONSTRAINT c UNIQUE (a)",
    "CREATE INDEX CONCURRENTLY i ON t (twice)",
    "CREATE INDEX i ON empty (a)",
    "CREATE UNIQUE INDEX CONCURRENTLY i ON t (gap)",
    "ALTER TABLE t ADD CONSTRAINT c CHECK (twice < 8) NOT VALID",
    "ALTER TABLE t ADD FOREIGN KEY (parent_id) REFERENCES parent NOT VALID",
    "ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX of_name",
    "ALTER TABLE t ALTER COLUMN id SET NOT NULL",
    "ALTER TABLE proven ALTER COLUMN a SET NOT NULL",
    "ALTER TABLE t SET LOGGED",
    "ALTER TABLE t SET ACCESS METHOD heap",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY seen",
    "REINDEX TABLE CONCURRENTLY t",
    "VACUUM t",
    "LOCK TABLE t IN ROW EXCLUSIVE MODE",
    "DELETE FROM t WHERE id = 1",
    "UPDATE t SET twice = 1 WHERE id = 1",
    "TRUNCATE empty",
    "DROP TABLE IF EXISTS nothing",
    "CREATE TABLE n (a int); CREATE INDEX i ON n (a); ALTER TABLE n ADD UNIQUE (a); DROP TABLE n",
    "CREATE TABLE n (a int); ALTER TABLE public.n ALTER COLUMN a SET NOT NULL",
    "CREATE TABLE n AS SELECT * FROM t; DELETE FROM n; ALTER TABLE n ALTER a TYPE text",
    "CREATE TABLE n (a int); ALTER TABLE n RENAME TO m; DROP TABLE m",
    "CREATE SCHEMA s; DROP SCHEMA s",
    "CREATE INDEX CONCURRENTLY i ON t (twice); DROP INDEX i",
    "ALTER TABLE t ADD COLUMN b int; ALTER TABLE t DROP COLUMN b",
    "CREATE VIEW v AS SELECT 1 AS a; COMMENT ON TABLE t IS 'x'; GRANT SELECT ON t TO PUBLIC",
]


def test_each_danger_is_found_and_nothing_is_written(db):
    before = db.execute("SELECT count(*), sum(id) FROM t").fetchone()
    found = {text: kinds(dangers_of([text], db)) for text in FOUND}
    assert found == {text: sorted(wanted) for text, wanted in FOUND.items()}
    assert db.execute("SELECT count(*), sum(id) FROM t").fetchone() == before


@pytest.mark.parametrize("postgres_url", ["14", "15", "18"], indirect=True)
def test_what_is_harmless_is_not_marked(db):
    assert {text: list(dangers_of([text], db)) for text in NONE} == {text: [] for text in NONE}


#: Types of which each is changed into each other one, with a value that fits most.
TYPES = {
    **dict.fromkeys(("varchar(10)", "varchar(12)", "varchar", "text", "char(3)"), "1"),
    **dict.fromkeys(("numeric(6,2)", "numeric(8,2)", "numeric(8,3)", "numeric"), "1"),
    **dict.fromkeys(("timestamp(3)", "timestamp", "timestamptz", "timestamptz(2)"), "2026-01-01"),
    "time(3)": "12:00",
    "time": "12:00",
    "interval(3)": "1 s",
    "interval": "1 s",
    "varbit(5)": "1",
    "varbit(7)": "1",
    "bit(5)": "10000",
    "int": "1",
    "bigint": "1",
    "oid": "1",
    "cidr": "10.0.0.0/8",
    "inet": "10.0.0.1",
    "positive": "1",
    "json": "1",
}


@pytest.mark.parametrize(
    ("postgres_url", "zone"), [("14", "Europe/Berlin"), ("18", "UTC")], indirect=["postgres_url"]
)
def test_a_table_is_said_to_be_written_anew_just_when_it_is(db, zone):
    """PostgreSQL's own files are the proof: a table that is written anew gets another one."""
    db.execute(f"SET TimeZone = '{zone}'; CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    wrong, tried = [], 0
    for old, value in TYPES.items():
        db.execute(f"DROP TABLE IF EXISTS typed; CREATE TABLE typed (a {old})")
        db.execute(f"INSERT INTO typed VALUES ('{value}')")
        for new in TYPES:
            text = f"ALTER TABLE typed ALTER COLUMN a TYPE {new}"
            told = kinds(dangers_of([text], db))
            before = _file(db, "typed")
            try:
                with db.transaction(force_rollback=True):
                    db.execute(text)
                    is_anew = _file(db, "typed") != before
            except psycopg.DatabaseError:
                if REFUSED not in told:
                    wrong.append(f"{old} -> {new}: not refused")
                continue
            tried += 1
            if (REWRITES in told) != is_anew or REFUSED in told or UNSEEN in told:
                wrong.append(f"{old} -> {new}: {told}, written anew: {is_anew}")
    assert not wrong, "; ".join(wrong)
    assert tried > 200


def _file(db, table):
    return db.execute("SELECT pg_relation_filenode(%s)", [table]).fetchone()


def test_a_danger_says_where_it_is_and_how_large_the_table_is(db):
    statements = ["SELECT 1", "CREATE INDEX i ON t (twice)", "ALTER TABLE t DROP COLUMN free"]
    lock, drop = dangers_of(statements, db)
    assert (lock.kind, lock.object, lock.statement) == (LOCKS, "t", 1)
    assert lock.text == (
        "Writers of t wait while the index is built (about 3 rows, 16 kB). "
        "CREATE INDEX CONCURRENTLY lets them go on."
    )
    assert (drop.object, drop.statement) == ("t.free", 2)
    assert drop.text == ("Column free is dropped, and its values are lost (about 3 rows, 16 kB).")


def test_rows_that_were_never_counted_are_not_said_to_be_none(db):
    db.execute("CREATE TABLE late AS SELECT 1 AS a")
    (found,) = dangers_of(["CREATE INDEX i ON late (a)"], db)
    assert "(rows not counted yet, 8192 bytes)" in found.text


def test_a_look_that_takes_too_long_is_not_taken_for_none(db):
    db.execute(
        "CREATE FUNCTION slow(int) RETURNS bool LANGUAGE sql AS 'SELECT pg_sleep($1) IS NULL'"
    )
    one, all_of_them = PlanDangers(db, query_s=0.3), PlanDangers(db, all_s=0.01)
    ends = {one: "within 0.3 s.", all_of_them: "within the 0.01 s that a plan may look."}
    text = "ALTER TABLE t ADD CONSTRAINT c CHECK (NOT slow(id * 60))"
    for look, end in ends.items():
        (seen,) = [each for each in look.of([text]) if each.kind is UNSEEN]
        assert "Whether a row breaks CHECK" in seen.text
        assert end in seen.text


def test_rows_that_another_transaction_holds_back_are_not_taken_for_none(db, postgres_url):
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE t")
        look = PlanDangers(db, query_s=0.3)
        found = look.of(["ALTER TABLE t ALTER COLUMN gap SET NOT NULL"])
    assert kinds(found) == [LOCKS, UNSEEN]


def test_rows_that_the_user_may_not_see_are_not_taken_for_none(db):
    db.execute(
        "CREATE ROLE blind; GRANT SELECT ON t TO blind; ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
        "SET ROLE blind"
    )
    try:
        hidden = dangers_of(["CREATE UNIQUE INDEX CONCURRENTLY i ON t (twice)"], db)
        locked = dangers_of(["CREATE INDEX i ON parent (id)"], db)
    finally:
        db.execute("RESET ROLE; DROP OWNED BY blind; DROP ROLE blind")
    assert kinds(hidden) == [UNSEEN]
    assert "row-level security" in hidden[0].text
    assert "permission denied for table parent" in locked[0].text


def test_what_the_plan_writes_itself_is_not_judged_by_the_rows_of_now(db):
    add = "ALTER TABLE t ADD COLUMN b int"
    tighten = "ALTER TABLE t ALTER COLUMN b SET NOT NULL"
    assert kinds(dangers_of([add, tighten], db)) == [LOCKS, REFUSED]
    assert kinds(dangers_of([add, "UPDATE t SET b = 1 WHERE true", tighten], db)) == [LOCKS, UNSEEN]
    assert kinds(dangers_of([f"{add} DEFAULT 0", tighten], db)) == [LOCKS]
    mended = ["DELETE FROM t WHERE id = 2", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (twice)"]
    assert kinds(dangers_of(mended, db)) == [UNSEEN]


#: A column of which the type becomes an enum that the plan makes, as people write it.
MOODS = "CREATE TYPE mood AS ENUM ('a', 'b'); ALTER TABLE t ADD COLUMN mood mood; UPDATE t SET mood"


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (
            [
                "ALTER TYPE mood RENAME TO mood_old",
                "CREATE TYPE mood AS ENUM ('a')",
                "ALTER TABLE t ALTER COLUMN mood TYPE mood USING mood::text::mood",
            ],
            [REFUSED, REWRITES],
        ),
        (
            [
                "CREATE TYPE mood_new AS ENUM ('a')",
                "ALTER TYPE mood_new ADD VALUE 'b'",
                "ALTER TABLE t ALTER COLUMN mood TYPE mood_new USING mood::text::mood_new",
            ],
            [REWRITES],
        ),
        (
            [
                "CREATE TYPE kind AS ENUM ('ann', 'bob')",
                "ALTER TABLE t ALTER COLUMN name TYPE kind USING lower(name)::kind",
            ],
            [REFUSED, REWRITES],
        ),
        (
            [
                "CREATE TYPE kind AS ENUM ('ann', 'bob', 'cat')",
                "ALTER TABLE t ALTER COLUMN name TYPE kind",
            ],
            [REFUSED],
        ),
        (
            [
                "CREATE TYPE kind AS ENUM ('ann')",
                "ALTER TABLE t ALTER COLUMN name TYPE kind USING ('an' || 'n')::kind",
            ],
            [REWRITES],
        ),
        (
            [
                "CREATE TYPE kind AS ENUM ('ann')",
                "ALTER TABLE t ALTER COLUMN name TYPE kind USING CASE WHEN true THEN 'x'::kind END",
            ],
            [REWRITES, UNSEEN],
        ),
        (["CREATE TYPE kind AS ENUM ('a')", "DROP TYPE kind"], []),
    ],
    ids=["value gone", "values kept", "text", "no USING", "constant", "unseen", "for a while"],
)
def test_values_are_held_against_an_enum_that_the_plan_makes(db, steps, wanted):
    db.execute(f"{MOODS} = 'b' WHERE id = 1")
    assert kinds(dangers_of(steps, db)) == sorted(wanted)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("ALTER TABLE t ALTER COLUMN hole SET NOT NULL", [LOCKS, REFUSED]),
        ("ALTER TABLE t ALTER COLUMN label SET NOT NULL", []),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY i ON t (double) WHERE hole IS NULL OR id = 1",
            [REFUSED],
        ),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (double < 8)", [LOCKS, REFUSED]),
        ("ALTER TABLE t ADD FOREIGN KEY (owner) REFERENCES parent (id)", [LOCKS, REFUSED]),
        ("ALTER TABLE t ALTER COLUMN words TYPE varchar(5)", [REFUSED, REWRITES]),
        ("ALTER TABLE t DROP COLUMN words", [DROPS]),
    ],
)
def test_a_column_that_the_plan_renames_is_looked_at_by_its_live_name(db, step, wanted):
    names = {"gap": "hole", "twice": "double", "free": "words", "parent_id": "owner"}
    renames = [f"ALTER TABLE t RENAME {old} TO {new}" for old, new in names.items()]
    renames += ["ALTER TABLE t RENAME name TO title", "ALTER TABLE t RENAME title TO label"]
    assert kinds(dangers_of([*renames, step], db)) == sorted(wanted)


def test_a_new_column_is_new_under_its_next_name_too(db):
    steps = ["ALTER TABLE t ADD COLUMN b int", "ALTER TABLE t RENAME b TO c"]
    assert dangers_of([*steps, "ALTER TABLE t DROP COLUMN c"], db) == ()


def test_a_statement_with_parameters_of_a_driver_is_read(db):
    """A trial has statements as the driver gets them."""
    text = "UPDATE t SET name = %(name)s::VARCHAR, twice = %s"
    assert kinds(dangers_of([text], db)) == [LOCKS]


def test_the_way_without_long_locks_is_not_marked(db):
    steps = [
        "ALTER TABLE t ADD CONSTRAINT has_name CHECK (name IS NOT NULL) NOT VALID",
        "ALTER TABLE t ALTER COLUMN name DROP NOT NULL",
        "ALTER TABLE t VALIDATE CONSTRAINT has_name",
        "ALTER TABLE t ALTER COLUMN name SET NOT NULL",
        "ALTER TABLE t DROP CONSTRAINT has_name",
    ]
    assert dangers_of(steps, db) == ()


def test_later_revisions_are_judged_by_earlier_ones_of_the_plan(db):
    changes = [
        Change("1", "revision", statements=("CREATE TABLE n (a int)",)),
        Change("2", "revision", statements=("CREATE INDEX i ON n (a)", "DROP TABLE t")),
        Change("3", "revision", is_code=True),
        Change("4", "revision", statements=("CREATE UNIQUE INDEX CONCURRENTLY j ON part (a)",)),
        Change("orders", "seed"),
    ]
    found = with_dangers(changes, db)
    assert [kinds(change.dangers) for change in found] == [[], [DROPS], [], [], []]
    assert found[1].dangers[0].statement == 1


def test_a_statement_is_not_passed_over_where_the_parser_is_missing(db, monkeypatch):
    monkeypatch.setitem(sys.modules, "postgast", None)
    (found,) = dangers_of(["DROP TABLE t"], db)
    assert found.kind is UNSEEN
    assert "Install it with `pip install postgast`" in found.text


def test_a_value_of_a_row_is_not_told(db):
    found = dangers_of(["ALTER TABLE t ALTER COLUMN free TYPE int USING free::int"], db)
    (refused,) = [each for each in found if each.kind is REFUSED]
    assert (
        refused.text
        == "At least one free does not become int (invalid input syntax for type integer)."
    )


def test_without_a_server_drops_and_rewrites_are_found_and_nothing_else_is_guessed():
    found = {text: kinds(dangers_of([text], None)) for text in FOUND}
    sure = {text: [k for k in wanted if k is DROPS] for text, wanted in FOUND.items()}
    assert {text: [k for k in each if k is DROPS] for text, each in found.items()} | {
        text: [] for text in FOUND if "USING free::varchar" in text or "amount TYPE" in text
    } == {text: [] if "TYPE" in text else each for text, each in sure.items()}
    assert all(LOCKS not in each and REFUSED not in each for each in found.values())
    rewritten = [text for text, wanted in FOUND.items() if REWRITES in wanted]
    assert [text for text in rewritten if REWRITES not in found[text]] == []


REVISION = """
from alembic import op
import sqlalchemy as sa
revision = {name!r}
down_revision = {before!r}
def upgrade():
    {body}
def downgrade():
    pass
"""


def test_a_plan_marks_pending_revisions_and_an_apply_does_not_look(postgres_url, tmp_path):
    def write(name, before, body):
        (tmp_path / f"{name}_x.py").write_text(REVISION.format(name=name, before=before, body=body))

    write(
        "1", None, "op.create_table('t', sa.Column('a', sa.Integer()), sa.Column('b', sa.Text()))"
    )
    store = PostgreSQLBootstrapper(postgres_url, Blueprint("b", "for tests", migrations=tmp_path))
    first = BootstrapOrchestrator([store]).run()
    assert first.exit_code == 0
    assert [change.dangers for change in first.stores[0].changes] == [(), ()]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'x'), (1, NULL)")
    write("2", "1", "op.drop_column('t', 'b')")
    write("3", "2", "op.create_unique_constraint('c', 't', ['a'])")
    store = PostgreSQLBootstrapper(postgres_url, Blueprint("b", "for tests", migrations=tmp_path))
    result = BootstrapOrchestrator([store]).run(Mode.PLAN)
    assert result.exit_code == 0
    marked = {change.name: kinds(change.dangers) for change in result.stores[0].changes}
    assert marked == {"2": [DROPS], "3": [LOCKS, REFUSED]}
    assert "! drops t.b: Column b is dropped" in report(result)

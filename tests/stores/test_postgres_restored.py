"""A database that was dumped and restored is as declared, however the server writes it again."""

from __future__ import annotations

import subprocess
import uuid

import psycopg
import pytest

from is_db_bootstrap.stores.postgres import compare
from is_db_bootstrap.stores.postgres.catalogue import look
from is_db_bootstrap.stores.postgres.dump_form import is_same
from servers import DEBIAN_POSTGRES_15, drop_database

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(
        not DEBIAN_POSTGRES_15.is_dir(), reason="pg_dump 15 comes with a package of the system"
    ),
]
#: Expressions of many types in every kind of object that has one.
EXPRESSIONS = """
CREATE TYPE mood AS ENUM ('sad','glad');
CREATE DOMAIN kind AS varchar(9) CHECK (VALUE IN ('a','b'));
CREATE TABLE t (
 id int primary key,
 v varchar(20) CHECK (v IN ('a','b''c','ARRAY[x]')), w varchar(20) CHECK (w NOT IN ('a','b')),
 one varchar(3) CHECK (one IN ('a')),
 tx text CHECK (tx IN ('a','b')), ch char(3) CHECK (ch IN ('a','b')), m mood CHECK (m IN ('sad','glad')), mm mood CHECK (m::text IN ('sad','glad')),
 n numeric CHECK (n IN (1,2)), bi bigint CHECK (bi IN (1,2)), sm smallint CHECK (sm IN (1,2)), f float8 CHECK (f IN (1,2.5)), r real check (r in (1.5,2)),
 d date CHECK (d IN ('2020-01-01','2021-01-01')), k kind CHECK (k IN ('a','b')), ts timestamptz CHECK (ts > '2020-01-01 00:00:00+00'),
 bt int CHECK (bt BETWEEN 1 AND 5), js jsonb DEFAULT '{}' CHECK (js ? 'a' OR js->>'x' IN ('y','z')), re varchar(9) CHECK (re ~ '^a' AND length(re) > 2),
 arr varchar(9)[] DEFAULT '{}' CHECK (arr <@ ARRAY['a','b']::varchar[]), arr2 text[] DEFAULT ARRAY['a'::varchar,'b'], lo varchar CHECK (lower(lo) IN ('a','b')),
 vv varchar(5) CHECK (v = vv OR vv IN ('p', v)), vany varchar(4) CHECK (vany = ANY ('{a,b}'::varchar[])), coal varchar CHECK (coalesce(coal,'x') IN ('x','y')),
 nm name CHECK (nm IN ('a','b')), cs varchar CHECK (CASE WHEN cs IN ('a','b') THEN true ELSE false END), iv interval CHECK (iv IN ('1 day','2 days')),
 g varchar GENERATED ALWAYS AS (CASE WHEN v IN ('a','b') THEN 'x' ELSE 'y' END) STORED
);
CREATE INDEX t_part ON t (id) WHERE v IN ('a','b') AND w <> 'c';
CREATE INDEX t_expr ON t ((CASE WHEN v IN ('a','b') THEN 1 ELSE 2 END));
CREATE UNIQUE INDEX t_low ON t (lower(v::text)) WHERE tx IN ('a','b');
ALTER TABLE t ADD CONSTRAINT ex EXCLUDE USING btree (id WITH =) WHERE (v IN ('a','b'));
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tg BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.v IN ('a','b')) EXECUTE FUNCTION f();
CREATE POLICY p ON t USING (v IN ('a','b')) WITH CHECK (v NOT IN ('c','d'));
CREATE RULE ru AS ON DELETE TO t WHERE OLD.v IN ('a','b') DO INSTEAD NOTHING;
CREATE VIEW vw AS SELECT id, v, w IN ('a','b') AS x FROM t WHERE v IN ('a','b') AND n IN (1,2) AND (one IN ('q','r') OR k IN ('a','b'));
CREATE VIEW vj AS SELECT t.id, u.v FROM t JOIN t u USING (id) LEFT JOIN LATERAL (SELECT max(id) AS mx FROM t) q ON true WHERE t.v LIKE 'a%' ORDER BY 1;
CREATE MATERIALIZED VIEW mv AS SELECT v, count(*) FROM t GROUP BY v HAVING v IN ('a','b');
CREATE TABLE pt (v varchar(3)) PARTITION BY LIST (v);
CREATE TABLE pt1 PARTITION OF pt FOR VALUES IN ('a','b');
CREATE STATISTICS st ON (v IN ('a','b')), id FROM t;
CREATE FUNCTION sqlf(x varchar DEFAULT 'a') RETURNS boolean LANGUAGE sql RETURN x IN ('a','b');
CREATE TABLE serials (a serial, b bigserial, c int GENERATED ALWAYS AS IDENTITY, d int DEFAULT nextval('serials_a_seq'));
"""


@pytest.fixture
def database(farm):
    """`database()`: the address of an empty database of one's own on PostgreSQL 15."""
    server = farm.shared("postgres", "15")
    made = []

    def make():
        made.append(f"restored_{uuid.uuid4().hex[:10]}")
        with psycopg.connect(f"{server.url}/postgres", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {made[-1]}")
        return f"{server.url}/{made[-1]}"

    yield make
    for name in made:
        drop_database(server, name)


def restore(dumped, restored):
    """Dump one database and restore it into another one, with the server's own programs."""
    file = subprocess.run(
        [DEBIAN_POSTGRES_15 / "pg_dump", "--format=custom", dumped], check=True, capture_output=True
    )
    program = [DEBIAN_POSTGRES_15 / "pg_restore", "--exit-on-error", "--dbname", restored]
    subprocess.run(program, check=True, input=file.stdout, capture_output=True)


def objects_of(url):
    with psycopg.connect(url) as session:
        return look(session, ["public"])["public"]


def test_a_restored_dump_is_no_drift(database):
    before, after, later = database(), database(), database()
    with psycopg.connect(before) as session:
        session.execute(EXPRESSIONS)
    restore(before, after)
    restore(after, later)
    declared, restored, again = map(objects_of, (before, after, later))
    assert declared != restored
    assert list(compare.drifts(declared, restored)) == []
    assert list(compare.drifts(restored, declared)) == []
    assert restored == again


@pytest.mark.parametrize(
    ("one", "other", "is_alike"),
    [
        ("CHECK (a = ANY (ARRAY[1]))", "CHECK (a = ANY (ARRAY[1]))", True),
        (
            "v = ANY ((ARRAY['a'::character varying])::text[])",
            "v = ANY (ARRAY['b'::character varying])",
            False,
        ),
        (
            "v = ANY ((ARRAY['a'::character varying])::text[])",
            "v = ANY (ARRAY[('a'::character varying)::text])",
            True,
        ),
        (
            "v = ANY ((ARRAY['a'::character varying])::text[])",
            "v <> ALL (ARRAY[('a'::character varying)::text])",
            False,
        ),
        ("v = 'a'::character varying", "v = 'a'::text", False),
        ("is", None, False),
    ],
)
def test_what_means_something_else_is_drift(one, other, is_alike):
    assert is_same(one, other) is is_alike

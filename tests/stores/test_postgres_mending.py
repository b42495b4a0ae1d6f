"""The statement below a drift mends it: each kind of object is broken by hand and mended so.

Objects have names with capitals, quotes, blanks and dots, since a statement must quote them. Each
case is done in a transaction that is rolled back, so that all of them share one database.
"""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import connect, session_settings
from is_db_bootstrap.stores.postgres.declared import Declared
from is_db_bootstrap.stores.postgres.scratch import generate
from is_db_bootstrap.wording import visible_lines

pytestmark = pytest.mark.postgres

REVISION = '''"""Objects of every kind that can be mended."""
from alembic import op

revision = "mend_0001"
down_revision = None


def upgrade():
    op.get_bind().exec_driver_sql(r"""
{sql}
""")
'''
SQL = """
CREATE EXTENSION hstore;
CREATE SCHEMA "Sales dep";
CREATE TYPE "Mood" AS ENUM ('sad', 'it''s fine', 'glad');
CREATE DOMAIN cents AS integer DEFAULT 3 CONSTRAINT "not negative" CHECK (VALUE >= 0);
CREATE TYPE address AS (street text, "Number" integer);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEW;
END
$$;
CREATE FUNCTION "Plus"(a integer, b integer DEFAULT 1) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 7 AS 'SELECT a + b';
CREATE FUNCTION atomic(a integer) RETURNS integer LANGUAGE sql RETURN a + 1;
CREATE FUNCTION spoken() RETURNS text LANGUAGE sql AS $$ SELECT 'two  blanks' $$;
CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
CREATE SEQUENCE counter MAXVALUE 1000 CACHE 5 CYCLE;
CREATE TABLE "Cus""tomers" (
    id bigint GENERATED ALWAYS AS IDENTITY (START 100) PRIMARY KEY,
    "E-mail" text NOT NULL DEFAULT 'a''b',
    height numeric(10, 2) NOT NULL DEFAULT 0,
    size numeric(10, 2) NOT NULL DEFAULT 0,
    note text COLLATE "C",
    mood "Mood",
    twice integer GENERATED ALWAYS AS (2 * 2) STORED,
    CONSTRAINT "a.b" UNIQUE ("E-mail"),
    CONSTRAINT checked CHECK (height >= 0)
);
CREATE INDEX "esc\x1b[31m\nand \u202eback\\\\slash" ON "Cus""tomers" (size);
CREATE UNIQUE INDEX "by Note" ON "Cus""tomers" (lower(note) DESC) WHERE note <> 'x.y';
CREATE TRIGGER "Touched" BEFORE UPDATE ON "Cus""tomers" FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER silent BEFORE INSERT ON "Cus""tomers" FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE "Cus""tomers" DISABLE TRIGGER silent;
CREATE RULE "no Delete" AS ON DELETE TO "Cus""tomers" DO INSTEAD NOTHING;
CREATE STATISTICS "of Both" (dependencies) ON note, height FROM "Cus""tomers";
ALTER TABLE "Cus""tomers" ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Reading" ON "Cus""tomers" FOR UPDATE TO mend_reader
    USING (height > 0) WITH CHECK (height > 1);
GRANT SELECT, UPDATE ("E-mail") ON "Cus""tomers" TO mend_reader;
GRANT USAGE ON SEQUENCE counter TO mend_reader;
GRANT USAGE ON SCHEMA "Sales dep" TO mend_reader;
CREATE TABLE orders (
    id bigserial PRIMARY KEY,
    customer bigint CONSTRAINT of_customer REFERENCES "Cus""tomers" ON DELETE CASCADE,
    amount cents
);
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE orders OWNER TO mend_owner;
CREATE INDEX ON orders (customer);
CREATE VIEW "Notes" WITH (security_barrier = true) AS
    SELECT id, note FROM "Cus""tomers" WHERE note <> 'a;b';
ALTER VIEW "Notes" ALTER note SET DEFAULT 'none';
CREATE TRIGGER seen INSTEAD OF UPDATE ON "Notes" FOR EACH ROW EXECUTE FUNCTION touch();
CREATE MATERIALIZED VIEW counted AS SELECT note, count(*) AS many FROM "Cus""tomers" GROUP BY note;
CREATE INDEX of_counted ON counted (note);
CREATE TABLE restored (
    status varchar(10) NOT NULL,
    CONSTRAINT known CHECK (status IN ('a', 'b'))
);
ALTER TABLE restored ADD CONSTRAINT later CHECK (status <> 'c') NOT VALID;
CREATE INDEX of_known ON restored (status) WHERE status IN ('a', 'b');
CREATE TRIGGER of_known BEFORE UPDATE ON restored FOR EACH ROW
    WHEN (NEW.status IN ('a', 'b')) EXECUTE FUNCTION touch();
CREATE TABLE parted (id integer, at date) PARTITION BY RANGE (at);
CREATE TABLE parted_first PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX of_parted ON parted (id);
CREATE TABLE "Sales dep".deals (id serial PRIMARY KEY, customer bigint REFERENCES "Cus""tomers");
CREATE INDEX of_customers ON "Sales dep".deals (customer);
"""
CUSTOMERS = '"Cus""tomers"'
#: What somebody has done by hand.
BROKEN = {
    "index": 'DROP INDEX "by Note"',
    "other index": 'DROP INDEX "by Note"; CREATE INDEX "by Note" ON "Cus""tomers" (note)',
    "index whose name nobody would see": ('DROP INDEX "esc\x1b[31m\nand \u202eback\\\\slash"'),
    "index of another schema": 'DROP INDEX "Sales dep".of_customers',
    "unique": f'ALTER TABLE {CUSTOMERS} DROP CONSTRAINT "a.b"',
    "other check": (
        f"ALTER TABLE {CUSTOMERS} DROP CONSTRAINT checked, ADD CONSTRAINT checked CHECK (height > 1)"
    ),
    "check not valid": (
        f"ALTER TABLE {CUSTOMERS} DROP CONSTRAINT checked, "
        "ADD CONSTRAINT checked CHECK (height >= 0) NOT VALID"
    ),
    "primary key and those that lead to it": (
        f'ALTER TABLE {CUSTOMERS} DROP CONSTRAINT "Cus""tomers_pkey" CASCADE'
    ),
    "check that is declared as not valid": "ALTER TABLE restored DROP CONSTRAINT later",
    "foreign key": "ALTER TABLE orders DROP CONSTRAINT of_customer",
    "foreign key not enforced": "ALTER TABLE orders DISABLE TRIGGER ALL",
    "column": f'ALTER TABLE {CUSTOMERS} DROP COLUMN "E-mail"',
    "column with a default": f"ALTER TABLE {CUSTOMERS} DROP COLUMN size",
    "default": f'ALTER TABLE {CUSTOMERS} ALTER "E-mail" DROP DEFAULT',
    "other default": f'ALTER TABLE {CUSTOMERS} ALTER "E-mail" SET DEFAULT 1',
    "undeclared default": f"ALTER TABLE {CUSTOMERS} ALTER note SET DEFAULT 1",
    "not null": f'ALTER TABLE {CUSTOMERS} ALTER "E-mail" DROP NOT NULL',
    "undeclared not null": f"ALTER TABLE {CUSTOMERS} ALTER note SET NOT NULL",
    "type": f'ALTER TABLE {CUSTOMERS} ALTER "E-mail" TYPE varchar(7)',
    "collation": 'DROP INDEX "by Note"; DROP VIEW "Notes"; DROP MATERIALIZED VIEW counted; '
    f'DROP STATISTICS "of Both"; ALTER TABLE {CUSTOMERS} ALTER note TYPE text COLLATE "default"',
    "identity": f"ALTER TABLE {CUSTOMERS} ALTER id DROP IDENTITY",
    "identity by default": f"ALTER TABLE {CUSTOMERS} ALTER id SET GENERATED BY DEFAULT",
    "extension": "DROP EXTENSION hstore",
    "sequence": "DROP SEQUENCE counter",
    "other sequence": "ALTER SEQUENCE counter NO CYCLE MAXVALUE 10 CACHE 1 INCREMENT 3",
    "owned sequence": "DROP SEQUENCE orders_id_seq CASCADE",
    "sequence of nobody": "ALTER SEQUENCE orders_id_seq OWNED BY NONE",
    "owned by somebody": 'ALTER SEQUENCE counter OWNED BY "Cus""tomers".height',
    "values of an enum": (
        f"ALTER TABLE {CUSTOMERS} DROP COLUMN mood; "
        """DROP TYPE "Mood"; CREATE TYPE "Mood" AS ENUM ('glad')"""
    ),
    "enum": f'ALTER TABLE {CUSTOMERS} DROP COLUMN mood; DROP TYPE "Mood"',
    "domain": "ALTER TABLE orders DROP COLUMN amount; DROP DOMAIN cents",
    "composite type": "DROP TYPE address",
    "function": 'DROP FUNCTION "Plus"(integer, integer)',
    "function's cost": 'ALTER FUNCTION "Plus"(integer, integer) COST 9 VOLATILE',
    "function of an expression": "DROP FUNCTION atomic(integer)",
    "trigger's function": "DROP FUNCTION touch() CASCADE",
    "procedure": "DROP PROCEDURE nothing()",
    "trigger": f'DROP TRIGGER "Touched" ON {CUSTOMERS}',
    "other trigger": (
        f'DROP TRIGGER "Touched" ON {CUSTOMERS}; CREATE TRIGGER "Touched" BEFORE INSERT '
        f"ON {CUSTOMERS} FOR EACH ROW EXECUTE FUNCTION touch()"
    ),
    "trigger switched off": f'ALTER TABLE {CUSTOMERS} DISABLE TRIGGER "Touched"',
    "trigger switched on": f"ALTER TABLE {CUSTOMERS} ENABLE TRIGGER silent",
    "silent trigger": f"DROP TRIGGER silent ON {CUSTOMERS}",
    "rule": f'DROP RULE "no Delete" ON {CUSTOMERS}',
    "rule switched off": f'ALTER TABLE {CUSTOMERS} DISABLE RULE "no Delete"',
    "statistics": 'DROP STATISTICS "of Both"',
    "row level security": f"ALTER TABLE {CUSTOMERS} DISABLE ROW LEVEL SECURITY",
    "forced row level security": f"ALTER TABLE {CUSTOMERS} FORCE ROW LEVEL SECURITY",
    "policy": f'DROP POLICY "Reading" ON {CUSTOMERS}',
    "other policy": f'ALTER POLICY "Reading" ON {CUSTOMERS} USING (true)',
    "roles of a policy": f'ALTER POLICY "Reading" ON {CUSTOMERS} TO PUBLIC',
    "replica identity": "ALTER TABLE orders REPLICA IDENTITY DEFAULT",
    "owner": "ALTER TABLE orders OWNER TO CURRENT_USER",
    "grant": f"REVOKE SELECT ON {CUSTOMERS} FROM mend_reader",
    "grant of a column": f'REVOKE UPDATE ("E-mail") ON {CUSTOMERS} FROM mend_reader',
    "too much granted": f"GRANT SELECT ON {CUSTOMERS} TO mend_reader WITH GRANT OPTION",
    "grant on a sequence": "REVOKE USAGE ON SEQUENCE counter FROM mend_reader",
    "grant on a schema": 'REVOKE USAGE ON SCHEMA "Sales dep" FROM mend_reader',
    "view": 'DROP VIEW "Notes"',
    "other view": (
        'CREATE OR REPLACE VIEW "Notes" WITH (security_barrier = true) AS '
        f"SELECT id, note FROM {CUSTOMERS}"
    ),
    "option of a view": 'ALTER VIEW "Notes" RESET (security_barrier)',
    "default of a view": 'ALTER VIEW "Notes" ALTER note DROP DEFAULT',
    "materialized view": "DROP MATERIALIZED VIEW counted",
    "other materialized view": (
        "DROP MATERIALIZED VIEW counted; CREATE MATERIALIZED VIEW counted AS SELECT 'a' AS note"
    ),
    "table": "DROP TABLE orders",
    "table of another schema": 'DROP TABLE "Sales dep".deals',
    "table with everything": f"DROP TABLE {CUSTOMERS} CASCADE",
}
#: What no statement mends, and a word of the reason.
UNMENDED = {
    "function with a text": ("DROP FUNCTION spoken()", "white space folded"),
    "computed column": (f"ALTER TABLE {CUSTOMERS} ALTER twice DROP EXPRESSION", "add it again"),
    "domain's check": ('ALTER DOMAIN cents DROP CONSTRAINT "not negative"', "ALTER DOMAIN"),
    "check that is more than declared": (
        "ALTER TABLE restored VALIDATE CONSTRAINT later",
        "more than declared",
    ),
    "options of an identity": (
        f"ALTER TABLE {CUSTOMERS} ALTER id SET INCREMENT 7",
        "sets the options",
    ),
}
ROLES = ("mend_reader", "mend_owner")


class Made:
    """A database that the revision has made, whose blueprint has its tables in `schema`."""

    def __init__(self, server, folder):
        (folder / "mend_0001.py").write_text(REVISION.format(sql=SQL), encoding="utf-8")
        self.server = server
        self.url = f"{server.url}/mended"
        with self.connected("postgres") as admin:
            for role in ROLES:
                admin.execute(f"CREATE ROLE {role}".encode())
        blueprint = Blueprint("mended", "of every kind", migrations=folder)
        self.catalogue = generate(StoreUrl.parse("postgres", self.url), blueprint)
        (folder / "catalogue.json").write_text(self.catalogue.text(), encoding="utf-8")
        store = PostgreSQLBootstrapper(self.url, blueprint)
        for change in store.plan().changes:
            store.apply(change)
        store.close()

    def connected(self, database="mended"):
        url = StoreUrl.parse("postgres", f"{self.server.url}/{database}")
        return connect(url, 5, settings=session_settings("public"))

    def drifts(self, connection):
        return Declared("public", self.catalogue).drifts(connection)

    def close(self):
        with self.connected("postgres") as admin:
            admin.execute(b"DROP DATABASE mended WITH (FORCE)")
            for role in ROLES:
                admin.execute(f"DROP ROLE {role}".encode())


@pytest.fixture(scope="module")
def made(farm, tmp_path_factory):
    made = Made(farm.shared("postgres"), tmp_path_factory.mktemp("mended"))
    yield made
    made.close()


@pytest.mark.parametrize("what", BROKEN)
def test_the_statement_below_a_drift_mends_it(made, what):
    with made.connected() as connection, connection.transaction(force_rollback=True):
        assert made.drifts(connection) == []
        connection.execute(BROKEN[what].encode())
        told = made.drifts(connection)
        assert told
        for drift in told:
            assert drift.fix is not None, drift
            assert visible_lines(drift.fix) == drift.fix
            try:
                connection.execute(drift.fix.encode())
            except psycopg.Error as exc:
                pytest.fail(f"{drift}: {exc}")
        assert made.drifts(connection) == []


@pytest.mark.parametrize("what", UNMENDED)
def test_what_no_statement_mends_says_why(made, what):
    statement, reason = UNMENDED[what]
    with made.connected() as connection, connection.transaction(force_rollback=True):
        connection.execute(statement.encode())
        [drift] = made.drifts(connection)
        assert drift.fix is None
        assert reason in drift.reason


#: What somebody has left unfinished after a restore, which writes an expression in another way. The
#: definition is put in from the live object. Then the one statement that a repair sends.
UNFINISHED = {
    "constraint": (
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'known'",
        "ALTER TABLE restored DROP CONSTRAINT known, ADD CONSTRAINT known {} NOT VALID",
        'ALTER TABLE "public"."restored" VALIDATE CONSTRAINT "known";',
    ),
    "index": (
        "SELECT pg_get_indexdef('of_known'::regclass)",
        (
            "DROP INDEX of_known; {}; "
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'of_known'::regclass"
        ),
        'REINDEX INDEX CONCURRENTLY "public"."of_known";',
    ),
    "column": (
        "SELECT 'status'",
        (
            "ALTER TABLE restored ALTER {0} DROP NOT NULL; "
            "ALTER TABLE restored ADD CONSTRAINT filled NOT NULL {0} NOT VALID"
        ),
        'ALTER TABLE "public"."restored" ALTER COLUMN "status" SET NOT NULL;',
    ),
}


@pytest.mark.parametrize("kind", UNFINISHED)
def test_what_is_as_declared_but_for_its_validity_is_only_finished(made, kind):
    look, statement, sent = UNFINISHED[kind]
    with made.connected() as connection, connection.transaction(force_rollback=True):
        definition = connection.execute(look.encode()).fetchone()[0]
        connection.execute(statement.format(definition).encode())
        if kind != "column":  # it came back in another form
            found = connection.execute(look.encode()).fetchone()[0]
            assert found.replace(" NOT VALID", "") != definition
        [drift] = made.drifts(connection)
        assert (drift.kind, drift.statements, drift.can_repair) == (kind, (sent,), True)
        connection.execute(drift.fix.encode())
        assert made.drifts(connection) == []


def test_a_trigger_of_a_restored_table_is_only_switched_on(made):
    look = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'of_known'"
    with made.connected() as connection, connection.transaction(force_rollback=True):
        definition = connection.execute(look.encode()).fetchone()[0]
        again = f"DROP TRIGGER of_known ON restored; {definition}; "
        again += "ALTER TABLE restored DISABLE TRIGGER of_known"
        connection.execute(again.encode())
        assert connection.execute(look.encode()).fetchone()[0] != definition
        [drift] = made.drifts(connection)
        assert drift.fix == 'ALTER TABLE "public"."restored" ENABLE TRIGGER "of_known";'
        connection.execute(drift.fix.encode())
        assert made.drifts(connection) == []


def test_an_index_that_partitions_lack_is_not_built_again(made):
    """REINDEX would not make it valid."""
    with made.connected() as connection, connection.transaction(force_rollback=True):
        connection.execute(b"DROP INDEX of_parted; CREATE INDEX of_parted ON ONLY parted (id)")
        told = {drift.object: drift for drift in made.drifts(connection)}
        whole = told["parted.of_parted"]
        assert "invalid" in whole.message
        assert (whole.fix, whole.can_repair) == (None, False)
        assert "ATTACH PARTITION" in whole.reason


def test_statements_are_of_the_schema_in_which_the_tables_are(made):
    """Where that is not public, the first one sets the path by which definitions are read."""
    with made.connected() as connection, connection.transaction(force_rollback=True):
        connection.execute(b'ALTER SCHEMA public RENAME TO "The app"')
        connection.execute(b'CREATE SCHEMA public; SET search_path TO "The app", public')
        declared = Declared("The app", made.catalogue)
        assert declared.drifts(connection) == []
        connection.execute(BROKEN["table with everything"].encode())
        told = declared.drifts(connection)
        for drift in told:
            connection.execute(b"SET search_path TO public")
            connection.execute(drift.fix.encode())
        connection.execute(b'SET search_path TO "The app", public')
        assert declared.drifts(connection) == []

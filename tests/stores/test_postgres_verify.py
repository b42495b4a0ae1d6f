"""What `verify` compares in PostgreSQL: each kind of object, tampered with on a real server.

One revision makes an object of every kind. Each tampering is done in a transaction that is rolled
back, so all of them share one database.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import psycopg
import pytest

from is_db_bootstrap.app import bootstrapper
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError, StoreBusy
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import PRIVILEGES, Catalogue, all_kinds, look
from is_db_bootstrap.stores.postgres.connection import connect, session_settings
from is_db_bootstrap.stores.postgres.declared import Declared
from is_db_bootstrap.stores.postgres.scratch import generate

pytestmark = pytest.mark.postgres

ROLES = ("kinds_reader", "kinds_owner")
REVISION = '''"""Every kind of object."""
from alembic import op

revision = "kinds_0001"
down_revision = None


def upgrade():
    op.get_bind().exec_driver_sql(UPGRADE)


def downgrade():
    pass


UPGRADE = """
{sql}
"""
'''
SQL = """
CREATE EXTENSION hstore;
CREATE SCHEMA sales;
CREATE SCHEMA empty_one;

CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN cents AS integer CONSTRAINT not_negative CHECK (VALUE >= 0);
CREATE TYPE address AS (street text, number integer);
CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE COLLATION german (provider = icu, locale = 'de');

CREATE FUNCTION plus(a integer, b integer DEFAULT 1) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 7 AS 'SELECT a + b';
CREATE FUNCTION many() RETURNS SETOF integer LANGUAGE sql ROWS 5 AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION many() FROM PUBLIC;
CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION is_same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
CREATE AGGREGATE total(integer) (sfunc = int4pl, stype = integer, initcond = '0');
CREATE OPERATOR === (leftarg = text, rightarg = text, function = is_same);
CREATE OPERATOR FAMILY by_size USING btree;
CREATE OPERATOR CLASS size_ops FOR TYPE integer USING btree FAMILY by_size AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 btint4cmp(integer, integer);
CREATE FUNCTION as_number(mood) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE CAST (mood AS integer) WITH FUNCTION as_number(mood) AS ASSIGNMENT;
CREATE CONVERSION latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH DICTIONARY words (template = simple, stopwords = english);
CREATE TEXT SEARCH CONFIGURATION plain_words (parser = default);
ALTER TEXT SEARCH CONFIGURATION plain_words ADD MAPPING FOR word WITH words;
CREATE TEXT SEARCH TEMPLATE own_template (lexize = dsimple_lexize, init = dsimple_init);
CREATE TEXT SEARCH PARSER own_parser (start = prsd_start, gettoken = prsd_nexttoken,
    end = prsd_end, lextypes = prsd_lextype);
CREATE ACCESS METHOD own_heap TYPE TABLE HANDLER heap_tableam_handler;

CREATE SEQUENCE ticket_number MAXVALUE 1000 CACHE 5 CYCLE;
CREATE TABLE customers (
    id       bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 10) PRIMARY KEY,
    email    text NOT NULL,
    note     text,
    country  text,
    mood     mood
);
ALTER TABLE customers ALTER note SET STORAGE EXTERNAL;
ALTER TABLE customers ALTER country SET STATISTICS 500;
ALTER TABLE customers SET (fillfactor = 70);
CREATE UNIQUE INDEX by_email ON customers (email);
ALTER TABLE customers REPLICA IDENTITY USING INDEX by_email;
CREATE STATISTICS of_places (dependencies) ON country, note FROM customers;
CREATE RULE no_delete AS ON DELETE TO customers DO INSTEAD NOTHING;
CREATE TRIGGER touched BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY reading ON customers FOR SELECT TO kinds_reader USING (true);
GRANT SELECT ON customers TO kinds_reader;
GRANT UPDATE (note) ON customers TO kinds_reader;
GRANT USAGE ON SEQUENCE ticket_number TO kinds_reader;
GRANT USAGE ON SCHEMA sales TO kinds_reader;
GRANT USAGE ON TYPE cents TO kinds_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA sales GRANT SELECT ON TABLES TO kinds_reader;

CREATE TABLE orders (
    id           bigserial PRIMARY KEY WITH (fillfactor = 80),
    customer_id  bigint CONSTRAINT of_customer REFERENCES customers,
    amount       cents,
    place        address
);
ALTER TABLE orders OWNER TO kinds_owner;
CREATE TABLE typed OF address;
CREATE TABLE base_of (id integer);
CREATE TABLE child_of () INHERITS (base_of);
CREATE TABLE "with.dot and space" ("a.b" integer, CONSTRAINT "c.d" CHECK ("a.b" > 0));
CREATE TABLE days (day date NOT NULL, kind text, customer_id bigint REFERENCES customers)
    PARTITION BY RANGE (day);
CREATE INDEX of_days ON days (kind);
CREATE TRIGGER touched_day BEFORE UPDATE ON days FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE PUBLICATION told FOR TABLE customers WITH (publish = 'insert');

CREATE VIEW glad_customers WITH (security_barrier = true) AS
    SELECT c.id, c.email, c.mood FROM customers c WHERE c.email <> 'a.b' AND c.mood = 'glad';
ALTER VIEW glad_customers ALTER mood SET DEFAULT 'glad';
CREATE TRIGGER touched_view INSTEAD OF UPDATE ON glad_customers
    FOR EACH ROW EXECUTE FUNCTION touch();
CREATE VIEW pairs AS SELECT o.id, c.email FROM orders o JOIN customers c ON c.id = o.customer_id;
CREATE MATERIALIZED VIEW counted AS
    SELECT country, count(*) AS many FROM customers GROUP BY country;
CREATE INDEX of_counted ON counted (country);

CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER far FOREIGN DATA WRAPPER nowhere OPTIONS (host 'test');
GRANT USAGE ON FOREIGN SERVER far TO kinds_reader;
CREATE FOREIGN TABLE from_far (id integer) SERVER far OPTIONS (table_name 'there');
CREATE TABLE sales.deals (id integer PRIMARY KEY, customer_id bigint REFERENCES customers);
CREATE INDEX of_customers ON sales.deals (customer_id);
CREATE FUNCTION note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER noted ON ddl_command_end WHEN TAG IN ('CREATE CONVERSION')
    EXECUTE FUNCTION note_ddl();
"""
#: What each tampering does, and the objects that `verify` must then name.
TAMPERINGS = {
    "view options": (
        "ALTER VIEW glad_customers RESET (security_barrier)",
        ["view option glad_customers.security_barrier"],
    ),
    "view default": (
        "ALTER VIEW glad_customers ALTER mood DROP DEFAULT",
        ["view column glad_customers.mood"],
    ),
    "view query": (
        (
            "CREATE OR REPLACE VIEW pairs AS "
            "SELECT o.id, c.email FROM orders o JOIN customers c ON o.id = c.id"
        ),
        ["view pairs"],
    ),
    "view trigger": (
        "DROP TRIGGER touched_view ON glad_customers",
        ["trigger glad_customers.touched_view"],
    ),
    "index of a materialized view": ("DROP INDEX of_counted", ["index counted.of_counted"]),
    "policy roles": (
        "ALTER POLICY reading ON customers TO PUBLIC",
        ["policy roles customers.reading"],
    ),
    "grant": (
        "REVOKE SELECT ON customers FROM kinds_reader",
        ["grant customers to kinds_reader"],
    ),
    "grant option": (
        "GRANT SELECT ON customers TO kinds_reader WITH GRANT OPTION",
        ["grant customers to kinds_reader"],
    ),
    "column grant": (
        "REVOKE UPDATE (note) ON customers FROM kinds_reader",
        ["grant customers.note to kinds_reader"],
    ),
    "sequence grant": (
        "REVOKE USAGE ON SEQUENCE ticket_number FROM kinds_reader",
        ["sequence grant ticket_number to kinds_reader"],
    ),
    "schema grant": (
        "REVOKE USAGE ON SCHEMA sales FROM kinds_reader",
        ["schema grant sales.schema to kinds_reader"],
    ),
    "type grant": (
        "REVOKE USAGE ON TYPE cents FROM kinds_reader",
        ["type grant cents to kinds_reader"],
    ),
    "function grant": (
        "GRANT EXECUTE ON FUNCTION many() TO PUBLIC",
        ["function grant many() to PUBLIC"],
    ),
    "foreign server grant": (
        "REVOKE USAGE ON FOREIGN SERVER far FROM kinds_reader",
        ["foreign server grant far to kinds_reader"],
    ),
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA sales REVOKE SELECT ON TABLES FROM kinds_reader",
        ["default privileges sales.on tables to kinds_reader"],
    ),
    "owner": (
        "ALTER TABLE orders OWNER TO CURRENT_USER",
        ["owner orders", "sequence owner orders_id_seq"],
    ),
    "function argument's default": (
        (
            "CREATE OR REPLACE FUNCTION plus(a integer, b integer DEFAULT 2) RETURNS integer "
            "LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 7 AS 'SELECT a + b'"
        ),
        ["function plus(a integer, b integer)"],
    ),
    "function cost": (
        "ALTER FUNCTION plus COST 8 PARALLEL UNSAFE",
        ["function plus(a integer, b integer)"],
    ),
    "function rows": ("ALTER FUNCTION many ROWS 6", ["function many()"]),
    "function leakproof": (
        "ALTER FUNCTION plus LEAKPROOF",
        ["function plus(a integer, b integer)"],
    ),
    "procedure": ("DROP PROCEDURE nothing", ["procedure nothing()"]),
    "aggregate": (
        (
            "DROP AGGREGATE total(integer); "
            "CREATE AGGREGATE total(integer) (sfunc = int4pl, stype = integer, initcond = '1')"
        ),
        ["aggregate total(integer)"],
    ),
    "operator": ("DROP OPERATOR === (text, text)", ["operator ===(text, text)"]),
    "operator family": (
        (
            "ALTER OPERATOR FAMILY by_size USING btree ADD "
            "OPERATOR 1 < (integer, bigint), FUNCTION 1 btint48cmp(integer, bigint)"
        ),
        ["operator family by_size using btree"],
    ),
    "operator class": (
        "DROP OPERATOR CLASS size_ops USING btree",
        ["operator class size_ops using btree", "operator family by_size using btree"],
    ),
    "cast": ("DROP CAST (mood AS integer)", ["cast mood to integer"]),
    "conversion": ("DROP CONVERSION latin", ["conversion latin"]),
    "collation": (
        "DROP COLLATION german; CREATE COLLATION german (provider = icu, locale = 'fr')",
        ["collation german"],
    ),
    "text search dictionary": (
        "ALTER TEXT SEARCH DICTIONARY words (stopwords)",
        ["text search dictionary words"],
    ),
    "text search configuration": (
        "ALTER TEXT SEARCH CONFIGURATION plain_words DROP MAPPING FOR word",
        ["text search configuration plain_words"],
    ),
    "text search parser": (
        "DROP TEXT SEARCH PARSER own_parser",
        ["text search parser own_parser"],
    ),
    "text search template": (
        "DROP TEXT SEARCH TEMPLATE own_template",
        ["text search template own_template"],
    ),
    "access method": ("DROP ACCESS METHOD own_heap", ["access method own_heap"]),
    "event trigger": ("ALTER EVENT TRIGGER noted DISABLE", ["event trigger noted"]),
    "publication": (
        "ALTER PUBLICATION told SET (publish = 'insert, update')",
        ["publication told"],
    ),
    "table of a publication": (
        "ALTER PUBLICATION told DROP TABLE customers",
        ["publication told"],
    ),
    "schemas of a publication": (
        "ALTER PUBLICATION of_sales DROP TABLES IN SCHEMA sales",
        ["schemas of a publication of_sales"],
    ),
    "foreign server": (
        "DROP SERVER far CASCADE",
        ["foreign server far", "foreign server grant far to kinds_reader", "table from_far"],
    ),
    "foreign data wrapper": (
        "ALTER FOREIGN DATA WRAPPER nowhere VALIDATOR postgresql_fdw_validator",
        ["foreign data wrapper nowhere"],
    ),
    "foreign table's options": (
        "ALTER FOREIGN TABLE from_far OPTIONS (SET table_name 'other')",
        ["table option from_far.table_name"],
    ),
    "rule": ("DROP RULE no_delete ON customers", ["rule customers.no_delete"]),
    "rule disabled": (
        "ALTER TABLE customers DISABLE RULE no_delete",
        ["rule customers.no_delete"],
    ),
    "sequence": (
        "ALTER SEQUENCE ticket_number NO CYCLE MAXVALUE 999",
        ["sequence ticket_number"],
    ),
    "sequence's owner": ("ALTER SEQUENCE orders_id_seq OWNED BY NONE", ["sequence orders_id_seq"]),
    "identity": (
        "ALTER TABLE customers ALTER id SET INCREMENT 1",
        ["column customers.id"],
    ),
    "composite type": ("ALTER TYPE address ADD ATTRIBUTE zip text CASCADE", None),
    "range type": (
        "DROP TYPE span; CREATE TYPE span AS RANGE (subtype = float8)",
        ["range type span"],
    ),
    "domain's constraint": (
        "ALTER DOMAIN cents RENAME CONSTRAINT not_negative TO other",
        ["domain cents"],
    ),
    "statistics": (
        "DROP STATISTICS of_places",
        ["statistics customers.of_places"],
    ),
    "statistics target": (
        "ALTER TABLE customers ALTER country SET STATISTICS 600",
        ["table option customers.country.statistics"],
    ),
    "storage": (
        "ALTER TABLE customers ALTER note SET STORAGE MAIN",
        ["table option customers.note.storage"],
    ),
    "storage parameter": (
        "ALTER TABLE customers RESET (fillfactor)",
        ["table option customers.fillfactor"],
    ),
    "storage parameter of a key": (
        "ALTER INDEX orders_pkey RESET (fillfactor)",
        ["table option orders.orders_pkey.fillfactor"],
    ),
    "replica identity": (
        "ALTER TABLE customers REPLICA IDENTITY DEFAULT",
        ["replica identity customers"],
    ),
    "typed table": ("ALTER TABLE typed NOT OF", ["table typed"]),
    "inheritance": ("ALTER TABLE child_of NO INHERIT base_of", ["table child_of"]),
    "names with dots": (
        'ALTER TABLE "with.dot and space" DROP CONSTRAINT "c.d"',
        ['constraint "with.dot and space"."c.d"'],
    ),
    "foreign key not enforced": (
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        ["constraint orders.of_customer"],
    ),
    "another schema": ("DROP INDEX sales.of_customers", ["index sales.deals.of_customers"]),
    "empty schema": ("DROP SCHEMA empty_one", ["schema empty_one"]),
    "full schema": (
        "DROP SCHEMA sales CASCADE",
        ["schema sales", "schemas of a publication of_sales"],
    ),
    "extension": ("DROP EXTENSION hstore", ["extension hstore"]),
}
#: What nobody has declared, and the objects that an audit then names.
ADDITIONS = {
    "rule": (
        "CREATE RULE more AS ON UPDATE TO customers DO INSTEAD NOTHING",
        ["rule customers.more"],
    ),
    "grants": (
        "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO kinds_owner",
        ['grant "with.dot and space" to kinds_owner'],
    ),
    "replica identity": (
        "ALTER TABLE base_of REPLICA IDENTITY FULL",
        ["replica identity base_of"],
    ),
    "statistics": (
        "CREATE STATISTICS more ON email, note FROM customers",
        ["statistics customers.more"],
    ),
    "view option": (
        "ALTER VIEW pairs SET (security_barrier = true)",
        ["view option pairs.security_barrier"],
    ),
    "part of a table with a dot": (
        'ALTER TABLE "with.dot and space" ADD "e.f" integer',
        ['column "with.dot and space"."e.f"'],
    ),
    "foreign keys and triggers of a later partition": (
        "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')",
        [],
    ),
    "tuning": ("ALTER TABLE customers SET (autovacuum_enabled = off)", []),
    "objects of others": (
        (
            "CREATE FUNCTION theirs() RETURNS integer LANGUAGE sql AS 'SELECT 1'; "
            "CREATE TYPE theirs_too AS (a integer)"
        ),
        [],
    ),
    "objects of an extension": ("CREATE EXTENSION pg_trgm; CREATE EXTENSION citext", None),
}


#: What only later versions have, by the first one.
LATER = {"15": "CREATE PUBLICATION of_sales FOR TABLES IN SCHEMA sales;"}


class Made:
    """One server with a database that the revision has made, and its catalogue."""

    def __init__(self, server, folder):
        self.folder = folder
        self.blueprint = Blueprint("kinds", "of every kind", migrations=folder)
        self.server = server
        self.url = f"{server.url}/kinds_live"
        with self.connected("postgres") as admin:
            for role in ROLES:
                admin.execute(f"CREATE ROLE {role}".encode())
        self.catalogue = generate(StoreUrl.parse("postgres", self.url), self.blueprint)
        (folder / "catalogue.json").write_text(self.catalogue.text(), encoding="utf-8")
        store = PostgreSQLBootstrapper(self.url, self.blueprint)
        for change in store.plan().changes:
            store.apply(change)
        store.close()

    def connected(self, database="kinds_live"):
        url = StoreUrl.parse("postgres", f"{self.server.url}/{database}")
        return connect(url, 5, settings=session_settings("public"))

    def close(self):
        with self.connected("postgres") as admin:
            admin.execute(b"DROP DATABASE kinds_live WITH (FORCE)")
            for role in ROLES:
                admin.execute(f"DROP ROLE {role}".encode())


@pytest.fixture(scope="module")
def made(request, farm, tmp_path_factory):
    """`made("18")`: the database of this version, made once."""
    there = {}

    def make(version):
        if version not in there:
            folder = tmp_path_factory.mktemp(f"kinds_{version}")
            later = [sql for first, sql in LATER.items() if int(version) >= int(first)]
            text = REVISION.format(sql="\n".join([SQL, *later]))
            (folder / "kinds_0001.py").write_text(text, encoding="utf-8")
            there[version] = Made(farm.shared("postgres", version), folder)
        return there[version]

    yield make
    for each in there.values():
        each.close()


def declared(made, catalogue=None):
    return Declared("public", catalogue or made.catalogue)


def named(found):
    return [f"{each.kind} {each.object}" for each in found]


def after(made, statement, look_with):
    """What `look_with` returns after the statement, which is rolled back."""
    with made.connected() as connection, connection.transaction(force_rollback=True):
        connection.execute(statement.encode())
        return look_with(connection)


@pytest.mark.parametrize("version", ["14", "15", "16", "17", "18"])
def test_what_the_revisions_made_is_no_drift_and_no_finding(made, version):
    store = PostgreSQLBootstrapper(made(version).url, made(version).blueprint)
    assert [*store.verify()] == []
    assert [*store.audit()] == []
    assert store.plan().notes == ()
    store.close()


@pytest.mark.parametrize("version", ["14", "15", "16", "17"])
def test_a_catalogue_of_one_version_holds_on_the_others(made, version):
    """Only the text of queries differs, and a remark says how they are compared then."""
    newest = made("18").catalogue
    if version == "14":
        newest = without(newest, "of_sales")
    with made(version).connected() as connection:
        here = declared(made(version), newest)
        assert here.drifts(connection) == []
        told = here.findings(lambda: connection)
    if int(version) < 16:
        assert [(each.object, each.finding) for each in told] == [("catalogue.json", False)]
        assert "is of PostgreSQL 16 and later" in told[0].message
    else:
        assert told == []
    query = (
        "CREATE OR REPLACE VIEW pairs AS SELECT o.id, c.email FROM orders o "
        "JOIN customers c ON c.id = o.customer_id WHERE o.id > 0"
    )
    assert named(after(made(version), query, here.drifts)) == ["view pairs"]


def without(catalogue, name):
    """The catalogue without the objects of this name."""
    objects = {
        kind: {each: text for each, text in found.items() if each != name}
        for kind, found in catalogue.objects.items()
    }
    return replace(catalogue, objects=objects)


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_each_kind_that_a_revision_made_is_compared(made, kind):
    statement, expected = TAMPERINGS[kind]
    told = named(after(made("18"), statement, declared(made("18")).drifts))
    if expected is None:
        assert "composite type address" in told
    else:
        assert sorted(told) == expected


@pytest.mark.parametrize("kind", ADDITIONS)
def test_what_nobody_declared_is_a_finding_where_it_matters(made, kind):
    statement, expected = ADDITIONS[kind]

    def look_with(connection):
        here = declared(made("18"))
        assert here.drifts(connection) == []
        return here.findings(lambda: connection)

    assert named(after(made("18"), statement, look_with)) == (expected or [])


def test_the_tamperings_cover_every_kind_that_the_query_finds(made):
    """Each kind is in the catalogue of the revision, or cannot be made without a C library."""
    kinds = made("18").catalogue.kinds()
    live_only = {"schema", "role"}
    without_library = {"base type", "language", "transform"}
    seldom = {"function owner", "type owner", "schema owner", "foreign server owner"}
    assert set(all_kinds()) - kinds == live_only | without_library | seldom


def test_privileges_are_left_out_when_the_setting_says_so(made):
    statement = (
        "ALTER TABLE orders OWNER TO CURRENT_USER; REVOKE SELECT ON customers FROM kinds_reader; "
        "ALTER POLICY reading ON customers TO PUBLIC; GRANT ALL ON customers TO kinds_owner"
    )
    left_out = declared(made("18"), made("18").catalogue.without_privileges())

    def look_with(connection):
        return [*left_out.drifts(connection), *left_out.findings(lambda: connection)]

    assert after(made("18"), statement, look_with) == []
    for value, is_compared in (("ignore", False), ("compare", True)):
        environ = {"POSTGRES_URL": made("18").url, "POSTGRES_PRIVILEGES": value}
        settings = Settings.load(made("18").blueprint, environ=environ)
        url = settings.need("postgres")
        store = bootstrapper("postgres", url, made("18").blueprint, settings)
        assert bool(store._place.declared.catalogue.kinds() & PRIVILEGES) is is_compared
    assert len(named(after(made("18"), statement, declared(made("18")).drifts))) == 4


def test_a_role_that_a_server_lacks_is_told_and_is_no_drift(made):
    catalogue = made("18").catalogue
    text = catalogue.text().replace("kinds_reader", "role_of_elsewhere")
    elsewhere = Catalogue._of(json.loads(text), made("18").folder)
    with made("18").connected() as connection:
        here = declared(made("18"), elsewhere)
        assert here.drifts(connection) == []
        told = here.findings(lambda: connection)
    remark = next(each for each in told if each.kind == "role")
    assert (remark.object, remark.finding) == ("role_of_elsewhere", False)
    assert remark.message == (
        "is not on this server, so 9 declared owners and grants are not compared"
    )


def test_another_role_may_apply_and_another_may_look(made):
    """Nobody's owners are compared but those that a revision names."""
    statement = (
        "ALTER TABLE customers OWNER TO kinds_owner; GRANT ALL ON SCHEMA public TO kinds_owner; "
        "GRANT pg_read_all_data TO kinds_reader; SET LOCAL ROLE kinds_reader"
    )
    assert after(made("18"), statement, declared(made("18")).drifts) == []


SMALL = """
CREATE SCHEMA sales;
CREATE TABLE sales.deals (id serial PRIMARY KEY);
CREATE TABLE customers (id bigserial PRIMARY KEY);
CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1';
GRANT USAGE ON SCHEMA sales TO kinds_reader;
GRANT SELECT ON customers, sales.deals TO kinds_reader;
CREATE POLICY mine ON customers USING (true);
CREATE POLICY ours ON customers TO CURRENT_USER USING (true);
"""


def test_a_catalogue_that_one_role_has_made_holds_where_another_applies(made, tmp_path):
    """A superuser makes the catalogue, and a role with few rights owns everything in production."""
    place = made("18")
    (tmp_path / "kinds_0001.py").write_text(REVISION.format(sql=SMALL), encoding="utf-8")
    blueprint = Blueprint("kinds", "few", migrations=tmp_path)
    theirs = replace(
        StoreUrl.parse("postgres", f"{place.server.url}/kinds_few"),
        username="kinds_admin",
        password="of admin",
    )
    catalogue = generate(StoreUrl.parse("postgres", place.url), blueprint)
    (tmp_path / "catalogue.json").write_text(catalogue.text(), encoding="utf-8")
    with place.connected("postgres") as admin:
        admin.execute(b"CREATE ROLE kinds_admin LOGIN CREATEDB PASSWORD 'of admin'")
        try:
            store = PostgreSQLBootstrapper(theirs, blueprint)
            result = BootstrapOrchestrator([store]).run()
            assert (result.exit_code, result.stores[0].notes) == (0, ())
            for url in (theirs, StoreUrl.parse("postgres", f"{place.server.url}/kinds_few")):
                looking = PostgreSQLBootstrapper(url, blueprint)
                outcome = BootstrapOrchestrator([looking], strict=True).run(Mode.VERIFY)
                assert (outcome.exit_code, outcome.stores[0].drifts) == (0, ())
        finally:
            admin.execute(b"DROP DATABASE IF EXISTS kinds_few WITH (FORCE)")
            admin.execute(b"DROP ROLE kinds_admin")


def old_form(catalogue, found):
    """The catalogue as an earlier version has written it."""
    return replace(catalogue, objects=found, schemas={}, form=1, versions="")


@pytest.mark.parametrize("version", ["14", "18"])
def test_a_file_of_an_earlier_version_is_compared_as_far_as_it_goes(made, version):
    place = made(version)
    with place.connected() as connection:
        found = look(connection, ["public"], form=1)["public"]
    assert "table option" not in found
    assert "with.dot and space.a.b" in found["column"]
    file = place.folder / "catalogue.json"
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(old_form(place.catalogue, found).text(), encoding="utf-8")
        assert '"format"' not in file.read_text(encoding="utf-8")
        store = PostgreSQLBootstrapper(place.url, place.blueprint)
        assert [*store.verify()] == []
        assert [*store.audit()] == []
        (note,) = store.plan().notes
        store.close()
        read = Catalogue.read(place.folder)
    finally:
        file.write_text(before, encoding="utf-8")
    assert "is of an earlier version" in note
    assert "is-db-bootstrap revision --refresh" in note
    told = after(place, "DROP TABLE orders CASCADE", declared(place, read).drifts)
    assert "table orders" in named(told)


@pytest.mark.parametrize("head", ["", "kinds_0000"])
def test_without_a_catalogue_verify_says_record_only_and_strict_exits_3(made, head):
    place = made("18")
    file = place.folder / "catalogue.json"
    before = file.read_text(encoding="utf-8")
    file.unlink()
    if head:
        file.write_text(replace(place.catalogue, head=head).text(), encoding="utf-8")
    try:
        outcomes = []
        for strict in (False, True):
            store = PostgreSQLBootstrapper(place.url, place.blueprint)
            result = BootstrapOrchestrator([store], strict=strict).run(Mode.VERIFY)
            outcomes.append((result.exit_code, [each.kind for each in result.stores[0].drifts]))
    finally:
        file.write_text(before, encoding="utf-8")
    assert outcomes == [(0, []), (3, ["file"])]
    assert [each.fix for each in result.stores[0].drifts] == ["is-db-bootstrap revision --refresh"]
    told = [note for note in result.stores[0].notes if "record only" in note]
    assert len(told) == 1


def test_conflict_markers_are_one_line_of_error_and_refresh_mends_the_file(made):
    place = made("18")
    file = place.folder / "catalogue.json"
    before = file.read_text(encoding="utf-8")
    conflict = '<<<<<<< HEAD\n  "head": "a",\n=======\n  "head": "b",\n>>>>>>> other\n'
    file.write_text(before.replace('  "head": "kinds_0001",\n', conflict), encoding="utf-8")
    try:
        with pytest.raises(ConfigurationError) as refused:
            PostgreSQLBootstrapper(place.url, place.blueprint)
        generated = generate(StoreUrl.parse("postgres", place.url), place.blueprint)
    finally:
        file.write_text(before, encoding="utf-8")
    assert "has the conflict markers of a merge (line 3)" in str(refused.value)
    assert "\n" not in refused.value.message
    assert generated.text() == before


@pytest.mark.parametrize(
    ("what", "dropped"),
    [
        ("CREATE VIEW passing AS SELECT 1 AS id", "DROP VIEW passing"),
        ("CREATE INDEX passing ON base_of (id)", "DROP INDEX passing"),
    ],
)
def test_ddl_of_somebody_else_while_we_look_is_busy_and_no_conflict(made, what, dropped):
    """The other session has dropped it between our snapshot and what the server says of it.

    Our transaction keeps its snapshot, so the moment does not depend on time. Of a view the server
    says that it cannot open it, of an index it says nothing.
    """
    place = made("18")
    with place.connected() as ours, place.connected() as other:
        other.execute(what.encode())
        store = PostgreSQLBootstrapper(place.url, place.blueprint)
        store._sessions._looking = ours
        with ours.transaction(force_rollback=True):
            ours.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            ours.execute(b"SELECT 1")
            other.execute(dropped.encode())
            with pytest.raises(StoreBusy) as busy:
                store.verify()
        assert "another session has changed the schema meanwhile" in str(busy.value)
        assert [*store.verify()] == []
        store.close()


def test_two_sessions_that_change_one_object_are_busy(made):
    """The server says "tuple concurrently updated" to the second one."""
    place = made("18")
    seen = []
    with place.connected() as first, place.connected() as second:
        change = b"GRANT EXECUTE ON FUNCTION many() TO kinds_owner"
        with first.transaction(force_rollback=False):
            first.execute(change)
            waiting = threading.Thread(target=lambda: seen.append(refusal(second, change)))
            waiting.start()
            until_it_waits(first, second)
        waiting.join(timeout=60)
        first.execute(b"REVOKE EXECUTE ON FUNCTION many() FROM kinds_owner")
    assert isinstance(seen[0], StoreBusy)


def refusal(connection, statement):
    from is_db_bootstrap.stores.postgres.errors import errors

    try:
        with errors("here", "function many"):
            connection.execute(statement)
    except (StoreBusy, psycopg.Error) as exc:
        return exc
    return None


def until_it_waits(asking, waiting):
    """Until the server shows that the session waits for a lock."""
    for _ in range(2000):
        row = asking.execute(
            "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s",
            [waiting.info.backend_pid],
        ).fetchone()
        if row == ("Lock",):
            return
        asking.execute(b"SELECT pg_sleep(0.01), pg_stat_clear_snapshot()")
    raise AssertionError("the other session does not wait")

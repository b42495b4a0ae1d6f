"""A version table of another name or schema is found before anything runs.

Other deployments are left alone.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import psycopg
import pytest

from is_db_bootstrap import app, migrate
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreConflict
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres import elsewhere
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.scratch import schema_sql

pytestmark = pytest.mark.postgres

REVISION = """
from alembic import op
revision = {name!r}
down_revision = {before!r}
def upgrade():
    op.execute("CREATE TABLE {name} (id integer)")
def downgrade():
    op.execute("DROP TABLE {name}")
"""


@pytest.fixture
def blueprint(tmp_path):
    return declared(tmp_path, "shop", "s1", "s2")


def declared(folder, name, *revisions):
    """A blueprint with one table for each revision."""
    place = folder / name
    place.mkdir()
    for before, revision in zip((None, *revisions), revisions, strict=False):
        (place / f"{revision}.py").write_text(REVISION.format(name=revision, before=before))
    return Blueprint(name, "of a test", migrations=place)


@pytest.fixture
def url(postgres_url, blueprint):
    url = StoreUrl.parse("postgres", postgres_url)
    PostgreSQLBootstrapper(url, blueprint).create_database()
    return url


@pytest.fixture
def do(url):
    with psycopg.connect(url.reveal(scheme="postgresql"), autocommit=True) as connection:
        yield connection.execute


def applied(url, blueprint, **options):
    return BootstrapOrchestrator([PostgreSQLBootstrapper(url, blueprint, **options)]).run()


def tables(do):
    return {
        row[0]
        for row in do("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    }


PLACES = (
    "meta.shop_version",
    "public.shop_version",
    "meta.alembic_version",
    '"Odd % one"."its ""table"""',
)


@pytest.mark.parametrize("kind", ["varchar(32)", "text", "char(32)"])
def test_our_revisions_in_another_table_are_a_conflict_that_names_it(url, blueprint, do, kind):
    do("CREATE SCHEMA meta")
    do('CREATE SCHEMA "Odd % one"')
    for place in PLACES:
        do(f"CREATE TABLE {place} (version_num {kind} PRIMARY KEY)")
        do(f"INSERT INTO {place} VALUES ('s1')")
        result = applied(url, blueprint)
        error = result.stores[0].exception
        assert isinstance(error, StoreConflict)
        assert result.exit_code == 6
        assert place.replace('""', "~").replace('"', "").replace("~", '"') in error.message
        assert "s1" in error.message
        do(f"DROP TABLE {place}")
        assert tables(do) == set()


def recorded_by_another(do):
    do("CREATE SCHEMA billing")
    do("CREATE TABLE billing.alembic_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO billing.alembic_version VALUES ('s2')")


def test_our_ids_in_another_table_without_our_tables_name_both_that_it_may_mean(url, blueprint, do):
    recorded_by_another(do)
    hint = applied(url, blueprint).stores[0].exception.hint
    assert "No table that these revisions create is in schema public or billing." in hint
    assert hint.endswith(
        "another application's, say so: POSTGRES_IGNORED_VERSION_TABLES=billing.alembic_version"
    )
    assert "stamp s2`, but only where the tables of that revision are there" in hint
    assert "DB_SCHEMA=billing" not in hint


@pytest.mark.parametrize("schema", ["public", "billing"])
def test_our_ids_in_another_table_with_our_tables_lead_on(url, blueprint, do, schema):
    recorded_by_another(do)
    do(f"CREATE TABLE {schema}.s1 (id integer)")
    hint = applied(url, blueprint).stores[0].exception.hint
    assert "set DB_SCHEMA=billing" in hint


def test_a_connection_of_its_own_finds_no_address_while_a_revision_is_only_written_as_sql(
    url, blueprint, do, monkeypatch
):
    recorded_by_another(do)
    do("CREATE TABLE public.touched (id integer)")
    text = (blueprint.migrations / "s2.py").read_text()
    own = """
    import os, psycopg
    with psycopg.connect(os.environ.get("DATABASE_URL", "")) as c:
        c.execute("INSERT INTO touched VALUES (1)")
"""
    (blueprint.migrations / "s2.py").write_text(text.replace("upgrade():", f"upgrade():{own}"))
    monkeypatch.setenv("DATABASE_URL", url.reveal(scheme="postgresql"))
    monkeypatch.setenv("PGHOST", url.host)
    monkeypatch.setenv("PGPORT", str(url.port(5432)))
    monkeypatch.setenv("PGDATABASE", url.database)
    monkeypatch.setenv("PGUSER", url.username)
    monkeypatch.setenv("PGPASSWORD", url.password)
    before = dict(os.environ)
    error = applied(url, blueprint).stores[0].exception
    assert "could not be found out" in error.hint
    with pytest.raises(ConfigurationError, match="written as SQL"):
        schema_sql(blueprint)
    assert do("SELECT count(*) FROM touched").fetchone()[0] == 0
    assert dict(os.environ) == before


def test_a_revision_that_needs_an_address_at_import_is_written_as_sql_all_the_same(
    url, blueprint, monkeypatch
):
    text = (blueprint.migrations / "s2.py").read_text()
    (blueprint.migrations / "s2.py").write_text(
        f"{text}\nimport os\nDATABASE_URL = os.environ['DATABASE_URL']\n"
    )
    monkeypatch.setenv("DATABASE_URL", url.reveal(scheme="postgresql"))
    assert "s2" in schema_sql(blueprint)


def test_another_version_table_that_is_locked_is_a_conflict_that_names_who_locks_it(
    url, blueprint, do, monkeypatch
):
    monkeypatch.setattr(elsewhere, "_AT_ONCE", 2)
    recorded_by_another(do)
    do("CREATE TABLE billing.b (version_num text); CREATE TABLE billing.c (version_num text)")
    with psycopg.connect(url.reveal(scheme="postgresql")) as other:
        other.execute("LOCK TABLE billing.alembic_version, billing.c IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        error = applied(url, blueprint).stores[0].exception
        assert time.monotonic() - began < 30  # the engine looks once, not twelve times
        assert isinstance(error, StoreConflict)
        assert (
            f"billing.alembic_version, billing.c (locked by process {other.info.backend_pid}) of "
        ) in error.message
        assert tables(do) == set()
        do("INSERT INTO billing.b VALUES ('s1')")  # the others are looked into all the same
        error = applied(url, blueprint).stores[0].exception
        assert "Revision s1 of shop is recorded in billing.b" in error.message
    migrate.stamp(blueprint, "s2", url=url.reveal(scheme="postgresql"))
    assert applied(url, blueprint).ok


#: What shows the revision s1 beside a hidden table that has it as `v`, and how it is refused.
SHOWN = {
    "a view": (
        "CREATE VIEW meta.shop_version AS SELECT v AS version_num FROM hidden.x",
        "a view or foreign table is not read",
    ),
    "a view of functions": (
        "CREATE VIEW meta.shop_version AS SELECT lower('S1') AS version_num",
        "a view or foreign table is not read",
    ),
    "a foreign table": (
        """
        CREATE FOREIGN DATA WRAPPER nowhere;
        CREATE SERVER away FOREIGN DATA WRAPPER nowhere;
        CREATE FOREIGN TABLE meta.shop_version (version_num varchar(32)) SERVER away
        """,
        "a view or foreign table is not read",
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW meta.shop_version AS SELECT v AS version_num FROM hidden.x",
        "Revision s1 of shop is recorded in meta.shop_version",
    ),
    "an empty materialized view": (
        "CREATE MATERIALIZED VIEW meta.shop_version AS SELECT 's1' AS version_num WITH NO DATA",
        "the materialized view has never been filled",
    ),
}


def test_what_is_no_plain_table_and_may_show_our_revisions_is_a_conflict(url, blueprint, do):
    do("CREATE SCHEMA meta; CREATE SCHEMA hidden; CREATE TABLE hidden.x (v varchar(32))")
    do("INSERT INTO hidden.x VALUES ('s1')")
    for name, (made, said) in SHOWN.items():
        with psycopg.connect(url.reveal(scheme="postgresql")) as other:
            other.execute(made)
            other.commit()
            error = applied(url, blueprint).stores[0].exception
            assert isinstance(error, StoreConflict), name
            assert "meta.shop_version" in error.message, name
            assert said in error.message, name
            assert "POSTGRES_IGNORED_VERSION_TABLES=meta.shop_version" in error.hint, name
            do("DROP SCHEMA meta CASCADE; CREATE SCHEMA meta")
    assert tables(do) == set()


def test_a_view_of_a_version_table_says_no_more_than_that_table(url, blueprint, do):
    assert applied(url, blueprint).ok
    do("CREATE SCHEMA report")
    do("CREATE VIEW report.version AS SELECT version_num FROM alembic_version")
    do("CREATE VIEW report.more AS SELECT version_num FROM report.version")
    do("CREATE VIEW report.releases AS SELECT lower('A') AS version_num, now() AS since")
    migrate.downgrade(blueprint, "base", url=url.reveal(scheme="postgresql"), drop_rows=True)
    result = applied(url, blueprint)
    assert result.ok, result
    assert not any("report" in note for note in result.stores[0].notes)


def loaded(url, blueprint, **environ):
    """The result of a run with these variables."""
    address = {"POSTGRES_URL": url.reveal(scheme="postgresql")}
    return app.orchestrator(
        blueprint, Settings.load(blueprint, environ={**address, **environ})
    ).run()


def test_a_version_table_that_is_named_as_not_ours_is_left_alone_and_told(
    url, blueprint, do, tmp_path
):
    recorded_by_another(do)
    do("CREATE TABLE alembic_version_backup AS TABLE billing.alembic_version")
    do(
        "CREATE SCHEMA tenant_b; "
        "CREATE TABLE tenant_b.alembic_version AS TABLE alembic_version_backup"
    )
    do("CREATE VIEW tenant_b.shown AS SELECT lower('s1') AS version_num")
    named = "public.alembic_version_backup, tenant_*.alembic_version"
    error = loaded(url, blueprint, POSTGRES_IGNORED_VERSION_TABLES=named).stores[0].exception
    assert "recorded in billing.alembic_version" in error.message
    named += ",billing.*"
    error = loaded(url, blueprint, POSTGRES_IGNORED_VERSION_TABLES=named).stores[0].exception
    assert error.message.startswith("tenant_b.shown (")
    (tmp_path / "x.toml").write_text(
        f'[postgres]\nignored_version_tables = "{named}, tenant_b.shown"\n'
    )
    address = {"POSTGRES_URL": url.reveal(scheme="postgresql")}
    settings = Settings.load(blueprint, environ=address, file=tmp_path / "x.toml")
    moved = migrate.upgrade(blueprint, "s1", settings=settings)
    assert moved.revisions == ("s1",)
    (note,) = [note for note in moved.notes if "POSTGRES_IGNORED_VERSION_TABLES" in note]
    assert note == (
        "billing.alembic_version, public.alembic_version_backup, tenant_b.alembic_version, "
        "tenant_b.shown: not looked into, as POSTGRES_IGNORED_VERSION_TABLES says."
    )


@pytest.mark.parametrize("name", ["backup", "*.*", "t*.v*", "*", "a.", ".b", "a.b.c"])
def test_what_names_no_table_is_refused(blueprint, name):
    environ = {"POSTGRES_IGNORED_VERSION_TABLES": name}
    with pytest.raises(ConfigurationError, match="POSTGRES_IGNORED_VERSION_TABLES: "):
        app.orchestrator(blueprint, Settings.load(blueprint, environ=environ))


def test_of_many_version_tables_a_few_are_named(url, blueprint, do):
    for number in range(40):
        do(f"CREATE SCHEMA t{number:02}; CREATE TABLE t{number:02}.version (version_num text)")
        do(f"INSERT INTO t{number:02}.version VALUES ('b7')")
    (note,) = [n for n in applied(url, blueprint).stores[0].notes if "not of shop" in n]
    assert note.startswith(
        "t00.version (b7), t01.version (b7), t02.version (b7), t03.version (b7), "
        "t04.version (b7) and 35 more record"
    )


#: What a version table elsewhere may hold besides, so that it is taken for ours.
NEWER = {
    "its tables are there": ("CREATE TABLE meta.shop_version (version_num varchar(32))", True),
    "it carries our mark": (
        """
        CREATE TABLE meta.shop_version (version_num varchar(32));
        COMMENT ON TABLE meta.shop_version IS 'is-db-bootstrap: blueprint shop; revisions s1 s2 s3'
        """,
        False,
    ),
}


@pytest.mark.parametrize("evidence", NEWER)
def test_a_newer_revision_of_our_chain_in_another_table_is_a_conflict(url, blueprint, do, evidence):
    made, with_tables = NEWER[evidence]
    do("CREATE SCHEMA meta")
    do(made)
    do("INSERT INTO meta.shop_version VALUES ('s3')")
    if with_tables:
        do("CREATE TABLE s1 (id integer)")
    error = applied(url, blueprint).stores[0].exception
    assert isinstance(error, StoreConflict)
    assert "meta.shop_version" in error.message
    assert "s3" in error.message
    assert tables(do) == ({"s1"} if with_tables else set())


def test_an_unknown_version_table_that_nothing_ties_to_us_is_told(url, blueprint, do):
    do("CREATE TABLE their_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO their_version VALUES ('0f3c')")
    result = applied(url, blueprint)
    assert result.ok
    assert any("public.their_version (0f3c) records" in note for note in result.stores[0].notes)
    assert not applied(url, blueprint).stores[0].notes[1:]  # nothing is pending, nothing is told


#: How a release makes a table anew that an earlier one has made.
AGAIN = {
    "dropped": "DROP TABLE s1; CREATE TABLE s1 (id bigint)",
    "dropped if it is there": 'DROP TABLE IF EXISTS other, public."s1" CASCADE; CREATE TABLE s1 ()',
    "renamed": "ALTER TABLE s1 RENAME TO old; CREATE TABLE s1 (LIKE old); DROP TABLE old",
    "moved": "ALTER TABLE public.s1 SET SCHEMA away; CREATE TABLE s1 (id bigint)",
}
ANEW = """
from alembic import op
revision = {name!r}
down_revision = {before!r}
def upgrade():
    op.execute({statements!r})
"""


def test_a_release_that_makes_a_table_anew_runs_beside_other_applications(url, blueprint, do):
    migrate.upgrade(blueprint, "s1", url=url.reveal(scheme="postgresql"))
    do("CREATE SCHEMA away; CREATE TABLE airflow_version (version_num varchar(32))")
    do("INSERT INTO airflow_version VALUES ('e1a1')")
    before = "s1"
    for name, statements in zip(("s2", "s3", "s4", "s5"), AGAIN.values(), strict=True):
        text = ANEW.format(name=name, before=before, statements=statements)
        (blueprint.migrations / f"{name}.py").write_text(text)
        result = applied(url, blueprint)
        assert result.ok, result
        assert any("airflow_version (e1a1) records" in note for note in result.stores[0].notes)
        before = name


def test_a_table_made_anew_hides_no_other_that_is_there_already(url, blueprint, do):
    migrate.upgrade(blueprint, "s1", url=url.reveal(scheme="postgresql"))
    do("CREATE TABLE their_version (version_num varchar(32)); CREATE TABLE s2 (id integer)")
    do("INSERT INTO their_version VALUES ('0f3c')")
    text = ANEW.format(name="s3", before="s2", statements=AGAIN["dropped"] + "; DROP TABLE s2")
    (blueprint.migrations / "s3.py").write_text(text)
    error = applied(url, blueprint).stores[0].exception
    assert isinstance(error, StoreConflict)
    assert ", and s2 is there already" in error.message
    ignoring, stamping = error.hint.index("say so: POSTGRES_IGNORED"), error.hint.index("stamp")
    assert ignoring < stamping


def test_a_version_table_that_has_moved_on_after_our_stamp_is_a_conflict(url, blueprint, do):
    do("CREATE TABLE shop_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO shop_version VALUES ('s1')")
    migrate.stamp(blueprint, "s1", url=url.reveal(scheme="postgresql"))
    do("UPDATE shop_version SET version_num = 's2'")
    error = applied(url, blueprint).stores[0].exception
    assert isinstance(error, StoreConflict)
    assert "Revision s2 of shop is recorded in public.shop_version" in error.message
    do("UPDATE shop_version SET version_num = 's3'")
    do("CREATE TABLE s2 (id integer)")
    error = applied(url, blueprint).stores[0].exception
    assert isinstance(error, StoreConflict)
    assert "public.shop_version (s3)" in error.message


def test_between_the_branches_of_a_merge_only_what_is_left_is_pending(url, blueprint, do):
    for name, before in (("s3", "s1"), ("s4", ("s2", "s3"))):
        text = REVISION.format(name=name, before=before)
        (blueprint.migrations / f"{name}.py").write_text(text)
    assert applied(url, blueprint).ok
    migrate.downgrade(blueprint, 1, url=url.reveal(scheme="postgresql"))
    do("CREATE TABLE their_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO their_version VALUES ('0f3c')")
    (found,) = applied(url, blueprint).stores
    assert [change.name for change in found.changes] == ["s4"], found


def test_a_version_column_of_a_domain_is_one(url, blueprint, do):
    do("CREATE DOMAIN revision_id AS varchar(32); CREATE DOMAIN ours AS revision_id")
    do("CREATE TABLE shop_version (version_num ours PRIMARY KEY)")
    do("INSERT INTO shop_version VALUES ('s1')")
    error = applied(url, blueprint).stores[0].exception
    assert isinstance(error, StoreConflict)
    assert "public.shop_version" in error.message


SHARED = """
from alembic import op
revision = "b1"
down_revision = None
def upgrade():
    op.execute("CREATE TABLE own (id integer)")
    op.execute("CREATE TABLE {unless} bill.items (cents integer)")
    op.execute("UPDATE bill.items SET cents = cents * 100")
def downgrade():
    pass
"""


@pytest.mark.parametrize("unless", ["", "IF NOT EXISTS"])
def test_a_table_that_two_deployments_share_is_a_conflict_or_told(url, do, tmp_path, unless):
    place = tmp_path / "bill"
    place.mkdir()
    (place / "b1.py").write_text(SHARED.format(unless=unless))
    bill = Blueprint("bill", "of a test", migrations=place)
    do("CREATE SCHEMA bill")
    assert applied(url, bill, schema="a").ok
    result = applied(url, bill, schema="b")
    if unless:
        assert any("also change bill.items" in note for note in result.stores[0].notes)
    else:
        error = result.stores[0].exception
        assert isinstance(error, StoreConflict)
        assert error.subject == "bill.items"
        assert "recorded in schema a" in error.message


def test_a_stamp_is_the_way_out(url, blueprint, do):
    do("CREATE TABLE shop_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO shop_version VALUES ('s1')")
    settings = Settings.load(
        blueprint, environ={}, flags={"postgres_url": url.reveal(scheme="postgresql")}
    )
    migrate.stamp(blueprint, "s1", settings=settings)
    result = applied(url, blueprint)
    assert [c.name for c in result.stores[0].changes] == ["s2"]


def test_one_blueprint_lives_in_two_schemas_of_a_database(url, blueprint):
    for schema in ("a", "b", "public"):
        assert applied(url, blueprint, schema=schema).ok
        assert applied(url, blueprint, schema=schema).stores[0].changes == ()


def test_two_blueprints_live_in_two_schemas_and_foreign_chains_are_left_alone(
    url, blueprint, do, tmp_path
):
    do("CREATE SCHEMA theirs")
    do("CREATE TABLE theirs.alembic_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO theirs.alembic_version VALUES ('0f3c')")
    do("CREATE TABLE theirs.releases (version_num integer)")
    do("INSERT INTO theirs.releases VALUES (1)")
    other = declared(tmp_path, "desk", "d1")
    assert applied(url, other, schema="desk").ok
    assert applied(url, blueprint).ok


def test_what_may_not_be_read_is_refused_and_never_taken_for_empty(url, blueprint, do):
    do("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    try:
        do("GRANT ALL ON SCHEMA public TO clerk")
        do("CREATE SCHEMA meta")
        do("GRANT USAGE ON SCHEMA meta TO clerk")
        do("CREATE TABLE meta.shop_version (version_num varchar(32) PRIMARY KEY)")
        do("INSERT INTO meta.shop_version VALUES ('s1')")
        clerk = replace(url, username="clerk", password="x")
        store = PostgreSQLBootstrapper(clerk, blueprint)
        place = r"meta\.shop_version \(this role may not read it\) of .* may record"
        with pytest.raises(AccessDenied, match=place) as caught:
            store.plan()
        assert "POSTGRES_IGNORED_VERSION_TABLES=meta.shop_version" in caught.value.hint
        do(caught.value.hint.partition("run: ")[2].partition(" If it")[0])
        do("ALTER TABLE meta.shop_version ENABLE ROW LEVEL SECURITY")
        place = r"meta\.shop_version \(row level security may hide its rows"
        with pytest.raises(AccessDenied, match=place):
            store.plan()
        do("ALTER TABLE meta.shop_version SET SCHEMA public")
        with pytest.raises(AccessDenied, match=r"public\.shop_version \(row level security"):
            store.plan()
        do("ALTER TABLE shop_version DISABLE ROW LEVEL SECURITY")
        with pytest.raises(StoreConflict, match=r"public\.shop_version"):
            store.plan()
        do("REVOKE ALL ON shop_version FROM clerk")
        migrate.stamp(blueprint, "s1", url=clerk.reveal(scheme="postgresql"))
        (note,) = [n for n in store.plan().notes if "shop_version" in n]  # our own record counts
        assert "could not be looked into. The run goes on from public.alembic_version" in note
        store.close()
    finally:
        do("DROP OWNED BY clerk")
        do("DROP ROLE clerk")


@pytest.fixture
def clerk(url, do):
    """The address of a role that owns the schema `desk` and nothing else."""
    do("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    do("CREATE SCHEMA desk AUTHORIZATION clerk")
    try:
        yield replace(url, username="clerk", password="x")
    finally:
        do("DROP OWNED BY clerk CASCADE")
        do("DROP ROLE clerk")


@pytest.mark.parametrize("with_sql", [True, False])
def test_a_version_table_in_a_schema_that_we_may_not_use_is_told(
    url, blueprint, do, clerk, with_sql
):
    if not with_sql:
        text = (blueprint.migrations / "s2.py").read_text()
        asks = text.replace(
            "upgrade():", "upgrade():\n    op.get_bind().exec_driver_sql('SELECT 1')"
        )
        (blueprint.migrations / "s2.py").write_text(asks)
    recorded_by_another(do)
    do("UPDATE billing.alembic_version SET version_num = '77aa'")
    place = "billing.alembic_version (this role may not use its schema)"
    do("CREATE TABLE desk.s1 (id integer)")
    error = applied(clerk, blueprint, schema="desk").stores[0].exception
    assert isinstance(error, AccessDenied)
    assert place in error.message
    do("DROP TABLE desk.s1")
    result = applied(clerk, blueprint, schema="desk")
    assert result.ok, result
    (note,) = [note for note in result.stores[0].notes if "billing" in note]
    assert note.startswith(f"{place} could not be looked into.")


def test_what_may_not_be_read_in_our_schema_or_in_public_is_refused_in_any_case(
    url, blueprint, do, clerk
):
    do("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    do("CREATE TABLE shop_version (version_num varchar(32))")
    error = applied(clerk, blueprint, schema="desk").stores[0].exception
    assert isinstance(error, AccessDenied)
    assert "public.shop_version (this role may not read it)" in error.message


def test_a_table_with_further_columns_is_no_version_table_unless_it_says_so(
    url, blueprint, do, clerk
):
    do("CREATE TABLE contract (id integer PRIMARY KEY, version_num text, body text)")
    do("CREATE TABLE away (version_num text, body text)")
    with psycopg.connect(url.reveal(scheme="postgresql")) as other:
        do("GRANT SELECT ON away TO clerk")
        other.execute("LOCK TABLE away IN ACCESS EXCLUSIVE MODE")
        store = PostgreSQLBootstrapper(clerk, blueprint, schema="desk")
        assert not [n for n in store.plan().notes if "contract" in n or "away" in n]
    do("COMMENT ON TABLE contract IS 'is-db-bootstrap: blueprint shop; revisions s1'")
    with pytest.raises(AccessDenied, match=r"public\.contract \(this role may not read it"):
        store.plan()
    do("COMMENT ON TABLE contract IS NULL; ALTER TABLE contract RENAME TO alembic_version_2")
    with pytest.raises(AccessDenied, match=r"public\.alembic_version_2 \("):
        store.plan()
    do("INSERT INTO away VALUES ('s1'); DROP TABLE alembic_version_2")  # what can be read, is
    with pytest.raises(StoreConflict, match=r"recorded in public\.away"):
        store.plan()
    store.close()


def test_an_adopted_deployment_that_carries_no_mark_gets_one_by_the_stamp_of_the_hint(
    url, blueprint, do
):
    do("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)")
    do("INSERT INTO alembic_version VALUES ('s2'); CREATE TABLE s1 (); CREATE TABLE s2 ()")
    assert applied(url, blueprint).stores[0].changes == ()
    hint = applied(url, blueprint, schema="tenant").stores[0].exception.hint
    stamp = "`DB_SCHEMA=public is-db-bootstrap migrate stamp s2`"
    assert stamp in hint
    do("CREATE SCHEMA tenant; CREATE TABLE tenant.s1 ()")  # whose table that is, is not known
    assert stamp not in applied(url, blueprint, schema="tenant").stores[0].exception.hint
    do("DROP TABLE tenant.s1")
    migrate.stamp(blueprint, "s2", url=url.reveal(scheme="postgresql"))
    result = applied(url, blueprint, schema="tenant")
    assert [change.name for change in result.stores[0].changes][-2:] == ["s1", "s2"], result


def test_a_run_with_nothing_to_do_does_not_look_elsewhere(url, blueprint, do):
    assert applied(url, blueprint).ok
    do("CREATE TABLE shop_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO shop_version VALUES ('s1')")
    with psycopg.connect(url.reveal(scheme="postgresql")) as other:
        other.execute("LOCK TABLE shop_version IN ACCESS EXCLUSIVE MODE")  # a look would be busy
        assert applied(url, blueprint).ok  # our own record counts

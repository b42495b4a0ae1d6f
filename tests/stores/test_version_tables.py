"""A version table of another name or schema is found before anything runs.

Other deployments are left alone.
"""

from __future__ import annotations

import os
from dataclasses import replace

import psycopg
import pytest

from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreBusy, StoreConflict
from is_db_bootstrap.settings import Settings, StoreUrl
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


@pytest.mark.parametrize(
    "place",
    [
        "meta.shop_version",
        "public.shop_version",
        "meta.alembic_version",
        '"Odd % one"."its ""table"""',
    ],
)
@pytest.mark.parametrize("kind", ["varchar(32)", "text", "char(32)"])
def test_our_revisions_in_another_table_are_a_conflict_that_names_it(
    url, blueprint, do, place, kind
):
    do("CREATE SCHEMA meta")
    do('CREATE SCHEMA "Odd % one"')
    do(f"CREATE TABLE {place} (version_num {kind} PRIMARY KEY)")
    do(f"INSERT INTO {place} VALUES ('s1')")
    result = applied(url, blueprint)
    error = result.stores[0].exception
    assert isinstance(error, StoreConflict)
    assert result.exit_code == 6
    assert place.replace('""', "~").replace('"', "").replace("~", '"') in error.message
    assert "s1" in error.message
    assert not {"s1", "s2", "alembic_version"} & (tables(do) - {place.partition(".")[2]})


def recorded_by_another(do):
    do("CREATE SCHEMA billing")
    do("CREATE TABLE billing.alembic_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO billing.alembic_version VALUES ('s2')")


def test_our_ids_in_another_table_without_our_tables_name_both_that_it_may_mean(url, blueprint, do):
    recorded_by_another(do)
    hint = applied(url, blueprint).stores[0].exception.hint
    assert "No table that these revisions create is in schema public or billing." in hint
    assert "another application's, give your revisions other ids" in hint
    assert "stamp s2`, but only where the tables of that revision are there" in hint
    assert "DB_SCHEMA=billing" not in hint


@pytest.mark.parametrize("schema", ["public", "billing"])
def test_our_ids_in_another_table_with_our_tables_lead_on(url, blueprint, do, schema):
    recorded_by_another(do)
    do(f"CREATE TABLE {schema}.s1 (id integer)")
    hint = applied(url, blueprint).stores[0].exception.hint
    assert "set DB_SCHEMA=billing" in hint
    assert "other ids" not in hint


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


def test_another_version_table_that_is_locked_is_busy_and_named(url, blueprint, do):
    recorded_by_another(do)
    do("CREATE TABLE billing.open (version_num text)")
    with psycopg.connect(url.reveal(scheme="postgresql")) as other:
        other.execute("LOCK TABLE billing.alembic_version IN ACCESS EXCLUSIVE MODE")
        store = PostgreSQLBootstrapper(url, blueprint)
        with pytest.raises(StoreBusy, match=r"billing\.alembic_version may record") as caught:
            store.plan()
        store.close()
        assert str(other.info.backend_pid) in caught.value.message


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


def test_what_may_not_be_read_is_said_and_never_taken_for_empty(url, blueprint, do):
    do("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    try:
        do("GRANT ALL ON SCHEMA public TO clerk")
        do("CREATE SCHEMA meta")
        do("CREATE TABLE meta.shop_version (version_num varchar(32) PRIMARY KEY)")
        do("INSERT INTO meta.shop_version VALUES ('s1')")
        clerk = replace(url, username="clerk", password="x")
        store = PostgreSQLBootstrapper(clerk, blueprint)
        assert any(
            "meta.shop_version may record revisions and cannot be read" in note
            for note in store.plan().notes
        )
        do("GRANT USAGE ON SCHEMA meta TO clerk")
        do("GRANT SELECT ON meta.shop_version TO clerk")
        do("ALTER TABLE meta.shop_version ENABLE ROW LEVEL SECURITY")
        assert any("meta.shop_version may record" in note for note in store.plan().notes)
        do("ALTER TABLE meta.shop_version SET SCHEMA public")
        with pytest.raises(AccessDenied, match=r"public\.shop_version .*may record revisions"):
            store.plan()
        do("ALTER TABLE shop_version DISABLE ROW LEVEL SECURITY")
        with pytest.raises(StoreConflict, match=r"public\.shop_version"):
            store.plan()
        store.close()
    finally:
        do("DROP OWNED BY clerk")
        do("DROP ROLE clerk")


def test_a_run_with_nothing_to_do_does_not_look_elsewhere(url, blueprint, do):
    assert applied(url, blueprint).ok
    do("CREATE TABLE shop_version (version_num varchar(32) PRIMARY KEY)")
    do("INSERT INTO shop_version VALUES ('s1')")
    with psycopg.connect(url.reveal(scheme="postgresql")) as other:
        other.execute("LOCK TABLE shop_version IN ACCESS EXCLUSIVE MODE")  # a look would be busy
        assert applied(url, blueprint).ok  # our own record counts

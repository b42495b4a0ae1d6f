"""What a server gives a role or a database ends no revision, and the search path is the team's."""

from __future__ import annotations

import json
import textwrap
import uuid
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from is_db_bootstrap.app import bootstrapper, orchestrator
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ChangeFailed, ConfigurationError, StoreUnavailable
from is_db_bootstrap.results import Mode
from is_db_bootstrap.revision import refresh
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from team_project import TeamProject

pytestmark = pytest.mark.postgres

#: Milliseconds of each limit, and seconds that each revision takes longer.
LIMIT_MS = 300
LONGER_S = 0.5
LIMITS = (
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
)
TABLE = 'op.create_table("account", sa.Column("cents", sa.Integer))'
#: One statement that takes long, and a pause in a transaction. The lock is idle meanwhile.
SLOW = f'{TABLE}\nop.execute("SELECT pg_sleep({LONGER_S})")\nimport time\ntime.sleep({LONGER_S})'


def revision(folder, name, before, upgrade):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(
        f'"""{name}"""\n'
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        "\n"
        f"revision = {name!r}\n"
        f"down_revision = {before!r}\n"
        "\n"
        "\n"
        "def upgrade():\n"
        f"{textwrap.indent(upgrade, '    ')}\n"
        "\n"
        "\n"
        "def downgrade():\n"
        "    pass\n"
    )


@pytest.fixture
def database(postgres_url):
    """The address of an empty database."""
    url = StoreUrl.parse("postgres", postgres_url)
    with psycopg.connect(replace(url, database="postgres").reveal(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(url.database)))
    return url


def run_in(url, statement, *names):
    """The rows of a statement of an administrator."""
    with psycopg.connect(url.reveal(), autocommit=True) as admin:
        found = admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
        return found.fetchall() if found.description else []


@contextmanager
def limited_role(url, *settings):
    """The address with a role that owns the database and has these settings, as `name = value`."""
    name = f"limited_{uuid.uuid4().hex[:8]}"
    run_in(url, "CREATE ROLE {} LOGIN CREATEDB PASSWORD 'x'", name)
    run_in(url, "ALTER DATABASE {} OWNER TO {}", url.database, name)
    run_in(url, "ALTER SCHEMA public OWNER TO {}", name)
    try:
        for setting in settings:
            run_in(url, f"ALTER ROLE {{}} SET {setting}", name)
        yield replace(url, username=name, password="x")
    finally:
        run_in(url, "ALTER DATABASE {} OWNER TO CURRENT_USER", url.database)
        run_in(url, "DROP OWNED BY {} CASCADE", name)
        run_in(url, "DROP ROLE {}", name)


@pytest.fixture
def shop(tmp_path):
    """`shop(SLOW)`: a blueprint with one revision."""

    def make(upgrade):
        revision(tmp_path / "migrations", "a1", None, upgrade)
        return Blueprint("shop", "accounts", migrations=tmp_path / "migrations")

    return make


def applied(url, blueprint, **options):
    """The result of an apply."""
    store = PostgreSQLBootstrapper(url, blueprint, timing=Timing(timeout_s=20), **options)
    return BootstrapOrchestrator([store], blueprint=blueprint.name).run()


def places(url):
    """Where the table and the record of the revision are."""
    query = (
        "SELECT schemaname, tablename FROM pg_tables "
        "WHERE tablename IN ('account', 'alembic_version') ORDER BY 2"
    )
    return run_in(url, query)


# --- limits


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_of_a_role_ends_no_revision_and_no_lock(database, shop, limit):
    with limited_role(database, f"{limit} = {LIMIT_MS}") as url:
        applied(url, shop(SLOW)).raise_for_failure()


@pytest.mark.parametrize("postgres_url", ["18", "14"], indirect=True)
def test_limits_of_a_database_end_no_revision_and_no_lock(database, shop):
    has = {name for (name,) in run_in(database, "SELECT name FROM pg_settings")}
    for limit in has.intersection(LIMITS):
        run_in(database, f"ALTER DATABASE {{}} SET {limit} = {LIMIT_MS}", database.database)
    applied(database, shop(SLOW)).raise_for_failure()


def applied_by_team(team, url):
    """The result of an apply by the team's `env.py`, whose address is that of the run."""
    blueprint = load_blueprint(team.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": url.reveal()})
    return orchestrator(blueprint, settings, RunOptions()).run(Mode.APPLY)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_limits_of_a_role_end_no_revision_of_a_team(database, tmp_path, monkeypatch, driver):
    limits = [f"{limit} = {LIMIT_MS}" for limit in LIMITS if limit != "lock_timeout"]
    with limited_role(database, *limits) as url:
        team = TeamProject(tmp_path, url.reveal(), driver)
        monkeypatch.setenv("SHOP_DATABASE", team.address)
        team.revision("a1", None, SLOW)
        applied_by_team(team, url).raise_for_failure()


@pytest.mark.parametrize("way", ["a statement", "the address"])
def test_a_limit_that_a_team_sets_itself_holds(database, tmp_path, monkeypatch, way):
    team = TeamProject(tmp_path, database.reveal())
    address = team.address
    if way == "the address":
        address += f"?options=-cstatement_timeout%3D{LIMIT_MS}"
    else:
        env = tmp_path / "db/env.py"
        limited = f'connection.execute(text("SET statement_timeout = {LIMIT_MS}"))\n    '
        configure = "context.configure(connection"
        env.write_text(env.read_text().replace(configure, f"{limited}{configure}"))
    monkeypatch.setenv("SHOP_DATABASE", address)
    team.revision("a1", None, SLOW)
    with pytest.raises(ChangeFailed, match="statement timeout"):
        applied_by_team(team, database).raise_for_failure()


def test_a_look_is_bounded_on_the_server_until_the_run_has_the_lock(database, shop):
    """A session that only looks waits for no lock longer than its phase may take."""
    timing = Timing(phase_timeout_s=30)
    store = PostgreSQLBootstrapper(database, shop(TABLE), timing=timing)
    store.ping(5)
    limits = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    try:
        assert store.reader().execute(limits).fetchone() == ("31s", "32s")
        lock = store.try_lock("a run")
        assert store.reader().execute(limits).fetchone() == ("0", "0")
        lock.release()
    finally:
        store.close()


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
def test_who_is_read_only_by_default_is_told_the_setting(database, shop, of):
    with limited_role(database) as url:
        whose = url.username if of == "ROLE" else url.database
        run_in(database, f"ALTER {of} {{}} SET default_transaction_read_only = on", whose)
        store = PostgreSQLBootstrapper(url, shop(TABLE))
        try:
            with pytest.raises(StoreUnavailable, match="default_transaction_read_only") as raised:
                store.ping(5)
        finally:
            store.close()
            off = f"ALTER {of} {{}} RESET default_transaction_read_only"
            with psycopg.connect(
                replace(database, database="postgres").reveal(), autocommit=True
            ) as admin:
                admin.execute(sql.SQL(off).format(sql.Identifier(whose)))
        assert "RESET default_transaction_read_only" in raised.value.hint


# --- the search path


@contextmanager
def path_by_address(url):
    yield replace(url, query=(*url.query, ("options", "-csearch_path=tenant")))


@contextmanager
def path_by_variable(url):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGOPTIONS", "-csearch_path=tenant")
        yield url


@contextmanager
def path_by_role(url):
    with limited_role(url, "search_path = tenant") as limited:
        run_in(url, "ALTER SCHEMA tenant OWNER TO {}", limited.username)
        yield limited


@contextmanager
def path_by_database(url):
    run_in(url, "ALTER DATABASE {} SET search_path = tenant", url.database)
    yield url


PATHS = [path_by_address, path_by_variable, path_by_role, path_by_database]


@pytest.mark.parametrize("path", PATHS)
def test_tables_land_where_the_search_path_leads(database, shop, path):
    run_in(database, "CREATE SCHEMA tenant")
    with path(database) as url:
        applied(url, shop(TABLE)).raise_for_failure()
        found = [("tenant", "account"), ("tenant", "alembic_version")]
        assert places(database) == found
        assert not applied(url, shop(TABLE)).stores[0].changes


def test_db_schema_is_before_every_other_search_path(database, shop):
    run_in(database, "CREATE SCHEMA tenant")
    with path_by_address(database) as url:
        blueprint = shop(TABLE)
        settings = Settings.load(
            blueprint, environ={"POSTGRES_URL": url.reveal(), "DB_SCHEMA": "public"}
        )
        orchestrator(blueprint, settings, RunOptions()).run(Mode.APPLY).raise_for_failure()
    assert places(database) == [("public", "account"), ("public", "alembic_version")]


def test_a_search_path_that_leads_nowhere_is_refused_in_one_line(database, shop):
    with path_by_address(database) as url:
        result = applied(url, shop(TABLE))
    error = result.stores[0].exception
    assert isinstance(error, ConfigurationError)
    assert "the search path tenant names no schema that is there" in error.message
    assert "DB_SCHEMA=tenant" in error.hint
    assert places(database) == []


def test_a_search_path_that_leads_away_from_the_record_is_refused(database, shop):
    """As earlier versions left it, which set a path of their own."""
    blueprint = shop(TABLE)
    applied(database, blueprint).raise_for_failure()
    run_in(database, "CREATE SCHEMA tenant")
    with path_by_address(database) as url:
        error = applied(url, blueprint).stores[0].exception
        assert isinstance(error, ConfigurationError)
        assert "DB_SCHEMA=public" in error.hint
        applied(url, blueprint, schema="public").raise_for_failure()


TRIGRAMS = (
    'op.execute("CREATE SCHEMA IF NOT EXISTS ext")\n'
    'op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA ext")\n'
    'op.create_table("account", sa.Column("note", sa.Text))\n'
    'op.execute("CREATE INDEX by_note ON account USING gin (note gin_trgm_ops)")'
)


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
def test_an_extension_in_another_schema_is_found(database, shop, of):
    """Also in a scratch database. `verify` sees what the catalogue has, whatever the path is."""
    blueprint = shop(TRIGRAMS)
    with limited_role(database) as url:
        run_in(database, "CREATE SCHEMA ext")
        run_in(database, "CREATE EXTENSION pg_trgm SCHEMA ext")
        run_in(database, "GRANT USAGE ON SCHEMA ext TO {}", url.username)
        whose = url.username if of == "ROLE" else url.database
        run_in(database, f"ALTER {of} {{}} SET search_path = public, ext", whose)
        settings = Settings.load(blueprint, environ={"POSTGRES_URL": url.reveal()})
        refresh(blueprint, settings)
        catalogue = json.loads((blueprint.migrations / "catalogue.json").read_text())
        assert catalogue["objects"]["index"] == {"account.by_note": "gin (note gin_trgm_ops)"}
        for mode in (Mode.APPLY, Mode.VERIFY):
            orchestrator(blueprint, settings, RunOptions()).run(mode).raise_for_failure()
        assert places(database)[0] == ("public", "account")
        store = bootstrapper("postgres", url, blueprint, settings)
        proofs = list(store.selftest())
        store.close()
        assert all(proof.ok for proof in proofs), proofs

"""A team's own Alembic environment is used as it is, with a lock, a plan and a proof around it."""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings
from team_project import TeamProject

pytestmark = pytest.mark.postgres

DRIVERS = ["psycopg", "psycopg2", "asyncpg"]
TABLE = 'op.create_table("account", sa.Column("cents", sa.Integer))\nop.execute("INSERT INTO account VALUES (10)")'
DOUBLE = 'op.execute("UPDATE account SET cents = cents * 2")'


@pytest.fixture
def project(tmp_path, postgres_url, monkeypatch):
    """`project("asyncpg")`: a team's project with two revisions, the second in a dated folder."""

    def make(driver="psycopg"):
        made = TeamProject(tmp_path, postgres_url, driver)
        monkeypatch.setenv("SHOP_DATABASE", made.address)
        made.ini("recursive_version_locations = true")
        made.revision("a1", None, TABLE, place="db/versions/2025")
        made.revision("b2", "a1", DOUBLE, place="db/versions/2026/01")
        return made

    return make


def create(url):
    """An empty database."""
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')


def run(project, mode=Mode.APPLY, *, fails=False, **flags):
    """A run as the command has it, in this process. It raises its failure, unless it `fails`."""
    blueprint = load_blueprint(project.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": project.url})
    result = orchestrator(blueprint, settings, RunOptions(**flags)).run(mode)
    if not fails:
        result.raise_for_failure()
    return result


def changes(result):
    return [change.name for store in result.stores for change in store.changes]


def rows(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("driver", DRIVERS)
def test_stock_alembic_and_the_product_take_turns(project, driver):
    team = project(driver)
    create(team.url)
    team.stock("upgrade", "a1")
    assert changes(run(team, Mode.PLAN)) == ["b2"]
    assert changes(run(team)) == ["b2"]
    team.revision("c3", "b2", DOUBLE)
    team.stock("upgrade", "head")
    assert changes(run(team)) == []
    team.revision("d4", "c3", DOUBLE)
    assert changes(run(team)) == ["d4"]
    team.stock("upgrade", "head")
    assert rows(team.url, "SELECT cents FROM account") == [(80,)]
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [("d4",)]
    assert run(team, Mode.VERIFY).ok


def test_an_empty_database_is_made_by_the_product_alone(project):
    team = project("asyncpg")
    name = team.url.rpartition("/")[2]
    assert changes(run(team)) == [name, "a1", "b2"]
    assert changes(run(team)) == []
    tables = rows(team.url, "SELECT count(*) FROM pg_tables WHERE tablename = 'alembic_version'")
    assert tables == [(0,)]


def test_looking_runs_no_online_branch(project):
    """It may write: this one creates a schema before it configures."""
    team = project()
    create(team.url)
    for mode in (Mode.PLAN, Mode.STATUS, Mode.VERIFY):
        run(team, mode, fails=mode is Mode.VERIFY)
    assert rows(team.url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'meta'") == [(0,)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_another_database_than_the_planned_one_is_refused(project, driver, monkeypatch):
    team = project(driver)
    create(team.url)
    other = f"{team.address.rpartition('/')[0]}/postgres"
    monkeypatch.setenv("SHOP_DATABASE", other)
    with pytest.raises(Exception, match="has reached another database"):
        run(team)
    for url in (team.url, f"{team.url.rpartition('/')[0]}/postgres"):
        assert rows(url, "SELECT count(*) FROM pg_namespace WHERE nspname = 'meta'") == [(0,)]


def test_without_an_offline_branch_the_settings_name_the_version_table(project):
    team = project()
    create(team.url)
    team.env(offline="online(run)")
    with pytest.raises(ConfigurationError, match="opens a connection in its offline branch"):
        run(team, Mode.PLAN)
    team.toml.write_text(
        '[postgres]\nalembic = "alembic.ini"\nversion_table = "shop_version"\n'
        'version_table_schema = "meta"\n'
    )
    assert changes(run(team)) == ["a1", "b2"]
    assert changes(run(team)) == []

"""Databases that were made by hand or by stock Alembic, and that `adopt` takes over as they are."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from is_db_bootstrap import revision
from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import RunOptions, Settings
from team_project import TeamProject

pytestmark = pytest.mark.postgres

ACCOUNT = 'op.create_table("account", sa.Column("id", sa.Integer, primary_key=True))'
CENTS = 'op.add_column("account", sa.Column("cents", sa.Integer))'
BY_HAND = "CREATE TABLE account (id serial PRIMARY KEY, cents integer)"
#: Version tables as teams have them: name, schema, and how messages call them.
VERSION_TABLES = {
    "usual": ("", "alembic_version"),
    "named": ('version_table="shop_version"', "shop_version"),
    "in a schema": (
        'version_table="shop_version", version_table_schema="meta"',
        "meta.shop_version",
    ),
}


@pytest.fixture
def team(tmp_path, postgres_url, monkeypatch):
    """A team's project with two revisions, and its empty database."""
    made = TeamProject(tmp_path, postgres_url)
    monkeypatch.setenv("SHOP_DATABASE", made.address)
    made.revision("a1", None, ACCOUNT)
    made.revision("b2", "a1", CENTS)
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return made


def run(project, mode=Mode.ADOPT, *, foresees=False, **flags):
    """A run as the command has it, in this process."""
    blueprint = load_blueprint(project.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": project.url})
    engine = orchestrator(blueprint, settings, RunOptions(**flags))
    return engine.run(mode, foresees=foresees)


def sql(url, text):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


def everything(url):
    """All tables with their owners, columns and rows, without our own schema."""
    tables = sql(
        url,
        "SELECT schemaname, tablename, tableowner FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'is_db_bootstrap') "
        "ORDER BY 1, 2",
    )
    return [(*each, sql(url, f'SELECT *, xmin FROM "{each[0]}"."{each[1]}"')) for each in tables]


def changes(result):
    return [(each.kind, each.outcome) for store in result.stores for each in store.changes]


def objects(result):
    return [drift.object for store in result.stores for drift in store.drifts]


def refresh(project):
    blueprint = load_blueprint(project.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": project.url})
    revision.refresh(blueprint, settings)


@pytest.mark.parametrize("table", VERSION_TABLES)
@pytest.mark.parametrize("has_catalogue", [True, False])
def test_a_database_of_stock_alembic_is_adopted_without_touching_it(team, table, has_catalogue):
    options, shown = VERSION_TABLES[table]
    team.env(options)
    team.stock("upgrade", "head")
    if has_catalogue:
        refresh(team)
    before = everything(team.url)
    foreseen = run(team, foresees=True)
    assert changes(foreseen) == [("record", Outcome.PLANNED)]
    assert sql(team.url, "SELECT to_regclass('is_db_bootstrap.lineage')::text") == [(None,)]

    result = run(team)
    assert result.exit_code == 0, result
    assert (result.mode, result.outcome) == (Mode.ADOPT, Outcome.CHANGED)
    assert everything(team.url) == before
    assert sql(team.url, "SELECT revisions FROM is_db_bootstrap.lineage") == [(["a1", "b2"],)]
    assert sql(team.url, f"SELECT version_num FROM {shown}") == [("b2",)]
    team.stock("current", check_heads=True)  # raises unless it is at head

    assert run(team, Mode.VERIFY).exit_code == 0
    applied = run(team, Mode.APPLY)
    assert (applied.exit_code, changes(applied)) == (0, [])
    again = run(team)
    assert (again.exit_code, again.outcome) == (0, Outcome.UNCHANGED)


def test_tables_made_by_hand_are_recorded_when_they_equal_the_catalogue(team):
    refresh(team)
    sql(team.url, BY_HAND)
    result = run(team)
    assert result.exit_code == 0, result
    assert sql(team.url, "SELECT version_num FROM meta.shop_version") == [("b2",)]
    team.stock("current", check_heads=True)
    assert run(team, Mode.VERIFY).exit_code == 0
    assert changes(run(team, Mode.APPLY)) == []

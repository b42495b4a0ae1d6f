"""What fills an empty database before the first revision: `create_all`, or an SQL file."""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings
from team_project import TeamProject

pytestmark = pytest.mark.postgres

#: The models of today: those of `b2`.
MODELS = """
import os

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]


def create_all():
    Base.metadata.create_all(sa.create_engine(os.environ["SHOP_DATABASE"]))


async def create_all_async():
    engine = create_async_engine(os.environ["SHOP_DATABASE"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


def with_engine(engine):
    Base.metadata.create_all(engine)


def with_url(url):
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    Base.metadata.create_all(engine)


def with_connection(connection):
    Base.metadata.create_all(connection)
"""
#: What only `create_all` begins: the first revision changes its table.
FIRST = 'op.add_column("account", sa.Column("note", sa.String(), nullable=False))'
SECOND = 'op.create_index("by_note", "account", ["note"])'


@pytest.fixture
def project(tmp_path, postgres_url, monkeypatch):
    """`project("psycopg2")`: a team's project whose first revision needs a table."""

    def make(driver="psycopg", baseline="shop.models:create_all", revision="a1"):
        made = TeamProject(tmp_path, postgres_url, driver)
        monkeypatch.setenv("SHOP_DATABASE", made.address)
        made.write("shop/__init__.py", "")
        made.write("shop/models.py", MODELS)
        made.revision("a1", None, FIRST)
        made.revision("b2", "a1", SECOND)
        declare(made, baseline, revision)
        return made

    return make


def declare(team, baseline, revision):
    more = f'baseline_revision = "{revision}"\n' if revision else ""
    team.toml.write_text(f'[postgres]\nalembic = "alembic.ini"\nbaseline = "{baseline}"\n{more}')


def run(team, mode=Mode.APPLY, *, fails=False, **flags):
    """A run as the command has it, in this process. It raises its failure, unless it `fails`."""
    blueprint = load_blueprint(team.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": team.url})
    result = orchestrator(blueprint, settings, RunOptions(**flags)).run(mode)
    if not fails:
        result.raise_for_failure()
    return result


def changes(result):
    return [change.name for store in result.stores for change in store.changes]


def rows(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


WAYS = [
    ("psycopg", "create_all"),
    ("psycopg2", "create_all"),
    ("asyncpg", "create_all_async"),
    ("psycopg", "with_engine"),
    ("psycopg", "with_url"),
    ("psycopg2", "with_connection"),
    ("psycopg", "Base.metadata.create_all"),
]


@pytest.mark.parametrize(("driver", "way"), WAYS, ids=[f"{d}-{w}" for d, w in WAYS])
def test_an_empty_database_is_filled_by_a_function_and_goes_on_from_there(project, driver, way):
    source = f"shop.models:{way}"
    team = project(driver, source)
    name = team.url.rpartition("/")[2]
    assert changes(run(team, Mode.PLAN)) == [name, source, "b2"]
    assert changes(run(team)) == [name, source, "b2"]
    assert changes(run(team)) == []
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [("b2",)]
    assert rows(team.url, "SELECT count(*) FROM account") == [(0,)]
    assert rows(team.url, "SELECT to_regclass('by_note') IS NOT NULL") == [(True,)]
    assert rows(team.url, "SELECT count(*) FROM is_db_bootstrap.begun") == [(0,)]
    team.stock("upgrade", "head")

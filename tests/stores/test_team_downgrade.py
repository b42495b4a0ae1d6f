"""Moves along a team's own history, up and down, end as those of the stock command do."""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import BootstrapError, StoreConflict
from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost
from team_project import OPTIONS, TeamProject

pytestmark = pytest.mark.postgres

DRIVERS = ["psycopg", "psycopg2", "asyncpg"]
DOWN = "def downgrade():\n    pass"


def history(team):
    """A base, two branches that are merged, and a label with a dependency on one of them."""

    def add(name, before, more="", table=True):
        team.revision(name, before, f'op.execute("CREATE TABLE t_{name} (id int)")', more=more)
        path = team.folder / "db/versions" / f"{name}.py"
        undo = f'def downgrade():\n    op.execute("DROP TABLE t_{name}")'
        path.write_text(path.read_text().replace(DOWN, undo))

    add("a100", None)
    add("b200", "a100")
    add("c300", "a100")
    add("m400", ("b200", "c300"))
    add("d500", "m400")
    add("n100", None, 'branch_labels = ("billing",)')
    add("n200", "n100", 'depends_on = ("b200",)')
    add("n300", "n200")


@pytest.fixture
def project(tmp_path, postgres_url, monkeypatch):
    """`project("asyncpg")`: a team's project with that history, in a database that is empty."""

    def make(driver="psycopg"):
        made = TeamProject(tmp_path, postgres_url, driver)
        monkeypatch.setenv("SHOP_DATABASE", made.address)
        history(made)
        server, _, name = made.url.rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return made

    return make


def moved(team, move, *arguments, **options):
    found = load_blueprint(team.toml)
    return move(found, *arguments, environ={"POSTGRES_URL": team.url}, **options)


def rows(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        return [row[0] for row in connection.execute(query).fetchall()]


def state(team):
    """What the version table records, and which tables there are."""
    tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    versions = "SELECT version_num FROM meta.shop_version ORDER BY 1"
    return rows(team.url, versions), rows(team.url, tables)


#: From where, what to do, and the target.
MOVES = [
    ("heads", "downgrade", "billing@-1"),
    ("heads", "downgrade", "billing@base"),
    ("heads", "downgrade", "a1"),
    ("m400", "downgrade", "b200"),
    ("d500", "downgrade", "d500-1"),
    ("a100", "upgrade", "+2"),
    ("b200", "upgrade", "m4"),
    ("a100", "upgrade", "billing@n200"),
    ("a100", "upgrade", "m400+1"),
]


def test_a_move_ends_where_the_stock_command_ends(project):
    team = project()
    differ, both = [], []
    for start, act, target in MOVES:
        ends = []
        for is_stock in (True, False):
            with psycopg.connect(team.url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA IF EXISTS meta CASCADE; DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
            team.stock("upgrade", start)
            try:
                if is_stock:
                    team.stock(act, target)
                else:
                    moved(team, getattr(migrate, act), target)
            except Exception as exc:  # noqa: BLE001 - both may refuse it
                ends.append(f"refused: {exc}"[:200])
            else:
                ends.append(state(team))
        refused = [isinstance(each, str) for each in ends]
        if ends[0] != ends[1] and not all(refused):
            differ.append((start, act, target, *ends))
        both += [(start, act, target)] if all(refused) else []
    assert differ == []
    assert both == [("a100", "upgrade", "+2")]


def fill(team):
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("INSERT INTO t_b200 VALUES (1), (2)")


@pytest.mark.parametrize("driver", DRIVERS)
def test_rows_are_dropped_only_when_it_is_said(project, driver):
    team = project(driver)
    team.stock("upgrade", "m400")
    fill(team)
    before = state(team)
    with pytest.raises(RowsWouldBeLost, match=r"would drop table t_b200 \(2 rows\)"):
        moved(team, migrate.downgrade, "a100")
    assert state(team) == before
    assert moved(team, migrate.downgrade, "-1").revisions == ("m400",)
    assert state(team)[0] == ["b200", "c300"]
    lineage = rows(team.url, "SELECT revisions FROM is_db_bootstrap.lineage")
    assert [sorted(each) for each in lineage] == [["a100", "b200", "c300"]]
    undone = moved(team, migrate.downgrade, "a100", drop_rows=True).revisions
    assert sorted(undone) == ["b200", "c300"]
    assert moved(team, migrate.downgrade, "base").revisions == ("a100",)
    assert state(team) == ([], [])
    assert rows(team.url, "SELECT revisions FROM is_db_bootstrap.lineage") == []
    team.stock("upgrade", "heads")


#: Drops a table that no trial can know of.
MORE = """def downgrade():
    op.execute("DROP TABLE t_d500")
    if op.get_bind().exec_driver_sql("SELECT to_regclass('of_others')").scalar():
        op.execute("DROP TABLE of_others")
"""


@pytest.mark.parametrize(
    ("driver", "single"), [("psycopg", False), ("psycopg2", True), ("asyncpg", False)]
)
def test_a_step_that_does_more_than_its_trial_is_rolled_back(project, driver, single):
    """On the connection of the team's driver, before anything is committed."""
    team = project(driver)
    team.env(OPTIONS if single else f"{OPTIONS}, transaction_per_migration=True")
    path = team.folder / "db/versions/d500.py"
    text = path.read_text()
    path.write_text(text[: text.index("def downgrade")] + MORE)
    team.stock("upgrade", "d500")
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE of_others AS SELECT 1 AS one")
    before = state(team)
    with pytest.raises(RowsWouldBeLost, match=r"drop table of_others \(1 row\)\. The trial"):
        moved(team, migrate.downgrade, "-1")
    assert state(team) == before
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("TRUNCATE of_others")
    assert moved(team, migrate.downgrade, "-1").revisions == ("d500",)
    assert state(team)[0] == ["m400"]
    assert rows(team.url, "SELECT step FROM is_db_bootstrap.begun") == []


def test_a_downgrade_whose_trial_cannot_run_is_asked_about(project):
    team = project()
    path = team.folder / "db/versions/d500.py"
    wrong = 'raise RuntimeError("only where the application runs")'
    path.write_text(path.read_text().replace('op.execute("DROP TABLE t_d500")', wrong))
    team.stock("upgrade", "d500")
    with pytest.raises(RowsWouldBeLost, match=r"not known: the trial in a scratch database failed"):
        moved(team, migrate.downgrade, "-1")
    with pytest.raises(BootstrapError, match=r"RuntimeError .*d500\.py, line "):
        moved(team, migrate.downgrade, "-1", drop_rows=True)
    assert state(team)[0] == ["d500"]


@pytest.mark.parametrize("target", ["zz", "billing@zz", "-1"])
def test_a_target_that_is_no_revision_changes_nothing(project, target):
    team = project()
    team.stock("upgrade", "heads")
    before = state(team)
    with pytest.raises(StoreConflict):
        moved(team, migrate.downgrade, target)
    assert state(team) == before

"""A team's own Alembic environment is used as it is, with a lock, a plan and a proof around it."""

from __future__ import annotations

import builtins
import json
import os
import queue
import re
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine

from is_db_bootstrap import migrate, revision
from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import (
    ChangeFailed,
    ConfigurationError,
    HalfDone,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import RunOptions, Settings
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.selftest_trial import SelfTestTrial
from team_project import OPTIONS, TeamProject

pytestmark = pytest.mark.postgres

DRIVERS = ["psycopg", "psycopg2", "asyncpg"]
TABLE = (
    'op.create_table("account", sa.Column("cents", sa.Integer))\n'
    'op.execute("INSERT INTO account VALUES (10)")'
)
#: What asyncpg sends as it is, and psycopg would take for a parameter.
PERCENT = """op.get_bind().exec_driver_sql("SELECT format('%I', 'a b') WHERE 'abc' LIKE 'a%'")"""
#: An offline branch that gives revisions an argument.
MULTIDB = """
context.configure(url=DATABASE, literal_binds=True, **OPTIONS)
with context.begin_transaction():
    context.run_migrations(engine_name="shop")
"""
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


def refreshed(project):
    """What `revision --refresh` has written."""
    blueprint = load_blueprint(project.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": project.url})
    return revision.refresh(blueprint, settings)


def changes(result):
    """The names of changes, without the record of what was converged together."""
    found = [change for store in result.stores for change in store.changes]
    return [change.name for change in found if change.kind != "memory"]


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
    team.revision("c3", "b2", PERCENT)
    assert changes(run(team)) == [name, "a1", "b2", "c3"]
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
def test_an_environment_that_commits_each_statement_is_applied(project, driver):
    """asyncpg itself does not know that it does: SQLAlchemy begins its transactions."""
    team = project(driver)
    create(team.url)
    env = team.folder / "db" / "env.py"
    each = "poolclass=pool.NullPool, isolation_level='AUTOCOMMIT'"
    env.write_text(env.read_text().replace("poolclass=pool.NullPool", each))
    assert changes(run(team)) == ["a1", "b2"]
    assert changes(run(team)) == []
    assert rows(team.url, "SELECT cents FROM account") == [(20,)]


#: Each connection of env.py is ended by the server before anything is asked on it.
ENDED = """
    @event.listens_for(getattr(engine, "sync_engine", engine), "do_connect")
    def ended(dialect, record, args, options):
        made = dialect.connect(*args, **options)
        driver = getattr(made, "driver_connection", made)
        is_asyncpg = hasattr(driver, "get_server_pid")
        pid = driver.get_server_pid() if is_asyncpg else driver.info.backend_pid
        with psycopg.connect(os.environ["SHOP_SERVER"], autocommit=True) as beside:
            beside.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        return made

"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_that_is_lost_at_once_is_not_another_database(project, driver, monkeypatch):
    team = project(driver)
    create(team.url)
    monkeypatch.setenv("SHOP_SERVER", team.url)
    env = team.folder / "db" / "env.py"
    opens, indent = ("async with", 8) if driver == "asyncpg" else ("with", 4)
    before = f"{' ' * indent}{opens} engine.connect()"
    ended = textwrap.indent(textwrap.dedent(ENDED), " " * indent)
    text = env.read_text().replace(before, ended + before, 1)
    env.write_text(f"import psycopg\nfrom sqlalchemy import event\n{text}")
    with pytest.raises(StoreUnavailable, match="ended a connection of env"):
        run(team)
    env.write_text(text.replace(ended, ""))
    assert changes(run(team)) == ["a1", "b2"]


WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


@pytest.mark.parametrize("made", ["table", "schema"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_another_session_may_be_the_first_to_make_the_version_table(project, driver, made):
    """It has applied a1 as well, and commits while the CREATE of env.py waits for it."""
    team = project(driver)
    create(team.url)
    with psycopg.connect(team.url) as other:
        other.execute("CREATE SCHEMA meta")
        if made == "table":
            other.commit()
        other.execute("CREATE TABLE meta.shop_version (version_num varchar(32) PRIMARY KEY)")
        other.execute("INSERT INTO meta.shop_version VALUES ('a1')")
        other.execute("CREATE TABLE account AS SELECT 10 AS cents")

        def commit_when_waited_for():
            with psycopg.connect(team.url, autocommit=True) as looking:
                until = time.monotonic() + 60
                while time.monotonic() < until and looking.execute(WAITING).fetchone() == (0,):
                    time.sleep(0.02)
            other.commit()

        beside = threading.Thread(target=commit_when_waited_for)
        beside.start()
        assert changes(run(team)) == ["a1", "b2"]
        beside.join()
    assert rows(team.url, "SELECT cents FROM account") == [(20,)]
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [("b2",)]


def test_a_table_that_env_py_itself_makes_twice_is_told(project):
    team = project()
    create(team.url)
    env = team.folder / "db" / "env.py"
    twice = "CREATE TABLE meta.own (id int); CREATE TABLE meta.own (id int)"
    configure = "    context.configure(connection=connection"
    more = f'    connection.execute(text("{twice}"))\n'
    env.write_text(env.read_text().replace(configure, more + configure))
    with pytest.raises(ChangeFailed, match="already exists") as told:
        run(team)
    assert told.value.message.startswith("env.py failed before its first revision: ")
    assert re.search(rf"\({re.escape(str(env))}, line \d+\)", told.value.message)


def test_an_env_py_that_fails_before_its_first_revision_is_named_with_its_line(project):
    team = project()
    create(team.url)
    env = team.folder / "db" / "env.py"
    configure = "    context.configure(connection"
    text = env.read_text().replace(configure, f"    NOWHERE\n{configure}")
    env.write_text(text)
    line = text.splitlines().index("    NOWHERE") + 1
    with pytest.raises(ChangeFailed) as told:
        run(team)
    assert told.value.message == (
        "env.py failed before its first revision: NameError: name 'NOWHERE' is not defined "
        f"({env}, line {line})."
    )
    assert "None of its revisions was begun" in told.value.hint


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


FOLDERS = "context.script.version_locations = ['db/versions/2026']"


def test_folders_that_env_py_names_are_those_of_the_revisions(project, monkeypatch):
    """Prefect has one for each kind of database: its plan was empty, and apply said unchanged."""
    team = project()
    create(team.url)
    monkeypatch.chdir(team.folder)
    env = team.folder / "db" / "env.py"
    env.write_text(env.read_text().replace("if context.is_off", f"{FOLDERS}\nif context.is_off"))
    with pytest.raises(ConfigurationError, match="goes on from a1, which is not there"):
        run(team, Mode.PLAN)
    team.revision("b2", None, TABLE, place="db/versions/2026/01")
    assert changes(run(team, Mode.PLAN)) == ["b2"]
    assert changes(run(team)) == ["b2"]
    team.stock("upgrade", "head")
    assert run(team, Mode.VERIFY).ok


def test_folders_that_env_py_names_in_one_branch_only_are_refused(project, monkeypatch):
    team = project()
    create(team.url)
    monkeypatch.chdir(team.folder)
    env = team.folder / "db" / "env.py"
    env.write_text(env.read_text().replace("\nelse:", f"\nelse:\n    {FOLDERS}"))
    with pytest.raises(Exception, match=r"takes its revisions from .*2026 now, and from"):
        run(team)
    assert rows(team.url, "SELECT count(*) FROM pg_tables WHERE tablename = 'account'") == [(0,)]


def test_revisions_in_a_package_are_found(project):
    """`package:folder`, as for Dagster's: the colon was taken for the end of a path."""
    team = project()
    create(team.url)
    (team.folder / "db" / "__init__.py").touch()
    team.ini("recursive_version_locations = true\nversion_locations = db:versions")
    team.ini_separator("space")
    assert changes(run(team, Mode.PLAN)) == ["a1", "b2"]


def test_an_environment_that_leads_to_no_revision_is_not_called_done(project):
    team = project()
    create(team.url)
    team.ini("version_locations = db/elsewhere")
    with pytest.raises(ConfigurationError, match=r"leads to no revision.*elsewhere"):
        run(team)


def test_an_offline_branch_that_fails_needs_arguments_or_the_version_table(project):
    """As `alembic upgrade --sql` would fail there, and `alembic upgrade` not."""
    team = project()
    create(team.url)
    team.env(offline='    raise ValueError("say which tenant")\n')
    with pytest.raises(ConfigurationError, match=r"say which tenant .*env\.py, line ") as refused:
        run(team, Mode.PLAN)
    assert "offline branch" in str(refused.value)
    assert "version_table_schema" in str(refused.value)
    with team.toml.open("a") as toml:
        toml.write('version_table = "shop_version"\nversion_table_schema = "meta"\n')
    assert changes(run(team)) == ["a1", "b2"]


def test_an_ini_file_that_does_not_say_where_env_py_is_gets_the_line_to_write(project):
    team = project()
    path = team.folder / "alembic.ini"
    path.write_text(path.read_text().replace("script_location = db\n", ""))
    with pytest.raises(ConfigurationError, match="it has no script_location") as told:
        run(team, Mode.PLAN)
    assert "script_location = the folder of env.py." in told.value.hint
    path.rename(team.folder / "db/alembic.ini")
    team.toml.write_text('[postgres]\nalembic = "db/alembic.ini"\n')
    with pytest.raises(ConfigurationError) as told:
        run(team, Mode.PLAN)
    assert "[alembic]: script_location = %(here)s." in told.value.hint
    assert "Flask-Migrate" in told.value.hint


def test_an_env_py_that_asks_flask_for_its_application_gets_the_lines_to_write(project):
    team = project()
    flask = 'raise RuntimeError("Working outside of application context.\\n\\nTo solve this …")'
    team.env(offline=flask)
    with pytest.raises(ConfigurationError, match="fails in its offline branch") as told:
        run(team, Mode.PLAN)
    assert "if not has_app_context(): app.app_context().push()" in told.value.hint


def test_what_env_py_gives_each_revision_as_argument_is_given_in_a_trial(project):
    """As the template `multidb` of Alembic does, whose `upgrade` takes the name of an engine."""
    team = project()
    team.env(offline=MULTIDB)
    for name in ("db/env.py", "db/versions/2025/a1.py", "db/versions/2026/01/b2.py"):
        path = team.folder / name
        text = path.read_text().replace("grade():", "grade(engine_name):\n    assert engine_name")
        text = text.replace("run_migrations()", 'run_migrations(engine_name="shop")')
        path.write_text(text)
    create(team.url)
    run(team)
    refreshed(team)
    assert run(team, Mode.VERIFY).ok
    assert rows(team.url, "SELECT cents FROM account") == [(20,)]


def test_several_heads_labels_and_dependencies_are_applied_as_alembic_heads_does(project):
    team = project()
    create(team.url)
    team.ini("version_locations = db/versions db/billing\nrecursive_version_locations = true")
    team.ini_separator("space")
    team.revision(
        "n1",
        None,
        'op.execute("CREATE TABLE invoice (id int)")',
        place="db/billing",
        more='branch_labels = ("billing",)',
    )
    team.revision("n2", "n1", DOUBLE, place="db/billing", more='depends_on = ("b2",)')
    team.revision("c3", "b2", 'op.execute("CREATE TABLE late (id int)")')
    assert set(changes(run(team, Mode.PLAN))) == {"a1", "b2", "c3", "n1", "n2"}
    run(team)
    assert changes(run(team)) == []
    assert rows(team.url, "SELECT * FROM meta.shop_version ORDER BY 1") == [("c3",), ("n2",)]
    assert rows(team.url, "SELECT cents FROM account") == [(40,)]
    team.stock("upgrade", "heads")
    assert rows(team.url, "SELECT cents FROM account") == [(40,)]


def test_an_id_that_is_computed_is_what_alembic_takes_it_for(project):
    team = project()
    create(team.url)
    team.revision("c3", "b2", DOUBLE, more='revision = "_".join(["c3", "late"])')
    assert changes(run(team)) == ["a1", "b2", "c3_late"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("def upgrade(:", r"bad\.py, line 1"),
        ("import shop_of_nobody", r"bad\.py, line 1"),
        ('revision = "b2"\ndown_revision = "a1"', "both declare revision b2"),
        ('revision = "c3"\ndown_revision = "zz"', r"bad\.py: revision c3 goes on from zz"),
    ],
)
def test_a_broken_file_is_named_before_anything_runs(project, written, said):
    team = project()
    create(team.url)
    team.write("db/versions/bad.py", written)
    with pytest.raises(ConfigurationError, match=said):
        run(team)


def test_a_failure_in_one_transaction_for_all_undoes_all(project):
    """As this env.py has it. With a transaction for each revision, the first ones stay."""
    team = project("psycopg2")
    create(team.url)
    team.revision("c3", "b2", 'op.execute("SELECT 1 / 0")')
    with pytest.raises(ChangeFailed, match="a1, b2 ran in the same transaction"):
        run(team)
    assert rows(team.url, "SELECT to_regclass('account') IS NULL") == [(True,)]
    team.env(f"{OPTIONS}, transaction_per_migration=True")
    with pytest.raises(ChangeFailed, match="division"):
        run(team)
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [("b2",)]


LEAVES = {
    "block": "with op.get_context().autocommit_block():\n    op.execute('SELECT 1')",
    "commit": "op.get_bind().commit()",
    "late commit": f"{DOUBLE}\nop.get_bind().commit()",
    "text": 'op.execute("COMMIT")',
}


@pytest.mark.parametrize("way", LEAVES)
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_what_a_failed_revision_has_committed_before_it_is_told_as_done(project, driver, way):
    """One transaction for all: the third one commits the first two, and then fails."""
    team = project(driver)
    create(team.url)
    team.revision("c3", "b2", f'{LEAVES[way]}\nop.execute("SELECT 1 / 0")')
    result = run(team, fails=True)
    done = {
        change.name: change.outcome
        for change in result.stores[0].changes
        if change.kind == "revision"
    }
    assert done == {"a1": Outcome.CHANGED, "b2": Outcome.CHANGED, "c3": Outcome.FAILED}
    assert "undone as well" not in result.stores[0].error.message
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [("b2",)]
    lineage = rows(team.url, "SELECT revisions FROM is_db_bootstrap.lineage")
    assert lineage == [(["a1", "b2"],)]


COMMITS = {
    "commit": (
        "bind = op.get_bind()\n"
        'bind.execute(sa.text("UPDATE account SET cents = cents * 2"))\n'
        "bind.commit()"
    ),
    "text": f'{DOUBLE}\nop.execute("COMMIT")',
    "autocommit": f"with op.get_context().autocommit_block():\n    {DOUBLE}",
    "second connection": (
        "with op.get_bind().engine.connect() as other:\n"
        '    other.execute(sa.text("UPDATE account SET cents = cents * 2"))\n'
        "    other.commit()"
    ),
}


@pytest.mark.parametrize("way", COMMITS)
@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_what_has_committed_and_then_failed_is_not_begun_again(project, driver, way):
    team = project(driver)
    create(team.url)
    team.env(f"{OPTIONS}, transaction_per_migration=True")
    run(team)
    team.revision("c3", "b2", f'{COMMITS[way]}\nraise RuntimeError("stop")')
    with pytest.raises(HalfDone):
        run(team)
    with pytest.raises(StoreConflict, match="did not end"):
        run(team)
    assert rows(team.url, "SELECT cents FROM account") == [(40,)]


@pytest.mark.parametrize("way", COMMITS)
def test_what_has_committed_and_ends_runs_once(project, way):
    team = project("psycopg2")
    create(team.url)
    run(team)
    team.revision("c3", "b2", COMMITS[way])
    assert changes(run(team)) == ["c3"]
    assert changes(run(team)) == []
    assert rows(team.url, "SELECT cents FROM account") == [(40,)]


def test_older_files_are_behind_a_database_of_newer_ones(project):
    team = project()
    create(team.url)
    run(team)
    (team.folder / "db/versions/2026/01/b2.py").unlink()
    assert run(team).stores[0].notes
    with pytest.raises(StoreConflict, match="goes on beyond"):
        run(team, allow_ahead=False)


def test_a_revision_that_only_stock_alembic_knows_is_unknown(project):
    team = project()
    create(team.url)
    team.stock("upgrade", "head")
    (team.folder / "db/versions/2026/01/b2.py").unlink()
    with pytest.raises(StoreConflict, match="POSTGRES_UNKNOWN_REVISION=ahead"):
        run(team)


def test_a_catalogue_is_made_by_our_environment_and_compared(project):
    """`env.py` would lead to the team's database, and not to the scratch one."""
    team = project("asyncpg")
    create(team.url)
    run(team)
    blueprint = load_blueprint(team.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": team.url})
    written = [path.name for path in revision.refresh(blueprint, settings)]
    assert written == ["catalogue.json", "schema.sql"]
    assert run(team, Mode.VERIFY).ok
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE account DROP COLUMN cents")
    drifts = run(team, Mode.VERIFY, fails=True).stores[0].drifts
    assert [drift.object for drift in drifts] == ["account.cents"]


@pytest.mark.parametrize("named", ["", 'version_table_schema="meta", '])
def test_a_version_table_is_made_as_env_py_says_and_is_none_of_the_teams_tables(project, named):
    team = project()
    team.env(f'version_table="My.Versions", {named}version_table_pk=False')
    create(team.url)
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA meta; CREATE TABLE account (cents int)")
    moved(team, migrate.stamp, "head")
    keys = "SELECT conname FROM pg_constraint WHERE conname = 'My.Versions_pkc'"
    schemas = """
        SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'My.Versions'
    """
    assert rows(team.url, schemas) == [("meta" if named else "public",)]
    run(team)
    assert rows(team.url, keys) == []
    refreshed(team)
    catalogue = team.folder / "db/catalogue.json"
    document = json.loads(catalogue.read_text())
    assert "My.Versions" not in str(document)
    assert run(team, Mode.VERIFY).ok
    # A file of an earlier version lists the table, and holds as well.
    listed = document["schemas"]["meta"] if named else document["objects"]
    listed.setdefault("table", {})['"My.Versions"'] = "table"
    catalogue.write_text(json.dumps(document))
    assert run(team, Mode.VERIFY).ok


def test_a_revision_that_reads_rows_leaves_out_only_schema_sql(project):
    """Data migrations read what is there. As SQL without a server there is nothing to read."""
    team = project()
    create(team.url)
    team.revision("c3", "b2", 'assert op.get_bind().execute(sa.text("SELECT 1")).all()')
    run(team)
    blueprint = load_blueprint(team.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": team.url})
    told = []
    written = [path.name for path in revision.refresh(blueprint, settings, told.append)]
    assert written == ["catalogue.json"]
    (sentence,) = told
    assert sentence.startswith("schema.sql was not written. ")
    assert "(c3.py, line " in sentence


#: What holds with one driver only: a text for a number, which psycopg2 sends as a literal, and a
#: single `%`, which asyncpg sends as it is.
OF_ONE_DRIVER = {
    "psycopg2": """op.execute(sa.text("UPDATE account SET cents = :cents").bindparams(cents="7"))""",
    "asyncpg": PERCENT,
}


@pytest.mark.parametrize("driver", OF_ONE_DRIVER)
def test_what_holds_with_the_teams_driver_holds_in_a_scratch_database(project, driver):
    """Airflow binds a text to a number, Prefect sends a single `%`."""
    team = project(driver)
    create(team.url)
    team.revision("c3", "b2", OF_ONE_DRIVER[driver])
    run(team)
    written = [path.name for path in refreshed(team)]
    assert "catalogue.json" in written
    assert run(team, Mode.VERIFY).ok
    blueprint = load_blueprint(team.toml)
    trial = PostgreSQLBootstrapper(team.url, blueprint, make_trial=SelfTestTrial)
    with closing(trial):
        trial.ping(30)
        proofs = list(trial.selftest())
    assert proofs[0].ok
    assert all(proof.ok is not False for proof in proofs), proofs


def test_a_driver_that_nothing_names_is_named_in_the_settings(project):
    """Without an offline branch, nobody says which one `env.py` uses."""
    team = project("asyncpg")
    create(team.url)
    team.env(offline="raise NotImplementedError")
    table = 'version_table = "shop_version"\nversion_table_schema = "meta"\n'
    team.toml.write_text(f'[postgres]\nalembic = "alembic.ini"\n{table}')
    team.revision("c3", "b2", PERCENT)
    run(team)
    with pytest.raises(ChangeFailed) as raised:
        refreshed(team)
    assert raised.value.change.name == "c3"
    assert "revisions run with psycopg" in raised.value.hint
    assert "driver, beside alembic in [postgres]" in raised.value.hint
    team.toml.write_text(f'{team.toml.read_text()}driver = "asyncpg"\n')
    assert refreshed(team)
    assert run(team, Mode.VERIFY).ok


def test_a_driver_that_is_not_installed_is_told(project):
    team = project()
    create(team.url)
    team.toml.write_text(f'{team.toml.read_text()}driver = "pg8000"\n')
    with pytest.raises(ConfigurationError, match="driver pg8000 is not installed"):
        refreshed(team)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_trial_sends_nothing_to_the_whole_server_or_to_another_database(project, driver):
    team = project(driver)
    create(team.url)
    team.revision("c3", "b2", 'op.execute("CREATE ROLE somebody_of_a_trial")')
    with pytest.raises(ConfigurationError, match="upgrade of revision c3 sends 'CREATE ROLE'"):
        refreshed(team)
    elsewhere = team.url.replace("postgresql:", "postgresql+psycopg:")
    team.revision("c3", "b2", f"sa.create_engine({elsewhere!r}).connect()")
    with pytest.raises(StoreConflict, match="A connection of a revision has reached another"):
        refreshed(team)


def test_a_trial_names_constraints_as_the_team_does(project):
    """The naming convention is that of the metadata which `env.py` gives to Alembic."""
    team = project()
    create(team.url)
    names = '{"uq": "one_%(column_0_name)s"}'
    metadata = f"target_metadata=__import__('sqlalchemy').MetaData(naming_convention={names})"
    team.env(f"{OPTIONS}, {metadata}")
    team.revision("c3", "b2", 'op.create_unique_constraint(None, "account", ["cents"])')
    run(team)
    refreshed(team)
    assert "one_cents" in (team.folder / "db" / "catalogue.json").read_text()
    assert run(team, Mode.VERIFY).ok


def test_a_trial_gives_a_revision_the_arguments_and_options_of_the_team(project):
    team = project()
    create(team.url)
    team.ini("recursive_version_locations = true\nshop.word = hello")
    team.toml.write_text(f'{team.toml.read_text()}x = ["tenant=a"]\n')
    asked = """
        from alembic import context
        assert context.get_x_argument(as_dictionary=True) == {"tenant": "a"}
        assert context.config.get_main_option("shop.word") == "hello"
    """
    team.revision("c3", "b2", asked)
    run(team)
    assert refreshed(team)


def test_the_search_path_is_that_of_the_address(project):
    team = project("psycopg")
    create(team.url)
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tenant")
    team.url += "?options=-csearch_path%3Dtenant"
    team.env(options="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_DATABASE", team.address)
        assert changes(run(team)) == ["a1", "b2"]
        assert changes(run(team)) == []
    plain = team.url.partition("?")[0]
    tables = rows(
        plain,
        "SELECT schemaname, tablename FROM pg_tables "
        "WHERE schemaname IN ('public', 'tenant') ORDER BY 2",
    )
    assert tables == [("tenant", "account"), ("tenant", "alembic_version")]


def test_a_search_path_that_leads_to_no_schema_is_named_as_the_cause(project):
    """A list in one pair of quotation marks is one name, of a schema that nobody has."""
    team = project()
    team.env('version_table="shop_version"')
    team.revision("a1", None, "", place="db/versions/2025")
    team.revision("b2", "a1", "", place="db/versions/2026/01")
    create(team.url)
    name = team.url.rpartition("/")[2]
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute(f"""ALTER DATABASE "{name}" SET search_path = 'app2, public'""")
    said = r'search path "app2, public" names no schema that is there.* one name: \'app2, public\''
    with pytest.raises(ChangeFailed, match=said) as told:
        run(team)
    assert told.value.hint.startswith("None of its revisions was begun. Correct the search path")
    with pytest.raises(ConfigurationError, match=said):
        moved(team, migrate.stamp, "head")
    assert refreshed(team)


def test_an_id_that_the_version_table_cannot_hold_is_refused_before_anything_runs(project):
    team = project()
    create(team.url)
    long = "c3_" + "x" * 40
    team.revision(long, "b2", DOUBLE)
    with pytest.raises(StoreConflict, match=r'43 characters, and "meta"\."shop_version" holds 32'):
        run(team)
    (team.folder / f"db/versions/{long}.py").unlink()
    run(team)
    team.revision(long, "b2", DOUBLE)
    with pytest.raises(StoreConflict, match="ALTER version_num TYPE varchar"):
        run(team)
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE meta.shop_version ALTER version_num TYPE varchar(255)")
    assert changes(run(team)) == [long]


def test_env_py_that_says_another_table_online_is_refused(project):
    team = project()
    create(team.url)
    team.env(offline="context.configure(url=DATABASE)")
    with pytest.raises(ConfigurationError, match=r"version table meta\.shop_version now"):
        run(team)
    assert rows(team.url, "SELECT to_regclass('account') IS NULL") == [(True,)]


def moved(team, function, *target):
    """A `migrate` function, as the command calls it."""
    blueprint = load_blueprint(team.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": team.url})
    return function(blueprint, *target, settings=settings)


def recorded(team):
    found = rows(team.url, "SELECT version_num FROM meta.shop_version ORDER BY 1")
    return [row[0] for row in found]


def test_a_stamp_writes_the_teams_version_table_and_what_led_there(project):
    """And then stock Alembic and the product go on from it, and older files know it as newer."""
    team = project("asyncpg")
    create(team.url)
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE account (cents int); INSERT INTO account VALUES (10)")
    assert moved(team, migrate.stamp, "a1").revisions == ("a1",)
    assert moved(team, migrate.stamp, "a1").revisions == ()
    assert moved(team, migrate.current).revision == "a1"
    assert moved(team, migrate.check).revision == "a1"
    assert moved(team, migrate.upgrade, "+1").revisions == ("b2",)
    assert rows(team.url, "SELECT cents FROM account") == [(20,)]
    assert moved(team, migrate.stamp, "base").revisions == ("base",)
    assert recorded(team) == []
    assert moved(team, migrate.stamp, "head").revisions == ("b2",)
    team.stock("upgrade", "head")
    assert recorded(team) == ["b2"]
    lineage = rows(team.url, "SELECT table_name, revisions FROM is_db_bootstrap.lineage")
    assert lineage == [("shop_version", ["a1", "b2"])]
    (team.folder / "db/versions/2026/01/b2.py").unlink()
    assert "newer" in "".join(run(team).stores[0].notes)


def test_only_what_compares_says_that_there_is_no_catalogue(project):
    team = project()
    create(team.url)
    moves = [
        moved(team, migrate.upgrade, "head"),
        moved(team, migrate.downgrade, "a1"),
        moved(team, migrate.stamp, "b2"),
    ]
    assert [move.revisions for move in moves] == [("a1", "b2"), ("b2",), ("b2",)]
    assert [move.notes for move in moves] == [(), (), ()]
    for mode in (Mode.PLAN, Mode.APPLY, Mode.VERIFY):
        notes = " ".join(run(team, mode).stores[0].notes)
        assert "record only, tables are not compared" in notes


def test_a_stamp_lets_a_revision_that_did_not_end_be_done(project):
    team = project("psycopg2")
    create(team.url)
    team.env(f"{OPTIONS}, transaction_per_migration=True")
    team.revision("c3", "b2", f'{COMMITS["commit"]}\nraise RuntimeError("stop")')
    with pytest.raises(HalfDone):
        run(team)
    with pytest.raises(StoreConflict, match="did not end"):
        run(team)
    assert moved(team, migrate.stamp, "c3").revisions == ("c3",)
    assert changes(run(team)) == []
    assert moved(team, migrate.check).conflict is None


def with_billing(team):
    """Add a second branch, with a label."""
    team.revision("n1", None, "", more='branch_labels = ("billing",)')
    team.revision("n2", "n1", "")
    team.revision("n3", "n2", "")


@pytest.mark.parametrize(
    ("target", "done"),
    [
        ("billing@n2", ["n2"]),
        ("billing@head", ["n3"]),
        ("billing@+1", ["n1"]),
        ("n1+1", ["n2"]),
        ("a1", ["a1"]),
        ("heads", ["b2", "n3"]),
    ],
)
def test_an_upgrade_goes_as_far_as_alembics_own(project, target, done):
    team = project()
    create(team.url)
    with_billing(team)
    moved(team, migrate.upgrade, target)
    assert recorded(team) == done
    team.stock("upgrade", target) if "+" not in target else None
    assert recorded(team) == done
    assert changes(run(team, Mode.PLAN)) == [
        each for each in ["a1", "b2", "n1", "n2", "n3"] if each not in until(done)
    ]


def until(heads):
    chains = (["a1", "b2"], ["n1", "n2", "n3"])
    return [each for c in chains for h in heads if h in c for each in c[: c.index(h) + 1]]


@pytest.mark.parametrize("target", ["billing@n2", "n1", "base", "billing@head", "heads", "b2"])
def test_a_stamp_leaves_other_branches_as_alembics_own_does(project, target):
    team = project()
    create(team.url)
    with_billing(team)
    run(team)
    moved(team, migrate.stamp, target)
    ours = recorded(team)
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("TRUNCATE meta.shop_version")
        connection.execute("INSERT INTO meta.shop_version VALUES ('b2'), ('n3')")
    team.stock("stamp", target)
    assert ours == recorded(team)


def test_a_revision_that_cannot_be_written_as_sql_is_told_with_its_place(project):
    team = project()
    create(team.url)
    with_billing(team)
    assert "INSERT INTO account" in moved(team, migrate.sql)
    team.revision("c3", "b2", COMMITS["commit"])
    with pytest.raises(ConfigurationError, match=r"without a server: .*\(c3\.py, line \d+\)"):
        moved(team, migrate.sql)


@pytest.mark.parametrize("target", ["zz", "nobody@head", "billing@zz"])
def test_a_target_that_leads_nowhere_changes_nothing(project, target):
    team = project()
    create(team.url)
    with_billing(team)
    for move in (migrate.upgrade, migrate.stamp):
        with pytest.raises(StoreConflict, match=f"There is no revision '{target}'"):
            moved(team, move, target)


def test_the_lines_of_the_page_lead_to_a_first_apply(project):
    """Those of docs/how-to/existing-project.md, but for the installation."""
    team = project("asyncpg")
    create(team.url)
    page = Path(__file__).parents[2] / "docs/how-to/existing-project.md"
    blocks = re.findall(r"```(console|toml)\n(.*?)```", page.read_text(), re.DOTALL)
    team.toml.write_text(next(text for kind, text in blocks if kind == "toml"))
    lines = [line for kind, text in blocks if kind == "console" for line in text.splitlines()]
    asked = [line.split()[1:] for line in lines if line.startswith("is-db-bootstrap")]
    assert [words[0] for words in asked] == ["plan", "apply", "verify"]
    for words in asked:
        result = subprocess.run(
            [sys.executable, "-m", "is_db_bootstrap", *words],
            cwd=team.folder,
            env=os.environ | {"POSTGRES_URL": team.url},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr + result.stdout
    assert rows(team.url, "SELECT cents FROM account") == [(20,)]


def test_each_target_of_many_is_reached_by_its_own_address(project, monkeypatch):
    """As an argument of `alembic -x`.

    An `env.py` that takes no argument reaches one target only.
    """
    team = project("asyncpg")
    urls = [f"{team.url}_{each}" for each in "ab"]
    monkeypatch.setenv("SHOP_DATABASE", team.address.replace(team.url[13:], urls[0][13:]))
    apply_all(team, urls[:1])
    with pytest.raises(StoreConflict, match="another database than the planned one") as refused:
        apply_all(team, urls[1:])
    assert 'x = ["url={url}"]' in refused.value.hint
    text = (team.folder / "db/env.py").read_text()
    argument = 'DATABASE = context.get_x_argument(as_dictionary=True)["url"]'
    team.write("db/env.py", text.replace("OPTIONS =", f"{argument}\nOPTIONS =", 1))
    team.toml.write_text('[postgres]\nalembic = "alembic.ini"\nx = ["url={url}"]\n')
    read = team.folder / "read"
    team.revision(
        "c3", "b2", "", more=f"with open({str(read)!r}, 'a') as file:\n    file.write('.')"
    )
    apply_all(team, urls)
    assert read.read_text() == "."  # once for both
    for url in urls:
        assert rows(url, "SELECT cents FROM account") == [(20,)]


def apply_all(team, urls):
    blueprint = load_blueprint(team.toml)
    for url in urls:
        address = url.replace("postgresql://", f"postgresql+{team.driver}://", 1)
        settings = Settings.load(blueprint, environ={"POSTGRES_URL": address})
        orchestrator(blueprint, settings, RunOptions()).run(Mode.APPLY).raise_for_failure()


def test_engines_of_the_program_around_us_are_left_alone(project):
    """Its threads were there before, and have engines of other databases."""
    team = project()
    create(team.url)
    beside = create_engine("sqlite://")
    asked, answers, ready = queue.Queue(), [], threading.Event()

    def serve():
        for _ in iter(asked.get, None):
            with beside.connect() as connection:
                answers.append(connection.exec_driver_sql("SELECT 1").scalar())
                connection.commit()
            ready.set()

    program = threading.Thread(target=serve)
    program.start()
    team.write("beside.py", BESIDE)
    sys.modules.pop("beside", None)
    team.revision("c3", "b2", "import beside\nbeside.ask()")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            builtins, "ask_program", lambda: (asked.put(1), ready.wait(60)), raising=False
        )
        assert changes(run(team)) == ["a1", "b2", "c3"]
    asked.put(None)
    program.join()
    assert answers == [1]


BESIDE = """
import builtins


def ask():
    builtins.ask_program()
"""

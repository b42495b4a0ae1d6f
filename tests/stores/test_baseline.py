"""What fills an empty database before the first revision: `create_all`, or an SQL file."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading

import psycopg
import pytest

from commands import command
from is_db_bootstrap import migrate
from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import (
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    HalfDone,
    StoreConflict,
)
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl, Timing
from is_db_bootstrap.stores.postgres import scratch
from is_db_bootstrap.stores.postgres.filled_database import fill_by_baseline
from is_db_bootstrap.stores.postgres.sql_file import SqlFile
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
        for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
            monkeypatch.delitem(sys.modules, name)  # that of another test
        made.write("shop/__init__.py", "")
        made.write("shop/models.py", MODELS)
        made.revision("a1", None, FIRST)
        made.revision("b2", "a1", SECOND)
        declare(made, baseline, revision)
        return made

    return make


def create(url):
    """An empty database."""
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')


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


# --- up to a revision

UPGRADES = {
    "a1": (),
    "+1": ("b2",),
    "a1+1": ("b2",),
    "heads": ("b2", "c3"),
}


@pytest.mark.parametrize("target", UPGRADES)
def test_an_upgrade_of_an_empty_database_begins_with_the_baseline(project, target):
    team = project()
    team.revision("c3", "b2", "")
    create(team.url)
    blueprint, environ = load_blueprint(team.toml), {"POSTGRES_URL": team.url}
    done = migrate.upgrade(blueprint, target, environ=environ)
    assert (done.baseline, done.revisions) == ("shop.models:create_all", UPGRADES[target])
    recorded = ["a1", *UPGRADES[target]][-1]
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [(recorded,)]
    assert migrate.upgrade(blueprint, "a1", environ=environ).baseline == ""


def test_an_upgrade_to_before_the_baseline_leaves_an_empty_database(project):
    team = project(revision="b2")
    team.revision("c3", None, "", more='branch_labels = "first"')
    team.revision("d4", ("b2", "c3"), "")
    declare(team, "shop.models:create_all", "d4")
    create(team.url)
    blueprint = load_blueprint(team.toml)
    for target in ("a1", "b2-1", "first"):
        with pytest.raises(StoreConflict, match="makes all that leads to d4") as refused:
            migrate.upgrade(blueprint, target, environ={"POSTGRES_URL": team.url})
        assert "Upgrade to d4" in refused.value.hint
    assert objects(team.url) == []


def test_what_a_baseline_has_filled_is_not_called_done_before(project):
    team = project(revision="b2")
    here = ["--blueprint", str(team.toml), "--url", team.url]
    code, out, err = command("migrate", "init", *here)
    assert (code, out) == (0, [])
    assert err.endswith("filled by the baseline shop.models:create_all\n0 revisions applied\n")
    code, out, err = command("migrate", "init", *here)
    assert (code, out) == (0, ["already at head"])
    assert err.endswith("nothing to do\n")


# --- what goes wrong


def objects(url):
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    return [name for (name,) in rows(url, query)]


def wrong(team, body, source="shop.wrong:fill"):
    """Let the baseline be a function whose module has `body`."""
    team.write("shop/wrong.py", f"import os\nimport psycopg\nimport sqlalchemy as sa\n\n{body}")
    declare(team, source, "a1")


ENGINE = 'sa.create_engine(os.environ["SHOP_DATABASE"])'
RAISES = """
def fill(connection):
    connection.exec_driver_sql("CREATE TABLE account (id int)")
    raise RuntimeError("no tables today")
"""
ROLLS_BACK = f"""
def fill():
    with {ENGINE}.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE account (id int)")
        raise RuntimeError("no tables today")
"""
EXITS = """
def fill(connection):
    connection.exec_driver_sql("CREATE TABLE account (id int)")
    raise SystemExit(0)
"""


@pytest.mark.parametrize("body", [RAISES, ROLLS_BACK, EXITS], ids=["raises", "own", "exits"])
def test_a_function_that_fails_and_leaves_nothing_may_run_again(project, body):
    team = project()
    wrong(team, body)
    with pytest.raises(ChangeFailed, match=r"failed in its own code: .*wrong\.py, line ") as failed:
        run(team)
    assert not isinstance(failed.value, HalfDone)
    assert objects(team.url) == []
    declare(team, "shop.models:create_all", "a1")
    assert changes(run(team)) == ["shop.models:create_all", "b2"]


COMMITS = """
def fill(connection):
    connection.exec_driver_sql("CREATE TABLE account (id int, note text)")
    connection.commit()
    raise RuntimeError("no more tables today")
"""
COMMITS_ITSELF = f"""
def fill():
    with {ENGINE}.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE account (id int, note text)")
    raise RuntimeError("no more tables today")
"""
BY_DRIVER = """
def fill():
    address = os.environ["SHOP_DATABASE"].replace("+psycopg", "")
    with psycopg.connect(address) as connection:
        connection.execute("CREATE TABLE account (id int, note text)")
    raise RuntimeError("no more tables today")
"""
HALF = [COMMITS, COMMITS_ITSELF, BY_DRIVER]


@pytest.mark.parametrize("body", HALF, ids=["connection", "engine", "driver"])
def test_a_function_that_fails_and_leaves_something_is_not_run_again_unasked(project, body):
    team = project()
    wrong(team, body)
    with pytest.raises(HalfDone, match=r"table public\.account is left: .*RuntimeError"):
        run(team)
    with pytest.raises(StoreConflict, match=r"fill did not end, and table public\.account") as said:
        run(team)
    assert "migrate stamp a1" in said.value.hint
    assert "--retry shop.wrong:fill" in said.value.hint
    over = body.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
    wrong(team, over.replace("raise RuntimeError", "str"))
    sys.modules.pop("shop.wrong", None)
    assert changes(run(team, retry_changes=("shop.wrong:fill",))) == ["shop.wrong:fill", "b2"]


def test_a_baseline_that_is_half_done_may_be_recorded_or_taken_back(project):
    team = project()
    wrong(team, COMMITS_ITSELF)
    with pytest.raises(HalfDone):
        run(team)
    with psycopg.connect(team.url, autocommit=True) as person:
        person.execute("DROP TABLE account")
    with pytest.raises(HalfDone):
        run(team)
    with psycopg.connect(team.url, autocommit=True) as person:
        person.execute("COMMENT ON TABLE account IS 'complete'")
    migrate.stamp(load_blueprint(team.toml), "a1", environ={"POSTGRES_URL": team.url})
    assert changes(run(team)) == ["b2"]


ELSEWHERE = """
def fill():
    address = os.environ["SHOP_DATABASE"].rpartition("/")[0] + "/postgres"
    with sa.create_engine(address).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stray (id int)")
"""
ELSEWHERE_BY_DRIVER = """
def fill():
    address = os.environ["SHOP_DATABASE"].replace("+psycopg", "").rpartition("/")[0] + "/template1"
    with psycopg.connect(address) as connection:
        connection.execute("SELECT 1")
"""


def test_a_function_that_works_in_another_database_is_refused(project):
    team = project()
    wrong(team, ELSEWHERE)
    with pytest.raises(StoreConflict, match="connection of the baseline has reached another"):
        run(team)
    other = f"{team.url.rpartition('/')[0]}/postgres"
    assert rows(other, "SELECT to_regclass('stray')") == [(None,)]
    assert objects(team.url) == []


def test_a_function_that_makes_nothing_here_is_not_called_done(project):
    team = project()
    wrong(team, ELSEWHERE_BY_DRIVER)
    with pytest.raises(ChangeFailed, match="has made nothing in"):
        run(team)
    assert rows(team.url, "SELECT to_regclass('meta.shop_version')") == [(None,)]


FILLED = {
    "table": "CREATE TABLE other (id int)",
    "function": "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "type": "CREATE TYPE mood AS ENUM ('sad')",
    "sequence": "CREATE SCHEMA far; CREATE SEQUENCE far.numbers",
    "view": "CREATE VIEW v AS SELECT 1",
    "collation": "CREATE COLLATION c (locale = 'C')",
}


def test_a_database_that_holds_anything_gets_no_baseline(project):
    team = project()
    create(team.url)
    for kind, statement in FILLED.items():
        with psycopg.connect(team.url, autocommit=True) as person:
            person.execute(statement)
            with pytest.raises(StoreConflict, match=f"not empty: {kind} .* is there") as refused:
                run(team)
            assert "migrate stamp a1" in refused.value.hint
            person.execute("DROP SCHEMA IF EXISTS far CASCADE; DROP SCHEMA public CASCADE")
            person.execute("CREATE SCHEMA public")
    assert changes(run(team)) == ["shop.models:create_all", "b2"]


def test_extensions_empty_schemas_and_an_empty_version_table_count_for_nothing(project):
    team = project()
    create(team.url)
    with psycopg.connect(team.url, autocommit=True) as person:
        person.execute("CREATE EXTENSION hstore; CREATE SCHEMA meta; CREATE SCHEMA far")
        person.execute("CREATE TABLE meta.shop_version (version_num varchar(32) PRIMARY KEY)")
    assert changes(run(team)) == ["shop.models:create_all", "b2"]


def test_a_database_with_a_recorded_revision_gets_no_baseline(project):
    team = project()
    create(team.url)
    with psycopg.connect(team.url, autocommit=True) as person:
        person.execute("CREATE TABLE account (id int, note text)")
    team.stock("stamp", "a1")
    assert changes(run(team)) == ["b2"]


# --- an SQL file

DUMP = r"""--
\restrict secret
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
CREATE FUNCTION public.g() RETURNS void LANGUAGE plpgsql AS $_$BEGIN NULL; END; -- COMMIT;
$_$;
CREATE TABLE public.account (id integer, note text);
COPY public.account (id, note) FROM stdin;
1	a\tb
2	\N
\.

ALTER TABLE ONLY public.account ADD CONSTRAINT account_pkey PRIMARY KEY (id);
\unrestrict secret
"""


def test_a_dump_with_rows_fills_an_empty_database(project):
    team = project(baseline="db/schema.sql")
    team.write("db/schema.sql", DUMP)
    name = team.url.rpartition("/")[2]
    assert changes(run(team)) == [name, "db/schema.sql", "b2"]
    assert rows(team.url, "SELECT * FROM account ORDER BY id") == [(1, "a\tb"), (2, None)]
    assert changes(run(team)) == []
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [("b2",)]
    team.stock("upgrade", "head")


RECORDED = """
CREATE SCHEMA meta;
CREATE TABLE meta.shop_version (version_num character varying(32) NOT NULL);
COPY meta.shop_version (version_num) FROM stdin;
{}
\\.
"""


def test_a_dump_may_have_its_version_table_with_the_revision_that_is_named(project):
    team = project(baseline="schema.sql")
    team.write("schema.sql", DUMP + RECORDED.format("b2"))
    with pytest.raises(ChangeFailed, match=r"itself records b2 in meta\.shop_version, and a1 was"):
        run(team)
    assert objects(team.url) == []
    team.write("schema.sql", DUMP + RECORDED.format("a1"))
    assert changes(run(team)) == ["schema.sql", "b2"]
    assert changes(run(team)) == []


FAILS = DUMP.replace("ALTER TABLE ONLY public.account", "ALTER TABLE ONLY public.missing")


def test_a_dump_that_fails_in_the_middle_leaves_nothing_and_names_the_line(project):
    team = project(baseline="schema.sql")
    team.write("schema.sql", FAILS)
    with pytest.raises(ChangeFailed, match=r"schema\.sql, line 16: .*public\.missing"):
        run(team)
    assert objects(team.url) == []
    team.write("schema.sql", DUMP)
    assert changes(run(team)) == ["schema.sql", "b2"]


REFUSED = {
    "\\connect shop": r"line 2: \\connect is a command of psql",
    "CREATE DATABASE shop;": "line 2: CREATE DATABASE: it acts on the whole server",
    "CREATE ROLE app;": "line 2: CREATE ROLE: it acts on",
    "COMMIT;": "line 2: COMMIT: the file runs in one transaction",
    "SELECT 1; BEGIN;": "line 2: BEGIN: the file",
    "SET client_encoding = 'LATIN1';": "line 2: SET client_encoding",
    "SET standard_conforming_strings = off;": "line 2: SET standard_conforming_strings",
    "CREATE SCHEMA is_db_bootstrap;": "line 2: the dump has the records",
    "COPY account FROM stdin;\n1": "line 2: the rows of COPY do not end",
    "SELECT 'a;": "line 2: a ' is opened and not closed",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_part_of_one_transaction_is_refused_by_its_line(tmp_path, text):
    path = tmp_path / "schema.sql"
    path.write_text(f"CREATE TABLE account (id int);\n{text}\n")
    with pytest.raises(ConfigurationError, match=REFUSED[text]):
        SqlFile(path)


def test_what_only_looks_like_a_command_is_text(tmp_path):
    path = tmp_path / "schema.sql"
    path.write_text(DUMP)
    first, *_, last = SqlFile(path).parts
    assert (first.text, first.line) == ("SET statement_timeout = 0;", 3)
    assert last.line == 16
    rows = [part.rows for part in SqlFile(path).parts if part.rows is not None]
    assert rows == ["1\ta\\tb\n2\t\\N\n"]


WRONG = {
    ("schema.sql", ""): "an SQL file belongs to one revision",
    ("shop.models", "a1"): "neither module:function nor the path of a file",
    ("shop.models:create_all", "zz"): "There is no revision 'zz'",
    ("shop.models:create_all", "base"): "names no revision",
    ("missing.sql", "a1"): "missing.sql cannot be read",
}


@pytest.mark.parametrize(("baseline", "revision"), WRONG)
def test_a_declaration_that_cannot_be_is_refused(project, baseline, revision):
    team = project(baseline=baseline, revision=revision)
    team.write("schema.sql", DUMP)
    with pytest.raises(BootstrapError, match=WRONG[baseline, revision]):
        run(team, Mode.PLAN)


@pytest.mark.parametrize("source", ["shop.models:absent", "shop.absent:fill"])
def test_a_function_that_is_not_there_is_told(project, source):
    team = project(baseline=source)
    with pytest.raises(BootstrapError, match="absent"):
        run(team)
    assert objects(team.url) == []


# --- beside others, and killed

WAITS = f"""
import time


def fill():
    with {ENGINE}.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE account (id int)")
        print("filling", flush=True)
        time.sleep(600)


def fill_with_connection(connection):
    connection.exec_driver_sql("CREATE TABLE account (id int)")
    print("filling", flush=True)
    time.sleep(600)


def fill_and_commit():
    with {ENGINE}.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE account (id int)")
    print("filling", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("way", ["fill", "fill_with_connection", "fill_and_commit"])
def test_a_run_that_is_killed_while_it_fills_leaves_nothing_or_is_told(project, way):
    team = project()
    wrong(team, WAITS, f"shop.wrong:{way}")
    create(team.url)
    command = [sys.executable, "-m", "is_db_bootstrap", "apply"]
    with subprocess.Popen(
        command,
        cwd=team.folder,
        env={**os.environ, "POSTGRES_URL": team.url},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert any("filling" in line for line in running.stderr)
        running.kill()
    declare(team, "shop.models:create_all", "a1")
    if way == "fill_and_commit":
        with pytest.raises(StoreConflict, match="fill_and_commit did not end"):
            run(team)
        return
    assert changes(run(team)) == ["shop.models:create_all", "b2"]


def test_of_two_runs_at_once_one_fills_the_database(project):
    team = project()
    create(team.url)
    found = queue.Queue()

    def beside():
        found.put(changes(run(team)))

    threads = [threading.Thread(target=beside) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([found.get(), found.get()]) == [[], ["shop.models:create_all", "b2"]]
    assert rows(team.url, "SELECT * FROM meta.shop_version") == [("b2",)]


# --- elsewhere

OWN = """
from pathlib import Path
from is_db_bootstrap.blueprint import Baseline, Blueprint

BLUEPRINT = Blueprint(
    "shop", "A shop.", migrations=Path("revisions"), baseline=Baseline("schema.sql", "a1")
)
"""


@pytest.mark.parametrize("schema", ["public", "tenant"])
def test_a_folder_of_revisions_without_an_env_py_may_have_a_baseline(project, schema):
    team = project()
    team.write("own/blueprint.py", OWN)
    team.write("own/schema.sql", "CREATE TABLE account (id int, note text);")
    team.revision("a1", None, FIRST, place="own/revisions")
    team.revision("b2", "a1", SECOND, place="own/revisions")
    create(team.url)
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tenant; CREATE SCHEMA other; CREATE TABLE other.one ()")
        if schema == "public":
            connection.execute("DROP SCHEMA other CASCADE")
    blueprint = load_blueprint(team.folder / "own")
    environ = {"POSTGRES_URL": team.url, "DB_SCHEMA": schema}
    settings = Settings.load(blueprint, environ=environ)
    result = orchestrator(blueprint, settings).run(Mode.APPLY)
    result.raise_for_failure()
    assert changes(result) == ["schema.sql", "b2"]
    assert rows(team.url, f"SELECT * FROM {schema}.alembic_version") == [("b2",)]
    assert rows(team.url, f"SELECT count(*) FROM {schema}.account") == [(0,)]


def test_a_scratch_database_begins_with_the_baseline(project):
    """So a catalogue can be made, with which `verify` compares."""
    team = project(baseline="shop.models:with_connection")
    run(team)
    url = StoreUrl.parse("postgres", team.url)
    blueprint = load_blueprint(team.toml)
    said = []
    scratch.write(url, blueprint, warn=said.append)
    assert "schema.sql was not written" in "".join(said)
    assert run(team, Mode.VERIFY).ok
    with psycopg.connect(team.url, autocommit=True) as person:
        person.execute("DROP TABLE account")
    assert not run(team, Mode.VERIFY, fails=True).ok


def test_sql_for_an_empty_database_is_not_written_without_what_a_baseline_makes(project):
    """For `schema.sql` neither. From a revision on, it is."""
    team = project()
    blueprint, environ = load_blueprint(team.toml), {"POSTGRES_URL": team.url}
    for span in ("head", "b2", "base:b2", ":head"):
        with pytest.raises(ConfigurationError, match="is not written as SQL"):
            migrate.sql(blueprint, span, environ=environ)
    assert "CREATE INDEX by_note" in migrate.sql(blueprint, "a1:head", environ=environ)
    with pytest.raises(ConfigurationError, match="is not written as SQL"):
        scratch.schema_sql(blueprint)


def test_a_database_can_be_filled_by_the_baseline_alone(project):
    team = project()
    create(team.url)
    url = StoreUrl.parse("postgres", team.url)
    blueprint = load_blueprint(team.toml)
    assert fill_by_baseline(url, blueprint, Timing()) == ("a1",)
    assert fill_by_baseline(url, blueprint, Timing()) == ()
    assert rows(team.url, "SELECT to_regclass('by_note')") == [(None,)]

"""A plan says what PostgreSQL would be sent, and nothing comes of saying it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import psutil
import psycopg
import pytest

from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint import Baseline, Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings
from is_db_bootstrap.stores.postgres.planned_sql import SqlWriter, ended
from is_db_bootstrap.stores.statement_secrets import without_secrets
from team_project import TeamProject

pytestmark = pytest.mark.postgres

_REVISION = '''"""Does {revision}."""
import datetime
import multiprocessing
import os
import pathlib
import socket
import subprocess
import psycopg
import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "{revision}"
down_revision = {before!r}


def upgrade():
{body}


def downgrade():
    pass
'''
TABLE = "op.create_table('account', sa.Column('id', sa.Integer), sa.Column('name', sa.Text))"
#: What asks the database, and what it has sent until then or all the same.
ASKING = {
    "reads": (
        """
        op.execute('SELECT 1')
        op.get_bind().execute(sa.text('SELECT 2')).scalar()
        op.execute('SELECT 3')
        """,
        ["SELECT 1;", "SELECT 2;"],
    ),
    "swallows": (
        """
        try:
            op.get_bind().scalar(sa.text('SELECT 1'))
        except Exception:
            op.execute('SELECT 2')
        """,
        [],
    ),
    "inspects": ("sa.inspect(op.get_bind())", []),
    "decides": ("if not op.get_bind().execute(sa.text('SELECT 1')):\n    pass", ["SELECT 1;"]),
    "checks": (
        "postgresql.ENUM('a', name='kind').create(op.get_bind(), checkfirst=True)",
        ["CREATE TYPE kind AS ENUM ('a');"],
    ),
    "offline": ("if not context.is_offline_mode():\n    op.execute('SELECT 1')", []),
    "as_sql": ("if not op.get_context().as_sql:\n    op.execute('SELECT 1')", []),
    "fails": ("op.execute('SELECT 1')\nraise ValueError('no')", ["SELECT 1;"]),
    "exits": ("raise SystemExit(0)", []),
    "connects": ("psycopg.connect(os.environ['TARGET'])", []),
    "engine": ("sa.create_engine(os.environ['TARGET_ENGINE']).connect()", []),
    "socket": ("socket.create_connection(('127.0.0.1', 1))", []),
    "starts": ("subprocess.run(['true'])", []),
    "forks": ("os.fork()", []),
    "spawns": (
        "multiprocessing.get_context('spawn').Process(target=print).start()",
        [],
    ),
    "pipes": ("os.mkfifo(os.environ['PIPE'])", []),
    "nodes": ("os.mknod(os.environ['PIPE'])", []),
}
#: What can be written down without a server, and how it stands there.
TELLING = {
    "batch": (
        """
        with op.batch_alter_table('account') as batch:
            batch.add_column(sa.Column('more', sa.Text))
        """,
        ["ALTER TABLE account ADD COLUMN more TEXT;"],
    ),
    "rows": (
        "op.bulk_insert(sa.table('account', sa.column('name', sa.Text)), [{'name': \"it's\"}])",
        ["INSERT INTO account (name) VALUES ('it''s');"],
    ),
    "untyped": (
        """
        account = sa.table('account', sa.column('id'), sa.column('name'))
        op.bulk_insert(account, [{'id': 7, 'name': "it's 1%"}])
        """,
        ["INSERT INTO account (id, name) VALUES (7, 'it''s 1%');"],
    ),
    "document": (
        """
        account = sa.table('account', sa.column('name', postgresql.JSONB))
        op.bulk_insert(account, [{'name': {'a': [1, "it's :b 1%"]}}])
        """,
        ["INSERT INTO account (name) VALUES ('{\"a\": [1, \"it''s :b 1%\"]}');"],
    ),
    "values": (
        """
        account = sa.table('account', sa.column('id'), sa.column('name'))
        hour = datetime.timedelta(hours=1)
        op.bulk_insert(account, [{'id': hour, 'name': ["it's", 'b']}])
        account = sa.table(
            'account',
            sa.column('id', sa.LargeBinary),
            sa.column('name', sa.ARRAY(sa.Text)),
        )
        op.bulk_insert(account, [{'id': bytes([255]), 'name': []}])
        """,
        [
            "INSERT INTO account (id, name) VALUES ('1:00:00'::interval, '{it''s,b}');",
            "INSERT INTO account (id, name) VALUES (E'\\\\377'::bytea, '{}');",
        ],
    ),
    "unread": (
        "op.get_bind().execute(sa.text('UPDATE account SET name = :n'), {'n': 'x'})",
        ["UPDATE account SET name = 'x';"],
    ),
    "outside": (
        """
        with op.get_context().autocommit_block():
            op.create_index('i', 'account', ['id'], postgresql_concurrently=True)
        """,
        ["COMMIT;", "CREATE INDEX CONCURRENTLY i ON account (id);", "BEGIN;"],
    ),
    "enum": (
        "op.create_table('t', sa.Column('k', sa.Enum('a', name='kind')))",
        ["CREATE TYPE kind AS ENUM ('a');", "CREATE TABLE t (\n    k kind\n);"],
    ),
    "reading": ("op.execute(pathlib.Path(__file__).name + ';')", ["reading.py;"]),
    "comment": ("op.execute('SELECT 1 -- one;;')", ["SELECT 1 -- one\n;"]),
    "secret": (
        "op.execute(\"ALTER ROLE a PASSWORD 'hidden-word'\")",
        ["ALTER ROLE a PASSWORD '***';"],
    ),
}


def folder_of(tmp_path, bodies):
    """A blueprint with a revision for each of `bodies`, which go on from each other."""
    folder = tmp_path / "migrations"
    folder.mkdir(exist_ok=True)
    before = None
    for name, body in bodies.items():
        text = _REVISION.format(
            revision=name, before=before, body=textwrap.indent(textwrap.dedent(body), "    ")
        )
        (folder / f"{name}.py").write_text(text)
        before = name
    return Blueprint("planned", "Planned", migrations=folder)


def run(url, blueprint, mode=Mode.PLAN, **options):
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": url})
    result = orchestrator(blueprint, settings, RunOptions(**options)).run(mode)
    result.raise_for_failure()
    return result


def planned(result):
    return {change.name: change for change in result.store("postgres").changes}


def rows(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def create(url):
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')


def everything(url):
    """What a write would change in a database, and the databases of its server."""
    objects = "SELECT oid, relname, xmin::text FROM pg_class UNION ALL SELECT oid, nspname, ''"
    scratch = "SELECT datname FROM pg_database WHERE datname LIKE 'is_db_bootstrap_scratch%'"
    return rows(url, f"{objects} FROM pg_namespace ORDER BY 1"), rows(url, scratch)


def test_a_revision_that_only_writes_is_shown_as_it_would_be_sent(tmp_path, postgres_url):
    blueprint = folder_of(tmp_path, {name: body for name, (body, _) in TELLING.items()})
    found = planned(run(postgres_url, blueprint))
    database = postgres_url.rpartition("/")[2]
    assert found[database].statements == (
        f"CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'UTF8';",
    )
    for name, (_, statements) in TELLING.items():
        assert [*found[name].statements] == statements, name
        assert not found[name].is_code, name


def test_a_revision_that_asks_or_acts_runs_python_and_nothing_comes_of_it(
    tmp_path, postgres_url, monkeypatch
):
    create(postgres_url)
    monkeypatch.setenv("TARGET", postgres_url)
    monkeypatch.setenv("TARGET_ENGINE", postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    left = tmp_path / "left.txt"
    monkeypatch.setenv("PIPE", str(left))
    removed = tmp_path / "removed.txt"
    removed.touch()
    acting = {
        "writes": (f"pathlib.Path({str(left)!r}).write_text('x')", []),
        "opens": (f"try:\n    open({str(left)!r}, 'a')\nexcept Exception:\n    pass", []),
        "removes": (f"os.unlink({str(removed)!r})", []),
    }
    cases = ASKING | acting
    blueprint = folder_of(tmp_path, {name: body for name, (body, _) in cases.items()})
    before = everything(postgres_url)
    result = run(postgres_url, blueprint)
    found = planned(result)
    for name, (_, statements) in cases.items():
        assert found[name].is_code, name
        assert [*found[name].statements] == statements, name
    assert everything(postgres_url) == before
    assert not left.exists()
    assert removed.exists()
    [note] = [note for note in result.store("postgres").notes if "Without a server" in note]
    assert "reads asks the database;" in note
    assert "checks looks first whether an object is there;" in note
    assert "writes opens a file for writing;" in note
    assert "socket uses the network;" in note
    assert "spawns starts a program;" in note
    assert "ValueError" in note


def test_a_plan_does_not_run_the_modules_that_apply_runs(tmp_path, postgres_url):
    """A revision that counts its runs in its module would count one too many."""
    body = "global RUNS\nRUNS += 1\nop.execute(f'CREATE TABLE run_{RUNS} (a int)')"
    blueprint = folder_of(tmp_path, {"counts": body})
    file = blueprint.migrations / "counts.py"
    file.write_text(file.read_text().replace("\n\ndef upgrade", "\nRUNS = 0\n\ndef upgrade"))
    found = planned(run(postgres_url, blueprint))["counts"]
    assert found.statements == ("CREATE TABLE run_1 (a int);",)
    run(postgres_url, blueprint, Mode.APPLY)
    assert rows(postgres_url, "SELECT to_regclass('run_1')::text") == [("run_1",)]


def test_only_a_plan_with_something_pending_writes_revisions_down(
    tmp_path, postgres_url, monkeypatch
):
    blueprint = folder_of(tmp_path, {"first": TABLE})
    asked = []
    written = SqlWriter.written
    monkeypatch.setattr(SqlWriter, "written", lambda *a: asked.append(a[1]) or written(*a))
    run(postgres_url, blueprint, Mode.STATUS)
    run(postgres_url, blueprint, Mode.APPLY)
    run(postgres_url, blueprint, Mode.VERIFY)
    run(postgres_url, blueprint)
    assert asked == []
    blueprint = folder_of(tmp_path, {"first": TABLE, "second": "op.execute('SELECT 2')"})
    assert planned(run(postgres_url, blueprint))["second"].statements == ("SELECT 2;",)
    assert asked == [["second"]]


#: What only a plan, a comment and drift need.
_OF_A_PLAN = {"render.plan_comment", "stores.postgres.planned_sql", "stores.postgres.mending"}


def test_an_apply_with_nothing_to_do_does_not_pay_for_what_a_plan_shows(tmp_path, postgres_url):
    blueprint = folder_of(tmp_path, {"first": TABLE})
    run(postgres_url, blueprint, Mode.APPLY)
    lines = "BLUEPRINT = Blueprint('planned', 'Planned')\n"
    (tmp_path / "blueprint.py").write_text(f"from is_db_bootstrap import Blueprint\n{lines}")
    listed = "print(*(name.partition('.')[2] for name in sys.modules), file=sys.stderr)"
    call = (
        "import os, sys\nfrom is_db_bootstrap.cli import main\n"
        f"try: main(['apply', '-b', {str(tmp_path)!r}])\nfinally: {listed}"
    )
    environ = os.environ | {"POSTGRES_URL": postgres_url}
    for outcome in ("changed", "unchanged"):  # the first call records what it has found
        done = subprocess.run(
            [sys.executable, "-c", call],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        assert outcome in done.stdout
    loaded = set(done.stderr.split())
    assert "stores.postgres.bootstrapper" in loaded
    assert loaded & _OF_A_PLAN == set()


def test_a_revision_that_does_not_end_is_ended_with_the_time_of_a_plan(tmp_path, postgres_url):
    blueprint = folder_of(tmp_path, {"hangs": "import time\ntime.sleep(600)"})
    environ = {"POSTGRES_URL": postgres_url, "IS_DB_BOOTSTRAP_PHASE_TIMEOUT": "6"}
    result = orchestrator(blueprint, Settings.load(blueprint, environ=environ)).run(Mode.PLAN)
    assert isinstance(result.store("postgres").exception, StoreUnavailable)
    assert "plan did not end within 6 s" in str(result.store("postgres").exception)
    children = [p for p in psutil.Process().children() if _is_writer(p)]
    assert psutil.wait_procs(children, timeout=30)[1] == []


def _is_writer(process):
    try:
        return any("sql_guest" in word for word in process.cmdline())
    except psutil.Error:
        return False


def test_a_team_s_revision_is_written_down_with_its_options_and_without_its_online_branch(
    tmp_path, postgres_url, monkeypatch
):
    team = TeamProject(tmp_path, postgres_url, "psycopg")
    monkeypatch.setenv("SHOP_DATABASE", team.address)
    team.revision("a1", None, TABLE)
    team.revision("b2", "a1", "op.create_unique_constraint(None, 'account', ['name'])")
    create(team.url)
    team.stock("upgrade", "a1")
    before = everything(team.url)
    found = planned(run(team.url, load_blueprint(team.toml)))
    assert list(found) == ["b2"]
    [statement] = found["b2"].statements
    assert statement.startswith("ALTER TABLE account ADD ")
    assert statement.endswith("UNIQUE (name);")
    assert everything(team.url) == before


@pytest.mark.parametrize("is_team", [False, True], ids=["folder", "alembic.ini"])
def test_a_revision_that_runs_python_is_tried_on_a_server_that_the_user_names(
    tmp_path, postgres_url, monkeypatch, is_team
):
    asks = (
        "for row in op.get_bind().execute(sa.text('SELECT name FROM account')):\n"
        "    op.execute(f\"INSERT INTO account (name) VALUES ('{row.name}!')\")"
    )
    first = f"{TABLE}\nop.execute(\"INSERT INTO account (name) VALUES ('a')\")"
    writes = (
        "with op.get_context().autocommit_block():\n"
        "    op.execute(\"DELETE FROM account WHERE name LIKE '5%x'\")\n"
        "connection = op.get_bind()\n"
        "connection.execute(sa.text(\"UPDATE account SET name = :n WHERE name LIKE '6%'\"), "
        "{'n': 'x'}).rowcount"
    )
    bodies = {"a1": first, "b2": asks, "c3": "op.execute('SELECT 3')", "d4": writes}
    if is_team:
        team = TeamProject(tmp_path, postgres_url, "psycopg")
        monkeypatch.setenv("SHOP_DATABASE", team.address)
        before = None
        for name, body in bodies.items():
            team.revision(name, before, body)
            before = name
        blueprint = load_blueprint(team.toml)
        create(postgres_url)
        team.stock("upgrade", "a1")
    else:
        first_only = folder_of(tmp_path, {"a1": first})
        run(postgres_url, first_only, Mode.APPLY)
        blueprint = folder_of(tmp_path, bodies)
    before = everything(postgres_url)
    server = f"{postgres_url.rpartition('/')[0]}/postgres"
    assert planned(run(postgres_url, blueprint))["b2"].statements == ("SELECT name FROM account;",)
    result = run(postgres_url, blueprint, try_url=server)
    found = planned(result)
    assert found["b2"].is_code
    assert found["b2"].statements == (
        "SELECT name FROM account;",
        "INSERT INTO account (name) VALUES ('a!');",
    )
    assert found["c3"].statements == ("SELECT 3;",)
    assert found["d4"].statements == (
        "DELETE FROM account WHERE name LIKE '5%x';",
        "UPDATE account SET name = %(n)s WHERE name LIKE '6%';",
    )
    assert not found["d4"].dangers or "read" not in found["d4"].dangers[0].text
    assert everything(postgres_url) == before
    notes = " ".join(result.store("postgres").notes)
    assert "What runs Python ran in a scratch database" in notes
    assert "another database of the planned server" in notes
    password = psycopg.conninfo.conninfo_to_dict(server)["password"]
    assert password not in notes


def test_a_trial_that_fails_is_a_note_and_leaves_nothing(tmp_path, postgres_url):
    body = "op.execute('SELECT 1')\nop.get_bind().execute(sa.text('SELECT 1/0')).scalar()"
    blueprint = folder_of(tmp_path, {"a1": body, "b2": "op.execute('SELECT 2')"})
    create(postgres_url)
    server = f"{postgres_url.rpartition('/')[0]}/postgres"
    before = everything(postgres_url)
    result = run(postgres_url, blueprint, try_url=server)
    assert result.ok
    assert planned(result)["a1"].statements == ("SELECT 1;", "SELECT 1/0;")
    [note] = [note for note in result.store("postgres").notes if "did not end" in note]
    assert "a1" in note
    assert everything(postgres_url) == before


def test_a_trial_is_refused_on_the_planned_database_and_told_where_it_cannot_be(
    tmp_path, postgres_url
):
    blueprint = folder_of(tmp_path, {"a1": ASKING["inspects"][0]})
    create(postgres_url)
    with pytest.raises(ConfigurationError, match="which is the database that is planned"):
        run(postgres_url, blueprint, try_url=f"{postgres_url}?application_name=other")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/"):
        run(postgres_url, blueprint, try_url="postgresql://nobody:secret-word@127.0.0.1:1/x")


def test_a_baseline_shows_its_file_and_a_function_runs_python(tmp_path, postgres_url):
    blueprint = folder_of(tmp_path, {"a1": TABLE, "b2": "op.execute('SELECT 2')"})
    dump = tmp_path / "schema.sql"
    dump.write_text("CREATE TABLE account (id int);\nCOPY account FROM stdin;\n1\n2\n\\.\n")
    by_file = replace(blueprint, baseline=Baseline("schema.sql", "a1", tmp_path))
    found = planned(run(postgres_url, by_file))
    assert found["schema.sql"].statements == (
        "CREATE TABLE account (id int);",
        "COPY account FROM stdin; -- 2 rows",
    )
    assert found["b2"].statements == ("SELECT 2;",)
    assert "a1" not in found
    by_function = replace(blueprint, baseline=Baseline("made:all_tables", "a1", tmp_path))
    found = planned(run(postgres_url, by_function))
    assert found["made:all_tables"].is_code
    assert found["made:all_tables"].statements == ()


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("ALTER ROLE a PASSWORD 'b''c' LOGIN", "ALTER ROLE a PASSWORD '***' LOGIN"),
        ("OPTIONS (user 'x', password 'b')", "OPTIONS (user 'x', password '***')"),
        ("CONNECTION 'host=a password=b'", "CONNECTION 'host=a password=***'"),
        ("SELECT 'postgresql://u:p@h/d'", "SELECT 'postgresql://u:***@h/d'"),
        ("CREATE USER a SET PASSWORD 'b'", "CREATE USER a SET PASSWORD '***'"),
        ("UPDATE a SET access_token = 'b'", "UPDATE a SET access_token = '***'"),
        ("ALTER ROLE a SET x.jwt_secret TO 'b'", "ALTER ROLE a SET x.jwt_secret TO '***'"),
        ("f('host=a password=''b'' port=1')", "f('host=a password=''***'' port=1')"),
        ("SET password = '', name = 'b'", "SET password = '***', name = 'b'"),
        ("ALTER TABLE a RENAME token TO b", "ALTER TABLE a RENAME token TO b"),
        ("ENUM ('password', 'token')", "ENUM ('password', 'token')"),
        ("VALUES ('a password', 'b')", "VALUES ('a password', 'b')"),
        ("IN ('token' , 'it''s')", "IN ('token' , 'it''s')"),
        ('SELECT \'{"password": "b"}\'', 'SELECT \'{"password": "***"}\''),
        ("DO $$ ALTER ROLE a PASSWORD 'b' $$", "DO $$ ALTER ROLE a PASSWORD '***' $$"),
        ("CREATE USER a PASSWORD $x$b$x$", "CREATE USER a PASSWORD '***'"),
        ("-- don't\nALTER ROLE a PASSWORD E'b\\'c'", "-- don't\nALTER ROLE a PASSWORD E'***'"),
        ("LIKE 'x' ESCAPE '\\' PASSWORD 'b'", "LIKE 'x' ESCAPE '\\' PASSWORD '***'"),
        ("// don't\nSET u.token = 'b'", "// don't\nSET u.token = '***'"),
        ('SET u.password = "b"', "SET u.password = '***'"),
        ('RENAME token TO "b"', 'RENAME token TO "b"'),
        ("ADD COLUMN password text DEFAULT 'x'", "ADD COLUMN password text DEFAULT 'x'"),
        ("CREATE TABLE a (token text)", "CREATE TABLE a (token text)"),
    ],
)
def test_a_password_in_a_statement_is_hidden_and_a_column_of_that_name_is_not(statement, shown):
    assert without_secrets(statement) == shown


def test_a_statement_ends_with_one_semicolon():
    assert ended("\nSELECT 1;;\n") == "SELECT 1;"
    assert ended(";") == ""

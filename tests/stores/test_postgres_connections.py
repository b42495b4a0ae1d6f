"""How many connections a target costs, what is asked of a database, and what is read once."""

from __future__ import annotations

import time
from uuid import uuid4

import psycopg
import pytest
from alembic.script import ScriptDirectory

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import waits
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.postgres import server_look
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

pytestmark = pytest.mark.postgres
REVISION = '''
"""One table."""
from alembic import op

revision = "{name}"
down_revision = {before!r}
notes = []


def upgrade():
    notes.append("run")
    op.execute(f"CREATE TABLE {name}_{{len(notes)}} (id int)")
'''
#: With verification: two settings, two looks at each of two records, and the steps that have begun.
MOST_STATEMENTS_WITH_NOTHING_TO_DO = 8


@pytest.fixture
def urls(farm):
    """Three databases that are not there yet."""
    server = farm.shared("postgres").url
    names = [f"counted_{uuid4().hex[:8]}_{n}" for n in range(3)]
    yield [f"{server}/{name}" for name in names]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def blueprint(tmp_path):
    folder = tmp_path / "versions"
    folder.mkdir()
    for name, before in (("a1", None), ("b2", "a1")):
        (folder / f"{name}.py").write_text(REVISION.format(name=name, before=before))
    return Blueprint("counted", "two revisions", migrations=folder)


@pytest.fixture
def opened(monkeypatch):
    """The database of each connection that was tried, also of those that were refused."""
    found = []
    connect = psycopg.Connection.connect.__func__

    def counting(kind, *args, **options):
        found.append(options["dbname"])
        return connect(kind, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "connect", classmethod(counting))
    monkeypatch.setattr(waits, "_ASK_AFTER_S", 600)  # a slow machine would be asked why
    monkeypatch.setattr(server_look, "YOUNG_S", 0)  # a young server is asked twice
    return found


@pytest.fixture
def asked(monkeypatch):
    """Every statement that was sent by psycopg."""
    found = []
    execute = psycopg.Cursor.execute

    def counting(self, query, *args, **options):
        found.append(query)
        return execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counting)
    return found


def run(blueprint, url, mode=Mode.APPLY):
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": url})
    return app.orchestrator(blueprint, settings).run(mode).raise_for_failure()


def create(url):
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")


def sessions_of(url):
    """How many sessions the server has had in this database, when all of them have ended."""
    server, _, name = url.rpartition("/")
    deadline = time.monotonic() + 60
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        while connection.execute(query, [name]).fetchone()[0] and time.monotonic() < deadline:
            time.sleep(0.02)
        query = "SELECT sessions FROM pg_stat_database WHERE datname = %s"
        return connection.execute(query, [name]).fetchone()[0]


def test_a_first_run_opens_one_session_to_look_one_for_the_lock_and_one_to_work(
    blueprint, urls, opened
):
    create(urls[0])
    opened.clear()
    run(blueprint, urls[0])
    assert len(opened) == 3
    assert sessions_of(urls[0]) == 3


def test_a_run_with_nothing_to_do_opens_one_session_and_asks_little(blueprint, urls, opened, asked):
    run(blueprint, urls[0])
    before = sessions_of(urls[0])
    opened.clear()
    asked.clear()
    run(blueprint, urls[0])
    assert len(opened) == 1
    assert len(asked) <= MOST_STATEMENTS_WITH_NOTHING_TO_DO
    assert sessions_of(urls[0]) - before == 1


def test_a_missing_database_costs_two_connections_beside_those_of_its_run(blueprint, urls, opened):
    """One is refused. The other tells why, and makes the database."""
    name = urls[0].rpartition("/")[2]
    run(blueprint, urls[0], Mode.PLAN)
    assert opened == [name, "postgres"]
    opened.clear()
    run(blueprint, urls[0])
    assert opened == [name, "postgres", name, name, name]
    assert sessions_of(urls[0]) == 3


def test_revisions_are_read_once_for_all_targets_and_none_sees_what_another_has_left(
    blueprint, urls, monkeypatch
):
    read = []
    load = ScriptDirectory._load_revisions

    def counting(self):
        read.append(self)
        return load(self)

    monkeypatch.setattr(ScriptDirectory, "_load_revisions", counting)
    for url in urls:
        run(blueprint, url)
    assert len(read) == 1
    for url in urls:
        with psycopg.connect(url) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE tablename ~ '_[0-9]$' ORDER BY 1"
            ).fetchall()
        assert tables == [("a1_1",), ("b2_1",)]


def test_revisions_that_have_changed_are_read_again(blueprint, urls):
    run(blueprint, urls[0])
    text = REVISION.format(name="c3", before="b2")
    (blueprint.migrations / "c3.py").write_text(text)
    run(blueprint, urls[0])
    (blueprint.migrations / "c3.py").write_text(text.replace("c3_{", "changed_{"))
    run(blueprint, urls[1])
    with psycopg.connect(urls[1]) as connection:
        found = connection.execute("SELECT to_regclass('changed_1')").fetchone()
    assert found == ("changed_1",)


def test_a_question_beside_it_leaves_the_session_alone_that_creates_a_database(
    blueprint, urls, monkeypatch
):
    store = PostgreSQLBootstrapper(urls[0], blueprint)
    store.ping(30)
    ask = store.waits_for
    execute = psycopg.Connection.execute

    def asking(self, query, *args, **options):
        if isinstance(query, bytes) and query.startswith(b"CREATE DATABASE"):
            ask()
        return execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", asking)
    assert store.create_database() is None
    store.close()

"""A revision runs once, in whatever way it leaves its transaction.

Its record is committed, or it is never begun again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from dataclasses import replace

import psycopg
import pytest

from commands import command
from is_db_bootstrap import files, migrate
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import (
    AccessDenied,
    ChangeFailed,
    ConfigurationError,
    HalfDone,
    StoreBusy,
    StoreConflict,
)
from is_db_bootstrap.results import LockHolder, Nature
from is_db_bootstrap.settings import Settings, StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import connect
from is_db_bootstrap.stores.postgres.half_done import WorkingConnection
from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost
from is_db_bootstrap.stores.postgres.scratch import at_head
from is_db_bootstrap.stores.postgres.workplace import Workplace

pytestmark = pytest.mark.postgres

TABLE = """\
id, cents = sa.Column("id", sa.Integer, primary_key=True), sa.Column("cents", sa.Integer)
op.create_table("account", id, cents)
op.execute("INSERT INTO account VALUES (1, 10)")"""
CENTS = "UPDATE account SET cents = cents * 100"
#: Every way in which a revision that turns amounts into cents can leave its transaction.
WAYS = {
    "stays": f'op.execute("{CENTS}")',
    "commit": f'bind = op.get_bind()\nbind.execute(sa.text("{CENTS}"))\nbind.commit()',
    "commit twice": (
        "bind = op.get_bind()\n"
        "bind.commit()\n"
        f'bind.execute(sa.text("{CENTS}"))\n'
        "bind.commit()\n"
        'bind.execute(sa.text("SELECT 1"))'
    ),
    "commit as text": f'op.execute("{CENTS}")\nop.execute("COMMIT")',
    "end as text": f'op.execute("{CENTS}")\nop.execute("end;")',
    "commit among others": f'op.execute("SELECT 1; {CENTS}; COMMIT; SELECT 2")',
    "commit first": f'op.execute("COMMIT; {CENTS}; COMMIT")',
    "autocommit block": f'with op.get_context().autocommit_block():\n    op.execute("{CENTS}")',
    "before an autocommit block": (
        f'op.execute("{CENTS}")\n'
        "with op.get_context().autocommit_block():\n"
        '    op.execute("SET lock_timeout = 0")'
    ),
    "isolation level": (
        "bind = op.get_bind()\n"
        "bind.commit()\n"
        f'bind.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("{CENTS}"))'
    ),
    "begin": (
        "bind = op.get_bind()\n"
        "bind.commit()\n"
        "with bind.begin():\n"
        f'    bind.execute(sa.text("{CENTS}"))'
    ),
    "rollback first": (
        f'bind = op.get_bind()\nbind.rollback()\nbind.execute(sa.text("{CENTS}"))\nbind.commit()'
    ),
    "rollback as text": f'op.execute("ROLLBACK")\nop.execute("{CENTS}")\nop.execute("COMMIT")',
    "the driver's commit": (
        "driver = op.get_bind().connection.driver_connection\n"
        f'driver.execute("{CENTS}")\n'
        "driver.commit()"
    ),
    "the driver's text": (
        "driver = op.get_bind().connection.driver_connection\n"
        f'driver.cursor().execute(b"{CENTS}")\n'
        'driver.execute("COMMIT")'
    ),
    "second connection": (
        f'with op.get_bind().engine.begin() as second:\n    second.execute(sa.text("{CENTS}"))'
    ),
    "a procedure": (
        f'op.execute("CREATE PROCEDURE many() LANGUAGE plpgsql AS $$ BEGIN {CENTS}; COMMIT; '
        'END $$")\n'
        "with op.get_context().autocommit_block():\n"
        '    op.execute("CALL many()")'
    ),
    "a function that writes": (
        f'op.execute("CREATE FUNCTION more() RETURNS int LANGUAGE sql AS $$ {CENTS}; '
        'SELECT 1 $$")\n'
        "with op.get_context().autocommit_block():\n"
        '    op.get_bind().execute(sa.text("SELECT more()"))'
    ),
    "comments before the end": f'op.execute("{CENTS}")\nop.execute("/* a; */ -- b\\n END")',
    "abort first": f'op.execute("-- a\\n ABORT")\nop.execute("{CENTS}")\nop.get_bind().commit()',
    "the driver's transaction": (
        "with op.get_context().autocommit_block():\n"
        "    driver = op.get_bind().connection.driver_connection\n"
        "    with driver.transaction():\n"
        f'        driver.execute("{CENTS}")'
    ),
    "the driver's transaction after a rollback": (
        "op.get_bind().rollback()\ndriver = op.get_bind().connection.driver_connection\n"
        f'driver.rollback()\nwith driver.transaction():\n    driver.execute("{CENTS}")'
    ),
    "the driver's pipeline": (
        "driver = op.get_bind().connection.driver_connection\ndriver.rollback()\n"
        f'with driver.pipeline():\n    driver.execute("{CENTS}")\n    driver.commit()'
    ),
    "a cursor of another class": (
        "import psycopg\ndriver = op.get_bind().connection.driver_connection\ndriver.rollback()\n"
        f'psycopg.ClientCursor(driver).execute("{CENTS}; COMMIT")'
    ),
    "libpq": (
        'op.execute("SELECT 1")\ndriver = op.get_bind().connection.driver_connection\n'
        f'driver.pgconn.exec_(b"{CENTS}; COMMIT")'
    ),
    "rolled back and then committed": (
        "with op.get_context().autocommit_block():\n"
        '    op.execute("BEGIN")\n'
        '    op.execute("SELECT 1")\n'
        '    op.execute("ROLLBACK")\n'
        '    op.execute("BEGIN")\n'
        f'    op.execute("{CENTS}")\n'
        '    op.execute("COMMIT")'
    ),
    "another transaction in one text": (
        f'op.execute("COMMIT; BEGIN; {CENTS}")\nop.execute("COMMIT")'
    ),
    "second connection by text": (
        f'with op.get_bind().engine.connect() as second:\n    second.execute(sa.text("{CENTS}"))\n'
        '    second.execute(sa.text("COMMIT"))'
    ),
    "second connection outside of transactions": (
        'second = op.get_bind().engine.connect().execution_options(isolation_level="AUTOCOMMIT")\n'
        f'second.execute(sa.text("{CENTS}"))\nsecond.close()'
    ),
    "second connection, second transaction": (
        "with op.get_bind().engine.connect() as second:\n"
        '    second.execute(sa.text("SELECT 1"))\n'
        "    second.rollback()\n"
        f'    second.execute(sa.text("{CENTS}"))\n'
        "    second.commit()"
    ),
}
LEAVES = {way: code for way, code in WAYS.items() if way != "stays"}
KILL = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
FAILURES = {
    "an exit at once": "import os\nos._exit(0)",
    "an error": "1 / 0",
    "an exit": "raise SystemExit(0)",
    "a refused statement": 'op.execute("SELECT 1 / 0")',
    "a lost connection": 'op.execute("SELECT pg_terminate_backend(pg_backend_pid())")',
    "a busy table": "op.execute(\"DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$\")",
}


def revision(folder, name, before, upgrade, downgrade="pass"):
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
        f"{textwrap.indent(downgrade, '    ')}\n"
    )


@pytest.fixture
def shop(tmp_path, postgres_url):
    return Shop(tmp_path / "shop", postgres_url)


class Shop:
    """A blueprint whose first revision makes a table, and its database.

    What that records is read by a session of its own.
    """

    def __init__(self, folder, url):
        folder.mkdir()
        self.folder = folder
        self.migrations = folder / "migrations"
        self.url = self.admin_url = url
        (folder / "blueprint.py").write_text(
            "from is_db_bootstrap.blueprint import Blueprint\n"
            'BLUEPRINT = Blueprint("shop", "accounts", portable=True)\n'
        )
        revision(self.migrations, "a1", None, TABLE, 'op.drop_table("account")')
        self.blueprint = Blueprint("shop", "accounts", migrations=self.migrations, portable=True)

    def add(self, name, before, *args):
        revision(self.migrations, name, before, *args)

    def apply(self, *retry_changes):
        """The result of a run."""
        store = PostgreSQLBootstrapper(self.url, self.blueprint, timing=Timing(lock_timeout_s=1))
        run = BootstrapOrchestrator([store], blueprint="shop", retry_changes=retry_changes)
        return run.run()

    def apply_until_killed(self, *options):
        """A run in a process of its own, which its revision kills."""
        blueprint = ("--blueprint", str(self.folder))
        run = [sys.executable, "-m", "is_db_bootstrap", "apply", *blueprint, *options]
        environ = {**os.environ, "POSTGRES_URL": self.url}
        done = subprocess.run(
            run,
            check=False,
            env=environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    @property
    def settings(self):
        return Settings.load(self.blueprint, environ={}, flags={"postgres_url": self.url})

    def stamp(self, target):
        return migrate.stamp(self.blueprint, target, settings=self.settings)

    def ask(self, query):
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query).fetchall()

    def do(self, *statements):
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def do_as_admin(self, *statements):
        """The same, also after the runs have become those of another role."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def is_refused(self):
        refused = self.apply().stores[0].exception
        assert isinstance(refused, StoreConflict), refused
        assert re.search("revision b2 (has|may have) committed a part of its work", refused.message)

    @property
    def begun(self):
        return self.ask("SELECT * FROM is_db_bootstrap.begun")

    @property
    def cents(self):
        return self.ask("SELECT cents FROM account")[0][0]

    @property
    def recorded(self):
        return [row[0] for row in self.ask("SELECT version_num FROM alembic_version")]

    @property
    def lineage(self):
        """The blueprint and the revisions of our row."""
        return " ".join(
            self.ask("SELECT blueprint || revisions FROM is_db_bootstrap.lineage")[0][0]
        )

    @property
    def comment(self):
        return self.ask("SELECT obj_description('alembic_version'::regclass)")[0][0]

    def alembic(self, *args):
        environ = {
            **os.environ,
            "POSTGRES_URL": self.url,
            "IS_DB_BOOTSTRAP_BLUEPRINT": str(self.folder),
        }
        ini = self.folder / "alembic.ini"
        ini.write_text(
            "[shop]\n"
            f"script_location = {files.root() / 'migrations'}\n"
            f"version_locations = {self.migrations}\n"
            f"blueprint = {self.folder}\n"
            "path_separator = os\n"
        )
        return subprocess.run(
            [sys.executable, "-m", "alembic", "-c", ini, "-n", "shop", *args],
            env=environ,
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )


def chain_of_all_ways(shop):
    """One revision for each way, each of which adds 100 cents; the last one's id."""
    before = "a1"
    for number, code in enumerate(WAYS.values()):
        shop.add(f"w{number}", before, code.replace("cents * 100", "cents + 100"))
        before = f"w{number}"
    return before


@pytest.mark.parametrize("way", WAYS)
def test_a_revision_that_commits_by_itself_runs_once(shop, way):
    shop.add("b2", "a1", WAYS[way])
    first = shop.apply()
    assert first.ok, first
    assert (shop.recorded, shop.cents) == (["b2"], 1000)
    again = shop.apply()
    assert again.ok
    assert [c.name for c in again.stores[0].changes] == []
    assert (shop.recorded, shop.cents) == (["b2"], 1000)
    assert (shop.lineage, shop.comment) == ("shop a1 b2", None)
    assert shop.begun == []


def test_each_of_several_in_one_run_is_recorded(shop):
    head = chain_of_all_ways(shop)
    assert shop.apply().ok
    assert (shop.recorded, shop.cents) == ([head], 10 + 100 * len(WAYS))
    assert shop.apply().stores[0].changes == ()


@pytest.mark.parametrize("way", LEAVES)
def test_a_revision_that_commits_and_then_fails_is_never_run_again_by_itself(shop, way):
    shop.add("b2", "a1", f"{LEAVES[way]}\n1 / 0")
    failed = shop.apply()
    error = failed.stores[0].exception
    assert isinstance(error, HalfDone), error
    assert "b2" in error.message
    assert "ZeroDivisionError" in error.message
    assert "migrate stamp" in error.hint
    shop.is_refused()
    assert (shop.recorded, shop.cents) == (["a1"], 1000)


@pytest.mark.parametrize("way", LEAVES)
def test_a_revision_that_commits_and_is_then_killed_is_never_run_again_by_itself(shop, way):
    shop.apply()
    shop.add("b2", "a1", f"{LEAVES[way]}\n{KILL}")
    shop.apply_until_killed()
    shop.is_refused()
    assert (shop.recorded, shop.cents) == (["a1"], 1000)
    shop.add("b2", "a1", "1 / 0")
    shop.is_refused()
    shop.stamp("b2")
    assert shop.apply().ok
    assert shop.begun == []


@pytest.mark.parametrize(
    "code",
    [
        WAYS["stays"],
        f"bind = op.get_bind()\nbind.rollback()\n{WAYS['stays']}",
        (
            "second = op.get_bind().engine.connect()\n"
            f'second.execute(sa.text("{CENTS}"))\n'
            "second.rollback()"
        ),
        (
            "driver = op.get_bind().connection.driver_connection\n"
            "with driver.transaction():\n"
            f"    driver.execute('{CENTS}')"
        ),
        f"op.execute('SET application_name = other')\n{WAYS['stays']}",
        (
            "cursor = op.get_bind().connection.driver_connection.cursor()\n"
            f"cursor.executemany('{CENTS} WHERE id = %s', [(1,), (2,)])"
        ),
    ],
    ids=["stays", "rollback", "second connection", "savepoint", "its own name", "many"],
)
def test_a_revision_that_is_killed_before_it_commits_anything_runs_again(shop, code):
    shop.apply()
    shop.add("b2", "a1", f"{code}\n{KILL}")
    shop.apply_until_killed()
    assert (shop.recorded, shop.cents) == (["a1"], 10)
    assert [row[1] for row in shop.begun] == ["upgrade b2"]
    shop.add("b2", "a1", WAYS["stays"])
    done = shop.apply()
    assert done.ok, done
    assert (shop.recorded, shop.cents) == (["b2"], 1000)
    assert shop.begun == []


@pytest.mark.parametrize("failure", FAILURES)
def test_however_it_fails(shop, failure):
    shop.add("b2", "a1", f"{WAYS['commit']}\n{FAILURES[failure]}")
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    assert isinstance(shop.apply().stores[0].exception, StoreConflict)
    assert (shop.recorded, shop.cents) == (["a1"], 1000)


def test_a_revision_is_done_when_only_the_answer_to_its_commit_was_lost(shop, monkeypatch):
    shop.apply()
    shop.add("b2", "a1", WAYS["stays"])
    commit, lost = WorkingConnection.commit, []

    def commit_unheard(connection):
        commit(connection)
        if not lost and shop.recorded == ["b2"]:
            lost.append(True)
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(WorkingConnection, "commit", commit_unheard)
    done = shop.apply()
    assert lost
    assert done.ok, done
    assert [change.name for change in done.stores[0].changes] == ["b2"]
    assert (shop.recorded, shop.cents, shop.begun) == (["b2"], 1000, [])


def test_what_is_half_done_is_recorded_as_done_or_run_again_by_a_stamp(shop):
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    assert not shop.apply().ok
    assert shop.stamp("a1").revisions == ("a1",)
    assert not shop.apply().ok
    assert shop.cents == 100_000
    assert shop.stamp("b2").revisions == ("b2",)
    assert shop.apply().ok
    assert (shop.recorded, shop.cents) == (["b2"], 100_000)
    assert (shop.lineage, shop.comment) == ("shop a1 b2", None)


#: Commits after each account, and does nothing for an account that was done: it may run again.
ONE_BY_ONE = """
bind = op.get_bind()
for number in (1, 2, 3):
    bind.execute(sa.text(
        "INSERT INTO account SELECT 10 + :n, 1 WHERE NOT EXISTS "
        "(SELECT FROM account WHERE id = 10 + :n)"), {"n": number})
    bind.commit()
"""


def test_a_revision_that_is_killed_in_its_own_batches_runs_again_when_it_is_asked_to(shop):
    shop.apply()
    killed = ONE_BY_ONE + f"    if number == 2:\n{textwrap.indent(KILL, ' ' * 8)}\n"
    shop.add("b2", "a1", killed)
    shop.apply_until_killed()
    shop.is_refused()
    shop.add("b2", "a1", ONE_BY_ONE)
    shop.add("c3", "b2", "pass")
    done = shop.apply("b2")
    assert done.ok, done
    assert [change.name for change in done.stores[0].changes] == ["b2", "c3"]
    assert (shop.recorded, shop.begun) == (["c3"], [])
    assert shop.ask("SELECT count(*) FROM account") == [(4,)]


@pytest.mark.parametrize("way", ["commit", "autocommit block"])
def test_a_retry_that_leaves_nothing_still_knows_what_the_first_try_has_left(shop, way):
    shop.add("b2", "a1", f"{WAYS[way]}\n1 / 0")
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    shop.add("b2", "a1", f"{WAYS['stays']}\n1 / 0")
    failed = shop.apply("b2").stores[0]
    assert isinstance(failed.exception, HalfDone), failed
    assert [change.nature for change in failed.changes] == [Nature.NEITHER]
    shop.is_refused()
    shop.add("b2", "a1", "pass")
    assert shop.apply("b2").ok
    assert (shop.recorded, shop.cents, shop.begun) == (["b2"], 1000, [])


def test_a_retry_that_is_killed_is_not_run_again_by_itself(shop):
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    assert not shop.apply().ok
    shop.add("b2", "a1", f"{WAYS['stays']}\n{KILL}")
    shop.apply_until_killed("--retry", "b2")
    assert shop.cents == 1000
    shop.is_refused()


def test_a_retry_covers_no_try_that_another_run_has_made_meanwhile(shop):
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    assert not shop.apply().ok
    store = PostgreSQLBootstrapper(shop.url, shop.blueprint)
    store.allow_retry(["b2"])
    assert store.plan().begun == ("b2",)
    assert isinstance(shop.apply("b2").stores[0].exception, HalfDone)
    with pytest.raises(StoreConflict, match="revision b2 has committed"):
        store.plan()
    store.close()


def test_a_retry_waits_for_the_first_try_as_long_as_that_is_at_work(shop):
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    assert not shop.apply().ok
    shop.add("b2", "a1", "pass")
    with psycopg.connect(shop.url) as first:
        [(number,)] = first.execute("SELECT pg_current_xact_id()::text").fetchall()
        shop.do(
            "UPDATE is_db_bootstrap.begun "
            f"SET transactions = transactions || ARRAY['{number}'::xid8]"
        )
        store = PostgreSQLBootstrapper(shop.url, shop.blueprint)
        store.allow_retry(["b2"])
        (change,) = store.plan().changes
        with pytest.raises(StoreBusy, match="still at work"):
            store.apply(change)
    assert store.apply(change) is None
    store.close()
    assert (shop.recorded, shop.begun) == (["b2"], [])


def test_a_retry_of_what_is_not_marked_is_refused_before_anything_is_changed(shop):
    shop.add("b2", "a1", "pass")
    for named in ("b2", "nothing"):
        refused = shop.apply(named)
        assert (refused.exit_code, refused.stores[0].changes[0].outcome) == (2, "planned")
        assert f"{named} is not marked as begun" in refused.stores[0].error.message
    options = ("-b", str(shop.folder), "--retry", "b2")
    code, told, _ = command("apply", *options, environ={"POSTGRES_URL": shop.url})
    assert (code, "b2 is not marked as begun" in " ".join(told)) == (2, True), told
    assert shop.apply().ok


def test_a_downgrade_that_is_half_done_is_told_its_own_ways_out(shop):
    shop.add("b2", "a1", "pass", f"{WAYS['commit']}\n1 / 0")
    assert shop.apply().ok
    with pytest.raises(ChangeFailed):
        migrate.downgrade(shop.blueprint, "a1", drop_rows=True, settings=shop.settings)
    refused = shop.apply("b2").stores[0].exception
    assert isinstance(refused, StoreConflict)
    assert "--retry" not in refused.hint
    assert "`is-db-bootstrap migrate stamp b2`" in refused.hint


def test_a_transaction_that_an_earlier_revision_has_left_open_is_marked_too(shop):
    keep = 'sa.kept = op.get_bind().engine.connect()\nsa.kept.execute(sa.text("SELECT 1"))'
    shop.add("a1", None, f"{TABLE}\n{keep}")
    shop.add("b2", "a1", f'sa.kept.execute(sa.text("{CENTS}"))\nsa.kept.commit()\n{KILL}')
    shop.apply_until_killed()
    assert (shop.recorded, shop.cents) == (["a1"], 1000)
    shop.is_refused()


def test_a_first_revision_that_is_half_done_is_known_without_a_row(shop):
    revision(shop.migrations, "a1", None, f"{TABLE}\nop.get_bind().commit()\n1 / 0")
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    refused = shop.apply().stores[0].exception
    assert isinstance(refused, StoreConflict)
    assert "`is-db-bootstrap migrate stamp a1`" in refused.hint
    assert "`is-db-bootstrap apply --retry a1`" in refused.hint
    shop.do("DROP TABLE account")
    revision(shop.migrations, "a1", None, TABLE)
    assert shop.apply("a1").ok
    assert shop.begun == []


def test_a_first_revision_that_is_half_done_is_known_without_a_version_table(shop):
    revision(shop.migrations, "a1", None, f"{TABLE}\nop.get_bind().commit()\n1 / 0")
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    shop.do("DROP TABLE alembic_version")
    store = PostgreSQLBootstrapper(shop.url, shop.blueprint)
    with pytest.raises(StoreConflict, match="The upgrade of revision a1 has committed a part"):
        store.plan()
    store.close()
    shop.do("DROP TABLE account")
    revision(shop.migrations, "a1", None, TABLE)
    shop.stamp("base")
    assert shop.apply().ok


def test_a_process_that_dies_after_the_commit_leaves_the_mark(shop):
    shop.add(
        "b2",
        "a1",
        f"{WAYS['commit']}\n"
        "import time\n"
        f"open({str(shop.folder / 'there')!r}, 'w').close()\n"
        "time.sleep(60)",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", "apply", "-b", str(shop.folder)],
        env={**os.environ, "POSTGRES_URL": shop.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not (shop.folder / "there").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    result = shop.apply()
    assert isinstance(result.stores[0].exception, StoreConflict)
    assert (shop.recorded, shop.cents, result.exit_code) == (["a1"], 1000, 6)
    assert command("verify", "-b", str(shop.folder), environ={"POSTGRES_URL": shop.url})[0] == 6


@pytest.mark.parametrize("failure", ["an error", "an exit", "a refused statement"])
def test_a_revision_that_stays_in_its_transaction_leaves_nothing_and_may_run_again(shop, failure):
    code = (
        f"{WAYS['stays']}\n"
        "op.execute('CREATE TEMP TABLE t (x int) ON COMMIT DROP')\n"
        "bind = op.get_bind()\n"
        "with bind.begin_nested():\n"
        "    pass\n"
    )
    shop.add("b2", "a1", code + FAILURES[failure])
    error = shop.apply().stores[0].exception
    assert isinstance(error, ChangeFailed)
    assert not isinstance(error, HalfDone)
    assert (shop.recorded, shop.cents) == (["a1"], 10)
    shop.add("b2", "a1", code)
    assert shop.apply().ok
    assert (shop.recorded, shop.cents) == (["b2"], 1000)


@pytest.mark.parametrize(
    "before",
    [
        "",
        "op.execute('SET statement_timeout = 0')\n    ",
        "sa.inspect(op.get_bind()).get_indexes('account')\n    ",
    ],
)
def test_a_first_statement_outside_of_a_transaction_that_fails_may_run_again(shop, before):
    index = (
        "with op.get_context().autocommit_block():\n"
        f"    {before}op.execute('CREATE UNIQUE INDEX one ON account (cents)')"
    )
    shop.add("b2", "a1", index)
    revision(
        shop.migrations, "a1", None, f"{TABLE}\nop.execute('INSERT INTO account VALUES (2, 10)')"
    )
    error = shop.apply().stores[0].exception
    assert isinstance(error, ChangeFailed)
    assert not isinstance(error, HalfDone)
    shop.do("DELETE FROM account WHERE id = 2")
    assert shop.apply().ok
    assert shop.recorded == ["b2"]


def test_an_index_whose_concurrent_build_failed_is_not_recorded_as_built(shop):
    build = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one ON account (cents)"
    shop.add("b2", "a1", f"with op.get_context().autocommit_block():\n    op.execute('{build}')")
    second = f"{TABLE}\nop.execute('INSERT INTO account VALUES (2, 10)')"
    revision(shop.migrations, "a1", None, second)
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    shop.is_refused()
    assert shop.recorded == ["a1"]
    shop.do("DELETE FROM account WHERE id = 2", "DROP INDEX one")
    shop.stamp("a1")
    assert shop.apply().ok
    assert shop.ask("SELECT indisvalid FROM pg_index WHERE indexrelid = 'one'::regclass") == [
        (True,)
    ]


def test_a_concurrent_build_that_did_not_begin_runs_again(shop):
    shop.apply()
    build = "CREATE INDEX CONCURRENTLY one ON account (cents)"
    own_limit = "op.execute('SET lock_timeout = 100')"  # ours would be lifted for a build
    body = f"with op.get_context().autocommit_block():\n    {own_limit}\n    op.execute('{build}')"
    shop.add("b2", "a1", body)
    store = PostgreSQLBootstrapper(shop.url, shop.blueprint, timing=Timing(lock_timeout_s=0.2))
    (change,) = store.plan().changes
    with psycopg.connect(shop.url) as other:
        other.execute("LOCK TABLE account IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(StoreBusy):
            store.apply(change)
        assert shop.begun == []
    store.apply(change)
    store.close()
    assert shop.recorded == ["b2"]


def test_a_downgrade_that_commits_and_fails_is_not_run_again_either(shop):
    shop.add(
        "b2",
        "a1",
        WAYS["stays"],
        'op.execute("UPDATE account SET cents = cents / 100")\nop.get_bind().commit()\n1 / 0',
    )
    assert shop.apply().ok
    with pytest.raises(HalfDone, match="b2 committed a part"):
        migrate.downgrade(shop.blueprint, 1, drop_rows=True, settings=shop.settings)
    with pytest.raises(StoreConflict, match="The downgrade of revision b2"):
        migrate.downgrade(shop.blueprint, 1, drop_rows=True, settings=shop.settings)
    assert isinstance(shop.apply().stores[0].exception, StoreConflict)
    assert shop.cents == 10
    shop.stamp("a1")
    assert shop.apply().ok
    assert shop.cents == 1000


def test_a_downgrade_that_commits_by_itself_is_recorded(shop):
    shop.add(
        "b2",
        "a1",
        WAYS["stays"],
        'op.execute("UPDATE account SET cents = cents / 100")\nop.get_bind().commit()',
    )
    assert shop.apply().ok
    assert migrate.downgrade(
        shop.blueprint, 1, drop_rows=True, settings=shop.settings
    ).revisions == ("b2",)
    assert (shop.recorded, shop.cents) == (["a1"], 10)


def test_a_record_that_does_not_stay_is_told(shop):
    trigger = (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
    )
    shop.add(
        "b2",
        "a1",
        f'op.execute("{trigger}")\n'
        'op.execute("CREATE TRIGGER no AFTER UPDATE ON alembic_version EXECUTE FUNCTION no()")',
    )
    assert shop.apply().ok
    back = (
        "CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN NEW.version_num = 'b2'; RETURN NEW; END $$"
    )
    shop.add(
        "c3",
        "b2",
        f'op.execute("{back}")\n'
        'op.execute("CREATE TRIGGER b BEFORE UPDATE ON alembic_version FOR EACH ROW '
        'EXECUTE FUNCTION back()")',
    )
    error = shop.apply().stores[0].exception
    assert isinstance(error, HalfDone)
    assert "ran to its end and is not recorded: public.alembic_version says b2" in error.message
    assert isinstance(shop.apply().stores[0].exception, StoreConflict)


def test_threads_of_one_revision_write_one_mark(shop):
    shop.apply()
    shop.do("INSERT INTO account SELECT n, 10 FROM generate_series(2, 4) AS n")
    shop.add(
        "b2",
        "a1",
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "engine = op.get_bind().engine\nready = threading.Barrier(4, timeout=30)\n"
        "def part(n):\n    with engine.connect() as one:\n        ready.wait()\n"
        f'        one.execute(sa.text(f"{CENTS} WHERE id = {{n}}"))\n        one.commit()\n'
        "with ThreadPoolExecutor(4) as pool:\n    list(pool.map(part, range(1, 5)))",
    )
    done = shop.apply()
    assert done.ok, done
    assert shop.ask("SELECT DISTINCT cents FROM account") == [(1000,)]
    assert (shop.recorded, shop.begun) == (["b2"], [])


LATE = (
    "CREATE FUNCTION late() RETURNS void LANGUAGE plpgsql AS"
    f" $$ BEGIN PERFORM pg_advisory_xact_lock(4711); {CENTS}; END $$"
)
#: A revision that goes on in a thread when it has failed itself.
GOES_ON = """\
import threading, time
with op.get_context().autocommit_block():
    op.execute("SELECT 1")
beside = op.get_bind().engine.connect().execution_options(isolation_level="AUTOCOMMIT")
threading.Thread(target=lambda: beside.execute(sa.text("SELECT late()")), daemon=True).start()
runs = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT late()'"
end = time.monotonic() + 60
while not op.get_bind().scalar(sa.text(runs)):
    assert time.monotonic() < end
    time.sleep(0.05)
1 / 0"""


def test_what_goes_on_beside_a_failed_revision_is_not_taken_for_nothing(shop):
    shop.apply()
    shop.do(LATE)
    shop.add("b2", "a1", GOES_ON)
    with psycopg.connect(shop.url, autocommit=True) as blocker:
        blocker.execute("SELECT pg_advisory_lock(4711)")
        failed = shop.apply().stores[0].exception
    assert isinstance(failed, HalfDone), failed
    shop.is_refused()


@pytest.fixture
def merged(shop):
    """The shop, whose revisions b2 and c2 go on from a1 and are merged by d3."""
    shop.add("b2", "a1", 'op.execute("CREATE TABLE b (id int)")', 'op.execute("DROP TABLE b")')
    shop.add("c2", "a1", 'op.execute("CREATE TABLE c (id int)")', 'op.execute("DROP TABLE c")')
    shop.add("d3", ("b2", "c2"), "pass")
    assert shop.apply().ok
    return shop


def down(shop, target, **given):
    """The revisions that were undone."""
    undone = migrate.downgrade(shop.blueprint, target, settings=shop.settings, **given)
    return list(undone.revisions)


def test_a_merged_chain_goes_down_step_by_step(merged):
    for undone, recorded in (("d3", ["b2", "c2"]), ("c2", ["b2"]), ("b2", ["a1"])):
        assert down(merged, "1") == [undone]
        assert (sorted(merged.recorded), merged.begun) == (recorded, [])
    assert merged.apply().ok
    assert merged.recorded == ["d3"]
    assert down(merged, "b2") == ["d3", "c2"]
    assert down(merged, "base", drop_rows=True) == ["b2", "a1"]
    assert (merged.recorded, merged.begun) == ([], [])


def test_a_question_about_a_merge_goes_on_with_the_same_steps(merged):
    path = merged.migrations / "d3.py"
    undo = 'op.execute("DELETE FROM account")'
    path.write_text(
        path.read_text().replace("def downgrade():\n    pass", f"def downgrade():\n    {undo}")
    )
    with pytest.raises(RowsWouldBeLost) as asked:
        down(merged, "1")
    assert asked.value.to == "-1"
    assert down(merged, asked.value.to, drop_rows=True) == ["d3"]
    assert sorted(merged.recorded) == ["b2", "c2"]


@pytest.fixture(params=["repeatable read", "serializable"])
def isolated(shop, request):
    """The shop, whose database begins every transaction with more isolation than usual."""
    PostgreSQLBootstrapper(shop.url, shop.blueprint).create_database()
    database = StoreUrl.parse("postgres", shop.url).database
    level = f"SET default_transaction_isolation = '{request.param}'"
    shop.do(f'ALTER DATABASE "{database}" {level}')
    return shop


def test_several_are_recorded_under_every_isolation_level(isolated):
    isolated.add("b2", "a1", WAYS["stays"], 'op.execute("UPDATE account SET cents = cents / 100")')
    isolated.add("c3", "b2", WAYS["second connection, second transaction"])
    first = isolated.apply()
    assert first.ok, first
    assert (isolated.recorded, isolated.cents, isolated.begun) == (["c3"], 100_000, [])
    migrate.downgrade(isolated.blueprint, "a1", settings=isolated.settings, drop_rows=True)
    assert (isolated.recorded, isolated.cents, isolated.begun) == (["a1"], 1000, [])


def test_the_stock_command_records_several_under_every_isolation_level(isolated):
    isolated.add("b2", "a1", WAYS["stays"])
    isolated.add("c3", "b2", WAYS["commit"])
    isolated.add("d4", "c3", "pass")
    done = isolated.alembic("upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert (isolated.recorded, isolated.cents, isolated.begun) == (["d4"], 100_000, [])


def test_a_row_of_a_recorded_step_counts_for_nothing_and_goes_with_the_next_step(shop):
    shop.add("b2", "a1", WAYS["stays"])
    assert shop.apply().ok
    left = (
        "INSERT INTO is_db_bootstrap.begun SELECT 'public', 'upgrade b2', ARRAY[xmin::text::xid8]"
    )
    shop.do(f"{left} FROM alembic_version")
    assert shop.apply().ok
    migrate.downgrade(shop.blueprint, "a1", settings=shop.settings, drop_rows=True)
    assert shop.begun == []
    done = shop.apply()
    assert done.ok, done
    assert (shop.recorded, shop.cents, shop.begun) == (["b2"], 100_000, [])


def test_a_revision_may_go_on_as_another_role_that_may_not_see_our_schema(shop):
    shop.apply()
    role = f"owner_{uuid.uuid4().hex[:8]}"
    shop.do(f"CREATE ROLE {role}", f"ALTER TABLE alembic_version OWNER TO {role}")
    shop.do(f"GRANT ALL ON SCHEMA public TO {role}")
    shop.add(
        "b2", "a1", f'op.execute("SET LOCAL ROLE {role}")\nop.execute("CREATE TABLE b (id int)")'
    )
    try:
        done = shop.apply()
        assert done.ok, done
        assert (shop.recorded, shop.begun) == (["b2"], [])
        assert shop.lineage == "shop a1 b2"
    finally:
        shop.do(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


@pytest.fixture
def as_role(shop):
    """`as_role("GRANT … TO {role}", …)`: from then on the shop's runs are those of this role."""
    role = f"teller_{uuid.uuid4().hex[:8]}"
    admin = shop.url

    def change(*grants):
        database = StoreUrl.parse("postgres", admin).database
        shop.do(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        shop.do(*(grant.format(role=role, database=database) for grant in grants))
        url = StoreUrl.parse("postgres", admin)
        shop.url = f"postgresql://{role}:x@{url.host}:{url.port(5432)}/{url.database}"
        return role

    yield change
    shop.url = admin
    shop.do(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


#: What an earlier version has left at revision a1.
COMMENT = "is-db-bootstrap: blueprint shop; revisions a1"
MAY_WRITE = (
    "GRANT ALL ON SCHEMA public TO {role}",
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
)


def test_a_role_that_does_not_own_the_version_table_marks_in_our_schema(shop, as_role):
    shop.apply()
    shop.do("DROP SCHEMA is_db_bootstrap CASCADE")
    as_role(*MAY_WRITE, "GRANT CREATE ON DATABASE {database} TO {role}")
    shop.add("b2", "a1", f"{WAYS['commit']}\n{KILL}")
    shop.apply_until_killed()
    shop.is_refused()
    assert (shop.recorded, shop.cents) == (["a1"], 1000)


def test_a_role_that_may_mark_nowhere_is_told_so(shop, as_role):
    shop.apply()
    shop.do("DROP SCHEMA is_db_bootstrap CASCADE")
    role = as_role(*MAY_WRITE)
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    result = shop.apply().stores[0]
    assert isinstance(result.exception, HalfDone)
    assert "could not be written" in result.exception.hint
    (note,) = [note for note in result.notes if "is not marked" in note]
    assert f'CREATE SCHEMA is_db_bootstrap AUTHORIZATION "{role}"' in note
    assert any("Which revisions led to the last one is not recorded" in n for n in result.notes)
    shop.add("b2", "a1", "pass")
    assert shop.apply().ok
    undone = migrate.downgrade(shop.blueprint, "a1", settings=shop.settings, drop_rows=True)
    assert note in undone.notes


def test_a_role_that_may_not_read_what_has_begun_runs_nothing(shop, as_role):
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    admin = shop.url
    shop.do("REVOKE ALL ON SCHEMA is_db_bootstrap FROM PUBLIC")
    as_role(*MAY_WRITE)
    refused = shop.apply().stores[0].exception
    assert isinstance(refused, AccessDenied), refused
    stock = shop.alembic("upgrade", "head")
    assert stock.returncode != 0
    assert "may not read it" in stock.stderr + stock.stdout
    assert (shop.recorded, shop.cents) == (["a1"], 1000)
    url, shop.url = shop.url, admin
    shop.do(*filter(None, refused.hint.partition(": ")[2].split("; ")))
    shop.url = url
    shop.is_refused()


def test_a_role_that_may_only_write_its_own_tables_sees_what_others_have_begun(shop, as_role):
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    as_role(*MAY_WRITE)
    shop.is_refused()
    assert (shop.recorded, shop.cents) == (["a1"], 1000)


@pytest.mark.parametrize("is_a_comment", [False, True], ids=["a row", "a comment"])
def test_a_stamp_by_a_role_that_may_not_lift_the_mark_says_so(shop, as_role, is_a_comment):
    shop.add("b2", "a1", f"{WAYS['commit']}\n1 / 0")
    assert isinstance(shop.apply().stores[0].exception, HalfDone)
    if is_a_comment:
        shop.do("DROP SCHEMA is_db_bootstrap CASCADE")
        shop.do(f"COMMENT ON TABLE alembic_version IS '{COMMENT}; begun upgrade b2'")
    admin = shop.url
    as_role(*MAY_WRITE)
    with pytest.raises(AccessDenied, match="delete the mark of the upgrade of revision b2"):
        shop.stamp("a1")
    shop.is_refused()
    shop.stamp("b2")
    shop.url = admin
    assert shop.apply().ok
    assert shop.recorded == ["b2"]


def test_a_second_role_of_a_database_goes_on_beside_the_marks_of_the_first(shop, as_role):
    shop.apply()
    as_role(*MAY_WRITE)
    shop.add("b2", "a1", WAYS["stays"])
    done = shop.apply()
    assert done.ok, done
    assert shop.recorded == ["b2"]


def test_a_role_that_may_not_read_what_has_begun_is_told_so_when_nothing_is_to_do(shop, as_role):
    shop.apply()
    as_role(*MAY_WRITE)
    shop.do_as_admin("ALTER TABLE is_db_bootstrap.begun ENABLE ROW LEVEL SECURITY")
    done = shop.apply()
    assert done.ok, done
    assert any("may say that a revision did not end" in note for note in done.stores[0].notes)


def test_a_mark_of_another_role_hides_no_mark_of_ours(shop, as_role):
    shop.add("b2", "a1", WAYS["stays"])
    assert shop.apply().ok
    left = "INSERT INTO is_db_bootstrap.begun SELECT 'public', 'upgrade b2', ARRAY[xmin::text]"
    shop.do(f"{left}::xid8[] FROM alembic_version")  # killed before it could delete its own
    as_role(*MAY_WRITE, "ALTER TABLE alembic_version OWNER TO {role}")
    shop.add("c3", "b2", f"{WAYS['commit']}\n{KILL}")
    shop.apply_until_killed()
    assert shop.comment.endswith("begun upgrade c3")  # this role may not write the other's row
    assert shop.cents == 10 * 100 * 100
    shop.add("c3", "b2", WAYS["commit"])
    refused = shop.apply().stores[0].exception
    assert isinstance(refused, StoreConflict), refused
    assert "upgrade of revision c3 has committed a part" in refused.message
    stock = shop.alembic("upgrade", "head")
    assert "upgrade of revision c3 has committed a part" in stock.stderr + stock.stdout
    assert shop.cents == 10 * 100 * 100
    shop.stamp("c3")
    assert shop.apply().ok


@pytest.mark.parametrize(
    "way", ["commit", "end as text", "a function that writes", "rolled back and then committed"]
)
def test_an_owner_who_may_make_no_schema_marks_in_the_comment(shop, as_role, way):
    shop.apply()
    shop.do("DROP SCHEMA is_db_bootstrap CASCADE")
    as_role(
        "GRANT ALL ON SCHEMA public TO {role}",
        "ALTER TABLE account OWNER TO {role}",
        "ALTER TABLE alembic_version OWNER TO {role}",
    )
    shop.add("b2", "a1", f"{WAYS[way]}\n{KILL}")
    shop.apply_until_killed()
    shop.is_refused()
    assert (shop.recorded, shop.cents) == (["a1"], 1000)
    assert shop.comment.endswith("begun upgrade b2")
    shop.stamp("b2")
    assert shop.apply().ok
    assert shop.comment == "is-db-bootstrap: blueprint shop; revisions a1 b2"
    assert shop.ask("SELECT to_regnamespace('is_db_bootstrap')") == [(None,)]


def test_a_mark_of_an_earlier_version_counts(shop):
    shop.apply()
    shop.add("b2", "a1", WAYS["stays"])
    shop.do(f"COMMENT ON TABLE alembic_version IS '{COMMENT}; begun upgrade b2'")
    shop.is_refused()
    shop.stamp("a1")
    assert shop.apply().ok


def test_nothing_to_do_writes_nothing(shop):
    shop.apply()
    shop.do("DROP SCHEMA is_db_bootstrap CASCADE")
    assert shop.apply().ok
    assert shop.ask("SELECT to_regnamespace('is_db_bootstrap')") == [(None,)]


def test_our_schema_is_no_schema_for_a_blueprint(shop):
    with pytest.raises(ConfigurationError, match="DB_SCHEMA is is_db_bootstrap"):
        PostgreSQLBootstrapper(shop.url, shop.blueprint, schema="is_db_bootstrap")


def test_in_a_scratch_database_it_runs_once_too(shop):
    shop.add("b2", "a1", WAYS["commit"])
    url = StoreUrl.parse("postgres", shop.url)
    with at_head(url, shop.blueprint, Timing()) as scratch, connect(scratch, 5) as connection:
        assert connection.execute(
            "SELECT cents, version_num FROM account, alembic_version"
        ).fetchall() == [(1000, "b2")]


# --- the stock command


def test_the_stock_command_records_every_revision_that_commits_by_itself(shop):
    PostgreSQLBootstrapper(shop.url, shop.blueprint).create_database()
    last = chain_of_all_ways(shop)
    shop.add("z9", last, "1 / 0")
    assert shop.alembic("upgrade", "head").returncode != 0
    assert (shop.recorded, shop.cents) == ([last], 10 + 100 * len(WAYS))
    shop.add("z9", last, "pass")
    done = shop.alembic("upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert (shop.recorded, shop.cents) == (["z9"], 10 + 100 * len(WAYS))


def test_the_stock_command_does_not_run_what_is_half_done(shop):
    PostgreSQLBootstrapper(shop.url, shop.blueprint).create_database()
    shop.add("b2", "a1", f"{WAYS['commit']}\nraise SystemExit(0)")
    exited = shop.alembic("upgrade", "head")
    assert exited.returncode != 0
    assert "SystemExit: 0" in exited.stderr + exited.stdout
    again = shop.alembic("upgrade", "head")
    assert "has committed a part of its work" in again.stderr + again.stdout
    assert "`is-db-bootstrap migrate stamp`" in again.stderr + again.stdout
    assert (again.returncode != 0, shop.recorded, shop.cents) == (True, ["a1"], 1000)
    assert shop.alembic("stamp", "b2").returncode == 0
    assert shop.alembic("upgrade", "head").returncode == 0
    assert shop.recorded == ["b2"]


def test_the_stock_command_runs_nothing_that_another_version_table_records(shop):
    PostgreSQLBootstrapper(shop.url, shop.blueprint).create_database()
    shop.do(
        "CREATE SCHEMA meta",
        "CREATE TABLE meta.shop_version (version_num varchar(32) PRIMARY KEY)",
        "INSERT INTO meta.shop_version VALUES ('a1')",
    )
    refused = shop.alembic("upgrade", "head")
    assert refused.returncode != 0
    assert "meta.shop_version records a1, which public.alembic_version does not" in (
        refused.stderr + refused.stdout
    )
    assert shop.ask("SELECT to_regclass('account')") == [(None,)]
    shop.do("UPDATE meta.shop_version SET version_num = 'theirs'")
    done = shop.alembic("upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert "meta.shop_version records theirs, which is not of shop" in done.stderr


# --- a connection of its own

ON_ITS_OWN = """
import psycopg
with psycopg.connect({url!r}, autocommit=True) as own:
    own.execute("UPDATE account SET cents = cents * 100")
    {failure}
"""


@pytest.mark.parametrize("failure", ["own.execute('SELECT 1 / 0')", "raise ValueError('x')"])
def test_a_failure_says_that_what_a_connection_of_its_own_committed_stays(shop, failure):
    assert shop.apply().ok
    shop.add("b2", "a1", ON_ITS_OWN.format(url=shop.url, failure=failure))
    error = shop.apply().stores[0].exception
    assert isinstance(error, ChangeFailed)
    said = "Its transaction was rolled back; what it committed on connections of its own stays."
    assert said in error.hint
    assert (shop.recorded, shop.cents) == (["a1"], 1000)


# --- exits, and what is printed


@pytest.mark.parametrize("place", ["in upgrade", "in the file", "at once"])
def test_an_exit_in_a_revision_is_a_failed_change_with_its_line(shop, place):
    leave = "import os\nos._exit(0)" if place == "at once" else "import sys\nsys.exit(0)"
    shop.add("b2", "a1", f"print('on my way')\n{leave}")
    if place == "in the file":
        path = shop.migrations / "b2.py"
        path.write_text(path.read_text() + "\n\nprint('on my way')\nraise SystemExit(0)\n")
    code, out, err = command(
        "apply", "-b", str(shop.folder), "-o", "json", environ={"POSTGRES_URL": shop.url}
    )
    assert code == 1
    error = json.loads("\n".join(out))["stores"][0]["error"]
    said = "SystemExit: os._exit(0)" if place == "at once" else "SystemExit: 0"
    assert said in error["message"]
    assert "b2.py, line" in error["message"]
    assert "on my way" in err


def test_what_finder_leaves_beside_a_revision_does_not_stop_alembic(shop):
    (shop.migrations / "._a1.py").write_bytes(
        b"\0\5\26\7\0\2\0\0Mac OS X        \0\2\0\0\0\xb0\xff"
    )
    (shop.migrations / ".#a1.py").symlink_to("nobody@host.1:1")
    (shop.migrations / "__init__.py").touch()
    path = shop.migrations / "a1.py"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert shop.apply().ok
    assert shop.recorded == ["a1"]


def test_an_interrupt_while_a_revision_runs_ends_the_run_as_interrupted(shop):
    shop.add(
        "b2",
        "a1",
        "import time\n"
        f"open({str(shop.folder / 'there')!r}, 'w').close()\n"
        "op.execute('SELECT pg_sleep(60)')",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", "migrate", "init", "-b", str(shop.folder)],
        env={**os.environ, "POSTGRES_URL": shop.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 60
    while not (shop.folder / "there").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert shop.recorded == ["a1"]
    assert (shop.lineage, shop.comment) == ("shop a1", None)


def test_a_revision_that_another_run_is_still_in_is_waited_for_and_no_conflict(
    tmp_path, postgres_url
):
    waiting = 'op.execute("SELECT pg_advisory_xact_lock(4711)")'
    revision(
        tmp_path / "migrations",
        "a1",
        None,
        "with op.get_context().autocommit_block():\n"
        f'    op.execute("CREATE TABLE early (id int)")\n    {waiting}',
    )
    blueprint = Blueprint("waited_for", "for tests", migrations=tmp_path / "migrations")
    first = PostgreSQLBootstrapper(postgres_url, blueprint)
    second = PostgreSQLBootstrapper(postgres_url, blueprint)
    first.create_database()
    held = first.try_lock("the first")
    (change,) = first.plan().changes
    with psycopg.connect(postgres_url, autocommit=True) as blocker:
        blocker.execute("SELECT pg_advisory_lock(4711)")
        working = threading.Thread(target=first.apply, args=(change,))
        working.start()
        while not blocker.execute("SELECT to_regclass('early')").fetchone()[0]:
            time.sleep(0.05)
        try:
            assert [c.name for c in second.plan().changes] == ["a1"]
            assert isinstance(second.try_lock("the second"), LockHolder)
        finally:
            blocker.execute("SELECT pg_advisory_unlock(4711)")
            working.join(30)
    assert held.release()
    assert second.plan().changes == ()
    first.close()
    second.close()


def test_a_run_that_ends_between_two_looks_is_no_conflict(shop, monkeypatch):
    shop.apply()
    waiting = 'op.execute("SELECT pg_advisory_xact_lock(4711)")'
    shop.add(
        "b2",
        "a1",
        f"with op.get_context().autocommit_block():\n    op.execute('{CENTS}')\n    {waiting}",
    )
    first = PostgreSQLBootstrapper(shop.url, shop.blueprint)
    held = first.try_lock("the first")
    (change,) = first.plan().changes

    ask = Workplace.is_at_work_elsewhere

    def ask_when_the_first_has_ended(place):
        assert place.history.read(second.reader()).revisions == ("a1",)
        blocker.execute("SELECT pg_advisory_unlock(4711)")
        working.join(60)
        assert held.release()
        return ask(place)

    monkeypatch.setattr(Workplace, "is_at_work_elsewhere", ask_when_the_first_has_ended)
    second = PostgreSQLBootstrapper(shop.url, shop.blueprint)
    with psycopg.connect(shop.url, autocommit=True) as blocker:
        blocker.execute("SELECT pg_advisory_lock(4711)")
        working = threading.Thread(target=first.apply, args=(change,))
        working.start()
        while shop.cents == 10:
            time.sleep(0.05)
        second.plan()
    assert [c.name for c in second.plan().changes] == []
    assert (shop.recorded, shop.cents) == (["b2"], 1000)
    first.close()
    second.close()


# --- a revision that was put before the last applied one


@pytest.fixture
def put_before(shop):
    """A schema at a1 and c3, and a folder that has a1, b2, c3 and d4."""
    shop.add("c3", "a1", 'op.execute("CREATE TABLE c (id integer)")')
    assert shop.apply().ok
    shop.add("b2", "a1", f'op.execute("{CENTS}")')
    shop.add("c3", "b2", "pass")
    shop.add("d4", "c3", 'op.execute("CREATE TABLE d (id integer)")')
    return shop


def test_a_revision_put_before_the_last_applied_one_is_told_and_nothing_is_applied(put_before):
    shop = put_before
    refused = shop.apply().stores[0].exception
    assert isinstance(refused, StoreConflict), refused
    assert "never had b2 applied, which stands before c3 in shop" in refused.message
    assert refused.subject == "b2"
    assert "never had b2 applied" in migrate.check(shop.blueprint, settings=shop.settings).conflict
    assert "down_revision = 'd4'" in refused.hint
    assert "migrate stamp c3" in refused.hint
    store = PostgreSQLBootstrapper(shop.url, shop.blueprint)
    with pytest.raises(StoreConflict, match="never had b2 applied"):
        store.verify()
    store.close()
    (shop.migrations / "d4.py").unlink()
    assert not migrate.current(shop.blueprint, settings=shop.settings).is_head
    with pytest.raises(StoreConflict, match="never had b2 applied"):
        migrate.downgrade(shop.blueprint, "a1", settings=shop.settings)
    for arguments in (("upgrade", "head"), ("downgrade", "a1")):
        stock = shop.alembic(*arguments)
        assert stock.returncode != 0
        assert "never had b2 applied" in stdout_and_stderr(stock)
    assert (shop.recorded, shop.cents) == (["c3"], 10)


def stdout_and_stderr(done):
    return done.stdout + done.stderr


@pytest.mark.parametrize("way", ["ours", "the stock command's"])
def test_a_revision_before_the_last_one_that_a_stamp_records_counts_as_applied(put_before, way):
    shop = put_before
    if way == "ours":
        assert shop.stamp("c3").revisions == ("c3",)
        assert shop.stamp("c3").revisions == ()
    else:
        for target in ("a1", "c3"):
            assert shop.alembic("stamp", target).returncode == 0
    assert (shop.lineage, shop.comment) == ("shop a1 b2 c3", None)
    assert [change.name for change in shop.apply().stores[0].changes] == ["d4"]
    assert (shop.recorded, shop.cents) == (["d4"], 10)


def test_a_revision_that_is_moved_behind_the_last_one_is_applied(put_before):
    shop = put_before
    shop.add("c3", "a1", "pass")
    shop.add("b2", "d4", f'op.execute("{CENTS}")')
    assert [change.name for change in shop.apply().stores[0].changes] == ["d4", "b2"]
    assert (shop.recorded, shop.cents) == (["b2"], 1000)


def test_where_only_the_version_table_is_there_what_led_to_its_revision_counts_as_applied(
    put_before,
):
    shop = put_before
    shop.do("DELETE FROM is_db_bootstrap.lineage")
    assert [change.name for change in shop.apply().stores[0].changes] == ["d4"]
    assert (shop.recorded, shop.cents) == (["d4"], 10)


def test_a_stamp_that_cannot_record_the_lineage_is_told(put_before):
    shop = put_before
    role = f"clerk_{uuid.uuid4().hex[:8]}"
    shop.do(
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT ALL ON SCHEMA public TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
    )
    url = StoreUrl.parse("postgres", shop.url)
    shop.url = replace(url, username=role, password="x").reveal(scheme="postgresql")
    try:
        with pytest.raises(AccessDenied, match=r"lineage says still that a1, c3 led there"):
            shop.stamp("c3")
    finally:
        shop.do_as_admin(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_the_lineage_is_written_and_rolled_back_with_the_revision(shop):
    shop.add("b2", "a1", "1 / 0")
    assert not shop.apply().ok
    assert (shop.recorded, shop.lineage) == (["a1"], "shop a1")
    shop.add("b2", "a1", "pass")
    assert shop.apply().ok
    assert shop.lineage == "shop a1 b2"
    assert down(shop, "base", drop_rows=True) == ["b2", "a1"]
    assert shop.ask("SELECT * FROM is_db_bootstrap.lineage") == []


def test_a_comment_of_an_earlier_version_is_read_and_kept_true_until_somebody_takes_it_away(shop):
    shop.add("c3", "a1", "pass")
    assert shop.apply().ok
    earlier = "is-db-bootstrap: blueprint shop; revisions a1"
    shop.do("DROP SCHEMA is_db_bootstrap CASCADE")
    shop.do(f"COMMENT ON TABLE alembic_version IS '{earlier} c3'")
    shop.add("b2", "a1", "pass")
    shop.add("c3", "b2", "pass")
    refused = shop.apply().stores[0].exception
    assert isinstance(refused, StoreConflict), refused
    assert "never had b2 applied" in refused.message
    shop.add("c3", "a1", "pass")
    shop.add("b2", "c3", "pass")
    assert shop.apply().ok
    assert (shop.lineage, shop.comment) == ("shop a1 c3 b2", f"{earlier} c3 b2")
    assert down(shop, "c3") == ["b2"]
    assert (shop.lineage, shop.comment) == ("shop a1 c3", f"{earlier} c3")
    assert down(shop, "base", drop_rows=True) == ["c3", "a1"]
    assert shop.comment is None
    assert shop.apply().ok
    assert (shop.lineage, shop.comment) == ("shop a1 c3 b2", None)


def test_a_table_of_an_earlier_version_which_has_no_plan_is_read_and_gets_one(put_before):
    shop = put_before
    shop.do("ALTER TABLE is_db_bootstrap.lineage DROP COLUMN planned")
    refused = shop.apply().stores[0].exception
    assert "never had b2 applied" in refused.message
    shop.add("c3", "a1", "pass")
    shop.add("b2", "d4", f'op.execute("{CENTS}")')
    assert [change.name for change in shop.apply().stores[0].changes] == ["d4", "b2"]
    assert shop.lineage == "shop a1 c3 d4 b2"
    assert shop.ask("SELECT planned FROM is_db_bootstrap.lineage") == [(None,)]


def test_a_role_that_may_not_add_the_plan_writes_with_each_step_as_before(put_before, as_role):
    shop = put_before
    shop.do("ALTER TABLE is_db_bootstrap.lineage DROP COLUMN planned")
    as_role(*MAY_WRITE, "GRANT ALL ON ALL TABLES IN SCHEMA is_db_bootstrap TO {role}")
    shop.add("c3", "a1", "pass")
    shop.add("b2", "d4", "pass")
    assert shop.apply().ok
    assert shop.lineage == "shop a1 c3 d4 b2"


def test_a_comment_of_somebody_else_is_left_as_it_is(shop, as_role):
    shop.apply()
    shop.do("COMMENT ON TABLE alembic_version IS 'see the handbook'")
    shop.add("b2", "a1", "pass")
    assert shop.apply().ok
    assert (shop.lineage, shop.comment) == ("shop a1 b2", "see the handbook")
    as_role(*MAY_WRITE, "ALTER TABLE alembic_version OWNER TO {role}")
    shop.add("c3", "b2", "pass")
    done = shop.apply()
    assert done.ok, done
    assert any("which says something else" in note for note in done.stores[0].notes)
    assert (shop.lineage, shop.comment) == ("shop a1 b2", "see the handbook")
    assert shop.apply().ok  # a row that does not end in the recorded revision is not believed


def test_a_lineage_that_may_not_be_read_is_told_and_not_taken_for_none(put_before, as_role):
    shop = put_before
    as_role(*MAY_WRITE)
    shop.do_as_admin("ALTER TABLE is_db_bootstrap.lineage ENABLE ROW LEVEL SECURITY")
    done = shop.apply()
    assert done.ok, done
    assert any("may not read is_db_bootstrap.lineage" in note for note in done.stores[0].notes)

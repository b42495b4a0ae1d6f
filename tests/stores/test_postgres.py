"""The PostgreSQL bootstrapper on real servers.

Creating, applying, locking, proving, and every kind of trouble.
"""

from __future__ import annotations

import http.server
import logging
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint, SeedRow
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.store import MadeByOther
from is_db_bootstrap.errors import (
    AccessDenied,
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change, LockHolder, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres import lock as postgres_lock
from is_db_bootstrap.stores.postgres import server_look
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import refused
from pages import ROOT
from pgbouncer import Poolers

pytestmark = pytest.mark.postgres

BLUEPRINT = Blueprint(
    "novel_genesis", "read from its files alone", migrations=files.migrations("novel_genesis")
)
HEAD = [f"ng_000{n}" for n in range(1, 5)]


@pytest.fixture
def url(postgres_url):
    return StoreUrl.parse("postgres", postgres_url)


@pytest.fixture
def open_store(url):
    opened = []

    def open_one(blueprint=BLUEPRINT, at=url, **options):
        opened.append(PostgreSQLBootstrapper(at, blueprint, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def apply_all(store):
    """Apply the whole plan; the remarks."""
    return [store.apply(change) for change in store.plan().changes]


@pytest.fixture
def migrated(open_store):
    store = open_store()
    apply_all(store)
    return store


def session(url, **options):
    return psycopg.connect(url.reveal(scheme="postgresql"), autocommit=True, **options)


def revision(folder: Path, name: str, before: str | None, upgrade: str, downgrade: str = "pass"):
    (folder / f"{name}.py").write_text(
        f'"""{name}."""\n'
        "\n"
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
        f"{textwrap.indent(downgrade, '    ')}\n",
        encoding="utf-8",
    )


@pytest.fixture
def mine(tmp_path):
    """A blueprint of one's own with the single table `one`."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    revision(
        folder,
        "m1",
        None,
        'op.execute("CREATE TABLE one (id integer)")',
        'op.execute("DROP TABLE one")',
    )
    return Blueprint("mine", "tables of a test", migrations=folder)


@contextmanager
def role(url, name, *grants):
    """A role with a password and these grants; the address with it."""
    with session(replace(url, database="postgres")) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        try:
            for grant in grants:
                admin.execute(grant)
            yield replace(url, username=name, password="secret")
        finally:
            try:
                with session(url) as inside:
                    inside.execute(f"DROP OWNED BY {name}")
            except psycopg.OperationalError:
                pass
            admin.execute(f"DROP ROLE {name}")


# --- creating


def test_a_missing_database_is_missing_whatever_its_name_and_the_users_are(open_store, url):
    with session(replace(url, database="postgres")) as admin:
        admin.autocommit = True
        admin.execute("CREATE ROLE app LOGIN CREATEDB PASSWORD 'x'")
        try:
            for name in ("my_app_database", "ssl_store", "scram_store", "app"):
                store = open_store(at=replace(url, username="app", password="x", database=name))
                store.ping(5)
                assert store.plan().changes[0].kind == "database"
        finally:
            admin.execute("DROP ROLE app")


def test_a_database_that_another_run_has_just_created_is_not_ready_instead_of_denied(url):
    with pytest.raises(psycopg.OperationalError) as missing:
        psycopg.connect(url.reveal())
    with psycopg.connect(url.reveal(database="postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{url.database}"')
    assert isinstance(refused(url, missing.value, url.database, 5), StoreUnavailable)


@pytest.mark.parametrize("postgres_url", ["14", "15", "18"], indirect=True)
def test_a_missing_database_is_planned_created_and_filled(open_store, url):
    store = open_store()
    assert store.ping(5).version.split(".")[0] in {"14", "15", "18"}
    assert [change.name for change in store.plan().changes] == [url.database, *HEAD]
    assert (
        store.plan().changes[1].detail
        == "Dialogue sessions and their rounds, and the trigger functions they share."
    )
    assert [d.kind for d in store.verify()] == ["database"]
    apply_all(store)
    assert store.plan().changes == ()
    assert list(store.verify()) == []
    assert list(store.audit()) == []


def test_a_first_run_opens_five_connections_and_a_run_with_nothing_to_do_one(
    open_store, monkeypatch
):
    """One each finds out that the database is missing, creates it, looks, locks and works.

    A server that has just started gets one more. What asks beside a slow step opens its own.
    """
    monkeypatch.setattr(server_look, "YOUNG_S", 0)
    opened = []
    connect = psycopg.Connection.connect.__func__

    def note(kind, *given, **more):
        if threading.current_thread().name != "is-db-bootstrap-beside":
            opened.append(more["dbname"])
        return connect(kind, *given, **more)

    monkeypatch.setattr(psycopg.Connection, "connect", classmethod(note))
    for outcome, count in ((Outcome.CHANGED, 5), (Outcome.UNCHANGED, 1)):
        opened.clear()
        assert BootstrapOrchestrator([open_store()]).run().outcome is outcome
        assert len(opened) == count, opened


def test_a_database_that_another_run_created_after_the_ping_is_planned_no_more(open_store, url):
    store = open_store()
    store.ping(5)
    assert store.plan().changes[0].kind == "database"
    open_store().create_database()
    assert [change.name for change in store.plan().changes] == HEAD


def test_a_maintenance_session_that_the_server_has_ended_is_opened_again(open_store, url):
    store = open_store()
    maintenance = replace(url, database="postgres")

    def end_sessions():
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s"
        pid = store._sessions.database.maintenance().info.backend_pid
        with session(maintenance) as admin:
            assert admin.execute(ended, [pid]).fetchall() == [(True,)]

    store.ping(5)
    end_sessions()
    assert store.plan().changes[0].kind == "database"
    end_sessions()
    assert store.create_database() is None
    assert [change.name for change in store.plan().changes] == HEAD


def test_two_runs_may_create_the_database_at_once(open_store):
    stores = [open_store() for _ in range(6)]
    ready = threading.Barrier(6)

    def create(store):
        ready.wait()
        return store.create_database()

    with ThreadPoolExecutor(6) as pool:
        remarks = list(pool.map(create, stores))
    assert remarks.count(None) == 1


def test_a_connection_to_template1_does_not_keep_the_database_from_being_created(open_store, url):
    with session(replace(url, database="template1")):
        open_store().create_database()


def test_without_the_right_to_create_a_database_the_statement_for_the_administrator_is_told(
    open_store, url
):
    with role(url, f"r{uuid4().hex[:8]}") as limited:
        store = open_store(at=limited)
        store.ping(5)
        with pytest.raises(AccessDenied) as refused:
            store.plan()
        assert f'CREATE DATABASE "{url.database}" OWNER' in refused.value.hint
        with pytest.raises(AccessDenied):
            store.create_database()


def test_without_a_way_into_the_maintenance_database_the_statement_is_told_too(
    open_store, make_server
):
    at = replace(
        StoreUrl.parse("postgres", make_server("postgres", password="s3cret").url), database="ours"
    )
    with session(replace(at, database="postgres")) as admin:
        admin.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    with role(at, "limited") as limited, pytest.raises(AccessDenied) as refused:
        open_store(at=limited).ping(5)
    assert "Database ours does not exist" in refused.value.message
    assert 'CREATE DATABASE "ours"' in refused.value.hint


def test_without_the_right_to_create_tables_nothing_is_begun(open_store, url):
    open_store().create_database()
    with role(url, f"r{uuid4().hex[:8]}") as limited:
        with pytest.raises(AccessDenied) as refused:
            open_store(at=limited).plan()
        assert "GRANT USAGE, CREATE ON SCHEMA" in refused.value.hint
        with pytest.raises(AccessDenied) as refused:
            open_store(at=limited, schema="elsewhere").plan()
        assert "CREATE SCHEMA" in refused.value.hint


def test_another_schema_is_created_and_public_stays_empty(open_store, url):
    store = open_store(schema='Odd "one')
    assert [c.kind for c in store.plan().changes] == ["database", "schema"] + ["revision"] * 4
    apply_all(store)
    assert store.plan().changes == ()
    assert [*store.verify(), *store.audit()] == []
    with session(url) as inside:
        assert inside.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone() == (0,)


def test_a_schema_may_have_any_name(open_store):
    odd = 'we"ird s%h'
    apply_all(open_store(schema=odd))
    again = open_store(schema=odd)
    assert again.plan().changes == ()
    assert list(again.verify()) == []


def test_a_schema_of_two_blueprints_side_by_side_is_two_databases_of_tables(open_store, mine):
    apply_all(open_store(schema="a"))
    apply_all(open_store(mine, schema="b"))
    assert list(open_store(schema="a").verify()) == []
    assert open_store(mine, schema="b").plan().changes == ()


def test_a_database_in_another_encoding_is_read_all_the_same(open_store, url):
    with session(replace(url, database="postgres")) as admin:
        admin.execute(
            f"CREATE DATABASE \"{url.database}\" TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        )
    store = open_store()
    apply_all(store)
    assert list(store.verify()) == []
    assert store.plan().changes == ()


# --- applying


def test_a_second_run_imports_neither_alembic_nor_sqlalchemy(migrated, postgres_url):
    script = f"""
import sys
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import refused
store = PostgreSQLBootstrapper({postgres_url!r}, Blueprint("novel_genesis", ""))
store.ping(5)
assert not store.plan().changes and not store.verify() and not store.audit()
store.close()
sys.exit(" ".join(m for m in ("alembic", "sqlalchemy") if m in sys.modules))
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", script], check=False, capture_output=True, text=True
        ).stderr.strip()
        == ""
    )


def test_a_second_run_imports_just_the_parts_that_the_architecture_page_says(
    migrated, postgres_url
):
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## The parts of PostgreSQL\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)\.py` \|.*\| ([^|]+) \|$", section, re.MULTILINE)
    script = f"""
import sys
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
store = PostgreSQLBootstrapper({postgres_url!r}, Blueprint("novel_genesis", ""))
store.ping(5)
assert not store.plan().changes and not store.verify() and not store.audit()
store.close()
loaded = (name.rpartition(".") for name in sys.modules)
print(*(name for package, _, name in loaded if package == "is_db_bootstrap.stores.postgres"))
"""
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(rows) == 11
    assert {name for name, _ in rows} & set(loaded) == {n for n, when in rows if when == "always"}


def test_the_callers_logging_is_left_alone(open_store):
    root, mine = logging.getLogger(), logging.getLogger("callers.own")
    before = (root.level, list(root.handlers), logging.getLogger("alembic").level)
    apply_all(open_store())
    assert (root.level, list(root.handlers), logging.getLogger("alembic").level) == before
    assert not mine.disabled


def test_stores_of_one_process_may_apply_at_once(open_store, mine):
    stores = [open_store(mine, schema=f"s{n}") for n in range(4)]
    stores[0].create_database()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(apply_all, stores))
    assert [store.plan().changes for store in stores] == [()] * 4


def test_a_failing_revision_is_named_and_those_before_it_stay(open_store, mine):
    folder = mine.migrations
    revision(
        folder,
        "m2",
        "m1",
        'op.execute("CREATE TABLE two (id integer)")\nop.execute("INSERT INTO nowhere VALUES (1)")',
    )
    revision(folder, "m3", "m2", 'op.execute("CREATE TABLE three (id integer)")')
    store = open_store(mine)
    with pytest.raises(ChangeFailed) as failed:
        apply_all(store)
    assert failed.value.change.name == "m2"
    assert '"nowhere" does not exist' in failed.value.message
    assert "42P01" in failed.value.message
    assert isinstance(failed.value.__cause__.orig, psycopg.errors.UndefinedTable)
    assert [c.name for c in store.plan().changes] == ["m2", "m3"]
    revision(folder, "m2", "m1", 'op.execute("CREATE TABLE two (id integer)")')
    apply_all(store)
    assert store.plan().changes == ()


def test_an_error_in_a_revisions_own_code_is_a_failed_change(open_store, mine):
    revision(
        mine.migrations,
        "m2",
        "m1",
        'op.execute("CREATE TABLE two (id integer)")\nraise KeyError("colour")',
    )
    store = open_store(mine)
    with pytest.raises(ChangeFailed, match="m2 failed in its own code: KeyError ") as caught:
        apply_all(store)
    assert caught.value.detail == "It said: 'colour'."
    assert [c.name for c in store.plan().changes] == ["m2"]


def test_a_lock_that_is_not_free_makes_the_store_busy_and_changes_nothing(open_store, mine, url):
    store = open_store(mine, timing=Timing(lock_timeout_s=0.2))
    apply_all(store)
    revision(
        mine.migrations,
        "m2",
        "m1",
        'op.execute("CREATE TABLE two (id integer)")\n'
        'op.execute("ALTER TABLE one ADD colour text")',
    )
    store = open_store(mine, timing=Timing(lock_timeout_s=0.2))
    with session(url) as reader, reader.transaction():
        reader.execute("SELECT * FROM one")
        with pytest.raises(StoreBusy, match="55P03"):
            store.apply(Change("m2", "revision"))
    assert [c.name for c in store.plan().changes] == ["m2"]
    assert store.apply(Change("m2", "revision")) is None
    assert store.plan().changes == ()


def test_a_deadlock_makes_the_store_busy(open_store, mine, url):
    apply_all(open_store(mine))
    with session(url) as other:
        other.execute("CREATE TABLE two (id integer)")
        revision(
            mine.migrations,
            "m2",
            "m1",
            'op.execute("LOCK TABLE one")\n'
            'op.execute("SELECT pg_sleep(0.5)")\n'
            'op.execute("ALTER TABLE two ADD colour text")',
        )
        other.execute("SET deadlock_timeout = '10s'")
        with other.transaction():
            other.execute("LOCK TABLE two")
            failure = []

            def run():
                try:
                    open_store(mine, timing=Timing(lock_timeout_s=20)).apply(
                        Change("m2", "revision")
                    )
                except StoreBusy as exc:
                    failure.append(exc)

            thread = threading.Thread(target=run)
            thread.start()
            _until(lambda: is_running(url, "SELECT pg_sleep(0.5)"), 60)
            other.execute("LOCK TABLE one")
            thread.join()
    assert "40P01" in failure[0].message


def test_what_another_session_applied_meanwhile_is_recognised(open_store, mine, url):
    apply_all(open_store(mine))
    revision(mine.migrations, "m2", "m1", 'op.execute("CREATE TABLE two (id integer)")')
    store, remarks = open_store(mine), []
    assert [c.name for c in store.plan().changes] == ["m2"]
    with session(url) as ghost:
        with ghost.transaction():
            ghost.execute("LOCK TABLE alembic_version")
            thread = threading.Thread(
                target=lambda: remarks.append(store.apply(Change("m2", "revision")))
            )
            thread.start()
            waiting = (
                "SELECT count(*) FROM pg_locks "
                "WHERE relation = 'alembic_version'::regclass AND NOT granted"
            )
            _until(lambda: ghost.execute(waiting).fetchone()[0] == 1, 60)
            ghost.execute("CREATE TABLE two (id integer)")
            ghost.execute("UPDATE alembic_version SET version_num = 'm2'")
        thread.join()
    assert remarks == ["Revision m2 was applied by another session meanwhile."]
    assert isinstance(remarks[0], MadeByOther)


def test_after_kill_9_the_revision_is_gone_within_seconds_and_a_rerun_completes(
    open_store, mine, postgres_url, url
):
    apply_all(open_store(mine))
    revision(
        mine.migrations,
        "m2",
        "m1",
        'op.execute("CREATE TABLE two (id integer)")\nop.execute("SELECT pg_sleep(120)")',
    )
    script = f"""
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import refused
blueprint = Blueprint("mine", "", migrations=Path({str(mine.migrations)!r}))
PostgreSQLBootstrapper({postgres_url!r}, blueprint).apply(Change("m2", "revision"))
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    _until(lambda: is_running(url, "SELECT pg_sleep(120)"), 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _until(lambda: not is_running(url, "SELECT pg_sleep(120)"), 20)
    revision(mine.migrations, "m2", "m1", 'op.execute("CREATE TABLE two (id integer)")')
    store = open_store(mine)
    assert apply_all(store) == [None]
    assert store.plan().changes == ()


def is_running(url, statement):
    """Whether a session of this database runs exactly this statement."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE query = %s AND state = 'active' AND datname = current_database()"
    )
    with session(url) as watcher:
        return watcher.execute(query, [statement]).fetchone()[0] > 0


def _until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_index_may_be_built_concurrently_while_others_wait_for_the_lock(open_store, mine):
    revision(
        mine.migrations,
        "m2",
        "m1",
        "with op.get_context().autocommit_block():\n"
        '    op.execute("CREATE INDEX CONCURRENTLY one_id ON one (id)")',
    )
    store, waiting = open_store(mine), open_store(mine)
    store.create_database()
    lock, stop = store.try_lock("first"), threading.Event()

    def poll():
        while not stop.is_set():
            assert isinstance(waiting.try_lock("second"), LockHolder)

    thread = threading.Thread(target=poll)
    thread.start()
    apply_all(store)
    stop.set()
    thread.join()
    assert lock.release()
    assert store.plan().changes == ()


def test_cancel_ends_a_statement_that_takes_a_minute(open_store, mine, url):
    revision(
        mine.migrations,
        "m2",
        "m1",
        'op.execute("CREATE TABLE two (id integer)")\nop.execute("SELECT pg_sleep(60)")',
    )
    store, failure = open_store(mine), []
    store.create_database()

    def run():
        try:
            apply_all(store)
        except StoreUnavailable as exc:
            failure.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    _until(lambda: is_running(url, "SELECT pg_sleep(60)"), 60)
    store.cancel()
    thread.join(30)
    assert not thread.is_alive()
    assert "m2 was cancelled" in failure[0].message
    assert [c.name for c in open_store(mine).plan().changes] == ["m2"]


def test_a_session_that_is_ended_midway_leaves_nothing_and_the_next_try_completes(
    open_store, mine, url
):
    apply_all(open_store(mine))
    revision(
        mine.migrations,
        "m2",
        "m1",
        'op.execute("CREATE TABLE two (id integer)")\nop.execute("SELECT pg_sleep(60)")',
    )
    store = open_store(mine)
    with session(url) as admin, ThreadPoolExecutor(1) as pool:
        applying = pool.submit(store.apply, Change("m2", "revision"))
        end = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database()"
        )
        _until(lambda: admin.execute(end).fetchone()[0] == 1, 60)
        with pytest.raises(StoreUnavailable, match="terminating connection"):
            applying.result()
    revision(mine.migrations, "m2", "m1", 'op.execute("CREATE TABLE two (id integer)")')
    assert [store.apply(change) for change in store.plan().changes] == [None]
    assert store.plan().changes == ()


def test_a_new_enum_label_can_be_used_by_the_next_revision(open_store, mine):
    folder = mine.migrations
    revision(
        folder,
        "m2",
        "m1",
        "op.execute(\"CREATE TYPE mood AS ENUM ('calm')\")\n"
        'op.execute("ALTER TABLE one ADD mood mood")',
    )
    revision(folder, "m3", "m2", "op.execute(\"ALTER TYPE mood ADD VALUE 'wild'\")")
    revision(folder, "m4", "m3", "op.execute(\"INSERT INTO one VALUES (1, 'wild')\")")
    store = open_store(mine)
    apply_all(store)
    assert store.plan().changes == ()


def test_of_two_runs_at_once_one_applies_and_the_other_finds_nothing_to_do(open_store):
    runs = [BootstrapOrchestrator([open_store()], blueprint=BLUEPRINT.name) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(BootstrapOrchestrator.run, runs))
    assert [result.exit_code for result in results] == [0, 0], [
        str(s.exception) for r in results for s in r.stores
    ]
    applied = [c.name for r in results for c in r.stores[0].changes if c.kind == "revision"]
    assert applied == HEAD
    third = BootstrapOrchestrator([open_store()], blueprint=BLUEPRINT.name).run()
    assert third.outcome == Outcome.UNCHANGED


# --- demo rows


def test_demo_rows_are_inserted_once_and_edited_ones_left_alone(open_store, url):
    row = SeedRow(
        "conversation_sessions",
        {"id": str(uuid4())},
        {"scope_type": "GENESIS", "scope_id": "n", "state": {"title": "A"}},
    )
    child = SeedRow(
        "conversation_rounds",
        {"session_id": row.key["id"], "round_path": "1"},
        {"role": "user", "input": {"text": "?"}},
    )
    seeded = replace(BLUEPRINT, seed_rows=(row, child))
    store = open_store(seeded, seed=True)
    assert [c.kind for c in store.plan().changes][-2:] == ["seed", "seed"]
    apply_all(store)
    assert store.plan().changes == ()
    with session(url) as editor:
        editor.execute("UPDATE conversation_sessions SET stage = 'EDITED'")
        editor.execute("DELETE FROM conversation_rounds")
    assert [c.name for c in store.plan().changes] == [
        f"conversation_rounds session_id={row.key['id']}, round_path=1"
    ]
    apply_all(store)
    with session(url) as reader:
        assert reader.execute("SELECT stage, state FROM conversation_sessions").fetchone() == (
            "EDITED",
            {"title": "A"},
        )
        assert reader.execute("SELECT count(*) FROM conversation_rounds").fetchone() == (1,)
    assert list(store.verify()) == []


# --- history


def test_a_history_that_goes_on_beyond_ours_is_ahead(open_store, mine, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(mine.migrations, older)
    revision(mine.migrations, "m2", "m1", 'op.execute("CREATE TABLE two (id integer)")')
    apply_all(open_store(mine))
    store = open_store(replace(mine, migrations=older))
    plan = store.plan()
    assert plan.ahead
    assert plan.changes == ()
    assert any("m2" in note for note in plan.notes)
    assert list(store.verify()) == []


def test_two_lines_of_revisions_are_a_conflict_that_names_both(open_store, mine, tmp_path):
    theirs = tmp_path / "theirs"
    shutil.copytree(mine.migrations, theirs)
    revision(theirs, "t2", "m1", 'op.execute("CREATE TABLE theirs (id integer)")')
    apply_all(open_store(replace(mine, migrations=theirs)))
    revision(mine.migrations, "m2", "m1", 'op.execute("CREATE TABLE two (id integer)")')
    with pytest.raises(StoreConflict, match="records t2, which mine does not know, and lacks m2"):
        open_store(mine).plan()


def test_an_unknown_revision_is_a_conflict_unless_a_setting_says_otherwise(
    open_store, migrated, url
):
    with session(url) as other:
        other.execute("UPDATE alembic_version SET version_num = 'f00d'")
    with pytest.raises(StoreConflict, match="f00d, which is unknown to novel_genesis") as caught:
        migrated.plan()
    assert "POSTGRES_UNKNOWN_REVISION=ahead" in caught.value.hint
    plan = open_store(unknown_is_ahead=True).plan()
    assert (plan.ahead, plan.changes) == (True, ())


def test_a_second_blueprint_in_one_schema_is_a_conflict_that_names_both(open_store, migrated, mine):
    with pytest.raises(StoreConflict, match="carries the blueprint novel_genesis, not mine"):
        open_store(mine).plan()


def test_a_blueprint_is_recognised_by_its_revision_when_nothing_else_tells(
    open_store, migrated, mine, url
):
    with session(url) as other:
        other.execute("COMMENT ON TABLE alembic_version IS NULL")
        other.execute("DROP SCHEMA is_db_bootstrap CASCADE")  # the lineage tells too
    with pytest.raises(
        StoreConflict, match="ng_0004, which belongs to the blueprint novel_genesis, not to mine"
    ):
        open_store(mine).plan()


def test_a_database_migrated_by_other_means_is_adopted(open_store, migrated, url):
    with session(url) as other:
        other.execute("COMMENT ON TABLE alembic_version IS 'see the wiki'")
    store = open_store()
    assert store.plan().changes == ()
    assert list(store.verify()) == []
    with session(url) as other:
        other.execute(
            "DROP TABLE event_outbox; DROP TYPE outbox_status_enum; "
            "UPDATE alembic_version SET version_num = 'ng_0003'"
        )
    assert [c.name for c in store.plan().changes] == ["ng_0004"]
    apply_all(store)
    assert list(store.verify()) == []


def test_our_tables_without_a_record_are_a_conflict_before_anything_is_changed(
    open_store, migrated, url
):
    with session(url) as other:
        other.execute("DROP TABLE alembic_version")
    with pytest.raises(
        StoreConflict, match=r"command_inbox, .* no revision is recorded"
    ) as conflict:
        open_store().plan()
    assert "migrate stamp" in conflict.value.hint


# --- proving

DRIFTS = {
    "table": ("DROP TABLE event_outbox", "event_outbox", "is missing"),
    "column": (
        "ALTER TABLE command_inbox DROP COLUMN retry_count CASCADE",
        "command_inbox.retry_count",
        "is missing",
    ),
    "type": (
        "ALTER TABLE conversation_rounds ALTER model TYPE varchar(64)",
        "conversation_rounds.model",
        "varying(64)",
    ),
    "default": (
        "ALTER TABLE command_inbox ALTER retry_count SET DEFAULT 1",
        "command_inbox.retry_count",
        "DEFAULT 1",
    ),
    "null": (
        "ALTER TABLE event_outbox ALTER topic DROP NOT NULL",
        "event_outbox.topic",
        "text NULL",
    ),
    "identity": (
        "ALTER TABLE domain_events ALTER id SET GENERATED BY DEFAULT",
        "domain_events.id",
        "BY DEFAULT",
    ),
    "constraint": (
        "ALTER TABLE conversation_rounds DROP CONSTRAINT ck_conversation_rounds_role",
        "conversation_rounds.ck_conversation_rounds_role",
        "is missing",
    ),
    "index": (
        "DROP INDEX idx_command_inbox_status",
        "command_inbox.idx_command_inbox_status",
        "is missing",
    ),
    "enum": (
        "ALTER TYPE outbox_status_enum ADD VALUE 'LOST' BEFORE 'SENT'",
        "outbox_status_enum",
        "'LOST', 'SENT'",
    ),
    "trigger": (
        "ALTER TABLE domain_events DISABLE TRIGGER trg_domain_events_append_only",
        "domain_events.trg_domain_events_append_only",
        "DISABLED",
    ),
    "function": (
        (
            "CREATE OR REPLACE FUNCTION increment_version() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RETURN NEW; END'"
        ),
        "increment_version()",
        "RETURN NEW; END",
    ),
}


@pytest.mark.parametrize("kind", DRIFTS)
def test_each_kind_of_drift_is_seen_and_not_planned(migrated, url, kind):
    statement, name, message = DRIFTS[kind]
    with session(url) as other:
        other.execute(statement)
    found = {drift.object: drift for drift in migrated.verify()}
    assert message in found[name].message
    assert found[name].expected
    assert migrated.plan().changes == ()


def test_an_index_whose_creation_was_interrupted_is_drift(migrated, url):
    with session(url) as other:
        other.execute(
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'idx_command_inbox_status'::regclass"
        )
    [drift] = migrated.verify()
    assert (drift.object, drift.kind) == ("command_inbox.idx_command_inbox_status", "index")
    assert "is invalid" in drift.message


def test_what_is_not_declared_is_found_and_what_is_others_business_is_not(migrated, url):
    with session(url) as other:
        other.execute("CREATE TABLE extra (id integer PRIMARY KEY)")
        other.execute("CREATE FUNCTION theirs() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
        other.execute("CREATE EXTENSION pg_trgm")
        other.execute("ALTER TABLE event_outbox ADD note text")
        other.execute("CREATE INDEX slow ON event_outbox (note)")
        other.execute("CREATE SCHEMA other; CREATE TABLE other.things (id integer)")
    assert list(migrated.verify()) == []
    found = migrated.audit()
    assert {(f.kind, f.object) for f in found} == {
        ("table", "extra"),
        ("column", "event_outbox.note"),
        ("index", "event_outbox.slow"),
    }
    assert all(f.finding for f in found)


def test_status_tells_record_head_and_holder(open_store, migrated):
    lock = migrated.try_lock("me on web-1")
    status = open_store().status()
    assert (status.recorded, status.head) == ("ng_0004", "ng_0004")
    assert "me on web-1" in status.lock.who
    lock.release()
    assert open_store().status().lock is None


# --- the lock


@pytest.mark.parametrize(
    "blueprint_name", ["novel_genesis", "a", "b", "c", "d"]
)  # keys of both signs
def test_the_lock_excludes_a_second_run_and_says_who_holds_it(open_store, blueprint_name):
    blueprint = replace(BLUEPRINT, name=blueprint_name, migrations=BLUEPRINT.migrations)
    store, other = open_store(blueprint), open_store(blueprint)
    store.create_database()
    lock = store.try_lock("run 1 on web-1")
    assert lock.confirm()
    held = other.try_lock("run 2")
    assert isinstance(held, LockHolder)
    assert "pid" in held.who
    assert "run 1 on web-1" in held.who
    assert held.since is not None
    assert lock.release()
    second = other.try_lock("run 2")
    assert second.confirm()
    assert second.release()


def test_blueprints_of_one_schema_share_its_lock_and_other_databases_have_another(
    open_store, mine, url
):
    store = open_store()
    store.create_database()
    lock = store.try_lock("one")
    assert isinstance(open_store(mine).try_lock("two"), LockHolder)
    elsewhere = open_store(at=replace(url, database="postgres")).try_lock("three")
    assert lock.confirm()
    assert elsewhere.confirm()
    for each in (lock, elsewhere):
        assert each.release()


def test_a_lost_lock_is_noticed(open_store, url):
    store = open_store()
    store.create_database()
    lock = store.try_lock("me")
    pid = lock.connection.info.backend_pid
    with session(url) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
    assert not lock.confirm()
    assert not lock.release()


def test_an_unlocked_lock_is_noticed_too(open_store):
    store = open_store()
    store.create_database()
    lock = store.try_lock("me")
    lock.connection.execute("SELECT pg_advisory_unlock_all()")
    assert not lock.confirm()
    assert not lock.release()


def test_the_lock_outlives_a_short_idle_session_timeout(open_store, url):
    store = open_store()
    store.create_database()
    with session(url) as admin:
        admin.execute(f'ALTER DATABASE "{url.database}" SET idle_session_timeout = 300')
    lock = store.try_lock("me")
    time.sleep(1)
    assert lock.confirm()
    assert lock.release()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def pooled(url):
    """Start pgbouncer in a pool mode before the server; the address through it."""
    poolers = Poolers()
    yield partial(poolers.start, url)
    poolers.close()


def test_behind_a_transaction_pooler_no_lock_is_believed(open_store, pooled):
    open_store().create_database()
    store = open_store(at=pooled("transaction"))
    with pytest.raises(ConfigurationError, match="connection pooler in transaction mode"):
        store.try_lock("me")
    assert open_store().status().lock is None


def test_behind_a_session_pooler_the_lock_holds(open_store, pooled):
    open_store().create_database()
    at = pooled("session")
    lock = open_store(at=at).try_lock("me")
    assert lock.confirm()
    assert isinstance(open_store(at=at).try_lock("other"), LockHolder)
    assert lock.release()


def test_the_key_of_the_lock_is_the_documented_one():
    assert postgres_lock.key("public") == -772055645795818257


# --- trouble with the address


def test_a_wrong_password_is_denied(open_store, url):
    store = open_store(at=replace(url, password="wrong"))
    with pytest.raises(AccessDenied, match="password authentication failed"):
        store.ping(5)
    with pytest.raises(AccessDenied):
        open_store(at=replace(url, password="")).ping(5)
    with pytest.raises(AccessDenied):
        open_store(at=replace(url, username="nobody we know")).ping(5)


def test_a_password_may_hold_any_character(open_store, url):
    name = f"r{uuid4().hex[:8]}"
    password = "%41 @:/?#&=+'\"\\ü€"
    with role(url, name):
        with session(replace(url, database="postgres")) as admin:
            admin.execute(
                psycopg.sql.SQL("ALTER ROLE {} PASSWORD {} CREATEDB").format(
                    psycopg.sql.Identifier(name), password
                )
            )
        at = replace(url, username=name, password=password)
        assert open_store(at=at).ping(5).version
        assert open_store(at=at.reveal()).ping(5).version
        assert password not in str(open_store(at=at).target)


def test_nobody_listening_is_unavailable(open_store, url):
    with pytest.raises(StoreUnavailable):
        open_store(at=replace(url, hosts="127.0.0.1:1")).ping(5)


def test_a_host_that_cannot_be_resolved_is_unavailable(open_store, url):
    with pytest.raises(StoreUnavailable):
        open_store(at=replace(url, hosts="nowhere.invalid:5432")).ping(5)


def test_a_web_server_at_the_port_is_a_configuration_error(open_store, url):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = open_store(at=replace(url, hosts=f"127.0.0.1:{server.server_port}"))
    with pytest.raises(ConfigurationError, match="an HTTP server answers, not PostgreSQL"):
        store.ping(2)
    server.shutdown()
    server.server_close()


def test_an_unknown_option_in_the_address_is_a_configuration_error(open_store, url):
    with pytest.raises(ConfigurationError, match="colour"):
        open_store(at=replace(url, query=(("colour", "blue"),))).ping(5)


def test_tls_that_the_server_does_not_have_is_denied(open_store, url):
    with pytest.raises(AccessDenied, match="TLS"):
        open_store(at=replace(url, query=(("sslmode", "require"),))).ping(5)


def test_a_certificate_is_checked_with_the_ca_file(open_store, make_server, tmp_path):
    server = make_server("postgres", password="s3cret")
    at = StoreUrl.parse("postgres", server.url)
    with session(replace(at, database="postgres")) as admin:
        data = Path(admin.execute("SHOW data_directory").fetchone()[0])
        for name in ("ours", "theirs"):
            subprocess.run(
                [
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    f"/CN={name}",
                    "-addext",
                    "subjectAltName=IP:127.0.0.1",
                    "-keyout",
                    tmp_path / f"{name}.key",
                    "-out",
                    tmp_path / f"{name}.crt",
                ],
                check=True,
                capture_output=True,
            )
        for suffix in ("crt", "key"):
            shutil.copy(tmp_path / f"ours.{suffix}", data / f"server.{suffix}")
            shutil.chown(data / f"server.{suffix}", data.owner())
            (data / f"server.{suffix}").chmod(0o600)
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
    _until(lambda: _speaks_tls(at), 5)
    assert open_store(at=replace(at, ca_file=str(tmp_path / "ours.crt"))).ping(5).version
    with pytest.raises(AccessDenied, match="TLS"):
        open_store(at=replace(at, ca_file=str(tmp_path / "theirs.crt"))).ping(5)
    with pytest.raises(AccessDenied, match="TLS"):
        open_store(at=replace(at, ca_file=str(tmp_path / "none.crt"))).ping(5)


def _speaks_tls(url):
    try:
        session(replace(url, database="postgres"), sslmode="require").close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2"]
)
def test_addresses_written_for_other_drivers_are_understood(open_store, postgres_url, scheme):
    text = postgres_url.replace("postgresql", scheme, 1)
    query = "?ssl=prefer&prepared_statement_cache_size=0" if "asyncpg" in scheme else ""
    assert open_store(at=text + query).ping(5).version


def test_of_several_hosts_the_one_that_can_be_written_to_is_used(open_store, url):
    store = open_store(at=replace(url, hosts=f"127.0.0.1:1,{url.hosts}"))
    store.ping(5)
    apply_all(store)
    assert list(store.verify()) == []


def test_a_database_that_is_read_only_is_unavailable(open_store, url):
    open_store().create_database()
    with session(replace(url, database="postgres")) as admin:
        admin.execute(f'ALTER DATABASE "{url.database}" SET default_transaction_read_only = on')
    with pytest.raises(StoreUnavailable, match="read-only"):
        open_store().ping(5)


def test_a_standby_is_refused(open_store, make_server):
    server = make_server("postgres", password="s3cret")
    at = StoreUrl.parse("postgres", server.url)
    with session(replace(at, database="postgres")) as admin:
        data = Path(admin.execute("SHOW data_directory").fetchone()[0])
    server.stop()
    (data / "standby.signal").touch()
    shutil.chown(data / "standby.signal", data.owner())
    server.start()
    _until(lambda: _answers(at), 20)
    with pytest.raises(StoreUnavailable, match="standby"):
        open_store(at=at).ping(5)


def _answers(url):
    try:
        session(replace(url, database="postgres")).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_server_that_is_starting_is_waited_for(open_store, make_server):
    server = make_server("postgres", password="s3cret")
    store = open_store(at=StoreUrl.parse("postgres", server.url))
    store.ping(5)
    server.kill()
    with pytest.raises(StoreUnavailable):
        store.ping(2)
    thread = threading.Thread(target=server.start)
    thread.start()
    end, version = time.monotonic() + 60, None
    while version is None and time.monotonic() < end:
        try:
            version = store.ping(2).version
        except StoreUnavailable:
            time.sleep(0.01)
    thread.join()
    assert version


def test_a_connection_that_was_lost_is_unavailable_and_the_next_call_opens_another(migrated, url):
    with session(replace(url, database="postgres")) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
            "AND pid <> pg_backend_pid()",
            [url.database],
        )
    with pytest.raises(StoreUnavailable):
        migrated.plan()
    assert migrated.plan().changes == ()


def test_close_may_be_called_twice_and_cancel_when_nothing_runs(migrated):
    migrated.cancel()
    migrated.close()
    migrated.close()
    migrated.cancel()


def test_tables_that_another_run_has_just_made_and_recorded_are_no_conflict(open_store):
    store, other = open_store(), open_store()
    store.create_database()
    look = store._pending._refuse_unrecorded

    def look_after_the_other_run(reader):
        store._pending._refuse_unrecorded = look
        apply_all(other)
        look(reader)

    store._pending._refuse_unrecorded = look_after_the_other_run
    with pytest.raises(StoreBusy):
        store.plan()
    assert store.plan().changes == ()

"""What a revision starts by itself, when its run fails or is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import psutil
import psycopg
import pytest

from is_db_bootstrap.process_tree import connections
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.sessions import end_sessions

pytestmark = [pytest.mark.postgres, pytest.mark.acceptance]
MARKER = f"92929.{os.getpid()}"
BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("mine", "for tests", migrations=Path(__file__).parent / "migrations")
"""
#: Three ways to go on after the end, and a call that hangs. The ways are a thread's connection, a
#: process with one, and a daemon.
REVISION = f'''
"""Starts what goes on."""
import os, subprocess, sys, threading, time
import psycopg
from alembic import op

revision = "m_0001"
down_revision = None
URL = os.environ["POSTGRES_URL"]
WORK = "SELECT pg_sleep(600); CREATE TABLE late (id int)"


def work():
    psycopg.connect(URL, autocommit=True, application_name="another name").execute(WORK)


def upgrade():
    threading.Thread(target=work, daemon=True).start()
    code = f"import psycopg; psycopg.connect({{URL!r}}, autocommit=True).execute({{WORK!r}})"
    subprocess.Popen([sys.executable, "-c", code, "{MARKER}"], start_new_session=True)
    subprocess.run(["sh", "-c", "setsid sleep {MARKER} &"], env={{}})
    open("begun", "w").close()
    time.sleep(600)


def downgrade():
    pass
'''


@pytest.fixture
def database(farm):
    server = farm.shared("postgres")
    name = f"leftovers_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{server.url}/{name}"
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def other_sessions(url):
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT query FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()


def processes_with(word):
    return [p.pid for p in psutil.process_iter(["cmdline"]) if word in (p.info["cmdline"] or ())]


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("call", [("setup", "--yes"), ("migrate", "init")], ids=" ".join)
def test_nothing_that_a_revision_has_started_goes_on_after_a_signal(tmp_path, database, call):
    (tmp_path / "mine.py").write_text(BLUEPRINT)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "m_0001_step.py").write_text(REVISION)
    process = subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", *call, "-b", "mine:BLUEPRINT"],
        cwd=tmp_path,
        env=os.environ | {"POSTGRES_URL": database, "IS_DB_BOOTSTRAP_GRACE": "0.5"},
        stdout=-1,
        stderr=-1,
        text=True,
    )
    wait_for((tmp_path / "begun").exists)
    wait_for(lambda: sum("late" in query for (query,) in other_sessions(database)) == 2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert other_sessions(database) == []
    assert processes_with(MARKER) == []


@pytest.mark.parametrize("how", ["--apply-timeout", "signal"])
def test_nothing_that_a_revision_has_started_goes_on_after_the_report_of_apply(
    tmp_path, database, how
):
    (tmp_path / "mine.py").write_text(BLUEPRINT)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "m_0001_step.py").write_text(REVISION)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "is_db_bootstrap", "apply", "-b", "mine:BLUEPRINT"),
            *("-o", "json"),
            *(("--apply-timeout", "10") if how == "--apply-timeout" else ()),
        ],
        cwd=tmp_path,
        env=os.environ | {"POSTGRES_URL": database, "IS_DB_BOOTSTRAP_GRACE": "0.5"},
        stdout=-1,
        stderr=-1,
        text=True,
    )
    if how == "signal":
        wait_for((tmp_path / "begun").exists)
        wait_for(lambda: sum("late" in query for (query,) in other_sessions(database)) == 2)
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == (143 if how == "signal" else 4), err
    assert other_sessions(database) == []
    assert processes_with(MARKER) == []
    notes = json.loads(out)["stores"][0]["notes"]
    assert "A thread of the process" in notes[-1]
    assert not [note for note in notes if "may go on" in note]


@pytest.mark.parametrize(
    "call", [("apply",), ("setup", "--yes"), ("migrate", "init")], ids=" ".join
)
def test_nothing_that_a_revision_has_started_goes_on_after_the_report_that_it_failed(
    tmp_path, database, call
):
    (tmp_path / "mine.py").write_text(BLUEPRINT)
    (tmp_path / "migrations").mkdir()
    waits = "subprocess.run(['sh', '-c', 'sleep 2'])\n    raise RuntimeError('no')"
    failing = REVISION.replace("time.sleep(600)", waits)
    (tmp_path / "migrations" / "m_0001_step.py").write_text(failing)
    found = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", *call, "-b", "mine:BLUEPRINT"],
        cwd=tmp_path,
        env=os.environ | {"POSTGRES_URL": database},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert found.returncode == 1, found.stderr
    assert "RuntimeError (" in found.stdout + found.stderr
    assert "It said: no." in found.stdout + found.stderr
    assert "may go on" not in found.stdout + found.stderr
    assert other_sessions(database) == []
    assert processes_with(MARKER) == []


def test_a_session_that_may_not_be_ended_is_named(database):
    role, called = f"weak_{uuid.uuid4().hex[:8]}", f"revision {uuid.uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'weak'")
        try:
            with psycopg.connect(database, application_name=called) as guest:
                weak = StoreUrl.parse("postgres", database)
                weak = StoreUrl.parse(
                    "postgres", f"postgresql://{role}:weak@{weak.hosts}/{weak.database}"
                )
                told = end_sessions(weak, 5.0, called, ())
                assert f"did not end session {guest.info.backend_pid} of " in told
                assert guest.execute("SELECT 1").fetchone() == (1,)
                assert end_sessions(StoreUrl.parse("postgres", database), 5.0, called, ()) == ""
                with pytest.raises(psycopg.OperationalError):
                    guest.execute("SELECT 1")
        finally:
            admin.execute(f"DROP ROLE {role}")


def test_a_session_is_found_by_its_client_whatever_it_is_called_and_no_other_is_ended(database):
    with psycopg.connect(database, application_name="one name") as guest:
        clients = [c for c in connections(os.getpid()) if c.port == local_port(guest)]
        with psycopg.connect(database, application_name="one name") as bystander:
            assert end_sessions(StoreUrl.parse("postgres", database), 5.0, "no name", clients) == ""
            assert bystander.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            guest.execute("SELECT 1")


def local_port(connection):
    row = connection.execute(
        "SELECT client_port FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    ).fetchone()
    connection.rollback()
    return row[0]

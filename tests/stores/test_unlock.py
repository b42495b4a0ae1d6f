"""`unlock` removes what a dead holder has left, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import neo4j
import psycopg
import pytest
import redis

from commands import command
from is_db_bootstrap.engine.owner import describe_owner, host_of, machine, process_of
from is_db_bootstrap.engine.store import Life
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.neo4j.lock import LABEL
from is_db_bootstrap.stores.postgres.lock import key

#: Takes the lock of one store as a run does, tells so, and goes on until it is killed.
HOLDING = """
import sys, threading, uuid
from is_db_bootstrap.app import bootstrapper
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine.owner import describe_owner
from is_db_bootstrap.results import LockHolder
from is_db_bootstrap.settings import Settings

name, url, folder = sys.argv[1:]
blueprint = load_blueprint(folder)
settings = Settings.load(blueprint, environ={}, flags={f"{name}_url": url, "connect_timeout_s": 60})
store = bootstrapper(name, settings.need(name), blueprint, settings)
store.ping(60)
lock = store.try_lock(describe_owner(uuid.uuid4().hex))
assert not isinstance(lock, LockHolder), lock
print("held", flush=True)
threading.Event().wait()
"""
DECLARED = {
    "postgres": 'from pathlib import Path\nBLUEPRINT = Blueprint("shop", "x", '
    'migrations=Path(__file__).parent / "migrations")',
    "neo4j": 'from pathlib import Path\nBLUEPRINT = Blueprint("shop", "x", '
    'cypher=Path(__file__).parent / "cypher")',
    "redis": 'BLUEPRINT = Blueprint("shop", "x", keys=[KeyPattern("session", '
    '"session:{id}", "string", 60, "us", "tests")])',
}


class Place:
    """One store, and a blueprint that has only that."""

    def __init__(self, store, url, folder):
        self.store, self.url, self.folder = store, url, folder
        (folder / "blueprint.py").write_text(
            f"from is_db_bootstrap.blueprint import Blueprint, KeyPattern\n{DECLARED[store]}\n"
        )
        if store == "postgres":
            (folder / "migrations").mkdir()
            (folder / "migrations" / "a1.py").write_text(
                'revision = "a1"\ndown_revision = None\ndef upgrade():\n    pass\n'
                "def downgrade():\n    pass\n"
            )
        if store == "neo4j":
            (folder / "cypher").mkdir()
            (folder / "cypher" / "V001__one.cypher").write_text("CREATE (:One);\n")
        self.environ = {f"{store.upper()}_URL": url}

    def run(self, *args, **environ):
        return command(*args, "--blueprint", str(self.folder), environ={**self.environ, **environ})

    def unlock(self, *args, **environ):
        code, lines, told = self.run("unlock", self.store, *args, **environ)
        return code, "\n".join(lines) + told

    def status(self):
        code, lines, told = self.run("status", "--output", "json")
        assert code == 0, told
        return json.loads("\n".join(lines))["stores"][0]["status"]["lock"]

    @contextmanager
    def holder(self):
        """A process that holds the lock."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDING, self.store, self.url, str(self.folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture
def place(request, tmp_path):
    store = request.param
    url = request.getfixturevalue(f"{store}_url")
    found = Place(store, url, tmp_path)
    if store == "postgres":
        code, _, told = found.run("apply")
        assert code == 0, told
    return found


leased = pytest.mark.parametrize("place", ["neo4j", "redis"], indirect=True)
every = pytest.mark.parametrize("place", ["postgres", "neo4j", "redis"], indirect=True)
on_postgres = pytest.mark.parametrize("place", ["postgres"], indirect=True)
on_neo4j = pytest.mark.parametrize("place", ["neo4j"], indirect=True)
on_redis = pytest.mark.parametrize("place", ["redis"], indirect=True)


def test_the_text_of_an_owner_names_its_host_and_its_process():
    text = describe_owner("0123456789ab")
    assert process_of(text) == os.getpid()
    assert host_of(text) in text
    assert machine()
    assert (host_of("pid 7"), process_of("pid 7")) == (None, None)
    assert host_of("is-db-bootstrap 01 on a-host-that-was-cut-of") is None


@every
def test_a_holder_at_work_is_shown_and_refused(place):
    with place.holder() as process:
        found = place.status()
        assert found["since"]
        left_s = found["lease_left_s"]
        assert left_s is None if place.store == "postgres" else 0 < left_s <= 60
        if place.store != "postgres":  # its names have 63 bytes
            assert found["pid"] == process.pid
            assert found["host"] in found["who"]
        code, told = place.unlock("--yes")
        assert code == 7, told
        assert "which is at work" in told
        code, told = place.unlock("--yes", "--holder", found["who"])
        assert code == 7, told
        assert place.status()["who"] == found["who"]
        code, told = place.unlock("--yes", "--holder", "somebody else")
        assert code == 6, told


@leased
def test_the_lease_of_a_killed_process_of_this_machine_is_removed(place):
    with place.holder() as process:
        process.kill()
        process.wait()
        code, told = place.unlock()
        assert code == 2, told
        assert "There is no terminal to ask at" in told
        assert place.status()["pid"] == process.pid
        code, told = place.unlock("--yes")
        assert (code, f"process {process.pid}" in told) == (0, True), told
        assert place.status() is None
        code, told = place.unlock("--yes", "--output", "json")
        assert (code, json.loads(told)["removed"]) == (0, None)


@on_postgres
def test_a_session_that_was_silent_for_two_leases_is_ended(place):
    with place.holder():
        # As after a cut network: the server has the session, and the run does not ask any more.
        deadline = time.monotonic() + 60
        while (answer := place.unlock("--yes", IS_DB_BOOTSTRAP_LEASE="1"))[0] == 7:
            assert time.monotonic() < deadline, answer
        code, told = answer
        assert code == 0, told
        assert "removed the lock of pid" in told
        assert place.status() is None


@on_postgres
def test_a_session_that_is_none_of_a_run_has_to_be_named(place):
    with psycopg.connect(place.url, autocommit=True, application_name="somebody") as other:
        other.execute("SELECT pg_advisory_lock(%s)", [key("public")])
        code, told = place.unlock("--yes")
        assert code == 6, told
        who = place.status()["who"]
        assert f"--holder '{who}'" in told
        code, told = place.unlock("--yes", "--holder", who)
        assert code == 0, told
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


@on_postgres
def test_a_session_that_was_heard_of_since_it_was_looked_at_stays(place):
    from is_db_bootstrap.stores.postgres import lock

    with (
        psycopg.connect(place.url, autocommit=True, application_name="somebody") as other,
        psycopg.connect(place.url, autocommit=True) as looking,
    ):
        other.execute("SELECT pg_advisory_lock(%s)", [key("public")])
        end = time.monotonic() + 30
        # The server says a moment later than its answer that a session is idle.
        while (seen := lock.present(looking, key("public"), 60)).life is Life.ALIVE:
            assert time.monotonic() < end
        assert seen.life is Life.UNKNOWN
        other.execute("SELECT 1")
        assert not lock.remove(looking, key("public"), seen)
        assert other.execute("SELECT 1").fetchone() == (1,)


@on_redis
def test_a_key_that_is_no_lease_has_to_be_named(place):
    lock_key = "is-db-bootstrap:lock:shop"
    with redis.Redis.from_url(place.url) as client:
        client.set(lock_key, "taken")
        code, told = place.unlock("--yes")
        assert code == 6, told
        assert "has no lifetime" in told
        code, told = place.unlock("--yes", "--holder", place.status()["who"])
        assert (code, client.exists(lock_key)) == (0, 0), told


@leased
def test_a_lease_of_another_machine_has_to_be_named(place):
    with place.holder() as process:
        if place.store == "redis":
            with redis.Redis.from_url(place.url) as client:
                [lock_key] = client.keys("*:lock:*")
                facts = {**json.loads(client.get(lock_key)), "token": "1@elsewhere"}
                client.set(lock_key, json.dumps(facts), ex=60)
        else:
            write(place, f"MATCH (l:{LABEL}) SET l.id = '1@elsewhere', l.token = l.id")
        code, told = place.unlock("--yes")
        # A server of Neo4j still knows the connections of its run.
        assert code == (6 if place.store == "redis" else 7), told
        process.kill()
        process.wait()
        if place.store == "redis":
            code, told = place.unlock("--yes", "--holder", place.status()["who"])
        else:
            deadline = time.monotonic() + 60
            while (answer := place.unlock("--yes"))[0] == 7:
                assert time.monotonic() < deadline
            code, told = answer
        assert (code, place.status()) == (0, None), told


def write(place, statement):
    url = StoreUrl.parse("neo4j", place.url)
    with (
        neo4j.GraphDatabase.driver(
            f"bolt://{url.hosts}", auth=(url.username, url.password)
        ) as driver,
        driver.session() as session,
    ):
        return [dict(row) for row in session.run(statement)]


@on_neo4j
def test_a_lease_that_was_renewed_since_it_was_looked_at_stays(place):
    from is_db_bootstrap.app import bootstrapper
    from is_db_bootstrap.blueprint.load import load_blueprint
    from is_db_bootstrap.settings import Settings

    blueprint = load_blueprint(str(place.folder))
    settings = Settings.load(
        blueprint, environ={}, flags={"neo4j_url": place.url, "connect_timeout_s": 60}
    )
    store = bootstrapper("neo4j", settings.need("neo4j"), blueprint, settings)
    store.ping(60)
    try:
        lock = store.try_lock("me")
        seen = store.present_lock()
        assert lock.confirm()
        assert not store.remove_lock(seen)
        assert lock.confirm()
        assert store.remove_lock(store.present_lock())
        assert not lock.confirm()
    finally:
        store.close()


@pytest.mark.parametrize("store", ["milvus", "postgres"])
def test_a_store_without_a_lock_names_the_one_that_guards_it(store):
    blueprint = {"milvus": "novel_genesis", "postgres": "helpdesk"}[store]
    code, _, told = command("unlock", "milvus", "--blueprint", blueprint, "--yes")
    assert code == 2
    assert "is-db-bootstrap unlock postgres" in told or "has no milvus part" in told

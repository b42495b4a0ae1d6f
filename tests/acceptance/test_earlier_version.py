"""The version of commit 00863d4 and this one on the same servers, as in a rolling update."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psycopg
import pytest

import earlier
import wheel
from servers import neo4j_driver

#: A test runs up to seven commands, each of which takes a second and a half on a quiet machine.
pytestmark = pytest.mark.timeout(900)

BLUEPRINT = """
import dataclasses
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern

NOTES = Collection(
    "notes_v1",
    fields=(
        Field("id", "VARCHAR", primary=True, max_length=36),
        Field("embedding", "FLOAT_VECTOR", dim=8),
    ),
    indexes=(Index("embedding", "HNSW", "COSINE", {{"M": 16, "efConstruction": 100}}),),
    alias="notes",
)
ARCHIVE = dataclasses.replace(NOTES, name="archive_v1", alias="archive")
KEYS = (
    KeyPattern("session", "notes:session:{{id}}", "string", 3600, "web", "a login session"),
    KeyPattern("draft", "notes:draft:{{id}}", "string", 3600, "web", "a note being written"),
)
BLUEPRINT = Blueprint(
    name="notes",
    summary="of a test",
    collections=(NOTES, ARCHIVE)[:{version}],
    keys=KEYS[:{version}],
)
"""
REVISION = '''
"""Another one."""
from alembic import op
revision = {name!r}
down_revision = {before!r}
def upgrade():
    op.execute("CREATE TABLE IF NOT EXISTS ran (what text)")
    op.execute("INSERT INTO ran VALUES ('{name}')")
    op.execute("{wait}")
def downgrade():
    pass
'''
#: How the earlier version says that it leaves a store alone.
SAID_OF_NEWER = ("nothing is changed", "are left alone")
#: A key of an advisory lock that the test holds while a revision is to stay in its transaction.
GATE = 4711
STORES = ("postgres", "neo4j", "milvus", "redis")
#: Takes the lock of a store as its version does, and says what came of it. The lock is held until
#: stdin ends.
LOCKER = """
import dataclasses, sys
from pathlib import Path
from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.settings import Settings
store, address = sys.argv[1:]
blueprint = Blueprint("notes", "of a test")
settings = Settings.load(blueprint, environ={}, flags={store + "_url": address})
found = app.bootstrapper(store, settings.need(store), blueprint, settings)
found.ping(30)
taken = found.try_lock("a test")
print(type(taken).__name__, flush=True)
sys.stdin.read()
if hasattr(taken, "release"):
    taken.release()
found.close()
"""


@pytest.fixture(scope="module")
def old():
    """The command and the interpreter of the earlier version."""
    return earlier.programs()


@pytest.fixture
def environ(postgres_url, neo4j_url, milvus_url, redis_url):
    return wheel.surroundings(
        POSTGRES_URL=postgres_url,
        NEO4J_URL=neo4j_url,
        MILVUS_URL=milvus_url,
        REDIS_URL=redis_url,
        IS_DB_BOOTSTRAP_LEASE_S="6",
        IS_DB_BOOTSTRAP_HEARTBEAT_S="1",
    )


@pytest.fixture
def notes(tmp_path):
    """`notes(version, wait="")`: the folder of the blueprint's first or second version."""

    def write(version, wait="SELECT 1"):
        folder = tmp_path / f"v{version}" / "notes"
        for name in ("migrations", "cypher"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "blueprint.py").write_text(BLUEPRINT.format(version=version))
        for number, (name, before) in enumerate([("a1", None), ("b2", "a1")][:version], 1):
            text = REVISION.format(name=name, before=before, wait=wait)
            (folder / "migrations" / f"{name}.py").write_text(text)
            (folder / "cypher" / f"V00{number}__more.cypher").write_text(
                f"CREATE (:Ran {{what: '{name}'}});\n"
            )
        return folder

    return write


@pytest.fixture
def start(old, environ):
    """`start("old", folder, "apply")`: the command of one version, begun."""
    begun = []

    def run(version, folder, *args):
        program = [old / "is-db-bootstrap"]
        if version == "new":
            program = [sys.executable, "-m", "is_db_bootstrap"]
        process = subprocess.Popen(
            [*program, *args, "--blueprint", folder, "--output", "json"],
            env=environ,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    run.url = environ["POSTGRES_URL"]
    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def do(start):
    """`do("old", folder, "apply")`: the result that it has printed, with that exit code."""

    def run(version, folder, *args, code=0):
        found, result = ended(start(version, folder, *args))
        assert found == code, json.dumps(result, indent=1)
        return result

    return run


def ended(process):
    output, errors = process.communicate(timeout=180)
    assert output, (process.args, errors)
    return process.returncode, json.loads(output)


def changes(result):
    """What was changed, without what was only planned."""
    return [
        f"{change['kind']} {change['name']}"
        for store in result["stores"]
        for change in store["changes"]
        if change["outcome"] == "changed"
    ]


def newer(result):
    """The stores that are left alone because newer code was there."""
    return [
        store["store"]
        for store in result["stores"]
        if any(word in note for word in SAID_OF_NEWER for note in store["notes"])
    ]


@pytest.fixture
def ran(environ, farm):
    """`ran()`: what each revision and each Cypher file has written, sorted."""

    def look():
        with psycopg.connect(environ["POSTGRES_URL"]) as connection:
            rows = [row[0] for row in connection.execute("SELECT what FROM ran ORDER BY what")]
        with neo4j_driver(farm.shared("neo4j")) as driver:
            query = "MATCH (n:Ran) RETURN n.what AS what ORDER BY what"
            nodes = [record["what"] for record in driver.execute_query(query).records]
        return rows, nodes

    return look


@pytest.fixture
def comment(environ):
    """`comment()`: that of the version table."""

    def look():
        with psycopg.connect(environ["POSTGRES_URL"]) as connection:
            query = "SELECT obj_description('alembic_version'::regclass)"
            return connection.execute(query).fetchone()[0]

    return look


def test_what_the_earlier_version_applied_is_carried_on_and_it_leaves_what_is_newer_alone(
    do, notes, ran, comment
):
    first, second = notes(1), notes(2)
    do("old", first, "apply")
    # The earlier version leaves no record of what was converged together.
    assert {*changes(do("new", first, "apply"))} == {"memory memory"}
    result = do("new", first, "apply")
    assert (result["outcome"], changes(result)) == ("unchanged", [])
    result = do("new", second, "apply")
    assert {"revision b2", "collection archive_v1"} <= {*changes(result)}
    assert ran() == (["a1", "b2"], ["a1", "b2"])
    assert comment() == "is-db-bootstrap: blueprint notes; revisions a1 b2"

    result = do("old", first, "apply")
    assert changes(result) == []
    assert newer(result) == ["postgres", "neo4j", "redis"]  # a collection has one version
    do("old", first, "apply", "--no-ahead", code=6)
    assert ran() == (["a1", "b2"], ["a1", "b2"])
    result = do("old", second, "apply")  # the earlier tool with the newer files
    assert changes(result) == []
    result = do("new", second, "apply")
    assert (result["outcome"], changes(result)) == ("unchanged", [])


def test_what_this_version_made_is_left_alone_by_the_earlier_one(do, notes, ran, comment):
    first, second = notes(1), notes(2)
    do("new", first, "apply")
    assert comment() is None
    result = do("old", first, "apply")
    assert changes(result) == []
    do("new", second, "apply")
    result = do("old", first, "apply", code=6)
    assert changes(result) == []  # no comment says that b2 is newer
    assert ran() == (["a1", "b2"], ["a1", "b2"])
    result = do("old", second, "apply")
    assert changes(result) == []


def test_both_versions_at_once_apply_everything_once(start, notes, ran):
    folder = notes(2)
    processes = [start(version, folder, "apply") for version in ("old", "new", "old", "new")]
    results = [ended(process) for process in processes]
    assert [code for code, _ in results] == [0, 0, 0, 0], results
    assert ran() == (["a1", "b2"], ["a1", "b2"])
    made = [name for _, result in results for name in changes(result)]
    applied = [name for name in made if name != "memory memory"]
    assert sorted(set(applied)) == sorted(applied)


@pytest.mark.parametrize("store", ["postgres", "neo4j", "redis"])
@pytest.mark.parametrize("first", ["old", "new"])
def test_a_lock_of_one_version_keeps_the_other_one_out(old, environ, store, first):
    if store == "postgres":
        server, _, name = environ["POSTGRES_URL"].rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
    pythons = {"old": old / "python", "new": sys.executable}
    second = "new" if first == "old" else "old"

    def take(version):
        return subprocess.Popen(
            [pythons[version], "-c", LOCKER, store, environ[f"{store.upper()}_URL"]],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with take(first) as holder:
        assert holder.stdout.readline().strip() not in {"", "LockHolder"}
        with take(second) as other:
            assert other.communicate(timeout=60)[0].strip() == "LockHolder"
        holder.communicate(timeout=60)
    with take(second) as other:
        assert other.communicate(timeout=60)[0].strip() not in {"", "LockHolder"}


@pytest.mark.parametrize("killed", ["old", "new"])
def test_what_one_version_was_killed_in_the_other_one_goes_on_with(start, do, notes, ran, killed):
    survivor = "new" if killed == "old" else "old"
    do("old", notes(1), "apply")
    blocked = notes(2, wait=f"SELECT pg_advisory_xact_lock({GATE})")
    with psycopg.connect(start.url, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(%s)", [GATE])
        process = start(killed, blocked, "apply")
        query = "SELECT count(*) FROM pg_locks WHERE objid = %s AND NOT granted"
        until(lambda: gate.execute(query, [GATE]).fetchone()[0] == 1, process)
        result = do(survivor, blocked, "apply", "--timeout", "1", code=7)
        assert changes(result) == []
        process.kill()
        process.wait()
    assert "revision b2" in changes(do(survivor, notes(2), "apply"))
    assert ran() == (["a1", "b2"], ["a1", "b2"])


def until(is_so, process):
    end = time.monotonic() + 120
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)

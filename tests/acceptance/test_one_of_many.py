"""Many runs at the same moment: one applies, and a run with nothing to do takes no lock."""

from __future__ import annotations

import json

import psycopg
import pytest
import redis
from test_four_stores import fingerprint, graph

from is_db_bootstrap.stores.neo4j.lock import LABEL
from is_db_bootstrap.stores.postgres.lock import key
from wheel import run

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
]
RUNS = 20
#: For twenty processes on a machine that is busy with others.
PATIENT = ("--timeout", "600", "--phase-timeout", "600")
BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern

HERE = Path(__file__).parent
BLUEPRINT = Blueprint(
    "mine", "for tests", migrations=HERE / "migrations", cypher=HERE / "cypher",
    keys=(KeyPattern("k", "k:{x}", "string", 60, "app", "x"),),
    collections=(
        Collection(
            "mine_docs",
            fields=(
                Field("id", "VARCHAR", primary=True, max_length=40),
                Field("vector", "FLOAT_VECTOR", dim=4),
            ),
            indexes=(Index("vector", "HNSW", "COSINE", {"M": 8, "efConstruction": 64}),),
        ),
    ),
)
"""
REVISION = '''"""Makes a table with one row."""
from alembic import op

revision = "a1"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE once (n int); INSERT INTO once VALUES (1)")


def downgrade():
    pass
'''


@pytest.fixture
def mine(shell):
    """The command in a folder with a blueprint of four stores."""
    folder = shell.folder
    for name, text in {
        "mine.py": BLUEPRINT,
        "migrations/a1.py": REVISION,
        "cypher/V001__once.cypher": "CREATE (:Once);\n",
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    shell.environ = {
        **shell.environ,
        "IS_DB_BOOTSTRAP_BLUEPRINT": "mine:BLUEPRINT",
        "IS_DB_BOOTSTRAP_CONNECT_TIMEOUT": "60",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return shell


#: So many processes of the command, which share what they have imported. All of them begin when a
#: pipe closes that they read.
MANY = """
import importlib, os, sys
from is_db_bootstrap import client_imports
from is_db_bootstrap.cli import main

client_imports.keep_out()
for name in ("postgres", "neo4j", "milvus", "redis"):
    importlib.import_module(f"is_db_bootstrap.stores.{name}.bootstrapper")
gate, opener = os.pipe()
children = []
for number in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        os.close(opener)
        for stream, ending in ((1, "out"), (2, "err")):
            place = os.open(f"{number}.{ending}", os.O_CREAT | os.O_WRONLY)
            os.dup2(place, stream)
        os.read(gate, 1)
        main(sys.argv[2:])
        raise SystemExit(99)
    children.append(child)
os.close(opener)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def at_once(shell, count, *args):
    """The documents of so many processes of the command that begin at the same moment."""
    python = shell.command.parent / "python"
    done = run(
        python,
        "-c",
        MANY,
        count,
        *args,
        "--output",
        "json",
        cwd=shell.folder,
        check=False,
        timeout=800,
        **shell.environ,
    )
    told = [(shell.folder / f"{number}.err").read_text() for number in range(count)]
    assert done.stdout.strip() == str([0] * count), (done, told)
    return [json.loads((shell.folder / f"{number}.out").read_text()) for number in range(count)]


DATABASE = ("postgres", "database")


def made_by(document):
    """What a run has made, as store and kind."""
    return {
        (store["store"], each["kind"])
        for store in document["stores"]
        for each in store["changes"]
        if each["outcome"] == "changed"
    }


@pytest.mark.timeout(900)
def test_of_twenty_runs_at_the_same_moment_one_applies_and_all_end_well(mine, four):
    found = at_once(mine, RUNS, "apply", *PATIENT)
    made = [made_by(document) for document in found]
    # The lock is one of the database, so the database comes before it. Any run may be the quickest.
    assert sum(DATABASE in each for each in made) == 1
    [applied] = [each - {DATABASE} for each in made if each - {DATABASE}]
    assert {store for store, _ in applied} == {"postgres", "neo4j", "milvus", "redis"}
    idle = [document["outcome"] for document in found if not made_by(document)]
    assert set(idle) == {"unchanged"}
    with psycopg.connect(four["POSTGRES_URL"]) as connection:
        assert connection.execute("SELECT n FROM once").fetchall() == [(1,)]
    assert graph(four["NEO4J_URL"], "MATCH (o:Once) RETURN count(o) AS n") == [{"n": 1}]

    # Everything is locked by others now, who never end. A run with nothing to do asks for no lock.
    lock_key = "is-db-bootstrap:lock:mine"
    with (
        psycopg.connect(four["POSTGRES_URL"], autocommit=True) as other,
        redis.Redis.from_url(four["REDIS_URL"], decode_responses=True) as client,
        client.monitor() as monitor,
    ):
        other.execute("SELECT pg_advisory_lock(%s)", [key("public")])
        graph(four["NEO4J_URL"], f"CREATE (:{LABEL} {{id: 'theirs', name: 'John Doe'}})")
        client.set(lock_key, "theirs")
        before = fingerprint(four)
        document = mine.json("apply", *PATIENT)
        assert (document["outcome"], document["exit_code"]) == ("unchanged", 0)
        assert fingerprint(four) == before
        client.delete(lock_key)
        sent = []
        while sent[-1:] != [f"DEL {lock_key}"]:
            sent.append(monitor.next_command()["command"])
    about_lock = {each.split()[0] for each in sent if lock_key in each}
    assert about_lock == {"SET", "GET", "DEL"}  # ours are the first and the last
    assert sum(each.startswith(("SET ", "EVAL")) and lock_key in each for each in sent) == 1

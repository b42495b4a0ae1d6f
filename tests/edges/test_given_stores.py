"""`--stores-from env`: sessions on servers that other people use too. They wipe nothing of others and leave nothing behind.

Every fact is tried on each store. Where a session is killed or stopped, or where its output or its
exit code is the fact, it is pytest as a process of its own. Other sessions are in this process: an
interpreter with all clients takes seconds to start.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import psycopg
import pytest
import redis as redis_client

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.scaffold import create_folder
from is_db_bootstrap.testing import neo4j_content
from is_db_bootstrap.testing.content import Content, Seal, Thing
from is_db_bootstrap.testing.neo4j_turn import SETTLE_S
from is_db_bootstrap.testing.session import TestSession
from is_db_bootstrap.testing.sources import GivenServers
from servers import PASSWORD, milvus_client, neo4j_driver

_ADDRESSES = ("POSTGRES_", "NEO4J_", "MILVUS_", "REDIS_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_")
INI = "[pytest]\nis_db_blueprint = novel_genesis\nasyncio_default_fixture_loop_scope = function\n"
STORES = ("postgres", "neo4j", "milvus", "redis")
#: Sessions on two of them take half a minute each, so `make soak` has these of most tests.
MORE_WITH_SOAK = [
    "postgres",
    pytest.param("neo4j", marks=pytest.mark.soak),
    pytest.param("milvus", marks=pytest.mark.soak),
    "redis",
]


class PostgresProbe:
    """What stands on the server, as anybody sees it, and what somebody else writes."""

    write = "with postgres.begin() as c: c.exec_driver_sql('CREATE TABLE of_a_test (id int)')"

    def __init__(self, server):
        self.server, self.address = server, f"{server.url}/customers_database"

    def _run(self, text, database="postgres"):
        with psycopg.connect(f"{self.server.url}/{database}", autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    def everything(self):
        return sorted(row[0] for row in self._run("SELECT datname FROM pg_database"))

    def somebody_writes(self):
        self._run("CREATE DATABASE customers_database")
        self._run(
            "CREATE TABLE customers (id int); INSERT INTO customers VALUES (1)",
            "customers_database",
        )

    def has_what_somebody_wrote(self):
        return self._run("SELECT count(*) FROM customers", "customers_database") == [(1,)]

    def somebody_deletes(self):
        self._run("DROP DATABASE customers_database")

    def wait_for_commands_of_the_dead(self):
        """The server finishes a `CREATE DATABASE` whose client has been killed."""
        deadline = time.monotonic() + 120
        running = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state = 'active' AND query ~ '^CREATE DATABASE'"
        )
        while self._run(running) != [(0,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def places(self):
        return [
            name for name in self.everything() if re.fullmatch(r"isdb_test_[0-9a-f]{8}_\d+", name)
        ]

    def has_a_tests_table(self, database):
        return self._run("SELECT to_regclass('of_a_test') IS NOT NULL", database) == [(True,)]

    def somebody_writes_into(self, database):
        self._run(
            "CREATE TABLE IF NOT EXISTS of_a_test (id int); INSERT INTO of_a_test VALUES (77)",
            database,
        )

    def holds_what_was_written_into(self, database):
        return self._run("SELECT id FROM of_a_test", database) == [(77,)]

    def empty(self):
        for (name,) in self._run(
            "SELECT datname FROM pg_database WHERE datname LIKE 'isdb%' OR datname LIKE 'customers%'"
        ):
            self._run(f'ALTER DATABASE "{name}" WITH IS_TEMPLATE false')
            self._run(f'DROP DATABASE "{name}" WITH (FORCE)')


class Neo4jProbe:
    has_written = (
        "neo4j.execute_query('MATCH (n:OfATest) RETURN count(n) AS n').records[0]['n'] == 2"
    )
    write = "neo4j.execute_query('CREATE (:OfATest {id: 1})-[:NEXT]->(:OfATest {id: 2})')"

    def __init__(self, server):
        self.server, self.address = server, server.url

    def _run(self, text):
        with neo4j_driver(self.server) as driver:
            return [tuple(r.values()) for r in driver.execute_query(text).records]

    def everything(self):
        nodes = self._run("MATCH (n) WITH labels(n)[0] AS label RETURN label ORDER BY label")
        return nodes + self._run(
            "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name ORDER BY name"
        )

    def end_signs_of_life(self):
        """As after half a minute in which a stopped process has said nothing.

        Within the first seconds, a process takes a mark that is gone for deleted by its own test.
        """
        time.sleep(SETTLE_S)
        self._run(
            "MATCH (m:__IsDbBootstrapTesting)"
            " SET m.until = datetime.realtime() - duration({seconds: 1})"
        )

    def somebody_writes(self):
        self._run("CREATE (:Customer {id: 1})")

    def has_what_somebody_wrote(self):
        return self._run("MATCH (n:Customer) RETURN n.id") == [(1,)]

    def somebody_deletes(self):
        self._run("MATCH (n:Customer) DELETE n")

    def empty(self):
        self._run("MATCH (n) DETACH DELETE n")
        for (name,) in self._run("SHOW CONSTRAINTS YIELD name RETURN name"):
            self._run(f"DROP CONSTRAINT `{name}`")
        for (name,) in self._run(
            "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name"
        ):
            self._run(f"DROP INDEX `{name}`")


class MilvusProbe:
    write = "milvus.create_collection('of_a_test', dimension=4)"

    def __init__(self, server):
        self.server, self.address = server, server.url

    def _client(self, database=""):
        return milvus_client(self.server.url, db_name=database)

    def everything(self):
        client = self._client()
        found = sorted(client.list_databases()) + sorted(client.list_collections())
        client.close()
        return found

    def somebody_writes(self):
        client = self._client()
        client.create_collection("customers", dimension=4)
        client.insert("customers", [{"id": 1, "vector": [0.5] * 4}])
        client.close()

    def places(self):
        return [name for name in self.everything() if name.startswith("isdb_test_")]

    def has_a_tests_table(self, database):
        client = self._client(database)
        found = "of_a_test" in client.list_collections()
        client.close()
        return found

    def somebody_writes_into(self, database):
        client = self._client(database)
        if "of_a_test" not in client.list_collections():
            client.create_collection("of_a_test", dimension=4)
        client.insert("of_a_test", [{"id": 77, "vector": [0.5] * 4}])
        client.close()

    def holds_what_was_written_into(self, database):
        client = self._client(database)
        found = client.query("of_a_test", filter="", limit=9, consistency_level="Strong")
        client.close()
        return [row["id"] for row in found] == [77]

    def somebody_deletes(self):
        client = self._client()
        client.drop_collection("customers")
        client.close()

    def has_what_somebody_wrote(self):
        client = self._client()
        found = client.query(
            "customers", filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        client.close()
        return found[0]["count(*)"] == 1

    def empty(self):
        client = self._client()
        for database in client.list_databases():
            inside = self._client(database)
            for name in inside.list_collections():
                for alias in inside.list_aliases(collection_name=name)["aliases"]:
                    inside.drop_alias(alias)
                inside.drop_collection(name)
            inside.close()
            if database != "default":
                client.drop_database(database)
        client.close()


class RedisProbe:
    has_written = "redis.get('of_a_test') == b'1'"
    write = "redis.set('of_a_test', 1)"

    def __init__(self, server):
        self.server, self.address = server, f"{server.url}/0"

    def _client(self, number=0):
        return redis_client.Redis.from_url(f"{self.server.url}/{number}", decode_responses=True)

    def everything(self):
        with self._client() as client:
            numbers = client.info("keyspace")
        return [
            (name, sorted(self._client(name.removeprefix("db")).keys())) for name in sorted(numbers)
        ]

    def end_signs_of_life(self):
        """As a server does that has a time-out for silent connections."""
        with self._client() as client:
            for each in client.client_list():
                if each["name"].startswith("is-db-bootstrap-"):
                    client.client_kill_filter(_id=each["id"])

    def somebody_writes(self):
        with self._client() as client:
            client.set("customer:1", "x")

    def somebody_deletes(self):
        with self._client() as client:
            client.delete("customer:1")

    def has_what_somebody_wrote(self):
        with self._client() as client:
            return client.get("customer:1") == "x"

    def empty(self):
        with self._client() as client:
            client.flushall()


PROBES = {
    "postgres": PostgresProbe,
    "neo4j": Neo4jProbe,
    "milvus": MilvusProbe,
    "redis": RedisProbe,
}


@contextmanager
def session_on(place):
    """A session in this process."""
    session = TestSession(GivenServers({f"{place.store.upper()}_URL": place.probe.address}))
    yield session
    session.close()
    assert session.troubles == []


@dataclass
class Place:
    """One store, and pytest sessions on it."""

    store: str
    probe: object
    folder: object

    @property
    def write(self):
        return self.probe.write

    def start(self, tests, *options):
        (self.folder / "pytest.ini").write_text(INI)
        name = f"test_{time.monotonic_ns()}.py"
        (self.folder / name).write_text(tests)
        env = {k: v for k, v in os.environ.items() if not k.startswith((*_ADDRESSES, "PYTEST"))}
        address = {f"{self.store.upper()}_URL": self.probe.address}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--stores-from",
            "env",
            *options,
            name,
        ]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=env | address,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, tests, *options):
        process = self.start(tests, *options)
        shown = process.communicate(timeout=280)[0]
        return process.returncode, shown

    def run_writing(self, *options):
        """A session of two tests, each of which finds nothing and writes."""
        return self.run(
            f"import pytest\n@pytest.mark.parametrize('n', range(2))\ndef test_it({self.store}, n):\n    {self.write}\n",
            *options,
        )

    def errors_here(self):
        """A session of two tests in this process, as `run_writing`: the errors that they meet."""
        errors = []
        with session_on(self) as session:
            for _ in range(2):
                with session.stores("novel_genesis") as stores:
                    try:
                        client = getattr(stores, self.store)
                    except BootstrapError as exc:
                        errors.append(" ".join(str(exc).split()))
                    else:
                        exec(self.write, {self.store: client})
        return errors

    def killed(self, tests, *options):
        """A session that is killed when a test prints `now`."""
        process = self.in_a_test(tests, *options)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def in_a_test(self, tests, *options):
        """A session one of whose tests has printed `now`."""
        process = self.start(tests, "-s", *options)
        shown = ""
        for line in process.stdout:
            shown += line
            if "now" in line.split():
                break
        else:
            pytest.fail(f"the session ended by itself:\n{shown}")
        return process


@pytest.fixture(scope="module")
def given(farm):
    made = {}

    def one(store):
        if store not in made:
            made[store] = farm.make(
                store, password=PASSWORD if store in {"postgres", "neo4j"} else ""
            )
        return made[store]

    yield one
    for server in made.values():
        server.kill()


@pytest.fixture(params=STORES)
def place(request, given, tmp_path):
    """One store. `redis_server` is a Redis whose address names no logical database."""
    store = request.param.removesuffix("_server")
    probe = PROBES[store](given(store))
    if store != request.param:
        probe.address = probe.server.url
    probe.empty()
    yield Place(store, probe, tmp_path)
    probe.empty()


def test_a_session_that_ends_leaves_the_store_as_it_was_found(place):
    before = place.probe.everything()
    code, shown = place.run_writing()
    assert code == 0, shown
    assert place.probe.everything() == before
    assert place.errors_here() == []
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", MORE_WITH_SOAK, indirect=True)
def test_what_was_written_between_two_sessions_is_named_and_kept(place):
    assert place.errors_here() == []
    place.probe.somebody_writes()
    before = place.probe.everything()
    code, shown = place.run_writing()
    assert code == 1, shown
    errors = [
        line for line in shown.splitlines() if line.startswith(f"no clean store: {place.store}: ")
    ]
    assert len(errors) == 2, shown
    assert "is not empty" in errors[0]
    assert "customer" in errors[0].lower()
    assert "Traceback" not in shown
    assert "During handling" not in shown
    assert place.probe.has_what_somebody_wrote()
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", MORE_WITH_SOAK, indirect=True)
def test_what_was_written_after_a_session_was_killed_is_kept_and_the_rest_is_removed(place):
    before = place.probe.everything()
    # Longer than between two looks at what a test has written.
    place.killed(
        f"import time\ndef test_it({place.store}):\n    {place.write}\n    time.sleep(3.5)\n"
        "    print('\\nnow', flush=True)\n    time.sleep(60)\n"
    )
    place.probe.somebody_writes()
    error, _ = place.errors_here()
    assert error.startswith(f"{place.store}: ")
    assert "customer" in error.lower()
    assert "OfATest" not in error
    assert "of_a_test" not in error
    assert place.probe.has_what_somebody_wrote()
    place.probe.somebody_deletes()
    assert place.errors_here() == []
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", ["postgres", "milvus"], indirect=True)
@pytest.mark.parametrize("in_a_test", [True, False], ids=["used", "made_ahead"])
def test_what_was_written_into_a_killed_sessions_database_is_named_and_kept(place, in_a_test):
    """Into the one that its test used, where the test has a table of that name; or another one."""
    place.killed(
        f"import time\ndef test_it({place.store}):\n    {place.write}\n    time.sleep(3.5)\n"
        f"    print('\\nnow', {place.store}, flush=True)\n    time.sleep(60)\n"
    )
    used = [name for name in place.probe.places() if place.probe.has_a_tests_table(name)]
    ahead = [name for name in place.probe.places() if name not in used]
    database = (used if in_a_test else ahead)[0]
    place.probe.somebody_writes_into(database)
    before = place.probe.everything()
    error, _ = place.errors_here()
    assert f"database {database} at" in error
    assert "of_a_test" in error
    assert "Nothing was deleted." in error
    assert place.probe.holds_what_was_written_into(database)
    assert place.probe.everything() == before


#: Ends some time after it goes on, which the file `continued` says.
STOPPED = """
import pathlib, time
def test_it({store}):
    {write}
    time.sleep(3.5)
    print('\\nnow', flush=True)
    while not pathlib.Path('continued').exists():
        time.sleep(0.1)
    time.sleep(8)
"""
#: Ends when the file `go` is there, and finds what it has written.
SUCCESSOR = """
import pathlib, time
def test_it({store}):
    {write}
    print('\\nnow', flush=True)
    while not pathlib.Path('go').exists():
        time.sleep(0.1)
    assert {has_written}
"""


def _stopped(place):
    """A session that was stopped in a test, and is taken for dead by others."""
    stopped = place.in_a_test(STOPPED.format(store=place.store, write=place.write))
    stopped.send_signal(signal.SIGSTOP)
    place.probe.end_signs_of_life()
    return stopped


def _continued(place, stopped):
    stopped.send_signal(signal.SIGCONT)
    (place.folder / "continued").touch()
    shown = stopped.communicate(timeout=280)[0]
    assert stopped.returncode == 1, shown
    assert "Traceback" not in shown
    [line] = [line for line in shown.splitlines() if "was lost" in line]
    assert "the turn" in line


@pytest.mark.parametrize("place", ["neo4j", "redis"], indirect=True)
def test_a_session_that_was_stopped_wipes_nothing_that_came_after_it(place):
    stopped = _stopped(place)
    assert place.errors_here() == []
    place.probe.somebody_writes()
    before = place.probe.everything()
    _continued(place, stopped)
    assert place.probe.has_what_somebody_wrote()
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", ["neo4j", "redis"], indirect=True)
def test_a_session_that_was_stopped_leaves_its_successor_alone(place):
    before = place.probe.everything()
    stopped = _stopped(place)
    successor = place.in_a_test(
        SUCCESSOR.format(store=place.store, write=place.write, has_written=place.probe.has_written)
    )
    _continued(place, stopped)
    (place.folder / "go").touch()
    shown = successor.communicate(timeout=280)[0]
    assert successor.returncode == 0, shown
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", ["redis"], indirect=True)
@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_session_that_could_not_clean_says_so_and_fails(place, options):
    admin = f"{place.probe.server.url}/0"
    with place.probe._client() as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">x", "~*", "&*", "+@all")
    place.probe.address = place.probe.address.replace("redis://", "redis://narrow:x@")
    code, shown = place.run(
        f"import redis as r\ndef test_it(redis):\n    {place.write}\n"
        f"    r.Redis.from_url({admin!r}).execute_command("
        "'ACL', 'SETUSER', 'narrow', '-flushdb', '-del')\n",
        *options,
    )
    assert "1 passed" in shown
    assert code == 1, shown
    assert "redis: what this test run made could not be removed" in shown


@pytest.mark.parametrize("place", MORE_WITH_SOAK, indirect=True)
def test_two_sessions_at_once_both_pass_and_leave_nothing(place):
    before = place.probe.everything()
    other = place.in_a_test(
        "import pytest, time\n@pytest.mark.parametrize('n', range(4))\n"
        f"def test_it({place.store}, n):\n    {place.write}\n    print('\\nnow', flush=True)\n"
        "    time.sleep(0.4)\n"
    )
    assert place.errors_here() == []
    shown = other.communicate(timeout=280)[0]
    assert other.returncode == 0, shown
    assert place.probe.everything() == before


#: The first test kills its worker when it has just written more than the blueprint makes. The
#: others take the store after that.
WORKERS = """
import os, pathlib, pytest, time

killed = pathlib.Path('killed')

@pytest.fixture(autouse=True)
def after_the_kill(n):
    while n and not killed.exists():
        time.sleep(0.02)

@pytest.mark.parametrize('n', range(6))
def test_it({store}, n):
    {write}
    if n == 0:
        killed.touch()
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("place", [*MORE_WITH_SOAK, "redis_server"], indirect=True)
def test_a_killed_worker_fails_its_own_test_only_and_nothing_of_it_stays(place):
    before = place.probe.everything()
    code, shown = place.run(WORKERS.format(store=place.store, write=place.write), "-n", "2")
    assert code == 1, shown
    assert "1 failed, 5 passed" in shown, shown
    assert "crashed while running" in shown
    assert "no clean store" not in shown
    if place.store == "postgres":
        place.probe.wait_for_commands_of_the_dead()
    assert place.errors_here() == []
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", MORE_WITH_SOAK, indirect=True)
def test_a_kept_store_goes_with_the_next_session(place):
    before = place.probe.everything()
    code, shown = place.run(
        f"def test_it({place.store}):\n    {place.write}\n    assert False\n", "--keep-stores"
    )
    assert code == 1
    assert "stores kept until the next session" in shown
    assert place.probe.everything() != before
    assert place.errors_here() == []
    assert place.probe.everything() == before


def _write_into_kept(place, shown):
    masked = next(
        line for line in shown.splitlines() if line.startswith(f"{place.store.upper()}_URL=")
    ).partition("=")[2]
    # The report masks the password.
    url = masked.replace("***", quote(PASSWORD, safe=""))
    if place.store == "postgres":
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE customers (id int)")
        return lambda: (
            psycopg.connect(url).execute("SELECT count(*) FROM customers").fetchone() == (0,)
        )
    if place.store == "milvus":
        database = url.rpartition("/")[2]
        client = place.probe._client(database)
        client.create_collection("customers", dimension=4)
        return lambda: "customers" in client.list_collections()
    place.probe.somebody_writes()
    return place.probe.has_what_somebody_wrote


@pytest.mark.parametrize("place", MORE_WITH_SOAK, indirect=True)
def test_what_was_written_into_a_kept_store_is_named_and_kept(place):
    code, shown = place.run(
        f"def test_it({place.store}):\n    {place.write}\n    assert False\n", "--keep-stores"
    )
    assert code == 1
    is_there = _write_into_kept(place, shown)
    error = place.errors_here()[0]
    assert "was left by a test run, and holds what that run does not vouch for" in error
    assert "customer" in error.lower()
    assert "Nothing was deleted." in error
    assert is_there()


@pytest.mark.parametrize("place", ["neo4j", "redis"], indirect=True)
def test_what_is_written_between_two_tests_is_named_and_kept(place, given):
    address = place.probe.server.url
    writes = {
        "neo4j": "import neo4j as n; d = n.GraphDatabase.driver(A, auth=('neo4j', P)); d.execute_query('CREATE (:Customer {id: 1})')",
        "redis": "import redis as r; r.Redis.from_url(A).set('customer:1', 'x')",
    }
    host = address.rpartition("@")[2].removeprefix("redis://")
    plain = f"{'bolt' if place.store == 'neo4j' else 'redis'}://{host}"
    code, shown = place.run(
        f"A = {plain!r}; P = {PASSWORD!r}\nimport pytest\n"
        f"def test_first({place.store}):\n    {place.write}\n"
        f"def test_somebody():\n    {writes[place.store]}\n"
        f"def test_last({place.store}):\n    pass\n"
    )
    assert code == 1, shown
    assert "2 passed, 1 error" in shown, shown
    assert place.probe.has_what_somebody_wrote()


@pytest.mark.parametrize("place", ["neo4j"], indirect=True)
def test_a_test_that_deletes_every_node_ends_nobodys_turn(place):
    before = place.probe.everything()
    code, shown = place.run(
        "import pytest, time\n@pytest.mark.parametrize('n', range(2))\ndef test_it(neo4j, n):\n"
        "    neo4j.execute_query('MATCH (n) DETACH DELETE n')\n"
        "    neo4j.execute_query('CREATE (:OfATest)')\n"
        "    time.sleep(2.5)\n"
        "    assert neo4j.execute_query('MATCH (n:OfATest) RETURN count(n) AS n').records[0]['n'] == 1\n",
        "-n",
        "2",
    )
    assert code == 0, shown
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", ["neo4j"], indirect=True)
def test_two_blueprints_of_one_session_take_turns(place):
    create_folder("other", ("neo4j",), place.folder)
    before = place.probe.everything()
    code, shown = place.run(
        "import pytest\n@pytest.mark.parametrize('n', range(2))\n@pytest.mark.parametrize('name', ['novel_genesis', 'other'])\n"
        "class TestIt:\n"
        "    @pytest.fixture\n"
        "    def is_db_blueprint(self, name): return name\n"
        f"    def test_it(self, neo4j, name, n):\n        {place.write}\n"
    )
    assert code == 0, shown
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_a_user_who_may_not_look_is_refused(place):
    with place.probe._client() as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">x", "~*", "&*", "+@all", "-dump")
    place.probe.address = place.probe.address.replace("redis://", "redis://narrow:x@")
    error, _ = place.errors_here()
    assert error.startswith("redis: redis://narrow:***@")
    assert "What cannot be seen is not taken for empty." in error


# --- set-ups that fail


def broken_postgres(folder):
    create_folder("broken", ("postgres",), folder)
    [revision] = (folder / "broken" / "migrations").glob("*.py")
    text = revision.read_text()
    at = text.index("def downgrade")
    revision.write_text(
        text[:at].rstrip() + '\n    op.execute("SELECT no_such_function()")\n\n\n' + text[at:]
    )
    return load_blueprint(folder / "broken")


def broken_neo4j(folder):
    """Two files that can run, and one that cannot."""
    (folder / "cypher").mkdir()
    files = [
        "CREATE CONSTRAINT code IF NOT EXISTS FOR (n:Country) REQUIRE n.code IS UNIQUE;",
        "UNWIND ['at', 'de'] AS code CREATE (:Country {code: code});",
        "CREATE (:Broken {x: });",
    ]
    for number, text in enumerate(files, 1):
        (folder / "cypher" / f"V00{number}__a.cypher").write_text(text)
    return Blueprint("broken", "fails", cypher=folder / "cypher")


def broken_milvus(folder):
    key = Field("id", "INT64", primary=True)
    index = (Index("v", "FLAT", "L2"),)
    good = Collection("good_v1", (key, Field("v", "FLOAT_VECTOR", dim=4)), index)
    bad = Collection("bad_v1", good.fields, index, alias="good_v1")  # a collection has that name
    return Blueprint("broken", "fails", collections=(good, bad))


BROKEN = {"postgres": broken_postgres, "neo4j": broken_neo4j, "milvus": broken_milvus}


@pytest.mark.parametrize("place", list(BROKEN), indirect=True)
def test_a_set_up_that_fails_leaves_nothing(place):
    before = place.probe.everything()
    broken = BROKEN[place.store](place.folder)
    with (
        session_on(place) as session,
        session.stores(broken) as stores,
        pytest.raises(BootstrapError),
    ):
        stores.url(place.store)
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_a_set_up_of_a_user_who_may_not_write_leaves_nothing(place):
    with place.probe._client() as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">x", "~*", "&*", "+@all", "-set")
    place.probe.address = place.probe.address.replace("redis://", "redis://narrow:x@")
    with (
        session_on(place) as session,
        session.stores("novel_genesis") as stores,
        pytest.raises(BootstrapError),
    ):
        stores.url("redis")
    assert place.probe.everything() == []


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_a_role_that_may_not_create_databases_is_told_what_tests_need(place):
    before = place.probe.everything()
    place.probe._run("CREATE ROLE narrow LOGIN PASSWORD 'x'")
    _, _, host = place.probe.address.rpartition("@")
    place.probe.address = f"postgresql://narrow:x@{host}"
    try:
        told = place.errors_here()
    finally:
        place.probe._run("DROP ROLE narrow")
    assert len(told) == 2
    assert 'ALTER ROLE "narrow" CREATEDB;' in told[0]
    assert place.probe.everything() == before


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_a_role_that_a_revision_creates_is_told_because_it_stays(place):
    create_folder("roles", ("postgres",), place.folder)
    [revision] = (place.folder / "roles" / "migrations").glob("*.py")
    text = revision.read_text()
    at = text.index("def downgrade")
    statement = '    op.execute("CREATE ROLE reader_of_roles")\n\n\n'
    revision.write_text(text[:at].rstrip() + "\n" + statement + text[at:])
    told = []
    address = {"POSTGRES_URL": place.probe.address}
    try:
        for _ in range(2):
            session = TestSession(GivenServers(address), say=told.append)
            errors = []
            with session.stores(load_blueprint(place.folder / "roles")) as stores:
                try:
                    stores.url("postgres")
                except BootstrapError as exc:
                    errors.append(str(exc))
            session.close()
        [line] = told
        assert "the role reader_of_roles has come to" in line
        assert "stays after the tests" in line
        [error] = errors
        assert 'role "reader_of_roles" already exists' in error
    finally:
        place.probe._run("DROP ROLE reader_of_roles")


# --- what a mark says


def test_a_seal_vouches_for_what_was_seen_and_for_nothing_else():
    seen = Content(
        (
            Thing("key", name="a", digest="1"),
            Thing("node", ":Page", digest="2"),
            Thing("table", name="large"),
        )
    )
    seal = Seal.read(Seal.of(seen).text())
    assert json.loads(Seal.of(seen).text())["counts"] == {"key": 1, "node :Page": 1, "table": 1}
    later = Content(
        (*seen.things, Thing("key", name="b", digest="3"), Thing("key", name="c", digest="4"))
    )
    assert str(later.besides(seal.digests)) == "2 keys (b, c), 1 table (large)"
    assert not Content(seen.things[:2]).besides(seal.digests)
    assert Content((), "and more").besides(seal.digests)


@pytest.mark.parametrize("text", [None, "", "{}", "token", "[1]", '{"digests": 1, "counts": {}}'])
def test_a_mark_without_a_seal_vouches_for_nothing(text):
    assert Seal.read(text) is None


ALL = [
    {"access": "GRANTED", "action": "traverse", "segment": "NODE(*)", "graph": "*"},
    {"access": "GRANTED", "action": "match", "segment": "RELATIONSHIP(*)", "graph": "*"},
]


def test_a_user_who_is_not_shown_all_nodes_is_recognised():
    assert neo4j_content.unseen_for(ALL) == ""
    denied = {"access": "DENIED", "action": "traverse", "segment": "NODE(Customer)", "graph": "*"}
    assert (
        neo4j_content.unseen_for([*ALL, denied]) == "the user is denied traverse on NODE(Customer)"
    )
    some = [{**ALL[0], "segment": "NODE(Page)"}, ALL[1]]
    assert neo4j_content.unseen_for(some) == "the user is not granted traverse on all of NODE"

"""Real servers for tests: the product's classes, and the versions that only tests need."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.local.class_data import write_archive
from is_db_bootstrap.local.milvus import MilvusServer
from is_db_bootstrap.local.neo4j import Neo4jServer
from is_db_bootstrap.local.postgres import PostgresServer
from is_db_bootstrap.local.redis import RedisServer
from is_db_bootstrap.local.server import Server
from is_db_bootstrap.stores.neo4j.cypher_text import quoted

LISTS = Path(__file__).parent / "files"
MILVUS_2_3 = Path(__file__).parents[2] / ".cache" / "milvus-2.3"
DEBIAN_POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
#: With every character that an address must escape.
PASSWORD = "pä ss%@:/#?word"
START_S = 90.0
#: Milvus Lite ends a connection that pings while nothing is asked (`too_many_pings`), and the next test would get that.
NO_IDLE_PINGS = {"grpc.keepalive_permit_without_calls": 0}


class DebianPostgres(PostgresServer):
    @property
    def programs_folder(self):
        return DEBIAN_POSTGRES_15


class NewerNeo4j(Neo4jServer):
    default_version = "2026.08.1"


class DebianRedis(RedisServer):
    program = "/usr/bin/redis-server"


class FullMilvus(MilvusServer):
    """Milvus 2.3.5, installed into a folder of its own: its requirements contradict ours. Only one runs at a time."""

    default_version = "2.3.5"
    programs = ("python",)

    def prepare(self, progress=print, stop=None):
        super().prepare(progress, stop)
        if not (MILVUS_2_3 / ".installed").exists():
            pytest.skip("Milvus 2.3.5 is not installed (make .cache/milvus-2.3/.installed)")

    def command(self):
        script = Path(__file__).with_name("milvus235.py")
        return [
            "env",
            f"PYTHONPATH={MILVUS_2_3}",
            sys.executable,
            str(script),
            str(self.port),
            str(self.data),
        ]


class GuardedMilvus(FullMilvus):
    """One that asks for a password, and takes a DDL call only now and then. Stop the other 2.3 first."""

    settings = (
        "common.security.authorizationEnabled=true",
        "quotaAndLimits.indexRate.enabled=true",
        "quotaAndLimits.indexRate.max=0.5",
    )

    @property
    def url(self):
        return f"http://root:Milvus@{self.host}:{self.port}"

    def command(self):
        return [*super().command(), *self.settings]


class MariaDB(Server):
    """MariaDB from Debian, a target of portable revisions; no store of a run."""

    store = "mariadb"
    programs = ("mariadbd",)
    default_version = "10.11"
    program = "/usr/sbin/mariadbd"

    @property
    def url(self):
        return f"mysql+pymysql://root@{self.host}:{self.port}"

    @property
    def temporary(self):
        """A folder of its own: a MariaDB that starts removes the temporary tables that others have in the same one."""
        return self.home / "tmp"

    def prepare(self, progress=print, stop=None):  # noqa: ARG002 - the signature of all servers
        if not Path(self.program).exists():
            pytest.skip("MariaDB is not installed (mariadb-server)")
        if not (self.data / "mysql").is_dir():
            self.data.mkdir(parents=True)
            self.temporary.mkdir()
            done = subprocess.run(
                [
                    "mariadb-install-db",
                    "--no-defaults",
                    f"--datadir={self.data}",
                    "--user=root",
                    "--skip-test-db",
                    "--auth-root-authentication-method=normal",
                    f"--tmpdir={self.temporary}",
                ],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stdout + done.stderr

    def configure(self):
        pass

    def command(self):
        return [
            self.program,
            "--no-defaults",
            "--user=root",
            f"--datadir={self.data}",
            f"--tmpdir={self.temporary}",
            f"--port={self.port}",
            f"--bind-address={self.host}",
            f"--socket={self.home}/s",
            f"--pid-file={self.home}/pid",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-log-bin",
        ]


def _postgres_15(home, **options):
    if DEBIAN_POSTGRES_15.is_dir():
        return DebianPostgres(home, version="15", **options)
    return PostgresServer(home, version="15.17.0", **options)


KINDS = {
    ("postgres", "18"): PostgresServer,
    ("postgres", "15"): _postgres_15,
    ("postgres", "17"): lambda home, **options: PostgresServer(home, version="17.9.0", **options),
    ("postgres", "16"): lambda home, **options: PostgresServer(home, version="16.13.0", **options),
    ("postgres", "14"): lambda home, **options: PostgresServer(home, version="14.22.0", **options),
    ("neo4j", "5.26"): Neo4jServer,
    ("neo4j", "2026.08"): NewerNeo4j,
    ("milvus", "lite"): MilvusServer,
    ("milvus", "2.3"): FullMilvus,
    ("milvus", "2.3-guarded"): GuardedMilvus,
    ("mariadb", "10.11"): MariaDB,
    ("redis", "6"): RedisServer,
    ("redis", "7"): DebianRedis,
}
DEFAULT = {"postgres": "18", "neo4j": "5.26", "milvus": "lite", "redis": "6", "mariadb": "10.11"}


class Farm:
    """All servers of a session, below one folder that even `nobody` may enter."""

    def __init__(self):
        _sweep()
        self.folder = Path(
            tempfile.mkdtemp(prefix=f"is-db-bootstrap-tests-{os.getpid()}-", dir="/var/tmp")
        )
        self.folder.chmod(0o755)
        self._shared: dict[tuple[str, str], Server] = {}
        self._made: list[Server] = []
        #: Databases that were brought to a blueprint's head, by their server's address and name.
        self.templates: set[tuple[str, str]] = set()

    def make(self, store, version=None, *, start=True, **options):
        """A server of one's own; it answers when this returns, unless `start` is false."""
        version = version or DEFAULT[store]
        home = self.folder / f"{store}-{version}-{len(self._made)}"
        server = KINDS[store, version](home, durable=False, **options)
        self._made.append(server)
        server.prepare()
        if start:
            server.start()
            wait_until_up(server)
            if isinstance(server, Neo4jServer):
                archive_classes(server)
            if (store, version) == ("postgres", "18"):
                shorten_logins(server)
        return server

    def shared(self, store, version=None):
        """The session's server of this version, started again if a test has ended it."""
        key = store, version or DEFAULT[store]
        if key not in self._shared:
            password = "" if store in {"redis", "milvus", "mariadb"} else PASSWORD
            self._shared[key] = self.make(*key, password=password)
        server = self._shared[key]
        if not server.alive():
            try:
                server.start()
                wait_until_up(server)
            except StoreUnavailable:  # another process has its port by now
                server.kill()
                del self._shared[key]
                return self.shared(store, version)
        return server

    def make_way(self, store, version):
        """Stop the session's server of this version, if it runs, for another that needs its ports."""
        server = self._shared.get((store, version))
        if server is not None and server.alive():
            server.stop()

    def close(self):
        for server in self._made:
            with suppress(Exception):
                server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _sweep():
    """End and remove what a session that was killed has left."""
    for folder in Path("/var/tmp").glob("is-db-bootstrap-tests-*"):
        if psutil.pid_exists(int(folder.name.split("-")[4])):
            continue
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if folder in Path(process.cwd()).parents:
                    process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_up(server):
    deadline = time.monotonic() + START_S
    while True:
        try:
            return PROBES[server.store](server)
        except Exception:
            if not server.alive():
                raise server.failed("ended at once") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def archive_classes(server):
    """Make the archive of a Neo4j's classes, once for a machine: later starts cost half as much.

    Java stands still for seconds meanwhile, so this comes before the first test on the server. One
    worker does it. The others have a server already.
    """
    archive = server.class_data
    if archive.exists():
        return
    with archive.with_suffix(".lock").open("w") as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not archive.exists():
            write_archive(server.pid, archive)
            wait_until_up(server)


def shorten_logins(server):
    """Store the password with one round of SCRAM, so that a login costs 1 ms and not 5.

    Tests open connections by the ten thousand. Before PostgreSQL 16 the rounds cannot be chosen.
    """
    import psycopg
    from psycopg import sql

    again = sql.SQL("ALTER ROLE postgres PASSWORD {}").format(server.password or "postgres")
    with psycopg.connect(server.url + "/postgres") as connection:
        connection.execute("SET scram_iterations = 1")
        connection.execute(again)


def _postgres_answers(server):
    import psycopg

    psycopg.connect(server.url + "/postgres", connect_timeout=5).close()


def neo4j_driver(server):
    from neo4j import GraphDatabase

    auth = ("neo4j", server.password) if server.password else ("neo4j", "neo4j-local")
    return GraphDatabase.driver(
        f"bolt://{server.host}:{server.port}", auth=auth, max_transaction_retry_time=0
    )


def _neo4j_answers(server):
    with neo4j_driver(server) as driver:
        driver.execute_query("MATCH (n) RETURN count(n)")


def milvus_client(url, *, timeout=60, **options):
    """A client of Milvus with a connection of its own, which waits up to a minute for an answer.

    The client's own limit is 10 s, and a machine that runs several suites may need more.
    """
    from pymilvus import MilvusClient

    return MilvusClient(url, timeout=timeout, dedicated=True, grpc_options=NO_IDLE_PINGS, **options)


def _milvus_answers(server):
    import socket

    socket.create_connection((server.host, server.port), timeout=1).close()
    client = milvus_client(server.url, timeout=10)
    client.list_collections()
    client.close()


def _redis_answers(server):
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.ping()


def _mariadb_answers(server):
    import pymysql

    pymysql.connect(host=server.host, port=server.port, user="root", connect_timeout=5).close()


PROBES = {
    "mariadb": _mariadb_answers,
    "postgres": _postgres_answers,
    "neo4j": _neo4j_answers,
    "milvus": _milvus_answers,
    "redis": _redis_answers,
}


def empty_neo4j(server):
    with neo4j_driver(server) as driver:
        driver.execute_query("MATCH (n) DETACH DELETE n")
        for row in driver.execute_query("SHOW CONSTRAINTS YIELD name").records:
            driver.execute_query(f"DROP CONSTRAINT {quoted(row['name'])} IF EXISTS")
        for row in driver.execute_query(
            "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'"
        ).records:
            driver.execute_query(f"DROP INDEX {quoted(row['name'])} IF EXISTS")


def empty_milvus(server):
    client = milvus_client(server.url)
    try:
        for collection in client.list_collections():
            for alias in client.list_aliases(collection_name=collection)["aliases"]:
                client.drop_alias(alias)
            client.drop_collection(collection)
    finally:
        client.close()


def empty_redis(server):
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def clone(farm, server, blueprint):
    """The address of a new copy of a database that was migrated once in this session."""
    import psycopg

    from is_db_bootstrap.blueprint.load import load_blueprint
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

    template, name = f"template_{blueprint}", f"test_{uuid.uuid4().hex[:12]}"
    if (server.url, template) not in farm.templates:
        declared = load_blueprint(blueprint).without_seed()
        BootstrapOrchestrator(
            [PostgreSQLBootstrapper(f"{server.url}/{template}", declared)]
        ).run().raise_for_failure()
        farm.templates.add((server.url, template))
    with psycopg.connect(server.url + "/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return f"{server.url}/{name}"


def drop_database(server, name):
    import psycopg

    with psycopg.connect(server.url + "/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

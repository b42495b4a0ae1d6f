"""A fleet of PostgreSQL databases on one server: `apply --targets` beside `xargs -P 2 dbmate migrate`, in turns.

    npm install dbmate
    python benchmarks/fleet.py --databases 100 --rounds 5 --dbmate node_modules/@dbmate/linux-x64/bin/dbmate

dbmate gets the same SQL, one file a revision, as `migrate sql` prints it. Databases are made before, unmeasured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from is_db_bootstrap import local
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.stores.postgres import revisions

NAME = "agentic_projects"


def files_of_dbmate(folder: Path) -> None:
    """One migration a revision, with the statements that Alembic prints for it."""
    chain = revisions.Chain.read(load_blueprint(NAME).migrations)
    before = "base"
    for number, revision in enumerate(chain.order, 1):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "is_db_bootstrap",
                "migrate",
                "sql",
                f"{before}:{revision}",
                "--blueprint",
                NAME,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        statements = re.sub(
            r"^(BEGIN|COMMIT);$|^.*alembic_version.*$(\n\s*version_num.*\n.*\n\);)?",
            "",
            done.stdout,
            flags=re.MULTILINE,
        )
        (folder / f"{number:014}_{revision}.sql").write_text(
            f"-- migrate:up\n{statements}\n-- migrate:down\n"
        )
        before = revision


def recreate(admin: str, names: list[str]) -> None:
    def one(name: str) -> None:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, names))


def timed(command: list[str], stdin: str, environ: dict[str, str]) -> float:
    began = time.monotonic()
    done = subprocess.run(
        command,
        input=stdin,
        text=True,
        capture_output=True,
        env={**os.environ, **environ},
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--dbmate", default=shutil.which("dbmate"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        data = Path(place) / "data"
        [server] = local.up(data, stores=("postgres",)).servers
        try:
            measure(args, server.url, Path(place))
        finally:
            local.down(data)


def measure(args: argparse.Namespace, url: str, place: Path) -> None:
    migrations = place / "migrations"
    migrations.mkdir()
    files_of_dbmate(migrations)
    names = [f"tenant_{n:03}" for n in range(args.databases)]
    targets = "".join(json.dumps({"name": n, "postgres": {"database": n}}) + "\n" for n in names)
    ours = [
        sys.executable,
        "-m",
        "is_db_bootstrap",
        "apply",
        "--blueprint",
        NAME,
        "--targets",
        "-",
        "--jobs",
        args.jobs,
        "--postgres-url",
        url,
    ]
    dbmate = [
        "xargs",
        "-P",
        "2",
        "-I",
        "{}",
        args.dbmate,
        "--no-dump-schema",
        "-d",
        str(migrations),
        "--url",
        f"{url}/{{}}?sslmode=disable",
        "migrate",
    ]
    variants = {
        "dbmate": (dbmate, "\n".join(names)),
        "ours, no verify": ([*ours, "--no-verify"], targets),
        "ours": (ours, targets),
    }
    taken: dict[str, list[float]] = {}
    for number in range(args.rounds + 1):
        for name, (command, stdin) in variants.items():
            recreate(f"{url}/postgres", names)
            for what in ("first", "nothing to do"):
                seconds = timed(command, stdin, {})
                if number:
                    taken.setdefault(f"{name}, {what}", []).append(seconds)
    print(
        f"| {args.databases} databases | median, s | fastest to slowest | dbmate = 1 |\n|---|---|---|---|"
    )
    for what in ("first", "nothing to do"):
        for name in variants:
            values = taken[f"{name}, {what}"]
            ratio = statistics.median(taken[f"dbmate, {what}"]) / statistics.median(values)
            print(
                f"| {name}, {what} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} | {ratio:.2f} |"
            )


if __name__ == "__main__":
    main()

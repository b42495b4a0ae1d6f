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
import resource
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
from is_db_bootstrap.stores.postgres import lineage_table, revisions

NAME = "agentic_projects"
#: Seconds in which the sessions of a command that has ended have ended too.
SESSIONS_END_S = 0.3


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
            lineage_table.without_records(done.stdout),
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


def server_cpu_s(postmaster: int) -> float:
    """CPU seconds of all sessions that have ended so far, by what Linux knows of the server."""
    fields = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    user_ticks, system_ticks = int(fields[13]), int(fields[14])
    return (user_ticks + system_ticks) / os.sysconf("SC_CLK_TCK")


def timed(command: list[str], stdin: str, postmaster: int) -> tuple[float, float, float]:
    """Seconds by the clock, CPU seconds of the command, and those of its sessions."""
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    server_before_s = server_cpu_s(postmaster)
    done = subprocess.run(
        command,
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    took_s = time.monotonic() - began
    time.sleep(SESSIONS_END_S)
    return took_s, cpu_s, server_cpu_s(postmaster) - server_before_s


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
            postmaster = int((data / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
            measure(args, server.url, Path(place), postmaster)
        finally:
            local.down(data)


def measure(args: argparse.Namespace, url: str, place: Path, postmaster: int) -> None:
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
    taken: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(args.rounds + 1):
        for name, (command, stdin) in variants.items():
            recreate(f"{url}/postgres", names)
            for what in ("first", "nothing to do"):
                spent = timed(command, stdin, postmaster)
                if number:
                    taken.setdefault(f"{name}, {what}", []).append(spent)
    print(
        f"| {args.databases} databases | median, s | fastest to slowest | dbmate = 1 | CPU, s "
        "| server's CPU, s |\n|---|---|---|---|---|---|"
    )
    for what in ("first", "nothing to do"):
        dbmate_s = statistics.median(wall for wall, *_ in taken[f"dbmate, {what}"])
        for name in variants:
            walls, cpus, server_cpus = zip(*taken[f"{name}, {what}"], strict=True)
            median_s = statistics.median(walls)
            print(
                f"| {name}, {what} | {median_s:.2f} | {min(walls):.2f} to {max(walls):.2f} "
                f"| {dbmate_s / median_s:.2f} | {statistics.median(cpus):.2f} "
                f"| {statistics.median(server_cpus):.2f} |"
            )


if __name__ == "__main__":
    main()

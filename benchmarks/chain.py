"""A long chain of revisions: `apply` beside stock `alembic upgrade head`, in turns on one server.

    python benchmarks/chain.py --revisions 10 300 1000 --rounds 3
    python benchmarks/chain.py --team
    python benchmarks/chain.py --team --one-transaction

Each generated revision makes one table. Both sides are whole processes with the same files, on
databases that were made before, unmeasured. The stock side has an `env.py` as `alembic init`
writes it, with one transaction per revision. Our side has the folder of revisions alone, or with
`--team` the same `alembic.ini` and `env.py` as the stock side. With `--one-transaction`, `env.py`
leaves it at Alembic's default: one transaction for all revisions. Then both run once more with
nothing to do.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from is_db_bootstrap import local

REVISION = '''\
"""Make table {number}.

Revision ID: r{number:04}
Revises: {before}
"""

import sqlalchemy as sa
from alembic import op

revision = "r{number:04}"
down_revision = {before!r}
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "t{number}",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade():
    op.drop_table("t{number}")
'''
BLUEPRINT = """\
from pathlib import Path

from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("chain", "A chain.", migrations=Path(__file__).parent / "migrations")
"""
INI = """\
[alembic]
script_location = {place}/stock
version_locations = {place}/migrations
path_separator = os
"""
ENV = """\
import os

from alembic import context
from sqlalchemy import create_engine, pool

OPTIONS = {{"transaction_per_migration": {per_migration}}}


def offline():
    context.configure(url=os.environ["STOCK_URL"], literal_binds=True, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def online():
    engine = create_engine(os.environ["STOCK_URL"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, **OPTIONS)
        with context.begin_transaction():
            context.run_migrations()


offline() if context.is_offline_mode() else online()
"""
#: A team's whole blueprint.
TEAM = """\
[postgres]
alembic = "alembic.ini"
"""
#: The environment of both sides: `.pyc` files are written, as on any machine.
ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def project(place: Path, revisions: int, *, one_transaction: bool = False) -> None:
    """Write both sides' files: one folder of revisions, blueprints, and an env.py."""
    (place / "migrations").mkdir(parents=True)
    (place / "stock").mkdir()
    for number in range(1, revisions + 1):
        before = f"r{number - 1:04}" if number > 1 else None
        path = place / "migrations" / f"r{number:04}.py"
        path.write_text(REVISION.format(number=number, before=before))
    (place / "blueprint.py").write_text(BLUEPRINT)
    (place / "alembic.ini").write_text(INI.format(place=place))
    (place / "team").mkdir()
    (place / "team" / "is-db-bootstrap.toml").write_text(TEAM)
    (place / "team" / "alembic.ini").write_text(INI.format(place=place))
    (place / "stock" / "env.py").write_text(ENV.format(per_migration=not one_transaction))
    (place / "stock" / "script.py.mako").write_text("")


def recreate(admin: str, name: str) -> None:
    """An empty database."""
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")


def timed(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Seconds that a command took, and seconds of them that its process computed.

    Ends the benchmark when the command fails.
    """
    began, computed = time.monotonic(), cpu_s()
    done = subprocess.run(
        command, text=True, capture_output=True, env={**ENVIRON, **environ}, check=False
    )
    if done.returncode:
        sys.exit(f"{command}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began, cpu_s() - computed


def cpu_s() -> float:
    """Seconds that the processes which this one has started have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sides(url: str, place: Path, *, team: bool) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The command of each side, and its environment."""
    stock = [sys.executable, "-m", "alembic", "-c", str(place / "alembic.ini"), "upgrade", "head"]
    blueprint = place / "team" / "is-db-bootstrap.toml" if team else place
    ours = [sys.executable, "-m", "is_db_bootstrap", "apply", "-q", "-b", str(blueprint)]
    by_sqlalchemy = url.replace("postgresql://", "postgresql+psycopg://")
    return {
        "stock": (stock, {"STOCK_URL": f"{by_sqlalchemy}/chain_stock"}),
        "ours": (
            ours,
            {"POSTGRES_URL": f"{url}/chain_ours", "STOCK_URL": f"{by_sqlalchemy}/chain_ours"},
        ),
    }


def measure(
    url: str, variants: dict[str, tuple[list[str], dict[str, str]]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each variant, round by round. The first round warms up.

    It does not count, unless it is the only one.
    """
    taken: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds + 1 if rounds > 1 else 1):
        for name, (command, environ) in variants.items():
            recreate(f"{url}/postgres", f"chain_{name}")
            for what in ("first", "nothing to do"):
                seconds = timed(command, environ)
                if number or rounds == 1:
                    taken.setdefault(f"{name}, {what}", []).append(seconds)
    return taken


def show(revisions: int, taken: dict[str, list[tuple[float, float]]]) -> None:
    """Print one row for each kind of run."""
    for what in ("first", "nothing to do"):
        stock, stock_cpu = map(statistics.median, zip(*taken[f"stock, {what}"], strict=True))
        values, computed = zip(*taken[f"ours, {what}"], strict=True)
        ours, ours_cpu = statistics.median(values), statistics.median(computed)
        print(
            f"| {revisions}, {what} | {stock:.2f} | {ours:.2f} | {min(values):.2f} to "
            f"{max(values):.2f} | {ours / stock:.2f} | {stock_cpu:.2f} | {ours_cpu:.2f} | "
            f"{ours_cpu / stock_cpu:.2f} |",
            flush=True,
        )


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revisions", type=int, nargs="+", default=[10, 300, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--team", action="store_true", help="both sides run one env.py")
    parser.add_argument("--one-transaction", action="store_true", help="env.py has one for all")
    parser.add_argument("--url", help="a server that runs; a new one is started without")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as found:
        place = Path(found)
        place.chmod(0o711)
        data = place / "data"
        url = args.url or local.up(data, stores=("postgres",)).servers[0].url
        print(
            "| revisions | stock, s | ours, s | fastest to slowest | stock = 1 | stock's CPU, s "
            "| our CPU, s | stock = 1 |"
        )
        print("|---|---|---|---|---|---|---|---|", flush=True)
        try:
            for revisions in args.revisions:
                chain = place / str(revisions)
                project(chain, revisions, one_transaction=args.one_transaction)
                show(revisions, measure(url, sides(url, chain, team=args.team), args.rounds))
        finally:
            if not args.url:
                local.down(data)


if __name__ == "__main__":
    main()

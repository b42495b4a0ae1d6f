"""Copying a collection: `vector upgrade` beside a plain loop of pymilvus, in turns on one server.

    python benchmarks/vector_copy.py --rows 50000 --dim 768 --rounds 3

Both sides are whole processes. The plain one reads with pymilvus's query iterator and inserts what
it read, 1,000 rows at a time. `vector upgrade` does the same, counts both sides, compares a sample
and moves the alias. The targets are made before, unmeasured, with their index, loaded.

Without `--url` a Milvus Lite is started. It looks through all rows for each page, so that 50,000
rows take it an hour. Give the address of an empty Milvus for as many.
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

import numpy as np
from pymilvus import DataType, MilvusClient

from is_db_bootstrap.local.milvus import MilvusServer

BLUEPRINT = """\
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index

COLLECTION = Collection(
    "docs_v2",
    fields=(
        Field("id", "INT64", primary=True),
        Field("text", "VARCHAR", max_length=200),
        Field("v", "FLOAT_VECTOR", dim={dim}),
    ),
    indexes=(Index("v", "FLAT", "L2"),),
    alias="docs",
)
BLUEPRINT = Blueprint("docs", "Documents.", collections=(COLLECTION,))
"""
PLAIN = """\
import sys

from pymilvus import MilvusClient

client = MilvusClient(sys.argv[1])
pages = client.query_iterator("docs_v1", batch_size=1000, output_fields=["id", "text", "v"])
count = 0
while rows := pages.next():
    client.insert("plain", list(rows))
    count += len(rows)
pages.close()
print(count)
"""
PAUSE_S = 0.2


def main() -> None:
    """Fill the source, then let both sides copy it in turns."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if options.url:
            _measure(options.url, home, options)
            return
        server = MilvusServer(home / "server")
        server.prepare()
        server.start()
        try:
            _wait(server.url)
            _measure(server.url, home, options)
        finally:
            server.kill()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="an empty Milvus")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            MilvusClient(url, timeout=5).list_collections()
        except Exception:  # noqa: BLE001 - it has not started yet
            time.sleep(PAUSE_S)
        else:
            return
    raise SystemExit("The server did not start.")


def _measure(url: str, home: Path, options: argparse.Namespace) -> None:
    blueprint = home / "docs"
    blueprint.mkdir()
    (blueprint / "blueprint.py").write_text(BLUEPRINT.format(dim=options.dim), encoding="utf-8")
    plain = home / "plain.py"
    plain.write_text(PLAIN, encoding="utf-8")
    client = MilvusClient(url)
    _fill(client, options)
    command = Path(sys.executable).with_name("is-db-bootstrap")
    ours = [str(command), "vector", "upgrade", "-b", str(blueprint), "--milvus-url", url]
    sides = {"plain loop": [sys.executable, str(plain), url], "vector upgrade": ours}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, words in sides.items():
            _make_targets(client, options.dim)
            taken[name].append(_run(words))
            _refuse_incomplete(client, name, options.rows)
    _print(taken, options)


def _fill(client: MilvusClient, options: argparse.Namespace) -> None:
    _make(client, "docs_v1", options.dim)
    client.create_alias("docs_v1", "docs")
    vectors = np.random.default_rng(0).random((options.rows, options.dim), dtype=np.float32)
    for first in range(0, options.rows, 1000):
        rows = [
            {"id": number, "text": f"text {number}", "v": vectors[number].tolist()}
            for number in range(first, min(first + 1000, options.rows))
        ]
        client.insert("docs_v1", rows)
    _await_iterator(client, options.rows)


def _await_iterator(client: MilvusClient, rows: int) -> None:
    """Wait until the query iterator sees all rows, which takes Milvus 2.3 a moment."""
    for _ in range(300):
        pages = client.query_iterator("docs_v1", batch_size=10_000, output_fields=["id"])
        seen = 0
        while page := pages.next():
            seen += len(page)
        pages.close()
        if seen == rows:
            return
        time.sleep(PAUSE_S)
    raise SystemExit("The query iterator does not see all rows.")


def _make(client: MilvusClient, name: str, dim: int) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=200)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=dim)
    index = client.prepare_index_params()
    index.add_index("v", "FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index)
    client.load_collection(name)


def _make_targets(client: MilvusClient, dim: int) -> None:
    """Both targets anew, and the alias on the source."""
    client.alter_alias("docs_v1", "docs")
    for name in ("plain", "docs_v2"):
        if client.has_collection(name):
            client.drop_collection(name)
        _make(client, name, dim)


def _run(words: list[str]) -> tuple[float, float]:
    """Wall seconds and the process's own CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(words, check=True, capture_output=True, env={**os.environ})
    wall_s = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _refuse_incomplete(client: MilvusClient, side: str, rows: int) -> None:
    name = "plain" if side == "plain loop" else "docs_v2"
    [found] = client.query(name, output_fields=["count(*)"], consistency_level="Strong")
    if found["count(*)"] != rows:
        raise SystemExit(f"{name} has {found['count(*)']} rows of {rows}.")


def _print(taken: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> None:
    medians = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)]
        for name, runs in taken.items()
    }
    wall_floor, cpu_floor = medians["plain loop"]
    print(f"{options.rows} rows of {options.dim} components, {options.rounds} rounds\n")
    print("| what | median, s | fastest to slowest | of the loop | CPU, s | of the loop |")
    print("|---|---|---|---|---|---|")
    for name, (wall_s, cpu_s) in medians.items():
        walls = [wall for wall, _ in taken[name]]
        print(
            f"| {name} | {wall_s:.2f} | {min(walls):.2f} to {max(walls):.2f} "
            f"| {wall_s / wall_floor:.2f} | {cpu_s:.2f} | {cpu_s / cpu_floor:.2f} |"
        )


if __name__ == "__main__":
    main()

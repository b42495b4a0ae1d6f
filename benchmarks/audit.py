"""The audit of a large Redis beside `redis-cli --bigkeys`, in turns on one server.

    python benchmarks/audit.py --keys 1000000 --rounds 3

Both look at each key once: `--bigkeys` at its type and its length, the audit at its type and its
lifetime, beside three declared patterns. Whole processes, imports included. A tenth of the keys
breaks its pattern, and a tenth fits none. Needs `redis-server` and `redis-cli` on the PATH.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

#: Keys that one script makes, so that no call of it blocks the server for long.
CHUNK = 20_000
FILL = """
for number = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    local class = number % 10
    if class < 6 then
        redis.call('set', 'session:' .. number, 'twenty bytes of value', 'ex', 3600)
    elseif class == 6 then
        redis.call('set', 'session:' .. number, 'twenty bytes of value')
    elseif class < 9 then
        redis.call('hset', 'cart:' .. number, 'a', '1')
        redis.call('expire', 'cart:' .. number, 600)
    else
        redis.call('sadd', 'elsewhere:' .. number, 'a')
    end
end
"""
AUDIT = """
import sys
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

keys = (
    KeyPattern("session", "session:{id}", "string", 3600, "web", "a session"),
    KeyPattern("cart", "cart:{id}", "hash", 600, "shop", "a cart"),
    KeyPattern("round", "dialogue:{id}:round:{number}", "string", 60, "chat", "a round"),
)
timing = Timing(scan_budget=int(sys.argv[2]))
store = RedisBootstrapper(sys.argv[1], Blueprint("bench", "", keys=keys), timing=timing)
found = store.audit()
store.close()
assert any("more keys of session break it" in drift.message for drift in found), found
assert any(drift.object == "elsewhere:" for drift in found), found
"""


def measured(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and the most resident megabytes of a process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    wall = time.monotonic() - began
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def started_server(folder: str, port: int) -> subprocess.Popen[bytes]:
    """A server that answers, without persistence."""
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    process.kill()
    raise SystemExit("the server did not start")


def fill(port: int, keys: int) -> None:
    """Make `keys` keys."""
    with redis.Redis(port=port, socket_timeout=120) as client:
        script = client.register_script(FILL)
        for first in range(0, keys, CHUNK):
            script(args=[first, min(first + CHUNK, keys) - 1])
        assert client.dbsize() == keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        server = started_server(folder, port)
        try:
            fill(port, given.keys)
            script = Path(folder) / "audit.py"
            script.write_text(AUDIT, encoding="utf-8")
            url, budget = f"redis://127.0.0.1:{port}/0", str(given.keys)
            variants = {
                "redis-cli --bigkeys": ["redis-cli", "-p", str(port), "--bigkeys"],
                "audit": [sys.executable, str(script), url, budget],
            }
            figures = {name: [] for name in variants}
            for _ in range(given.rounds):
                for name, command in variants.items():
                    figures[name].append(measured(command))
        finally:
            server.kill()
            server.wait()
    load = os.getloadavg()[0]
    print(f"{given.keys} keys, {given.rounds} rounds, load {load:.1f} at the end\n")
    print("| what | median, s | fastest to slowest | CPU, s | memory, MB | speed beside bigkeys |")
    print("|---|---|---|---|---|---|")
    floor = statistics.median(wall for wall, _, _ in figures["redis-cli --bigkeys"])
    for name, rounds in figures.items():
        walls, cpus, sizes = zip(*rounds, strict=True)
        middle = statistics.median(walls)
        print(
            f"| {name} | {middle:.1f} | {min(walls):.1f} to {max(walls):.1f} "
            f"| {statistics.median(cpus):.1f} | {max(sizes):.0f} | {floor / middle:.2f} |"
        )


if __name__ == "__main__":
    main()

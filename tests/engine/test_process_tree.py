"""Finding and ending the processes below one, however they tried to get away."""

import json
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from is_db_bootstrap.process_tree import Client, connections, plain_address

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
MARKER = f"91919.{os.getpid()}"

#: Starts processes in every way that loses a parent, a group, a session or an environment, then
#: ends them.
PROGRAM = """
import json, os, subprocess, sys, time
from is_db_bootstrap.process_tree import adopt_orphans, descendants, end_descendants

marker = sys.argv[1]
spared = subprocess.Popen(["sh", "-c", f"sleep 0{marker} & wait"], start_new_session=True)
while len(descendants(os.getpid())) < 2:
    time.sleep(0.01)
assert adopt_orphans()
subprocess.Popen(["sleep", marker])
subprocess.Popen(["sleep", marker], start_new_session=True, env={})
below = f"setsid sh -c 'sleep {marker} & sleep {marker}' &"
subprocess.run(["sh", "-c", f"setsid sleep {marker} & {below}"])
subprocess.Popen(["sh", "-c", f"trap '' TERM INT HUP; while true; do sleep {marker}; done"])
while len(descendants(os.getpid(), [spared.pid])) < 8:
    time.sleep(0.01)
ended = end_descendants(os.getpid(), [spared.pid])
print(json.dumps({
    "survivors": ended.survivors,
    "left": descendants(os.getpid(), [spared.pid]),
    "spared": len(descendants(os.getpid())),
}))
end_descendants(os.getpid())
"""


def processes_with(word):
    return [p.pid for p in psutil.process_iter(["cmdline"]) if word in (p.info["cmdline"] or ())]


@needs_proc
def test_every_process_below_is_ended_and_those_that_were_there_before_are_not():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, MARKER],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"survivors": [], "left": [], "spared": 2}
    assert processes_with(MARKER) == []


@needs_proc
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_connections_of_a_process_are_found_with_both_ends(family, host):
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        if family == socket.AF_INET:
            raise
        pytest.skip("this machine has no IPv6, as most containers")
    with server, socket.create_connection(server.getsockname()[:2]) as client:
        expected = Client(host, client.getsockname()[1], host, server.getsockname()[1])
        deadline = time.monotonic() + 60
        while expected not in connections(os.getpid()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("10.0.0.7", "10.0.0.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("/var/run/postgresql", "/var/run/postgresql"),
    ],
)
def test_an_address_has_one_spelling(written, plain):
    assert plain_address(written) == plain

"""Targets whose server is dead.

Each is told the truth, and none waits for what another one knows.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.events import FleetProgress
from is_db_bootstrap.fleet import Fleet, Order, read
from is_db_bootstrap.fleet.pace import Pace
from is_db_bootstrap.fleet.silence import Silences
from is_db_bootstrap.render.fleet import progress_words
from is_db_bootstrap.render.fleet_live import live_fleet_watch
from is_db_bootstrap.render.fleet_watch import FleetWatch
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings

NOVEL = load_blueprint("novel_genesis")
ONLY_REDIS = RunOptions(only=("redis",))
#: Nobody listens on this port.
DEAD = "redis://127.0.0.1:1"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def redis_targets(urls, **timing):
    base = Settings.load(NOVEL, environ={"REDIS_URL": DEAD}, flags=timing)
    entries = [{"name": f"t{number}", "redis": url} for number, url in enumerate(urls)]
    return read("".join(json.dumps(each) + "\n" for each in entries), NOVEL, base)


def run_fleet(targets, clock, report=lambda _: None, mode=Mode.STATUS):
    fleet = Fleet(
        Order("novel_genesis", mode, ONLY_REDIS), jobs=1, continue_on_error=True, report=report
    )
    fleet._silences = Silences(("redis",), clock)
    return fleet.run(targets)


def call(folder, targets, *options, mode="verify"):
    """Result document, stderr, and seconds of one call."""
    lines = "".join(json.dumps(each) + "\n" for each in targets)
    words = [sys.executable, "-m", "is_db_bootstrap", mode, "-b", "novel_genesis", "-o", "json"]
    words += ["--only", "redis", "--targets", "-", *options]
    began = time.monotonic()
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"REDIS_URL": DEAD},
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    return json.loads(done.stdout), done.stderr, time.monotonic() - began


def test_a_thousand_targets_of_a_dead_server_wait_as_long_as_one(tmp_path):
    targets = [{"name": f"t{n}", "redis": f"{DEAD}/{n}"} for n in range(1000)]
    document, _, took_s = call(tmp_path, targets, "--jobs", "2", "--timeout", "4")
    assert {target["outcome"] for target in document["targets"]} == {"failed"}
    assert {target["exit_code"] for target in document["targets"]} == {4}
    asked = [target["name"] for target in document["targets"] if target["run"]]
    assert 1 <= len(asked) <= 2
    assert took_s < 100  # one after the other they take 2,000 s
    said = document["targets"][-1]["message"]
    assert said.startswith("redis: redis://127.0.0.1:1/999 was not asked for this target")
    assert any(f"gave target {name} no answer for 4 s" in said for name in asked)


@pytest.mark.redis
def test_a_dead_server_costs_no_target_of_a_living_one(tmp_path, redis_url):
    targets = [{"name": f"dead {n}", "redis": f"{DEAD}/{n}"} for n in range(9)]
    targets.append({"name": "alive", "redis": redis_url})
    document, _, _ = call(tmp_path, targets, "--continue-on-error", "--timeout", "1", mode="apply")
    assert [t["outcome"] for t in document["targets"]] == ["failed"] * 9 + ["changed"]


@pytest.mark.redis
def test_a_server_that_comes_back_is_asked_again_and_then_trusted(make_server):
    server = make_server("redis")
    server.stop()
    clock = Clock()

    def back_after_the_first(result):
        if result.name == "t0":
            server.start()
        clock.now += 1000 if result.name == "t1" else 0

    targets = redis_targets([f"{server.url}/{n}" for n in range(4)])
    result = run_fleet(targets, clock, back_after_the_first)
    outcomes = [target.outcome for target in result.targets]
    # The second one is not asked. Then the time of the silence is over.
    assert outcomes == ["failed", "failed", "planned", "planned"]
    assert "was not asked" in result.targets[1].message
    assert [target.run is None for target in result.targets] == [False, True, False, False]


def test_a_server_that_stays_away_is_asked_for_a_moment_and_the_message_says_so():
    clock = Clock()

    def a_day_passes(_):
        clock.now += 86400

    targets = redis_targets([f"{DEAD}/{n}" for n in range(2)], timeout_s=1)
    result = run_fleet(targets, clock, a_day_passes, Mode.VERIFY)
    assert [target.exit_code for target in result.targets] == [4, 4]
    assert "asked for a moment only" in result.targets[1].message
    assert (
        "Connection refused" in result.targets[1].message or "refused" in result.targets[1].message
    )


def test_a_server_that_answers_is_not_held_against_its_other_targets():
    """It may refuse one database, as one that is offline, and serve another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        targets = redis_targets([f"{url}/{n}" for n in range(3)], timeout_s=1)
        result = run_fleet(targets, Clock(), mode=Mode.VERIFY)
        listener.shutdown(socket.SHUT_RDWR)
    assert [target.exit_code for target in result.targets] == [4, 4, 4]
    assert all(target.run for target in result.targets)


@pytest.mark.parametrize("store", ["redis", "postgres"])
def test_a_server_that_hangs_is_silent_although_its_system_takes_connections(store):
    """As a stopped process does. No session is looked for there, which would take as long again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scheme = {"redis": "redis", "postgres": "postgresql"}[store]
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        base = Settings.load(NOVEL, environ={}, flags={"timeout_s": 1})
        lines = [json.dumps({"name": f"t{n}", store: f"{url}/{n}"}) + "\n" for n in range(3)]
        order = Order("novel_genesis", Mode.VERIFY, RunOptions(only=(store,)))
        fleet = Fleet(order, jobs=1, continue_on_error=True)
        result = fleet.run(read("".join(lines), NOVEL, base))
    assert [target.exit_code for target in result.targets] == [4, 4, 4]
    assert [target.run is None for target in result.targets] == [False, True, True]
    assert result.targets[0].message == ""


# --- the progress


def test_progress_has_a_rate_and_the_time_left():
    clock = Clock()
    pace = Pace(1000, clock)
    assert progress_words(pace.progress([])) == "0 of 1000 targets done, 0 s so far"
    for number in range(60):
        clock.now += 2
        pace.note(has_failed=number == 0, took_time=True)
    for _ in range(100):
        pace.note(has_failed=True, took_time=False)  # they say nothing of how long others take
    assert progress_words(pace.progress([])) == (
        "160 of 1000 targets done, 101 failed, 2 min 0 s so far, 31.0 a minute, about 27 min 6 s left"
    )
    clock.now += 6000
    assert pace.progress([]).rate < 0.01  # a fleet that has come to a halt


def progress_at(*moments):
    return [FleetProgress(total=9, ended=0, failed=0, elapsed_s=at, rate=0) for at in moments]


def test_progress_is_a_line_every_ten_seconds_where_there_is_no_terminal():
    lines = []
    watch = FleetWatch(lines.append, quiet=False)
    for progress in progress_at(0, 5, 9.9, 10.1, 10.3, 19, 20.2, 31):
        watch(progress)
    assert lines == [f"0 of 9 targets done, {at} s so far" for at in (10, 20, 31)]
    quiet = FleetWatch(lines.append, quiet=True)
    quiet(progress_at(10.1)[0])
    assert len(lines) == 3


def test_a_live_watch_starts_no_thread():
    """Workers are forked, which is unsafe beside a thread."""
    before = threading.active_count()
    with live_fleet_watch() as watch:
        watch(progress_at(0)[0])
        assert threading.active_count() == before


def test_a_terminal_shows_each_running_target_and_the_whole_fleet(tmp_path):
    lines = "".join(json.dumps({"name": f"t{n}", "redis": f"{DEAD}/{n}"}) + "\n" for n in range(3))
    words = [sys.executable, "-m", "is_db_bootstrap", "plan", "-b", "novel_genesis"]
    words += ["--only", "redis", "--targets", "-", "--timeout", "2", "--jobs", "1"]
    main, terminal = os.openpty()
    process = subprocess.Popen(
        words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    process.stdin.write(lines.encode())
    process.stdin.close()
    shown = b""
    with suppress(OSError):  # the terminal ends with the process
        while chunk := os.read(main, 65536):
            shown += chunk
    os.close(main)
    table = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait() == 4
    seen = shown.decode()
    assert "0 of 3 targets done" in seen
    assert re.search(r"t0 +wait +\d+ s", seen), seen
    assert "t0: failed: redis: " in seen
    rows = [line.split()[0] for line in table.splitlines() if line[:1] == "t"]
    assert rows == ["t0", "t1", "t2"]

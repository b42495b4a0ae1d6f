"""A local stack with some of the stores: what is started, found, said, and removed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from is_db_bootstrap import local
from is_db_bootstrap.errors import ConfigurationError, LockTimeout
from is_db_bootstrap.local import folder_lock
from is_db_bootstrap.local.stack_folder import StackFolder
from is_db_bootstrap.settings import Settings

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

COMMAND = [sys.executable, "-m", "is_db_bootstrap"]
_ADDRESSES = ("POSTGRES_", "NEO4J_", "MILVUS_", "REDIS_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_")


@pytest.fixture(scope="module")
def root():
    """What `IS_DB_BOOTSTRAP_DATA` names. The stack is in `local` below it, and begins with Redis."""
    folder = Path(tempfile.mkdtemp(prefix="is-db-bootstrap-stores-", dir="/var/tmp"))
    folder.chmod(0o755)  # PostgreSQL runs as nobody for root
    yield folder
    local.down(folder / "local", durable=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack(root):
    """The folder of a stack in which Redis runs, and nothing else."""
    local.down(root / "local", stores=("postgres",), durable=False)
    local.up(root / "local", stores=("redis",))
    return root / "local"


def environment(root):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_ADDRESSES)}
    return kept | {"IS_DB_BOOTSTRAP_DATA": str(root)}


def call(root, *arguments, stdin=subprocess.DEVNULL):
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=environment(root),
        cwd=root,
    )


def running(folder):
    found = local.status(folder)
    return {server.store: server.pid for server in found.servers} if found else {}


def kill(pid):
    process = psutil.Process(pid)
    process.kill()
    with suppress(psutil.TimeoutExpired):
        process.wait(10)


# --- what is started


def test_up_starts_the_chosen_store_and_prints_its_address_only(root, stack):
    done = call(root, "local", "up", "--only", "redis")
    assert done.returncode == 0, done.stderr
    assert [line.partition("=")[0] for line in done.stdout.split()] == ["REDIS_URL"]
    assert set(running(stack)) == {"redis"}
    assert not (stack / "neo4j").exists()


def test_a_run_starts_what_its_blueprint_has_beside_what_runs_and_no_more(root, stack):
    before = running(stack)
    done = call(root, "apply", "--blueprint", "context_service", "--local")
    assert done.returncode == 0, done.stderr
    after = running(stack)
    assert set(after) == {"postgres", "redis"}
    assert after["redis"] == before["redis"]


@pytest.mark.parametrize(
    "choice", [("--only", "redis"), ("--skip", "postgres", "--skip", "neo4j", "--skip", "milvus")]
)
def test_a_run_starts_no_store_that_it_was_told_to_leave_out(root, stack, choice):
    done = call(root, "plan", "--blueprint", "novel_genesis", "--local", *choice)
    assert done.returncode == 0, done.stderr
    assert set(running(stack)) == {"redis"}


def test_the_stack_of_a_program_has_the_stores_of_its_blueprint_and_leaves_the_others(stack):
    from is_db_bootstrap.blueprint import Blueprint

    blueprint = Blueprint("mine", "for a test")
    before = running(stack)
    with local.stack(blueprint, stack) as settings:
        assert isinstance(settings, Settings)
        assert running(stack) == before
    assert running(stack) == before


# --- what is found


def test_a_run_finds_a_stack_that_listens_elsewhere(root, stack):
    local.down(stack, durable=False)
    local.up(stack, listen="0.0.0.0", stores=("redis",))
    before = running(stack)
    try:
        done = call(root, "apply", "-b", "novel_genesis", "--only", "redis", "--local")
        assert done.returncode == 0, done.stderr
        assert local.up(stack, stores=("redis",)).listen == "0.0.0.0"
        assert running(stack) == before
        with pytest.raises(ConfigurationError, match=r"already listens on 0\.0\.0\.0"):
            local.up(stack, listen="127.0.0.1", stores=("redis",))
    finally:
        local.down(stack, durable=False)
    assert local.up(stack, stores=("redis",)).listen == "127.0.0.1"


# --- what is said


def test_status_says_which_folder_it_looks_at(root, stack):
    done = call(root, "local", "status")
    document = json.loads(call(root, "local", "status", "-o", "json").stdout)
    assert done.returncode == 0
    assert f"The stack in {stack} listens on 127.0.0.1. It runs redis." in done.stderr
    assert (document["data_dir"], document["dead"]) == (str(stack), [])
    elsewhere = call(root, "local", "status", "--data-dir", "none", "-o", "json")
    assert json.loads(elsewhere.stdout)["data_dir"] == str(root / "none")
    assert f"No local stack is running in {root / 'none'}." in elsewhere.stderr


def test_down_of_a_store_that_does_not_run_says_what_runs(root, stack):
    done = call(root, "local", "down", "--only", "neo4j")
    assert done.returncode == 0, done.stderr
    assert "neo4j: not running." in done.stderr
    assert f"The stack in {stack} listens on 127.0.0.1. It runs redis." in done.stderr
    elsewhere = call(root, "local", "down", "--data-dir", "none")
    assert f"No local stack is running in {root / 'none'}." in elsewhere.stderr


@pytest.mark.usefixtures("stack")
def test_no_data_of_one_store_is_not_said_of_the_stack(root):
    done = call(root, "local", "reset", "--only", "neo4j", "--yes")
    assert (done.returncode, "There was no data of neo4j in" in done.stderr) == (0, True)


def test_status_of_a_stack_whose_servers_have_all_died_is_exit_4(root, stack):
    kill(running(stack)["redis"])
    done = call(root, "local", "status")
    assert done.returncode == 4
    assert "redis: not running, its server has died" in done.stderr
    assert str(stack / "redis" / "server.log") in done.stderr
    assert "postgres" not in done.stderr  # it was stopped, or never started
    as_json = call(root, "local", "status", "-o", "json")
    assert as_json.returncode == 4
    assert json.loads(as_json.stdout)["dead"] == ["redis"]
    assert call(root, "local", "down").returncode == 0
    assert call(root, "local", "status").returncode == 0


def test_who_waits_for_the_folder_says_for_whom_and_goes_on_when_it_is_free(root, stack):
    with StackFolder.made(stack, purpose="local up"):
        waiting = subprocess.Popen(
            [*COMMAND, "local", "down"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(root),
            cwd=root,
        )
        line = waiting.stderr.readline()
    assert line.startswith(f"waiting for `local up` (process {os.getpid()}), which has the stack")
    assert str(stack) in line
    assert "Stopped: redis." in waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 0


def test_down_during_the_first_up_waits_too_and_ends_in_time(tmp_path, monkeypatch):
    """Nothing is recorded yet while an `up` downloads."""
    monkeypatch.setattr(folder_lock, "_FIRST_TOLD_S", 0.05)
    monkeypatch.setattr(folder_lock, "_TOLD_S", 0.05)
    monkeypatch.setattr(folder_lock, "PATIENCE_S", 0.15)
    said = []
    with StackFolder.made(tmp_path, purpose="local up") as folder:
        assert not folder.has_record
        with pytest.raises(LockTimeout, match="local up"):
            local.down(tmp_path, progress=said.append)
    assert said
    assert all("waiting for `local up`" in line for line in said)
    assert local.down(tmp_path) == []


def test_an_up_after_one_that_was_killed_gives_a_store_that_answers(root, stack):
    local.down(stack, durable=False)
    record = stack / "stack.json"
    first = subprocess.Popen(
        [*COMMAND, "local", "up", "--only", "redis"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(root),
        cwd=root,
    )
    deadline = time.monotonic() + 60
    while not json.loads(record.read_text())["servers"]["redis"]["pid"]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first.kill()
    first.wait(20)
    url = local.up(stack, stores=("redis",)).environ()["REDIS_URL"]
    assert redis.Redis.from_url(url).ping()


# --- what is removed


def test_reset_removes_the_data_and_keeps_the_address(root, stack):
    url = local.up(stack, stores=("redis",)).environ()["REDIS_URL"]
    redis.Redis.from_url(url).set("old", 1)
    done = call(root, "local", "reset", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Removed: " in done.stderr
    assert not (stack / "redis").exists()
    assert local.status(stack) is None
    assert local.up(stack, stores=("redis",)).environ()["REDIS_URL"] == url
    assert redis.Redis.from_url(url).keys() == []


def test_reset_of_one_store_leaves_the_others(root, stack):
    local.up(stack, stores=("postgres",))
    before = running(stack)
    done = call(root, "local", "reset", "--only", "redis", "--yes")
    assert done.returncode == 0, done.stderr
    assert running(stack) == {"postgres": before["postgres"]}
    assert (stack / "postgres" / "data").is_dir()
    assert not (stack / "redis").exists()


def test_reset_asks_and_an_answer_that_is_not_yes_leaves_everything(root, stack):
    before = running(stack)
    unasked = call(root, "local", "reset")
    assert unasked.returncode == 2
    assert "say --yes" in unasked.stderr
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"no\n")
        done = call(root, "local", "reset", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    assert f"in {stack}? [y/N]" in done.stderr
    assert "Nothing was removed." in done.stderr
    assert running(stack) == before


def test_reset_leaves_files_that_no_server_has_made_and_names_them(root, stack):
    own = stack / "redis" / "notes.txt"
    own.write_text("mine")
    done = call(root, "local", "reset", "--yes")
    assert done.returncode == 0
    assert f"left: {own}" in done.stderr
    assert [path.name for path in (stack / "redis").iterdir()] == ["notes.txt"]
    own.unlink()


@pytest.mark.parametrize("content", ["redis/data/dump.rdb", "lock"])
def test_reset_never_touches_a_folder_that_has_no_stack(tmp_path, content):
    (tmp_path / content).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / content).write_text("theirs")
    with pytest.raises(ConfigurationError, match="There is no local stack"):
        local.reset(tmp_path)
    assert (tmp_path / content).read_text() == "theirs"


def test_reset_never_follows_a_link(stack, tmp_path):
    local.down(stack, durable=False)
    (stack / "redis").rename(tmp_path / "redis")
    (stack / "redis").symlink_to(tmp_path / "redis")
    with pytest.raises(ConfigurationError, match="is a link to"):
        local.reset(stack)
    assert (tmp_path / "redis" / "data").is_dir()
    (stack / "redis").unlink()


def test_reset_leaves_servers_alone_that_a_test_session_uses(stack):
    before = running(stack)
    with (stack / "in-use").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(ConfigurationError, match="A test session uses the servers"):
            local.reset(stack)
    assert running(stack) == before
    Path(stack / "in-use").unlink()

"""The local stack on real servers."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from is_db_bootstrap import local
from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprints.novel_genesis import BLUEPRINT
from is_db_bootstrap.errors import BootstrapError, ConfigurationError, StoreError
from is_db_bootstrap.local.neo4j import Neo4jServer
from is_db_bootstrap.local.places import cache_folder
from is_db_bootstrap.local.process import Process, free_port
from is_db_bootstrap.settings import RunOptions

pytestmark = [pytest.mark.postgres, pytest.mark.neo4j, pytest.mark.milvus, pytest.mark.redis]

COMMAND = [sys.executable, "-m", "is_db_bootstrap"]
#: The parent of all orphans below it, which never takes note of an end, as a container's first
#: process that is no init. Each argument is run by a process of its own.
CARELESS_PARENT = """
import subprocess, sys
from is_db_bootstrap.process_tree import adopt_orphans

assert adopt_orphans()
for call in sys.argv[1:]:
    subprocess.run([sys.executable, "-c", call], check=True)
"""


@pytest.fixture(scope="module")
def data_dir():
    """One stack for the module; each test leaves it in a state that the next `up` mends."""
    folder = Path(tempfile.mkdtemp(prefix="is-db-bootstrap-stack-", dir="/var/tmp"))
    folder.chmod(0o755)
    local.up(folder)
    yield folder
    for server in _pids(folder).values():
        _kill(server)
    shutil.rmtree(folder, ignore_errors=True)


def _pids(data_dir):
    stack = local.status(data_dir)
    return {s.store: s.pid for s in stack.servers} if stack else {}


def _kill(pid):
    process = psutil.Process(pid)
    process.kill()
    process.wait(10)


def _gone(pid):
    """Whether it has ended; whoever adopts an orphan may let a moment pass before it takes note."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _listening(pid):
    return {
        c.laddr.ip
        for c in psutil.Process(pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }


def test_up_gives_four_addresses_without_a_database_name(data_dir):
    environ = local.up(data_dir).environ()
    assert sorted(environ) == ["MILVUS_URL", "NEO4J_URL", "POSTGRES_URL", "REDIS_URL"]
    assert all(urlsplit(url).path == "" for url in environ.values())


def test_a_second_up_finds_the_first(data_dir):
    assert local.up(data_dir) == local.up(data_dir)


def test_the_command_prints_environment_lines_or_one_json_document(data_dir):
    text = _command("status", "--data-dir", str(data_dir)).stdout
    document = json.loads(_command("status", "--data-dir", str(data_dir), "-o", "json").stdout)
    assert dict(line.split("=", 1) for line in text.splitlines()) == document["environ"]
    assert [s["store"] for s in document["servers"]] == ["postgres", "neo4j", "milvus", "redis"]


def _command(*arguments, **options):
    return subprocess.run(
        [*COMMAND, "local", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        **options,
    )


def test_status_names_a_server_that_has_died(data_dir):
    _kill(_pids(data_dir)["redis"])
    done = subprocess.run(
        [*COMMAND, "local", "status", "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert "redis: not running" in done.stderr
    assert "REDIS_URL" not in done.stdout
    local.up(data_dir)


def test_every_server_listens_on_this_machine_only(data_dir):
    for store, pid in _pids(data_dir).items():
        assert _listening(pid) <= {"127.0.0.1", "::ffff:127.0.0.1"}, store


def test_nobody_enters_without_the_password(data_dir):
    import neo4j
    import psycopg
    import redis

    environ = local.status(data_dir).environ()
    address = {name: urlsplit(url) for name, url in environ.items()}
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(
            f"postgresql://postgres:postgres@127.0.0.1:{address['POSTGRES_URL'].port}/postgres"
        )
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=address["REDIS_URL"].port).ping()
    with (
        pytest.raises(neo4j.exceptions.AuthError),
        neo4j.GraphDatabase.driver(
            f"bolt://127.0.0.1:{address['NEO4J_URL'].port}", auth=("neo4j", "neo4j")
        ) as driver,
    ):
        driver.verify_connectivity()


def test_passwords_are_readable_by_their_owner_only(data_dir):
    for name in ("passwords.json", "stack.json"):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600


def test_no_password_stands_on_a_command_line(data_dir):
    secrets = json.loads((data_dir / "passwords.json").read_text()).values()
    for pid in _pids(data_dir).values():
        line = " ".join(psutil.Process(pid).cmdline())
        assert not any(secret in line for secret in secrets)


@pytest.mark.parametrize("store", ["redis", "postgres", "milvus"])
def test_up_starts_again_what_has_died_and_leaves_the_others(data_dir, store):
    before = _pids(data_dir)
    _kill(before[store])
    local.up(data_dir)
    after = _pids(data_dir)
    assert after.pop(store) != before.pop(store)
    assert after == before


def test_data_and_address_outlive_a_crash(data_dir):
    import redis

    url = local.up(data_dir).environ()["REDIS_URL"]
    redis.Redis.from_url(url).set("kept", "yes")
    time.sleep(1.5)  # appendfsync everysec
    _kill(_pids(data_dir)["redis"])
    assert local.up(data_dir).environ()["REDIS_URL"] == url
    assert redis.Redis.from_url(url).get("kept") == b"yes"


def test_a_server_left_by_a_killed_up_is_ended_before_its_successor_starts(data_dir):
    left = _pids(data_dir)["redis"]
    record = json.loads((data_dir / "stack.json").read_text())
    del record["servers"]["redis"]
    (data_dir / "stack.json").write_text(json.dumps(record))
    said = []
    local.up(data_dir, progress=said.append)
    assert not psutil.pid_exists(left)
    assert f"redis: ending process {left}, left behind by an earlier start" in said


def test_a_server_left_behind_is_found_through_a_linked_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    left = Process.spawn(["sleep", "60"], log=tmp_path / "log", cwd=tmp_path)
    assert Process.left_in(tmp_path / "link", ["sleep"]) == left
    left.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_servers_whose_end_nobody_takes_note_of_are_started_again(data_dir):
    local.down(data_dir)
    up = (
        "from pathlib import Path; from is_db_bootstrap import local; "
        f"local.up(Path({str(data_dir)!r}), stores=('postgres', 'redis'))"
    )
    # Looking at processes that have ended, until the patience with them is over, takes ten seconds.
    down = (
        "import time; from pathlib import Path; from is_db_bootstrap import local; "
        "began = time.monotonic(); "
        f"local.down(Path({str(data_dir)!r}), durable=False); "
        "assert time.monotonic() - began < 8"
    )
    done = subprocess.run(
        [sys.executable, "-c", CARELESS_PARENT, up, down, up],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert set(_pids(data_dir)) == {"postgres", "redis"}


def test_a_number_that_now_belongs_to_another_process_is_not_ours(data_dir):
    record = json.loads((data_dir / "stack.json").read_text())
    stranger = Process(os.getpid(), record["servers"]["redis"]["born"] - 1000)
    assert not stranger.alive()
    stranger.kill()


def test_two_ups_at_once_give_one_stack(data_dir):
    _kill(_pids(data_dir)["redis"])
    _kill(_pids(data_dir)["postgres"])
    runs = [
        subprocess.Popen(
            [*COMMAND, "local", "up", "--data-dir", str(data_dir), "-o", "json"],
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    said = {run.communicate(timeout=120)[0] for run in runs}
    assert len(said) == 1
    assert [run.returncode for run in runs] == [0, 0, 0]


def test_another_listen_is_refused_while_it_runs(data_dir):
    with pytest.raises(ConfigurationError, match="already listens on"):
        local.up(data_dir, listen="0.0.0.0")


def test_a_failing_server_is_named_with_its_log_and_nothing_else_is_stopped(data_dir):
    before = _pids(data_dir)
    _kill(before["redis"])
    configuration = data_dir / "redis" / "data" / "appendonly.aof"
    whole = configuration.read_bytes()
    configuration.write_bytes(b"no such command\r\n" + whole)
    try:
        with pytest.raises(StoreError) as caught:
            local.up(data_dir)
    finally:
        configuration.write_bytes(whole)
    log = data_dir / "redis" / "server.log"
    assert str(log) in str(caught.value)
    assert "Bad file format" in str(caught.value)
    assert log.exists()
    before.pop("redis")
    assert _pids(data_dir) == before
    local.up(data_dir)


def test_listen_opens_what_has_a_password_and_keeps_milvus_here(data_dir):
    local.down(data_dir)
    assert local.status(data_dir) is None
    said = []
    local.up(data_dir, listen="0.0.0.0", progress=said.append)
    pids = _pids(data_dir)
    assert _listening(pids["milvus"]) <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert _listening(pids["redis"]) == {"0.0.0.0"}
    assert _listening(pids["postgres"]) == {"0.0.0.0"}
    assert any("milvus" in line and "127.0.0.1 only" in line for line in said)


def test_down_stops_only_what_up_started(data_dir):
    local.up(data_dir, listen="0.0.0.0")
    with tempfile.TemporaryDirectory() as folder:
        other = Process.spawn(["sleep", "60"], log=Path(folder) / "log", cwd=Path(folder))
        pids = _pids(data_dir)
        assert local.down(data_dir) == ["postgres", "neo4j", "milvus", "redis"]
        assert all(_gone(pid) for pid in pids.values())
        assert other.alive()
        other.kill()
    assert local.down(data_dir) == []


def test_down_and_status_make_no_folder(tmp_path):
    assert local.down(tmp_path / "none") == []
    assert local.status(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_an_ephemeral_stack_leaves_nothing():
    with local.ephemeral_stack() as stack:
        pids = [s.pid for s in stack.servers]
        assert len(pids) == 4
    assert all(_gone(pid) for pid in pids)
    assert not stack.data_dir.exists()


def test_an_ephemeral_stack_gives_settings_that_a_run_takes():
    with local.stack(BLUEPRINT, ephemeral=True) as settings:
        assert (
            orchestrator(BLUEPRINT, settings, RunOptions(only=("redis",))).run().outcome
            == "changed"
        )
        address = settings.stores["redis"]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((address.host, address.port(6379)), timeout=1)


@pytest.mark.parametrize("end", [">&-", ">/dev/full", "2>&- >&-"])
def test_a_stack_whose_addresses_nobody_can_read_can_be_found_and_stopped(data_dir, end):
    before = _pids(data_dir)
    script = f'exec "$@" {end}'
    call = ["bash", "-c", script, "-", *COMMAND, "local", "up", "--data-dir", str(data_dir)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 9
    assert "Traceback" not in done.stderr
    assert "`local down` stops it" in done.stderr or "2>&-" in end
    assert before.items() <= _pids(data_dir).items()


def test_an_ephemeral_stack_in_the_foreground_ends_with_its_command():
    # As in a background job of a shell, which ignores SIGINT.
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *COMMAND]
    run = subprocess.Popen(
        [*ignoring, "local", "up", "--ephemeral", "-o", "json"], stdout=subprocess.PIPE, text=True
    )
    lines = []
    while (line := run.stdout.readline()) and line != "}\n":
        lines.append(line)
    document = json.loads("".join([*lines, "}"]))
    run.send_signal(signal.SIGHUP)  # its terminal was closed
    run.send_signal(signal.SIGTERM)  # a second one does not keep it from removing the servers
    assert run.wait(60) == 0
    run.stdout.close()
    assert not Path(document["data_dir"]).exists()
    assert all(_gone(s["pid"]) for s in document["servers"])


def _python_for(user):
    """An interpreter that `user` may run (one below /root is closed to others), and the path of
    what we have installed.
    """
    path = os.pathsep.join(p for p in sys.path if p and not p.startswith(sys.base_prefix))
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            told = subprocess.run(
                [python, "-c", "import sys; print(sys.version_info[:2])"],
                user=user,
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        if told.stdout.strip() == str(sys.version_info[:2]):
            return python, path
    return pytest.skip(f"{user} may run no Python {sys.version_info[:2]} here")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_has_a_stack_too(data_dir):
    nobody = pwd.getpwnam("nobody")
    python, path = _python_for("nobody")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        environ = {
            **os.environ,
            "HOME": folder,
            "IS_DB_BOOTSTRAP_CACHE": f"{folder}/cache",
            "PYTHONPATH": f"{path}:{folder}",
        }
        for name in (
            "maven",
            f"neo4j-{Neo4jServer.default_version}",
        ):  # what the module's stack has downloaded
            shutil.copytree(
                cache_folder() / name,
                f"{folder}/cache/{name}",
                ignore=shutil.ignore_patterns("*.jsa"),
            )
        for each in (Path(folder, "cache"), *Path(folder, "cache").rglob("*")):
            os.chown(each, nobody.pw_uid, nobody.pw_gid)
        # What redis-py wants before Python 3.11.3, should the interpreter be older than ours.
        (Path(folder) / "async_timeout.py").write_text("from asyncio import timeout\n")

        def run(*arguments):
            return subprocess.run(
                [
                    python,
                    "-m",
                    "is_db_bootstrap",
                    "local",
                    *arguments,
                    "--data-dir",
                    f"{folder}/stack",
                ],
                user="nobody",
                group=nobody.pw_gid,
                extra_groups=(),
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                check=False,
                timeout=180,
            )

        pids = []
        up = run("up", "-o", "json")
        try:
            assert up.returncode == 0, up.stderr
            pids = [s["pid"] for s in json.loads(up.stdout)["servers"]]
            assert {psutil.Process(pid).username() for pid in pids} == {"nobody"}
        finally:
            down = run("down")
        assert down.returncode == 0, down.stderr
        assert all(_gone(pid) for pid in pids)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as nobody")
def test_a_folder_that_nobody_may_not_enter_is_named(make_server):
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        pytest.raises(BootstrapError, match=f"cannot enter {folder}"),
    ):
        local.up(Path(folder) / "stack")


def test_a_taken_port_is_left_to_its_owner(make_server):
    server = make_server("redis", start=False)
    with socket.create_server(("127.0.0.1", free_port("127.0.0.1"))) as taken:
        server.port = taken.getsockname()[1]
        server.start()
        assert server.port != taken.getsockname()[1]


def test_threads_of_a_failed_start_end(tmp_path):
    before = threading.active_count()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        local.up(tmp_path / "file" / "stack")
    assert threading.active_count() == before

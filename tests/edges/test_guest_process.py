"""User code in a process of the command: it cannot end the process, nor write to its result."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import command
from is_db_bootstrap import cli

BLUEPRINT = """
import atexit, logging, os, signal, subprocess, sys, threading, time
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint, KeyPattern

{code}
KEYS = (KeyPattern("k", "k:{{id}}", "string", 60, "o", "p"),)
MIGRATIONS = Path(__file__).parent / "migrations"
if MIGRATIONS.is_dir():
    BLUEPRINT = Blueprint("desk", "x", migrations=MIGRATIONS)
else:
    BLUEPRINT = Blueprint("desk", "x", keys=KEYS)
"""
REVISION = """
import os, subprocess, sys, threading, time
from alembic import op

revision = "d1"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE done (id integer)")
    {code}


def downgrade():
    op.execute("DROP TABLE done")
"""

#: Every way past `print` to what a process calls its standard output.
WRITES = {
    "print": "print('said by print')",
    "descriptor": "os.write(1, b'said by descriptor\\n')",
    "first stream": "sys.__stdout__.write('said by first stream\\n')",
    "child": "subprocess.run(['echo', 'said by child'], check=True)",
    "fork": "os.fork() or (os.write(1, b'said by fork\\n'), os._exit(0))",
    "log": "logging.basicConfig(stream=sys.stdout)\nlogging.warning('said by log')",
    "log at the end": "atexit.register(logging.warning, 'said by log at the end')",
    "thread": (
        "thread = threading.Thread(target=lambda: print('said by thread'))\n"
        "thread.start()\n"
        "thread.join()"
    ),
    "end": "atexit.register(print, 'said by end')",
    "thread at the end": (
        "main = threading.main_thread()\n"
        "late = lambda: (main.join(), print('said by thread at the end'))\n"
        "threading.Thread(target=late).start()"
    ),
}

#: Every way to end a process, and the exit code of the command.
ENDS = {
    "exit in a thread": (
        "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(60)",
        143,
    ),
    "another program in a thread": (
        "threading.Thread(target=os.execvp, args=('true', ['true'])).start(); time.sleep(60)",
        143,
    ),
    "another program": ("os.execvp('true', ['true'])", 2),
    "a handler that exits": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), 15)",
        2,
    ),
    "a handler that exits at once": (
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); os.kill(os.getpid(), 15)",
        2,
    ),
    "a daemon": ("os.fork() and os._exit(0)", 2),
}


@pytest.fixture
def folder(tmp_path):
    """`folder("code")`: a blueprint folder with this code, and that of a revision, if there is."""

    def write(code, revision=""):
        place = tmp_path / "desk"
        place.mkdir()
        (place / "blueprint.py").write_text(BLUEPRINT.format(code=code))
        if revision:
            (place / "migrations").mkdir()
            (place / "migrations" / "d1.py").write_text(REVISION.format(code=revision))
        return str(place)

    return write


def test_every_command_prints_its_result_to_the_stream_of_the_result():
    calls = [
        (path.name, call)
        for path in Path(cli.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in {"click.echo", "click.secho"}
    ]
    to_stdout = [
        f"{name}: {ast.unparse(call)}"
        for name, call in calls
        if not {keyword.arg for keyword in call.keywords} & {"err", "file"}
    ]
    # Click answers this before any code of the user runs.
    assert to_stdout == ["__init__.py: click.echo(f'is-db-bootstrap {__version__}')"]


def test_nothing_that_a_blueprint_writes_stands_in_the_result(folder):
    code, out, err = command("blueprints", "show", folder("\n".join(WRITES.values())), "-f", "json")
    assert code == 0, err
    assert json.loads("\n".join(out))["name"] == "desk"
    said = [line.rpartition("said by ")[2] for line in err.splitlines()]
    assert sorted(said) == sorted(WRITES)


@pytest.mark.postgres
def test_nothing_that_a_revision_writes_stands_in_the_result(folder, postgres_url):
    ways = ("print", "descriptor", "first stream", "child", "fork", "thread")
    code = "\n    ".join("\n".join(WRITES[way] for way in ways).splitlines())
    done, out, err = command(
        "apply", "-b", folder("", code), "-o", "json", environ={"POSTGRES_URL": postgres_url}
    )
    assert done == 0, err
    assert json.loads("\n".join(out))["outcome"] == "changed"
    assert {way for way in ways if f"said by {way}\n" in err} == set(ways)


@pytest.mark.parametrize("way", ENDS)
def test_a_blueprint_that_ends_the_process_is_told(folder, tmp_path, way):
    code, expected = ENDS[way]
    log = tmp_path / "log"
    found, out, err = command("apply", "-b", folder(code), "--termination-log", str(log))
    assert (found, out) == (expected, []), err
    assert json.loads(log.read_text())["exit_code"] == expected
    assert "Traceback" not in err
    is_named = "os._exit(0)" in err or "os.exec*(true)" in err or "SystemExit: 0" in err
    assert is_named, err


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("path", "handler"),
    [
        (("apply",), "sys.exit(0)"),
        (("migrate", "init"), "sys.exit(0)"),
        (("migrate", "init"), "os._exit(0)"),
        (("migrate", "init"), "None"),
    ],
)
def test_a_signal_means_the_same_whatever_handler_a_blueprint_sets(
    folder, postgres_url, path, handler
):
    name = folder(
        f"signal.signal(signal.SIGTERM, lambda *_: {handler})",
        "os.kill(os.getpid(), 15)\n    time.sleep(60)",
    )
    environ = {"POSTGRES_URL": postgres_url, "IS_DB_BOOTSTRAP_GRACE": "0.1"}
    code, _, err = command(*path, "-b", name, environ=environ)
    assert code == 143, err
    assert "Traceback" not in err


def test_an_exit_outside_of_a_guest_is_a_failure_with_a_traceback(folder):
    alarm = "signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))\nsignal.setitimer(0, 2)"
    code, _, err = command(
        "wait", "-b", folder(alarm), "--redis-url", "redis://127.0.0.1:1", "--timeout", "50"
    )
    assert code == 1
    assert "SystemExit: 0" in err


@pytest.mark.parametrize("late", ["atexit.register(os._exit, 0)", "atexit.register(sys.exit, 0)"])
def test_what_a_blueprint_does_at_the_end_keeps_the_exit_code(folder, late):
    code, _, err = command("apply", "-b", folder(late))
    assert code == 2
    assert "REDIS_URL" in err


def test_a_result_waits_for_a_reader_that_is_slower_than_its_pipe():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    show = ["blueprints", "show", "novel_genesis", "--format", "json"]
    with subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", *show], stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            parts = iter(lambda: pipe.read(1000), b"")
            document = b"".join(parts)
        assert process.wait(60) == 0, process.stderr.read()
    assert len(document) > 4096
    assert json.loads(document)["name"] == "novel_genesis"


def test_a_termination_log_that_is_a_pipe_without_a_reader_is_told(tmp_path):
    log = tmp_path / "log"
    os.mkfifo(log)
    code, _, err = command("apply", "-b", "nothing", "--termination-log", str(log))
    assert code == 2
    assert f"the termination log {log} cannot be written: it is a named pipe that nobody" in err
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    assert command("apply", "-b", "nothing", "--termination-log", str(log))[0] == 2
    assert json.loads(os.read(reader, 10_000))["exit_code"] == 2
    os.close(reader)


@pytest.mark.parametrize("end", ["/dev/full", "closed", "ascii"])
def test_a_shell_that_cannot_take_an_answer_gets_no_traceback(end):
    environ = {
        **os.environ,
        "_IS_DB_BOOTSTRAP_COMPLETE": "bash_complete",
        "COMP_WORDS": "is-db-bootstrap ap",
        "COMP_CWORD": "1",
        "PYTHONIOENCODING": "ascii",
    }
    words = {"/dev/full": ">/dev/full", "closed": ">&-", "ascii": ""}[end]
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {words}', "-", sys.executable, "-m", "is_db_bootstrap"],
        check=False,
        capture_output=True,
        env=environ,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if end == "ascii" else 9)
    assert done.stdout.split() == (["plain,apply"] if end == "ascii" else [])

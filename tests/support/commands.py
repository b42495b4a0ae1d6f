"""The command as a process, with and without a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys

import pytest

from is_db_bootstrap.cli import main
from servers import PASSWORD
from stops import sentences_with_two_stops


def command(*args, stdin=subprocess.DEVNULL, environ=None):
    """The command as a process: exit code, stdout lines, stderr. Its environment names no address
    unless told.
    """
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("DB_", "POSTGRES", "DATABASE", "NEO4J", "MILVUS", "REDIS"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", *args],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env | (environ or {}),
    )
    assert PASSWORD not in done.stdout + done.stderr
    assert "p%C3%A4" not in done.stdout + done.stderr
    assert not sentences_with_two_stops(done.stderr), done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr


def run_here(args, folder, environ):
    """One call in this process, in `folder`: exit code, stdout, stderr.

    `environ` is all that it sees. After a call that has applied something, this process is the
    parent of all orphans below it (`PR_SET_CHILD_SUBREAPER`), and takes note of no end of theirs.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        for name in os.environ:
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with streams[0], streams[1], pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
    assert not sentences_with_two_stops(err.getvalue()), err.getvalue()
    return end.value.code, out.getvalue(), err.getvalue()


def answered(answer, *args, environ=None):
    """The command at a terminal where a person types `answer`: exit code and everything that was
    shown.
    """
    master, slave = pty.openpty()
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("DB_", "POSTGRES", "DATABASE"))
    } | (environ or {})
    process = subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", *args],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env,
    )
    os.close(slave)
    os.write(master, f"{answer}\n".encode())
    shown = _all_of(master)
    return process.wait(timeout=60), shown


def _all_of(master):
    """What a terminal gets until its other side is closed."""
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(master)
    return seen.decode()


def at_terminal(*words, folder, environ, columns=100):
    """The command at a terminal of this width: exit code, and everything that the terminal got."""
    master, slave = pty.openpty()
    os.set_inheritable(slave, True)  # noqa: FBT003 - the standard library's signature
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", *words],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=clean | {"COLUMNS": str(columns)} | environ,
    )
    os.close(slave)
    seen = _all_of(master)
    return process.wait(timeout=60), seen

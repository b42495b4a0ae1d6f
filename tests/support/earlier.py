"""The version of commit 00863d4, built from this repository's history, in an environment of its
own.

It is kept below `.cache`, so only the first session builds it. Its dependencies are those of this
environment.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wheel

COMMIT = "00863d4e60c0da28d60323f50faf2467fa315fe5"
_KEPT = wheel.ROOT / ".cache" / f"version-{COMMIT[:7]}"


def programs():
    """The `bin` folder of the environment. Skips where the commit is not in the history."""
    there = _git("cat-file", "-e", f"{COMMIT}^{{commit}}", check=False)
    if there.returncode != 0:
        pytest.skip(f"commit {COMMIT[:7]} is not here: a shallow clone, or no clone at all")
    _KEPT.mkdir(parents=True, exist_ok=True)
    with (_KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may want it at once
        # An environment of another interpreter, or beside another one, is made anew.
        made_by = "\n".join([sys.executable, *sys.path])
        note = _KEPT / "made_by"
        if not note.exists() or note.read_text() != made_by:
            _make()
            note.write_text(made_by)
    return _KEPT / "venv" / "bin"


def _make():
    for name in ("source", "wheel", "venv"):
        shutil.rmtree(_KEPT / name, ignore_errors=True)
    source, built = _KEPT / "source", _KEPT / "wheel"
    source.mkdir()
    built.mkdir()
    archive = _git("archive", "--format=tar", COMMIT).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True, timeout=60)
    wheel.run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built, cwd=source)
    [found] = Path(built).glob("*.whl")
    wheel.install(found, _KEPT)


def _git(*args, check=True):
    return subprocess.run(
        ["git", *args], cwd=wheel.ROOT, check=check, capture_output=True, timeout=60
    )

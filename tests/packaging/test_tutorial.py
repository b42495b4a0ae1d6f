"""The tutorial, run from its first line to its last; what it shows is what was printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"```(?P<kind>bash|console)\n(?P<text>.*?)```", re.DOTALL)
ADDRESSES = ("POSTGRES_", "NEO4J_", "MILVUS_", "REDIS_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_")


class Shell:
    """One shell that keeps its working directory from block to block."""

    def __init__(self, folder):
        bin_folder = str(Path(sys.executable).parent)
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith(ADDRESSES)}
        self._environ["PATH"] = f"{bin_folder}:{self._environ['PATH']}"
        self._folder = folder

    def __call__(self, text):
        script = f"set -e\n{text}\npwd > '{self._folder}/.pwd'\n"
        place = (
            (self._folder / ".pwd").read_text().strip()
            if (self._folder / ".pwd").exists()
            else self._folder
        )
        return subprocess.run(
            ["bash", "-c", script],
            cwd=place,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def commands(text):
    """Pairs of a command and what it printed."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def plain(text):
    """Without times, and with one space where there are several."""
    lines = (
        re.sub(r" +", " ", re.sub(r"\d+\.\d+ s\b", "… s", line)).rstrip()
        for line in text.splitlines()
    )
    return [line for line in lines if line]


@pytest.mark.postgres
@pytest.mark.neo4j
@pytest.mark.milvus
@pytest.mark.redis
def test_every_command_prints_what_the_page_shows(tmp_path):
    tmp_path.chmod(0o755)
    folder = Path(
        subprocess.run(
            ["mktemp", "-d", "/var/tmp/is-db-bootstrap-tutorial-XXXXXX"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    folder.chmod(0o755)
    shell = Shell(folder)
    shown = []
    try:
        for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
            if block["kind"] == "bash":
                done = shell(block["text"])
                assert done.returncode == 0, block["text"] + done.stdout + done.stderr
                continue
            for command, output in commands(block["text"]):
                done = shell(f"{command} || true")
                shown.append((command, plain(done.stdout), plain(output)))
    finally:
        shell("is-db-bootstrap local down --data-dir .stack")
        subprocess.run(["rm", "-rf", str(folder)], check=False)
    assert [(c, printed) for c, printed, _ in shown] == [(c, output) for c, _, output in shown]

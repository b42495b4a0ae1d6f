"""README, the page after it and the tutorial, followed word for word by somebody who has nothing.

That is `git`, `make`, `python3`, and a folder. The repository's address leads to a copy of these
files, so what is followed is what stands here. pip may take only versions that were tried.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from is_db_bootstrap.scaffold.requirement import REPOSITORY
from pages import ROOT, blocks, commands

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
    pytest.mark.timeout(1800),
]
#: What a person's shell has and these pages do not speak of: how pip finds its index, and proxies.
KEPT = (
    "HOME",
    "PIP_",
    "SSL_",
    "REQUESTS_CA",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP",
    "NO_",
)
AFTER = "docs/how-to/after-make-run.md"
TUTORIAL = "docs/tutorial.md"


@pytest.fixture(scope="module")
def place():
    """A folder that `nobody` may enter, as PostgreSQL's user must."""
    folder = Path(tempfile.mkdtemp(prefix="is-db-bootstrap-first-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def repository(place):
    """A git repository with the files of this one as they are now."""
    folder = place / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for words in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "All"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def versions(place):
    """A file for pip with the versions that are pinned here, without their hashes."""
    text = (ROOT / "requirements" / "test.txt").read_text(encoding="utf-8")
    file = place / "versions.txt"
    file.write_text("\n".join(re.findall(r"^[\w.-]+==[^\\\n]+", text, re.MULTILINE)))
    return file


class Newcomer:
    """Somebody's shell: its folder and its variables stay from one line to the next."""

    def __init__(self, folder, environ):
        folder.mkdir(exist_ok=True)
        self.folder, self._environ = folder, environ
        self._state = folder.parent / f"{folder.name}.state"
        self._state.write_text(f"cd '{folder}'\n")

    def type(self, command, *, cwd=None):
        """A command that has ended. Its errors go to where its output goes, as on a terminal."""
        cd = f"cd '{cwd}'" if cwd else ":"
        keep = f"{{ export -p; echo cd \"'$PWD'\"; }} > '{self._state}'"
        script = f"source '{self._state}'\n{cd}\n{command}\ncode=$?\n{keep}\nexit $code"
        return subprocess.run(
            ["bash", "-c", script],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def follow(self, block):
        """Type a block's lines. Each must end with 0, or with the code that its remark has."""
        for line, remark in commands(block):
            told = re.match(r"exit (\d+)", remark)
            done = self.type(line.removeprefix("$ "))
            shown = f"{block}: {line}\n{done.stdout}{done.stderr}"
            assert done.returncode == (int(told[1]) if told else 0), shown


@pytest.fixture(scope="module")
def newcomer(place, repository, versions):
    """`newcomer(name)`: somebody in an empty folder of that name."""

    def begin(name, **variables):
        kept = {k: v for k, v in os.environ.items() if k.startswith(KEPT)}
        return Newcomer(
            place / name,
            kept
            | {
                # What is installed is used for a minute, so most of it would be compiled in vain.
                "PIP_COMPILE": "0",
                "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
                "GIT_CONFIG_VALUE_0": REPOSITORY,
                "IS_DB_BOOTSTRAP_DATA": str(place / f"{name}-data"),
            }
            | variables,
        )

    return begin


def section(page, title):
    return [block for block in blocks(page) if block.section == title]


def test_the_readme_and_the_page_after_it_are_followed(newcomer, versions):
    one = newcomer("one")
    tried = section("README.md", "Try it")
    clone, first, again = (block for block in tried if block.kind in {"console", "text"})
    [printed] = [block for block in tried if block.kind == "text"]
    assert first is printed
    one.follow(clone)
    one.follow(again)
    done = one.type("make run")
    assert done.stdout.count("unchanged") == 5, done.stdout
    try:
        for block in blocks(AFTER):
            one.follow(block)
    finally:
        one.type("make down")
    assert "No local stack is running" in one.type("is-db-bootstrap local status").stderr


def test_the_first_blueprint_of_the_readme_is_applied_where_it_was_installed(newcomer, versions):
    two = newcomer("two", PIP_CONSTRAINT=str(versions))
    [shown] = [b for b in section("README.md", "A blueprint") if b.kind == "python"]
    assert len(shown.text.strip().splitlines()) <= 12
    (two.folder / "blueprint.py").write_text(shown.text)
    for block in section("README.md", "Install"):
        two.follow(block)
    try:
        for outcome in ("changed", "unchanged"):
            done = two.type("is-db-bootstrap apply --blueprint . --local --data-dir .stack")
            assert f"notes: apply {outcome}" in done.stdout, done.stdout + done.stderr
    finally:
        two.type("is-db-bootstrap local down --data-dir .stack")


def test_the_tutorial_is_followed_from_its_first_line_to_its_last(newcomer, versions):
    three = newcomer("three", PIP_CONSTRAINT=str(versions))
    shown = []
    try:
        for block in blocks(TUTORIAL):
            if block.kind == "bash":
                done = three.type(f"set -e\n{block.text}\nset +e")
                assert done.returncode == 0, block.text + done.stdout + done.stderr
                continue
            for command, output in answers(block.text):
                done = three.type(command)
                shown.append((command, plain(done.stdout), plain(output)))
    finally:
        three.type("is-db-bootstrap local down --data-dir .stack")
    assert [(c, printed) for c, printed, _ in shown] == [(c, output) for c, _, output in shown]


def answers(text):
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

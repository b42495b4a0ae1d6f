"""The installed package, outside the repository: a blueprint of one's own is begun, applied to a
local stack, and passes its test.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from wheel import run

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
]


@pytest.fixture
def place():
    """A folder that even `nobody` may enter, as PostgreSQL's user must."""
    folder = Path(tempfile.mkdtemp(prefix="is-db-bootstrap-own-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_what_the_wheel_writes_passes_its_own_test(command, place):
    run(command, "new", "my_app", cwd=place)
    stack = ["--local", "--data-dir", str(place / "stack")]
    try:
        first = run(command, "apply", "--blueprint", "my_app", *stack, cwd=place)
        again = run(command, "apply", "--blueprint", "my_app", *stack, cwd=place)
    finally:
        run(command, "local", "down", "--data-dir", str(place / "stack"), cwd=place)
    assert "apply changed" in first.stdout
    assert "apply unchanged" in again.stdout
    tested = run(
        command.parent / "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "my_app",
        cwd=place,
    )
    assert "3 passed" in tested.stdout


def test_a_blueprint_that_came_with_the_package_gets_no_revision(command, tmp_path):
    done = run(
        command,
        "revision",
        "--empty",
        "-m",
        "mine",
        "--blueprint",
        "novel_genesis",
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "came with the package" in done.stderr

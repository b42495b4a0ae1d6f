"""The line that a new blueprint's files have for pip."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from is_db_bootstrap.scaffold.requirement import REPOSITORY, requirement

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def installed_from(tmp_path, monkeypatch):
    """`installed_from(origin)`: the metadata that pip leaves of a package from there."""

    def install(origin):
        folder = tmp_path / "is_db_bootstrap-1.2.3.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: is-db-bootstrap\nVersion: 1.2.3\n"
        )
        if origin is not None:
            (folder / "direct_url.json").write_text(json.dumps(origin))
        found = metadata.PathDistribution(folder)
        monkeypatch.setattr(metadata, "distribution", lambda _: found)

    return install


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "is-db-bootstrap[all]==1.2.3"),
        (
            {
                "url": "https://example.org/fork.git",
                "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"},
            },
            f"is-db-bootstrap[all] @ git+https://example.org/fork.git@{COMMIT}",
        ),
        (
            {"url": "file:///x", "dir_info": {"editable": True}},
            f"is-db-bootstrap[all] @ git+{REPOSITORY}",
        ),
        ({"url": "file:///x.whl", "archive_info": {}}, f"is-db-bootstrap[all] @ git+{REPOSITORY}"),
    ],
    ids=["an index", "git", "a clone", "a wheel"],
)
def test_a_package_is_asked_for_where_it_came_from(installed_from, origin, line):
    installed_from(origin)
    assert requirement("all") == line


def test_the_repository_is_the_one_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"]["Source"] == REPOSITORY

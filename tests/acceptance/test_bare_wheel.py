"""The wheel without the reference systems: the engine and the four stores need none of them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from is_db_bootstrap.blueprint.load import blueprint_names
from wheel import ROOT, SITE, build, install, run

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
    pytest.mark.timeout(900),
]
TESTS = ROOT / "tests"
#: One version of each server: the contract suite itself runs over all.
ONE_VERSION_EACH = "(18 or 5.26 or lite or 7 or not test_contract) and not 2.3"


def is_of_a_reference_system(name: str) -> bool:
    """Whether a file of the wheel belongs to one of the five reference systems."""
    folders = ("blueprints", "_files/migrations", "_files/cypher")
    return any(
        name.startswith(f"is_db_bootstrap/{folder}/{system}/")
        for folder in folders
        for system in blueprint_names()
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The `bin` folder of an environment whose package has no reference system."""
    wheel, _ = build(tmp_path_factory.mktemp("dist"))
    installed = install(wheel, tmp_path_factory.mktemp("bare"))
    site = installed.parent / SITE
    for name in zipfile.ZipFile(wheel).namelist():
        if is_of_a_reference_system(name):
            (site / name).unlink()
    [entry_points] = site.glob("is_db_bootstrap-*.dist-info/entry_points.txt")
    kept = [
        line
        for line in entry_points.read_text(encoding="utf-8").splitlines()
        if "is_db_bootstrap.blueprints." not in line
    ]
    entry_points.write_text("\n".join(kept), encoding="utf-8")
    return installed


def test_without_the_reference_systems_no_blueprint_is_listed(bare, tmp_path):
    listed = run(bare / "is-db-bootstrap", "blueprints", "-o", "json", cwd=tmp_path).stdout
    assert listed == "[]\n"


def test_engine_and_contract_pass_without_the_reference_systems(bare, tmp_path):
    copied = tmp_path / "tests"
    shutil.copytree(TESTS, copied, ignore=shutil.ignore_patterns("__pycache__"))
    done = run(
        bare / "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        ONE_VERSION_EACH,
        "-o",
        "pythonpath=tests/support tests/stores",
        "-o",
        "asyncio_mode=auto",
        Path("tests", "stores", "test_contract.py"),
        Path("tests", "engine", "test_orchestrator.py"),
        cwd=tmp_path,
        timeout=800,
    )
    summary = done.stdout.splitlines()[-1]
    assert "passed" in summary
    assert "failed" not in summary

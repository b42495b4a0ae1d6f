"""The image: what is in it, as whom it runs, and that it needs to write nothing."""

from __future__ import annotations

import json
import re
import time

import pytest

from images import ROOT, built, docker
from is_db_bootstrap import __version__

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
CLOSED = ("--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


@pytest.fixture(scope="module")
def image():
    return built()


def test_it_brings_a_store_to_its_blueprint_without_writing_to_its_file_system(
    image, postgres_url, redis_url
):
    arguments = (
        "--network",
        "host",
        "-e",
        f"POSTGRES_URL={postgres_url}",
        "-e",
        f"REDIS_URL={redis_url}",
        image,
    )
    for expected in ("changed", "unchanged"):
        done = docker(
            "run",
            *CLOSED,
            *arguments,
            "--blueprint",
            "helpdesk",
            "--only",
            "postgres",
            "--output",
            "json",
        )
        assert json.loads(done.stdout)["outcome"] == expected
    done = docker(
        "run", *CLOSED, *arguments, "--blueprint", "helpdesk", "--only", "redis", "--output", "json"
    )
    assert json.loads(done.stdout)["exit_code"] == 0


def test_it_runs_as_nobody_special_and_has_no_pip(image):
    done = docker(
        "run",
        *CLOSED,
        "--entrypoint",
        "python3",
        image,
        "-c",
        "import os; print(os.getuid(), os.getgid())",
    )
    assert done.stdout.split() == ["10001", "10001"]
    done = docker(
        "run",
        *CLOSED,
        "--entrypoint",
        "/opt/is-db-bootstrap/bin/python",
        image,
        "-m",
        "pip",
        check=False,
    )
    assert "No module named pip" in done.stderr


def test_its_configuration(image):
    [found] = json.loads(docker("image", "inspect", image).stdout)
    config = found["Config"]
    assert config["Entrypoint"] == ["is-db-bootstrap"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert config["Labels"]["org.opencontainers.image.title"] == "is-db-bootstrap"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_sigterm_ends_it_cleanly_though_it_is_process_1(image):
    name = "is-db-bootstrap-test-sigterm"
    docker("rm", "--force", name, check=False)
    docker(
        "run",
        "--detach",
        "--name",
        name,
        "--read-only",
        image,
        "--only",
        "redis",
        "--redis-url",
        "redis://127.0.0.1:1",
        "-o",
        "json",
    )
    try:
        end = time.monotonic() + 60
        while "Trying again" not in docker("logs", name).stderr:
            assert time.monotonic() < end
            time.sleep(0.1)
        began = time.monotonic()
        docker("stop", "--time", "30", name)
        assert time.monotonic() - began < 15
        [found] = json.loads(docker("inspect", name).stdout)
        assert found["State"]["ExitCode"] == 143
        assert json.loads(docker("logs", name).stdout)["outcome"] == "interrupted"
    finally:
        docker("rm", "--force", name, check=False)


def test_sigterm_before_the_run_begins_ends_it_too(image):
    """The blueprint is still being imported, and waits there."""
    name = "is-db-bootstrap-test-early"
    docker("rm", "--force", name, check=False)
    code = """
import time
from is_db_bootstrap import cli
from is_db_bootstrap.blueprint import load

load.from_module = lambda _: (print("importing", flush=True), time.sleep(60))
cli.main(["--blueprint", "slow:BLUEPRINT"])
"""
    docker(
        "run",
        "--detach",
        "--name",
        name,
        "--entrypoint",
        "/opt/is-db-bootstrap/bin/python",
        image,
        "-c",
        code,
    )
    try:
        end = time.monotonic() + 60
        while "importing" not in docker("logs", name).stdout:
            assert time.monotonic() < end
            time.sleep(0.1)
        docker("stop", "--time", "30", name)
        [found] = json.loads(docker("inspect", name).stdout)
        assert found["State"]["ExitCode"] == 143
    finally:
        docker("rm", "--force", name, check=False)


def test_only_the_extras_asked_for_are_in_it(image):
    small = built("postgres", name="localhost/is-db-bootstrap:test-postgres")
    found = {
        n: docker(
            "run",
            *CLOSED,
            "--entrypoint",
            "python3",
            n,
            "-c",
            "import importlib.util as u; print([n for n in ('psycopg', 'neo4j', 'pymilvus', "
            "'redis') if u.find_spec(n)])",
        ).stdout.strip()
        for n in (small, image)
    }
    assert found[small] == "['psycopg']"
    assert found[image] == "['psycopg', 'neo4j', 'pymilvus', 'redis']"
    sizes = {n: json.loads(docker("image", "inspect", n).stdout)[0]["Size"] for n in (small, image)}
    assert sizes[small] < sizes[image]


def test_the_sbom_names_what_is_in_it(image, tmp_path):
    name = built(target="sbom", name="localhost/is-db-bootstrap:test-sbom")
    container = docker("create", name, "nothing").stdout.strip()
    docker("cp", f"{container}:/is-db-bootstrap.cdx.json", str(tmp_path))
    docker("rm", container)
    document = json.loads((tmp_path / "is-db-bootstrap.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    listed = {c["name"].lower().replace("_", "-"): c["version"] for c in document["components"]}
    inside = docker(
        "run",
        *CLOSED,
        "--entrypoint",
        "/opt/is-db-bootstrap/bin/python",
        image,
        "-c",
        "from importlib.metadata import distributions as d; "
        "print('\\n'.join(f'{x.name}=={x.version}' for x in d()))",
    ).stdout
    there = dict(line.lower().replace("_", "-").split("==") for line in inside.split())
    assert listed == there
    pinned = re.findall(
        r"^([a-z0-9.\-]+)==([^ ;\\]+)", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE
    )
    assert there.items() - {("is-db-bootstrap", __version__)} <= set(pinned)

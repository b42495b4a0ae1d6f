"""Workflows and the action: what they may do, and which code of others they run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
import yaml

from is_db_bootstrap import __version__
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.scaffold import create_folder

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
OURS = "is-db-bootstrap/is-db-bootstrap@"
USES = re.compile(r"uses:\s*(\S+)\s*(#.*)?$", re.MULTILINE)
PINNED = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40}")
RELEASE = re.compile(r"# v\d+\.\d+\.\d+")
#: Events that run the workflow of the base branch, with its secrets, on code of a stranger.
UNSAFE_EVENTS = {"pull_request_target", "workflow_run"}
NAMES = ["release.yaml", "github-local.yaml", "github-plan.yaml", "github-services.yaml", "new"]


@pytest.fixture(scope="module")
def workflows(tmp_path_factory):
    """The text of each workflow: ours, those for users, and the one that `new` writes."""
    folder = tmp_path_factory.mktemp("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        create_folder("my_app", STORE_ORDER, folder)
    [made] = (folder / "my_app" / ".github" / "workflows").iterdir()
    files = [*(ROOT / ".github/workflows").iterdir(), *(ROOT / "ci").glob("github-*.yaml")]
    return {path.name: path.read_text() for path in files} | {"new": made.read_text()}


def jobs(text):
    return yaml.safe_load(text)["jobs"]


def test_every_workflow_is_looked_at(workflows):
    assert sorted(workflows) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_actions_of_others_are_pinned_by_digest_with_their_release_beside_it(workflows, name):
    used = [row for row in USES.findall(workflows[name]) if not row[0].startswith(OURS)]
    assert used
    assert [action for action, _ in used if not PINNED.fullmatch(action)] == []
    assert [row for row in used if not RELEASE.fullmatch(row[1].strip())] == []


def test_one_action_has_one_digest_everywhere(workflows):
    found = {}
    for text in [*workflows.values(), ACTION.read_text()]:
        for action, release in USES.findall(text):
            found.setdefault(action.partition("@")[0], set()).add((action, release))
    assert [rows for rows in found.values() if len(rows) > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_may_read_and_a_job_that_may_write_says_why(workflows, name):
    text = workflows[name]
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    for job in jobs(text).values():
        assert isinstance(job.get("permissions", {}), dict), "write-all, or read-all"
    unexplained = [line for line in text.splitlines() if re.search(r": write\s*$", line)]
    assert unexplained == []


@pytest.mark.parametrize("name", NAMES)
def test_no_step_after_a_checkout_finds_its_token(workflows, name):
    steps = [step for job in jobs(workflows[name]).values() for step in job.get("steps", [])]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    for step in checkouts:
        assert step.get("with", {}).get("persist-credentials") is False


@pytest.mark.parametrize("name", NAMES)
def test_code_of_a_stranger_runs_without_secrets(workflows, name):
    events = yaml.safe_load(workflows[name])[True]  # YAML reads the key `on` as true
    assert not UNSAFE_EVENTS & set([events] if isinstance(events, str) else events)


def test_no_script_has_an_expression_in_it(workflows):
    """What a stranger names a branch would become a part of the script. `env` is safe."""
    steps = [s for text in workflows.values() for job in jobs(text).values() for s in job["steps"]]
    steps += yaml.safe_load(ACTION.read_text())["runs"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) > len(NAMES)
    assert [script for script in scripts if "${{" in script] == []


# --- what the action installs


@pytest.fixture(scope="module")
def action_path(tmp_path_factory):
    """The action as a runner has it, but with the build's own requirements only, which are few."""
    folder = tmp_path_factory.mktemp("action")
    for name in ("src", "migrations", "cypher", "ci"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/image.txt", folder / "requirements/run.txt")
    return folder


@pytest.fixture(scope="module")
def install(action_path, tmp_path_factory):
    """`install(ACTION_REF="v1", …)`: the script of the step as it ended. It may be called again."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True, symlinks=True)
    given = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(**variables):
        return subprocess.run(
            ["bash", str(action_path / "ci/install.sh"), str(folder / "bin/python")],
            env=given | {"GITHUB_ACTION_PATH": str(action_path)} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


def test_the_action_gives_its_tag_to_the_script_that_installs():
    step = yaml.safe_load(ACTION.read_text())["runs"]["steps"][0]
    assert step["env"]["ACTION_REF"] == "${{ github.action_ref }}"
    assert "ci/install.sh" in step["run"]


def test_dependencies_that_the_action_installs_have_digests():
    text = (ROOT / "requirements/run.txt").read_text()
    requirements = [line for line in text.splitlines() if re.match(r"[a-z]", line)]
    assert len(requirements) > 30
    assert text.count("--hash=sha256:") >= len(requirements)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("reference", "code", "said"),
    [
        (f"v{__version__}", 0, ""),
        (f"v{__version__.partition('.')[0]}", 0, ""),
        ("v999", 1, f"::error::The tag v999 of the action holds is-db-bootstrap {__version__}."),
        ("main", 0, f"::notice::is-db-bootstrap {__version__}, from the source at main"),
    ],
    ids=["tag", "major", "another", "branch"],
)
def test_the_action_installs_the_version_of_its_tag(install, reference, code, said):
    done = install(ACTION_REF=reference)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout
    assert bool(done.stdout) == bool(said)


def test_a_requirement_of_the_user_is_what_the_action_installs(install, tmp_path):
    done = install(REQUIREMENT=f"no-such-thing @ file://{tmp_path}/none", ACTION_REF="v1")
    assert done.returncode != 0
    assert "none" in done.stderr

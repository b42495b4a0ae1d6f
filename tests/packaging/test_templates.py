"""Compose files, workflows and templates: read by the tools that will read them."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from action_steps import run_steps
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.scaffold import create_folder
from is_db_bootstrap.testing.containers import IMAGES

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose"
PROGRAMS = Path(sys.executable).parent
OVERRIDES = ((), ("compose.dev.yaml",), ("compose.ci.yaml",))


@pytest.fixture
def compose(tmp_path):
    """`compose("compose.dev.yaml")`: the merged document, as podman-compose makes it; it asks
    podman for its version only.
    """
    stand_in = tmp_path / "podman"
    stand_in.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    stand_in.chmod(0o755)

    def merged(*overrides):
        files = [
            word for name in ("compose.yaml", *overrides) for word in ("-f", str(COMPOSE / name))
        ]
        done = subprocess.run(
            [str(PROGRAMS / "podman-compose"), *files, "config"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)

    return merged


def valid(schema, *files):
    done = subprocess.run(
        [str(PROGRAMS / "check-jsonschema"), "--builtin-schema", schema, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("overrides", OVERRIDES, ids=str)
def test_a_compose_implementation_reads_the_files(compose, overrides):
    services = compose(*overrides)["services"]
    assert {*STORE_ORDER, "bootstrap"} <= set(services)


def test_compose_files_keep_to_the_compose_specification():
    valid("vendor.compose-spec", *COMPOSE.glob("compose*.yaml"))


def test_every_store_has_a_health_check_a_volume_and_a_pinned_image(compose):
    document = compose()
    for store in STORE_ORDER:
        service = document["services"][store]
        assert service["healthcheck"]["test"]
        assert service["volumes"][0].partition(":")[0] in document["volumes"]
        assert re.search(r":v?\d+\.\d+", service["image"])
        assert service["image"] == IMAGES[store].name


def test_no_password_stands_in_the_compose_files(compose):
    for overrides in OVERRIDES:
        for service in compose(*overrides)["services"].values():
            for name, value in (service.get("environment") or {}).items():
                assert "PASSWORD" not in name or name.endswith("_FILE"), name
                assert (
                    "@" not in str(value)
                    or ":" not in str(value).partition("//")[2].partition("@")[0]
                )


def test_only_the_overrides_publish_ports_and_on_this_machine_only(compose):
    assert [s for s in compose()["services"].values() if s.get("ports")] == []
    for name in ("compose.dev.yaml", "compose.ci.yaml"):
        ports = [str(p) for s in compose(name)["services"].values() for p in s.get("ports", ())]
        assert len(ports) >= len(STORE_ORDER)
        assert all("127.0.0.1" in p for p in ports)


def test_ci_keeps_nothing_on_disk(compose):
    volumes = compose("compose.ci.yaml")["volumes"]
    assert {v["driver_opts"]["type"] for v in volumes.values()} == {"tmpfs"}
    assert set(volumes) == set(STORE_ORDER)


def test_the_bootstrap_runs_once_and_reads_its_passwords_from_files(compose):
    service = compose()["services"]["bootstrap"]
    assert service["restart"] == "no"
    given = {
        secret if isinstance(secret, str) else secret["source"] for secret in service["secrets"]
    }
    read = {Path(v).name for k, v in service["environment"].items() if k.endswith("_FILE")}
    assert read == given


def _secrets(folder):
    subprocess.run([folder / "make-secrets.sh"], check=True, timeout=30)
    return (folder / "secrets").iterdir()


def test_secrets_are_made_once_and_closed_to_others(tmp_path):
    shutil.copy(COMPOSE / "make-secrets.sh", tmp_path)
    made, again = ({p.name: p.read_text() for p in _secrets(tmp_path)} for _ in range(2))
    assert again == made
    assert set(made) == {"postgres", "neo4j", "neo4j_auth", "redis"}
    assert made["neo4j_auth"] == f"neo4j/{made['neo4j']}"
    assert len({made["postgres"], made["neo4j"], made["redis"]}) == 3
    assert all(re.fullmatch(r"[0-9a-f]{48}", made[n]) for n in ("postgres", "neo4j", "redis"))
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_the_stores_run_by_compose():
    """The images are pulled and the bootstrap runs, where that is possible."""
    if (
        shutil.which("docker") is None
        or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("docker compose is not installed")
    if subprocess.run(
        ["docker", "pull", "--quiet", IMAGES["redis"].name],
        capture_output=True,
        check=False,
        timeout=60,
    ).returncode:
        pytest.skip("images cannot be pulled here")
    subprocess.run([COMPOSE / "make-secrets.sh"], check=True)
    files = [
        "docker",
        "compose",
        "-p",
        "is-db-bootstrap-test",
        "-f",
        str(COMPOSE / "compose.yaml"),
        "-f",
        str(COMPOSE / "compose.ci.yaml"),
    ]
    try:
        subprocess.run([*files, "run", "--rm", "bootstrap"], check=True, timeout=280)
    finally:
        subprocess.run([*files, "down", "--volumes"], check=False, timeout=60)


# --- CI


def test_the_action_and_the_workflows_keep_to_their_schemas(tmp_path):
    create_folder("my_app", STORE_ORDER, tmp_path)
    valid("vendor.github-actions", ROOT / "action.yml")
    valid("vendor.dependabot", ROOT / ".github/dependabot.yml")
    valid(
        "vendor.github-workflows",
        *(ROOT / "ci").glob("github-*.yaml"),
        *(ROOT / ".github/workflows").glob("*.yaml"),
        tmp_path / "my_app/.github/workflows/bootstrap.yaml",
    )
    valid("vendor.gitlab-ci", ROOT / "ci" / "gitlab.yaml")
    valid("vendor.compose-spec", tmp_path / "my_app/compose.yaml")


def test_actionlint_has_nothing_to_say(tmp_path):
    program = ROOT / ".cache/bin/actionlint"
    if not program.exists():
        pytest.skip("actionlint was not built (make test builds it)")
    create_folder("my_app", STORE_ORDER, tmp_path)
    files = [
        *(ROOT / "ci").glob("github-*.yaml"),
        *(ROOT / ".github/workflows").glob("*.yaml"),
        tmp_path / "my_app/.github/workflows/bootstrap.yaml",
    ]
    done = subprocess.run(
        [program, "-no-color", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_addresses_reach_the_next_steps_and_passwords_are_masked(tmp_path):
    document = {
        "environ": {
            "POSTGRES_URL": "postgresql://postgres:s3cret@127.0.0.1:1",
            "MILVUS_URL": "http://127.0.0.1:2",
        }
    }
    target = tmp_path / "env"
    done = subprocess.run(
        [sys.executable, ROOT / "ci" / "export.py"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        env={**os.environ, "GITHUB_ENV": str(target)},
        check=True,
        timeout=30,
    )
    assert done.stdout == "::add-mask::s3cret\n"
    assert target.read_text().splitlines() == [f"{k}={v}" for k, v in document["environ"].items()]


@pytest.mark.redis
def test_the_steps_of_the_action_apply_a_blueprint(tmp_path, redis_url):
    """Its own steps, as a runner runs them, but for pip, which would fetch a release that is not
    out.
    """
    steps = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    bin_folder = tmp_path / "is-db-bootstrap" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "is-db-bootstrap").symlink_to(PROGRAMS / "is-db-bootstrap")
    (tmp_path / "GITHUB_PATH").write_text(f"{bin_folder}\n")
    environ = {
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(ROOT),
        "INPUT_STORES_FROM": "env",
        "REDIS_URL": redis_url,
        "INPUT_BLUEPRINT": "helpdesk",
        "INPUT_TIMEOUT": "30",
        "INPUT_ARGUMENTS": "--only redis",
    }
    run_steps(steps[1:], tmp_path, environ)
    assert json.loads((tmp_path / "is-db-bootstrap.json").read_text())["outcome"] == "changed"


def test_the_documented_workflow_keeps_to_the_schema_and_uses_the_action_as_it_is(tmp_path):
    [block] = re.findall(
        r"^```yaml\n(jobs:.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(block.splitlines()) < 20
    (tmp_path / "workflow.yaml").write_text(f"on: push\n{block}")
    valid("vendor.github-workflows", tmp_path / "workflow.yaml")
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    pages = [
        block,
        *(
            (ROOT / "ci" / name).read_text()
            for name in ("github-local.yaml", "github-services.yaml")
        ),
    ]
    for text in pages:
        steps = next(iter(yaml.safe_load(text)["jobs"].values()))["steps"]
        [used] = [
            step["with"] for step in steps if step.get("uses", "").startswith("is-db-bootstrap/")
        ]
        assert set(used) <= set(inputs)
        assert {name for name, each in inputs.items() if each.get("required")} <= set(used)


# --- the hook


def test_the_hook_is_a_command_that_exists():
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == "is-db-check"
    program, *words = hook["entry"].split()
    done = subprocess.run(
        [str(PROGRAMS / program), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "novel_genesis: as its newest revision says\n")


def check(folder):
    done = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", "check", "--blueprint", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_check_passes_what_new_has_written(tmp_path):
    create_folder("my_app", ("postgres", "neo4j"), tmp_path)
    assert check(tmp_path / "my_app") == (0, "my_app: as its newest revision says\n")


def test_check_names_a_stale_catalogue_and_a_stale_schema(tmp_path):
    create_folder("my_app", ("postgres",), tmp_path)
    folder = tmp_path / "my_app" / "migrations"
    catalogue = json.loads((folder / "catalogue.json").read_text())
    (folder / "catalogue.json").write_text(json.dumps(catalogue | {"head": "my_app_0000"}))
    (folder / "schema.sql").write_text("-- of last year\n")
    code, said = check(tmp_path / "my_app")
    assert code == 3
    assert "catalogue.json is of revision my_app_0000; the newest is my_app_0001" in said
    assert "schema.sql is not what the revisions make" in said


def test_check_names_a_cypher_file_with_a_bad_name(tmp_path):
    create_folder("my_app", ("neo4j",), tmp_path)
    (tmp_path / "my_app" / "cypher" / "V1_bad.cypher").write_text("RETURN 1;\n")
    code, said = check(tmp_path / "my_app")
    assert code == 2
    assert "V1_bad.cypher" in said

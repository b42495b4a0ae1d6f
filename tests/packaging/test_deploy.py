"""deploy/ against the schemas of Kubernetes, and against what its pods promise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from is_db_bootstrap import errors

ROOT = Path(__file__).parents[2]
KUSTOMIZATIONS = ["application", "job", "verify", "fleet", "overlays/argo-cd", "overlays/helm-hook"]
CHART = ROOT / "deploy/helm/is-db-bootstrap"
HELM = ROOT / ".cache/bin/helm"
VERSIONS = ("1.31", "1.34", "1.36")
WITH_ALL = ("--set", "application.enabled=true")
AS_HOOK = (*WITH_ALL, "--set", "job.hook=true")


def kustomized(name):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", f"deploy/kubernetes/{name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def helm(*args, check=True):
    if not HELM.exists():
        pytest.skip("helm was not built (make test builds it)")
    done = subprocess.run(
        [HELM, *args, "--kube-version", "1.34.0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def rendered(*options):
    return [
        d for d in yaml.safe_load_all(helm("template", "demo", str(CHART), *options).stdout) if d
    ]


ALL = [
    *(pytest.param(kustomized, (name,), id=name) for name in KUSTOMIZATIONS),
    *(
        pytest.param(rendered, options, id=f"chart {name}")
        for name, options in {"as it is": (), "with all": WITH_ALL, "as a hook": AS_HOOK}.items()
    ),
]


def pods(document):
    """Every pod template of a manifest."""
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return [(document, spec, spec["template"]["spec"])] if "template" in spec else []


@pytest.mark.parametrize(("render", "arguments"), ALL)
@pytest.mark.parametrize("version", VERSIONS)
def test_they_keep_to_the_schemas(render, arguments, version):
    documents = render(*arguments)
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(("render", "arguments"), ALL)
def test_pods_are_restricted_and_jobs_tell_what_a_person_must_mend_from_what_time_may(
    render, arguments
):
    found = [each for document in render(*arguments) for each in pods(document)]
    assert found
    for document, job, pod in found:
        assert (
            pod["securityContext"]
            | {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
            == pod["securityContext"]
        )
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod["volumes"])
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            closed = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["securityContext"] == closed
            assert container["name"] != "bootstrap" or container["resources"]["limits"]["memory"]
        if document["kind"] != "Deployment":
            assert pod["restartPolicy"] == "Never"
            assert job["activeDeadlineSeconds"]
            [values] = [
                r["onExitCodes"]["values"]
                for r in job["podFailurePolicy"]["rules"]
                if "onExitCodes" in r
            ]
            codes = {
                e.exit_code
                for e in vars(errors).values()
                if isinstance(e, type) and issubclass(e, errors.BootstrapError)
            }
            assert codes - set(values) == {4, 7, 130}


@pytest.mark.parametrize(("render", "arguments"), ALL)
def test_every_variable_of_the_settings_is_documented(render, arguments):
    found = [
        d["data"]
        for d in render(*arguments)
        if d["kind"] == "ConfigMap" and "POSTGRES_URL" in d["data"]
    ]
    page = (ROOT / "docs/reference/settings.md").read_text()
    assert found
    assert all(
        f"`{name}`" in page or name.endswith("_FILE") for settings in found for name in settings
    )


@pytest.mark.parametrize("overlay", ["argo-cd", "helm-hook"])
def test_settings_are_there_before_the_hook_that_reads_them(overlay):
    weights = {}
    for document in kustomized(f"overlays/{overlay}"):
        [weight] = [
            v
            for k, v in document["metadata"]["annotations"].items()
            if k in {"argocd.argoproj.io/sync-wave", "helm.sh/hook-weight"}
        ]
        weights[document["kind"]] = int(weight)
    assert weights == {"Job": 0, "ConfigMap": -1, "ServiceAccount": -1}


@pytest.mark.parametrize(("render", "arguments"), ALL)
def test_what_a_pod_names_is_there_when_it_begins(render, arguments):
    """A hook begins before anything of its release is there, so what it reads is a hook too, and
    nothing else uses that.
    """

    def is_hook(document):
        return any("hook" in key for key in document["metadata"].get("annotations", {}))

    documents = render(*arguments)
    by_name = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    assert len(by_name) == len(documents)
    for document, _, pod in (each for d in documents for each in pods(d)):
        read = [("ServiceAccount", pod["serviceAccountName"])]
        read += [
            ("ConfigMap", source["configMapRef"]["name"])
            for container in [*pod["containers"], *pod.get("initContainers", [])]
            for source in container.get("envFrom", [])
        ]
        assert len(read) > 1
        assert {is_hook(by_name[each]) for each in read} == {is_hook(document)}


def test_a_job_of_other_settings_has_another_name_where_the_revision_is_always_1():
    def name(*options):
        return next(d["metadata"]["name"] for d in rendered(*options) if d["kind"] == "Job")

    assert name() == name("--set", "verify.schedule=1 1 * * *")
    assert (
        len(
            {
                name(),
                name("--set", "image.tag=v2"),
                name("--set", "settings.DB_SCHEMA=app"),
                name("--set", "timeout=9"),
            }
        )
        == 4
    )


@pytest.fixture
def overlay(tmp_path):
    """`overlay(tag=…, settings=…)`: what `named-job.sh` makes of a kustomization of one's own."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    base = os.path.relpath(ROOT / "deploy/kubernetes/job", tmp_path)

    def render(tag="1", settings=()):
        patches = [{"op": "add", "path": f"/data/{k}", "value": v} for k, v in settings]
        target = {"kind": "ConfigMap", "name": "is-db-bootstrap"}
        image = {"name": "is-db-bootstrap", "newName": "registry.example:5000/it", "newTag": tag}
        written = {"resources": [base], "images": [image]}
        if patches:
            written["patches"] = [{"target": target, "patch": json.dumps(patches)}]
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(written))
        done = subprocess.run(
            [ROOT / "deploy/kubernetes/named-job.sh", tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(done.stdout)}

    return render


def test_a_job_is_named_by_all_that_it_runs_and_nothing_else_is(overlay):
    def names(**options):
        found = {}
        for kind, name in overlay(**options):
            found.setdefault(kind, []).append(name)
        assert found.pop("ConfigMap") == found.pop("ServiceAccount") == ["is-db-bootstrap"]
        [job] = found.pop("Job")
        assert not found
        return job

    first = names()
    assert re.fullmatch(r"is-db-bootstrap-[0-9a-f]{8}", first)
    assert names() == first
    others = {names(tag="2"), names(settings=[("DB_SCHEMA", "app")]), first}
    assert len(others) == 3


def test_a_kustomization_that_is_broken_ends_the_script(tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    script = ROOT / "deploy/kubernetes/named-job.sh"
    done = subprocess.run([script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""


def test_the_chart_has_nothing_for_its_linter():
    helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("settings.POSTGRES_PASSWORD=x", "POSTGRES_PASSWORD"),
        ("jobs.enabled=true", "jobs"),
        ("timeout=soon", "timeout"),
        ("secretName=", "secretName"),
    ],
)
def test_values_that_are_none_are_refused(option, said):
    done = helm("template", "demo", str(CHART), "--set", option, check=False)
    assert done.returncode != 0
    assert said in done.stderr


def test_chart_and_kustomizations_give_the_same_bootstrap():
    def bootstraps(documents):
        found = {}
        for document, _, pod in (each for d in documents for each in pods(d)):
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                if container["name"] == "bootstrap":
                    kept = {
                        k: v
                        for k, v in container.items()
                        if k not in {"envFrom", "imagePullPolicy"}
                    }
                    found[document["kind"]] = json.dumps(
                        [kept, pod["volumes"], pod["securityContext"]], sort_keys=True
                    )
        return found

    written = {
        k: v
        for name in ("application", "job", "verify")
        for k, v in bootstraps(kustomized(name)).items()
    }
    assert written == bootstraps(rendered(*WITH_ALL))

"""A real cluster: the one that KUBECONFIG names.

KUBE_HOST is an address of this machine that pods reach, where the servers listen. KUBE_IMPORT is a
command that takes an image archive on stdin to where the cluster's nodes find it. Each test has a
namespace of its own, which admits "restricted" pods only.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import uuid

import filelock
import pytest
import yaml

import images
from cluster import DEPLOY, HOST
from servers import KINDS, PASSWORD, MilvusServer


class OpenMilvus(MilvusServer):
    """Where pods reach it, though it knows no passwords."""

    def __init__(self, home, **options):
        super().__init__(home, **options)
        self.listen = options["listen"]


KINDS["milvus", "open"] = OpenMilvus


def kubectl(*args, stdin=None, check=True):
    """The command's output."""
    done = subprocess.run(
        ["kubectl", *args], input=stdin, capture_output=True, text=True, check=False, timeout=120
    )
    assert not check or done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _cluster_ends():
    """The cluster ends with its last test, if `KUBE_DOWN` says how.

    An idle one takes a tenth of two cores.
    """
    yield
    if command := os.environ.get("KUBE_DOWN"):
        subprocess.run([command], capture_output=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def image():
    """The image, where the cluster finds it."""
    if not os.environ.get("KUBECONFIG") or not HOST or shutil.which("kubectl") is None:
        pytest.skip("KUBECONFIG and KUBE_HOST name no cluster")
    if given := os.environ.get("KUBE_IMAGE"):
        return given
    if not os.environ.get("KUBE_IMPORT"):
        pytest.skip("neither KUBE_IMAGE nor KUBE_IMPORT is set")
    name = images.built()
    with filelock.FileLock("/tmp/is-db-bootstrap-image-import.lock"):
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                shlex.split(os.environ["KUBE_IMPORT"]),
                stdin=saved.stdout,
                capture_output=True,
                check=True,
                timeout=300,
            )
        assert saved.returncode == 0
    return name


@pytest.fixture(scope="session")
def store(image, farm):
    """`store("postgres")`: a server that pods reach, one for the session."""
    made = {}

    def get(name):
        if name not in made:
            version = "open" if name == "milvus" else None
            made[name] = farm.make(
                name, version, listen=HOST, password="" if name == "milvus" else PASSWORD
            )
        return made[name]

    return get


@pytest.fixture
def cluster(image, tmp_path):
    """A namespace of one's own; what is in it is shown when the test fails."""
    made = Namespace(f"test-{uuid.uuid4().hex[:8]}", image, tmp_path)
    yield made
    kubectl("delete", "namespace", made.name, "--wait=false")


class Namespace:
    """Applies overlays of deploy/, as a user's own kustomization does, and looks at what becomes of
    them.
    """

    def __init__(self, name, image, folder):
        self.name, self.image, self.folder = name, image, folder
        labels = {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": "latest",
        }
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        )

    def __call__(self, *args, **options):
        return kubectl("--namespace", self.name, *args, **options)

    def apply(self, *documents):
        kubectl("--namespace", self.name, "apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def get(self, *args):
        return json.loads(self("get", *args, "-o", "json"))

    def service(self, name, port, host=HOST):
        """A Service without selector: pods say `name`, and reach the server of this machine."""
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"ports": [{"port": port}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "ports": [{"port": port}],
                "endpoints": [{"addresses": [host]}],
            },
        )

    def secret(self, **passwords):
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "stores"},
                "stringData": passwords,
            }
        )

    def overlay(self, path, settings, *patches):
        """What one's own kustomization makes of deploy/kubernetes/`path`: image, settings, patches."""
        folder = self.folder / path.replace("/", "-")
        folder.mkdir(exist_ok=True)
        name, _, tag = self.image.rpartition(":")
        data = [{"op": "replace", "path": "/data", "value": settings}]
        waiting = [
            {
                "op": "replace",
                "path": "/spec/template/spec/containers/0/command",
                "value": ["python3", "-c", "import time; time.sleep(3600)"],
            }
        ]
        (folder / "kustomization.yaml").write_text(
            yaml.safe_dump(
                {
                    "namespace": self.name,
                    "resources": [os.path.relpath(DEPLOY / "kubernetes" / path, folder)],
                    "images": [
                        {"name": n, "newName": name, "newTag": tag}
                        for n in ("is-db-bootstrap", "application")
                    ],
                    "patches": [
                        {
                            "target": {"kind": "ConfigMap", "name": "is-db-bootstrap"},
                            "patch": json.dumps(data),
                        },
                        {"target": {"kind": "Deployment"}, "patch": json.dumps(waiting)},
                        *(
                            {"target": target, "patch": json.dumps(patch)}
                            for target, patch in patches
                        ),
                    ],
                }
            )
        )
        return kubectl("kustomize", str(folder))

    def run(self, path, settings, *patches):
        kubectl("apply", "-f", "-", stdin=self.overlay(path, settings, *patches))

    def pods(self, selector=""):
        return self.get("pods", *(["-l", selector] if selector else []))["items"]

    def ended(self, name="is-db-bootstrap", *, seconds=120):
        """The Job's condition, `Complete` or `Failed`, and its reason."""

        def look():
            conditions = self.get("job", name).get("status", {}).get("conditions", [])
            return next(
                (
                    (c["type"], c.get("reason"))
                    for c in conditions
                    if c["type"] in {"Complete", "Failed"} and c["status"] == "True"
                ),
                None,
            )

        return self.until(look, seconds=seconds)

    def until(self, look, *, seconds=60):
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, self.shown()
            time.sleep(0.2)
        return found

    def shown(self):
        return self("get", "pods,jobs,events", "-o", "wide") + self(
            "logs", "--all-containers", "--prefix", "-l", "x!=y", check=False
        )

    def left_by(self, pod, container="bootstrap"):
        """Exit code and summary that a container left."""
        statuses = [
            *pod["status"].get("initContainerStatuses", []),
            *pod["status"].get("containerStatuses", []),
        ]
        state = next(
            (s["state"].get("terminated") for s in statuses if s["name"] == container), None
        )
        return (
            (state["exitCode"], json.loads(state["message"]))
            if state and state.get("message")
            else None
        )

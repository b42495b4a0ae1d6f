"""deploy/kubernetes on a real cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from datetime import datetime

import psycopg
import pytest
import yaml

from cluster import DEPLOY, HOST, SECRETS
from servers import PASSWORD

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]
CHART = DEPLOY / "helm/is-db-bootstrap"
HELM = DEPLOY.parent / ".cache/bin/helm"
BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("mine", "for tests", migrations=Path(__file__).parent / "migrations")
"""
REVISION = '''
"""One step."""
from alembic import op

revision = {name!r}
down_revision = {before!r}


def upgrade():
    op.execute({up!r})


def downgrade():
    pass
'''


@pytest.fixture
def database(cluster, store):
    """A database's name that no other test has, on a server that pods call `postgres`."""
    server = store("postgres")
    cluster.service("postgres", server.port)
    cluster.secret(postgres=PASSWORD)
    name = cluster.name.replace("-", "_")
    yield name
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        for (each,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{name}%"]
        ).fetchall():
            connection.execute(f'DROP DATABASE "{each}" WITH (FORCE)')


@pytest.fixture
def settings(database, store):
    """Settings of one store only."""
    return {
        "IS_DB_BOOTSTRAP_BLUEPRINT": "agentic_projects",
        "POSTGRES_URL": f"postgresql://postgres@postgres:{store('postgres').port}/{database}",
        "POSTGRES_PASSWORD_FILE": "/run/secrets/stores/postgres",
    }


def sql(store, database, statement):
    with psycopg.connect(f"{store('postgres').url}/{database}", autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def own_blueprint(cluster, name, steps):
    """A ConfigMap with a blueprint folder, and the patch that mounts it."""
    files, before = {"blueprint.py": BLUEPRINT}, None
    for number, up in enumerate(steps, 1):
        files[f"m_{number:04}_step.py"] = REVISION.format(
            name=f"m_{number:04}", before=before, up=up
        )
        before = f"m_{number:04}"
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}
    )
    items = [{"key": k, "path": k if k == "blueprint.py" else f"migrations/{k}"} for k in files]
    spec = "/spec/template/spec"
    return [
        {
            "op": "add",
            "path": f"{spec}/volumes/-",
            "value": {"name": "blueprint", "configMap": {"name": name, "items": items}},
        },
        {
            "op": "add",
            "path": f"{spec}/containers/0/volumeMounts/-",
            "value": {"name": "blueprint", "mountPath": "/blueprint"},
        },
    ]


def renamed(name):
    return {"op": "replace", "path": "/metadata/name", "value": name}


def made_once(left, expected):
    """All changes together are those of one run. The one that creates a database need not be the
    one that gets its lock.
    """
    stores = [store for _, summary in left for store in summary["stores"]]
    assert {
        name: sum(s["changes"] for s in stores if s["store"] == name) for name in expected
    } == expected
    assert "unchanged" in [summary["outcome"] for _, summary in left]
    for name in expected.keys() - {"postgres"}:
        assert sorted(s["outcome"] for s in stores if s["store"] == name) == [
            "changed",
            "unchanged",
            "unchanged",
        ]


def test_three_replicas_start_at_once_one_applies_and_all_become_ready(cluster, store):
    """All four stores."""
    for name in ("postgres", "neo4j", "milvus", "redis"):
        cluster.service(name, store(name).port)
    cluster.secret(**dict.fromkeys(SECRETS, PASSWORD))
    database = cluster.name.replace("-", "_")
    cluster.run(
        "application",
        {
            "IS_DB_BOOTSTRAP_BLUEPRINT": "novel_genesis",
            "POSTGRES_URL": f"postgresql://postgres@postgres:{store('postgres').port}/{database}",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/stores/postgres",
            "NEO4J_URL": f"bolt://neo4j@neo4j:{store('neo4j').port}",
            "NEO4J_PASSWORD_FILE": "/run/secrets/stores/neo4j",
            "MILVUS_URL": f"http://milvus:{store('milvus').port}",
            "REDIS_URL": f"redis://redis:{store('redis').port}/0",
            "REDIS_PASSWORD_FILE": "/run/secrets/stores/redis",
        },
    )
    cluster("rollout", "status", "deployment/application", "--timeout=110s")
    pods = cluster.pods()
    left = [cluster.left_by(pod) for pod in pods]
    assert [code for code, _ in left] == [0, 0, 0]
    assert not [v for pod in pods for v in pod["spec"]["volumes"] if "projected" in v], (
        "a token of the cluster"
    )
    made_once(left, {"postgres": 5, "neo4j": 2, "milvus": 5, "redis": 1})


def test_a_wrong_password_is_told_by_the_pod_and_fails_the_job_at_once(cluster, settings):
    cluster.secret(postgres="wrong")
    cluster.run("job", settings)
    assert cluster.ended() == ("Failed", "PodFailurePolicy")
    [pod] = cluster.pods()
    code, summary = cluster.left_by(pod)
    assert code == 5
    assert summary["stores"][0]["error"]["kind"] == "access_denied"
    assert "password" in summary["stores"][0]["error"]["message"]


@pytest.mark.parametrize(
    ("secret", "said"), [(None, "cannot be read"), ("", "is empty")], ids=["missing", "empty"]
)
def test_a_secret_that_is_missing_or_empty_fails_the_job_at_once_with_its_name(
    cluster, settings, secret, said
):
    cluster("delete", "secret", "stores")
    if secret is not None:
        cluster.secret(postgres=secret)
    cluster.run("job", settings)
    assert cluster.ended() == ("Failed", "PodFailurePolicy")
    code, summary = cluster.left_by(cluster.pods()[0])
    assert code == 2
    assert "POSTGRES_PASSWORD_FILE: /run/secrets/stores/postgres" in summary["error"]["message"]
    assert said in summary["error"]["message"]


def test_a_store_that_comes_up_a_minute_late_is_waited_for(cluster, settings, make_server):
    late = make_server("postgres", listen=HOST, password=PASSWORD)
    late.stop()
    cluster.service("late", late.port)
    address = {"POSTGRES_URL": f"postgresql://postgres@late:{late.port}/{cluster.name}"}
    timer = threading.Timer(60, late.start)
    timer.start()
    try:
        cluster.run("application", settings | address)
        cluster("rollout", "status", "deployment/application", "--timeout=110s")
    finally:
        timer.join()
    left = [cluster.left_by(pod) for pod in cluster.pods()]
    made_once(left, {"postgres": 4})
    assert max(summary["duration_s"] for _, summary in left) > 50
    # Three run into a server that has just begun to listen; one that meets it unavailable again is
    # started again by Kubernetes.
    before = [
        s["lastState"]
        for pod in cluster.pods()
        for s in pod["status"]["initContainerStatuses"]
        if s["lastState"]
    ]
    assert [state for state in before if state["terminated"]["exitCode"] != 4] == []


@pytest.mark.parametrize("how", ["evicted", "killed"])
def test_a_pod_that_ends_in_the_middle_is_followed_by_one_that_goes_on(
    cluster, settings, store, database, how
):
    mine = own_blueprint(
        cluster, "mine", ["CREATE TABLE a ()", "SELECT pg_sleep(8)", "CREATE TABLE c ()"]
    )
    cluster.run(
        "job", settings | {"IS_DB_BOOTSTRAP_BLUEPRINT": "/blueprint"}, ({"kind": "Job"}, mine)
    )

    def sleeping():
        return sql(
            store,
            "postgres",
            f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE "
            "'%pg_sleep%'",
        )

    cluster.until(sleeping)
    [pod] = cluster.pods()
    name = pod["metadata"]["name"]
    if how == "evicted":
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": cluster.name},
        }
        cluster(
            "create",
            "--raw",
            f"/api/v1/namespaces/{cluster.name}/pods/{name}/eviction",
            "-f",
            "-",
            stdin=json.dumps(body),
        )
    else:
        cluster("delete", "pod", name, "--grace-period=0", "--force")
    assert cluster.ended() == ("Complete", "CompletionsReached")
    left = [cluster.left_by(p) for p in cluster.pods() if p["metadata"]["name"] != name]
    assert [code for code, _ in left] == [0]
    assert sql(store, database, "SELECT version_num FROM alembic_version") == [("m_0003",)]


def test_a_rollout_with_nothing_to_do_adds_less_than_3_seconds(cluster, settings):
    cluster.run("application", settings)
    cluster("rollout", "status", "deployment/application", "--timeout=110s")
    before = {pod["metadata"]["name"] for pod in cluster.pods()}
    cluster("rollout", "restart", "deployment/application")
    cluster("rollout", "status", "deployment/application", "--timeout=110s")
    after = [pod for pod in cluster.pods() if pod["metadata"]["name"] not in before]
    assert len(after) == 3
    for pod in after:
        [status] = pod["status"]["initContainerStatuses"]
        ended = status["state"]["terminated"]
        began, finished = (datetime.fromisoformat(ended[k]) for k in ("startedAt", "finishedAt"))
        assert (finished - began).total_seconds() < 3
        assert cluster.left_by(pod)[1]["outcome"] == "unchanged"


def test_two_versions_at_once_and_a_rollback(cluster, settings, store, database):
    steps = ["CREATE TABLE a ()", "SELECT pg_sleep(2)", "CREATE TABLE c ()"]
    old = own_blueprint(cluster, "old", steps[:2])
    new = own_blueprint(cluster, "new", steps)
    mine = settings | {"IS_DB_BOOTSTRAP_BLUEPRINT": "/blueprint"}
    cluster.run("job", mine, ({"kind": "Job"}, [*new, renamed("new")]))
    cluster.run("job", mine, ({"kind": "Job"}, [*old, renamed("old")]))
    assert [cluster.ended(name)[0] for name in ("new", "old")] == ["Complete", "Complete"]
    assert sql(store, database, "SELECT version_num FROM alembic_version") == [("m_0003",)]
    cluster.run("job", mine, ({"kind": "Job"}, [*old, renamed("rollback")]))
    assert cluster.ended("rollback") == ("Complete", "CompletionsReached")
    code, summary = cluster.left_by(cluster.pods("job-name=rollback")[0])
    assert (code, summary["outcome"]) == (0, "unchanged")
    assert sql(store, database, "SELECT version_num FROM alembic_version") == [("m_0003",)]


def test_the_verify_cron_job_reports_a_dropped_index(cluster, settings, store, database):
    cluster.run("job", settings)
    assert cluster.ended()[0] == "Complete"
    cluster.run("verify", settings)
    cluster("create", "job", "tonight", "--from=cronjob/is-db-bootstrap-verify")
    assert cluster.ended("tonight")[0] == "Complete"
    [(index,)] = sql(
        store,
        database,
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname LIKE "
        "'idx%' ORDER BY 1 LIMIT 1",
    )
    sql(store, database, f"DROP INDEX {index}")
    cluster("create", "job", "tomorrow", "--from=cronjob/is-db-bootstrap-verify")
    assert cluster.ended("tomorrow") == ("Failed", "PodFailurePolicy")
    code, summary = cluster.left_by(cluster.pods("job-name=tomorrow")[0])
    assert (code, summary["outcome"], summary["stores"][0]["drifts"]) == (3, "drifted", 1)
    assert index in summary["stores"][0]["error"]["message"]


def test_an_indexed_job_of_three_pods_migrates_thirty_tenants(cluster, settings, store, database):
    targets = "".join(
        f'[[targets]]\nname = "t{n}"\npostgres.database = "{database}_{n}"\n' for n in range(30)
    )
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "tenants"},
            "data": {"targets.toml": targets},
        }
    )
    patch = [
        {
            "op": "replace",
            "path": "/spec/template/spec/volumes/1/configMap/name",
            "value": "tenants",
        }
    ]
    cluster.run("fleet", settings, ({"kind": "Job"}, patch))
    assert cluster.ended("is-db-bootstrap-fleet") == ("Complete", "CompletionsReached")
    left = [cluster.left_by(pod) for pod in cluster.pods("job-name=is-db-bootstrap-fleet")]
    assert [(code, summary["targets"]) for code, summary in left] == [(0, {"changed": 10})] * 3
    for n in range(30):
        assert sql(store, f"{database}_{n}", "SELECT count(*) FROM project_contexts") == [(0,)]


def test_the_chart_is_installed_with_wait_and_upgraded(cluster, settings, store, database):
    """The stores are outside of the release, so that its hook may wait for them while Helm waits
    for the hook.
    """
    if not HELM.exists():
        pytest.skip("helm was not built (make test builds it)")
    name, _, tag = cluster.image.rpartition(":")
    waiting = {"command": ["python3", "-c", "import time; time.sleep(3600)"]}
    values = {
        "image": {"repository": name, "tag": tag},
        "settings": dict.fromkeys(
            ("NEO4J_URL", "NEO4J_PASSWORD_FILE", "MILVUS_URL", "REDIS_URL", "REDIS_PASSWORD_FILE")
        )
        | settings,
        "application": {
            "enabled": True,
            "replicas": 2,
            "image": cluster.image,
            "container": waiting,
        },
        "job": {"hook": True},
    }
    (cluster.folder / "values.yaml").write_text(yaml.safe_dump(values))

    def helm(*args):
        waited = ["--namespace", cluster.name, "--wait", "--timeout", "110s"]
        done = subprocess.run(
            [HELM, *args, *waited], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    upgrade = (
        "upgrade",
        "--install",
        "demo",
        str(CHART),
        "--values",
        str(cluster.folder / "values.yaml"),
    )
    for _ in range(2):
        helm(*upgrade)
    assert cluster.ended("demo-is-db-bootstrap") == ("Complete", "CompletionsReached")
    code, summary = cluster.left_by(cluster.pods("job-name=demo-is-db-bootstrap")[0])
    assert (code, summary["outcome"]) == (0, "unchanged")
    assert sql(store, database, "SELECT count(*) FROM project_contexts") == [(0,)]
    # From a hook to a part of the release, back to an older release, and to a hook again: nothing
    # is missing or in the way.
    helm(*upgrade, "--set", "job.hook=false")
    [job] = [
        j for j in cluster("get", "jobs", "-o", "name").split() if "demo-is-db-bootstrap-3-" in j
    ]
    assert cluster.ended(job.partition("/")[2]) == ("Complete", "CompletionsReached")
    helm("rollback", "demo", "1")
    helm(*upgrade)
    assert (
        cluster("get", "configmap", "demo-is-db-bootstrap", "-o", "jsonpath={.data.POSTGRES_URL}")
        == settings["POSTGRES_URL"]
    )


def test_what_changes_runs_in_a_job_of_another_name(cluster, settings, store, database):
    """The image stays, because the cluster has one only. A setting and an argument change."""
    script = DEPLOY / "kubernetes" / "named-job.sh"
    applied = []

    def apply(given, *patches):
        cluster.overlay("job", given, *patches)
        made = subprocess.run(
            [script, cluster.folder / "job"], capture_output=True, text=True, check=True
        ).stdout
        said = cluster("apply", "-f", "-", stdin=made)
        [job] = [each["metadata"]["name"] for each in yaml.safe_load_all(made) if _is_job(each)]
        assert cluster.ended(job) == ("Complete", "CompletionsReached")
        applied.append(job)
        return f"job.batch/{job} created" in said

    timeout = {"op": "replace", "path": "/spec/template/spec/containers/0/args/3", "value": "200"}
    assert apply(settings)
    assert not apply(settings)
    assert apply(settings | {"IS_DB_BOOTSTRAP_PHASE_TIMEOUT": "299"})
    assert apply(settings, ({"kind": "Job"}, [timeout]))
    assert len(set(applied)) == 3
    assert sql(store, database, "SELECT count(*) FROM project_contexts") == [(0,)]
    # Without a name of its own, the third is refused.
    cluster.run("job", settings)
    assert cluster.ended() == ("Complete", "CompletionsReached")
    again = cluster.overlay("job", settings, ({"kind": "Job"}, [timeout]))
    said = subprocess.run(
        ["kubectl", "apply", "-f", "-"], input=again, capture_output=True, text=True, check=False
    )
    assert "field is immutable" in said.stderr


def _is_job(document):
    return document["kind"] == "Job"


def documented(language, word):
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```",
        (DEPLOY.parent / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return next(block for block in blocks if word in block)


def test_the_documented_init_container(cluster, settings):
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "store-addresses"},
            "data": {
                "IS_DB_BOOTSTRAP_BLUEPRINT": "agentic_projects",
                "POSTGRES_URL": settings["POSTGRES_URL"],
            },
        }
    )
    spec = yaml.safe_load(documented("yaml", "initContainers"))
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    [bootstrap] = spec["initContainers"]
    bootstrap |= {"image": cluster.image, "securityContext": closed}
    then = {
        "name": "application",
        "image": cluster.image,
        "command": ["python3", "-c", "import time; time.sleep(3600)"],
        "securityContext": closed,
    }
    pod = spec | {
        "containers": [then],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "application"}, "spec": pod}
    )
    cluster("wait", "pod/application", "--for=condition=Ready", "--timeout=100s")
    assert cluster.left_by(cluster.pods()[0])[1]["outcome"] == "changed"


def test_the_documented_job(cluster, settings, store, database):
    name, _, tag = cluster.image.rpartition(":")
    text = documented("yaml", "/data")
    real = {
        "deploy/kubernetes/job": os.path.relpath(DEPLOY / "kubernetes/job", cluster.folder),
        "registry.example/is-db-bootstrap": name,
        "newTag: 0.1.0": f"newTag: {tag}",
        "postgresql://postgres@postgres:5432/app": settings["POSTGRES_URL"],
    }
    for written, meant in real.items():
        assert written in text
        text = text.replace(written, meant)
    (cluster.folder / "kustomization.yaml").write_text(f"namespace: {cluster.name}\n{text}")
    cluster("apply", "-k", str(cluster.folder))
    assert cluster.ended() == ("Complete", "CompletionsReached")
    assert sql(store, database, "SELECT count(*) FROM agents")[0][0] >= 0

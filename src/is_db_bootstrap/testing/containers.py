"""Official images as test servers, by testcontainers: started side by side, found again by their label."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import docker.errors
import filelock
import requests.exceptions
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from is_db_bootstrap.app import wait_ready
from is_db_bootstrap.errors import BootstrapError, ConfigurationError, StoreUnavailable
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings import StoreUrl, process_variable
from is_db_bootstrap.testing.sources import StartedServers

LABEL = "is-db-bootstrap.testing"
#: Seconds from the start of a container to the first answer of its server.
_START_S = 180.0
_ETCD = b"""listen-client-urls: http://127.0.0.1:2379
advertise-client-urls: http://127.0.0.1:2379
"""


@dataclass(frozen=True, slots=True)
class Image:
    """An image and how its server is started for tests.

    `{password}` stands for a generated one; `files` are put into it.
    """

    name: str
    port: int
    url: str
    environ: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    tmpfs: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


#: The versions of compose/compose.yaml. `IS_DB_BOOTSTRAP_POSTGRES_IMAGE` and so on name others.
IMAGES: Mapping[StoreName, Image] = {
    "postgres": Image(
        "postgres:18.4",
        5432,
        "postgresql://postgres:{password}@{address}",
        {"POSTGRES_PASSWORD": "{password}"},
        (
            "postgres",
            "-c",
            "fsync=off",
            "-c",
            "synchronous_commit=off",
            "-c",
            "full_page_writes=off",
            "-c",
            "max_connections=200",
        ),
        tmpfs="/var/lib/postgresql",
    ),
    "neo4j": Image(
        "neo4j:5.26.30-community",
        7687,
        "bolt://neo4j:{password}@{address}",
        {
            "NEO4J_AUTH": "neo4j/{password}",
            "NEO4J_server_memory_heap_max__size": "512m",
            "NEO4J_dbms_usage__report_enabled": "false",
        },
    ),
    "milvus": Image(
        "milvusdb/milvus:v2.6.17",
        19530,
        "http://{address}",
        {
            "DEPLOY_MODE": "STANDALONE",
            "COMMON_STORAGETYPE": "local",
            "ETCD_USE_EMBED": "true",
            "ETCD_DATA_DIR": "/var/lib/milvus/etcd",
            "ETCD_CONFIG_PATH": "/milvus/configs/embedEtcd.yaml",
        },
        ("milvus", "run", "standalone"),
        files={"/milvus/configs/embedEtcd.yaml": _ETCD},
    ),
    "redis": Image(
        "redis:7.4.1",
        6379,
        "redis://:{password}@{address}",
        {"REDIS_PASSWORD": "{password}"},
        # From its standard input: everybody on the machine can read a command line.
        (
            "sh",
            "-c",
            'printf "requirepass %s\\n" "$REDIS_PASSWORD" | redis-server - --save "" --databases 64',
        ),
    ),
}


class Containers(StartedServers):
    """One container a server.

    Its label says which folder it belongs to; a session that was killed leaves it to the next one.
    Raises `ConfigurationError` when no Docker daemon answers, `StoreUnavailable` when a server does
    not come up.
    """

    kind = "containers"

    def up(self, folder: Path, store: StoreName) -> StoreUrl:
        """The container of `folder`, started when it does not run."""
        image = IMAGES[store]
        name = process_variable(f"IS_DB_BOOTSTRAP_{store.upper()}_IMAGE") or image.name
        with filelock.FileLock(folder / f"{store}.lock"):
            client = _client()
            container = _running(client, _label(folder, store), name)
            if container is None:
                container = _started(store, image, name, _label(folder, store))
        return _ready(store, image, container, client.host())

    def down(self, folder: Path) -> None:
        """Remove the containers of `folder` with their volumes."""
        for container in _client().client.containers.list(all=True, filters={"label": LABEL}):
            if container.labels[LABEL].startswith(f"{folder}:"):
                container.remove(force=True, v=True)


def _label(folder: Path, store: StoreName) -> str:
    return f"{folder}:{store}"


def _client() -> DockerClient:
    testcontainers_config.ryuk_disabled = (
        True  # our own label does its work, without an image of its own
    )
    try:
        client = DockerClient()
        client.client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise ConfigurationError(
            f"No Docker daemon answers: {exc}.",
            hint="Start Docker, or leave out --stores-from containers.",
        ) from exc
    return client


def _running(client: DockerClient, label: str, image: str) -> Any:
    """The container of this label; one that does not run, or is of another image, is removed."""
    for container in client.client.containers.list(all=True, filters={"label": f"{LABEL}={label}"}):
        if container.status == "running" and container.attrs["Config"]["Image"] == image:
            return container
        container.remove(force=True, v=True)
    return None


def _started(store: StoreName, image: Image, name: str, label: str) -> Any:
    password = secrets.token_urlsafe(18)
    container = DockerContainer(name).with_exposed_ports(image.port)
    container.with_kwargs(labels={LABEL: label, f"{LABEL}.password": password})
    container.with_command([part.replace("{password}", password) for part in image.command])
    container.with_envs(
        **{key: value.replace("{password}", password) for key, value in image.environ.items()}
    )
    for path, content in image.files.items():
        container.with_copy_into_container(content, path)
    if image.tmpfs:
        container.with_tmpfs_mount(image.tmpfs)
    try:
        return container.start().get_wrapped_container()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise StoreUnavailable(
            store,
            f"The image {name} does not start: {exc}.",
            hint=f"IS_DB_BOOTSTRAP_{store.upper()}_IMAGE names another one.",
        ) from exc


def _ready(store: StoreName, image: Image, container: Any, host: str) -> StoreUrl:
    """Its address, once the store's own ping says that it is usable."""
    container.reload()
    published = container.attrs["NetworkSettings"]["Ports"].get(f"{image.port}/tcp")
    if not published:
        raise _died(store, container)
    password = container.labels[f"{LABEL}.password"]
    text = image.url.format(
        password=quote(password, safe=""), address=f"{host}:{published[0]['HostPort']}"
    )
    try:
        wait_ready({f"{store.upper()}_URL": text}, [store], _START_S)
    except BootstrapError as exc:
        container.reload()
        if container.status != "running":
            raise _died(store, container) from exc
        raise
    return StoreUrl.parse(store, text, "a container")


def _died(store: StoreName, container: Any) -> StoreUnavailable:
    last = container.logs(tail=5).decode(errors="replace").strip().replace("\n", " | ")
    return StoreUnavailable(
        store,
        f"The container of {container.attrs['Config']['Image']} ended at once: {last}.",
        hint=f"IS_DB_BOOTSTRAP_{store.upper()}_IMAGE names another image.",
    )

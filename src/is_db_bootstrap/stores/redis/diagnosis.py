"""What `doctor` tells of a Redis server. Everything is read, and nothing is locked."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import redis

from is_db_bootstrap.errors import AccessDenied
from is_db_bootstrap.grant_list import Purpose
from is_db_bootstrap.results import Diagnosis, Fact, Privilege
from is_db_bootstrap.rungs import Rung, RungResult
from is_db_bootstrap.stores.redis.errors import (
    GRANTS,
    READ_RIGHTS,
    RIGHTS,
    RUN,
    SCRIPT_RIGHTS,
    TRANSACTION_RIGHTS,
    as_text,
    is_forbidden,
)
from is_db_bootstrap.stores.redis.probe import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.redis.server import Server


#: The servers that each major version of redis-py is made for: from, and up to. None: all newer
#: ones (the table "Supported Redis Versions" in the README of redis-py 8.1).
_SERVERS_OF_CLIENT: Mapping[str, tuple[str, str | None]] = {
    "5": ("5.0", "7.4"),
    "6": ("7.2", None),
    "7": ("7.2", None),
    "8": ("7.2", None),
}


def diagnosis(
    url: StoreUrl,
    server: Server,
    check_rights: Callable[[], None],
    check_reading: Callable[[], None],
) -> Diagnosis:
    """What the server tells.

    `check_rights` raises `AccessDenied` when a right is missing that apply needs, `check_reading`
    when one is that verify needs.
    """
    unseen: list[str] = []
    if not server.tells_time:
        unseen.append("the clock, which this server leaves out of INFO")
    node = next(server.masters())
    return Diagnosis(
        facts=tuple(_facts(server)),
        clock_difference_s=server.now_s() - time.time() if server.tells_time else None,
        between=_between(url, node, unseen),
        mismatches=_judged_mismatches(server.info, unseen),
        privileges=(_for_verify(check_reading), _for_apply(check_rights)),
        unseen=tuple(unseen),
    )


def _judged_mismatches(info: Mapping[str, Any], unseen: list[str]) -> tuple[str, ...] | None:
    """The versions that do not fit. None where nobody knows, which goes to `unseen`.

    Servers that only speak the protocol have versions of their own, besides one of Redis.
    """
    client, version = redis.__version__, str(info["redis_version"])
    name = "dragonfly" if "dragonfly_version" in info else str(info.get("server_name", "redis"))
    made_for = _SERVERS_OF_CLIENT.get(client.partition(".")[0])
    if name == "redis" and made_for is not None and _release(version):
        return tuple(mismatches(client, version))
    unseen.append(f"whether redis-py {client} fits a server {name} {version}")
    return None


def mismatches(client: str, server: str) -> Iterator[str]:
    """Whether redis-py is made for a Redis of this version."""
    made_for = _SERVERS_OF_CLIENT.get(client.partition(".")[0])
    found = _release(server)
    if made_for is None or not found:
        return
    oldest, newest = made_for
    if found < _release(oldest) or (newest is not None and found > _release(newest)):
        span = f"{oldest} to {newest}" if newest else f"{oldest} and newer"
        others = [major for major, span in _SERVERS_OF_CLIENT.items() if span != made_for]
        yield (
            f"redis-py {client} is made for Redis {span}, and this one is {server}."
            f" Install redis-py {others[-1]}.x if a call is refused."
        )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor. Empty for a version that is written otherwise."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else ()


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


def _for_verify(check_reading: Callable[[], None]) -> Privilege:
    statement = f"ACL SETUSER … {READ_RIGHTS} ~{PREFIX}:*"
    what = "read our records, and who holds the lock"
    return _privilege(what, check_reading, statement, Purpose.VERIFY)


def _for_apply(check_rights: Callable[[], None]) -> Privilege:
    statement = f"ACL SETUSER … {RIGHTS} {TRANSACTION_RIGHTS} (or {SCRIPT_RIGHTS}) ~{PREFIX}:* %R~*"
    return _privilege("write our records, and lock", check_rights, statement, Purpose.APPLY)


def _privilege(what: str, check: Callable[[], None], statement: str, purpose: Purpose) -> Privilege:
    """A privilege that was tried. What a refusal names goes before the statement for everything."""
    try:
        check()
    except AccessDenied as exc:
        named = exc.hint.partition(RUN)[2] or exc.hint or statement
        return Privilege(what, is_granted=False, statement=named, purpose=purpose.value)
    return Privilege(what, is_granted=True, statement=statement, purpose=purpose.value)


def rung_of_reader(
    refusal: AccessDenied, check_reading: Callable[[], None], is_recorded: Callable[[], bool]
) -> RungResult | None:
    """The highest rung of a user who may not write, and has all that a user for verify needs.

    None when something of that is lacking, or nothing was recorded yet, so that there is nothing
    to verify. The hint of `refusal` then says what each purpose needs.
    """
    found = _for_verify(check_reading)
    told = "For verify alone, nothing is lacking."
    if not found.is_granted:
        told = f"For verify alone: {_without_pointer(found.statement)}"
    refusal.hint = f"For apply: {_without_pointer(refusal.hint)} {told} {GRANTS}"
    if not found.is_granted or not is_recorded():
        return None
    text = "may read our records, and write none, which is enough for verify"
    return RungResult(Rung.SCHEMA, ok=False, text=text, hint=refusal.hint, is_permanent=True)


def _without_pointer(hint: str) -> str:
    """A hint without the sentence that says where all lines stand."""
    return hint.removesuffix(GRANTS).rstrip()


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

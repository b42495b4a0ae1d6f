"""One Redis or one cluster: how a client of it is opened, and whether it can be worked with."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from is_db_bootstrap.errors import ConfigurationError, StoreConflict, StoreUnavailable
from is_db_bootstrap.results import ServerInfo
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.stores.foreign_server import recognised
from is_db_bootstrap.stores.redis.connection import (
    Place,
    default_port,
    plain_address,
    run_arguments,
    sentinel_arguments,
    server_arguments,
    tls_way,
)
from is_db_bootstrap.stores.redis.errors import STORE, Translation, as_text
from is_db_bootstrap.stores.redis.kind import KIND
from is_db_bootstrap.stores.tls_look import TlsFailed, refuse_tls_fault, told, without_tls

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

OLDEST_MAJOR = 6
#: Where the answer to ROLE of a replica has the port of its master, behind the host.
_MASTER_PORT = 2
#: What INFO calls the server's clock. A proxy, or a server that only speaks the protocol, may leave
#: that out.
_CLOCK = "server_time_usec"
#: redis-py declares no types for it.
_NODE: Any = ClusterNode

#: Host and port.
Address = tuple[str, int]
#: How redis-py calls a connection that the other side has ended.
_ENDED = ("Connection closed", "reset by peer")
#: What it says of one that does not answer in time, as a server without TLS does not.
_SILENT = ("Timeout connecting",)


@dataclass(frozen=True, slots=True)
class Server:
    """A client that answers, what INFO says, and how far the server's clock is ahead of ours.

    `clock_s` is the difference of the server's clock, in seconds since 1970, and our monotonic one.
    `master` is what the Sentinels named, and None where there are none.
    """

    client: Any
    info: Mapping[str, Any]
    clock_s: float
    master: Address | None = None

    @property
    def facts(self) -> ServerInfo:
        """Version, and whether it is a cluster."""
        return ServerInfo(str(self.info["redis_version"]), "cluster" if self.is_cluster else None)

    @property
    def is_cluster(self) -> bool:
        """Whether the client is one of a cluster."""
        return isinstance(self.client, redis.RedisCluster)

    @property
    def tells_time(self) -> bool:
        """Whether INFO has the server's clock. `now_s` goes by ours otherwise."""
        return _CLOCK in self.info

    def now_s(self) -> float:
        """Seconds since 1970 by the server's clock, or by ours where it does not tell its own."""
        return self.clock_s + time.monotonic()

    def node_of(self, key: str) -> Any:
        """The client of the server that holds `key`."""
        if not self.is_cluster:
            return self.client
        return self.client.get_redis_connection(self.client.get_node_from_key(key))

    def masters(self) -> Iterator[Any]:
        """A client of each server that holds keys."""
        if self.is_cluster:
            for node in self.client.get_primaries():
                yield self.client.get_redis_connection(node)
        else:
            yield self.client

    def break_connections(self) -> None:
        """From another thread: end each connection, also one that is in use."""
        nodes = self.client.get_nodes() if self.is_cluster else [self.client]
        for node in nodes:
            connection = getattr(node, "redis_connection", node)
            if connection is not None:
                connection.connection_pool.disconnect(inuse_connections=True)


def open_server(
    url: StoreUrl, timeout_s: float, connect_timeout_s: float, errors: Translation
) -> Server:
    """One try on new connections, which `timeout_s` bounds.

    No connection takes longer than `connect_timeout_s`.

    Raises `StoreUnavailable` while the server loads, is a replica, or refuses writes;
    `AccessDenied`; `ConfigurationError` when something else answers; `StoreConflict` below Redis 6.
    """
    limit_s = min(timeout_s, connect_timeout_s)
    try:
        return _opened_server(url, limit_s, connect_timeout_s, errors)
    except (StoreUnavailable, TlsFailed) as exc:
        _refuse_tls_fault(url, exc, limit_s / 2)
        raise


def _opened_server(
    url: StoreUrl, limit_s: float, connect_timeout_s: float, errors: Translation
) -> Server:
    place = Place.of(url)
    servers: Sequence[Address | None] = place.servers or [None]
    master = _master_of(url, place, limit_s, errors) if place.service else None
    if master is not None:
        servers = [master]
    client, info = _first_answer(url, servers, limit_s, errors)
    server_s = float(info.get(_CLOCK, time.time() * 1e6)) / 1e6
    clock_s = server_s - time.monotonic()
    if int(info.get("cluster_enabled", 0)):
        client = _clustered(client, url, connect_timeout_s, errors)
    elif place.is_cluster:
        client.close()
        raise ConfigurationError(
            f"redis: {url} is no cluster.", hint="Write redis://host:6379/0 for a single server."
        ).at(Rung.TARGET)
    return Server(client, info, clock_s, master)


def refuse_other_master(url: StoreUrl, server: Server, limit_s: float, errors: Translation) -> None:
    """Raise `StoreUnavailable` when the Sentinels call another server the master by now.

    A master that is cut off from them takes writes for a while, and loses them when it comes back
    as a replica ("High availability with Redis Sentinel", consistency under partitions). So what
    was written counts only if the master is still the same one afterwards.
    """
    place = Place.of(url)
    if server.master is None or not place.service:
        return
    present = _master_of(url, place, limit_s, errors)
    if present == server.master:
        return
    new, old = (f"{host}:{port}" for host, port in (present, server.master))
    raise StoreUnavailable(
        STORE,
        f"The Sentinels of {url} call {new} the master now, and this run has worked on {old}. "
        "What it has written there, if anything, may be lost.",
        hint="A fail-over has happened. Run again; what is there is read anew.",
    )


def check_address(url: StoreUrl) -> None:
    """Raise `ConfigurationError` for an address that redis-py cannot take. Opens nothing."""
    place = Place.of(url)
    sentinel_arguments(url)
    try:
        client = _client(url, place.servers[0] if place.servers else None, timeout_s=1.0)
        client.connection_pool.make_connection()
    except (TypeError, ValueError, LookupError, AttributeError, redis.RedisError) as exc:
        error = ConfigurationError(f"redis: the address {url} is refused by redis-py: {exc}.")
        raise url.masking(error, exc) from exc


def _first_answer(
    url: StoreUrl, servers: Sequence[Address | None], limit_s: float, errors: Translation
) -> tuple[Any, Mapping[str, Any]]:
    """A client of the first of these servers that answers, and what INFO says of that one.

    Any node of a cluster will do, and some may be down. None is the socket of the address. Raises
    what the last one raised.
    """
    *others, last = servers
    for server in others:
        client = _client(url, server, limit_s)
        try:
            return client, _asked(client, url, errors)
        except StoreUnavailable:
            client.close()
        except BaseException:
            client.close()
            raise
    client = _client(url, last, limit_s)
    try:
        return client, _asked(client, url, errors)
    except StoreUnavailable as exc:
        client.close()
        _refuse_stranger(url, exc, limit_s / 2)
        raise
    except BaseException:
        client.close()
        raise


def _master_of(url: StoreUrl, place: Place, limit_s: float, errors: Translation) -> Address:
    """The server that the Sentinels call the master now.

    They are asked with GET-MASTER-ADDR-BY-NAME, which names the new master as soon as it is chosen.
    The list of masters, which redis-py's own class reads, has the old one until the end of the
    fail-over, and what is written to that one is lost.

    Raises `StoreUnavailable` when none of them answers; `AccessDenied`; `ConfigurationError` when
    they watch no such service.
    """
    arguments = {**sentinel_arguments(url), **_own_arguments(limit_s)}
    watched: set[str] = set()
    failures: list[redis.RedisError] = []
    with errors(f"the Sentinels' service {place.service}"):
        for host, port in place.servers:
            with redis.Redis(host=host or "localhost", port=port, **arguments) as sentinel:
                try:
                    found = sentinel.sentinel_get_master_addr_by_name(place.service)
                    if found:
                        return as_text(found[0]), int(found[1])
                    watched |= set(sentinel.sentinel_masters())
                except (redis.ConnectionError, redis.TimeoutError) as exc:
                    failures.append(exc)
        if watched or not failures:
            raise ConfigurationError(
                f"redis: the Sentinels of {url} watch no service {place.service}.",
                hint=f"They watch {', '.join(sorted(watched)) or 'none'}.",
            ).at(Rung.TARGET)
        # A refused password is told before a server that is down.
        raise max(failures, key=lambda exc: isinstance(exc, redis.AuthenticationError))


def _asked(client: Any, url: StoreUrl, errors: Translation) -> Mapping[str, Any]:
    """What INFO says of a server that can be worked with."""
    with errors():
        try:
            pipeline = client.pipeline(transaction=False)
            pong, info, role = pipeline.ping().info().role().execute(raise_on_error=False)
        except redis.BusyLoadingError as exc:
            # Caught before ConnectionError, which it is: PING is refused, INFO is not, and
            # knows how long (redis#11714).
            eta = client.info("persistence").get("loading_eta_seconds", "?")
            raise StoreUnavailable(
                STORE,
                f"{url} is loading its data set, about {eta} s to go (loading_eta_seconds).",
                hint="Give a longer --timeout, or wait.",
            ).at(Rung.TARGET) from exc
        if isinstance(info, Exception):
            raise info
        _check_kind(info, url)
        _check_role(info, role, url)
        if isinstance(pong, Exception):
            raise pong
    return dict(info)


def _check_kind(info: Mapping[str, Any], url: StoreUrl) -> None:
    if info.get("redis_mode") == "sentinel":
        raise ConfigurationError(
            f"redis: {url} is a Sentinel, which holds no data.",
            hint=f"Write redis+sentinel://host:26379/NAME/0{_watched(info)}.",
        ).at(Rung.TARGET)
    version = str(info.get("redis_version", ""))
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) < OLDEST_MAJOR:
        raise StoreConflict(
            STORE,
            f"{url} is Redis {version or 'of unknown version'}; {OLDEST_MAJOR} or newer is needed.",
            hint="Upgrade the server.",
        ).at(Rung.TARGET)


def _watched(info: Mapping[str, Any]) -> str:
    """Which names a Sentinel watches, by its INFO. Empty when it names none."""
    masters = [value for key, value in info.items() if re.fullmatch(r"master\d+", key)]
    names = [str(value["name"]) for value in masters if isinstance(value, dict)]
    return f", where NAME is {' or '.join(names)}" if names else ""


def _check_role(info: Mapping[str, Any], role: Any, url: StoreUrl) -> None:
    """ROLE is asked first and INFO believed where ROLE is not allowed.

    In a cluster the client finds the masters.
    """
    told = role[0] if isinstance(role, list) else info.get("role", "master")
    is_replica = as_text(told) in {"slave", "replica"}
    if is_replica and not int(info.get("cluster_enabled", 0)):
        host, port = info.get("master_host", "?"), info.get("master_port", "?")
        if isinstance(role, list) and len(role) > _MASTER_PORT:
            host, port = as_text(role[_MASTER_PORT - 1]), role[_MASTER_PORT]
        raise StoreUnavailable(
            STORE,
            f"{url} is a read-only replica (ROLE); its master is {host}:{port}.",
            hint="A fail-over may be going on; else give the address of the master, a Service that "
            "follows it, or the addresses of its Sentinels (redis+sentinel://).",
        ).at(Rung.WRITABLE)


def _refuse_tls_fault(url: StoreUrl, exc: StoreUnavailable | TlsFailed, limit_s: float) -> None:
    """Raise `AccessDenied` with the cause when TLS, or the lack of it, has kept us out."""
    way = tls_way(url)
    if isinstance(exc, TlsFailed) or any(words in exc.message for words in _ENDED):
        refuse_tls_fault(url, way, default_port(url), exc, limit_s)
        return
    is_silent = way.is_asked_for and any(words in exc.message for words in _SILENT)
    # A plain Redis waits for the end of a line, which no handshake has.
    if is_silent and recognised(url.host, url.port(default_port(url)), limit_s) == "Redis":
        raise told(url, without_tls(KIND.name, way)) from exc


def _refuse_stranger(url: StoreUrl, exc: StoreUnavailable, limit_s: float) -> None:
    """Raise `ConfigurationError` when it is another kind of server that has ended the connection.

    An HTTP server resets it so fast that its answer is lost. A closed one may be a Redis going
    down.
    """
    if not any(words in exc.message for words in _ENDED):
        return
    if kind := recognised(url.host, url.port(6379), limit_s, own="Redis"):
        raise ConfigurationError(
            f"redis: {kind} answers at {url}.",
            hint="Give the address of a Redis server (default port 6379).",
        ) from exc


def _clustered(client: Any, url: StoreUrl, connect_timeout_s: float, errors: Translation) -> Any:
    """A client of the cluster that the server of `client`, which is closed, belongs to."""
    with errors():
        try:
            state = client.execute_command("CLUSTER INFO").get("cluster_state", "?")
        finally:
            client.close()
        if state != "ok":
            raise StoreUnavailable(
                STORE,
                f"{url} is in a cluster whose state is {state} (CLUSTER INFO).",
                hint="Wait for its fail-over, or see which slots have no master.",
            ).at(Rung.WRITABLE)
        return _cluster_client(url, connect_timeout_s)


def _cluster_client(url: StoreUrl, timeout_s: float) -> Any:
    arguments = _arguments(url, timeout_s)
    servers = Place.of(url).servers
    if not servers:
        return redis.RedisCluster.from_url(plain_address(url), **arguments)
    of_servers = server_arguments(url)
    del of_servers["db"]
    nodes = [_NODE(*server) for server in servers]
    return redis.RedisCluster(startup_nodes=nodes, **of_servers, **arguments)


def _client(url: StoreUrl, server: Address | None, timeout_s: float) -> Any:
    """A client of one server, or of the socket of the address. Nothing is connected."""
    arguments = _arguments(url, timeout_s)
    if server is None:
        return redis.Redis.from_url(plain_address(url), **arguments)
    host, port = server
    return redis.Redis(host=host or "localhost", port=port, **server_arguments(url), **arguments)


def _arguments(url: StoreUrl, timeout_s: float) -> dict[str, Any]:
    """What each client of a run is given. A shorter time of the address holds."""
    given = run_arguments(url)
    own = _own_arguments(timeout_s)
    for name in ("socket_timeout", "socket_connect_timeout"):
        own[name] = min(timeout_s, given.get(name, timeout_s))
    return {**given, **own}


def _own_arguments(timeout_s: float) -> dict[str, Any]:
    """No retries of redis-py's own, which would add to our deadline."""
    return {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }

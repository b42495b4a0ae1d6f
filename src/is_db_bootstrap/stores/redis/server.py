"""One Redis or one cluster: how a client of it is opened, and whether it can be worked with."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from is_db_bootstrap.errors import ConfigurationError, StoreConflict, StoreUnavailable
from is_db_bootstrap.results import ServerInfo
from is_db_bootstrap.stores.foreign_server import recognised
from is_db_bootstrap.stores.redis.connection import client_arguments
from is_db_bootstrap.stores.redis.errors import STORE, Translation, as_text

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

OLDEST_MAJOR = 6
#: How redis-py calls a connection that the other side has ended.
_ENDED = ("Connection closed", "reset by peer")


@dataclass(frozen=True, slots=True)
class Server:
    """A client that answers, what INFO says, and how far the server's clock is ahead of ours.

    `clock_s` is the difference of the server's clock, in seconds since 1970, and our monotonic one.
    """

    client: Any
    info: Mapping[str, Any]
    clock_s: float

    @property
    def facts(self) -> ServerInfo:
        """Version, and whether it is a cluster."""
        return ServerInfo(str(self.info["redis_version"]), "cluster" if self.is_cluster else None)

    @property
    def is_cluster(self) -> bool:
        """Whether the client is one of a cluster."""
        return isinstance(self.client, redis.RedisCluster)

    def now_s(self) -> float:
        """Seconds since 1970 by the server's clock."""
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
    client = _open(url, redis.Redis, limit_s)
    try:
        info = _asked(client, url, errors)
    except StoreUnavailable as exc:
        client.close()
        _refuse_stranger(url, exc, limit_s / 2)
        raise
    except BaseException:
        client.close()
        raise
    server_s = float(info.get("server_time_usec", time.time() * 1e6)) / 1e6
    clock_s = server_s - time.monotonic()
    if int(info.get("cluster_enabled", 0)):
        client = _clustered(client, url, connect_timeout_s, errors)
    return Server(client, info, clock_s)


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
            ) from exc
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
            hint="Give the address of the master it watches.",
        )
    version = str(info.get("redis_version", ""))
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) < OLDEST_MAJOR:
        raise StoreConflict(
            STORE,
            f"{url} is Redis {version or 'of unknown version'}; {OLDEST_MAJOR} or newer is needed.",
            hint="Upgrade the server.",
        )


def _check_role(info: Mapping[str, Any], role: Any, url: StoreUrl) -> None:
    """ROLE is asked first and INFO believed where ROLE is not allowed.

    In a cluster the client finds the masters.
    """
    told = role[0] if isinstance(role, list) else info.get("role", "master")
    is_replica = as_text(told) in {"slave", "replica"}
    if is_replica and not int(info.get("cluster_enabled", 0)):
        raise StoreUnavailable(
            STORE,
            f"{url} is a read-only replica (ROLE); its master is "
            f"{info.get('master_host', '?')}:{info.get('master_port', '?')}.",
            hint="A fail-over may be going on; else give the address of the master, or a Service "
            "that follows it.",
        )


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
            )
        return _open(url, redis.RedisCluster, connect_timeout_s)


def _open(url: StoreUrl, kind: Any, timeout_s: float) -> Any:
    """A client without retries of its own, which would add to our deadline."""
    arguments = client_arguments(url)
    try:
        client = kind.from_url(
            **arguments,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
        )
        if kind is redis.Redis:
            _check_options(client)
    except (TypeError, ValueError, LookupError, AttributeError) as exc:
        error = ConfigurationError(f"redis: the address {url} is refused by redis-py: {exc}.")
        raise url.masking(error, exc) from exc
    return client


def _check_options(client: redis.Redis) -> None:
    """Make a connection's object once: redis-py takes any option and looks at it only then.

    Nothing is connected. Raises what redis-py raises for an option that it does not take
    (redis-py#3217).
    """
    pool = client.connection_pool
    codecs.lookup(pool.connection_kwargs.get("encoding", "utf-8"))
    pool.make_connection()

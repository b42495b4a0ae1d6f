"""How a client of Redis is made of an address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings.tls import refuse_weaker
from is_db_bootstrap.settings.tls_files import ClientCertificate
from is_db_bootstrap.stores.redis.address_options import FOR_RUNS, OF_SENTINELS, read_options
from is_db_bootstrap.stores.redis.kind import AUTHORITIES, CLUSTER, KIND, SENTINEL
from is_db_bootstrap.stores.tls_look import TlsWay

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

#: The port of a Sentinel that an address does not name.
SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address leads: `servers` are hosts with ports, none for a socket.

    `service` is what Sentinels call the master, and empty where they are not asked.
    """

    servers: tuple[tuple[str, int], ...]
    service: str = ""
    is_cluster: bool = False

    @classmethod
    def of(cls, url: StoreUrl) -> Place:
        """The place of an address. Raises `ConfigurationError` when that contradicts itself."""
        kinds = url.scheme.split("+")[1:]
        is_cluster = CLUSTER in kinds or _options(url).get("cluster", False)
        is_sentinel = SENTINEL in kinds
        default = default_port(url)
        is_socket = url.scheme == KIND.socket_scheme
        servers = () if is_socket else tuple(url.hosts_with_ports(default))
        _check_place(url, servers, is_cluster=is_cluster, is_sentinel=is_sentinel)
        return cls(servers, url.service, is_cluster)


def command_line(url: StoreUrl) -> str:
    """How a person calls `redis-cli` for the database of an address, besides host and user."""
    has_number = url.database not in {"", "0"}
    return f"redis-cli -n {url.database}" if has_number else "redis-cli"


def default_port(url: StoreUrl) -> int:
    """The port of a server of an address that names none."""
    return SENTINEL_PORT if SENTINEL in url.scheme.split("+") else KIND.default_port


def _check_place(
    url: StoreUrl, servers: tuple[tuple[str, int], ...], *, is_cluster: bool, is_sentinel: bool
) -> None:
    if is_sentinel and is_cluster:
        raise ConfigurationError(
            f"redis: {url} asks for Sentinels and for a cluster, which has none.",
            hint="Write redis+sentinel:// or redis+cluster://.",
        )
    if is_sentinel and not url.service:
        raise ConfigurationError(
            f"redis: {url} does not say which of the Sentinels' services is meant.",
            hint="Write its name as the path: redis+sentinel://host:26379/NAME/0.",
        )
    if len(servers) > 1 and not is_sentinel and not is_cluster:
        raise ConfigurationError(
            f"redis: {url} names several servers.",
            hint="Write redis+sentinel:// for Sentinels, or redis+cluster:// for a cluster.",
        )
    if url.database and not url.database.isdecimal():
        raise ConfigurationError(
            f"redis: the database in {url} is not a number.",
            hint="Write redis://host:6379/0, or leave it out.",
        )
    if is_cluster and int(url.database or 0):
        raise ConfigurationError(
            f"redis: {url} names a database, but a cluster has only database 0.",
            hint="Leave the number out.",
        )


def client_arguments(url: StoreUrl) -> dict[str, Any]:
    """What `from_url` of redis-py's clients is given; all that open one for us use this.

    The options of the address are values in it, and `url` has none any more: redis-py lets those of
    the address win over all others. A CA file, the settings' or the address's own, means that
    certificate and host name are checked. redis-py 5 checks no host name unless it is told to.

    Raises `ConfigurationError` for an address that weakens its CA file, or has an option that does
    not exist or a value that it cannot have. So does one of Sentinels or of a cluster, which
    `open_client` opens.
    """
    place = Place.of(url)
    if place.service or place.is_cluster:
        raise ConfigurationError(
            f"redis: {url} leads to Sentinels or a cluster, and one server is needed here.",
            hint="Give the address of a server: redis://host:6379/0.",
        )
    return {"url": plain_address(url), **_connection_arguments(url)}


def plain_address(url: StoreUrl) -> str:
    """The address without its options, for a client that is given these as values."""
    return replace(url, query=()).reveal()


def run_arguments(url: StoreUrl) -> dict[str, Any]:
    """What each connection of a run is given, without place, user and password.

    What an application asks for its own client, such as `decode_responses`, is left out. Raises
    what `client_arguments` raises.
    """
    known = _connection_arguments(url)
    return {name: value for name, value in known.items() if name in FOR_RUNS}


def server_arguments(url: StoreUrl) -> dict[str, Any]:
    """User, password, database and TLS of a server whose host and port are found out later."""
    found: dict[str, Any] = {"db": int(url.database or 0)}
    if url.username:
        found["username"] = url.username
    if url.password:
        found["password"] = url.password
    if _has_tls(url):
        found["ssl"] = True
    return found


def sentinel_arguments(url: StoreUrl) -> dict[str, Any]:
    """User, password and TLS of the Sentinels. They have the server's TLS."""
    given = _options(url)
    found = {name.removeprefix("sentinel_"): given[name] for name in OF_SENTINELS if name in given}
    tls = {name: value for name, value in run_arguments(url).items() if name.startswith("ssl_")}
    return {**found, **tls, **({"ssl": True} if _has_tls(url) else {})}


def open_client(url: StoreUrl, library: Any, **more: Any) -> Any:
    """A client for an application: of a server, of a cluster, or of the Sentinels' master.

    `library` is `redis`, or `redis.asyncio` with its `sentinel` imported. `more` goes to the client
    and wins over the options of the address. The client of Sentinels follows each fail-over.
    Nothing is connected. Raises `ConfigurationError` like `client_arguments`.
    """
    place = Place.of(url)
    if not place.service and not place.is_cluster:
        return library.Redis.from_url(**(client_arguments(url) | more))
    arguments = _connection_arguments(url) | server_arguments(url) | more
    if place.is_cluster:
        arguments.pop("db")
        nodes = [library.cluster.ClusterNode(*server) for server in place.servers]
        return library.RedisCluster(startup_nodes=nodes, **arguments)
    sentinels = library.sentinel.Sentinel(
        list(place.servers), sentinel_kwargs=sentinel_arguments(url), **arguments
    )
    return sentinels.master_for(place.service)


def tls_way(url: StoreUrl) -> TlsWay:
    """How a client of this address makes its TLS."""
    given = run_arguments(url)
    ours = None
    if given.get("ssl_certfile") and given.get("ssl_keyfile"):
        password = given.get("ssl_password", "")
        ours = ClientCertificate(given["ssl_certfile"], given["ssl_keyfile"], password)
    return TlsWay(
        is_asked_for=_has_tls(url),
        is_checked=given.get("ssl_cert_reqs", "required") == "required",
        is_named=given.get("ssl_check_hostname", True),
        ca_file=given.get("ssl_ca_certs", ""),
        ca_source="" if url.ca_file else _authority_of_address(url),
        certificate=ours,
    )


def _authority_of_address(url: StoreUrl) -> str:
    named = [name for name, value in url.query if name in AUTHORITIES and value]
    return f"{named[0]} in the address" if named else ""


_not_of_redis_py = frozenset({"cluster", *OF_SENTINELS})


def _connection_arguments(url: StoreUrl) -> dict[str, Any]:
    """The options of an address as values, and what a CA file and a certificate mean."""
    given = {name: value for name, value in _options(url).items() if name not in _not_of_redis_py}
    own = any(key in AUTHORITIES and value for key, value in url.query)
    if url.ca_file:
        given["ssl_ca_certs"] = url.ca_file
    if url.ca_file or url.certificate or own:
        given |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    if url.certificate:
        given["ssl_certfile"] = url.certificate.cert_file
        given["ssl_keyfile"] = url.certificate.key_file
        if url.certificate.key_password:
            given["ssl_password"] = url.certificate.key_password
    return given


def _options(url: StoreUrl) -> dict[str, Any]:
    refuse_weaker(url)
    read = partial(read_options, url.query, tls=_has_tls(url))
    return read(tcp=url.scheme != KIND.socket_scheme, sentinels=SENTINEL in url.scheme)


def _has_tls(url: StoreUrl) -> bool:
    return url.scheme in {KIND.tls_scheme, *KIND.other_tls_schemes}

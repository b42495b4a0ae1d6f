"""The options of an address's query, each read as what redis-py's constructors take.

redis-py itself takes any option, and looks at it when a connection is opened (redis-py#3217). It
keeps most values as text, so that `decode_responses=False` means yes. So the options are read here,
when the address is read, and given to redis-py as values.
"""

from __future__ import annotations

import codecs
import ssl
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.nearest import nearest

#: How people write yes and no.
_YES = frozenset({"1", "t", "true", "y", "yes", "on"})
_NO = frozenset({"0", "f", "false", "n", "no", "off"})
_CERT_REQS = ("none", "optional", "required")
_PROTOCOLS = ("2", "3")
#: redis-py compares these with `ssl.TLSVersion`; its own addresses have the number.
_TLS_VERSIONS = {
    **{str(int(version)): version for version in ssl.TLSVersion if version > 0},
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}


def _truth(value: str) -> bool:
    if value.lower() not in _YES | _NO:
        message = "is neither true nor false"
        raise ValueError(message)
    return value.lower() in _YES


def _number(least: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.isascii() or not value.isdecimal() or int(value) < least:
            message = f"is no whole number from {least} on"
            raise ValueError(message)
        return int(value)

    return read


def _seconds(value: str) -> float:
    message = "is no number of seconds above 0"
    try:
        found = float(value)
    except ValueError:
        raise ValueError(message) from None
    if not 0 < found < float("inf"):
        raise ValueError(message)
    return found


def _one_of(*known: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in known:
            message = f"is none of {', '.join(known)}"
            raise ValueError(message)
        return value

    return read


def _protocol(value: str) -> int:
    return int(_one_of(*_PROTOCOLS)(value))


def _cert_reqs(value: str) -> str:
    """Also as Celery writes it: `CERT_REQUIRED`."""
    return _one_of(*_CERT_REQS)(value.lower().removeprefix("cert_"))


def _tls_version(value: str) -> ssl.TLSVersion:
    if value not in _TLS_VERSIONS:
        message = "is no version of TLS, such as 1.2"
        raise ValueError(message)
    return _TLS_VERSIONS[value]


def _verify_flags(value: str) -> list[ssl.VerifyFlags]:
    names = [name.strip() for name in value.strip("[]").split(",")]
    unknown = [name for name in names if name not in ssl.VerifyFlags.__members__]
    if unknown:
        message = f"names no flag of ssl.VerifyFlags with {unknown[0]!r}"
        raise ValueError(message)
    return [ssl.VerifyFlags[name] for name in names]


def _known_by(look_up: Callable[[str], Any]) -> Callable[[str], str]:
    def read(value: str) -> str:
        try:
            look_up(value)
        except LookupError as exc:
            raise ValueError(f"is refused: {exc}") from None
        return value

    return read


def _client_name(value: str) -> str:
    """CLIENT SETNAME refuses blanks and what is not ASCII."""
    if not value.isascii() or not value.isprintable() or " " in value:
        message = "has a character that the server refuses there"
        raise ValueError(message)
    return value


def _file(value: str) -> str:
    if not Path(value).is_file():
        message = "names a file that is not there"
        raise ValueError(message)
    return value


def _folder(value: str) -> str:
    if not Path(value).is_dir():
        message = "names a folder that is not there"
        raise ValueError(message)
    return value


def _ciphers(value: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(value)
    except ssl.SSLError:
        message = "names no cipher that this Python has"
        raise ValueError(message) from None
    return value


def _truth_by(library: str) -> Callable[[str], bool]:
    """Yes or no, and yes only where this library is installed, which redis-py does it with."""

    def read(value: str) -> bool:
        is_wanted = _truth(value)
        if is_wanted and find_spec(library) is None:
            message = f"needs the Python package {library}, which is not installed"
            raise ValueError(message)
        return is_wanted

    return read


Reader = Callable[[str], Any]

#: What an application wants of its own client. It changes nothing for the client of a run, which
#: reads bytes by protocol 2, bears no name (which is a right of its own), and tries nothing twice:
#: the engine does that, within one deadline.
_OF_APPLICATIONS: Mapping[str, Reader] = {
    "client_name": _client_name,
    "decode_responses": _truth,
    "encoding": _known_by(codecs.lookup),
    "encoding_errors": _known_by(codecs.lookup_error),
    "health_check_interval": _number(0),
    "legacy_responses": _truth,
    "lib_name": _client_name,
    "lib_version": _client_name,
    "max_connections": _number(1),
    "protocol": _protocol,
    "retry_on_timeout": _truth,
    "single_connection_client": _truth,
    "socket_read_size": _number(1),
}
_OF_CONNECTIONS: Mapping[str, Reader] = {
    "socket_connect_timeout": _seconds,
    "socket_timeout": _seconds,
}
_OF_TCP: Mapping[str, Reader] = {"socket_keepalive": _truth}
_OF_TLS: Mapping[str, Reader] = {
    "ssl_ca_certs": _file,
    "ssl_ca_data": str,
    "ssl_ca_path": _folder,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_certfile": _file,
    "ssl_check_hostname": _truth,
    "ssl_ciphers": _ciphers,
    "ssl_exclude_verify_flags": _verify_flags,
    "ssl_include_verify_flags": _verify_flags,
    "ssl_keyfile": _file,
    "ssl_min_version": _tls_version,
    "ssl_ocsp_expected_cert": str,
    "ssl_password": str,
    "ssl_validate_ocsp": _truth_by("cryptography"),
    "ssl_validate_ocsp_stapled": _truth_by("OpenSSL"),
}
#: These are ours: user and password of the Sentinels, which are other ones than the server's.
OF_SENTINELS: Mapping[str, Reader] = {"sentinel_username": str, "sentinel_password": str}
#: These are ours too, for a cluster.
_OF_CLUSTERS: Mapping[str, Reader] = {"cluster": _truth}

#: Options that redis-py or other clients know and that stand elsewhere, with where.
_ELSEWHERE = {
    "host": "The host stands before the question mark.",
    "port": "The port stands before the question mark.",
    "path": "The path of a socket is unix:///run/redis.sock.",
    "unix_socket_path": "The path of a socket is unix:///run/redis.sock.",
    "ssl": "TLS is asked for by the scheme: rediss://.",
    "timeout": "It is an option of BlockingConnectionPool. Write socket_timeout.",
    "service_name": "The name of a service is the path: redis+sentinel://host:26379/NAME/0.",
    "sentinelMasterId": "The name of a service is the path: redis+sentinel://host:26379/NAME/0.",
}
#: What redis-py's constructors take from Python only.
_FROM_PYTHON = frozenset(
    {
        "address_remap",
        "cache",
        "cache_config",
        "command_packer",
        "connection_class",
        "connection_pool",
        "credential_provider",
        "driver_info",
        "event_dispatcher",
        "load_balancing_strategy",
        "maint_notifications_config",
        "parser_class",
        "pool_class",
        "redis_connect_func",
        "retry",
        "retry_on_error",
        "socket_keepalive_options",
        "socket_type",
        "ssl_ocsp_context",
        "startup_nodes",
    }
)

FOR_RUNS = frozenset({*_OF_CONNECTIONS, *_OF_TCP, *_OF_TLS})


def read_options(
    given: Iterable[tuple[str, str]], *, tls: bool, tcp: bool, sentinels: bool
) -> dict[str, Any]:
    """The options of an address, as redis-py's constructors take them.

    `tls`, `tcp` and `sentinels` say what the address's scheme stands for. Raises
    `ConfigurationError` for an option that does not exist there, is there twice, or has a value
    that it cannot have. No value is repeated, because it may be a secret.
    """
    readers = {**_OF_CONNECTIONS, **_OF_APPLICATIONS, **_OF_CLUSTERS}
    readers |= _OF_TCP if tcp else {}
    readers |= _OF_TLS if tls else {}
    readers |= OF_SENTINELS if sentinels else {}
    found: dict[str, Any] = {}
    for name, value in given:
        if name not in readers:
            raise _unknown_option(name, readers)
        if name in found:
            raise _refused_option(name, "is there twice")
        try:
            found[name] = readers[name](value)
        except ValueError as exc:
            raise _refused_option(name, str(exc)) from None
    return found


def _refused_option(name: str, why: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"redis: the option {name} of the address {why}.", hint=hint)


def _unknown_option(name: str, readers: Mapping[str, Reader]) -> ConfigurationError:
    if name in _ELSEWHERE:
        return _refused_option(name, "does not belong there", _ELSEWHERE[name])
    if name in _FROM_PYTHON:
        return _refused_option(name, "cannot be written in an address", "Leave it out.")
    if name in _OF_TLS:
        return _refused_option(name, "is one of TLS", "Write rediss:// for TLS, or leave it out.")
    if name in _OF_TCP:
        return _refused_option(name, "is none of a socket", "Leave it out.")
    if name in OF_SENTINELS:
        return _refused_option(name, "is one of Sentinels", "Write redis+sentinel://.")
    near = nearest(name, readers)
    meant = f"Did you mean {near}? " if near else ""
    hint = f"{meant}Known are {', '.join(sorted(readers))}."
    return _refused_option(name, "is not known", hint)

"""What a CA file, an address and libpq's own environment mean for the TLS of a connection."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from psycopg import pq
from psycopg.conninfo import make_conninfo

from is_db_bootstrap.settings.tls import refuse_weaker
from is_db_bootstrap.settings.tls_files import ClientCertificate
from is_db_bootstrap.stores.postgres.hosts import place_arguments
from is_db_bootstrap.stores.tls_look import TlsWay

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

#: What libpq 16 and newer call the authorities of the system.
_OF_SYSTEM = "system"
#: libpq's question for TLS (protocol documentation, message formats).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: Values of `sslmode` without which there is no connection in plain text.
_DEMANDS = frozenset({"require", "verify-ca", "verify-full"})


def checked_tls(url: StoreUrl, options: Mapping[str, str]) -> dict[str, str]:
    """What a CA file and a certificate of ours mean to libpq.

    The server's certificate and host name are checked. With a certificate of ours and no CA file,
    the authorities of the system check the server.

    Empty without any of them. A CA file may come from the settings, from the address
    (`sslrootcert`), and from what libpq reads itself: PGSSLROOTCERT, or a service of
    `pg_service.conf`. libpq alone would take `prefer`, and go on in plain text, or with `require`
    check no host name. What PGSSLMODE or a service says of the mode gives way. Encryption by
    Kerberos, which libpq prefers to TLS, checks no certificate, so it is switched off. A file of
    the environment alone leaves libpq its ways on this machine when nothing asks for TLS. Raises
    `ConfigurationError` for an address that contradicts its CA file.
    """
    refuse_weaker(url)
    ca_file = url.ca_file or options.get("sslrootcert", "")
    if not ca_file:
        ambient = _libpq_options(url, options)
        ca_file = ambient.get("sslrootcert", "")
        refuse_weaker(replace(url, ca_file=ca_file))
        is_asked_for = url.certificate or _asks_for_tls(options, ambient)
        if not is_asked_for and _is_this_machine(ambient):
            return {}
    if not ca_file and url.certificate is None:
        return {}
    checked = {
        "sslrootcert": ca_file or _OF_SYSTEM,
        "sslmode": "verify-full",
        "gssencmode": "disable",
    }
    return checked | _own_certificate(url)


def tls_way(arguments: Mapping[str, Any], ca_source: str = "") -> TlsWay:
    """How libpq makes its TLS with these arguments of a connection."""
    mode = arguments.get("sslmode", "")
    authorities = arguments.get("sslrootcert", "")
    ours = None
    if arguments.get("sslcert") and arguments.get("sslkey"):
        password = arguments.get("sslpassword", "")
        ours = ClientCertificate(arguments["sslcert"], arguments["sslkey"], password)
    return TlsWay(
        is_asked_for=mode in _DEMANDS,
        is_checked=mode.startswith("verify-"),
        is_named=mode == "verify-full",
        ca_file="" if authorities == _OF_SYSTEM else authorities,
        ca_source=ca_source,
        certificate=ours,
        request=_SSL_REQUEST,
    )


def _own_certificate(url: StoreUrl) -> dict[str, str]:
    """The certificate that we show. Empty without one. libpq may then show one of its own."""
    if url.certificate is None:
        return {}
    return {
        "sslcert": url.certificate.cert_file,
        "sslkey": url.certificate.key_file,
        "sslpassword": url.certificate.key_password,
    }


def _libpq_options(url: StoreUrl, options: Mapping[str, str]) -> dict[str, str]:
    """What libpq makes of the address, its environment and a service.

    libpq is asked itself. A word that it refuses after it has read everything keeps it from
    connecting.
    """
    hosts = place_arguments(url)["host"]
    given = {"host": hosts} if hosts else {}
    given |= {name: options[name] for name in ("hostaddr", "service") if options.get(name)}
    attempt = pq.PGconn.connect_start(
        make_conninfo("", **given, target_session_attrs="none at all").encode()
    )
    try:
        found = {option.keyword: option.val for option in attempt.info}
    finally:
        attempt.finish()
    return {
        name.decode(): value.decode(errors="surrogateescape")
        for name, value in found.items()
        if value
    }


def _asks_for_tls(options: Mapping[str, str], ambient: Mapping[str, str]) -> bool:
    """Whether the address says anything of TLS, or libpq's environment demands it."""
    said = any(value for name, value in options.items() if name.startswith("ssl"))
    return said or ambient.get("sslmode", "") in _DEMANDS


def _is_this_machine(ambient: Mapping[str, str]) -> bool:
    """Whether each place that libpq would connect to is a socket or a loopback address."""
    places = f"{ambient.get('host', '')},{ambient.get('hostaddr', '')}".split(",")
    return all(_is_loopback(place) for place in places if place)


def _is_loopback(host: str) -> bool:
    if host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

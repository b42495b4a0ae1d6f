"""What a CA file, an address and libpq's own environment mean for the TLS of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from psycopg import pq
from psycopg.conninfo import make_conninfo

from is_db_bootstrap.settings.tls import refuse_weaker

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

#: Values of `sslmode` without which there is no connection in plain text.
_DEMANDS = frozenset({"require", "verify-ca", "verify-full"})


def checked_tls(url: StoreUrl, options: Mapping[str, str]) -> dict[str, str]:
    """What a CA file means to libpq: certificate and host name are checked.

    Empty without a CA file. It may come from the settings, from the address (`sslrootcert`), and
    from what libpq reads itself: PGSSLROOTCERT, or a service of `pg_service.conf`. libpq alone
    would take `prefer`, and go on in plain text, or with `require` check no host name. What
    PGSSLMODE or a service says of the mode gives way. Encryption by Kerberos, which libpq prefers
    to TLS, checks no certificate, so it is switched off. A file of the environment alone leaves
    libpq its ways on this machine when nothing asks for TLS. Raises `ConfigurationError` for an
    address that contradicts its CA file.
    """
    refuse_weaker(url)
    ca_file = url.ca_file or options.get("sslrootcert", "")
    if not ca_file:
        ambient = _libpq_options(url, options)
        ca_file = ambient.get("sslrootcert", "")
        refuse_weaker(replace(url, ca_file=ca_file))
        if not _asks_for_tls(options, ambient) and _is_this_machine(ambient):
            return {}
    if not ca_file:
        return {}
    return {"sslrootcert": ca_file, "sslmode": "verify-full", "gssencmode": "disable"}


def _libpq_options(url: StoreUrl, options: Mapping[str, str]) -> dict[str, str]:
    """What libpq makes of the address, its environment and a service.

    libpq is asked itself. A word that it refuses after it has read everything keeps it from
    connecting.
    """
    hosts = ",".join(host for host, _ in url.servers)
    given = {"host": hosts} if hosts.strip(",") else {}
    given |= {name: options[name] for name in ("host", "hostaddr", "service") if options.get(name)}
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

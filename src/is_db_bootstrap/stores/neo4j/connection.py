"""How a driver of Neo4j is made of an address."""

from __future__ import annotations

from typing import Any

import neo4j
from neo4j.auth_management import ClientCertificate

from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.settings.tls import refuse_weaker
from is_db_bootstrap.stores.neo4j.kind import KIND
from is_db_bootstrap.stores.tls_look import TlsWay


def client_arguments(url: StoreUrl) -> dict[str, Any]:
    """What `GraphDatabase.driver` is given; all that open a driver for us use this.

    With a CA file or a certificate of ours, any scheme speaks TLS, and the server's certificate and
    host name are checked. The driver takes both with a scheme without a suffix only. Notifications
    are off. Raises `ConfigurationError` for an address that weakens its CA file.
    """
    refuse_weaker(url)
    scheme = url.scheme
    given: dict[str, Any] = {}
    if url.ca_file or url.certificate:
        scheme = scheme.partition("+")[0]
        given["encrypted"] = True
        given["trusted_certificates"] = (
            neo4j.TrustCustomCAs(url.ca_file) if url.ca_file else neo4j.TrustSystemCAs()
        )
    if url.certificate:
        given["client_certificate"] = ClientCertificate(
            url.certificate.cert_file,
            url.certificate.key_file,
            url.certificate.key_password or None,
        )
    return given | {
        "uri": StoreUrl(url.store, scheme, url.hosts, query=url.query).reveal(),
        "auth": (url.username, url.password) if url.username else None,
        "notifications_min_severity": "OFF",
    }


def addresses_of(url: StoreUrl) -> set[str]:
    """The servers of an address as `SHOW DATABASE` writes them: host and port, in small letters.

    A host of numbers and colons has brackets there. A port that the address leaves out is the usual
    one.
    """
    found = url.hosts_with_ports(KIND.default_port)
    return {f"[{host}]:{port}" if ":" in host else f"{host.lower()}:{port}" for host, port in found}


def tls_way(url: StoreUrl) -> TlsWay:
    """How a driver of this address makes its TLS."""
    plain_scheme, _, suffix = url.scheme.partition("+")
    is_checked = bool(url.ca_file or url.certificate) or suffix == "s"
    return TlsWay(
        is_asked_for=is_checked or bool(suffix),
        is_checked=is_checked,
        ca_file=url.ca_file,
        certificate=url.certificate,
        plain_scheme=plain_scheme if suffix else "",
    )

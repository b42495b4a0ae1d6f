"""How a driver of Neo4j is made of an address."""

from __future__ import annotations

from typing import Any

import neo4j

from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.settings.tls import refuse_weaker


def client_arguments(url: StoreUrl) -> dict[str, Any]:
    """What `GraphDatabase.driver` is given; all that open a driver for us use this.

    With a CA file, any scheme speaks TLS, and certificate and host name are checked with the file.
    The driver takes it with a scheme without a suffix only. Notifications are off. Raises
    `ConfigurationError` for an address that weakens its CA file.
    """
    refuse_weaker(url)
    scheme = url.scheme
    given: dict[str, Any] = {}
    if url.ca_file:
        scheme = scheme.partition("+")[0]
        given["encrypted"] = True
        given["trusted_certificates"] = neo4j.TrustCustomCAs(url.ca_file)
    return given | {
        "uri": StoreUrl(url.store, scheme, url.hosts, query=url.query).reveal(),
        "auth": (url.username, url.password) if url.username else None,
        "notifications_min_severity": "OFF",
    }

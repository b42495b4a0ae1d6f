"""How a client of Milvus is made of an address."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.settings.tls import refuse_weaker
from is_db_bootstrap.stores.milvus.kind import KIND

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

#: The port of an address with TLS that names none.
_TLS_PORT = 443
#: No pings while nothing is asked. Milvus Lite ends a connection that pings often
#: (`too_many_pings`), and gRPC prints this.
_GRPC_OPTIONS = {"grpc.keepalive_permit_without_calls": 0}


def single_token(url: StoreUrl) -> StoreUrl:
    """The address with a user that stands alone taken as its password, which Milvus' token is."""
    if url.username and not url.password:
        return replace(url, username="", password=url.username)
    return url


def client_arguments(url: StoreUrl) -> dict[str, Any]:
    """What `MilvusClient` is given; all that open a client for us use this.

    Raises `ConfigurationError` for an address that weakens its CA file.
    """
    refuse_weaker(url)
    at = single_token(url)
    port = _TLS_PORT if at.scheme == KIND.tls_scheme else KIND.default_port
    has_port = re.search(r":\d+$", at.hosts)
    hosts = at.hosts if has_port else f"{at.hosts}:{port}"
    given = {
        "uri": f"{at.scheme}://{hosts}",
        "token": f"{at.username}:{at.password}" if at.username else at.password,
        "db_name": at.database,
        "grpc_options": dict(_GRPC_OPTIONS),
    }
    return given | ({"server_pem_path": at.ca_file} if at.ca_file else {})

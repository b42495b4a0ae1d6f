"""How a client of Milvus is made of an address."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.settings.tls import refuse_weaker
from is_db_bootstrap.stores.milvus.kind import KIND
from is_db_bootstrap.stores.tls_look import TlsWay

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
    has_port = re.search(r":\d+$", at.hosts)
    hosts = at.hosts if has_port else f"{at.hosts}:{default_port(at)}"
    given = {
        "uri": f"{at.scheme}://{hosts}",
        "token": f"{at.username}:{at.password}" if at.username else at.password,
        "db_name": at.database,
        "grpc_options": dict(_GRPC_OPTIONS),
    }
    return given | _tls_arguments(at)


def default_port(url: StoreUrl) -> int:
    """The port of an address that names none."""
    return _TLS_PORT if url.scheme == KIND.tls_scheme else KIND.default_port


def tls_way(url: StoreUrl) -> TlsWay:
    """How a client of this address makes its TLS. gRPC speaks HTTP/2 only."""
    return TlsWay(
        is_asked_for=url.scheme == KIND.tls_scheme,
        ca_file=url.ca_file,
        certificate=url.certificate,
        protocols=("h2",),
    )


def _tls_arguments(url: StoreUrl) -> dict[str, str]:
    """The files of TLS, in the words of pymilvus.

    `server_pem_path` is for `tlsMode` 1 of a server, where only the server shows a certificate. It
    would keep pymilvus from showing ours, so a certificate goes with `ca_pem_path` alone.
    """
    if url.certificate is None:
        return {"server_pem_path": url.ca_file} if url.ca_file else {}
    return {
        "ca_pem_path": url.ca_file,
        "client_pem_path": url.certificate.cert_file,
        "client_key_path": url.certificate.key_file,
    }

"""How a client of Redis is made of an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from is_db_bootstrap.settings.tls import refuse_weaker
from is_db_bootstrap.stores.redis.kind import AUTHORITIES

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl


def client_arguments(url: StoreUrl) -> dict[str, Any]:
    """What `from_url` of redis-py's clients is given; all that open one for us use this.

    A CA file, the settings' or the address's own, means that certificate and host name are checked.
    redis-py 5 checks no host name unless it is told to. Raises `ConfigurationError` for an address
    that weakens its CA file.
    """
    refuse_weaker(url)
    own = any(key in AUTHORITIES and value for key, value in url.query)
    given: dict[str, Any] = {"url": url.reveal()}
    if url.ca_file:
        given["ssl_ca_certs"] = url.ca_file
    if url.ca_file or own:
        given |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return given

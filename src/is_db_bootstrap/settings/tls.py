"""What an address may not say beside a CA file: nothing weakens the check of the certificate.

A CA file means two things. The server's certificate is checked with the file, and the certificate
bears the host's name. That holds for a file of the settings and for a file of the address itself.
Clients let an option of the address win over the file (redis-py, libpq), check no host name unless
they are told to (libpq with `sslmode=require`), or drop TLS without a word (pymilvus with
`http://`). So such an address is refused before anything is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.kind import TlsWish
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.settings.address import StoreUrl


def refuse_weaker(url: StoreUrl) -> None:
    """Raise `ConfigurationError` when the address contradicts a CA file, its own or another."""
    kind = KINDS[url.store]
    tls_schemes = {kind.tls_scheme, *kind.other_tls_schemes}
    if url.ca_file and kind.tls_scheme and url.scheme not in tls_schemes:
        raise ConfigurationError(
            f"{url.store}: a CA file is set, but {url.scheme}:// uses no TLS.",
            hint=f"Write {kind.tls_scheme}://, or leave the file out.",
        )
    for weakness in kind.tls_weaknesses(tls_wish(url)):
        raise ConfigurationError(
            f"{url.store}: a CA file is set for {url}, but the address says {weakness}.",
            hint="Leave that out of the address, or leave the CA file out.",
        )


def tls_wish(url: StoreUrl) -> TlsWish:
    """What the address and the settings say of TLS."""
    return TlsWish(url.scheme, url.query, url.ca_file)

"""What an address may not say beside a CA file or a certificate of ours.

Nothing weakens the check of the server's certificate.

A CA file means two things. The server's certificate is checked with the file, and the certificate
bears the host's name. That holds for a file of the settings and for a file of the address itself.
Clients let an option of the address win over the file (redis-py, libpq), check no host name unless
they are told to (libpq with `sslmode=require`), or drop TLS without a word (pymilvus with
`http://`). So such an address is refused before anything is opened.

A certificate of our own means the same. Who asks for that much does not speak to any server. Where
no CA file is named, the authorities of the system check the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings.tls_files import check_ca_file, check_certificate, is_encrypted
from is_db_bootstrap.stores.kind import TlsWish
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.settings.address import StoreUrl


def refuse_weaker(url: StoreUrl) -> None:
    """Raise `ConfigurationError` when the address contradicts what is set for its TLS.

    That is a CA file, the address's own or another, and a certificate of ours.
    """
    kind = KINDS[url.store]
    tls_schemes = {kind.tls_scheme, *kind.other_tls_schemes}
    wish = tls_wish(url)
    what = "client certificate" if url.certificate and not url.ca_file else "CA file"
    if wish.is_checked and kind.tls_scheme and url.scheme not in tls_schemes:
        raise ConfigurationError(
            f"{url.store}: a {what} is set, but {url.scheme}:// uses no TLS.",
            hint=f"Write {kind.tls_scheme}://, or leave the file out.",
        )
    for weakness in kind.tls_weaknesses(wish):
        raise ConfigurationError(
            f"{url.store}: a {what} is set for {url}, but the address says {weakness}.",
            hint=f"Leave that out of the address, or leave the {what} out.",
        )
    _refuse_second_certificate(url)
    if url.certificate and kind.client_needs_ca_file and not url.ca_file:
        raise ConfigurationError(
            f"{url.store}: a client certificate is set without a CA file, and the client of "
            f"{kind.label} would not show it.",
            hint=f"Set {kind.name.upper()}_CA_FILE. Public authorities are in "
            "/etc/ssl/certs/ca-certificates.crt on Debian.",
        )


def _refuse_second_certificate(url: StoreUrl) -> None:
    """Raise `ConfigurationError` when both the address and the settings name a certificate."""
    options = KINDS[url.store].certificate_options
    named = [name for name, value in url.query if name in options and value]
    if url.certificate and named:
        raise ConfigurationError(
            f"{url.store}: a client certificate is set for {url}, but the address says {named[0]}.",
            hint="Keep one of them.",
        )


def check_tls(url: StoreUrl) -> None:
    """Raise `ConfigurationError` for files of TLS that cannot be used with this address.

    The files are read, and nothing is opened on the network. The address decides whether the files
    are used, and whether an option weakens the check.
    """
    if url.ca_file:
        check_ca_file(url.store, url.ca_file)
    if url.certificate is not None:
        check_certificate(url.store, url.certificate)
        refuse_encrypted(url)
    refuse_weaker(url)


def refuse_encrypted(url: StoreUrl) -> None:
    """Raise `ConfigurationError` for an encrypted key whose store's client reads none."""
    kind = KINDS[url.store]
    if url.certificate is None or kind.opens_keys:
        return
    key_file = url.certificate.key_file
    if is_encrypted(Path(key_file).read_bytes()):
        raise ConfigurationError(
            f"{url.store}: the key {key_file} is encrypted, and the client of {kind.label} reads "
            "no encrypted key.",
            hint="Write it without a password, readable by you alone: "
            "(umask 077; openssl pkey -in KEY -out PLAIN).",
        )


def tls_wish(url: StoreUrl) -> TlsWish:
    """What the address and the settings say of TLS."""
    return TlsWish(url.scheme, url.query, url.ca_file, url.certificate is not None)


def tls_variables(url: StoreUrl) -> dict[str, str]:
    """The variables that say of TLS what the address itself leaves out. The password is among them.

    They go with the address to a program that reads settings as we do.
    """
    prefix = url.store.upper()
    ours = url.certificate
    found = {f"{prefix}_CA_FILE": url.ca_file}
    if ours is not None:
        found[f"{prefix}_CERT_FILE"] = ours.cert_file
        found[f"{prefix}_KEY_FILE"] = ours.key_file
        found[f"{prefix}_KEY_PASSWORD"] = ours.key_password
    return {name: value for name, value in found.items() if value}

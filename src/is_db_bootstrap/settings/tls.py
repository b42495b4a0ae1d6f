"""What an address may not say beside a CA file: nothing may weaken the check of the server's certificate.

A CA file means that the certificate is checked with it and that the certificate bears the host's name. Clients let
an option of the address win over the CA file (redis-py, libpq), or drop TLS without a word (pymilvus with `http://`).
So such an address is refused before anything is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError

if TYPE_CHECKING:
    from is_db_bootstrap.settings.address import StoreUrl

#: The only scheme of a store that has another one without TLS. Neo4j's `bolt://` and `neo4j://` speak TLS with a CA file.
_SECURE_SCHEMES = {"redis": "rediss", "milvus": "https"}
#: libpq's modes that are verify-full beside a CA file: `require` asks for TLS and says nothing against a check.
_POSTGRES_MODES = {"", "require", "verify-full"}
#: libpq's modes that connect in plain text when TLS, or the check of the certificate, fails.
_POSTGRES_UNCHECKED = {"disable", "allow", "prefer"}
#: Other authorities that redis-py would take from the address.
_REDIS_AUTHORITIES = ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data")
_FALSE = {"0", "f", "false", "n", "no"}


def refuse_weaker(url: StoreUrl) -> None:
    """Raise `ConfigurationError` when the address `url` contradicts its own CA file."""
    secure = _SECURE_SCHEMES.get(url.store)
    if url.ca_file and secure and url.scheme != secure:
        raise ConfigurationError(
            f"{url.store}: a CA file is set, but {url.scheme}:// uses no TLS.",
            hint=f"Write {secure}://, or leave the file out.",
        )
    for weakness in _weaknesses(url):
        raise ConfigurationError(
            f"{url.store}: a CA file is set for {url}, but the address says {weakness}.",
            hint="Leave that out of the address, or leave the CA file out.",
        )


def postgres_mode(url: StoreUrl) -> str:
    """The `sslmode` that the address asks for; empty when it names none. asyncpg writes `ssl` for it."""
    options = dict(url.query)
    if "asyncpg" not in url.scheme or "ssl" not in options:
        return options.get("sslmode", "")
    mode = options["ssl"]
    return {"true": "require", "false": "disable"}.get(mode.lower(), mode)


def _weaknesses(url: StoreUrl) -> Iterator[str]:
    """What the address says against its CA file, in its own words."""
    if url.store == "postgres":
        yield from _of_postgres(url)
    elif url.store == "redis":
        yield from _of_redis(url)
    elif url.store == "milvus" and url.ca_file:
        yield from (
            f"secure={value}"
            for key, value in url.query
            if key == "secure" and value.lower() in _FALSE
        )


def _of_postgres(url: StoreUrl) -> Iterator[str]:
    mode = postgres_mode(url)
    own = dict(url.query).get("sslrootcert", "")
    if url.ca_file and own and own != url.ca_file:
        yield f"sslrootcert={own}, which is another one"
    if url.ca_file and mode not in _POSTGRES_MODES:
        missing = "the host's name" if mode == "verify-ca" else "the server's certificate"
        yield f"sslmode={mode}, which does not check {missing}"
    if own and mode in _POSTGRES_UNCHECKED:
        yield f"sslmode={mode}, which goes on without it"


def _of_redis(url: StoreUrl) -> Iterator[str]:
    own = [(key, value) for key, value in url.query if key in _REDIS_AUTHORITIES and value]
    if not url.ca_file and not own:
        return
    for key, value in own:
        if url.ca_file and value != url.ca_file:
            yield f"{key}, which is another one"
    for key, value in url.query:
        if key == "ssl_cert_reqs" and value.lower() not in {"", "required"}:
            yield f"ssl_cert_reqs={value}, which does not check the server's certificate"
        if key == "ssl_check_hostname" and value.lower() in _FALSE:
            yield f"ssl_check_hostname={value}, which does not check the host's name"

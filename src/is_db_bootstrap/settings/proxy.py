"""The proxy that a client goes through because a variable of the environment says so.

Of the clients of stores only gRPC does that, unasked. It reads `grpc_proxy`, `https_proxy` and
`http_proxy`, in this order and in small letters, for every address. The first that is set counts,
also when it is empty. It must be `http://`. Hosts are excepted by the first of `no_grpc_proxy` and
`no_proxy` that is set: ends of names, addresses and networks, with commas between them (gRPC's
`http_proxy_mapper.cc`, tried with grpcio 1.85).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

#: The variables in the order in which gRPC asks for them.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy on the way to `host`. `variable` names it, and `exceptions` is where hosts go."""

    variable: str
    server: str
    host: str
    exceptions: str

    def __str__(self) -> str:
        """What messages call the proxy. A password in its address is left out."""
        return f"the proxy {self.server} ({self.variable})"

    @property
    def way_around(self) -> str:
        """What a person does when no proxy belongs there, as a sentence."""
        return f"If no proxy belongs in between, add {self.host} to {self.exceptions}."


def grpc_proxy(host: str) -> Proxy | None:
    """The proxy through which gRPC of this process goes to `host`. None when it goes straight."""
    variable = _first_set(_PROXIES)
    proxy = urlsplit(os.environ.get(variable, "").strip())
    if proxy.scheme != "http" or not proxy.hostname:
        return None
    exceptions = _first_set(_EXCEPTIONS)
    if _is_excepted(host, os.environ.get(exceptions, "")):
        return None
    server = f"http://{proxy.netloc.rpartition('@')[2]}"
    return Proxy(variable, server, host, exceptions or _EXCEPTIONS[-1])


def web_proxy(url: str) -> Proxy | None:
    """The proxy through which Python's own modules and requests go to `url`. Else None.

    They read `http_proxy`, `https_proxy` and `all_proxy`, in small and in capital letters.
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host = parts.hostname or ""
    for kind in (parts.scheme, "all"):
        server = getproxies().get(kind, "")
        if not server or proxy_bypass(host):
            continue
        names = (f"{kind}_proxy", f"{kind}_proxy".upper())
        variable = next((name for name in names if os.environ.get(name) == server), names[0])
        scheme, _, netloc = server.rpartition("://")
        address = f"{scheme or 'http'}://{netloc.rpartition('@')[2]}"
        return Proxy(variable, address, host, "no_proxy")
    return None


def proxy_variables() -> Iterator[tuple[str, str]]:
    """Each variable of this process about proxies, with its value and without passwords."""
    kinds = ("grpc", "http", "https", "all", "no_grpc", "no")
    names = [f"{kind}_proxy" for kind in kinds]
    for name in (*names, *(name.upper() for name in names)):
        value = os.environ.get(name, "")
        if value:
            scheme, mark, rest = value.rpartition("://")
            yield name, f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _first_set(names: tuple[str, ...]) -> str:
    return next((name for name in names if name in os.environ), "")


def _is_excepted(host: str, exceptions: str) -> bool:
    for entry in filter(None, map(str.strip, exceptions.split(","))):
        if host.lower().endswith(entry.lower()) or _is_in_network(host, entry):
            return True
    return False


def _is_in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False

"""The hosts of an address of PostgreSQL, in every form, and which of them a run may work on.

libpq and SQLAlchemy write several hosts in ways that differ:

    postgresql://user@h1:5401,h2:5402/db                 libpq, asyncpg
    postgresql://user@/db?host=h1,h2&port=5401,5402      libpq, SQLAlchemy
    postgresql://user@/db?host=h1:5401&host=h2:5402      SQLAlchemy
    postgresql://user@/db?host=h1:5401,h2:5402           SQLAlchemy

A run takes all of them. What stands in the query goes before what stands in front of the path.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg import pq

from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from is_db_bootstrap.settings import StoreUrl

DEFAULT_PORT = "5432"
_LAST_PORT = 65535
#: The option that says which of several servers is wanted.
WISH = "target_session_attrs"
#: Words of that option which may lead to a standby, and those which lead to nothing else.
OF_STANDBY = frozenset({"any", "standby", "read-only", "prefer-standby"})
_NEVER_PRIMARY = frozenset({"standby", "read-only"})
#: The word that every version of libpq and asyncpg knows.
_USUAL_WISH = "read-write"
#: The first libpq with the word `primary`. It asks whether the server is a standby, and not
#: whether the role may write by default, which is another fault.
_KNOWS_PRIMARY = 140000
#: What a standby means for a run.
WAY_OUT = (
    "Give the address of the primary, or those of all servers, such as h1:5432,h2:5432. Wait if a "
    "fail-over is going on. To look at a standby with plan, verify or status, add "
    f"{WISH}=any to the address."
)
#: What to do about a standby that was asked for, where something is to be changed.
FOR_APPLY = f"For apply and selftest, leave {WISH} out and give the address of the primary."
#: A host with a port behind it, in the value of an option.
_HOST_AND_PORT = re.compile(r"(?P<host>[^:/@\[\]]+|\[[^\]]+\])(?::(?P<port>\d+))?")
#: How psycopg tells of each attempt, where there were several (`Connection.connect`).
_ATTEMPT = re.compile(
    r"^- host: '?(?P<host>[^',]*)'?, port: '?(?P<port>[^',]*)'?, "
    r"hostaddr: '?(?P<address>[^',]*)'?: (?P<said>.*?)(?=^- host: |\Z)",
    re.MULTILINE | re.DOTALL,
)
#: How libpq calls a standby that was not asked for, and how our messages do.
_HOT_STANDBY = "server is in hot standby mode"
IS_STANDBY = "is a standby (read-only)"


@dataclass(frozen=True, slots=True)
class Host:
    """One of the servers of an address. `name` is empty where only `hostaddr` names the server.

    `hostaddr` is the numeric address that libpq connects to instead of looking up the name.
    """

    name: str
    port: str
    hostaddr: str = ""


def hosts_of(url: StoreUrl) -> list[Host]:
    """The servers of an address, in their order.

    Raises `ConfigurationError` when there are several ports, and not one for each host, and for
    what is no port.
    """
    found = [Host(host, port) for host, port in url.servers]
    if said := _values(url, "host"):
        before = found * len(said) if len(found) == 1 else found
        ports = [host.port for host in before] if len(before) == len(said) else [""] * len(said)
        read = map(_read_host, said)
        found = [
            replace(host, port=host.port or port) for host, port in zip(read, ports, strict=True)
        ]
    addresses = _values(url, "hostaddr")
    if len(found) == 1 and not found[0].name and len(addresses) > 1:
        found *= len(addresses)
    if ports := _values(url, "port"):
        if len(ports) not in {1, len(found)}:
            raise ConfigurationError(
                f"postgres: {url} names {len(found)} hosts and {len(ports)} ports.",
                hint="Give one port for all hosts, or one for each: ?host=h1,h2&port=5401,5402.",
            )
        ports = ports * len(found) if len(ports) == 1 else ports
        pairs = zip(found, ports, strict=True)
        found = [replace(host, port=port or host.port) for host, port in pairs]
    found = [replace(host, port=host.port or DEFAULT_PORT) for host in found]
    for host in found:
        _refuse_no_port(url, host.port)
    if len(addresses) != len(found):
        return found
    pairs = zip(found, addresses, strict=True)
    return [replace(host, hostaddr=address) for host, address in pairs]


def _refuse_no_port(url: StoreUrl, port: str) -> None:
    """Raise `ConfigurationError` for what stands in the place of a port and is none."""
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= _LAST_PORT):
        raise ConfigurationError(
            f"postgres: {url} has the port {visible(port)}, which is not a port (1 to 65535).",
            hint="Correct the port.",
        )


def place_arguments(url: StoreUrl) -> dict[str, str]:
    """Hosts and ports in libpq's words, and which of several servers is wanted.

    Without a wish of the address itself, the primary of several servers is wanted.
    """
    hosts = hosts_of(url)
    names = [host.name for host in hosts]
    found = {
        "host": ",".join(names) if any(names) else "",
        "port": ",".join(host.port for host in hosts),
    }
    if len(hosts) > 1:
        found[WISH] = wish_of_primary()
    return found


def wish_of_primary() -> str:
    """The word that leads to a primary, for the libpq that is here."""
    return "primary" if pq.version() >= _KNOWS_PRIMARY else _USUAL_WISH


def may_be_standby(url: StoreUrl) -> bool:
    """Whether the address asks for a server that cannot be written to, or for any server."""
    return _last(url, WISH) in OF_STANDBY


def has_more_addresses(host: str) -> bool:
    """Whether a name leads to several addresses, of which one may be the primary's."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return False
    return len({address[4][0] for address in found}) > 1


def standby_reached(
    url: StoreUrl, where: str, *, is_to_change: bool = False
) -> StoreUnavailable | ConfigurationError:
    """The error of a server that only repeats what another one writes.

    It is no lasting one, because a standby may be promoted at any moment. An address that asks for
    standbys only will never lead to a server that can be changed: `is_to_change` says that this
    was meant.
    """
    wish = _last(url, WISH)
    if is_to_change and wish in _NEVER_PRIMARY:
        return ConfigurationError(
            f"postgres: {url} asks for a standby ({WISH}={wish}), and {where} {IS_STANDBY}, so "
            "nothing can be applied there.",
            hint=f"Leave {WISH} out of the address that apply is given.",
        )
    unavailable = StoreUnavailable(
        "postgres", f"{url} leads to {where}, which {IS_STANDBY}.", hint=WAY_OUT
    )
    return unavailable.at(Rung.WRITABLE)


def place_of(info: Any) -> str:
    """Host and port of a session, by psycopg's `info`."""
    host = info.host or info.hostaddr
    return f"[{host}]:{info.port}" if ":" in host else f"{host}:{info.port}"


def attempts_told(text: str) -> str:
    """What became of each host, from psycopg's text. Empty when there was one attempt."""
    found = []
    for each in _ATTEMPT.finditer(text):
        said = " ".join(each["said"].split())
        said = said.rsplit("failed: ", 1)[-1].removeprefix("connection failed: ")
        said = said.replace(_HOT_STANDBY, IS_STANDBY)
        address = "" if each["address"] in {"", "None", each["host"]} else f" ({each['address']})"
        place = f"{each['host'] or each['address']}:{each['port']}{address}"
        found.append(f"{place} {said}" if said == IS_STANDBY else f"{place}: {said}")
    return "; ".join(found)


def as_sqlalchemy_writes(url: StoreUrl) -> StoreUrl:
    """The same address as SQLAlchemy reads it, which a team's `env.py` gives to it.

    SQLAlchemy takes the part behind the first colon of several hosts for a port. Its own form has
    them in the query (SQLAlchemy's page "PostgreSQL", "Specifying multiple fallback hosts"). The
    primary is asked for, because `env.py` has to reach the server that the run has reached.
    """
    hosts = hosts_of(url)
    if len(hosts) == 1:
        return url
    others = [pair for pair in url.query if pair[0] not in {"host", "port"}]
    if not _last(url, WISH):
        others.append((WISH, _USUAL_WISH))
    places = [("host", ",".join(host.name for host in hosts))]
    places.append(("port", ",".join(host.port for host in hosts)))
    return replace(url, hosts="", query=(*places, *others))


def without_places(options: Mapping[str, str]) -> dict[str, str]:
    """The options of an address without those that `place_arguments` has read."""
    return {name: value for name, value in options.items() if name not in {"host", "port"}}


def _values(url: StoreUrl, option: str) -> list[str]:
    """All values of an option, which may be there more than once, and hold commas."""
    found = [value for name, value in url.query if name == option and value]
    return ",".join(found).split(",") if found else []


def _last(url: StoreUrl, option: str) -> str:
    return next((value for name, value in reversed(url.query) if name == option), "")


def _read_host(text: str) -> Host:
    """A host as an option has it: a name, an address, a socket's folder; a port may follow."""
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        return Host(text, "")
    return Host(match["host"].strip("[]"), match["port"] or "")

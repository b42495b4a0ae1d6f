"""Variables that Kubernetes and Docker set for other containers, and that look like settings.

Kubernetes sets `DB_PORT=tcp://10.0.0.1:5432` in each container beside a service called `db`
(https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables), and so did
the links of Docker, with `DB_NAME=/app/db` (https://docs.docker.com/engine/network/links/). Nobody
has meant them as settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from is_db_bootstrap.stores.kinds import KINDS

#: The value of a link. The host is a number, a name, or an IPv6 address.
_LINK = re.compile(r"(?:tcp|udp|sctp)://(?P<host>[^/@\s]+):(?P<port>\d{1,5})")
#: The name that Docker gave a link: `/container/alias`.
_LINK_NAME = re.compile(r"(?:/[\w.-]+){2}")
#: What stands behind the name of a service.
_NAMES = re.compile(
    r"\w+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_PORT, _NAME = "_PORT", "_NAME"
#: How the names of our settings begin. Other links are of no interest.
_PREFIXES = (
    *(f"{name.upper()}_" for name in KINDS),
    *{
        f"{part.partition('_')[0]}_"
        for kind in KINDS.values()
        for part in kind.part_variables.values()
    },
    "IS_DB_BOOTSTRAP_",
)


def links_of(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that are links: those whose name and value both say so.

    Only names that begin as those of our settings are looked at.
    """
    ports = {
        name: value
        for name, value in variables.items()
        if name.startswith(_PREFIXES) and name.endswith(_PORT) and _LINK.fullmatch(value)
    }
    names = {
        name: variables[name]
        for port in ports
        if (name := port.removesuffix(_PORT) + _NAME) in variables
        and _LINK_NAME.fullmatch(variables[name])
    }
    return {**ports, **names}


def is_link_name(name: str) -> bool:
    """Whether a variable has the name of a part of a link, such as `DB_SERVICE_HOST`."""
    return _NAMES.fullmatch(name) is not None


def service_of(prefix: str, variables: Mapping[str, str]) -> str:
    """`host:port` of the service that is called as `prefix` says, such as `REDIS`. Else empty."""
    host = variables.get(f"{prefix}_SERVICE_HOST", "")
    port = variables.get(f"{prefix}_SERVICE_PORT", "")
    if host and port.isdecimal():
        return f"{host}:{port}"
    found = _LINK.fullmatch(variables.get(f"{prefix}{_PORT}", ""))
    return f"{found['host']}:{found['port']}" if found else ""

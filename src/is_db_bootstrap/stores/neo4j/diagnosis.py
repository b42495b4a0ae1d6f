"""What `doctor` tells of a Neo4j server. Everything is read, and nothing is locked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import neo4j
from neo4j import exceptions as raised

from is_db_bootstrap.grant_list import GrantWish, Purpose
from is_db_bootstrap.results import Diagnosis, Fact, Privilege, ServerInfo
from is_db_bootstrap.stores.neo4j import grants
from is_db_bootstrap.stores.neo4j.connection import addresses_of
from is_db_bootstrap.stores.neo4j.kind import KIND
from is_db_bootstrap.stores.neo4j.privileges import Privileges

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

#: A role that changes the schema. The name is a placeholder.
_APPLIES = GrantWish("ROLE", frozenset({Purpose.APPLY}))

Rows = Sequence[Mapping[str, Any]]

_CLOCK = "RETURN datetime.realtime().epochMillis / 1000.0 AS clock"
_DATABASES = "SHOW DATABASES YIELD name, address, role, access, currentStatus, writer, home"
#: The major versions of servers that each major version of the driver is made for, and since when
#: servers are named after years (Neo4j's "Supported versions" of its drivers).
_SERVERS_OF_DRIVER = {"4": ("4",), "5": ("4", "5", "year"), "6": ("4", "5", "year")}
_FIRST_YEAR = 2025


def diagnosis(
    url: StoreUrl,
    server: ServerInfo,
    privileges: Privileges,
    ask: Callable[[str, str | None], Rows],
    protocol: str,
) -> Diagnosis:
    """What the server tells. `ask` sends a query to a database, or to ours when that is None."""
    asked_at = time.time()
    [row] = ask(_CLOCK, None)
    answered_at = time.time()
    unseen: list[str] = []
    databases: Rows = ()
    try:
        databases = ask(_DATABASES, "system")
    except raised.Neo4jError as exc:
        unseen.append(f"the databases of the server ({type(exc).__name__})")
    return Diagnosis(
        facts=tuple(_facts(server, databases, protocol)),
        clock_difference_s=row["clock"] - (asked_at + answered_at) / 2,
        between=_between(url, databases, unseen),
        mismatches=_judged_mismatches(server, unseen),
        privileges=(_for_apply(url.database, privileges),),
        unseen=tuple(unseen),
    )


def _for_apply(database: str, privileges: Privileges) -> Privilege:
    """What apply needs to change the schema, with the statements of the command `grants`."""
    wanted = [each for each in grants.needed(_APPLIES) if each.is_of_schema]
    return Privilege(
        "create indexes and constraints",
        privileges.may_change_schema,
        " ".join(each.statement(_APPLIES.role, database) for each in wanted),
        Purpose.APPLY.value,
    )


def _facts(server: ServerInfo, databases: Rows, protocol: str) -> Iterator[Fact]:
    yield Fact("server", f"Neo4j {server.version} {server.edition}")
    yield Fact("client", f"neo4j {neo4j.__version__}, Bolt {protocol}")
    for row in databases:
        home = ", the home database" if row["home"] else ""
        writer = "a writer" if row["writer"] else "no writer"
        yield Fact(
            f"database {row['name']}",
            f"{row['currentStatus']}, {row['access']}, {row['role']}, {writer},"
            f" {row['address']}{home}",
        )
    addresses = {row["address"] for row in databases if row["address"]}
    if addresses:
        yield Fact("kind", "standalone" if len(addresses) == 1 else f"{len(addresses)} servers")


def _judged_mismatches(server: ServerInfo, unseen: list[str]) -> tuple[str, ...] | None:
    """The versions that do not fit. None where nobody knows, which goes to `unseen`."""
    driver = neo4j.__version__
    if driver.partition(".")[0] in _SERVERS_OF_DRIVER and re.match(r"\d+", server.version):
        return tuple(mismatches(driver, server.version))
    unseen.append(f"whether the driver neo4j {driver} fits a server {server.version}")
    return None


def mismatches(driver: str, server: str) -> Iterator[str]:
    """Whether a driver is made for a server of this version."""
    made_for = _SERVERS_OF_DRIVER.get(driver.partition(".")[0])
    number = re.match(r"\d+", server)
    if made_for is None or number is None:
        return
    kind = "year" if int(number[0]) >= _FIRST_YEAR else number[0]
    if kind not in made_for:
        yield (
            f"The driver neo4j {driver} is not made for a server {server}. Install the newest"
            f" driver of the extra {KIND.client_extra}."
        )


def _between(url: StoreUrl, databases: Rows, unseen: list[str]) -> tuple[str, ...] | None:
    """What the address that a server calls its own tells of the way to it.

    None where no such address was told, which goes to `unseen`.
    """
    ours = addresses_of(url)
    theirs = {row["address"].lower() for row in databases if row["address"]}
    if not theirs:
        unseen.append("what stands in between, which the server's own address would tell")
        return None
    if ours & theirs:
        return ()
    told = (
        f"The server calls itself {', '.join(sorted(theirs))}, and was reached as"
        f" {', '.join(sorted(ours))}. Through a port-forward, a proxy or a NAT only bolt://"
        " works, unless server.bolt.advertised_address is what clients use."
    )
    return (told,)

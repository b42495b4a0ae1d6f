"""What `doctor` tells of a Milvus server. Everything is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pymilvus
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.grant_list import Purpose
from is_db_bootstrap.results import Diagnosis, Fact, Privilege

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.milvus.releases import Release
    from is_db_bootstrap.stores.milvus.server import Server

#: The role that may do everything.
_ADMIN = "admin"
_APPLY = Purpose.APPLY.value
#: The groups of privileges of Milvus 2.5 are no way: none of them has all that a run needs
#: (milvus.io/docs, "Built-in privilege groups": `CollectionAdmin` may create no collection).
_GRANT = "is-db-bootstrap grants --only milvus prints the calls for its role."


def diagnosis(url: StoreUrl, server: Server) -> Diagnosis:
    """What the server tells."""
    proxy = url.proxy
    client = server.client
    release = server.told_release
    names = client.list_collections(**server.look_options)
    unseen = [
        "the clock, which Milvus does not tell",
        "whether a quota denies writes, which Milvus tells only when it is written to",
        "what stands in between besides a proxy that a variable of the environment names",
    ]
    return Diagnosis(
        facts=(
            Fact("server", release.label),
            Fact("client", f"pymilvus {pymilvus.__version__}, grpcio {grpc.__version__}"),
            Fact("database", url.database or "default"),
            Fact("collections", str(len(names))),
        ),
        clock_difference_s=None,
        between=(f"{proxy}. {proxy.way_around}",) if proxy is not None else None,
        mismatches=_judged_mismatches(release, unseen),
        privileges=(privilege_of(url, server),),
        unseen=tuple(unseen),
    )


def _judged_mismatches(release: Release, unseen: list[str]) -> tuple[str, ...] | None:
    """The versions that do not fit. None where nobody knows, which goes to `unseen`.

    Milvus Lite has numbers of its own, and a build of a branch is named after the branch.
    """
    if not release.is_lite and _release(release.version):
        return tuple(mismatches(pymilvus.__version__, release.version))
    unseen.append(f"whether pymilvus {pymilvus.__version__} fits {release.label}")
    return None


def mismatches(client: str, server: str) -> Iterator[str]:
    """Pymilvus is made for servers of its own major and minor version (its README's table)."""
    ours, theirs = _release(client), _release(server)
    if ours and theirs and ours != theirs:
        yield (
            f"pymilvus {client} is made for servers {'.'.join(ours)}.x, and this one is {server}."
            f" Install pymilvus {'.'.join(theirs)}.x if a call is refused."
        )


def _release(version: str) -> tuple[str, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return found.groups() if found else ()


def privilege_of(url: StoreUrl, server: Server) -> Privilege:
    """Whether our user may create collections, in words. Other users than root may not ask."""
    if server.is_lite:
        return Privilege("Milvus Lite has no users, so everything is allowed", is_granted=True)
    if not url.username and not url.password:
        return Privilege("the server asks for no login, so everything is allowed", is_granted=True)
    if not url.username:
        return Privilege("a token's privileges are not told by the server", None, _GRANT, _APPLY)
    try:
        told: Any = server.client.describe_user(url.username, **server.look_options)
    except (MilvusException, grpc.RpcError):
        return Privilege(f"the roles of {url.username} are not told to it", None, _GRANT, _APPLY)
    roles = sorted(told.get("roles", ())) if isinstance(told, dict) else []
    if _ADMIN in roles:
        return Privilege(f"{url.username} has the role {_ADMIN}", is_granted=True)
    listed = ", ".join(roles) or "none"
    return Privilege(
        f"create collections, aliases and indexes, with the roles {listed}", None, _GRANT, _APPLY
    )

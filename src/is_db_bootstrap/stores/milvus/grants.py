"""The privileges that a role of a Milvus needs, as calls of pymilvus.

Milvus has no language of statements, so an administrator runs the calls with a `client` of their
own. The server checks a call before it looks whether the collection exists (privilege interceptor
of its proxy), which is how `rights` finds out what a user may do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.grant_list import Grant, GrantWish, RoleGrants
from is_db_bootstrap.stores.milvus.kind import KIND
from is_db_bootstrap.stores.milvus.privileges import Privilege, everywhere, on_collection

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, Collection

#: These ask for the right to load, and newer ones for `GetLoadState`, to see how far a load is
#: (milvus-proto from v2.3.2 until v2.4.9).
_LOOKS_BY_LOADING = "Milvus 2.3 to 2.4.9"


def role_grants(blueprint: Blueprint, wish: GrantWish, database: str) -> RoleGrants:
    """The privileges of one role, which is granted to a user of the same name.

    Raises `ConfigurationError` for a name that Milvus does not take.
    """
    role = wish.role
    if not re.fullmatch(r"[A-Za-z_]\w*", role, re.ASCII):
        raise ConfigurationError(
            f"milvus: a role cannot be called {role}.",
            hint="Letters, digits and underscores make its name.",
        )
    made = [
        Grant(f"client.create_role(role_name={role!r})", "the role itself"),
        Grant(
            f"client.grant_role(user_name={role!r}, role_name={role!r})",
            "so that the user of the same name has the role",
        ),
    ]
    kinds = [*_looking(blueprint.collections)]
    if wish.applies:
        kinds += _making(blueprint.collections)
    granted = [
        Grant(privilege.statement(role, database), reason, only_in=only_in)
        for privilege, reason, only_in in _without_doubles(kinds)
    ]
    return RoleGrants(
        KIND.name,
        role,
        tuple(sorted(wish.purposes)),
        client="Python, with client = pymilvus.MilvusClient(URI, token=…)",
        comment="#",
        grants=(*made, *granted),
        first=tuple(_first(role)),
        notes=(_public(role),),
    )


_Needed = tuple[Privilege, str, str]


def _without_doubles(needed: Sequence[_Needed]) -> Iterator[_Needed]:
    """Each privilege once. One that every version needs is not told for an older one too."""
    always = {privilege for privilege, _, only_in in needed if not only_in}
    seen: set[Privilege] = set()
    for privilege, reason, only_in in needed:
        if privilege in seen or (only_in and privilege in always):
            continue
        seen.add(privilege)
        yield privilege, reason, only_in


def _looking(collections: Sequence[Collection]) -> Iterator[_Needed]:
    for each in collections:
        if each.alias:
            yield everywhere("DescribeAlias"), "to see where an alias leads", ""
            yield from _finding_home(each.name)
        if each.load:
            reason = f"to see whether {each.name} is loaded"
            yield on_collection("GetLoadState", each.name), reason, ""
            yield on_collection("Load", each.name), reason, _LOOKS_BY_LOADING
        if each.partition_names:
            reason = f"to see the partitions of {each.name}"
            yield on_collection("ShowPartitions", each.name), reason, ""


def _finding_home(name: str) -> Iterator[_Needed]:
    """What is asked while an alias is missing, as after a run that was killed before it made it.

    `Server.alias_home` and `MemoryProperties._parts` ask it. Rows of a collection that is loaded
    are counted by a query, and others by the statistics.
    """
    yield everywhere("ListAliases"), "to see whether an earlier version is in use", ""
    reason = f"to see whether {name} has rows, while its alias is missing"
    yield on_collection("GetLoadState", name), reason, ""
    yield on_collection("Load", name), reason, _LOOKS_BY_LOADING
    yield on_collection("GetStatistics", name), reason, ""
    yield on_collection("Query", name), reason, ""


def _making(collections: Sequence[Collection]) -> Iterator[_Needed]:
    if not collections:
        return
    yield everywhere("CreateCollection"), "to make collections, and to set properties", ""
    trial = "a collection is made for trial first, and dropped again"
    yield everywhere("DropCollection"), trial, ""
    yield on_collection("CreateIndex"), f"to make indexes: {trial}", ""
    for each in collections:
        yield from _making_one(each)


def _making_one(each: Collection) -> Iterator[_Needed]:
    if each.alias:
        yield everywhere("CreateAlias"), "to make an alias", ""
    if each.partition_names:
        yield on_collection("CreatePartition", each.name), f"to make partitions of {each.name}", ""
    if each.load:
        yield on_collection("Load", each.name), f"to load {each.name}", ""


def _first(role: str) -> Iterator[str]:
    yield (
        "Milvus checks privileges where common.security.authorizationEnabled is true. Milvus Lite "
        "has no users, so it needs none of this."
    )
    yield (
        f"The user comes first: client.create_user(user_name={role!r}, password=…) with a "
        "password of yours."
    )


def _public(role: str) -> str:
    return (
        "Each user also has the role public, which may DescribeCollection (Global), "
        "ShowCollections (Global) and IndexDetail (Collection). Where an administrator took that "
        f"away, grant {role} these three too."
    )

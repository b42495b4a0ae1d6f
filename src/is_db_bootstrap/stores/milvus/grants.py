"""The privileges that a role of a Milvus needs, as calls of pymilvus.

Milvus has no language of statements, so an administrator runs the calls with a `client` of their
own. The server checks a call before it looks whether the collection exists (privilege interceptor
of its proxy), which is how `rights` finds out what a user may do.

The names of privileges are those of `ObjectPrivilege` in milvus-proto (`common.proto`). Which one
a call needs stands beside its message there (`privilege_ext_obj` in `milvus.proto`). Both were read
on the branches 2.3 to 2.6 and 3.0. To set properties of a collection (`AlterCollectionRequest`)
needs `CreateCollection` in each of them: there is no privilege called after it. Milvus before 2.3.5
has no privileges on aliases and partitions, and asks for none there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.grant_list import Grant, GrantWish, RoleGrants
from is_db_bootstrap.stores.milvus.kind import KIND

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, Collection

#: These ask for the right to load, and newer ones for `GetLoadState`, to see how far a load is
#: (milvus-proto from v2.3.2 until v2.4.9).
_LOOKS_BY_LOADING = "Milvus 2.3 to 2.4.9"
_WHOLE = "*"
_DEFAULT_DATABASE = "default"


@dataclass(frozen=True, slots=True)
class Privilege:
    """A privilege by the names that Milvus gives it. `name` is a collection, or `*`."""

    object_type: str
    privilege: str
    name: str = _WHOLE

    def statement(self, role: str, database: str) -> str:
        """The call that grants it to a role."""
        return (
            f"client.grant_privilege(role_name={role!r}, object_type={self.object_type!r}, "
            f"privilege={self.privilege!r}, object_name={self.name!r}, "
            f"db_name={(database or _DEFAULT_DATABASE)!r})"
        )

    @property
    def told(self) -> str:
        """The privilege in a sentence."""
        place = "" if self.name == _WHOLE else f" on {self.name}"
        return f"{self.privilege}{place}"


#: The privileges that are granted on a collection, and on a user (`privilege_ext_obj`, as above).
#: Others are granted on the whole database.
_OF_COLLECTIONS = frozenset(
    {
        "AddCollectionField",
        "AlterCollectionSchema",
        "Compaction",
        "CreateIndex",
        "CreatePartition",
        "CreateSnapshot",
        "Delete",
        "DescribeSnapshot",
        "DropIndex",
        "DropPartition",
        "DropSnapshot",
        "Flush",
        "GetFlushState",
        "GetLoadState",
        "GetLoadingProgress",
        "GetStatistics",
        "HasPartition",
        "Import",
        "IndexDetail",
        "Insert",
        "ListSnapshots",
        "Load",
        "LoadBalance",
        "Query",
        "RefreshExternalCollection",
        "Release",
        "RestoreSnapshot",
        "Search",
        "ShowPartitions",
        "Upsert",
    }
)
_OF_USERS = frozenset({"SelectUser", "UpdateUser"})
#: How a server refuses a call: "PrivilegeCreateAlias: permission deny to somebody".
_REFUSED = re.compile(r"Privilege(?P<privilege>\w+): permission den\w+ to (?P<user>[^\s.,'>)]+)")


def refused_privilege(message: str, collection: str = "") -> Privilege | None:
    """The privilege for lack of which a server has refused a call. None for other messages.

    `collection` is the one that the call was about. Empty: any.
    """
    found = _REFUSED.search(message)
    if found is None:
        return None
    if found["privilege"] in _OF_COLLECTIONS:
        return on_collection(found["privilege"], collection or _WHOLE)
    if found["privilege"] in _OF_USERS:
        return Privilege("User", found["privilege"])
    return everywhere(found["privilege"])


def refused_user(message: str) -> str:
    """The user whom a server has refused a call. Empty for other messages."""
    found = _REFUSED.search(message)
    return found["user"] if found else ""


def everywhere(privilege: str) -> Privilege:
    """A privilege on the whole database."""
    return Privilege("Global", privilege)


def on_collection(privilege: str, name: str = _WHOLE) -> Privilege:
    """A privilege on one collection, or on all."""
    return Privilege("Collection", privilege, name)


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
        if each.load:
            reason = f"to see whether {each.name} is loaded"
            yield on_collection("GetLoadState", each.name), reason, ""
            yield on_collection("Load", each.name), reason, _LOOKS_BY_LOADING
        if each.partition_names:
            reason = f"to see the partitions of {each.name}"
            yield on_collection("ShowPartitions", each.name), reason, ""


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

"""The privileges of Milvus, by the names that a server gives them.

The names of privileges are those of `ObjectPrivilege` in milvus-proto (`common.proto`). Which one
a call needs stands beside its message there (`privilege_ext_obj` in `milvus.proto`). Both were read
on the branches 2.3 to 2.6 and 3.0. To set properties of a collection (`AlterCollectionRequest`)
needs `CreateCollection` in each of them: there is no privilege called after it. Milvus before 2.3.5
has no privileges on aliases and partitions, and asks for none there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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

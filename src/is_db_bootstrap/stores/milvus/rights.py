"""What this connection's user may do, found out before anything is made.

A role may not read its own privileges (`SelectOwnership`, Milvus 2.3.5). So each call is sent in a
form that changes nothing: about a collection that does not exist, or without what the call needs.
The proxy compares a call with the user's privileges before it looks at anything else.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.errors import AccessDenied
from is_db_bootstrap.stores.milvus.errors import STORE
from is_db_bootstrap.stores.milvus.privileges import Privilege, refused_privilege

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.milvus.server import Server

#: No name of a partition may have this character.
_NO_PARTITION = "%"


def refuse_missing(
    server: Server, pending: Iterable[tuple[Collection, Change]], user: str, database: str
) -> None:
    """Raise `AccessDenied` when the user may not make these changes. Nothing is changed.

    Every privilege that is missing is named at once. What a server answers besides is no refusal.
    """
    missing: dict[Privilege, None] = {}
    for call, name in _calls(server, pending):
        try:
            call()
        except (MilvusException, grpc.RpcError) as exc:
            if found := refused_privilege(str(exc), name):
                missing[found] = None
    if not missing:
        return
    role = _role_of(server, user)
    statements = "; ".join(each.statement(role, database) for each in missing)
    raise AccessDenied(
        STORE,
        f"{user} lacks {', '.join(each.told for each in missing)}.",
        hint=f"Let an administrator run: {statements}",
    )


def _role_of(server: Server, user: str) -> str:
    """The role to which a privilege is granted: the user's first one, or one of the user's name."""
    try:
        answer = server.client.describe_user(user, **server.look_options)
    except (MilvusException, grpc.RpcError):
        return user
    roles = [role for role in answer.get("roles") or () if role != "public"]
    return roles[0] if roles else user


_Call = Callable[[], Any]


def _calls(
    server: Server, pending: Iterable[tuple[Collection, Change]]
) -> Iterator[tuple[_Call, str]]:
    """Each call that is needed, once, with the collection on which its privilege may be granted."""
    planned = list(pending)
    new = {declared.name for declared, change in planned if change.kind == "collection"}
    seen: set[tuple[str, str]] = set()
    for declared, change in planned:
        is_new = declared.name in new
        for kind, call, name in _calls_of(server, declared, change.kind, is_new=is_new):
            if (kind, name) not in seen:
                seen.add((kind, name))
                yield call, name


def _calls_of(
    server: Server, declared: Collection, kind: str, *, is_new: bool
) -> Iterator[tuple[str, _Call, str]]:
    """The calls of one change: what each is, itself, and its collection. Empty: all of them.

    `is_new` says that the declared collection is still to be made. pymilvus asks for a collection
    whose partitions are loaded, so such a call about one that is missing does not reach the server.
    """
    client, options = server.client, server.look_options
    nobody = f"is_db_bootstrap_rights_{uuid.uuid4().hex[:12]}"
    if kind == "collection":
        without_fields = client.create_schema()
        create = client.create_collection
        yield "create", lambda: create(nobody, schema=without_fields, **options), ""
        yield "drop", lambda: client.drop_collection(nobody, **options), ""
    if kind in {"collection", "index"} and declared.indexes:
        yield "index", lambda: _create_index(client, nobody, options), ""
    if kind == "alias":
        yield "alias", lambda: client.create_alias(nobody, f"{nobody}_alias", **options), ""
    if kind == "property":
        alter = client.alter_collection_properties
        yield "property", lambda: alter(nobody, {"is_db_bootstrap": ""}, **options), ""
    name = declared.name
    if kind == "partition":
        make = client.create_partition
        yield "partition", lambda: make(name, _NO_PARTITION, **options), name
    if kind == "load" and is_new:
        yield "load", lambda: client.load_collection(name, **options), name
    elif kind == "load":
        load = client.load_partitions
        yield "load", lambda: load(name, [f"{nobody}_part"], **options), name


def _create_index(client: Any, collection: str, options: dict[str, Any]) -> None:
    wanted = client.prepare_index_params()
    wanted.add_index(field_name="none", index_type="FLAT", metric_type="L2")
    client.create_index(collection, wanted, sync=False, **options)

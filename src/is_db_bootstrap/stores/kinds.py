"""The registry of stores. Reading the registry imports no client library."""

from __future__ import annotations

from collections.abc import Mapping

from is_db_bootstrap.names import StoreName
from is_db_bootstrap.stores.kind import StoreKind
from is_db_bootstrap.stores.milvus.kind import KIND as MILVUS
from is_db_bootstrap.stores.neo4j.kind import KIND as NEO4J
from is_db_bootstrap.stores.postgres.kind import KIND as POSTGRES
from is_db_bootstrap.stores.redis.kind import KIND as REDIS

#: The kinds by name, in store order: locks are taken, and failures are reported, in this order.
KINDS: Mapping[StoreName, StoreKind] = {
    kind.name: kind for kind in (POSTGRES, NEO4J, MILVUS, REDIS)
}


def declared_kinds(blueprint: object) -> list[StoreKind]:
    """The kinds of store that a blueprint declares something about, in store order."""
    return [kind for kind in KINDS.values() if kind.is_declared_in(blueprint)]

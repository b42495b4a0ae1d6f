"""For tests: real stores, isolated for each test, and a store in memory.

The store in memory can be planned, applied, verified, locked and asked for its status. The store is
for unit tests of code that drives bootstrappers.

    from is_db_bootstrap.testing import isolated_stores

    with isolated_stores("novel_genesis") as stores:
        stores.redis.set("session:1", "…", ex=60)

For pytest there are fixtures: `postgres`, `neo4j`, `milvus`, `redis`, `stores`
(docs/how-to/test.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from is_db_bootstrap.testing.memory import InMemoryBootstrapper

if TYPE_CHECKING:
    from is_db_bootstrap.testing.session import Stores, isolated_stores

__all__ = ["InMemoryBootstrapper", "Stores", "isolated_stores"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from is_db_bootstrap.testing import session

    return getattr(session, name)

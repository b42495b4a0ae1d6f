"""One command brings the datastores of an application to their declared state.

The command then proves that state, and says what was done.

    from is_db_bootstrap import BootstrapOrchestrator, PostgreSQLBootstrapper, RedisBootstrapper
    from is_db_bootstrap.blueprints.novel_genesis import BLUEPRINT

    result = BootstrapOrchestrator([
        PostgreSQLBootstrapper("postgresql://app@db/app", BLUEPRINT),
        RedisBootstrapper("redis://cache", BLUEPRINT),
    ]).run()
    result.raise_for_failure()

Names are imported when first used, so that `pip install is-db-bootstrap[postgres]` works without
the other clients.
"""

from __future__ import annotations

# The command begins with this module, and can be interrupted decently only after its imports. So
# it imports nothing: type checkers know this name, and `typing` is not needed for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
    from is_db_bootstrap.engine.retry import RetryPolicy
    from is_db_bootstrap.results import BootstrapResult, Mode, Outcome
    from is_db_bootstrap.settings import Settings, StoreUrl, Timing
    from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
    from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
    from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

__version__ = "0.1.0"

#: The module of each public name.
_MODULE_OF = {
    "Blueprint": "blueprint",
    "BootstrapOrchestrator": "engine",
    "BootstrapResult": "results",
    "LockPolicy": "engine",
    "MilvusBootstrapper": "stores.milvus.bootstrapper",
    "Mode": "results",
    "Neo4jBootstrapper": "stores.neo4j.bootstrapper",
    "Outcome": "results",
    "PostgreSQLBootstrapper": "stores.postgres.bootstrapper",
    "RedisBootstrapper": "stores.redis.bootstrapper",
    "RetryPolicy": "engine.retry",
    "Settings": "settings",
    "StoreUrl": "settings",
    "Timing": "settings",
}

__all__ = [
    "Blueprint",
    "BootstrapOrchestrator",
    "BootstrapResult",
    "LockPolicy",
    "MilvusBootstrapper",
    "Mode",
    "Neo4jBootstrapper",
    "Outcome",
    "PostgreSQLBootstrapper",
    "RedisBootstrapper",
    "RetryPolicy",
    "Settings",
    "StoreUrl",
    "Timing",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    return getattr(module, name)

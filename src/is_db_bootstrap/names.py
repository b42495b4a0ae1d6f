"""The names of the stores.

The names stand apart from `results`, because `--help` needs the names and nothing else.
"""

from __future__ import annotations

from typing import Literal

StoreName = Literal["postgres", "neo4j", "milvus", "redis"]

#: Store order: locks are taken, and failures are reported, in this order.
STORE_ORDER: tuple[StoreName, ...] = ("postgres", "neo4j", "milvus", "redis")

#: The name of each thread in which a run works on one store.
STEP_THREAD = "is-db-bootstrap-step"

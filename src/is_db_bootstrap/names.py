"""The names of the stores. Apart from `results`, because `--help` needs these and nothing else."""

from __future__ import annotations

from typing import Literal

StoreName = Literal["postgres", "neo4j", "milvus", "redis"]

#: Store order: locks are taken, and failures reported, in this order.
STORE_ORDER: tuple[StoreName, ...] = ("postgres", "neo4j", "milvus", "redis")

#: What a thread is called in which a run works on one store.
STEP_THREAD = "is-db-bootstrap-step"

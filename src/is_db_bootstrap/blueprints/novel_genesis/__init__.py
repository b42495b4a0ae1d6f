"""The stores of a novel-writing assistant.

The stores hold dialogues and events, a story world, text embeddings, and a dialogue cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint, Setting, Value
from is_db_bootstrap.blueprints.novel_genesis import _seed, graph, vectors
from is_db_bootstrap.blueprints.novel_genesis.keys import CHANNELS, KEYS

_SETTINGS = (
    Setting(
        "NOVEL_GENESIS_MILVUS_INDEX",
        default="ivf_flat_ip",
        meaning="index profile used when the collection is created",
        choices=tuple(vectors.PROFILES),
    ),
    Setting(
        "NOVEL_GENESIS_MILVUS_TTL_SECONDS",
        default=0,
        meaning="lifetime of vectors in seconds; 0 = they do not expire",
    ),
    Setting(
        "NOVEL_GENESIS_EMBEDDING_MODEL",
        default="unspecified",
        meaning="identifier of the model that produces the vectors",
        pattern=r"[^\[\];]{1,200}",
    ),
    Setting(
        "NOVEL_GENESIS_NEO4J_ENTERPRISE",
        default="auto",
        meaning="auto = apply the enterprise constraints when the server allows them",
        choices=("auto", "off"),
    ),
)


def _apply_settings(blueprint: Blueprint, values: Mapping[str, Value]) -> Blueprint:
    return replace(
        blueprint,
        collections=(vectors.from_settings(values),),
        enterprise=values["NOVEL_GENESIS_NEO4J_ENTERPRISE"] == "auto",
    )


BLUEPRINT = Blueprint(
    name="novel_genesis",
    summary=(
        "A novel-writing assistant: "
        "dialogues, commands and events, a story world, text embeddings, a dialogue cache."
    ),
    migrations=files.migrations("novel_genesis"),
    cypher=files.cypher("novel_genesis"),
    models="is_db_bootstrap.blueprints.novel_genesis.models",
    collections=(vectors.collection(),),
    keys=KEYS,
    channels=CHANNELS,
    labels=graph.NODE_PROPERTIES,
    relationships=graph.RELATIONSHIPS,
    settings=_SETTINGS,
    seed_rows=_seed.ROWS,
    seed_nodes=_seed.NODES,
    seed_relationships=_seed.RELATIONSHIPS,
    configure=_apply_settings,
)

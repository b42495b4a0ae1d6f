"""The text embeddings of novel_genesis: the collection, its index profiles, and how each is searched."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from is_db_bootstrap.blueprint import Collection, Field, Index, Value

NAME = "novel_embeddings_v1"
#: Applications use the alias only.
ALIAS = "novel_embeddings"
#: Components of a vector.
DIM = 768

_FIELDS = (
    Field("id", "INT64", primary=True, auto_id=True),
    Field("novel_id", "VARCHAR", max_length=100, partition_key=True),
    Field("chunk_id", "VARCHAR", max_length=100),
    Field("content_type", "VARCHAR", max_length=50),
    Field("content", "VARCHAR", max_length=8192),
    Field("embedding", "FLOAT_VECTOR", dim=DIM),
    Field("metadata", "JSON"),
    Field("created_at", "INT64"),
)

#: Profile to the index of `embedding`. With IP, vectors are stored and queried L2-normalised, so scores are cosines.
PROFILES: Mapping[str, Index] = MappingProxyType({
    "ivf_flat_ip": Index("embedding", "IVF_FLAT", "IP", MappingProxyType({"nlist": 128})),
    "hnsw_cosine": Index("embedding", "HNSW", "COSINE", MappingProxyType({"M": 32, "efConstruction": 200})),
})  # fmt: skip

#: Profile to `search_params` of `MilvusClient.search`, which takes nothing but a plain dict: leave it as it is.
#: Another metric than the index has is refused late, by the server.
SEARCH_PARAMS: Mapping[str, dict[str, Any]] = MappingProxyType({
    "ivf_flat_ip": {"metric_type": "IP", "params": {"nprobe": 10}},
    "hnsw_cosine": {"metric_type": "COSINE", "params": {"ef": 64}},
})  # fmt: skip


def collection(profile: str = "ivf_flat_ip", ttl_seconds: int = 0, model: str = "unspecified") -> Collection:
    """The declared collection; `ttl_seconds` 0 means that vectors do not expire, `model` names what produces them."""
    return Collection(
        name=NAME,
        alias=ALIAS,
        fields=_FIELDS,
        indexes=(PROFILES[profile], Index("content_type", "INVERTED")),
        description=f"Novel content embeddings [embedding_model={model}; dim={DIM}]",
        partitions=16,
        ttl_seconds=ttl_seconds,
        model=model,
    )


def from_settings(values: Mapping[str, Value]) -> Collection:
    """The collection for the values of the blueprint's settings."""
    return collection(
        str(values["NOVEL_GENESIS_MILVUS_INDEX"]),
        int(values["NOVEL_GENESIS_MILVUS_TTL_SECONDS"]),
        str(values["NOVEL_GENESIS_EMBEDDING_MODEL"]),
    )

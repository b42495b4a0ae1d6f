"""The text embeddings of novel_genesis: the collection, its index profiles and their search."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from is_db_bootstrap.blueprint import Collection, Field, Index, Value

NAME = "novel_embeddings_v1"
#: The name that applications use, so that a new collection can take the place of this one.
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

_IVF_PARAMS: Mapping[str, Any] = MappingProxyType({"nlist": 128})
_HNSW_PARAMS: Mapping[str, Any] = MappingProxyType({"M": 32, "efConstruction": 200})

#: Each profile and its index of `embedding`. With the metric IP, applications store and query
#: L2-normalised vectors, so that scores are cosines.
PROFILES: Mapping[str, Index] = MappingProxyType(
    {
        "ivf_flat_ip": Index("embedding", "IVF_FLAT", "IP", _IVF_PARAMS),
        "hnsw_cosine": Index("embedding", "HNSW", "COSINE", _HNSW_PARAMS),
    }
)

#: Each profile and the `search_params` for `MilvusClient.search`. The method accepts plain
#: dictionaries only, so do not change these. A metric that differs from the index's metric is
#: refused by the server, not by the client.
SEARCH_PARAMS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "ivf_flat_ip": {"metric_type": "IP", "params": {"nprobe": 10}},
        "hnsw_cosine": {"metric_type": "COSINE", "params": {"ef": 64}},
    }
)


def collection(
    profile: str = "ivf_flat_ip",
    ttl_seconds: int = 0,
    model: str = "unspecified",
) -> Collection:
    """The declared collection, whose vectors are `float32[768]`.

    With `ttl_seconds` 0 the vectors do not expire. `model` names the model that produces the
    vectors. Raises `KeyError` for an unknown profile.
    """
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
        profile=str(values["NOVEL_GENESIS_MILVUS_INDEX"]),
        ttl_seconds=int(values["NOVEL_GENESIS_MILVUS_TTL_SECONDS"]),
        model=str(values["NOVEL_GENESIS_EMBEDDING_MODEL"]),
    )

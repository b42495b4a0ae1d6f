"""What a blueprint is, and how it is found, checked, described and told from another."""

from is_db_bootstrap.blueprint.declarations import (
    AlembicEnvironment,
    Blueprint,
    Channel,
    Collection,
    Ends,
    Field,
    Function,
    Index,
    KeyPattern,
    PoolProfile,
    SeedNode,
    SeedReference,
    SeedRelationship,
    SeedRow,
    Setting,
    Value,
)

__all__ = [
    "AlembicEnvironment",
    "Blueprint",
    "Channel",
    "Collection",
    "Ends",
    "Field",
    "Function",
    "Index",
    "KeyPattern",
    "PoolProfile",
    "SeedNode",
    "SeedReference",
    "SeedRelationship",
    "SeedRow",
    "Setting",
    "Value",
]

"""A small shop on four stores.

The blueprint of the contract suite, which needs no reference system.
"""

from is_db_bootstrap.blueprint import (
    Blueprint,
    Channel,
    Collection,
    Field,
    Index,
    KeyPattern,
    SeedRow,
)

PRODUCTS = Collection(
    "shop_products_v1",
    fields=(
        Field("id", "INT64", primary=True, auto_id=True),
        Field("tenant", "VARCHAR", max_length=100, partition_key=True),
        Field("kind", "VARCHAR", max_length=50),
        Field("embedding", "FLOAT_VECTOR", dim=8),
        Field("metadata", "JSON"),
    ),
    indexes=(
        Index("embedding", "IVF_FLAT", "IP", {"nlist": 16}),
        Index("kind", "INVERTED"),
    ),
    alias="shop_products",
    description="Products of the shop, by the meaning of their texts.",
    partitions=16,
)

BLUEPRINT = Blueprint(
    name="shop",
    summary="A small shop on four stores.",
    collections=(PRODUCTS,),
    keys=(
        KeyPattern("session", "shop:session:{id}", "string", 3600, "web", "a login session, JSON"),
        KeyPattern("basket", "shop:basket:{id}", "hash", 86_400, "web", "products and amounts"),
    ),
    channels=(Channel("orders", "shop:orders:{tenant}", "the id of each new order"),),
    seed_rows=(
        SeedRow(
            "customers",
            {"id": "88e5fbd7-df78-570b-ad31-7c9dae8eb4bf"},
            {"email": "ada@example.org", "settings": {"theme": "dark"}},
        ),
    ),
)

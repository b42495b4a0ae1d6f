"""Milvus as a kind of store."""

from is_db_bootstrap.stores.kind import StoreKind

KIND = StoreKind(
    name="milvus",
    label="Milvus",
    schemes=("http", "https", "tcp"),
    tls_scheme="https",
    default_port=19530,
    default_database="default",
    can_lock=False,
    declared_by=("collections",),
    bootstrapper_class="MilvusBootstrapper",
    client_extra="milvus",
    change_nouns={
        "collection": ("collection", "collections"),
        "index": ("index", "indexes"),
        "partition": ("partition", "partitions"),
        "alias": ("alias", "aliases"),
        "load": ("load", "loads"),
    },
)

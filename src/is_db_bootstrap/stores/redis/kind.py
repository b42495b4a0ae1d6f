"""Redis as a kind of store."""

from is_db_bootstrap.stores.kind import StoreKind

KIND = StoreKind(
    name="redis",
    label="Redis",
    schemes=("redis", "rediss", "unix"),
    tls_scheme="rediss",
    default_port=6379,
    default_database="0",
    query_fields={"username": "username", "password": "password", "db": "database"},
    declared_by=("keys", "channels"),
    bootstrapper_class="RedisBootstrapper",
    client_extra="redis",
    change_nouns={"conventions": ("set of conventions", "sets of conventions")},
)

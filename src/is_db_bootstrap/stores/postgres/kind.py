"""PostgreSQL as a kind of store."""

from is_db_bootstrap.stores.kind import StoreKind

KIND = StoreKind(
    name="postgres",
    label="PostgreSQL",
    schemes=(
        "postgresql",
        "postgres",
        "postgresql+psycopg",
        "postgresql+asyncpg",
        "postgresql+psycopg2",
    ),
    default_port=5432,
    default_user="postgres",
    query_fields={"user": "username", "password": "password", "dbname": "database"},
    has_schemas=True,
    takes_seed=True,
    declared_by=("migrations",),
    bootstrapper_class="PostgreSQLBootstrapper",
    client_extra="postgres",
    change_nouns={
        "database": ("database", "databases"),
        "schema": ("schema", "schemas"),
        "revision": ("revision", "revisions"),
        "seed": ("demo row", "demo rows"),
    },
)

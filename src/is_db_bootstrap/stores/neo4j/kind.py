"""Neo4j as a kind of store."""

from is_db_bootstrap.stores.kind import StoreKind

KIND = StoreKind(
    name="neo4j",
    label="Neo4j",
    schemes=("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc"),
    default_port=7687,
    default_user="neo4j",
    default_database="neo4j",
    takes_seed=True,
    declared_by=("cypher",),
    bootstrapper_class="Neo4jBootstrapper",
    client_extra="neo4j",
    change_nouns={
        "cypher": ("Cypher file", "Cypher files"),
        "seed": ("demo row", "demo rows"),
    },
)

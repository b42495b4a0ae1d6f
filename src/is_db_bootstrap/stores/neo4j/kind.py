"""Neo4j as a kind of store."""

from __future__ import annotations

from collections.abc import Iterator

from is_db_bootstrap.names import StoreName
from is_db_bootstrap.stores.kind import StoreKind, TlsWish, unread_tls_options


def _weaknesses(wish: TlsWish) -> Iterator[str]:
    yield from unread_tls_options(wish, "NEO4J_CA_FILE")


def _read_auth(text: str) -> tuple[str, str] | None:
    """What the official image reads from NEO4J_AUTH: `none`, or `user/password`.

    A `/true` behind it lets the password expire. It is no part of the password.
    """
    if text.lower() == "none":
        return "", ""
    user, slash, password = text.partition("/")
    if slash and password.lower().endswith("/true"):
        password = password[: -len("/true")]
    return (user, password) if user and password else None


#: What messages call the store. Modules that load no client need it too.
STORE: StoreName = "neo4j"

KIND = StoreKind(
    name=STORE,
    label="Neo4j",
    schemes=("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc"),
    default_port=7687,
    default_user="neo4j",
    default_database="neo4j",
    user_variables=("NEO4J_USERNAME",),
    auth_variable="NEO4J_AUTH",
    auth_path_variable="NEO4J_AUTH_PATH",
    auth_form="user/password or none",
    read_auth=_read_auth,
    foreign_variables=("URI", "HOST", "PORT", "USER", "PASS", "HOME", "CONF", "EDITION", "DEBUG"),
    tls_weaknesses=_weaknesses,
    takes_seed=True,
    declared_by=("cypher",),
    folder="cypher",
    folder_names=("neo4j",),
    bootstrapper_class="Neo4jBootstrapper",
    client_extra="neo4j",
    unended="An index that was created on Neo4j before the end may still be building there.",
    statement_language="cypher",
    change_nouns={
        "cypher": ("Cypher file", "Cypher files"),
        "callback": ("callback", "callbacks"),
        "seed": ("demo row", "demo rows"),
        "record": ("record", "records"),
    },
)

"""Milvus as a kind of store."""

from __future__ import annotations

from collections.abc import Iterator

from is_db_bootstrap.stores.kind import NO, StoreKind, TlsWish, unread_tls_options


def _weaknesses(wish: TlsWish) -> Iterator[str]:
    yield from unread_tls_options(wish, "MILVUS_CA_FILE")
    for key, value in wish.options:
        if wish.is_checked and key == "secure" and value.lower() in NO:
            yield f"{key}={value}, which asks for no TLS"


def _read_token(text: str) -> tuple[str, str] | None:
    """What pymilvus calls a token: `user:password`, or an API key, which stands alone."""
    user, colon, password = text.partition(":")
    if not colon:
        return user, ""
    return (user, password) if user and password else None


KIND = StoreKind(
    name="milvus",
    label="Milvus",
    schemes=("http", "https", "tcp"),
    tls_scheme="https",
    default_port=19530,
    default_database="default",
    lone_user_is_secret=True,
    lone_user_is_token=True,
    user_variables=("MILVUS_USERNAME",),
    auth_variable="MILVUS_TOKEN",
    auth_form="user:password or an API key",
    read_auth=_read_token,
    foreign_variables=("URI", "HOST", "PORT", "USER", "PASS", "DB", "DB_NAME", "ADDRESS"),
    has_grpc_proxy=True,
    tls_weaknesses=_weaknesses,
    # pymilvus shows no certificate without `ca_pem_path` (client/grpc_handler.py, 2.3 to 3.0), and
    # gRPC takes no password for a key.
    client_needs_ca_file=True,
    opens_keys=False,
    can_lock=False,
    declared_by=("collections",),
    bootstrapper_class="MilvusBootstrapper",
    client_extra="milvus",
    client_package="pymilvus",
    # pymilvus/settings.py and pymilvus/orm/connections.py, 2.3 to 3.0.
    import_variables=(
        "MILVUS_URI",
        "MILVUS_DEFAULT_CONNECTION",
        "MILVUS_CONN_ALIAS",
        "MILVUS_CONN_TIMEOUT",
    ),
    unended="Milvus cannot be cancelled: an index or a load that was begun there may go on.",
    statement_language="python",
    change_nouns={
        "collection": ("collection", "collections"),
        "index": ("index", "indexes"),
        "partition": ("partition", "partitions"),
        "property": ("property", "properties"),
        "alias": ("alias", "aliases"),
        "load": ("load", "loads"),
        "record": ("record", "records"),
    },
)

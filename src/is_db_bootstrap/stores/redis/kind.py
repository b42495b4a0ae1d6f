"""Redis as a kind of store."""

from __future__ import annotations

from collections.abc import Iterator

from is_db_bootstrap.stores.kind import NO, StoreKind, TlsWish

#: The options of redis-py in which an address names authorities of its own.
AUTHORITIES = ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data")
#: What stands behind the plus of a scheme. The Python libraries limits and redis-sentinel-url have
#: these spellings too. redis-py itself has none.
SENTINEL, CLUSTER = "sentinel", "cluster"


def _weaknesses(wish: TlsWish) -> Iterator[str]:
    own = [(key, value) for key, value in wish.options if key in AUTHORITIES and value]
    if not wish.is_checked and not own:
        return
    for key, value in own:
        if wish.ca_file and value != wish.ca_file:
            yield f"{key}, which is another one"
    for key, value in wish.options:
        if key == "ssl_cert_reqs" and value.lower() not in {"", "required", "cert_required"}:
            yield f"ssl_cert_reqs={value}, which does not check the server's certificate"
        if key == "ssl_check_hostname" and value.lower() in NO:
            yield f"ssl_check_hostname={value}, which does not check the host's name"
    if own and wish.scheme not in {KIND.tls_scheme, *KIND.other_tls_schemes}:
        yield f"{wish.scheme}://, which uses no TLS"


KIND = StoreKind(
    name="redis",
    label="Redis",
    schemes=(
        "redis",
        "rediss",
        "unix",
        f"redis+{SENTINEL}",
        f"rediss+{SENTINEL}",
        f"redis+{CLUSTER}",
        f"rediss+{CLUSTER}",
    ),
    tls_scheme="rediss",
    other_tls_schemes=(f"rediss+{SENTINEL}", f"rediss+{CLUSTER}"),
    service_schemes=(f"redis+{SENTINEL}", f"rediss+{SENTINEL}"),
    socket_scheme="unix",
    default_port=6379,
    default_database="0",
    numbered_databases=True,
    query_fields={"username": "username", "password": "password", "db": "database"},
    path_options=("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"),
    lone_user_is_secret=True,
    user_variables=("REDIS_USERNAME",),
    foreign_variables=(
        *("URI", "HOST", "PORT", "USER", "PASS", "DB", "AUTH", "TLS_URL", "URLS"),
        "ACLFILE",  # of Bitnami's image
    ),
    tls_weaknesses=_weaknesses,
    certificate_options=("ssl_certfile", "ssl_keyfile", "ssl_password"),
    declared_by=("keys", "channels"),
    bootstrapper_class="RedisBootstrapper",
    client_extra="redis",
    change_nouns={
        "conventions": ("set of conventions", "sets of conventions"),
        "record": ("record", "records"),
    },
)

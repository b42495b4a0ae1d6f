"""PostgreSQL as a kind of store."""

from __future__ import annotations

from collections.abc import Iterator

from is_db_bootstrap.stores.kind import StoreKind, TlsWish

#: libpq's modes that say nothing against the check that a CA file asks for.
#: `require` asks for TLS; libpq alone would then check the certificate and not the host name.
_MODES = {"", "require", "verify-full"}


def ssl_mode(wish: TlsWish) -> str:
    """The `sslmode` that the address asks for; empty when it names none. asyncpg calls it `ssl`."""
    mode = wish.last("ssl")
    if "asyncpg" not in wish.scheme or not mode:
        return wish.last("sslmode")
    return {"true": "require", "false": "disable"}.get(mode.lower(), mode)


def _weaknesses(wish: TlsWish) -> Iterator[str]:
    own = wish.last("sslrootcert")
    if not wish.is_checked and not own:
        return
    if wish.ca_file and own and own != wish.ca_file:
        yield f"sslrootcert={own}, which is another one"
    mode = ssl_mode(wish)
    if mode in _MODES:
        return
    missing = "the host's name" if mode == "verify-ca" else "the server's certificate"
    yield f"sslmode={mode}, which does not check {missing}"


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
    default_server="localhost:5432",
    default_password="postgres",  # noqa: S106 - the one of the official image
    query_fields={"user": "username", "password": "password", "dbname": "database"},
    query_wins=True,
    other_engines=dict.fromkeys(
        ("sqlite", "mysql", "mariadb"),
        "Only `is-db-bootstrap migrate … --url ADDRESS` takes MariaDB and SQLite, and only for a "
        "portable blueprint.",
    ),
    other_url_variables=("DATABASE_URL",),
    # The official image reads the second one of each, and the files that `…_FILE` names.
    user_variables=("POSTGRES_USERNAME", "POSTGRES_USER"),
    database_variable="POSTGRES_DB",
    foreign_variables=(
        "HOST",
        "HOSTS",
        "PORT",
        "PORTS",
        "URI",
        "NAME",
        "DSN",
        "DATABASE",
        "PASS",
        "INITDB_ARGS",
        "INITDB_WALDIR",
        "HOST_AUTH_METHOD",
    ),
    part_variables={
        "host": "DB_HOST",
        "port": "DB_PORT",
        "database": "DB_NAME",
        "username": "DB_USER",
        "password": "DB_PASSWORD",
    },
    client_variables={
        "host": "PGHOST",
        "hostaddr": "PGHOSTADDR",
        "port": "PGPORT",
        "database": "PGDATABASE",
        "username": "PGUSER",
        "password": "PGPASSWORD",
    },
    client_entry_variable="PGSERVICE",
    schema_variable="DB_SCHEMA",
    ignored_variable="POSTGRES_IGNORED_VERSION_TABLES",
    unknown_variable="POSTGRES_UNKNOWN_REVISION",
    privileges_variable="POSTGRES_PRIVILEGES",
    tls_weaknesses=_weaknesses,
    certificate_options=("sslcert", "sslkey", "sslpassword"),
    # sslrootcert=system are the system's authorities; sslcrl and the others have no such word.
    path_options=("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile"),
    path_words=("system",),
    place_options={"hosts": ("hostaddr", "host"), "port": ("port",), "more": ("service",)},
    has_schemas=True,
    takes_seed=True,
    tests_elsewhere=True,
    declared_by=("migrations", "alembic"),
    environment="alembic",
    environment_keys=("section", "x", "version_table", "version_table_schema", "driver"),
    baseline_keys=("baseline", "baseline_revision"),
    folder="migrations",
    folder_names=("alembic", "postgres", "postgresql", "revisions", "versions"),
    bootstrapper_class="PostgreSQLBootstrapper",
    client_extra="postgres",
    session_variable="PGAPPNAME",
    statement_language="sql",
    change_nouns={
        "database": ("database", "databases"),
        "schema": ("schema", "schemas"),
        "baseline": ("baseline", "baselines"),
        "revision": ("revision", "revisions"),
        "seed": ("demo row", "demo rows"),
        "record": ("record", "records"),
    },
)

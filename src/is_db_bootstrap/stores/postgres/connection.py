"""Connecting to PostgreSQL with psycopg, and what its errors mean to a run. All times are seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from is_db_bootstrap.results import StoreName
from is_db_bootstrap.stores.foreign_server import recognised

if TYPE_CHECKING:
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.settings import StoreUrl

NAME: StoreName = "postgres"
#: Where a missing database is asked for and created: nobody's database is blocked by it, template1 would be (sqlx#1283).
MAINTENANCE = "postgres"

#: As libpq writes it: major version times 10,000.
OLDEST = 140000

# SQLSTATEs, as in the manual's appendix A.
INSUFFICIENT_PRIVILEGE = "42501"
DUPLICATE_DATABASE = "42P04"
DUPLICATE_SCHEMA = "42P06"
UNIQUE_VIOLATION = "23505"
READ_ONLY_TRANSACTION = "25006"
QUERY_CANCELED = "57014"
BUSY = frozenset({"55P03", "40P01", "55006"})
#: A lost connection, a server that starts or stops, too many connections, a full disk being none of them.
UNAVAILABLE = ("08", "57P", "53300")

#: Milliseconds that the server may take to end a session.
TERMINATE_MS = 5000
#: With a time, it says whether the session has gone (PostgreSQL 14).
_TERMINATE = """
    SELECT pid, pg_terminate_backend(pid, %s) FROM pg_stat_activity
    WHERE pid = %s AND usename = %s AND datname = %s AND application_name = %s
"""

_ASYNCPG_ONLY = {"prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"}


class DatabaseMissing(Exception):
    """The server is usable and has no database of that name."""

    def __str__(self) -> str:
        return f"Database {self.args[0]} does not exist."


def parameters(url: StoreUrl, connect_timeout_s: float, *, database: str | None = None) -> dict[str, Any]:
    """What libpq is told; passwords need no escaping here. Several hosts are asked for the one that can be written to."""
    found: dict[str, Any] = {
        "host": ",".join(host for host, _ in url.servers),
        "port": ",".join(port or "5432" for _, port in url.servers),
        "dbname": url.database if database is None else database,
        "user": url.username,
        "password": url.password,
        # psycopg and libpq take whole seconds, at least two.
        "connect_timeout": max(2, round(connect_timeout_s)),
        "application_name": "is-db-bootstrap",
        # psycopg hands out bytes for text of a SQL_ASCII database otherwise.
        "client_encoding": "UTF8",
    }
    if len(url.servers) > 1:
        found["target_session_attrs"] = "read-write"
    if url.ca_file:
        found |= {"sslrootcert": url.ca_file, "sslmode": "verify-full"}
    return {key: value for key, value in (found | _query(url)).items() if value != ""}


def _query(url: StoreUrl) -> dict[str, str]:
    """The URL's own options in libpq's words; asyncpg writes `ssl` for `sslmode`."""
    options = {k: v for k, v in url.query if k not in _ASYNCPG_ONLY}
    if "asyncpg" in url.scheme and "ssl" in options:
        mode = options.pop("ssl")
        options["sslmode"] = {"true": "require", "false": "disable"}.get(mode.lower(), mode)
    return options


def identifier(*names: str) -> str:
    """The quoted name, each part quoted and joined with dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def search_path(schema: str) -> str:
    """The search path of every session: the blueprint's schema, then public for extensions."""
    return identifier(schema) if schema == "public" else f"{identifier(schema)}, public"


def session_settings(schema: str) -> dict[str, str]:
    """What every session has set: schema, UTC, and no limits that a role or database may have been given."""
    return {
        "search_path": search_path(schema),
        "TimeZone": "UTC",
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
    }


def connect(
    url: StoreUrl, connect_timeout_s: float, *, database: str | None = None, settings: Mapping[str, str] | None = None,
    **options: Any,
) -> psycopg.Connection[Any]:  # fmt: skip
    """One try to open an autocommit connection whose session has `settings`; the URL's database unless told.

    Raises `DatabaseMissing`, `StoreUnavailable`, `AccessDenied`, and `ConfigurationError` for an address that cannot be
    one or where something else answers, `StoreConflict` for a server that is too old.
    """
    known = parameters(url, connect_timeout_s, database=database)
    try:
        connection = psycopg.connect(**known | options, autocommit=True, prepare_threshold=None)
    except psycopg.ProgrammingError as exc:
        raise ConfigurationError(f"postgres: the address {url} is refused by libpq: {str(exc).strip()}.") from exc
    except psycopg.OperationalError as exc:
        raise refused(url, exc, known["dbname"], connect_timeout_s) from exc
    except UnicodeError as exc:
        raise ConfigurationError(f"postgres: the host name in {url} is not valid: {exc}.") from exc
    _refuse_old(url, connection)
    if settings:
        with errors(str(url)):
            _set(connection, settings)
    return connection


def _refuse_old(url: StoreUrl, connection: psycopg.Connection[Any]) -> None:
    number = connection.info.server_version
    if number < OLDEST:
        connection.close()
        raise StoreConflict(
            NAME, f"{url} is PostgreSQL {number // 10000}; {OLDEST // 10000} or newer is needed.", hint="Upgrade the server."
        )


def _set(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Set session variables in one round trip."""
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    connection.execute(f"SELECT {calls}".encode(), [text for pair in settings.items() for text in pair])


def terminated(connection: psycopg.Connection[Any], session: psycopg.Connection[Any]) -> list[int]:
    """End `session` on the server, asked through `connection`, and wait until it is gone; its process id if it is not.

    A pooler makes up the process id that it greets with, so name, user and database of the session must fit as well.
    """
    name = session.info.parameter_status("application_name")
    known = [TERMINATE_MS, session.info.backend_pid, session.info.user, session.info.dbname, name]
    with suppress(psycopg.errors.InsufficientPrivilege):
        found = connection.execute(_TERMINATE.encode(), known).fetchall()
        return [pid for pid, gone in found if not gone]
    return [session.info.backend_pid]


def refused(url: StoreUrl, exc: psycopg.OperationalError, database: str, timeout_s: float) -> Exception:
    """What a refused connection means.

    libpq hands out no SQLSTATE here, only text, which the server may write in any language; so a database is called
    missing only when the server, asked through `postgres`, does not list it.
    """
    text = re.sub(r"\s*Is the server running[^?]*\?", "", str(exc)).removeprefix("connection failed: ")
    text = " ".join(text.split())
    for pattern, translate in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            return translate(url, text)
    told = text.rsplit("failed: ", 1)[-1]
    if database in told and _is_missing(url, database, timeout_s, told):
        return DatabaseMissing(database)
    if database in told and "does not exist" in told:  # it does by now: another run has just created it
        return StoreBusy(NAME, f"{url} is not ready: {text}.", hint="Another run was creating the database.")
    if exc.pgconn is not None and exc.pgconn.used_password:
        return _denied(url, text)
    if kind := recognised(url.host, url.port(5432), min(timeout_s, 2.0) / 2, own="PostgreSQL"):
        return ConfigurationError(f"postgres: at {url} {kind} answers, not PostgreSQL.", hint="Correct the host or the port.")
    return StoreUnavailable(NAME, f"{url} does not answer: {text}.", hint="Is the server running, and is the address right?")


def _denied(url: StoreUrl, text: str) -> BootstrapError:
    return AccessDenied(
        NAME, f"{url} refused us: {text}.", hint="Check user and password (POSTGRES_PASSWORD), and pg_hba.conf."
    )


def _tls(url: StoreUrl, text: str) -> BootstrapError:
    return AccessDenied(NAME, f"No TLS connection to {url}: {text}.", hint="Check sslmode, and POSTGRES_CA_FILE.")


def _not_ready(url: StoreUrl, text: str) -> BootstrapError:
    return StoreUnavailable(NAME, f"{url} is not ready: {text}.", hint="Wait, or give a longer --timeout.")


def _read_only(url: StoreUrl, text: str) -> BootstrapError:
    return StoreUnavailable(NAME, f"No host of {url} can be written to: {text}.", hint="Give the address of the primary.")


def _stranger(url: StoreUrl, text: str) -> BootstrapError:
    return ConfigurationError(
        f"postgres: what answers at {url} is not PostgreSQL: {text}.", hint="Correct the host or the port."
    )


def _malformed(url: StoreUrl, text: str) -> BootstrapError:
    return ConfigurationError(f"postgres: the address {url} is refused by libpq: {text}.", hint="Correct it.")


_REFUSALS = (
    (r"invalid (port number|sslmode value|integer value|URI|connection option)", _malformed),
    (r"password authentication failed|no password supplied|role \".*\" does not exist|is not permitted to log in", _denied),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects|permission denied for database", _denied),
    (r"authentication failed|does not support password|(?-i:SASL|SCRAM)", _denied),
    (r"starting up|shutting down|in recovery mode|too many clients|too many connections|slots are reserved", _not_ready),
    (r"session is (read-only|not read-only)|server is in hot standby|not accepting connections", _read_only),
    (r"invalid response to SSL negotiation|expected authentication request", _stranger),
    # A connection that was closed under TLS is a server that stopped.
    (r"SSL error|SSL connection(?! has been closed)|support SSL|SSL is not enabled", _tls),
    (r"certificate verify failed|root certificate|server certificate|private key file|certificate file", _tls),
)


def _is_missing(url: StoreUrl, database: str, timeout_s: float, told: str) -> bool:
    """Whether the server lists no such database; what it told, in English, is believed when it lets nobody ask."""
    if database == MAINTENANCE:
        return True
    try:
        with connect(url, timeout_s, database=MAINTENANCE) as connection:
            return connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is None
    except (AccessDenied, DatabaseMissing):
        return "does not exist" in told


@contextmanager
def errors(target: str, subject: str = "", change: Change | None = None) -> Iterator[None]:
    """Translate what psycopg raises, also when SQLAlchemy has wrapped it, once for all calls."""
    try:
        yield
    except (psycopg.Error, psycopg.Warning) as exc:
        raise translated(exc, target, subject, change) from exc
    except BootstrapError:
        raise
    except Exception as exc:
        if not isinstance(cause := getattr(exc, "orig", None), psycopg.Error):
            raise
        raise translated(cause, target, subject, change) from exc


def translated(
    exc: psycopg.Error | psycopg.Warning, target: str, subject: str = "", change: Change | None = None
) -> StoreError:
    """The error of a run for an error of the server; `change` makes what has no other name a `ChangeFailed`."""
    state = getattr(exc, "sqlstate", None) or ""
    text = _told(exc)
    about = subject or (change.name if change else "")
    if state in BUSY:
        return StoreBusy(NAME, f"{about}: {text} (SQLSTATE {state}).", subject=about,
                         hint="Something else holds a lock there: look at pg_stat_activity and pg_locks.")  # fmt: skip
    if state == INSUFFICIENT_PRIVILEGE:
        return AccessDenied(NAME, f"{about}: {text} (SQLSTATE {state}).", subject=about,
                            hint="Grant the privilege, or use a role that has it.")  # fmt: skip
    lost = _lost(exc, state)
    if lost or (state == QUERY_CANCELED and change is None):
        return StoreUnavailable(
            NAME, f"{target} {lost or 'cancelled what it was asked'}: {text}.", subject=about, hint="Run again."
        )
    if change is not None:
        return ChangeFailed(NAME, f"{change.kind} {change.name} was refused: {text} (SQLSTATE {state or 'none'}).", change=change,
                            hint="Its transaction was rolled back; correct the cause and run again.")  # fmt: skip
    return StoreConflict(NAME, f"{about or target}: {text} (SQLSTATE {state or 'none'}).", subject=about)


def _lost(exc: BaseException, state: str) -> str:
    """What has become of a server that cannot be worked with any more; empty when it can."""
    if state == READ_ONLY_TRANSACTION:
        return "is read-only, no primary"
    ended = state.startswith(UNAVAILABLE) or (not state and isinstance(exc, psycopg.OperationalError))
    return "has ended the connection" if ended else ""


def _told(exc: BaseException) -> str:
    """The server's primary message, with its detail and the place in a statement when there are."""
    diag = getattr(exc, "diag", None)
    parts = [diag.message_primary, diag.message_detail] if diag is not None and diag.message_primary else [str(exc)]
    return "; ".join(" ".join(part.split()) for part in parts if part).rstrip(".")

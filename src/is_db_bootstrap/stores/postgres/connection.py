"""Connecting to PostgreSQL with psycopg, and what its errors mean to a run.

All times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

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
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings.sources import process_variable
from is_db_bootstrap.settings.tls import refuse_weaker, tls_wish
from is_db_bootstrap.stores.foreign_server import recognised
from is_db_bootstrap.stores.postgres import pooler
from is_db_bootstrap.stores.postgres.kind import ssl_mode

if TYPE_CHECKING:
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.settings import StoreUrl

NAME: StoreName = "postgres"
#: Where a missing database is asked for and created: nobody's database is blocked by it, template1
#: would be (sqlx#1283).
MAINTENANCE = "postgres"

#: What the names of scratch databases begin with.
SCRATCH = "is_db_bootstrap_scratch_"

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
#: A lost connection, a server that starts or stops, too many connections, a full disk being none of
#: them.
UNAVAILABLE = ("08", "57P", "53300")

#: Milliseconds that the server may take to end a session.
TERMINATE_MS = 5000
#: With a time, it says whether the session has gone (PostgreSQL 14).
_TERMINATE = """
    SELECT pid, pg_terminate_backend(pid, %s) FROM pg_stat_activity
    WHERE pid = %s AND usename = %s AND datname = %s AND application_name = %s
"""

#: Values of `sslmode` without which there is no connection in plain text.
_DEMANDS = frozenset({"require", "verify-ca", "verify-full"})

_ASYNCPG_ONLY = {"prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"}


class DatabaseMissing(Exception):
    """The server is usable and has no database of that name."""

    def __str__(self) -> str:
        return f"Database {self.args[0]} does not exist."


def client_arguments(
    url: StoreUrl,
    role: str = "is-db-bootstrap",
    *,
    connect_timeout_s: float | None = None,
    database: str | None = None,
) -> dict[str, Any]:
    """What `psycopg.connect` is given; all that open a connection for us use this.

    `role` is who the session says it is (`application_name`); empty: it says nothing. Several hosts
    are asked for the one that can be written to. Passwords need no escaping here. `database` stands
    in for that of the address. Raises `ConfigurationError` for an address that weakens its CA file.
    """
    found: dict[str, Any] = {
        "host": ",".join(host for host, _ in url.servers),
        "port": ",".join(port or "5432" for _, port in url.servers),
        "dbname": url.database if database is None else database,
        "user": url.username,
        "password": url.password,
        "application_name": role,
        # psycopg hands out bytes for text of a SQL_ASCII database otherwise.
        "client_encoding": "UTF8",
    }
    if connect_timeout_s is not None:
        # psycopg and libpq take whole seconds, at least two.
        found["connect_timeout"] = max(2, round(connect_timeout_s))
    if len(url.servers) > 1:
        found["target_session_attrs"] = "read-write"
    options = _query(url)
    given = found | options | _checked_tls(url, options)
    return {key: value for key, value in given.items() if value != ""}


def _checked_tls(url: StoreUrl, options: Mapping[str, str]) -> dict[str, str]:
    """What a CA file means to libpq: certificate and host name are checked.

    Empty without a CA file. It may come from the settings, from the address (`sslrootcert`), and
    from what libpq reads itself: PGSSLROOTCERT, or a service of `pg_service.conf`. libpq alone
    would take `prefer`, and go on in plain text, or with `require` check no host name. What
    PGSSLMODE or a service says of the mode gives way. Encryption by Kerberos, which libpq prefers
    to TLS, checks no certificate, so it is switched off. A file of the environment alone leaves
    libpq its ways on this machine when nothing asks for TLS. Raises `ConfigurationError` for an
    address that contradicts its CA file.
    """
    refuse_weaker(url)
    ca_file = url.ca_file or options.get("sslrootcert", "")
    if not ca_file:
        ambient = _libpq_options(url, options)
        ca_file = ambient.get("sslrootcert", "")
        refuse_weaker(replace(url, ca_file=ca_file))
        if not _asks_for_tls(options, ambient) and _is_this_machine(ambient):
            return {}
    if not ca_file:
        return {}
    return {"sslrootcert": ca_file, "sslmode": "verify-full", "gssencmode": "disable"}


def _libpq_options(url: StoreUrl, options: Mapping[str, str]) -> dict[str, str]:
    """What libpq makes of the address, its environment and a service.

    libpq is asked itself. A word that it refuses after it has read everything keeps it from
    connecting.
    """
    hosts = ",".join(host for host, _ in url.servers)
    given = {"host": hosts} if hosts.strip(",") else {}
    given |= {name: options[name] for name in ("host", "hostaddr", "service") if options.get(name)}
    attempt = pq.PGconn.connect_start(
        make_conninfo("", **given, target_session_attrs="none at all").encode()
    )
    try:
        found = {option.keyword: option.val for option in attempt.info}
    finally:
        attempt.finish()
    return {
        name.decode(): value.decode(errors="surrogateescape")
        for name, value in found.items()
        if value
    }


def _asks_for_tls(options: Mapping[str, str], ambient: Mapping[str, str]) -> bool:
    """Whether the address says anything of TLS, or libpq's environment demands it."""
    said = any(value for name, value in options.items() if name.startswith("ssl"))
    return said or ambient.get("sslmode", "") in _DEMANDS


def _is_this_machine(ambient: Mapping[str, str]) -> bool:
    """Whether each place that libpq would connect to is a socket or a loopback address."""
    places = f"{ambient.get('host', '')},{ambient.get('hostaddr', '')}".split(",")
    return all(_is_loopback(place) for place in places if place)


def _is_loopback(host: str) -> bool:
    if host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _query(url: StoreUrl) -> dict[str, str]:
    """The URL's own options in libpq's words; asyncpg writes `ssl` for `sslmode`."""
    options = {k: v for k, v in url.query if k not in _ASYNCPG_ONLY}
    if "asyncpg" in url.scheme:
        options.pop("ssl", None)
    if mode := ssl_mode(tls_wish(url)):
        options["sslmode"] = mode
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
    url: StoreUrl,
    connect_timeout_s: float,
    *,
    database: str | None = None,
    settings: Mapping[str, str] | None = None,
    kind: type[psycopg.Connection[Any]] = psycopg.Connection,
    opened: Callable[[psycopg.Connection[Any]], None] | None = None,
    **options: Any,
) -> psycopg.Connection[Any]:
    """One try to open an autocommit connection whose session has `settings`.

    The URL's database unless told, of class `kind`. `opened` is told of the connection as soon as
    the server has taken the login, so that another thread can end what the session is asked first.

    Raises `DatabaseMissing`, `StoreUnavailable`, `AccessDenied`, and `ConfigurationError` for an
    address that cannot be one, where something else answers, or where a pooler gives our session to
    other clients; `StoreConflict` for a server that is too old.
    """
    known = client_arguments(url, connect_timeout_s=connect_timeout_s, database=database)
    try:
        connection = kind.connect(**known | options, autocommit=True, prepare_threshold=None)
    except psycopg.ProgrammingError as exc:
        error = ConfigurationError(
            f"postgres: the address {url} is refused by libpq: {str(exc).strip()}."
        )
        raise url.masking(error, exc) from exc
    except psycopg.OperationalError as exc:
        raise url.masking(refused(url, exc, known["dbname"], connect_timeout_s), exc) from exc
    except UnicodeError as exc:
        error = ConfigurationError(f"postgres: the host name in {url} is not valid: {exc}.")
        raise url.masking(error, exc) from exc
    if opened is not None:
        opened(connection)
    _refuse_old(url, connection)
    try:
        prepare(url, connection, known, settings or {})
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_old(url: StoreUrl, connection: psycopg.Connection[Any]) -> None:
    number = connection.info.server_version
    if number < OLDEST:
        connection.close()
        raise StoreConflict(
            NAME,
            f"{url} is PostgreSQL {number // 10000}; {OLDEST // 10000} or newer is needed.",
            hint="Upgrade the server.",
        )


def prepare(
    url: StoreUrl,
    connection: psycopg.Connection[Any],
    known: Mapping[str, Any],
    settings: Mapping[str, str],
) -> None:
    """Set `settings` on the session of an autocommit `connection` that was opened with `known`.

    Nothing is set behind a pooler that gives sessions to other clients: that is a
    `ConfigurationError`.
    """
    with errors(str(url)):
        query, values = settings_if_direct(connection.info.backend_pid, settings)
        direct = connection.execute(query, values).fetchone()
        if direct and direct[0]:
            return
        shared = _pool_mode(url, connection, known)
        if shared is not pooler.Mode.SESSION:
            raise shared_sessions(url, shared)
        if settings:
            connection.execute(*settings_query(settings))


def settings_if_direct(backend_pid: int, settings: Mapping[str, str]) -> tuple[bytes, list[Any]]:
    """One query that tells whether the server greeted us with `backend_pid`, and only then sets `settings`."""
    if not settings:
        return b"SELECT pg_backend_pid() = %s", [backend_pid]
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    query = f"SELECT pg_backend_pid() = %s, CASE WHEN pg_backend_pid() = %s THEN ARRAY[{calls}] END"
    return query.encode(), [
        backend_pid,
        backend_pid,
        *(text for pair in settings.items() for text in pair),
    ]


def settings_query(
    settings: Mapping[str, str], *, in_transaction: bool = False
) -> tuple[bytes, list[str]]:
    """One query that sets `settings` for the session, or for the running transaction only."""
    call = f"set_config(%s, %s, {str(in_transaction).lower()})"
    return f"SELECT {', '.join([call] * len(settings))}".encode(), [
        text for pair in settings.items() for text in pair
    ]


def pool_mode(url: StoreUrl, connect_timeout_s: float) -> pooler.Mode:
    """The mode of the pooler at `url`, found out on connections of its own.

    `SESSION` also for a server itself.

    Raises `StoreUnavailable` when it does not answer, or has no second session.
    """
    known = client_arguments(url, connect_timeout_s=connect_timeout_s)
    with (
        errors(str(url)),
        psycopg.connect(**known, autocommit=True, prepare_threshold=None) as first,
    ):
        return pooler.Mode.SESSION if pooler.is_direct(first) else _pool_mode(url, first, known)


def _pool_mode(
    url: StoreUrl, first: psycopg.Connection[Any], known: Mapping[str, Any]
) -> pooler.Mode:
    def second() -> psycopg.Connection[Any]:
        return psycopg.connect(**known, autocommit=True, prepare_threshold=None)

    place = tuple(known.get(name) for name in ("host", "port", "dbname", "user"))
    limit_s = float(known["connect_timeout"])
    try:
        return pooler.mode(first, second, place, limit_s)
    except pooler.UndecidedError as exc:
        raise StoreUnavailable(
            NAME,
            f"{url} is a connection pooler that had no second session for us within {limit_s:g} s, so its mode is not known.",
            hint="Give the server's own address, or a pool in session mode with more sessions.",
        ) from exc


def shared_sessions(url: StoreUrl, mode: pooler.Mode) -> ConfigurationError:
    """The refusal of a pooler that gives our session to other clients."""
    return ConfigurationError(
        f"postgres: {url} is a connection pooler in {mode} mode; what is set or locked on a session there reaches other clients.",
        hint="Give the server's own address, or that of a pool in session mode. Nothing was set or changed.",
    )


def identity(session: psycopg.Connection[Any]) -> list[Any]:
    """Process id, user, database and name of a session, by which its server knows it.

    A pooler makes up the process id that it greets with, so the rest must fit as well.
    """
    info = session.info
    return [info.backend_pid, info.user, info.dbname, info.parameter_status("application_name")]


def terminated(connection: psycopg.Connection[Any], session: Sequence[Any]) -> list[int]:
    """End a session on the server, asked through `connection`, and wait until it is gone.

    `session` is its `identity`. Returns its process id if it is not gone.
    """
    with suppress(psycopg.errors.InsufficientPrivilege):
        found = connection.execute(_TERMINATE.encode(), [TERMINATE_MS, *session]).fetchall()
        return [pid for pid, gone in found if not gone]
    return [session[0]]


def refused(
    url: StoreUrl, exc: psycopg.OperationalError, database: str, timeout_s: float
) -> Exception:
    """What a refused connection means.

    libpq hands out no SQLSTATE here, only text, which the server may write in any language; so a
    database is called missing only when the server, asked through `postgres`, does not list it.
    """
    text = re.sub(r"\s*Is the server running[^?]*\?", "", str(exc)).removeprefix(
        "connection failed: "
    )
    text = " ".join(text.split())
    for pattern, translate in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            return translate(url, text)
    told = text.rsplit("failed: ", 1)[-1]
    if database in told and _is_missing(url, database, timeout_s, told):
        return DatabaseMissing(database)
    if (
        database in told and "does not exist" in told
    ):  # it does by now: another run has just created it
        return StoreBusy(
            NAME, f"{url} is not ready: {text}.", hint="Another run was creating the database."
        )
    if exc.pgconn is not None and exc.pgconn.used_password:
        return _denied(url, text)
    if kind := recognised(url.host, url.port(5432), min(timeout_s, 2.0) / 2, own="PostgreSQL"):
        return ConfigurationError(
            f"postgres: at {url} {kind} answers, not PostgreSQL.",
            hint="Correct the host or the port.",
        )
    return StoreUnavailable(
        NAME,
        f"{url} does not answer: {text}.",
        hint="Is the server running, and is the address right?",
    )


def _denied(url: StoreUrl, text: str) -> BootstrapError:
    return AccessDenied(
        NAME,
        f"{url} refused us: {text}.",
        hint="Check user and password (POSTGRES_PASSWORD), and pg_hba.conf.",
    )


def _tls(url: StoreUrl, text: str) -> BootstrapError:
    source = "POSTGRES_CA_FILE"
    if not url.ca_file and process_variable("PGSSLROOTCERT"):
        source = "PGSSLROOTCERT"
    if tls_wish(url).last("sslrootcert"):
        source = "sslrootcert in the address"
    return AccessDenied(
        NAME, f"No TLS connection to {url}: {text}.", hint=f"Check sslmode, and {source}."
    )


def _not_ready(url: StoreUrl, text: str) -> BootstrapError:
    return StoreUnavailable(
        NAME, f"{url} is not ready: {text}.", hint="Wait, or give a longer --timeout."
    )


def _read_only(url: StoreUrl, text: str) -> BootstrapError:
    return StoreUnavailable(
        NAME,
        f"No host of {url} can be written to: {text}.",
        hint="Give the address of the primary.",
    )


def _stranger(url: StoreUrl, text: str) -> BootstrapError:
    return ConfigurationError(
        f"postgres: what answers at {url} is not PostgreSQL: {text}.",
        hint="Correct the host or the port.",
    )


def _malformed(url: StoreUrl, text: str) -> BootstrapError:
    return ConfigurationError(
        f"postgres: the address {url} is refused by libpq: {text}.", hint="Correct it."
    )


_REFUSALS = (
    (r"invalid (port number|sslmode value|integer value|URI|connection option)", _malformed),
    (
        r"password authentication failed|no password supplied|role \".*\" does not exist|is not permitted to log in",
        _denied,
    ),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects|permission denied for database", _denied),
    (r"authentication failed|does not support password|(?-i:SASL|SCRAM)", _denied),
    (
        r"starting up|shutting down|in recovery mode|too many clients|too many connections|slots are reserved",
        _not_ready,
    ),
    (
        r"session is (read-only|not read-only)|server is in hot standby|not accepting connections",
        _read_only,
    ),
    (r"invalid response to SSL negotiation|expected authentication request", _stranger),
    # A connection that was closed under TLS is a server that stopped.
    (r"SSL error|SSL connection(?! has been closed)|support SSL|SSL is not enabled", _tls),
    (
        r"certificate verify failed|root certificate|server certificate|private key file|certificate file",
        _tls,
    ),
)


def _is_missing(url: StoreUrl, database: str, timeout_s: float, told: str) -> bool:
    """Whether the server lists no such database.

    What it told, in English, is believed when it lets nobody ask.
    """
    if database == MAINTENANCE:
        return True
    try:
        with connect(url, timeout_s, database=MAINTENANCE) as connection:
            return (
                connection.execute(
                    "SELECT FROM pg_database WHERE datname = %s", [database]
                ).fetchone()
                is None
            )
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
    exc: psycopg.Error | psycopg.Warning,
    target: str,
    subject: str = "",
    change: Change | None = None,
) -> StoreError:
    """The error of a run for an error of the server.

    `change` makes what has no other name a `ChangeFailed`.
    """
    state = getattr(exc, "sqlstate", None) or ""
    text, detail = told(exc)
    about = subject or (change.name if change else "")
    code = f"(SQLSTATE {state or 'none'})"
    if state in BUSY:
        hint = "Something else holds a lock there: look at pg_stat_activity and pg_locks."
        return StoreBusy(NAME, f"{about}: {text} {code}.", subject=about, hint=hint, detail=detail)
    if state == INSUFFICIENT_PRIVILEGE:
        hint = "Grant the privilege, or use a role that has it."
        return AccessDenied(
            NAME, f"{about}: {text} {code}.", subject=about, hint=hint, detail=detail
        )
    lost = _lost(exc, state)
    if lost or (state == QUERY_CANCELED and change is None):
        message = f"{target} {lost or 'cancelled what it was asked'}: {text}."
        return StoreUnavailable(NAME, message, subject=about, hint="Run again.", detail=detail)
    if change is not None:
        message = f"{change.kind} {change.name} was refused: {text} {code}."
        hint = "Its transaction was rolled back; correct the cause and run again."
        return ChangeFailed(NAME, message, change=change, hint=hint, detail=detail)
    return StoreConflict(NAME, f"{about or target}: {text} {code}.", subject=about, detail=detail)


def _lost(exc: BaseException, state: str) -> str:
    """What has become of a server that cannot be worked with any more; empty when it can."""
    if state == READ_ONLY_TRANSACTION:
        return "is read-only, no primary"
    ended = state.startswith(UNAVAILABLE) or (
        not state and isinstance(exc, psycopg.OperationalError)
    )
    return "has ended the connection" if ended else ""


#: Quotation marks of the languages that servers write in.
_QUOTES = (
    ('"', '"'),
    ("'", "'"),
    ("»", "«"),
    ("«", "»"),
    ("„", "“”"),
    ("“", "”"),
    ("\u2018", "\u2019"),
    ("「", "」"),
)
_QUOTED = re.compile("|".join(f"{begin}[^{ends}]*[{ends}]" for begin, ends in _QUOTES))
#: Class 22 of the SQLSTATEs: a value that cannot be what it is to be.
_DATA_EXCEPTION = "22"
#: Where the server raises what a function says itself (src/pl/plpgsql/src/pl_exec.c).
_RAISED = frozenset({"exec_stmt_raise", "exec_stmt_assert"})
_INTEGRITY, _SYNTAX_ERROR = "23", "42601"


def told(exc: BaseException) -> tuple[str, str]:
    """What a server says of objects, and what it says of rows and values.

    The second is a detail, for a person at a terminal. Values stand in DETAIL ("Key (email)=(…)
    already exists", "Failing row contains (…)"), in the message of a data exception ("invalid input
    syntax for type integer: …"), and anywhere in what a function raises in its own words.
    """
    diag = getattr(exc, "diag", None)
    if diag is None or not diag.message_primary:
        text = _one_line(str(exc))
        # psycopg itself could not read or write a value.
        return (
            (type(exc).__name__, f"{text}.") if isinstance(exc, psycopg.DataError) else (text, "")
        )
    primary, detail = _one_line(diag.message_primary), _one_line(diag.message_detail or "")
    state = getattr(exc, "sqlstate", None) or ""
    if diag.source_function in _RAISED:
        return _raised(diag), ". ".join(part for part in (primary, detail) if part) + "."
    if _is_of_a_value(diag, state):  # psycopg's classes have the names of the conditions
        return type(exc).__name__, ". ".join(part for part in (primary, detail) if part) + "."
    if not state.startswith(_DATA_EXCEPTION):
        return primary, f"{detail}." if detail else ""
    general = _QUOTED.sub("…", primary.partition(": ")[0])
    said = [part for part in (primary if general != primary else "", detail) if part]
    return general + _of_column(diag), ". ".join(said) + "." if said else ""


def _is_of_a_value(diag: psycopg.errors.Diagnostic, state: str) -> bool:
    """Whether what a message quotes may come from a row, although it is no data exception.

    A statement that a function puts together and runs with EXECUTE may have values anywhere. A
    syntax error that is not the parser's is one of a text, such as a `tsquery`.
    """
    if re.search(r"\bEXECUTE\b", diag.context or ""):
        return not state.startswith(_INTEGRITY)
    source = diag.source_file or ""
    return state == _SYNTAX_ERROR and not source.startswith(("scan.", "gram.", "parse_"))


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _raised(diag: psycopg.errors.Diagnostic) -> str:
    """Which function raised an error in its own words, as far as the server's context tells."""
    found = re.match(r"\S+ (?P<name>[^\s(]+\([^)]*\))", diag.context or "")
    where = f"function {found['name']}" if found else "a function or a block of the database"
    return f"{where} raised an error of its own"


def _of_column(diag: psycopg.errors.Diagnostic) -> str:
    names = [name for name in (diag.table_name, diag.column_name) if name]
    return f" ({'.'.join(names)})" if names else ""

"""Connecting to PostgreSQL with psycopg.

All times are seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.settings.tls import tls_wish
from is_db_bootstrap.stores.foreign_server import recognised
from is_db_bootstrap.stores.postgres import hosts, pooler
from is_db_bootstrap.stores.postgres.errors import (
    NAME,
    DatabaseMissing,
    DatabaseUnlisted,
    ca_source,
    denied,
    errors,
    known_refusal,
)
from is_db_bootstrap.stores.postgres.kind import ssl_mode
from is_db_bootstrap.stores.postgres.reached import QUESTION, Reached
from is_db_bootstrap.stores.postgres.tls import checked_tls, tls_way
from is_db_bootstrap.stores.tls_look import TlsFailed, refuse_tls_fault

#: Where a missing database is asked for and created: nobody's database is blocked by it, template1
#: would be (sqlx#1283).
MAINTENANCE = "postgres"

#: Where nobody listens. The environment names it while revisions are written as SQL, so that
#: modules that need an address at import can be imported, and reach no server.
NOWHERE = StoreUrl.parse("postgres", "postgresql://nobody@127.0.0.1:1/nowhere")

#: What the names of scratch databases begin with.
SCRATCH = "is_db_bootstrap_scratch_"

#: As libpq writes it: major version times 10,000.
OLDEST = 140000

#: Milliseconds that the server may take to end a session.
TERMINATE_MS = 5000
#: With a time, it says whether the session has gone (PostgreSQL 14).
_TERMINATE = """
    SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity
    WHERE pid = %s AND usename = %s AND datname = %s AND application_name = %s
"""

#: What libpq does, in seconds and `tcp_user_timeout` in milliseconds. A dead network is noticed
#: within half a minute. A firewall or a load balancer does not forget the connection while the
#: server works on a long statement.
CLIENT_KEEPALIVE: Mapping[str, int] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: What the server does to notice that our machine, or the network to it, has gone. Idle time and
#: interval are seconds, `tcp_user_timeout` is milliseconds. Such a session ends after 20 to 25 s,
#: and with it what it has locked. A session on a local socket ignores these settings (the manual's
#: "TCP Settings").
SERVER_KEEPALIVE: Mapping[str, str] = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
}

#: Settings that end a statement or a session, and that a role or a database may have been given.
LIMITS_OF_ALL_VERSIONS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)
#: Those that only newer servers have, with the first version as libpq writes it.
LIMITS_SINCE: Mapping[str, int] = {"transaction_timeout": 170000}

_ASYNCPG_ONLY = {"prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"}


#: PgBouncer tries a server again after `server_login_retry`, 15 s by default. Until then it holds
#: its clients. Seconds for which we remember why.
_HELD_S = 60.0
#: Address and database, to when the server said that the database does not exist.
_missing_since: dict[tuple[str, str], float] = {}
#: What PgBouncer says of a database that it does not list. The second is its answer where a user is
#: forced (`auth_type = any`).
#: A role that may log in, but not to this database.
_NO_CONNECT = re.compile(r"permission denied for database", re.IGNORECASE)
_UNLISTED = re.compile("no such database|bouncer config error", re.IGNORECASE)
#: How libpq shows what a server said: a severity in the server's language, a colon and two blanks
#: (`pqGetErrorNotice3` in fe-protocol3.c). What libpq says itself, such as that the server has
#: closed the connection, has one blank at most.
_SERVER_SAID = re.compile(r":  \S")


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
        **hosts.place_arguments(url),
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
    options = hosts.without_places(_query(url))
    given = found | options | checked_tls(url, options)
    return {key: value for key, value in given.items() if value != ""}


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


def connect_statement(database: str, role: str) -> str:
    """What lets a role log in to a database."""
    return f"GRANT CONNECT ON DATABASE {identifier(database)} TO {identifier(role)};"


def search_path(schema: str) -> str:
    """The search path of every session: the blueprint's schema, then public for extensions."""
    return identifier(schema) if schema == "public" else f"{identifier(schema)}, public"


def session_settings(schema: str | None) -> dict[str, str]:
    """What a session has set: schema, UTC, and no limits.

    A role or a database may have been given limits. Without a schema, the search path stays that of
    the address, the role or the database.
    """
    path = {} if schema is None else {"search_path": search_path(schema)}
    limits = dict.fromkeys(LIMITS_OF_ALL_VERSIONS, "0")
    return path | {"TimeZone": "UTC"} | limits


def unlimited(server_version: int) -> dict[str, str]:
    """What lifts each limit that a server of this version may have given a role or a database."""
    newer = [name for name, since in LIMITS_SINCE.items() if server_version >= since]
    return dict.fromkeys((*LIMITS_OF_ALL_VERSIONS, "lock_timeout", *newer), "0")


def statement_limit(seconds: float) -> dict[str, str]:
    """The setting of a session whose server ends each statement after `seconds`. 0: no limit."""
    return {"statement_timeout": str(round(seconds * 1000))}


def lock_limit(seconds: float) -> dict[str, str]:
    """The setting of a session that waits `seconds` for a lock. 0: no limit."""
    return {"lock_timeout": str(round(seconds * 1000))}


def connect(
    url: StoreUrl,
    connect_timeout_s: float,
    *,
    database: str | None = None,
    settings: Mapping[str, str] | None = None,
    limits: Mapping[str, str] | None = None,
    kind: type[psycopg.Connection[Any]] = psycopg.Connection,
    opened: Callable[[psycopg.Connection[Any]], None] | None = None,
    missing: Callable[[psycopg.Connection[Any]], None] | None = None,
    reached: Callable[[Reached], None] | None = None,
    **options: Any,
) -> psycopg.Connection[Any]:
    """One try to open an autocommit connection whose session has `settings`.

    No limit of a role or a database ends its statements, and none ends it while it is idle
    (`unlimited`). `session_roles` says which settings a session has for what it is to do.

    Within half a minute, the server notices that such a session has lost its client
    (`SERVER_KEEPALIVE`), and the client that it has lost its server (`CLIENT_KEEPALIVE`).
    The URL's database unless told, of class `kind`. `limits` are set besides, but not behind a
    pooler, which may hand a session on with its settings. `opened` is told of the connection as
    soon as the server has taken the login, so that another thread can end what the session is asked
    first. `missing` is given the session in the database `postgres` that does not list ours; it is
    closed otherwise. `reached` is told of the server and may refuse it.

    A standby is refused, unless the address asks for one. Where a name leads to several addresses,
    the primary is looked for among these then.

    Raises `DatabaseMissing`, `StoreUnavailable`, `AccessDenied`, and `ConfigurationError` for an
    address that cannot be one, where something else answers, or where a pooler gives our session to
    other clients. `DatabaseUnlisted` is one of these. `StoreConflict` means a server that is too
    old.
    """
    known = client_arguments(url, connect_timeout_s=connect_timeout_s, database=database)
    try:
        arguments = {**CLIENT_KEEPALIVE, **known, **options}
        connection = kind.connect(**arguments, autocommit=True, prepare_threshold=None)
    except psycopg.ProgrammingError as exc:
        error = ConfigurationError(
            f"postgres: the address {url} is refused by libpq: {str(exc).strip()}."
        )
        raise url.masking(error, exc) from exc
    except psycopg.OperationalError as exc:
        refusal = refused(url, exc, known["dbname"], connect_timeout_s, missing)
        raise url.masking(refusal, exc) from exc
    except UnicodeError as exc:
        error = ConfigurationError(f"postgres: the host name in {url} is not valid: {exc}.")
        raise url.masking(error, exc) from exc
    if opened is not None:
        opened(connection)
    _refuse_old(url, connection)
    try:
        free = unlimited(connection.info.server_version)
        all_settings = {**SERVER_KEEPALIVE, **free, **(settings or {})}
        server = prepare(url, connection, known, all_settings, limits)
        if not server.is_standby or hosts.may_be_standby(url):
            if reached is not None:
                reached(server)
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    if hosts.WISH in arguments or not hosts.has_more_addresses(arguments.get("host", "")):
        raise hosts.standby_reached(url, server.place)
    again = {**options, hosts.WISH: hosts.wish_of_primary()}
    return connect(
        url,
        connect_timeout_s,
        database=database,
        settings=settings,
        limits=limits,
        kind=kind,
        opened=opened,
        missing=missing,
        reached=reached,
        **again,
    )


def _refuse_old(url: StoreUrl, connection: psycopg.Connection[Any]) -> None:
    number = connection.info.server_version
    if number < OLDEST:
        connection.close()
        raise StoreConflict(
            NAME,
            f"{url} is PostgreSQL {number // 10000}; {OLDEST // 10000} or newer is needed.",
            hint="Upgrade the server.",
        ).at(Rung.TARGET)


def prepare(
    url: StoreUrl,
    connection: psycopg.Connection[Any],
    known: Mapping[str, Any],
    settings: Mapping[str, str],
    limits: Mapping[str, str] | None = None,
) -> Reached:
    """Set `settings` on the session of an autocommit `connection` that was opened with `known`.

    `limits` are set if no pooler is between. Returns which server the session has reached.
    Nothing is set behind a pooler that gives sessions to other clients: that is a
    `ConfigurationError`.
    """
    with errors(str(url)):
        direct_settings = {**settings, **(limits or {})}
        query, values = settings_if_direct(connection.info.backend_pid, direct_settings)
        row = connection.execute(query + QUESTION.encode(), values).fetchone()
        is_direct, *_, is_standby, started = row or (False, False, "")
        server = Reached(hosts.place_of(connection.info), started, is_standby)
        if is_direct:
            return server
        shared = _pool_mode(url, connection, known)
        if shared is not pooler.Mode.SESSION:
            raise shared_sessions(url, shared)
        if settings:
            connection.execute(*settings_query(settings))
        return server


def settings_if_direct(backend_pid: int, settings: Mapping[str, str]) -> tuple[bytes, list[Any]]:
    """One query that tells whether the server greeted us with `backend_pid`.

    Only then it sets `settings`.
    """
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
            f"{url} is a connection pooler that {exc}, so its mode is not known.",
            hint="Give the server's own address, or a pool in session mode with more sessions.",
        ) from exc


def shared_sessions(url: StoreUrl, mode: pooler.Mode) -> ConfigurationError:
    """The refusal of a pooler that gives our session to other clients."""
    return ConfigurationError(
        f"postgres: {url} is a connection pooler in {mode} mode; what is set or locked on a "
        "session there reaches other clients.",
        hint="Give the server's own address, or that of a pool in session mode. Nothing was set or "
        "changed.",
    ).at(Rung.TARGET)


def identity(session: psycopg.Connection[Any]) -> list[Any]:
    """Process id, user, database and name of a session, by which its server knows it.

    A pooler makes up the process id that it greets with, so the rest must fit as well.
    """
    info = session.info
    return [info.backend_pid, info.user, info.dbname, info.parameter_status("application_name")]


def terminated(connection: psycopg.Connection[Any], session: Sequence[Any]) -> bool | None:
    """End a session on the server, asked through `connection`, and wait until it is gone.

    `session` is its `identity`. None: the server lists no such session. Such a session has ended,
    or its process id is one that a pooler made up.
    """
    try:
        found = connection.execute(_TERMINATE.encode(), [TERMINATE_MS, *session]).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return False
    return None if found is None else bool(found[0])


def refused(
    url: StoreUrl,
    exc: psycopg.OperationalError,
    database: str,
    timeout_s: float,
    missing: Callable[[psycopg.Connection[Any]], None] | None = None,
) -> Exception:
    """What a refused connection means.

    libpq hands out no SQLSTATE here, only text, which the server may write in any language; so a
    database is called missing only when the server, asked through `postgres`, does not list it.
    `missing` is given the session that asked.
    """
    question = r"\s*Is the server running[^?]*\?"
    text = re.sub(question, "", str(exc))
    text = hosts.attempts_told(text) or text.removeprefix("connection failed: ")
    text = " ".join(text.split())
    if _UNLISTED.search(text):
        return DatabaseUnlisted(
            f"postgres: {url} is a connection pooler that does not list the database {database}.",
            hint=f"Let the pooler list {database}, or give the server's own address.",
        )
    known = _no_connect(url, database, text) or known_refusal(url, text)
    if known is not None:
        return _tls_fault(url, known, timeout_s) if isinstance(known, TlsFailed) else known
    told = text.rsplit("failed: ", 1)[-1]
    if database in told and _is_missing(url, database, timeout_s, told, missing):
        _missing_since[str(url), database] = time.monotonic()
        return DatabaseMissing(database)
    if database in told and "does not exist" in told:
        # It does by now: another run has just created it.
        return StoreBusy(
            NAME, f"{url} is not ready: {text}.", hint="Another run was creating the database."
        ).at(Rung.TARGET)
    has_asked_for_password = exc.pgconn is not None and exc.pgconn.used_password
    if has_asked_for_password and _SERVER_SAID.search(str(exc)):
        return denied(url, text)
    return _held_by_pooler(url, database, text) or _unanswered(url, text, timeout_s)


def _no_connect(url: StoreUrl, database: str, text: str) -> AccessDenied | None:
    """The error of a role that may log in, but not to this database."""
    if not _NO_CONNECT.search(text):
        return None
    return AccessDenied(
        NAME,
        f"{url} refused us: {text}.",
        subject=database,
        hint=f"Let an administrator run: {connect_statement(database, url.username)}",
    ).at(Rung.TARGET)


def _tls_fault(url: StoreUrl, known: TlsFailed, timeout_s: float) -> AccessDenied:
    """The cause of a TLS that failed, if it is found. libpq tells no more than that it failed."""
    way = tls_way(client_arguments(url), ca_source(url))
    try:
        refuse_tls_fault(url, way, 5432, known, min(timeout_s, 2.0))
    except AccessDenied as exc:
        return exc
    return known


def _held_by_pooler(url: StoreUrl, database: str, text: str) -> StoreUnavailable | None:
    """The error of a pooler that holds our connection to a database that it could not enter."""
    since = _missing_since.get((str(url), database))
    if since is None or time.monotonic() - since > _HELD_S or "timeout" not in text:
        return None
    return StoreUnavailable(
        NAME,
        f"{url} does not answer: {text}. It has just said that the database {database} does not "
        "exist, so it is a connection pooler that holds connections until its next try.",
        hint=f"Let an administrator run: CREATE DATABASE {identifier(database)}; or give the "
        "server's own address.",
        subject=database,
    ).at(Rung.TARGET)


def _unanswered(url: StoreUrl, text: str, timeout_s: float) -> BootstrapError:
    """What it means that no PostgreSQL answered."""
    first = hosts.hosts_of(url)[0]
    limit_s = min(timeout_s, 2.0) / 2
    if kind := recognised(first.name, int(first.port), limit_s, own="PostgreSQL"):
        return ConfigurationError(
            f"postgres: at {url} {kind} answers, not PostgreSQL.",
            hint="Correct the host or the port.",
        )
    return StoreUnavailable(
        NAME,
        f"{url} does not answer: {text}.",
        hint="Is the server running, and is the address right?",
    )


def _is_missing(
    url: StoreUrl,
    database: str,
    timeout_s: float,
    told: str,
    missing: Callable[[psycopg.Connection[Any]], None] | None,
) -> bool:
    """Whether the server lists no such database. `missing` is given the session that asked, then.

    What it told, in English, is believed when it lets nobody ask.
    """
    if database == MAINTENANCE:
        return True
    is_kept = False
    try:
        connection = connect(url, timeout_s, database=MAINTENANCE)
        try:
            with errors(str(url)):
                query = "SELECT FROM pg_database WHERE datname = %s"
                is_missing = connection.execute(query, [database]).fetchone() is None
            if is_missing and missing is not None:
                is_kept = True
                missing(connection)
            return is_missing
        finally:
            if not is_kept:
                connection.close()
    except (AccessDenied, DatabaseMissing, DatabaseUnlisted):
        return "does not exist" in told


def placeholders(url: StoreUrl, schema: str) -> dict[str, str]:
    """What may stand in braces in the arguments of a team's `env.py`. The address is whole.

    What the settings say of TLS is in it, in libpq's words. asyncpg reads no such words from an
    address of SQLAlchemy, so an address for it is without them.
    """
    whole = hosts.as_sqlalchemy_writes(url)
    if (url.ca_file or url.certificate) and "asyncpg" not in url.scheme:
        options = _query(whole)
        said = options | {k: v for k, v in checked_tls(url, options).items() if v}
        whole = replace(whole, query=tuple(said.items()))
    return {"url": whole.reveal(), "database": url.database, "schema": schema}

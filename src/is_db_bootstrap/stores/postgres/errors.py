"""What psycopg and the server raise, in the words of this tool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings.sources import process_variable
from is_db_bootstrap.settings.tls import tls_wish

if TYPE_CHECKING:
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.settings import StoreUrl

NAME: StoreName = "postgres"

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


class DatabaseMissing(Exception):
    """The server is usable and has no database of that name."""

    def __str__(self) -> str:
        return f"Database {self.args[0]} does not exist."


class HalfDone(ChangeFailed):
    """A revision has committed a part of its work by itself and did not end, or is not recorded.

    It is not run again.
    """


def known_refusal(url: StoreUrl, text: str) -> BootstrapError | None:
    """The error for libpq's `text` on a refused connection; None when it is not a known one."""
    for pattern, translate in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            return translate(url, text)
    return None


def denied(url: StoreUrl, text: str) -> BootstrapError:
    """The error of a server that knows us and does not let us in."""
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
        (
            r"password authentication failed|no password supplied"
            r"|role \".*\" does not exist|is not permitted to log in"
        ),
        denied,
    ),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects|permission denied for database", denied),
    (r"authentication failed|does not support password|(?-i:SASL|SCRAM)", denied),
    (
        (
            r"starting up|shutting down|in recovery mode"
            r"|too many clients|too many connections|slots are reserved"
        ),
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
        (
            r"certificate verify failed|root certificate|server certificate"
            r"|private key file|certificate file"
        ),
        _tls,
    ),
)


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
        hint = f"{rolled_back(change)} Correct the cause and run again."
        return ChangeFailed(NAME, message, change=change, hint=hint, detail=detail)
    return StoreConflict(NAME, f"{about or target}: {text} {code}.", subject=about, detail=detail)


def rolled_back(change: Change) -> str:
    """What is known of a change that failed, in a sentence.

    Only a step of the user's own code can open connections, and nobody sees what it commits there.
    """
    if change.kind in {"revision", "downgrade"}:
        return "Its transaction was rolled back; what it committed on connections of its own stays."
    return "Its transaction was rolled back."


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

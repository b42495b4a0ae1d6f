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
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.settings.sources import process_variable
from is_db_bootstrap.settings.tls import tls_wish
from is_db_bootstrap.stores.postgres.hosts import WAY_OUT
from is_db_bootstrap.stores.postgres.missing_privilege import missing_privilege
from is_db_bootstrap.stores.postgres.refused_statement import where
from is_db_bootstrap.stores.postgres.server_words import told
from is_db_bootstrap.stores.tls_look import TlsFailed, certificate_missing
from is_db_bootstrap.stores.tls_look import told as told_fault

if TYPE_CHECKING:
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.settings import StoreUrl

NAME: StoreName = "postgres"

# SQLSTATEs, as in the manual's appendix A.
INSUFFICIENT_PRIVILEGE = "42501"
DUPLICATE_DATABASE = "42P04"
DUPLICATE_SCHEMA = "42P06"
DUPLICATE_TABLE = "42P07"
UNIQUE_VIOLATION = "23505"
READ_ONLY_TRANSACTION = "25006"
QUERY_CANCELED = "57014"
BUSY = frozenset({"55P03", "40P01", "55006"})
INTERNAL_ERROR = "XX000"
#: What the server says when an object goes away while its own catalogue is read. The names that
#: such a query has itself are those of the server, which never go away.
GONE_MEANWHILE = frozenset({INTERNAL_ERROR, "42P01", "42704", "42883", "3F000"})
#: Two sessions changed the same object. Internal errors are in English always: the manual says in
#: "Reporting Errors Within the Server" that `elog` is not translated.
_CHANGED_TWICE = re.compile(r"tuple concurrently (updated|deleted)")
#: An object has gone since its number was read. Such a number may also be gone for good, so only
#: who looks may ask again.
_GONE = re.compile(r"(cache lookup failed for|could not open relation with OID) .*")
#: The server's own indexes of names, also in the message of a driver that keeps only its text.
_NAME_TAKEN = re.compile(r"\bpg_(class|namespace|type)_\w+_index\b")
#: A lost connection, a server that starts or stops, too many connections, a full disk being none of
#: them.
UNAVAILABLE = ("08", "57P", "53300")


#: Kinds of changes that run code of the user.
STEPS = frozenset({"revision", "downgrade", "baseline"})


class DatabaseUnlisted(ConfigurationError):
    """A pooler answers, and its configuration has no such database."""

    rung = Rung.TARGET


class DatabaseMissing(Exception):
    """The server is usable and has no database of that name."""

    def __str__(self) -> str:
        return f"Database {self.args[0]} does not exist."


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


def ca_source(url: StoreUrl) -> str:
    """Where the file comes from that the server's certificate is checked with."""
    if tls_wish(url).last("sslrootcert"):
        return "sslrootcert in the address"
    if not url.ca_file and process_variable("PGSSLROOTCERT"):
        return "PGSSLROOTCERT"
    return "POSTGRES_CA_FILE"


def _tls(url: StoreUrl, text: str) -> BootstrapError:
    return TlsFailed(
        NAME, f"No TLS connection to {url}: {text}.", hint=f"Check sslmode, and {ca_source(url)}."
    )


def _certificate_missing(url: StoreUrl, text: str) -> BootstrapError:
    """The error of a line of `pg_hba.conf` with `clientcert`, or with the method `cert`."""
    if url.certificate is None:
        return told_fault(url, certificate_missing(NAME))
    return AccessDenied(
        NAME,
        f"{url} refused our certificate {url.certificate.cert_file}: {text}.",
        hint="The server's ssl_ca_file must have the authority that has signed it.",
    ).at(Rung.TLS)


def _unencrypted(url: StoreUrl, text: str) -> BootstrapError:
    """The error of a server whose `pg_hba.conf` has lines for TLS only, or none for us."""
    return AccessDenied(
        NAME,
        f"{url} refused us: {text}.",
        hint="Check pg_hba.conf. If the server wants TLS, set POSTGRES_CA_FILE.",
    ).at(Rung.TLS)


def _not_ready(url: StoreUrl, text: str) -> BootstrapError:
    return StoreUnavailable(
        NAME, f"{url} is not ready: {text}.", hint="Wait, or give a longer --timeout."
    ).at(Rung.LOGIN)


def _read_only(url: StoreUrl, text: str) -> BootstrapError:
    return StoreUnavailable(
        NAME,
        f"No host of {url} can be written to: {text}.",
        hint=WAY_OUT,
    ).at(Rung.WRITABLE)


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
    (r"requires a valid client certificate", _certificate_missing),
    (r"no pg_hba\.conf entry.*no encryption", _unencrypted),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects", denied),
    (r"authentication failed|does not support password|(?-i:SASL|SCRAM)", denied),
    (
        (
            r"starting up|shutting down|in recovery mode"
            r"|too many clients|too many connections|slots are reserved"
        ),
        _not_ready,
    ),
    (
        (
            r"session is (read-only|not read-only)|server is (in|not in) hot standby"
            r"|is a standby \(read-only\)|not accepting connections"
        ),
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
        raise _placed(translated(exc, target, subject, change), change, (exc,)) from exc
    except BootstrapError:
        raise
    except Exception as exc:
        if not isinstance(cause := getattr(exc, "orig", None), psycopg.Error):
            raise
        statement = str(getattr(exc, "statement", None) or "")
        found = translated(cause, target, subject, change, statement)
        raise _placed(found, change, (exc, cause), statement) from exc


def _placed(
    error: StoreError,
    change: Change | None,
    causes: tuple[BaseException, ...],
    statement: str = "",
) -> StoreError:
    """The error of a change, which tells where in its file and its SQL that was."""
    if change is not None and change.kind in STEPS:
        error.message += where(*causes, statement=statement)
    return error


@contextmanager
def looking(target: str, subject: str) -> Iterator[None]:
    """Translate as `errors` does, around queries whose names are known to be there.

    These are names of the server's own catalogue, or were read from it just now. So `StoreBusy` is
    raised also when an object is missing: another session changes the schema just now.
    """
    with errors(target, subject):
        try:
            yield
        except psycopg.Error as exc:
            if exc.sqlstate not in GONE_MEANWHILE:
                raise
            # No row and no function of a user has a part in such a message.
            raise changed_meanwhile(subject, f"{exc.diag.message_primary}") from exc


def changed_meanwhile(subject: str, reason: str) -> StoreBusy:
    """The error of a look that met a change of the schema by somebody else."""
    return StoreBusy(
        NAME,
        f"{subject}: another session has changed the schema meanwhile: {reason}.",
        subject=subject,
        hint="Run again when it has ended.",
    )


def translated(
    exc: psycopg.Error | psycopg.Warning,
    target: str,
    subject: str = "",
    change: Change | None = None,
    statement: str = "",
) -> StoreError:
    """The error of a run for an error of the server.

    `change` makes what has no other name a `ChangeFailed`. `statement` is what was refused.
    """
    state = getattr(exc, "sqlstate", None) or ""
    text, detail = told(exc, statement)
    about = subject or (change.name if change else "")
    code = f"(SQLSTATE {state or 'none'})"
    if state in BUSY:
        hint = "Something else holds a lock there: look at pg_stat_activity and pg_locks."
        return StoreBusy(NAME, f"{about}: {text} {code}.", subject=about, hint=hint, detail=detail)
    if state == INTERNAL_ERROR and _is_by_another(_primary(exc), change):
        return changed_meanwhile(about or target, _primary(exc))
    if state == INSUFFICIENT_PRIVILEGE:
        hint = missing_privilege(_primary(exc), target, about, is_look=change is None)
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


def _is_by_another(primary: str, change: Change | None) -> bool:
    """Whether an internal error tells that another session has changed an object."""
    if _CHANGED_TWICE.fullmatch(primary):
        return True
    return change is None and _GONE.fullmatch(primary) is not None


def made_meanwhile(exc: psycopg.Error) -> str:
    """The server's words where a table or a schema was there first; empty for any other error."""
    text = " ".join(str(exc).split())
    is_named = exc.sqlstate in {DUPLICATE_TABLE, DUPLICATE_SCHEMA}
    is_raced = exc.sqlstate == UNIQUE_VIOLATION and _NAME_TAKEN.search(text)
    return text if is_named or is_raced else ""


def _primary(exc: psycopg.Error | psycopg.Warning) -> str:
    """The server's message in its own words."""
    return str(exc.diag.message_primary) if isinstance(exc, psycopg.Error) else ""


def rolled_back(change: Change) -> str:
    """What is known of a change that failed, in a sentence.

    Only a step of the user's own code can open connections, and nobody sees what it commits there.
    """
    if change.kind in STEPS:
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

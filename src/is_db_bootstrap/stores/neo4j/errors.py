"""What the Neo4j driver raises, in the words of this tool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neo4j import exceptions as raised

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.members import TO_ONE_SERVER, way_to_writer
from is_db_bootstrap.stores.neo4j.server_words import safe_words, status_words
from is_db_bootstrap.stores.tls_look import TlsFailed

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl


# Server error codes, without `Neo.`.
UNAUTHORIZED = "ClientError.Security.Unauthorized"
RATE_LIMIT = "ClientError.Security.AuthenticationRateLimit"
EXPIRED = "ClientError.Security.CredentialsExpired"
#: The server wants to ask its directory about the user again; the driver counts it as transient.
ASK_AGAIN = "ClientError.Security.AuthorizationExpired"
NO_DATABASE = "ClientError.Database.DatabaseNotFound"
NO_PROCEDURE = "ClientError.Procedure.ProcedureNotFound"
#: Begins the codes for the caller's limit and for the server's.
TIMED_OUT = "ClientError.Transaction.TransactionTimedOut"
NOT_A_LEADER = "ClientError.Cluster.NotALeader"
READ_ONLY = "ClientError.General.ForbiddenOnReadOnlyDatabase"
#: The driver writes the first two of these for the server's TransientError of the same name.
TERMINATED = frozenset(
    {
        "ClientError.Transaction.Terminated",
        "ClientError.Transaction.LockClientStopped",
        "TransientError.Transaction.Terminated",
        "TransientError.Transaction.LockClientStopped",
    }
)
#: Transient to the server, but the same statement needs the same memory again.
OUT_OF_MEMORY = frozenset(
    {
        "TransientError.General.MemoryPoolOutOfMemoryError",
        "TransientError.General.TransactionMemoryLimit",
    }
)
BLOCKED = "DatabaseError.Schema.ConstraintCreationFailed"
EXISTS = frozenset(
    {
        "ClientError.Schema.EquivalentSchemaRuleAlreadyExists",
        "ClientError.Schema.ConstraintAlreadyExists",
        "ClientError.Schema.ConstraintWithNameAlreadyExists",
        "ClientError.Schema.IndexAlreadyExists",
        "ClientError.Schema.IndexWithNameAlreadyExists",
    }
)

_BEFORE_RUNNING = ("ClientError.Statement.SyntaxError", "ClientError.Security.")

_HINTS = {
    RATE_LIMIT: (
        "Wrong passwords were tried before us (three lock a user for 5 s); nothing is repeated "
        "here. Stop whoever polls with them, wait, and run again."
    ),
    EXPIRED: (
        "Log in once and set a password: ALTER CURRENT USER SET PASSWORD FROM … TO … on database "
        "system."
    ),
}
_WRONG_PASSWORD = (
    "Give user and password in NEO4J_URL or NEO4J_USERNAME and "  # noqa: S105 - a hint, no password
    "NEO4J_PASSWORD. It was tried once, because Neo4j locks the user after three; "
    "a new container needs some seconds until its first password is set."
)
_TLS = (
    "Write bolt+s:// or neo4j+s:// for a server with TLS (+ssc for a self-signed certificate, "
    "or NEO4J_CA_FILE), else bolt://."
)
#: What a routing driver says that has tried each writer of its table (`_async/io/_pool.py`).
_NO_WRITER = "Failed to obtain connection towards"
_NOT_BOLT = ("UnsupportedServerProduct", "looks like HTTP")
_TLS_SIGNS = ("BoltSecurityError", "SSLError", "CertificateError", "certificate verify failed")


def code(exc: BaseException) -> str:
    """The server's code without `Neo.`; empty when a driver's error has none."""
    return str(getattr(exc, "code", "") or "").removeprefix("Neo.")


def refused_unread(exc: BaseException | None) -> bool:
    """Whether a statement was refused before any of it ran: for its words, or for a privilege."""
    return exc is not None and code(exc).startswith(_BEFORE_RUNNING)


def first_line(exc: BaseException) -> str:
    """What it says, without the driver's own classes.

    The copy of the query that follows a syntax error is left out too.
    """
    text = re.sub(
        r"\s*\(?deadline Deadline\([^)]*\)\)?", "", str(getattr(exc, "message", None) or exc)
    )
    text = re.sub(r"ResolvedIPv\dAddress\(\('([^']+)', (\d+)[^)]*\)\)", r"\1:\2", text)
    return " ".join(text.split('\n"', maxsplit=1)[0].split()).removesuffix(".")


def told(exc: BaseException) -> tuple[str, str]:
    """What may be told everywhere of a server's failure, and the whole text where that has more.

    The second is a detail, for a person at a terminal.
    """
    if not isinstance(exc, raised.Neo4jError):
        return first_line(exc), ""
    everything = " ".join(str(exc.message or "").split())
    general = safe_words(code(exc), str(exc.message or ""))
    if general:
        is_all = general in {everything.removesuffix("."), first_line(exc)}
        return general, "" if is_all else everything
    general = (
        status_words(str(exc.gql_status_description or "")) or "for a reason that may name values"
    )
    return f"{general}, GQL status {exc.gql_status}" if exc.gql_status else general, everything


def lacks_writer(exc: BootstrapError) -> bool:
    """Whether a routing driver has an address of a writer, and no connection to it."""
    return isinstance(exc.__cause__, raised.SessionExpired) and _NO_WRITER in str(exc.__cause__)


def is_silent(exc: BaseException) -> bool:
    """Whether something took the connection and gave no Bolt handshake."""
    return "handshake" in " ".join(_causes(exc))


def translated(
    exc: raised.Neo4jError | raised.DriverError, target: str, place: str, change: Change | None
) -> BootstrapError:
    """The error of `is_db_bootstrap.errors` for what a driver raised at `target`.

    `place` may be a statement of a change.
    """
    subject = change.name if change else place
    if change is None and (code(exc).startswith(TIMED_OUT) or code(exc) in OUT_OF_MEMORY):
        return StoreUnavailable(
            STORE,
            f"{target} could not answer a query yet: {told(exc)[0]}.",
            subject=subject,
            hint="It may be starting.",
        ).at(Rung.TARGET)
    known = (
        _of_server(exc, target, place, subject)
        if isinstance(exc, raised.Neo4jError)
        else _of_driver(exc, target, subject)
    )
    if known is not None:
        return known
    text, detail = told(exc)
    if change is not None:
        hint = "Correct it and run again; what came before stays applied."
        if code(exc) in OUT_OF_MEMORY:
            hint = "Split it with CALL { … } IN TRANSACTIONS, or give the server more memory."
        return ChangeFailed(
            STORE,
            f"{place or change.name} was refused: {text} ({code(exc)}).",
            change=change,
            hint=hint,
            subject=subject,
            detail=detail,
        )
    if code(exc) == NO_PROCEDURE:
        return ConfigurationError(
            f"neo4j: {target} speaks Bolt but is not Neo4j: {first_line(exc)}.",
            hint="Give the address of a Neo4j server.",
        )
    return StoreConflict(
        STORE, f"{target} refused a query: {text} ({code(exc)}).", subject=subject, detail=detail
    )


def _of_server(
    exc: raised.Neo4jError, target: str, place: str, subject: str
) -> BootstrapError | None:
    (line, detail), name = told(exc), code(exc)
    short = name.rsplit(".", 1)[-1]
    if name.startswith("ClientError.Security.") and name != ASK_AGAIN:
        return _denied(name, f"{line} ({short})", target, subject, detail)
    if name == NO_DATABASE:
        hint = (
            "Create it (Enterprise: CREATE DATABASE), or leave it out of the address to use "
            "the default one."
        )
        error = StoreConflict(STORE, f"{target} has no such database: {line}.", hint=hint)
        return error.at(Rung.TARGET)
    return _unavailable(name, f"{line} ({short})", target, place, subject, detail=detail)


def _denied(name: str, told: str, target: str, subject: str, detail: str) -> AccessDenied:
    if name == UNAUTHORIZED:
        return AccessDenied(STORE, f"{target} refused user and password.", hint=_WRONG_PASSWORD)
    hint = _HINTS.get(
        name,
        "Grant the user what the message names; schema changes need CREATE/DROP INDEX and "
        "CONSTRAINT.",
    )
    error = AccessDenied(STORE, f"{target}: {told}.", hint=hint, subject=subject, detail=detail)
    return error.at(Rung.LOGIN if name in _HINTS else Rung.SCHEMA)


def _unavailable(
    name: str, told: str, target: str, place: str, subject: str, *, detail: str
) -> StoreUnavailable | None:
    """For what is not refused for good.

    None for the rest, and for a statement that takes more memory than there is.
    """
    if name in {NOT_A_LEADER, READ_ONLY}:
        return StoreUnavailable(
            STORE,
            f"{target} is not the writer of its database: {told}.",
            hint=way_to_writer(target),
        ).at(Rung.WRITABLE)
    if name in TERMINATED:
        return StoreUnavailable(
            STORE, f"The statement was ended on the server: {told}.", subject=subject
        )
    if name.startswith(("TransientError.General.DatabaseUnavailable", "TransientError.Database.")):
        return StoreUnavailable(
            STORE,
            f"The database at {target} is not available yet: {told}.",
            hint="Wait, or see its log.",
        ).at(Rung.TARGET)
    if name == ASK_AGAIN or (name.startswith("TransientError.") and name not in OUT_OF_MEMORY):
        return StoreBusy(
            STORE,
            f"{place or target} was refused for now: {told}.",
            subject=subject,
            detail=detail,
        )
    return None


def _of_driver(exc: raised.DriverError, target: str, subject: str) -> BootstrapError:
    told = first_line(exc)
    everything = " ".join(_causes(exc))
    if isinstance(exc, raised.UnsupportedServerProduct) or any(
        sign in everything for sign in _NOT_BOLT
    ):
        return ConfigurationError(
            f"neo4j: what answers at {target} does not speak Bolt.",
            hint="Give the Bolt address of a Neo4j server (default port 7687), not that of its "
            "HTTP (7474) or of another store.",
        )
    if any(sign in everything for sign in _TLS_SIGNS):
        return TlsFailed(STORE, f"TLS to {target} failed: {told}.", hint=_TLS)
    if isinstance(exc, raised.ConfigurationError):
        return ConfigurationError(f"neo4j: the address {target} is refused by the driver: {told}.")
    if ("routing" in told or _NO_WRITER in told) and "Errno" not in everything:
        return StoreUnavailable(
            STORE, f"{target} gave no way to a writer: {told}.", hint=TO_ONE_SERVER
        ).at(Rung.TARGET)
    if is_silent(exc):
        return StoreUnavailable(
            STORE,
            f"{target} takes connections but gives no Bolt answer: {told}.",
            hint="It may be starting, need TLS (bolt+s://), or be another kind of server.",
        )
    hint = "See that it runs and that the port is Bolt's (7687 by default)."
    return StoreUnavailable(STORE, f"{target} does not answer: {told}.", subject=subject, hint=hint)


def _causes(exc: BaseException) -> Iterator[str]:
    """What it and everything behind it says.

    A routing driver hides the causes in an exception group.
    """
    yield f"{type(exc).__name__} {exc}"
    inner = list(getattr(exc, "exceptions", ()))
    inner += [e for e in (exc.__cause__,) if e is not None]
    for each in inner:
        yield from _causes(each)


class Translation:
    """Translates what the driver raises while it talks to `url`, once for all calls."""

    def __init__(self, url: StoreUrl) -> None:
        self._url = url

    @contextmanager
    def __call__(self, place: str = "", change: Change | None = None) -> Iterator[None]:
        """Translate what is raised inside, at `place`, which may be a statement of `change`."""
        try:
            yield
        except (raised.Neo4jError, raised.DriverError) as exc:
            error = translated(exc, str(self._url), place, change)
            raise self._url.masking(error, exc) from exc

"""What pymilvus and gRPC raise, in the words of this tool.

While we ask, pymilvus's log is kept quiet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pymilvus
from pymilvus.exceptions import MilvusException

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
from is_db_bootstrap.stores.milvus.privileges import refused_privilege, refused_user
from is_db_bootstrap.stores.tls_look import TlsFailed

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

STORE = "milvus"

# Error codes of the server since 2.3 (pkg/util/merr/errors.go). Milvus Lite answers 1 to nearly
# everything.
NOT_READY, UNAVAILABLE, TOO_MANY_REQUESTS, RATE_LIMIT, QUOTA_EXCEEDED = 1, 2, 4, 8, 9
COLLECTION_NOT_FOUND, ALIAS_NOT_FOUND, DATABASE_NOT_FOUND = 100, 1600, 800
RESOURCE_GROUP_SHORT, REPLICA_SHORT = 303, 401
#: The code of rate limits before 2.3.
OLD_RATE_LIMIT = 49

# Texts stand in for codes where a server has none. Cited: milvus#16411, #16781, #41371; #32014,
# #36584, #47155; #19542.
_NOT_READY = (
    "not healthy",
    "not ready",
    "notreadyserve",
    "is initializing",
    "server is not",
    "abnormal",
    "standby",
)
_SHORT_OF_NODES = ("node not enough", "currentnodenum", "no available querynode", "no enough nodes")
_RATE_LIMITED = ("rate limit", "ratelimiter", "ratelimit")
_DENIED = (
    "auth check failure",
    "unauthenticated",
    "permission deny",
    "permission denied",
    "need authenticate",
)
_NO_DATABASE = ("database not found", "database not exist")
_TLS = (
    "ssl_error",
    "certificate_verify_failed",
    "ssl handshake",
    "tls handshake",
    "wrong_version_number",
    "peer verification",
    "verification check failed",
    "tsi_data_corrupted",
)
_HTTP = ("http1.x server", "http status", "http2 header with status", "content-type")
_CREDENTIALS = (
    "Compare MILVUS_USERNAME and MILVUS_PASSWORD (a password alone is a token) with the "
    "server's users. They were tried once."
)
_PRIVILEGES = (
    "The user's role needs ShowCollections, DescribeCollection, CreateCollection, "
    "DescribeAlias, CreateAlias, IndexDetail, "
    "CreateIndex, GetLoadState and Load."
)
#: What gRPC tells of a connection that somebody opens and closes without speaking HTTP/2.
_CLOSED = ("socket closed", "connection reset", "end of file", "eof", "settings frame")

_QUIET = (
    "pymilvus.decorators",
    "pymilvus.client.connection_manager",
    "pymilvus.client.grpc_handler",
)


class _Quiet(logging.Filter):
    """Drops what pymilvus logs in a thread that asks for us; everybody else's messages pass.

    It logs a traceback for every refusal, also one that the caller expects, as of an alias that is
    missing.
    """

    asking = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - logging's signature
        return not getattr(self.asking, "depth", 0)


for _name in _QUIET:
    logging.getLogger(_name).addFilter(_Quiet())


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing from pymilvus's loggers in this thread meanwhile."""
    depth = getattr(_Quiet.asking, "depth", 0)
    _Quiet.asking.depth = depth + 1
    try:
        yield
    finally:
        _Quiet.asking.depth = depth


def is_missing(exc: MilvusException) -> bool:
    """Whether the server says that a collection or an alias does not exist."""
    return exc.code in {COLLECTION_NOT_FOUND, ALIAS_NOT_FOUND} and not _says(exc, *_NO_DATABASE)


def exists_already(exc: MilvusException) -> bool:
    """Whether a create was refused because the name is taken, by whatever it is."""
    # Milvus Lite makes a folder; the loser of two creates at once is told "[Errno 17] File exists".
    return _says(exc, "already exist", "duplicate", "at most one distinct index", "file exists")


def translated(
    exc: Exception, target: str, subject: str, change: Change | None, client: str = ""
) -> BootstrapError:
    """The error of `is_db_bootstrap.errors` for what was raised at `target`.

    `client` are the versions in words.
    """
    told = _told(exc)
    known = _of_access(exc, told, target, client) or _of_state(exc, told, target, subject)
    if known is not None:
        return known
    if change is not None:
        return ChangeFailed(
            STORE,
            f"{subject or change.name} was refused: {told}.",
            change=change,
            hint="Correct it and run again; what was applied before stays.",
        )
    return StoreConflict(
        STORE,
        f"{target} refused a call: {told}.",
        subject=subject,
        hint="Compare the versions of server and pymilvus; see the server's log.",
    )


def _of_access(exc: Exception, told: str, target: str, client: str) -> BootstrapError | None:
    status = _status(exc)
    if _says(exc, *_TLS):
        return TlsFailed(
            STORE,
            f"TLS to {target} failed: {told}.",
            hint="Write https:// for a server with TLS and http:// for one without; "
            "name its authority in MILVUS_CA_FILE.",
        )
    if status in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED} or _says(
        exc, *_DENIED
    ):
        is_known = status is grpc.StatusCode.PERMISSION_DENIED or _says(exc, "permission den")
        hint = _PRIVILEGES if is_known else _CREDENTIALS
        denied = AccessDenied(STORE, f"{target} denied access: {told}.", hint=hint)
        return denied.at(Rung.SCHEMA if is_known else Rung.LOGIN)
    if (
        _code(exc) == DATABASE_NOT_FOUND
        or _says(exc, *_NO_DATABASE)
        or ("database" in told and "does not exist" in told)
    ):
        return ConfigurationError(
            f"milvus: {target} has no such database: {told}.",
            hint="Create it (MilvusClient.create_database), or leave the name out for the default "
            "one.",
        ).at(Rung.TARGET)
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return _unimplemented(told, target, client)
    if status is not grpc.StatusCode.DEADLINE_EXCEEDED and _says(exc, *_HTTP):
        return ConfigurationError(
            f"milvus: an HTTP server answers at {target}.",
            hint="Give the address of Milvus's gRPC port (19530 by default).",
        )
    return None


def _unimplemented(told: str, target: str, client: str) -> BootstrapError:
    if "unknown service" in told:
        return ConfigurationError(
            f"milvus: another gRPC server answers at {target}: {told}.",
            hint="Give the address of Milvus's proxy (port 19530 by default), not of its "
            "coordinators or etcd.",
        )
    return StoreConflict(
        STORE,
        f"{target} does not know a call of this client ({client}): {told}.",
        hint="Install the pymilvus of the server's version, or upgrade the server.",
    ).at(Rung.TARGET)


def _of_state(exc: Exception, told: str, target: str, subject: str) -> BootstrapError | None:
    code, status = _code(exc), _status(exc)
    if (
        code in {RATE_LIMIT, OLD_RATE_LIMIT, TOO_MANY_REQUESTS}
        or status is grpc.StatusCode.RESOURCE_EXHAUSTED
        or _says(exc, *_RATE_LIMITED)
    ):
        return StoreBusy(
            STORE,
            f"{target} limits the rate of such calls: {told}.",
            subject=subject,
            hint="Wait, or raise quotaAndLimits.ddl in milvus.yaml.",
        ).at(Rung.WRITABLE)
    if code in {RESOURCE_GROUP_SHORT, REPLICA_SHORT} or _says(exc, *_SHORT_OF_NODES):
        return StoreBusy(
            STORE,
            f"{target} has no query node ready yet: {told}.",
            subject=subject,
            hint="Query nodes register up to a minute after the proxy; see that one runs.",
        ).at(Rung.TARGET)
    if code == QUOTA_EXCEEDED:
        return StoreUnavailable(
            STORE,
            f"{target} refuses changes: {told}.",
            subject=subject,
            hint="Its quota of memory or disk is used up; see quotaAndLimits in milvus.yaml.",
        ).at(Rung.WRITABLE)
    if (code == UNAVAILABLE and status is None) or _says(exc, *_NOT_READY):
        return StoreUnavailable(
            STORE,
            f"{target} is not ready yet: {told}.",
            subject=subject,
            hint="Its proxy answers before its coordinators do; wait, or give a longer --timeout.",
        ).at(Rung.LOGIN)
    if isinstance(exc, grpc.RpcError) or status is not None or code == grpc.StatusCode.UNAVAILABLE:
        return StoreUnavailable(
            STORE,
            f"{target} does not answer: {told}.",
            subject=subject,
            hint="See that it runs, that the port is Milvus's (19530 by default), "
            "and whether it wants TLS (https://).",
        )
    return None


def was_closed(exc: BootstrapError) -> bool:
    """Whether somebody answered and hung up, as a server of another kind does."""
    return any(text in str(exc).lower() for text in _CLOSED)


def _rpc(exc: BaseException) -> Any:
    """The gRPC error that pymilvus hides behind one of its own, which has lost why.

    Its own says `illegal connection params`. pymilvus raises errors `from` themselves
    (decorators.error_handler), so contexts are followed too, and none twice.
    """
    seen: list[BaseException | None] = [None]
    left: list[BaseException | None] = [exc]
    while left:
        each = left.pop()
        if isinstance(each, grpc.RpcError) and hasattr(each, "details"):
            return each
        if each is not None and each not in seen:
            seen.append(each)
            left += [each.__context__, each.__cause__]
    return None


def _status(exc: BaseException) -> grpc.StatusCode | None:
    rpc = _rpc(exc)
    return rpc.code() if rpc is not None else None


def _code(exc: BaseException) -> Any:
    return getattr(exc, "code", None) if isinstance(exc, MilvusException) else None


def _told(exc: BaseException) -> str:
    rpc = _rpc(exc)
    if rpc is not None:
        return f"{(rpc.details() or 'no details').strip().removesuffix('.')} ({rpc.code().name})"
    if isinstance(exc, MilvusException):
        return f"{exc.message.strip().removesuffix('.')} (code {int(exc.code)})"
    return str(exc).strip().removesuffix(".")


def _says(exc: BaseException, *texts: str) -> bool:
    told = _told(exc).lower()
    return any(text in told for text in texts)


class Translation:
    """Translates what pymilvus and gRPC raise while they talk to `url`, once for all calls.

    Meanwhile pymilvus's log is kept quiet. `cancelled` says that another thread has closed the
    connection: what pymilvus stumbles over then is no bug.
    """

    def __init__(self, url: StoreUrl) -> None:
        self._url = url
        self.server_version = ""
        self.cancelled = threading.Event()

    @contextmanager
    def __call__(self, subject: str = "", change: Change | None = None) -> Iterator[None]:
        """Translate what is raised inside, about `subject`."""
        try:
            with quiet():
                yield
        except (MilvusException, grpc.RpcError) as exc:
            if self.cancelled.is_set():
                raise StoreUnavailable(STORE, "The call was cancelled.", subject=subject) from exc
            server = self.server_version or "of unknown version"
            versions = f"pymilvus {pymilvus.__version__}, server {server}"
            error = translated(exc, str(self._url), subject, change, versions)
            self._name_grant(error, subject)
            self._name_proxy(error)
            raise self._url.masking(error, exc) from exc
        except (ValueError, AttributeError, TypeError) as exc:
            if not self.cancelled.is_set():
                raise
            raise StoreUnavailable(STORE, "The call was cancelled.", subject=subject) from exc

    def _name_grant(self, error: BootstrapError, subject: str) -> None:
        """Name the call that grants a missing privilege to the role of the user's name."""
        collection = "" if "." in subject or " " in subject else subject
        missing = refused_privilege(error.message, collection)
        if missing is not None and isinstance(error, AccessDenied):
            statement = missing.statement(refused_user(error.message), self._url.database)
            error.hint = f"Let an administrator run: {statement} {error.hint}"

    def _name_proxy(self, error: BootstrapError) -> None:
        """Name the proxy on the way in an error of the connection, and the way around it."""
        proxy = self._url.proxy
        if proxy is None or not isinstance(error, StoreUnavailable | AccessDenied):
            return
        error.message = f"{error.message} The connection goes through {proxy}."
        error.hint = f"{proxy.way_around} {error.hint}"

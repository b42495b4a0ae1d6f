"""What redis-py raises, in the words of this tool."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from redis import exceptions as raised

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
from is_db_bootstrap.stores.tls_look import TlsFailed

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

STORE = "redis"

# Error codes of the server. redis-py cuts those it has a class for off the text, and keeps them in
# `status_code`.
_REFUSED_FOR_NOW = {
    "READONLY": (
        "It is a read-only replica. If a fail-over is going on, run again. Else give the address "
        "of the master, or those of its Sentinels (redis+sentinel://)."
    ),
    "LOADING": "It reads its data set; wait, or give a longer --timeout.",
    "MISCONF": (
        "Its last snapshot failed (see its log: disk full, no permission on its folder?). Repair "
        "that; do not switch off stop-writes-on-bgsave-error."
    ),
    "OOM": (
        "Its maxmemory is used up and its policy evicts nothing. Give it more memory, or its keys "
        "a lifetime."
    ),
    "NOREPLICAS": (
        "min-replicas-to-write asks for more replicas than are connected. See what became of them."
    ),
    "MASTERDOWN": "It is a replica that has lost its master. Wait for the fail-over.",
    "CLUSTERDOWN": "Some slots have no master. Wait for the fail-over, or see CLUSTER INFO.",
}
_BUSY = frozenset({"TRYAGAIN", "BUSY"})
#: What a user of a run must be allowed, apart from keys: all of the first, and one of the two ways
#: to write under a condition.
RIGHTS = "+ping +info +scan +type +pttl +get +set +del +exists +pexpire"
#: Stands before a command that grants what is missing.
RUN = "Let an administrator run: "
#: What a user needs who only looks.
READ_RIGHTS = "+ping +info +scan +type +pttl +get"
TRANSACTION_RIGHTS, SCRIPT_RIGHTS = "+watch +unwatch +multi +exec", "+eval"
#: What a self-test needs besides, for keys and for channels.
SELFTEST_RIGHTS = "+rpush +sadd +zadd +hset +xadd"
CHANNEL_RIGHTS = "+subscribe +unsubscribe +publish &is-db-bootstrap:*"
#: What a self-test calls what it tries, which tells its errors from those of other commands.
SELFTEST_KEY = "a probe key of the self-test"
#: Where all lines for a user stand. Before that, an error names what its own command lacks.
GRANTS = (
    "`is-db-bootstrap grants --only redis` prints all rights that apply needs, and all that verify "
    "needs."
)
_GRANTS_OF_SELFTEST = (
    f"{GRANTS} A self-test needs besides those of apply: ~is-db-bootstrap:selftest:* "
    f"{SELFTEST_RIGHTS}, and for channels {CHANNEL_RIGHTS}."
)
DENIED = {
    "NOAUTH": "Give REDIS_PASSWORD, and REDIS_USERNAME where the server has users.",
    "WRONGPASS": (
        "Compare REDIS_USERNAME and REDIS_PASSWORD with the server's ACL. They were tried once."
    ),
    "NOPERM": GRANTS,
    "DENIED": (
        "The server is in protected mode: give it a password, or let it listen where only friends "
        "are."
    ),
}
#: Codes that a server puts inside its answer when a command of a script was refused (Redis 6), and
#: what it says instead of NOPERM.
_IN_A_SCRIPT = re.compile(r"-(READONLY|LOADING|MISCONF|OOM|NOREPLICAS|WRONGTYPE)\b")
_REFUSED_IN_A_SCRIPT = re.compile(
    r"can't run this command|can't access at least one of the keys|No permissions to", re.IGNORECASE
)
#: How a server names the command that it refuses: "no permissions to run the 'eval' command".
_REFUSED_COMMAND = re.compile(r"run the '([^']+)' command")
#: What the keys of this tool begin with, and the user of an address.
_OWN_KEYS = "is-db-bootstrap:"
_USER = re.compile(r"//(?P<user>[^:@/]*)(?::[^@/]*)?@")
#: The user of a connection that names none.
DEFAULT_USER = "default"
_TLS_HINT = (
    "Write rediss:// for a server with TLS and redis:// for one without; name its authority "
    "in REDIS_CA_FILE."
)
_SILENT_HINT = (
    "See that it runs, that the port is Redis's (6379 by default), and whether it wants TLS "
    "(rediss://)."
)


def code(exc: BaseException) -> str:
    """The server's error code, the first word of its answer.

    Empty when the client made the error.
    """
    given = getattr(exc, "status_code", None)
    if "script" in str(exc):
        if found := _IN_A_SCRIPT.search(str(exc)):
            return found[1]
        if _REFUSED_IN_A_SCRIPT.search(str(exc)):
            return "NOPERM"
    first = str(exc).partition(" ")[0]
    return str(given or (first if first.isalpha() and first.isupper() else ""))


def as_text(value: Any) -> str:
    """What a server sent, which the client may have decoded already."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def is_forbidden(exc: Exception) -> bool:
    """Whether this user may not use the command, or there is no such command.

    A proxy in front of the server may lack it as well.
    """
    return (
        isinstance(exc, raised.NoPermissionError)
        or code(exc) == "NOPERM"
        or "unknown command" in str(exc).lower()
    )


def is_forbidden_key(exc: Exception) -> bool:
    """Whether this user may use the command, but not with this key."""
    return code(exc) == "NOPERM" and "command" not in str(exc).lower()


def translated(exc: Exception, target: str, subject: str, change: Change | None) -> BootstrapError:
    """The error of `is_db_bootstrap.errors` for what redis-py raised at `target`."""
    told = _without_arguments(str(exc).strip()).removesuffix(".")
    known = (
        _of_slot(exc, told, target, subject)
        or _of_server(exc, told, target, subject)
        or _of_connection(exc, told, target, subject)
    )
    if known is not None:
        return known
    if change is not None:
        return ChangeFailed(
            STORE,
            f"{subject or change.name} was refused: {told}.",
            change=change,
            hint="Correct it and run again; nothing of it was written.",
        )
    return StoreConflict(
        STORE,
        f"{target} refused a command: {told}.",
        subject=subject,
        hint="See whether a proxy or a renamed command is in the way.",
    )


def _without_arguments(text: str) -> str:
    """A server's answer without what it repeats of the command, which may be AUTH with a password.

    Redis says "unknown command 'AUTH', with args beginning with: 'name' 'password'" (server.c).
    """
    return re.sub(r",? with args beginning with:.*", "", text, flags=re.DOTALL | re.IGNORECASE)


def _of_slot(exc: Exception, told: str, target: str, subject: str) -> BootstrapError | None:
    """The error of a cluster whose slot has another server by now. MOVED is an `AskError` too."""
    if not isinstance(exc, raised.AskError):
        return None
    return StoreUnavailable(
        STORE,
        f"{target} has moved a slot to another server meanwhile: {told}.",
        hint="A fail-over or a resharding may be going on. Run again.",
        subject=subject,
    )


def _of_server(exc: Exception, told: str, target: str, subject: str) -> BootstrapError | None:
    name = code(exc)
    if name in DENIED or isinstance(
        exc, raised.AuthenticationError | raised.AuthenticationWrongNumberOfArgsError
    ):
        hint = DENIED.get(
            name, "Compare REDIS_USERNAME and REDIS_PASSWORD with the server's. Tried once."
        )
        if name == "NOPERM" and subject == SELFTEST_KEY:
            hint = _GRANTS_OF_SELFTEST
        return AccessDenied(
            STORE,
            f"{target} denied access: {told} ({name or 'AUTH'}).",
            subject=subject,
            hint=_missing_right(exc, name, target, subject) + hint,
        ).at(Rung.SCHEMA if name == "NOPERM" else Rung.LOGIN)
    if name in _REFUSED_FOR_NOW:
        return StoreUnavailable(
            STORE,
            f"{target} refused a command: {told} ({name}).",
            hint=_REFUSED_FOR_NOW[name],
            subject=subject,
        ).at(Rung.TARGET if name == "LOADING" else Rung.WRITABLE)
    if name in _BUSY or isinstance(exc, raised.WatchError):
        return StoreBusy(STORE, f"{target} is busy: {told} ({name or 'WATCH'}).", subject=subject)
    if name == "WRONGTYPE":
        return StoreConflict(
            STORE,
            f"{subject} is a key of another type: {told}.",
            subject=subject,
            hint="See who wrote it; delete it to have it written again.",
        )
    if "DB index is out of range" in told or "SELECT is not allowed" in told:
        return ConfigurationError(
            f"redis: {target} has no such database: {told}.",
            hint="A cluster has only database 0, a server 16 by default.",
        ).at(Rung.TARGET)
    return None


def _missing_right(exc: Exception, name: str, target: str, subject: str) -> str:
    """What right is missing, and what grants it. Empty when the server does not tell."""
    if name != "NOPERM":
        return ""
    found = _REFUSED_COMMAND.search(str(exc))
    if found:
        return f"Missing is +{found[1]}. {_remedy(target, f'+{found[1]}')}"
    if is_forbidden_key(exc):
        return f"Missing is the right to this key. {_remedy_of_key(target, subject)}"
    return ""


def _remedy(target: str, rule: str) -> str:
    """What an administrator runs, as a sentence with a space behind it."""
    found = _USER.search(target)
    user = unquote(found["user"]) if found else ""
    return f"{RUN}ACL SETUSER {user or DEFAULT_USER} {rule}. "


def _remedy_of_key(target: str, key: str) -> str:
    """The same for a key of ours. Empty for what is no key, such as several at once."""
    if not key.startswith(_OWN_KEYS):
        return ""
    is_probe = key.startswith(f"{_OWN_KEYS}probe:")
    return _remedy(target, f"~{_OWN_KEYS}probe:*" if is_probe else f"~{key}")


def _of_connection(exc: Exception, told: str, target: str, subject: str) -> BootstrapError | None:
    if isinstance(exc, raised.InvalidResponse):
        # Its answer is not repeated: a server of lines may send back the line that has the
        # password.
        return ConfigurationError(
            f"redis: what answers at {target} does not speak the Redis protocol.",
            hint="Give the address of a Redis server (default port 6379).",
        )
    if any(isinstance(cause, ssl.SSLError) for cause in _causes(exc)) or "[SSL" in told:
        return TlsFailed(STORE, f"TLS to {target} failed: {told}.", hint=_TLS_HINT)
    if isinstance(
        exc,
        raised.ConnectionError
        | raised.TimeoutError
        | raised.RedisClusterException
        | raised.ClusterError,
    ):
        # A plain Redis waits for the end of a line that a TLS greeting never has; a slow server
        # looks the same.
        greeting = any("handshake" in str(cause) for cause in _causes(exc))
        hint = _TLS_HINT if greeting else _SILENT_HINT
        return StoreUnavailable(
            STORE, f"{target} does not answer: {told}.", subject=subject, hint=hint
        )
    return None


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


class Translation:
    """Translates what redis-py raises while it talks to `url`, once for all calls.

    `is_cancelled` says that another thread has closed the connections: what redis-py stumbles over
    then is no bug.
    """

    def __init__(self, url: StoreUrl) -> None:
        self._url = url
        self.is_cancelled = False

    @contextmanager
    def __call__(self, subject: str = "", change: Change | None = None) -> Iterator[None]:
        """Translate what is raised inside, about `subject`."""
        try:
            yield
        except (raised.RedisError, raised.RedisClusterException) as exc:
            error = translated(exc, str(self._url), subject, change)
            raise self._url.masking(error, exc) from exc
        except (ValueError, AttributeError) as exc:
            if not self.is_cancelled:
                raise
            raise StoreUnavailable(STORE, "The call was cancelled.", subject=subject) from exc

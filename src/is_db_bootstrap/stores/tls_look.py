"""A second look at TLS that failed, for the cause that a client library does not tell.

libpq says only that a certificate was not verified. Neo4j's driver says that the database may not
be listening, and gRPC that data is corrupt. A server that refuses our certificate often just
closes the connection. So one handshake more is made here, with Python's `ssl`, and what comes of it
is told in the same words for every store. Nothing is sent but the handshake.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from is_db_bootstrap.errors import AccessDenied, BootstrapError
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.settings.tls_files import ClientCertificate, expired_on
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import StoreUrl

#: Seconds for which a server's alert is waited for. Since TLS 1.3, a server looks at our
#: certificate after our side of the handshake has ended.
_ALERT_S = 1.0
# Results of OpenSSL's check of a certificate (X509_V_ERR_… in x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 27})
_WRONG_HOST = frozenset({62, 64})
#: Ends of OpenSSL's names for the alerts of a server that has looked at our certificate (RFC 8446,
#: 6.2). OpenSSL puts a version of the protocol in front, which says nothing.
_ALERTS = {
    "ALERT_CERTIFICATE_EXPIRED": "says that {ours} has expired",
    "ALERT_CERTIFICATE_REVOKED": "says that {ours} was revoked",
    "ALERT_UNKNOWN_CA": "does not know the authority that has signed {ours}",
    "ALERT_BAD_CERTIFICATE": "refuses {ours}, and does not say why",
    "ALERT_CERTIFICATE_UNKNOWN": "refuses {ours}, and does not say why",
    "ALERT_UNSUPPORTED_CERTIFICATE": "refuses {ours}, which is not made for clients",
    "ALERT_ACCESS_DENIED": "refuses {ours}, and does not say why",
    "ALERT_HANDSHAKE_FAILURE": "refuses the handshake, and does not say why",
    "ALERT_DECRYPT_ERROR": "refuses {ours}, and does not say why",
}
_ALERT_REQUIRED = "ALERT_CERTIFICATE_REQUIRED"
#: What OpenSSL makes of an answer that is no TLS.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})


class TlsFailed(AccessDenied):
    """A client library has given up on TLS. Nobody has looked yet for the cause."""

    rung = Rung.TLS


class Fault(NamedTuple):
    """The cause, as what follows `TLS to … failed:`, and the next step in whole sentences."""

    cause: str
    hint: str


@dataclass(frozen=True, slots=True)
class TlsWay:
    """How a client makes its TLS.

    `is_asked_for` says whether the client wants TLS at all. `is_checked` and `is_named` say whether
    the server's certificate and its host name are checked. Without `ca_file`, the authorities of
    the system check it. `ca_source` is where the file comes from, when that is not our own
    variable. `request` is sent in plain text first, and answered with one `S` by a server that goes
    on with TLS. `plain_scheme` is that of the same address without TLS, where the address says so.
    """

    is_asked_for: bool
    is_checked: bool = True
    is_named: bool = True
    ca_file: str = ""
    ca_source: str = ""
    certificate: ClientCertificate | None = None
    protocols: tuple[str, ...] = ()
    request: bytes = b""
    plain_scheme: str = ""


def refuse_tls_fault(
    url: StoreUrl, way: TlsWay, default_port: int, error: BootstrapError, limit_s: float
) -> None:
    """Raise `AccessDenied` `from error` when TLS is why the servers of `url` are out of reach.

    Each server is looked at for `limit_s` seconds at most. Returns when nothing is found.
    """
    for host, port in url.servers:
        fault = found_fault(url.store, way, (host, int(port or default_port)), limit_s)
        if fault is not None:
            raise told(url, fault) from error


def told(url: StoreUrl, fault: Fault) -> AccessDenied:
    """The error for a fault of the TLS to `url`."""
    error = AccessDenied(url.store, f"TLS to {url} failed: {fault.cause}.", hint=fault.hint)
    return error.at(Rung.TLS)


def found_fault(
    store: StoreName, way: TlsWay, server: tuple[str, int], limit_s: float
) -> Fault | None:
    """What is wrong with the TLS to one server. None when nothing is found."""
    host, port = server
    if not host or host.startswith("/"):
        return None
    try:
        context = _context(way)  # a file may be gone by now
        with socket.create_connection((host, port), limit_s) as connection:
            if way.request and not _agreed(connection, way.request):
                return without_tls(store, way) if way.is_asked_for else None
            return _handshake_fault(store, way, context, connection, host)
    except (OSError, UnicodeError, ValueError):
        return None


def _context(way: TlsWay) -> ssl.SSLContext:
    if not way.is_asked_for or not way.is_checked:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cafile=way.ca_file or None)
        context.check_hostname = way.is_named
    if way.protocols:
        context.set_alpn_protocols(list(way.protocols))
    if way.certificate is not None:
        ours = way.certificate
        context.load_cert_chain(ours.cert_file, ours.key_file, ours.key_password.encode)
    return context


def _agreed(connection: socket.socket, request: bytes) -> bool:
    connection.sendall(request)
    return connection.recv(1) == b"S"


def _handshake_fault(
    store: StoreName,
    way: TlsWay,
    context: ssl.SSLContext,
    connection: socket.socket,
    host: str,
) -> Fault | None:
    if not way.is_asked_for:
        return _with_tls(store) if _speaks_tls(context, connection, host) else None
    try:
        wrapped = context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        return _unverified(store, way, exc, host)
    except (ssl.SSLEOFError, ConnectionError):
        return _hung_up(store, way)
    except ssl.SSLError as exc:
        return without_tls(store, way) if exc.reason in _NO_TLS else _refused(store, way, exc)
    with wrapped:
        return _alert(store, way, wrapped)


def _speaks_tls(context: ssl.SSLContext, connection: socket.socket, host: str) -> bool:
    try:
        context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLError as exc:
        return "ALERT" in (exc.reason or "")
    return True


def _alert(store: StoreName, way: TlsWay, wrapped: ssl.SSLSocket) -> Fault | None:
    """What a server says after the handshake. A server that is content waits for us."""
    wrapped.settimeout(_ALERT_S)
    try:
        answer = wrapped.recv(1)
    except TimeoutError:
        return None
    except ssl.SSLError as exc:
        return _refused(store, way, exc)
    except ConnectionError:
        answer = b""
    return None if answer else _closed(store, way)


# --- the words


def _ca_source(store: StoreName, way: TlsWay) -> str:
    return way.ca_source or f"{store.upper()}_CA_FILE"


def _unverified(
    store: StoreName, way: TlsWay, exc: ssl.SSLCertVerificationError, host: str
) -> Fault:
    if exc.verify_code in _WRONG_HOST:
        return wrong_host(store, host)
    if exc.verify_code == _EXPIRED:
        return Fault(
            "a certificate of the server has expired",
            "Renew the server's certificate, or that of its authority. When it is new, compare the "
            "clocks of both machines.",
        )
    if exc.verify_code == _NOT_YET_VALID:
        return Fault(
            "a certificate of the server is not valid yet",
            "Compare the clocks of both machines.",
        )
    if exc.verify_code in _UNKNOWN_AUTHORITY:
        place = f"in {way.ca_file}" if way.ca_file else "that this system trusts"
        return Fault(
            f"no authority {place} has signed the server's certificate",
            f"Name the file of the server's authority in {_ca_source(store, way)}.",
        )
    return Fault(
        f"the server's certificate is refused: {exc.verify_message}",
        f"Have another one made, or correct {_ca_source(store, way)}.",
    )


def wrong_host(store: StoreName, host: str) -> Fault:
    """The fault of a server whose certificate bears another name."""
    return Fault(
        f"the server's certificate is not for the host {host}",
        f"Write the host in {store.upper()}_URL as the certificate has it, or have one made with "
        f"the subjectAltName {host}.",
    )


def certificate_missing(store: StoreName) -> Fault:
    """The fault of a server that asks for a certificate when we show none."""
    prefix = store.upper()
    return Fault(
        "the server asks for a client certificate, and none is set",
        f"Set {prefix}_CERT_FILE and {prefix}_KEY_FILE.",
    )


def _refused(store: StoreName, way: TlsWay, exc: ssl.SSLError) -> Fault:
    """The fault of a server that has answered with an alert."""
    reason = exc.reason or ""
    if way.certificate is None and (_ALERT_REQUIRED in reason or "CERTIFICATE" in reason):
        return certificate_missing(store)
    if way.certificate is None:
        return _refused_without_certificate(store, "refuses the handshake")
    words = next((words for sign, words in _ALERTS.items() if reason.endswith(sign)), "")
    if not words:
        return Fault(f"OpenSSL says {reason or 'no reason'}", "See the server's log.")
    return refused_certificate(store, way.certificate, words)


def refused_certificate(store: StoreName, ours: ClientCertificate, words: str) -> Fault:
    """The fault of a server that refuses our certificate. `words` are what the server does."""
    name = f"the client certificate {ours.cert_file}"
    ended = expired_on(ours.cert_file)
    if ended:
        return Fault(
            f"the server {words.format(ours=name)}. It expired on {ended}",
            f"Have it renewed, and set {store.upper()}_CERT_FILE and {store.upper()}_KEY_FILE.",
        )
    return Fault(
        f"the server {words.format(ours=name)}",
        "Show one that an authority of the server's has signed, with the extended key usage "
        f"clientAuth ({store.upper()}_CERT_FILE, {store.upper()}_KEY_FILE). The server's log says "
        "more.",
    )


def _closed(store: StoreName, way: TlsWay) -> Fault:
    """The fault of a server that has closed the connection behind the handshake, without a word."""
    if way.certificate is None:
        return _refused_without_certificate(store, "closed the connection behind the handshake")
    words = "closed the connection without a word, so it most likely refuses {ours}"
    return refused_certificate(store, way.certificate, words)


def _refused_without_certificate(store: StoreName, done: str) -> Fault:
    prefix = store.upper()
    return Fault(
        f"the server {done}, and does not say why. It most likely asks for a client certificate, "
        "and none is set",
        f"Set {prefix}_CERT_FILE and {prefix}_KEY_FILE if the server wants them, and see its log.",
    )


def _hung_up(store: StoreName, way: TlsWay) -> Fault:
    """The fault of a server that takes our side of the handshake for nonsense, or has no TLS."""
    return Fault(
        "the server closed the connection when TLS began. It most likely speaks no TLS",
        without_tls(store, way).hint,
    )


def without_tls(store: StoreName, way: TlsWay) -> Fault:
    """The fault of a server that answers in plain text."""
    kind = KINDS[store]
    prefix = store.upper()
    scheme = way.plain_scheme or (kind.schemes[0] if kind.tls_scheme else "")
    plain = f" and write {scheme}://" if scheme else ""
    return Fault(
        "the server answers without TLS",
        f"Switch TLS on there. For a server without TLS, leave {_ca_source(store, way)} and "
        f"{prefix}_CERT_FILE out{plain}.",
    )


def _with_tls(store: StoreName) -> Fault:
    kind = KINDS[store]
    scheme = f"Write {kind.tls_scheme}:// and name" if kind.tls_scheme else "Name"
    return Fault(
        "the server speaks TLS, and the address asks for none",
        f"{scheme} the server's authority in {store.upper()}_CA_FILE.",
    )

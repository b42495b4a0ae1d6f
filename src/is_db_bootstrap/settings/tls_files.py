"""The files of TLS that settings name, looked at before anything is opened.

A wrong file would come to light in the words of a client library, one store at a time, and the
words would differ. So each file is read here, with OpenSSL, by the rules of libpq.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError

if TYPE_CHECKING:
    from is_db_bootstrap.names import StoreName

#: What others may not do with a key's file. A file of root may be read by its group, which is how
#: Kubernetes mounts a secret for one group (`initialize_SSL` in libpq's fe-secure-openssl.c).
_CLOSED_TO = stat.S_IRWXG | stat.S_IRWXO
_CLOSED_TO_OF_ROOT = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]+ )?PRIVATE KEY-----")
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The certificate that we show a server, as two PEM files.

    `cert_file` may have the certificates of authorities behind ours. `key_password` opens an
    encrypted key. It is empty for a key that is not encrypted.
    """

    cert_file: str
    key_file: str
    key_password: str = field(default="", repr=False)


def check_ca_file(store: StoreName, path: str) -> None:
    """Raise `ConfigurationError` for a file that cannot be read or has no certificate."""
    variable = f"{store.upper()}_CA_FILE"
    _content(store, variable, path)
    if not _has_authorities(path, _signature(path)):
        raise ConfigurationError(
            f"{store}: {path} for {variable} has no certificate in PEM form.",
            hint=_AS_PEM,
        )


def check_certificate(store: StoreName, ours: ClientCertificate) -> None:
    """Raise `ConfigurationError` for a certificate that cannot be used.

    Either file may be missing, unreadable, or not PEM. The key may be readable by others, encrypted
    without a password that opens it, or belong to another certificate.
    """
    prefix = store.upper()
    _refuse_half(store, ours)
    certificate = _content(store, f"{prefix}_CERT_FILE", ours.cert_file)
    if _CERTIFICATE not in certificate:
        raise ConfigurationError(
            f"{store}: {ours.cert_file} for {prefix}_CERT_FILE has no certificate in PEM form.",
            hint=_AS_PEM,
        )
    key = _content(store, f"{prefix}_KEY_FILE", ours.key_file)
    if not _KEY.search(key):
        raise ConfigurationError(
            f"{store}: {ours.key_file} for {prefix}_KEY_FILE has no private key in PEM form.",
            hint="Convert it: openssl pkey -in FILE -inform DER -out FILE.pem.",
        )
    _refuse_readable_by_others(store, ours.key_file)
    if is_encrypted(key) and not ours.key_password:
        raise ConfigurationError(
            f"{store}: the key {ours.key_file} is encrypted.",
            hint=f"Set {prefix}_KEY_PASSWORD_FILE, or {prefix}_KEY_PASSWORD.",
        )
    reason = _refused_pair(ours, _signature(ours.cert_file), _signature(ours.key_file))
    if not reason:
        return
    if "KEY_VALUES_MISMATCH" in reason:
        raise ConfigurationError(
            f"{store}: the key {ours.key_file} does not belong to the certificate "
            f"{ours.cert_file}.",
            hint=f"Compare {prefix}_CERT_FILE and {prefix}_KEY_FILE. Our own certificate comes "
            "first in its file.",
        )
    if is_encrypted(key):
        raise ConfigurationError(
            f"{store}: the password does not open the key {ours.key_file}.",
            hint=f"Correct {prefix}_KEY_PASSWORD_FILE or {prefix}_KEY_PASSWORD.",
        )
    raise ConfigurationError(
        f"{store}: OpenSSL refuses {ours.cert_file} with the key {ours.key_file}: {reason}.",
        hint="Make both again. openssl x509 and openssl pkey say what is in a file.",
    )


_AS_PEM = "Convert it: openssl x509 -in FILE -inform DER -out FILE.pem."


def _refuse_half(store: StoreName, ours: ClientCertificate) -> None:
    """Raise `ConfigurationError` when one of the two files is not set."""
    prefix = store.upper()
    if ours.cert_file and ours.key_file:
        return
    if not ours.cert_file and not ours.key_file:
        raise ConfigurationError(
            f"{store}: {prefix}_KEY_PASSWORD is set, but no key.",
            hint=f"Set {prefix}_CERT_FILE and {prefix}_KEY_FILE, or leave the password out.",
        )
    named, missing = ("CERT", "KEY") if ours.cert_file else ("KEY", "CERT")
    raise ConfigurationError(
        f"{store}: {prefix}_{named}_FILE is set, but {prefix}_{missing}_FILE is not.",
        hint=f"Set {prefix}_{missing}_FILE too. It is the same file when both stand in one.",
    )


def _content(store: StoreName, variable: str, path: str) -> bytes:
    """The bytes of a file. Raises `ConfigurationError` when there are none to be had."""
    if not Path(path).exists():
        raise ConfigurationError(
            f"{store}: there is no file {path} for {variable}.",
            hint="Correct the path. A relative one begins in the folder of the call.",
        )
    if not Path(path).is_file():
        raise ConfigurationError(f"{store}: {path} for {variable} is not a file.")
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ConfigurationError(
            f"{store}: {path} for {variable} cannot be read: {exc.strerror}.",
            hint="Let the user of this command read it.",
        ) from exc


def is_encrypted(key: bytes) -> bool:
    """Whether the text of a key's PEM file says that the key is encrypted."""
    return any(sign in key for sign in _ENCRYPTED)


def _refuse_readable_by_others(store: StoreName, path: str) -> None:
    """Raise `ConfigurationError` for a key that others can read, as libpq does."""
    if os.name == "nt":
        return
    found = Path(path).stat()
    closed_to = _CLOSED_TO if found.st_uid else _CLOSED_TO_OF_ROOT
    if found.st_mode & closed_to:
        raise ConfigurationError(
            f"{store}: the key {path} can be read by others "
            f"(its mode is {stat.S_IMODE(found.st_mode):04o}).",
            hint="Run: chmod 600 FILE. A file of root may have 640, and in Kubernetes "
            "defaultMode: 0440.",
        )


# --- OpenSSL, asked once for each content of a file


def _signature(path: str) -> tuple[int, int, int]:
    """What differs when a file has got another content."""
    found = Path(path).stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _has_authorities(path: str, _signature: tuple[int, int, int]) -> bool:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


@lru_cache(maxsize=64)
def _refused_pair(
    ours: ClientCertificate, _of_cert: tuple[int, int, int], _of_key: tuple[int, int, int]
) -> str:
    """Why OpenSSL does not take a certificate with its key. Empty when it does."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # Without a function, OpenSSL would ask a person at the terminal for a password.
        context.load_cert_chain(ours.cert_file, ours.key_file, password=ours.key_password.encode)
    except (ssl.SSLError, ValueError) as exc:
        return str(exc).partition(" (_ssl.c")[0]
    return ""


# --- dates

#: The tags of the two forms of a time (X.690; RFC 5280, 4.1.2.5).
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
#: The position of the validity behind the version, in a certificate's fields (RFC 5280, 4.1).
_VERSION, _VALIDITY = 0xA0, 3


def expired_on(cert_file: str) -> str:
    """The day on which a certificate has expired, such as `2026-11-30`.

    Empty for one that is still good, or cannot be read. A file may have several, of which the first
    is ours. Python reads the dates of a server's certificate only.
    """
    import ssl

    try:
        text = Path(cert_file).read_text(encoding="ascii", errors="replace")
        end = "-----END CERTIFICATE-----"
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
        ended = _not_after(ssl.PEM_cert_to_DER_cert(first))
    except (OSError, ValueError, LookupError):
        return ""
    return f"{ended:%Y-%m-%d}" if ended < datetime.now(UTC) else ""


def _not_after(certificate: bytes) -> datetime:
    """The end of a certificate's life. Raises `ValueError` or `LookupError` for anything else."""
    signed = next(_elements(next(_elements(certificate))[1]))[1]
    fields = [field for field in _elements(signed) if field[0] != _VERSION]
    _, (tag, written) = list(_elements(fields[_VALIDITY][1]))
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}[tag]
    return datetime.strptime(written.decode("ascii"), form).replace(tzinfo=UTC)


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element of DER."""
    at = 0
    while at < len(content):
        tag, length = content[at], content[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(content[at : at + size])
            at += size
        yield tag, content[at : at + length]
        at += length

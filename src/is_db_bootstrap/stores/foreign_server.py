"""What answers on a port that gives no Bolt handshake: HTTP and Redis stay silent until a line ends, PostgreSQL hangs up."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

_LINE = b"GET / HTTP/1.0\r\n\r\n"
#: PostgreSQL's SSLRequest, which it answers with one letter (protocol documentation, message formats).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_SIGNS: Mapping[bytes, tuple[tuple[bytes, str], ...]] = {
    _LINE: ((b"HTTP/", "an HTTP server"), (b"-", "Redis")),
    _SSL_REQUEST: ((b"S", "PostgreSQL"), (b"N", "PostgreSQL")),
}


def recognised(host: str, port: int, timeout_s: float) -> str:
    """The kind of server in words; empty when it cannot be told. Each of two questions may take `timeout_s` seconds."""
    for question, signs in _SIGNS.items():
        answer = _answer(host, port, question, timeout_s)
        for sign, kind in signs:
            if answer.startswith(sign):
                return kind
    return ""


def _answer(host: str, port: int, question: bytes, timeout_s: float) -> bytes:
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(question)
            return connection.recv(16)
    except OSError:
        return b""

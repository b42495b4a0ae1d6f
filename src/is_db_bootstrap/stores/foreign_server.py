"""What answers on a port that does not speak a store's protocol: two questions, each on a connection of its own.

HTTP and Redis stay silent until a line ends, gRPC greets with the frame that HTTP/2 begins with, PostgreSQL hangs up on
both and answers its own question only.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping

_LINE = b"GET / HTTP/1.0\r\n\r\n"
#: PostgreSQL's SSLRequest, which it answers with one letter (protocol documentation, message
#: formats).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: What the answer begins with, by kind of server. The Bolt port of Neo4j answers an HTTP line in
#: HTTP. SETTINGS: RFC 9113, 6.5.
_SIGNS: Mapping[bytes, Mapping[str, bytes]] = {
    _LINE: {"an HTTP server": rb"HTTP/", "Redis": rb"-", "a gRPC server": rb"\x00..\x04"},
    _SSL_REQUEST: {"PostgreSQL": rb"[SN]"},
}


def recognised(host: str, port: int, timeout_s: float, own: str = "") -> str:
    """The kind of server in words; empty when it cannot be told, or is `own`.

    Each question may take `timeout_s` seconds.
    """
    if not host or host.startswith("/"):
        return ""
    for question, signs in _SIGNS.items():
        answer = _answer(host, port, question, timeout_s)
        for kind, sign in signs.items():
            if kind != own and re.match(sign, answer, re.DOTALL):
                return kind
    return ""


def _answer(host: str, port: int, question: bytes, timeout_s: float) -> bytes:
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(question)
            return connection.recv(16)
    except (OSError, UnicodeError):
        return b""

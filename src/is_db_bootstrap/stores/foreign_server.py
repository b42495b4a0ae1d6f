"""What answers on a port that does not speak a store's protocol.

Two questions are asked, each on a connection of its own. HTTP and Redis stay silent until a line
ends. gRPC greets with the frame that HTTP/2 begins with. PostgreSQL hangs up on a line of text, and
answers its own question only.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping

_LINE = b"GET / HTTP/1.0\r\n\r\n"
#: Bytes of an answer that are looked at.
_ANSWER_BYTES = 16
#: PostgreSQL's SSLRequest, which it answers with one letter (protocol documentation, message
#: formats).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: How the answer to each question begins, by kind of server. The Bolt port of Neo4j answers an HTTP
#: line in HTTP. gRPC's frame is SETTINGS (RFC 9113, 6.5).
_SIGNS: Mapping[bytes, Mapping[str, bytes]] = {
    _LINE: {"an HTTP server": rb"HTTP/", "Redis": rb"-", "a gRPC server": rb"\x00..\x04"},
    _SSL_REQUEST: {"PostgreSQL": rb"[SN]"},
}


def recognised(host: str, port: int, timeout_s: float, own: str = "") -> str:
    """The kind of server in words. Empty for an unknown server, and for the kind `own`.

    Each question may take `timeout_s` seconds.
    """
    is_socket = host.startswith("/")
    if not host or is_socket:
        return ""
    for question, signs in _SIGNS.items():
        answer = _first_answer(host, port, question, timeout_s)
        for kind, sign in signs.items():
            if kind != own and re.match(sign, answer, re.DOTALL):
                return kind
    return ""


def _first_answer(host: str, port: int, question: bytes, timeout_s: float) -> bytes:
    """The first bytes of what answers. Empty when nothing does."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(question)
            return connection.recv(_ANSWER_BYTES)
    except (OSError, UnicodeError):
        return b""

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
#: Neo4j, when it asks for others than itself. Its Bolt port answers an HTTP line in HTTP, and the
#: handshake of Bolt with one of the versions that were offered, here 5.4 to 5.0 and 4.4, as two
#: zeros, minor and major.
BOLT = "Neo4j"
_HANDSHAKE = bytes.fromhex("6060b017 00040405 00000404 00000000 00000000")
_AGREED = re.compile(rb"\x00\x00[\x00-\x04][\x04\x05]")
#: How the answer to each question begins, by kind of server. gRPC's frame is SETTINGS (RFC 9113,
#: 6.5).
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
                is_own = own == BOLT and _speaks_bolt(host, port, timeout_s)
                return "" if is_own else kind
    return ""


def _speaks_bolt(host: str, port: int, timeout_s: float) -> bool:
    return _AGREED.match(_first_answer(host, port, _HANDSHAKE, timeout_s)) is not None


def _first_answer(host: str, port: int, question: bytes, timeout_s: float) -> bytes:
    """The first bytes of what answers. Empty when nothing does."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(question)
            return connection.recv(_ANSWER_BYTES)
    except (OSError, UnicodeError):
        return b""

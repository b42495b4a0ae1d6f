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
_AGREED = rb"\x00\x00[\x00-\x04][\x04\x05]"
#: gRPC, when it asks for others than itself. Milvus 2.3 answers an HTTP line on the same port in
#: HTTP, and the preface of HTTP/2 with an empty SETTINGS frame (RFC 9113, 3.4) in gRPC.
GRPC = "a gRPC server"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
_SETTINGS = rb"\x00..\x04"
#: How the answer to each question begins, by kind of server. gRPC's frame is SETTINGS (RFC 9113,
#: 6.5).
_SIGNS: Mapping[bytes, Mapping[str, bytes]] = {
    _LINE: {"an HTTP server": rb"HTTP/", "Redis": rb"-", GRPC: _SETTINGS},
    _SSL_REQUEST: {"PostgreSQL": rb"[SN]"},
}

#: What a kind of server is asked in its own protocol, and how its answer begins.
_OWN_QUESTIONS = {BOLT: (_HANDSHAKE, _AGREED), GRPC: (_PREFACE, _SETTINGS)}


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
                return "" if _speaks_own(own, host, port, timeout_s) else kind
    return ""


def _speaks_own(own: str, host: str, port: int, timeout_s: float) -> bool:
    """Whether the server answers in the protocol of `own`, which answers other questions too."""
    if own not in _OWN_QUESTIONS:
        return False
    question, sign = _OWN_QUESTIONS[own]
    return re.match(sign, _first_answer(host, port, question, timeout_s), re.DOTALL) is not None


def _first_answer(host: str, port: int, question: bytes, timeout_s: float) -> bytes:
    """The first bytes of what answers. Empty when nothing does."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(question)
            return connection.recv(_ANSWER_BYTES)
    except (OSError, UnicodeError):
        return b""

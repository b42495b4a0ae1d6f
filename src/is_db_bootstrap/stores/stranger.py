"""Who listens on a port that closes a connection without a word: two questions on two new connections."""

from __future__ import annotations

import socket
from contextlib import suppress

#: What each question sends, what the answer begins with, and who answers so. PostgreSQL: SSLRequest, protocol page 55.2.11.
_QUESTIONS = (
    (b"GET / HTTP/1.0\r\n\r\n", (b"HTTP/",), "an HTTP server"),
    ((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"), (b"S", b"N"), "PostgreSQL"),
)


def stranger(host: str, port: int, timeout_s: float) -> str:
    """`an HTTP server` (the Bolt port of Neo4j answers so too), `PostgreSQL`, or empty when nothing known answers."""
    for question, answers, name in _QUESTIONS:
        with suppress(OSError), socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(question)
            if connection.recv(16).startswith(answers):
                return name
    return ""

"""A way to PostgreSQL that counts what clients send: statements, and bytes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

#: The messages by which a client lets the server run something (manual, 55.7 Message Formats).
_QUERY, _EXECUTE = b"Q", b"E"
#: The first message of a connection has no type. So has a request for TLS, which comes before it.
_TLS_REQUEST = 80877103


class CountedWire:
    """What all clients have sent so far. `url` is the address that leads through here."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        user, _, _ = parts.netloc.rpartition("@")
        host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(netloc=f"{user}@{host}" if user else host).geturl()
        self.statements = 0
        self.bytes = 0
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for act in (self._pass_on, self._pass_back):
                    threading.Thread(target=act, args=(client, server), daemon=True).start()

    def _pass_back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            for message in _messages(client):
                self.statements += message[:1] in {_QUERY, _EXECUTE}
                self.bytes += len(message)
                server.sendall(message)
            server.shutdown(socket.SHUT_WR)


def _messages(client: socket.socket) -> Iterator[bytes]:
    """The messages of a client, each with its type and its length."""
    stream = client.makefile("rb")
    has_begun = False
    while True:
        kind = stream.read(1) if has_begun else b""
        head = stream.read(4)
        if len(head) < 4:
            return
        (length,) = struct.unpack("!i", head)
        body = stream.read(length - 4)
        has_begun = has_begun or struct.unpack("!i", body[:4])[0] != _TLS_REQUEST
        # The first message begins with a zero, and is no query.
        yield kind + head + body


@contextmanager
def counted_wire(url: str) -> Iterator[CountedWire]:
    """A counted way to the server of `url`, to its end."""
    wire = CountedWire(url)
    try:
        yield wire
    finally:
        wire.close()

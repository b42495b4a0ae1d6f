"""A front of a Bolt server that tells other addresses than the server does, as behind NAT.

A client of `neo4j://` asks the server which addresses lead to its members (message ROUTE), and goes
on with these. The front passes everything on, and puts other addresses into that answer.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

#: Two bytes with the length stand before each chunk of a message. Length 0 ends the message.
_LENGTH = struct.Struct("!H")
#: The handshake: a magic number and four proposals, and the version that the server chose.
_HANDSHAKE, _CHOSEN = 20, 4
#: The proposal to go on in a longer handshake. Without it, the shorter one is used.
_MANIFEST = b"\x00\x00\x01\xff"
#: PackStream's markers of a text: up to 15 bytes, and up to 255.
_TINY, _SHORT = 0x80, 0xD0
_TINY_MOST = 15


class BoltFront:
    """Listens on a port of its own. `tells` has the addresses to tell, by the server's own ones."""

    def __init__(self, server, tells=None):
        self._server = server
        self.tells = tells or {}
        #: Routing tables that were passed on.
        self.routed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def close(self):
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server, 10)
                server.settimeout(None)
                self._open += [client, server]
                for call, ends in ((self._up, (client, server)), (self._down, (server, client))):
                    threading.Thread(target=call, args=ends, daemon=True).start()

    def _up(self, client, server):
        with suppress(OSError, EOFError):
            server.sendall(_read(client, _HANDSHAKE).replace(_MANIFEST, bytes(4)))
            while data := client.recv(65_536):
                server.sendall(data)
        self._end(client, server)

    def _down(self, server, client):
        with suppress(OSError, EOFError):
            client.sendall(_read(server, _CHOSEN))
            while True:
                message = self._rewritten(_message(server))
                for at in range(0, len(message), 60_000):
                    chunk = message[at : at + 60_000]
                    client.sendall(_LENGTH.pack(len(chunk)) + chunk)
                client.sendall(_LENGTH.pack(0))
        self._end(client, server)

    def _end(self, *ends):
        for each in ends:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _rewritten(self, message):
        self.routed += _text("rt") in message
        for own, told in self.tells.items():
            message = message.replace(_text(own), _text(told))
        return message


def _read(source, size):
    found = b""
    while len(found) < size:
        data = source.recv(size - len(found))
        if not data:
            raise EOFError
        found += data
    return found


def _message(source):
    """A whole message. A message of no chunks keeps the connection alive."""
    found = b""
    while size := _LENGTH.unpack(_read(source, 2))[0]:
        found += _read(source, size)
    return found


def _text(text):
    """A text as PackStream writes it."""
    data = text.encode()
    if len(data) <= _TINY_MOST:
        return bytes([_TINY + len(data)]) + data
    return bytes([_SHORT, len(data)]) + data

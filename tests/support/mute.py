"""A server that goes mute: its connections stay open, new ones are taken, nothing is answered.

Or one that hangs up in the middle of its answers.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

#: What PostgreSQL sends when a login is done: the message "ready for query", idle.
LOGGED_IN = b"Z\x00\x00\x00\x05I"


def always(_: bytes) -> bool:
    """Be mute from the beginning."""
    return True


def never(_: bytes) -> bool:
    """Pass on all answers, until `silence` is called."""
    return False


class MuteProxy:
    """Passes connections on to the port `to`, until it is mute.

    `until` is asked of all that a connection has been answered so far, at first of nothing, and
    says whether this connection is mute from then on. One that `hangs_up` ends the connection
    instead.
    """

    def __init__(
        self, to: int, until: Callable[[bytes], bool] = never, *, hangs_up: bool = False
    ) -> None:
        self._to = to
        self._until = until
        self._hangs_up = hangs_up
        self._silent = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._is_closed = False
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many connections were taken so far."""
        return len(self._open) // 2

    def silence(self) -> None:
        """Answer nothing any more, on no connection."""
        self._silent.set()

    def close(self) -> None:
        """End all connections."""
        self._is_closed = True
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                if self._is_closed:
                    client.close()
                    return
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                threading.Thread(target=self._ask, args=[client, server], daemon=True).start()
                threading.Thread(target=self._answer, args=[server, client], daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if not self._silent.is_set():
                    server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        answered = b""
        with suppress(OSError):
            while data := server.recv(65536):
                was_mute = self._silent.is_set() or self._until(answered)
                answered += data
                if not was_mute:
                    client.sendall(data)
                elif self._hangs_up:
                    client.shutdown(socket.SHUT_RDWR)
                    server.shutdown(socket.SHUT_RDWR)
                    return

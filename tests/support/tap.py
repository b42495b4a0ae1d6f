"""A proxy that keeps what clients have sent."""

import socket
import threading
from contextlib import suppress


class Tap:
    """Passes connections on to a server, and keeps what clients have sent."""

    def __init__(self, port):
        self._port = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.sent = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                sent = bytearray()
                self.sent.append(sent)
                for args in ((client, server, sent), (server, client, bytearray())):
                    threading.Thread(target=self._pass, args=args, daemon=True).start()

    def _pass(self, source, target, kept):
        with suppress(OSError):
            while data := source.recv(65536):
                kept += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self._door.close()

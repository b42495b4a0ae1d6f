"""A proxy that speaks TLS and hands on what it hears to a server that does not."""

import socket
import ssl
import threading
from contextlib import suppress


class TlsFront:
    """It shows one certificate, and asks for none.

    `request` is what a client sends in plain text before it begins TLS, as PostgreSQL's does. It is
    answered with `S`.
    """

    def __init__(self, port, certificate, key, request=b""):
        self._port = port
        self._request = request
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["h2"])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                threading.Thread(
                    target=self._serve, args=(self._socket.accept()[0],), daemon=True
                ).start()

    def _serve(self, raw):
        with suppress(OSError):
            if self._request and raw.recv(len(self._request)) == self._request:
                raw.sendall(b"S")
            with (
                self._context.wrap_socket(raw, server_side=True) as client,
                socket.create_connection(("127.0.0.1", self._port)) as server,
            ):
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server)
                back.join(5)

    @staticmethod
    def _pump(source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._socket.close()

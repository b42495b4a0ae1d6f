"""PgBouncer before a server, in any of its modes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

#: It refuses to run as root.
_USER = {"user": "nobody"} if os.geteuid() == 0 else {}


class Poolers:
    """Poolers that a test has started."""

    def __init__(self):
        self._program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if self._program is None:
            pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
        self._started = []

    def start(self, url, mode, *, only="*", **options):
        """A pooler before the server at `url`. Returns the address through it.

        `only` is the one database that the pooler lists. `options` are lines of its configuration.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        password = url.password.replace("'", "''")
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": mode,
            **options,
        }
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{only} = host=127.0.0.1 port={url.port(5432)} "
            f"user={url.username} password='{password}'\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items()),
            encoding="utf-8",
        )
        command = [self._program, "-q", folder / "pgbouncer.ini"]
        self._started.append(
            (subprocess.Popen(command, stderr=subprocess.DEVNULL, **_USER), folder)
        )
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert time.monotonic() < deadline, "pgbouncer does not listen"
            time.sleep(0.05)
        return replace(url, hosts=f"127.0.0.1:{port}")

    def close(self):
        for process, folder in self._started:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _listens(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False

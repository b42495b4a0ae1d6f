"""The local Milvus: milvus-lite, a gRPC server in pure Python."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.process import PYTHON
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.private_files import make_private


class MilvusServer(Server):
    """milvus-lite over TCP.

    It knows no passwords, so it listens on 127.0.0.1 whatever `listen` says.
    """

    store = "milvus"
    programs = ("milvus-lite", "python")
    has_passwords = False
    variables = PYTHON
    default_version = "lite"

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"http://{self.host}:{self.port}"

    def prepare(
        self,
        progress: Progress = silent,  # noqa: ARG002 - the signature of every server
        stop: threading.Event | None = None,  # noqa: ARG002 - the signature of every server
    ) -> None:
        """Make the folder."""
        make_private(self.home)
        self.data.mkdir(exist_ok=True)

    def configure(self) -> None:
        """Nothing to write: all settings are on the command line."""

    def command(self) -> Sequence[str]:
        """The command of the environment that we run in.

        Without `--host` it would listen everywhere.
        """
        program = Path(sys.executable).with_name("milvus-lite")
        started = [str(program)] if program.exists() else [sys.executable, "-m", "milvus_lite"]
        return [
            *started,
            "server",
            "--data-dir",
            str(self.data),
            "--host",
            self.listen,
            "--port",
            str(self.port),
        ]

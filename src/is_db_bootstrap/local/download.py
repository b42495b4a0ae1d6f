"""Files from a Maven repository, verified by SHA-256 against a list in the package.

A list has one line per file: SHA-256, size in bytes, and the coordinates
`group:artifact:version[:classifier]`. A file gets its name when it is whole and verified, so an
interrupted download goes on with the next file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.client_imports import import_module
from is_db_bootstrap.errors import ConfigurationError, StoreError, StoreUnavailable
from is_db_bootstrap.local.places import maven_address
from is_db_bootstrap.settings.address import Address, AddressError
from is_db_bootstrap.settings.proxy import web_proxy
from is_db_bootstrap.settings.secrets import without_addresses

if TYPE_CHECKING:
    import requests

Progress = Callable[[str], None]

THREADS = 12
#: Seconds without a byte before a connection is given up.
SILENCE_S = 20
ATTEMPTS = 4
_MEGABYTE = 1_000_000
LISTS = Path(__file__).parent / "files"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a repository; `size` in bytes."""

    sha256: str
    size: int
    group: str
    name: str
    version: str
    classifier: str = ""

    @classmethod
    def parse(cls, line: str) -> Artifact:
        """Read a line of a list."""
        sha256, size, coordinates = line.split()
        return cls(sha256, int(size), *coordinates.split(":"))

    @property
    def file(self) -> str:
        """Its file name."""
        return "-".join(filter(None, (self.name, self.version, self.classifier))) + ".jar"

    @property
    def path(self) -> str:
        """Its path in a repository."""
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{self.file}"

    def line(self) -> str:
        """The line of a list."""
        return f"{self.sha256} {self.size} " + ":".join(
            filter(None, (self.group, self.name, self.version, self.classifier))
        )

    def is_in(self, folder: Path) -> bool:
        """Whether it is there with its size, which shows later damage cheaply.

        Its checksum was compared before it got its name.
        """
        try:
            return (folder / self.file).stat().st_size == self.size
        except OSError:
            return False


def listed(name: str, folder: Path) -> list[Artifact]:
    """The files of the list `name`, such as `neo4j-5.26.30`."""
    lines = (folder / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return [Artifact.parse(line) for line in lines]


def fetch(  # noqa: PLR0917 - each is needed
    store: str,
    what: str,
    artifacts: Sequence[Artifact],
    folder: Path,
    progress: Progress,
    stop: threading.Event | None = None,
) -> None:
    """Bring what is missing into `folder`, in parallel. `stop` ends it early.

    Raises `StoreUnavailable` without network, and `StoreError` for a wrong checksum or a full disk.
    Files that are complete stay then, and parts of others are removed.
    """
    missing = [a for a in artifacts if not a.is_in(folder)]
    if not missing:
        return
    import_module("requests")  # before the threads of the download need it
    download = _Download(store, what, missing, folder, progress, stop or threading.Event())
    with _disk_errors(store, folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old_parts(folder)
    download.run()


def _remove_old_parts(folder: Path) -> None:
    """Remove what a download that was killed has left."""
    import psutil

    for part in folder.glob("*.part"):
        owner = part.name.split(".")[-2].partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            part.unlink(missing_ok=True)


@contextmanager
def _disk_errors(store: str, place: Path) -> Iterator[None]:
    """What the disk refuses becomes a `StoreError` that names the place."""
    try:
        yield
    except OSError as exc:
        if exc.errno is None:  # requests' errors are OSErrors too
            raise
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        cause = "the disk is full" if full else str(exc)
        raise StoreError(
            store,
            f"{place} cannot be written: {cause}.",
            hint=(
                "Make room there, or set IS_DB_BOOTSTRAP_CACHE to another folder, and run again; "
                "complete files are kept."
            ),
            subject=str(place),
        ) from exc


class _Download:
    def __init__(  # noqa: PLR0917 - made in one place
        self,
        store: str,
        what: str,
        missing: Sequence[Artifact],
        folder: Path,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._store, self._what, self._missing, self._folder = store, what, missing, folder
        self._progress, self._stop = progress, stop
        self._address, self._login = mirror(maven_address())
        self._total = sum(a.size for a in missing)
        self._done, self._told = 0, 0
        self._count = threading.Lock()
        self._local = threading.local()

    def run(self) -> None:
        files = f"{len(self._missing)} files" if len(self._missing) > 1 else "1 file"
        self._progress(
            f"{self._store}: downloading {self._what}, {files}, "
            f"{self._total / _MEGABYTE:.0f} MB, once"
        )
        with ThreadPoolExecutor(THREADS) as pool:
            largest_first = sorted(self._missing, key=lambda a: -a.size)
            running = [pool.submit(self._fetch_one, a) for a in largest_first]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                failed = [f for f in running if f.done() and not f.cancelled() and f.exception()]
                if failed or any(not f.done() for f in running):
                    self._stop.set()
        for each in failed:
            each.result()
        if self._stop.is_set():
            raise StoreUnavailable(
                self._store,
                f"The download of {self._what} was interrupted.",
                hint="Run again; it goes on.",
            )

    def _fetch_one(self, artifact: Artifact) -> None:
        import requests

        target = self._folder / artifact.file
        part = self._folder / f"{artifact.file}.{os.getpid()}-{threading.get_ident()}.part"
        try:
            digest = self._download_patiently(artifact, part)
            if self._stop.is_set():
                return
            self._check_digest(artifact, digest)
            with _disk_errors(self._store, self._folder):
                part.replace(target)
        except requests.RequestException as exc:
            cause = _innermost_cause(exc)
            proxy = web_proxy(self._address)
            way = f" The connection goes through {proxy}." if proxy else ""
            raise StoreUnavailable(
                self._store,
                f"{artifact.file} could not be downloaded from {self._address}: {cause}.{way}",
                hint=(
                    "Check the network and its proxy, "
                    "or set IS_DB_BOOTSTRAP_MAVEN_URL to a mirror; "
                    "run again and the download goes on."
                ),
                subject=artifact.file,
            ) from exc
        finally:
            part.unlink(missing_ok=True)

    def _download_patiently(self, artifact: Artifact, part: Path) -> str:
        """Download a file, again when the connection breaks in the middle; its SHA-256.

        The adapter of requests tries again only until an answer begins.
        """
        import requests

        for _ in range(ATTEMPTS - 1):
            try:
                return self._download_once(artifact, part)
            except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ReadTimeout):
                if self._stop.is_set():
                    break
        return self._download_once(artifact, part)

    def _download_once(self, artifact: Artifact, part: Path) -> str:
        digest = hashlib.sha256()
        with self._session().get(
            f"{self._address}/{artifact.path}",
            stream=True,
            timeout=SILENCE_S,
            auth=self._login,  # type: ignore[arg-type]  # requests takes bytes as well
        ) as answer:
            answer.raise_for_status()
            with _disk_errors(self._store, self._folder), part.open("wb") as file:
                for chunk in answer.iter_content(1 << 18):
                    if self._stop.is_set():
                        break
                    file.write(chunk)
                    digest.update(chunk)
                    self._count_bytes(len(chunk))
        return digest.hexdigest()

    def _session(self) -> requests.Session:
        """The session of this thread.

        It keeps its connection, honours proxies and CA files, and tries again what the network or
        the server dropped.
        """
        if not hasattr(self._local, "session"):
            import requests
            from requests.adapters import HTTPAdapter
            from urllib3.util import Retry

            session = requests.Session()
            retry = Retry(
                ATTEMPTS - 1,
                backoff_factor=0.5,
                status_forcelist=(429, 500, 502, 503, 504),
                raise_on_status=False,
            )
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            self._local.session = session
        session_: requests.Session = self._local.session
        return session_

    def _check_digest(self, artifact: Artifact, found: str) -> None:
        if found != artifact.sha256:
            raise StoreError(
                self._store,
                f"{artifact.file} from {self._address} has SHA-256 {found}, "
                f"but {artifact.sha256} is listed; it was thrown away.",
                hint=(
                    "A mirror or a proxy may have changed it; "
                    "use another IS_DB_BOOTSTRAP_MAVEN_URL."
                ),
                subject=artifact.file,
            )

    def _count_bytes(self, size: int) -> None:
        with self._count:
            self._done += size
            tenth = min(10, self._done * 10 // self._total)
            if tenth <= self._told or self._total < 20 * _MEGABYTE:
                return
            self._told = tenth
        self._progress(
            f"{self._store}: {self._done / _MEGABYTE:.0f} of {self._total / _MEGABYTE:.0f} MB"
        )


def _innermost_cause(exc: Exception) -> str:
    """The cause in words. What requests and urllib3 wrap around it names their own classes only."""
    cause: BaseException = exc
    while inner := (cause.__cause__ or cause.__context__ or getattr(cause, "reason", None)):
        if not isinstance(inner, BaseException):
            break
        cause = inner
    return without_addresses(str(cause)) or type(cause).__name__


def mirror(text: str) -> tuple[str, tuple[bytes, bytes] | None]:
    """The address of a Maven repository without its user part, and that part, if it has one.

    Neither messages nor the address that an error of requests repeats have the password then.
    """
    try:
        found = Address.split(text)
    except AddressError as exc:
        raise ConfigurationError(
            f"The address in IS_DB_BOOTSTRAP_MAVEN_URL {exc}.",
            hint="Write https://host/path, or https://user:password@host/path.",
        ) from None
    login = (found.username.encode(), found.password.encode())
    return found.without_user().rstrip("/"), login if any(login) else None

"""Downloads from a repository that runs here, with every trouble that one can have."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from is_db_bootstrap.errors import StoreError, StoreUnavailable
from is_db_bootstrap.local.download import LISTS, Artifact, fetch, listed

CONTENT = {f"part{n}": os.urandom(300_000) for n in range(8)}
ARTIFACTS = [
    Artifact(hashlib.sha256(c).hexdigest(), len(c), "org.example", n, "1")
    for n, c in CONTENT.items()
]


class Repository(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `spoilt` names get other bytes, `broken` ones a connection that ends halfway,
    that many times.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked, self.spoilt, self.broken = [], set(), {}
        self.refused = False


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.split("/")[-3]
        self.server.asked.append(name)
        if self.server.refused:
            self.send_error(404)
            return
        content = CONTENT[name][::-1] if name in self.server.spoilt else CONTENT[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.broken.get(name, 0) > 0:
            self.server.broken[name] -= 1
            content = content[:1000]
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def repository(monkeypatch):
    server = Repository()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("IS_DB_BOOTSTRAP_MAVEN_URL", f"http://127.0.0.1:{server.server_port}/maven")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def _fetch(folder, said=None):
    fetch("neo4j", "Neo4j 0", ARTIFACTS, folder, (said if said is not None else []).append)


def test_every_file_arrives_and_the_size_is_told_first(repository, tmp_path):
    said = []
    _fetch(tmp_path, said)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        f"{n}-1.jar": c for n, c in CONTENT.items()
    }
    assert said[0] == "neo4j: downloading Neo4j 0, 8 files, 2 MB, once"


def test_what_is_there_is_not_asked_for_again(repository, tmp_path):
    _fetch(tmp_path)
    repository.asked.clear()
    (tmp_path / "part3-1.jar").unlink()
    _fetch(tmp_path)
    assert repository.asked == ["part3"]


def test_a_file_that_was_cut_short_is_fetched_again(repository, tmp_path):
    _fetch(tmp_path)
    (tmp_path / "part3-1.jar").write_bytes(b"short")
    _fetch(tmp_path)
    assert (tmp_path / "part3-1.jar").read_bytes() == CONTENT["part3"]


def test_a_connection_that_breaks_is_tried_again(repository, tmp_path):
    repository.broken = {"part1": 2}
    _fetch(tmp_path)
    assert repository.asked.count("part1") == 3


def test_a_wrong_checksum_is_an_error_and_the_file_is_thrown_away(repository, tmp_path):
    repository.spoilt = {"part5"}
    with pytest.raises(
        StoreError, match=r"part5-1\.jar .* has SHA-256 .* is listed; it was thrown away"
    ):
        _fetch(tmp_path)
    assert not (tmp_path / "part5-1.jar").exists()
    assert not list(tmp_path.glob("*.part"))


def test_after_trouble_the_rest_is_fetched(repository, tmp_path):
    repository.spoilt = {"part7"}
    with pytest.raises(StoreError):
        _fetch(tmp_path)
    repository.spoilt = set()
    _fetch(tmp_path)
    assert len(list(tmp_path.glob("*.jar"))) == len(CONTENT)


def test_a_missing_file_is_named_with_the_repository(repository, tmp_path):
    repository.refused = True
    with pytest.raises(StoreUnavailable, match=r"could not be downloaded from http://127.*404"):
        _fetch(tmp_path)


def test_no_network_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("IS_DB_BOOTSTRAP_MAVEN_URL", "http://127.0.0.1:9/maven")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(
        StoreUnavailable, match=r"could not be downloaded from http://127\.0\.0\.1:9/maven"
    ) as caught:
        _fetch(tmp_path)
    assert "proxy http" not in str(caught.value)
    assert "refused" in str(caught.value)
    assert "IS_DB_BOOTSTRAP_MAVEN_URL" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@contextmanager
def _small_disk(folder, size):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_clear_error_and_whole_files_stay(repository, tmp_path):
    with _small_disk(tmp_path, "1m"):
        with pytest.raises(StoreError, match="cannot be written: the disk is full") as caught:
            _fetch(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert not list(tmp_path.glob("*.part"))
        assert all(p.read_bytes() == CONTENT[p.name.split("-")[0]] for p in tmp_path.iterdir())


_LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from is_db_bootstrap.local.download import Artifact, fetch
from is_db_bootstrap.errors import StoreError
try:
    fetch("neo4j", "Neo4j 0", [Artifact("0" * 64, 300_000, "org.example", "part0", "1")], Path({folder!r}), lambda _: None)
except StoreError as error:
    print(error)
"""


def test_a_file_that_may_not_grow_is_reported_as_a_full_disk(repository, tmp_path):
    script = _LIMITED.format(tests=str(Path(__file__).parents[1] / "support"), folder=str(tmp_path))
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert "cannot be written: the disk is full" in said
    assert list(tmp_path.iterdir()) == []


def test_a_killed_download_goes_on_where_it_stopped(repository, tmp_path):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        gone = subprocess.Popen(["true"])
        gone.wait()
        (Path(folder) / f"part0-1.jar.{gone.pid}-456.part").write_bytes(b"half")
        _fetch(Path(folder))
        assert not list(Path(folder).glob("*.part"))
        assert len(list(Path(folder).glob("*.jar"))) == len(CONTENT)


def test_the_lists_of_the_package_are_whole():
    jars = listed("neo4j-5.26.30", LISTS)
    assert len(jars) == 213
    assert sum(a.size for a in jars) == 127_985_856
    assert len({a.file for a in jars}) == 213
    assert all(Artifact.parse(a.line()) == a for a in jars)
    assert {a.sha256 for a in jars} & {"", "0" * 64} == set()

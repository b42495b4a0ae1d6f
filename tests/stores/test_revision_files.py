"""Which files of a folder are revisions.

What Alembic would pass over is named, what it skips is skipped.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres.revision_folder import looks_like_revision, revision_files
from is_db_bootstrap.stores.postgres.revisions import Chain

FIRST = b'"""first"""\nrevision = "a"\ndown_revision = None\n'
SECOND = b'revision: str = "b"\ndown_revision: str | None = "a"\n'
APPLE = b"\0\5\26\7\0\2\0\0Mac OS X        \0\2\0\0\0\xb0\xff"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "a.py").write_bytes(FIRST)
    return tmp_path / "migrations"


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "versions/b.py",
        "2026/11/b.py",
        "old.py/b.py",
        "versions/b.PY",
        "b.PY",
        "b.py.txt",
        "b.txt",
        "b.pyw",
        "b",
        "b.py ",
        "b.py\n",
        "b.py.1",
        "b.py.disabled",
        "b.py3",
        "b.py-old",
        "b (copy).py.old",
        "b.py.bak",
        "b.py.orig",
        "b.py~",
        "#b.py#",
        "b.md",
        "b.sql",
        "README",
        "__init__b.py",
        "__init__.py",
        "versions/__init__.py",
        "._b.py",
        ".#b.py",
        ".b",
        ".old/b.py",
        "2026/b.py.disabled",
    ],
)
def test_a_revision_that_alembic_would_pass_over_is_named(folder, name):
    write(folder, name, SECOND)
    with pytest.raises(ConfigurationError, match="would be passed over") as told:
        Chain.read(folder)
    assert name in told.value.message or repr(name) in told.value.message
    assert told.value.hint


@pytest.mark.parametrize(
    "text",
    [
        'if True:\n    revision = "b"\n    down_revision = "a"\n',
        'revision, down_revision = "b", "a"\n',
        'revision = "b"; down_revision = "a"\n',
        'for revision in ["b"]: down_revision = "a"\n',
        'def name():\n    global revision\n    revision = "b"\n',
        "from ids import B as revision\n",
        '(revision := "b")\n',
    ],
)
def test_a_revision_in_a_folder_below_is_named_however_it_is_assigned(folder, text):
    write(folder, "2026/b.py", text.encode())
    with pytest.raises(ConfigurationError, match=r"2026/b\.py \(a revision in a folder below\)"):
        Chain.read(folder)


def test_code_in_a_folder_below_that_cannot_be_understood_is_named(folder):
    write(folder, "2026/b.py", b'revision = "b"\ndown_revision = \n')
    with pytest.raises(ConfigurationError, match=r"2026/b\.py \(not understood as Python\)"):
        Chain.read(folder)


def test_a_name_with_blanks_at_its_end_is_shown_in_quotes(folder):
    write(folder, "b.py ", SECOND)
    with pytest.raises(ConfigurationError, match=r"'b\.py ' \(its name does not end in \.py\)"):
        Chain.read(folder)


def test_a_named_pipe_is_named_and_never_opened(folder):
    os.mkfifo(folder / "b.py")
    os.mkfifo(folder / "notes.md")
    code = (
        "from pathlib import Path; from is_db_bootstrap.stores.postgres.revisions import Chain; "
        f"Chain.read(Path({str(folder)!r}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "b.py (a named pipe, socket or device)" in ended.stderr
    assert "notes.md (a named pipe, socket or device)" in ended.stderr


def test_a_socket_is_named(folder, monkeypatch):
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("b.py")
        with pytest.raises(ConfigurationError, match=r"b\.py \(a named pipe, socket or device\)"):
            Chain.read(folder)


def test_what_is_read_is_what_alembic_lists(folder):
    for number, name in enumerate((".b.py", "d e.py", "ü.py", "x.y.py", "-.py")):
        write(folder, name, SECOND.replace(b'"b"', f'"b{number}"'.encode()))
    write(folder, "__init__.py", b"")
    write(folder, "README.md", b"How to write one.")
    write(folder, "shared/helper.py", b"TABLE = 'a'\n")
    write(folder, "folder.py/notes.txt", b"none")
    stock = Config()
    stock.set_main_option("script_location", str(folder.parent))
    stock.set_main_option("version_locations", str(folder))
    stock.set_main_option("path_separator", "os")
    listed = {Path(script.path) for script in ScriptDirectory.from_config(stock).walk_revisions()}
    assert set(revision_files(folder)) == listed
    assert len(listed) == 6


def test_a_compiled_revision_without_its_source_is_named(folder):
    write(folder, "b.pyc", b"\0down_revision\0")
    with pytest.raises(ConfigurationError, match=r"b\.pyc \(compiled, without its source\)"):
        Chain.read(folder)
    write(folder, "b.py", SECOND)
    assert Chain.read(folder).order == ("a", "b")


def test_what_another_branch_left_compiled_is_harmless_unless_there_is_no_source_at_all(folder):
    write(folder, "__pycache__/b.cpython-311.pyc", b"\0down_revision\0")
    assert Chain.read(folder).order == ("a",)
    (folder / "a.py").unlink()
    with pytest.raises(ConfigurationError, match=r"__pycache__/b\.cpython-311\.pyc \(compiled"):
        Chain.read(folder)


def test_many_are_counted(folder):
    for number in range(8):
        write(folder, f"versions/b{number}.py", SECOND)
    with pytest.raises(ConfigurationError, match="and 3 more would be passed over"):
        Chain.read(folder)


def test_the_one_folder_that_holds_them_all_is_proposed(folder):
    (folder / "a.py").unlink()
    write(folder, "versions/b.py", SECOND)
    with pytest.raises(ConfigurationError, match=r"migrations/versions") as told:
        Chain.read(folder)
    assert 'migrations=Path("migrations/versions")' in told.value.hint


def test_a_folder_behind_a_link_is_looked_into_once(folder, tmp_path):
    write(tmp_path, "elsewhere/b.py", SECOND)
    (folder / "versions").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    with pytest.raises(ConfigurationError, match=r"versions/b\.py \(a revision in a folder below"):
        Chain.read(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("__init__.py", b""),
        ("versions/__init__.py", b"from .tables import *\n"),
        ("__pycache__/b.pyc", SECOND),
        (".git/b.py", SECOND),
        (".ipynb_checkpoints/b.py", SECOND),
        ("a.py~", SECOND),
        ("#a.py#", SECOND),
        ("a.py.bak", SECOND),
        ("a.py.orig", SECOND),
        ("a.pyc", b"\0down_revision\0"),
        (".b.py.swp", b"b0VIM 8.2\0" + SECOND),
        ("._b.py", APPLE),
        (".#b.py", b"nobody@host.1:1"),
        (".gitkeep", b""),
        (".DS_Store", b"\0\0\0\1Bud1"),
        ("Thumbs.db", APPLE),
        ("script.py.mako", b"revision = ${repr(up_revision)}\ndown_revision = None\n"),
        ("README", b"Generic single-database configuration."),
        ("README.md", b"Set `down_revision` by hand:\n\n    revision = 'b'\n"),
        ("LICENSE", b"Apache License"),
        ("alembic.ini", b"[alembic]\nrevision = b\n"),
        ("CONTRACT_HEAD", b"a\n"),
        ("sql/a_up.sql", b"CREATE TABLE a ();"),
        ("a_data.csv.gz", b"\x1f\x8b"),
        ("2026/notes.txt", b"The revisions of this year."),
        ("schema.sql", b"-- revision = 'b'\n"),
        ("catalogue.json", b'{"head": "a"}'),
    ],
)
def test_what_is_plainly_harmless_is_skipped(folder, name, content):
    write(folder, name, content)
    assert Chain.read(folder).order == ("a",)


def test_a_folder_that_kubernetes_mounts_is_read_once(folder):
    write(folder, "..2026_11_29/a.py", FIRST)
    (folder / "..data").symlink_to("..2026_11_29")
    (folder / "a.py").unlink()
    (folder / "a.py").symlink_to("..data/a.py")
    assert Chain.read(folder).order == ("a",)
    write(folder, "..2026_11_29/b.py", SECOND)
    with pytest.raises(ConfigurationError, match=r"\.\.2026_11_29/b\.py"):
        Chain.read(folder)


def test_a_large_file_of_data_is_not_looked_into(folder):
    write(folder, "rows.txt", SECOND + b"#" * (1 << 20))
    assert not looks_like_revision(folder / "rows.txt")
    assert Chain.read(folder).order == ("a",)


def test_a_large_revision_in_a_folder_below_is_named_and_a_large_helper_is_not(folder):
    rows = b'ROWS = """' + b"x" * (1 << 20) + b'"""\n'
    write(folder, "2026/rows.py", b"# of a revision\n" + rows)
    assert Chain.read(folder).order == ("a",)
    write(folder, "2026/b.py", SECOND + rows)
    with pytest.raises(ConfigurationError, match=r"2026/b\.py \(a revision in a folder below\)"):
        Chain.read(folder)


def test_a_helper_in_a_folder_below_is_no_revision(folder):
    write(folder, "helpers/sql.py", b"def revision_of(name):\n    return name\n")
    assert Chain.read(folder).order == ("a",)


def test_the_lock_of_an_editor_that_leads_nowhere_is_skipped_and_another_link_is_named(folder):
    (folder / ".#a.py").symlink_to("nobody@host.1:1")
    assert [p.name for p in revision_files(folder)] == ["a.py"]
    (folder / "b.py").symlink_to("nowhere.py")
    with pytest.raises(ConfigurationError, match=r"b\.py \(a link that leads nowhere\)"):
        Chain.read(folder)


@contextmanager
def ordinary_user():
    """Be somebody who may not read everything. Root is `nobody` meanwhile."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_file_without_the_right_to_read_it_is_named(folder):
    assert Chain.read(folder).order == ("a",)  # This imports what somebody else may not read.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # pytest's own folders are closed to others
        write(folder, "a.py", FIRST)
        (folder / "a.py").chmod(0)
        with (
            ordinary_user(),
            pytest.raises(ConfigurationError, match=r"a\.py cannot be read: Permission denied"),
        ):
            Chain.read(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        Chain.read(tmp_path / "none")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + FIRST,
        FIRST.replace(b"\n", b"\r\n"),
        b"# -*- coding: latin-1 -*-\n# f\xfcr\n" + FIRST,
    ],
    ids=["byte order mark", "CRLF", "latin-1"],
)
def test_what_python_reads_is_read(folder, content):
    (folder / "a.py").write_bytes(content)
    assert Chain.read(folder).order == ("a",)


@pytest.mark.parametrize(
    "content", [b"# f\xfcr\n" + FIRST, FIRST + b"x = '\0'\n"], ids=["not UTF-8", "null byte"]
)
def test_what_python_does_not_read_is_named(folder, content):
    (folder / "a.py").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"a\.py") as told:
        Chain.read(folder)
    assert "None" not in told.value.message


def test_an_env_py_among_the_revisions_is_told_where_they_belong(folder):
    write(folder, "env.py", b"from alembic import context\n")
    with pytest.raises(ConfigurationError, match=r"env\.py: no revision is declared") as told:
        Chain.read(folder)
    assert "migrations/versions" in told.value.hint

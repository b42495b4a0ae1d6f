"""Which files of a folder are revisions: what Alembic would pass over is named, what it skips is skipped."""

from __future__ import annotations

import os

import pytest

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres.revisions import Chain, revision_files

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
    ],
)
def test_a_revision_that_alembic_would_pass_over_is_named(folder, name):
    write(folder, name, SECOND)
    with pytest.raises(ConfigurationError, match="would be passed over") as told:
        Chain.read(folder)
    assert name in told.value.message
    assert told.value.hint


def test_a_compiled_revision_without_its_source_is_named(folder):
    write(folder, "b.pyc", b"\0down_revision\0")
    with pytest.raises(ConfigurationError, match=r"b\.pyc would be passed over"):
        Chain.read(folder)
    write(folder, "b.py", SECOND)
    assert Chain.read(folder).order == ("a", "b")


def test_many_are_counted(folder):
    for number in range(8):
        write(folder, f"versions/b{number}.py", SECOND)
    with pytest.raises(ConfigurationError, match="and 3 more would be passed over"):
        Chain.read(folder)


def test_the_one_folder_that_holds_them_all_is_proposed(folder):
    (folder / "a.py").rename(folder / "a.bak")
    write(folder, "versions/b.py", SECOND)
    with pytest.raises(ConfigurationError, match=r"migrations/versions") as told:
        Chain.read(folder)
    assert 'migrations=Path("migrations/versions")' in told.value.hint


def test_a_folder_behind_a_link_is_looked_into_once(folder, tmp_path):
    write(tmp_path, "elsewhere/b.py", SECOND)
    (folder / "versions").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    with pytest.raises(ConfigurationError, match=r"versions/b\.py would be passed over"):
        Chain.read(folder)


@pytest.mark.parametrize(
    "name",
    ["__init__.py", "__pycache__/b.pyc", "__pycache__/b.py", "b.py~", "#b.py#", ".b.py.swp", "._b.py", ".#b.py", "b.py.bak",
     "b.py.orig", "script.py.mako", "README.md", ".git/b.py", "versions/__init__.py", ".ipynb_checkpoints/b.py"],
)  # fmt: skip
def test_what_editors_finder_and_packagers_leave_is_skipped(folder, name):
    write(folder, name, APPLE if "._" in name else SECOND)
    assert Chain.read(folder).order == ("a",)


def test_a_helper_in_a_folder_below_is_no_revision(folder):
    write(folder, "helpers/sql.py", b"def revision_of(name):\n    return name\n")
    assert Chain.read(folder).order == ("a",)


def test_the_lock_of_an_editor_that_leads_nowhere_is_skipped_and_another_link_is_named(folder):
    (folder / ".#a.py").symlink_to("nobody@host.1:1")
    assert [p.name for p in revision_files(folder)] == ["a.py"]
    (folder / "b.py").symlink_to("nowhere.py")
    with pytest.raises(ConfigurationError, match=r"b\.py cannot be read: No such file"):
        Chain.read(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_the_right_to_read_it_is_named(folder):
    (folder / "a.py").chmod(0)
    with pytest.raises(ConfigurationError, match=r"a\.py cannot be read: Permission denied"):
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

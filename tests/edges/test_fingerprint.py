"""What the fingerprint of a blueprint counts: everything that decides what a store looks like."""

from __future__ import annotations

import py_compile

import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings


@pytest.fixture
def folder(tmp_path):
    """A folder of revisions with one file in it."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "a_1.py").write_text('revision = "a_1"\n', encoding="utf-8")
    return folder


def digits(folder):
    blueprint = Blueprint("mine", "for tests", migrations=folder)
    return fingerprint(blueprint, Settings.load(blueprint, environ={}))


def test_a_file_that_is_edited_changes_it(folder):
    before = digits(folder)
    (folder / "a_1.py").write_text('revision = "a_1"\n# edited\n', encoding="utf-8")
    assert digits(folder) != before


def test_compiled_files_do_not_change_it(folder):
    before = digits(folder)
    py_compile.compile(str(folder / "a_1.py"), doraise=True)
    py_compile.compile(str(folder / "a_1.py"), cfile=str(folder / "a_1.pyc"), doraise=True)
    assert (folder / "__pycache__").is_dir()
    assert digits(folder) == before


def test_a_file_that_cannot_be_read_is_refused_by_name(folder):
    unreadable = folder / "data.csv"
    unreadable.symlink_to("/proc/self/mem")  # root may read any file, and nobody reads this one
    with pytest.raises(ConfigurationError, match=r"data\.csv belongs to the blueprint and cannot"):
        digits(folder)


def test_what_is_no_file_counts_by_its_name(folder):
    before = digits(folder)
    (folder / "gone.csv").symlink_to(folder / "no_such_file")
    assert digits(folder) != before

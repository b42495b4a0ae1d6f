"""Revisions are read from their files as Alembic would read them.

Records are believed only when they can be true.
"""

from __future__ import annotations

import ast
import sys
import threading
from contextlib import suppress

import pytest
from alembic.script import ScriptDirectory
from psycopg import OperationalError

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine.lineage import Standing
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreUnavailable
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres import alembic as postgres_alembic
from is_db_bootstrap.stores.postgres.connection import (
    client_arguments,
    identifier,
    refused,
    search_path,
)
from is_db_bootstrap.stores.postgres.lineage_table import mark
from is_db_bootstrap.stores.postgres.plain_head import read_plain_head
from is_db_bootstrap.stores.postgres.revisions import (
    Chain,
    Record,
    RecordedLineage,
    _head_of_tree,
    declared_ids,
    parse_python,
)
from is_db_bootstrap.stores.tls_look import TlsFailed


@pytest.fixture
def folder(tmp_path):
    def write(**parents):
        for name, before in parents.items():
            (tmp_path / f"{name}_x.py").write_text(
                f"revision: str = {name!r}\ndown_revision = {before!r}\n"
            )
        return tmp_path

    return write


@pytest.mark.parametrize(
    "name",
    sorted(
        p.name
        for p in (files.root() / "migrations").iterdir()
        if p.is_dir() and any(p.glob("*.py"))
    ),
)
def test_our_reading_of_a_folder_is_alembics(name):
    script = ScriptDirectory.from_config(
        postgres_alembic.config(Blueprint(name, "", migrations=files.migrations(name)), "public")
    )
    chain = Chain.read(files.migrations(name))
    assert list(chain.order) == [r.revision for r in reversed(list(script.walk_revisions()))]
    assert chain.head == script.get_current_head()


def test_branches_that_were_merged_are_ordered(folder):
    chain = Chain.read(folder(a=None, c="a", b="a", m=("b", "c")))
    assert chain.order == ("a", "b", "c", "m")
    assert chain.until(["c"]) == ("a", "c")
    assert chain.until(["b", "c"]) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        (
            {"a": None, "b": "a", "c": "a"},
            r"several heads: b \(b_x.py, line \d\), c \(c_x.py, line \d\)",
        ),
        ({"a": None, "b": "z"}, "b goes on from z, which is not there"),
        ({"0": "a", "a": "b", "b": "a"}, r"a goes on from b, which goes on from a\. Correct"),
        ({"a": None, "fix": "fix"}, r"fix goes on from itself\. Correct"),
        ({"a": "a", "b": ("a", "z")}, "b goes on from z, which is not there"),
    ],
)
def test_a_broken_history_is_a_configuration_error(folder, parents, message):
    with pytest.raises(ConfigurationError, match=message) as refused:
        Chain.read(folder(**parents))
    assert ("name an alembic.ini" in refused.value.hint) == ("several heads" in message)


def test_a_label_stands_for_the_revision_that_has_it(folder, tmp_path):
    folder(n=None, m="n")
    (tmp_path / "n_x.py").write_text(
        "revision = 'n'\ndown_revision = None\n\n\ndef upgrade():\n    pass\n\n\n"
        "branch_labels: tuple = ('goods',)\n"
    )
    (tmp_path / "a.py").write_text("revision = 'a'\ndown_revision = 'm'\ndepends_on = 'goods'\n")
    assert Chain.read(tmp_path).parents == {"n": (), "m": ("n",), "a": ("m", "n")}
    (tmp_path / "a.py").write_text(
        "revision = 'a'\ndown_revision = None\ndepends_on = 'goods@head'"
    )
    with pytest.raises(ConfigurationError, match="which is not there") as refused:
        Chain.read(tmp_path)
    assert "What has an @ is for Alembic's commands only" in refused.value.hint


#: Heads, and whether they are read without Python's parser.
HEADS = {
    "as Alembic writes it": (
        (
            '"""Make \'a "table".\n\nRevision ID: a1\nRevises: \n"""\n'
            "from typing import Sequence, Union\n\nfrom alembic import op\nimport sqlalchemy as sa\n"
            "import app.models, x as y\n\n# revision identifiers\nrevision: str = 'a1'\n"
            "down_revision: Union[str, Sequence[str], None] = ('x', \"y\",)\n"
            "branch_labels: str | None = None  # none\ndepends_on = 'z'\n"
        ),
        True,
    ),
    "without a docstring": ("revision = 'a1'\ndown_revision = None\n", True),
    "with another docstring": ("# (c) é\n\n\n'''x'''\nrevision = 'a1'\n", False),
    "declared twice": ("revision = 'x'\nrevision = 'a1'\ndown_revision = None\n", True),
    "texts beside each other": ("revision = 'a' '1'\ndown_revision = None\n", False),
    "with an escape": ("revision = 'a\\x31'\n", False),
    "on two lines": ("revision = 'a1'\ndown_revision = (\n'x', 'y')\n", False),
    "a line that goes on": ("import x\\\n\nrevision = 'a1'\n", False),
    "in a text": ('"""\nrevision = "b2"\n"""\nrevision = "a1"\n', True),
    "in brackets": ("x = (\n'''\nrevision = 'b2'\n''')\nrevision = 'a1'\n", False),
    "other ends of lines": ("'''x'''\r\nrevision = 'a1'\r\n", False),
    "two names": ("revision = other = 'a1'\n", False),
    "with an if": ("if True:\n    pass\nrevision = 'a1'\n", False),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_plain_head_says_what_the_parser_says(tmp_path, case):
    text, is_plain = HEADS[case]
    path = tmp_path / "a1.py"
    path.write_bytes(text.encode() + b"def upgrade():\n    pass\n")
    plain = read_plain_head(text.encode())
    assert (plain is not None) == is_plain
    if plain is not None:
        plain.values.pop("branch_labels", None)
        assert plain == _head_of_tree(ast.parse(text.encode()), path)
    assert declared_ids(path)[0] == "a1"


def test_plain_heads_of_this_project_say_what_the_parser_says():
    plain_heads = 0
    for path in (files.root() / "migrations").glob("*/*.py"):
        head = path.read_bytes().partition(b"\ndef ")[0] + b"\n"
        plain = read_plain_head(head)
        if plain is not None:
            plain_heads += 1
            plain.values.pop("branch_labels", None)
            assert plain == _head_of_tree(ast.parse(head), path)
    assert plain_heads > 5


def test_a_revision_twice_or_computed_or_missing_is_a_configuration_error(folder, tmp_path):
    folder(a=None)
    (tmp_path / "b.py").write_text("revision = 'a'\ndown_revision = None\n")
    with pytest.raises(
        ConfigurationError, match=r"a_x\.py, line 1 and b\.py, line 1 both declare revision a"
    ):
        Chain.read(tmp_path)
    (tmp_path / "b.py").write_text("revision = 'a' + NAME\n")
    with pytest.raises(ConfigurationError, match="must be written out"):
        Chain.read(tmp_path)
    (tmp_path / "b.py").write_text("x = 1\n")
    with pytest.raises(ConfigurationError, match="no revision is declared"):
        Chain.read(tmp_path)


def test_a_record_tells_blueprint_and_lineage():
    record = Record.of(["b"], mark("mine", ["a", "b"]))
    assert (record.revisions, record.blueprint, record.lineage) == (("b",), "mine", ("a", "b"))
    assert Record.of([], mark("mine", [])) == Record()


def test_our_row_counts_before_a_comment_unless_it_is_out_of_date():
    comment = mark("mine", ["a", "c", "b"])
    by_row = Record.of(["b"], comment, RecordedLineage("mine", ("a", "b")))
    assert (by_row.lineage, by_row.in_comment) == (("a", "b"), False)
    by_comment = Record.of(["b"], comment, RecordedLineage("mine", ("a",)))
    assert (by_comment.lineage, by_comment.in_comment) == (("a", "c", "b"), True)
    assert Record.of(["b"], "theirs", RecordedLineage("mine", ("a", "b", "c"))) == Record(("b",))
    assert Record.of([], comment, RecordedLineage("mine", ("a", "b"))) == Record()


def test_a_plan_counts_up_to_the_recorded_revisions_where_the_row_is_out_of_date():
    row = RecordedLineage("mine", ("a",), ("a", "b", "c", "d"))
    assert Record.of(["c"], None, row).lineage == ("a", "b", "c")
    assert Record.of(["b", "c"], None, row).lineage == ("a", "b", "c")
    assert Record.of(["a"], None, row).lineage == ("a",)
    assert Record.of(["x"], None, row).lineage == ()
    assert Record.of(["c", "x"], None, row).lineage == ()
    assert Record.of(["c"], mark("mine", ["a", "c"]), row).lineage == ("a", "b", "c")
    assert Record.of(["c"], None, row).has_plan
    assert not Record.of(["c"], None, RecordedLineage("mine", ("a", "c"))).has_plan


@pytest.mark.parametrize(
    "comment",
    [
        None,
        "",
        "see the wiki",
        mark("mine", ["a"]),
        mark("mine", ["a", "b", "c"]),
        mark("mine", []),
    ],
)
def test_a_comment_that_does_not_end_in_the_recorded_revision_is_not_believed(comment):
    assert Record.of(["b"], comment) == Record(("b",))


#: Revisions and what they go on from, what is recorded of them, and how that stands.
STANDINGS = {
    "newer code was here": ("a b<a", "a b c", Standing.AHEAD),
    "newer code of a merged branch": ("a b<a", "a x b m", Standing.AHEAD),
    "one was put before the last": ("a b<a c<b", "a c", Standing.DIVERGED),
    "one was put before all": ("0 a<0 b<a", "a b", Standing.DIVERGED),
    "one was moved behind the last": ("a c<a b<c", "a b c", Standing.DIVERGED),
    "a file is gone": ("a c<a d<c", "a b c", Standing.DIVERGED),
    "both go on": ("a b<a", "a x", Standing.DIVERGED),
    "older files were squashed": ("b", "a b", Standing.SAME),
    "squashed, and newer code": ("b", "a b c", Standing.AHEAD),
    "squashed, and one is pending": ("b c<b", "a b", Standing.PENDING),
    "a branch that is not applied": ("a b<a c<a m<b+c", "a c", Standing.PENDING),
    "a branch that others have undone": ("a b<a c<a m<b+c", "a b c", Standing.PENDING),
    "its files are not there": ("y", "a b", Standing.DIVERGED),
}


@pytest.mark.parametrize("case", STANDINGS)
def test_a_recorded_lineage_stands_to_the_folder_by_containment_and_order(case):
    files, recorded, standing = STANDINGS[case]
    pairs = [text.partition("<") for text in files.split()]
    parents = {name: tuple(filter(None, before.split("+"))) for name, _, before in pairs}
    chain = Chain(tuple(parents), parents)
    names = tuple(recorded.split())
    record = Record.of(names[-1:], mark("mine", names))
    found = record.as_lineage(chain).compare(chain.lineage)
    assert found.standing is standing, found


def test_a_version_table_alone_says_that_all_before_is_applied():
    chain = Chain(("a", "b", "c"), {"a": (), "b": ("a",), "c": ("b",)})
    assert Record(("b",)).as_lineage(chain).compare(chain.lineage).pending == ("c",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgresql://u:p%40%3A%2F@h/db",
            {"host": "h", "port": "5432", "dbname": "db", "user": "u", "password": "p@:/"},
        ),
        (
            "postgresql://h1:1,h2/db",
            {
                "host": "h1,h2",
                "port": "1,5432",
                "dbname": "db",
                "target_session_attrs": "primary",
            },
        ),
        ("postgresql://[::1]:6/db", {"host": "::1", "port": "6", "dbname": "db"}),
        (
            "postgresql+asyncpg://h/db?ssl=true",
            {"host": "h", "port": "5432", "dbname": "db", "sslmode": "require"},
        ),
        (
            "postgresql://h/db?application_name=x",
            {"host": "h", "port": "5432", "dbname": "db", "application_name": "x"},
        ),
    ],
)
def test_an_address_in_libpqs_words(text, expected):
    found = client_arguments(StoreUrl.parse("postgres", text), connect_timeout_s=0.5)
    assert found == {
        "connect_timeout": 2,
        "application_name": "is-db-bootstrap",
        "client_encoding": "UTF8",
        **expected,
    }


def test_names_are_quoted():
    assert identifier("a", 'b"c') == '"a"."b""c"'
    assert search_path("public") == '"public"'
    assert search_path("x") == '"x", public'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            (
                'connection to server at "ssl-proxy.example" (10.0.0.1), port 5432 failed: '
                "Connection refused"
            ),
            StoreUnavailable,
        ),
        ("connection failed: SSL connection has been closed unexpectedly", StoreUnavailable),
        ("connection failed: server does not support SSL, but SSL was required", TlsFailed),
        ("connection failed: SSL error: certificate verify failed", TlsFailed),
        ('root certificate file "/nowhere.pem" does not exist', TlsFailed),
        ('server certificate for "a" does not match host name "b"', TlsFailed),
        ("connection failed: server does not support SCRAM authentication", AccessDenied),
        (
            'connection to server at "scram.example", port 5432 failed: Connection refused',
            StoreUnavailable,
        ),
    ],
)
def test_what_libpq_says_of_tls_is_told_from_names_that_sound_like_it(text, kind):
    url = StoreUrl.parse("postgres", "postgresql://app@127.0.0.1:1/never_named")
    assert type(refused(url, OperationalError(text), url.database, 0.5)) is kind


def test_files_are_parsed_beside_other_threads_that_parse():
    """CPython 3.11 counts the depth of nested nodes for all threads together."""
    text = ("x = [" + "(1, [2, {3: (4, [5])}])," * 200 + "]\n").encode()
    ended = threading.Event()

    def parse_on():
        while not ended.is_set():
            with suppress(SystemError):
                ast.parse(text)

    others = [threading.Thread(target=parse_on, daemon=True) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for each in others:
            each.start()
        for _ in range(30):
            assert len(parse_python(text).body) == 1
    finally:
        ended.set()
        sys.setswitchinterval(interval)
    for each in others:
        each.join()

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile, Precondition, load
from is_db_bootstrap.stores.neo4j.cypher_schema import Drop, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import checksum, flyway_checksum, split, their_parts


def declared(text: str) -> SchemaObject | Drop | None:
    (statement,) = split(text)
    return recognise(statement.tokens)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "0"),
        ("CREATE (:A)", "1184523404"),
        ("CREATE (:A);", "1184523404"),
        ("CREATE (:A);\n", "1184523404"),
        ("// nothing here\n", "1761896131"),
        ("CREATE (:A {text: 'Grüße ✓'});\n", "1429008340"),
        ("CREATE (:A);\r\nCREATE\r\n (:B);\r\n", "860180678"),
    ],
)
def test_checksums_are_those_that_neo4j_migrations_stores(text, expected):
    assert checksum(text) == expected


def test_a_flyway_compatible_checksum_ignores_line_ends_and_is_signed():
    assert flyway_checksum("CREATE (:A);\nRETURN 1") == flyway_checksum("CREATE (:A);\r\nRETURN 1")
    assert any(int(flyway_checksum(f"RETURN {n}")) < 0 for n in range(8))


def test_use_is_a_part_of_its_own_for_the_checksum():
    assert their_parts(":use other;\nCREATE (:A);\n") == [":use other", "CREATE (:A)"]
    assert their_parts(":use other\nCREATE (:A);\n") == [":use other", "CREATE (:A)"]


def test_a_no_break_space_is_not_trimmed():
    assert their_parts("\u00a0CREATE (:A);\n") == ["\u00a0CREATE (:A)"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("RETURN ';'; RETURN 2", ["RETURN ';'", "RETURN 2"]),
        ('RETURN "a;\\";"; RETURN 2;', ['RETURN "a;\\";"', "RETURN 2"]),
        ("RETURN 1 AS `a;``b`;\n;;\n", ["RETURN 1 AS `a;``b`"]),
        ("// one; two\nRETURN 1 /* ; \n ; */ + 1;", ["RETURN 1 + 1"]),
        ("RETURN 'http://x'; // the end", ["RETURN 'http : x'".replace(" : ", "://")]),
        ("/* only a comment; */ // and another;", []),
        ("\ufeffRETURN 1;", ["RETURN 1"]),
        ("RETURN 1;   \r\n  RETURN 2", ["RETURN 1", "RETURN 2"]),
    ],
)
def test_statements_end_at_semicolons_outside_of_strings_names_and_comments(text, tokens):
    assert [s.tokens for s in split(text)] == tokens


def test_a_statement_knows_the_line_of_its_first_token():
    assert [s.line for s in split("// note\n\nRETURN 1;\n\n/* more */\nRETURN 2;")] == [3, 6]


@pytest.mark.parametrize("text", ["RETURN 'a", 'RETURN "a', "RETURN `a", "RETURN 1 /* a"])
def test_what_has_no_end_is_refused_with_its_line(text):
    with pytest.raises(
        ConfigurationError, match=r"V1__a\.cypher: line 2: what begins with .* has no end"
    ):
        CypherFile.parse("V1__a.cypher", f"RETURN 0;\n{text}")


@pytest.mark.parametrize(
    ("text", "definition"),
    [
        (
            "CREATE CONSTRAINT a IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE",
            "UNIQUENESS constraint on (:X) (p)",
        ),
        (
            "create constraint a for (n:X) require (n.p, n.q) is node unique",
            "UNIQUENESS constraint on (:X) (p, q)",
        ),
        (
            "CREATE CONSTRAINT a FOR ()-[r:R]-() REQUIRE r.p IS RELATIONSHIP UNIQUE",
            "UNIQUENESS constraint on ()-[:R]-() (p)",
        ),
        (
            "CREATE CONSTRAINT a FOR ()<-[r:R]-() REQUIRE r.p IS NOT NULL",
            "EXISTENCE constraint on ()-[:R]-() (p)",
        ),
        (
            "CREATE CONSTRAINT a FOR (n:X) REQUIRE (n.p, n.q) IS NODE KEY",
            "KEY constraint on (:X) (p, q)",
        ),
        (
            "CREATE CONSTRAINT a FOR (n:X) REQUIRE n.p IS :: LIST<STRING NOT NULL>",
            "TYPE LIST<STRINGNOTNULL> constraint on (:X) (p)",
        ),
        ("CREATE INDEX a FOR (n:`My Label`) ON (n.`my p`)", "RANGE index on (:My Label) (my p)"),
        ("CREATE TEXT INDEX a FOR (n:X) ON (n.p)", "TEXT index on (:X) (p)"),
        (
            "CREATE FULLTEXT INDEX a FOR (n:X|B) ON EACH [n.p, n.q]",
            "FULLTEXT index on (:B|X) (p, q)",
        ),
        ("CREATE INDEX a FOR ()-[r:R]-() ON (r.p)", "RANGE index on ()-[:R]-() (p)"),
        ("CREATE LOOKUP INDEX a FOR (n) ON EACH labels(n)", "LOOKUP index on (:) ()"),
    ],
)
def test_schema_statements_are_recognised(text, definition):
    found = declared(text)
    assert isinstance(found, SchemaObject)
    assert (found.name, found.definition) == ("a", definition)


def test_declared_options_of_a_vector_index_are_compared():
    found = declared(
        "CREATE VECTOR INDEX v FOR (n:X) ON (n.e) OPTIONS {indexConfig: {`vector.dimensions`: "
        "8, `vector.similarity_function`: 'cosine'}}"
    )
    assert isinstance(found, SchemaObject)
    assert found.options == (("vector.dimensions", "8"), ("vector.similarity_function", "COSINE"))


def test_drops_are_recognised_and_other_statements_are_not():
    assert declared("DROP INDEX `a b` IF EXISTS") == Drop("index", "a b", guarded=True)
    assert declared("MERGE (:X {text: 'CREATE INDEX a FOR (n:X) ON (n.p)'})") is None


def test_unnamed_objects_are_recognised_and_warned_about():
    file = CypherFile.parse("V1__a.cypher", "CREATE INDEX IF NOT EXISTS FOR (n:X) ON (n.p);")
    assert "has no name" in " ".join(file.lint())


@pytest.mark.parametrize(
    ("comment", "version", "edition", "holds"),
    [
        ("assume that edition is enterprise", "5.26.30", "community", False),
        ("assert that edition is ENTERPRISE", "5.26.30", "enterprise", True),
        ("assume that version is 5.26", "5.26.30", "community", True),
        ("assume that version is 5.2, 4.4 or 5.3", "5.26.30", "community", False),
        ("assume that version is ge 5.9", "5.26.30", "community", True),
        ("assert that version is lt 5.9", "2026.08.1", "community", False),
    ],
)
def test_preconditions(comment, version, edition, holds):
    found = Precondition.parse(comment)
    assert found is not None
    assert found.holds(version, edition) is holds


def test_a_precondition_that_is_not_understood_is_refused():
    with pytest.raises(ConfigurationError, match="not understood"):
        CypherFile.parse("V1__a.cypher", "// assume that the moon is full\nRETURN 1;")


def test_only_comments_before_the_first_statement_are_preconditions():
    file = CypherFile.parse(
        "V1__a.cypher", "/* intro */\n// a note\nRETURN 1;\n// assume that edition is enterprise\n"
    )
    assert file.preconditions == ()


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX a FOR (n:X) ON (n.p); CREATE (:X);",
        "CREATE (:X); CALL (){ CREATE (:Y) } IN TRANSACTIONS OF 5 ROWS;",
    ],
)
def test_data_and_statements_that_commit_alone_may_not_share_a_file(text):
    with pytest.raises(ConfigurationError, match="cannot share a transaction"):
        CypherFile.parse("V1__a.cypher", text)


def test_a_misspelt_word_is_named_with_its_line():
    with pytest.raises(ConfigurationError, match=r"V2__b\.cypher, line 2: `CREAT INDEX b FOR"):
        CypherFile.parse(
            "V2__b.cypher",
            "CREATE INDEX a FOR (n:X) ON (n.p);\nCREAT INDEX b FOR (n:X) ON (n.q);\n",
        )


def test_use_is_refused():
    with pytest.raises(ConfigurationError, match=":use"):
        CypherFile.parse("V1__a.cypher", ":use other;\nCREATE (:X);")


@pytest.mark.parametrize(
    "text", ["RETURN 1; RETURN 2;\n", "RETURN 1;  \nRETURN 2;\n", "RETURN 'a;\nb';\n"]
)
def test_what_neo4j_migrations_reads_differently_is_warned_about(text):
    assert "splits V1__a.cypher differently" in " ".join(
        CypherFile.parse("V1__a.cypher", text).lint()
    )


@pytest.mark.parametrize(
    "text", ["RETURN 1;\nRETURN 2;\n", "// c;\nRETURN 1", "RETURN 1;\n// the end\n", ""]
)
def test_what_both_read_alike_is_not(text):
    assert list(CypherFile.parse("V1__a.cypher", text).lint()) == []


def test_files_are_ordered_by_number_and_versions_kept_as_written(tmp_path):
    for name in ("V10__c.cypher", "V009_1__b_b.cypher", "R002__a.cypher"):
        (tmp_path / name).write_text("RETURN 1;")
    assert [(f.version, f.description, f.repeatable) for f in load(tmp_path)] == [
        ("002", "a", True),
        ("009.1", "b b", False),
        ("10", "c", False),
    ]


def test_one_number_twice_is_refused(tmp_path):
    for name in ("V001__a.cypher", "R001__b.cypher"):
        (tmp_path / name).write_text("RETURN 1;")
    with pytest.raises(ConfigurationError, match="same version 001"):
        load(tmp_path)


def test_a_name_that_is_not_understood_is_refused(tmp_path):
    (tmp_path / "001_a.cypher").write_text("RETURN 1;")
    with pytest.raises(ConfigurationError, match=r"001_a\.cypher"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2026/V002__b.cypher", "2026/V002__b.cypher is in a sub-folder"),
        ("2026/deeper/find.cypher", "2026/deeper/find.cypher is in a sub-folder"),
        ("V002__b.cql", "the name of V002__b.cql ends in .cql, not in .cypher"),
        ("V002__b.CYPHER", "the name of V002__b.CYPHER ends in .CYPHER, not in .cypher"),
        ("V002__b.cypher.txt", "the name of V002__b.cypher.txt ends in .txt, not in .cypher"),
        ("V002__b.xml", "the name of V002__b.xml ends in .xml, not in .cypher"),
        ("V002__b", "the name of V002__b does not end in .cypher"),
        ("v002__b.cypher", "the file name v002__b.cypher is not understood"),
        ("V002_b.cypher", "the file name V002_b.cypher is not understood"),
        ("V002__add-index.cypher", "the file name V002__add-index.cypher is not understood"),
        ("U002__b.cypher", "the file name U002__b.cypher is not understood"),
        ("beforeMigrate.cypher", "beforeMigrate.cypher is a callback of neo4j-migrations"),
        ("afterMigrate__02.cypher", "afterMigrate__02.cypher is a callback of neo4j-migrations"),
        ("V002_b.cypher.txt", "the name of V002_b.cypher.txt ends in .txt"),
        ("V002.cypher.txt", "the name of V002.cypher.txt ends in .txt"),
        ("b.cypher.txt", "the name of b.cypher.txt ends in .txt"),
        ("V002_b", "the name of V002_b does not end in .cypher"),
        ("b", "the name of b does not end in .cypher"),
        ("V002__b.cyphr", "ends in .cyphr"),
        ("V002__b.cypher.j2", "ends in .j2"),
        ("V002__b.cypher.gz", "ends in .gz"),
        ("V002__b.cqlx", "ends in .cqlx"),
        ("V002__b.bak", "ends in .bak"),
        ("V002__b.cypher.bak", "ends in .bak"),
        ("V002__b.cypher~", "ends in .cypher~"),
        ("V002__b.csv", "ends in .csv"),
        ("V002__b.py", "ends in .py"),
        ("V002__b.cypher ", "the name of 'V002__b.cypher ' ends in '.cypher '"),
        (".V002__b.cypher", "the file name .V002__b.cypher is not understood"),
        ("._V002__b.cypher", "the file name ._V002__b.cypher is not understood"),
        (".old/V002__b.cypher", ".old/V002__b.cypher is in a sub-folder"),
    ],
)
def test_no_file_that_looks_like_a_migration_is_passed_over(tmp_path, name, reason):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    for each in ("V001__a.cypher", name):
        (tmp_path / each).write_text("RETURN 1;")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert reason in caught.value.message
    assert "V001__a.cypher" not in caught.value.message


def test_all_files_that_would_be_passed_over_are_named_at_once(tmp_path):
    for name in ("V002__b.cql", "V003__c.CYPHER"):
        (tmp_path / name).write_text("RETURN 1;")
    with pytest.raises(ConfigurationError, match=r"V002__b\.cql ends in .*V003__c\.CYPHER ends in"):
        load(tmp_path)


def test_hidden_files_and_what_editors_and_desktops_leave_are_no_migrations(tmp_path):
    strange = b"\0\5\26\7\0\2\0\0Mac OS X        \0\2\0\0\0\xb0\xff"
    for name in (
        "._V001__a.cypher",
        ".DS_Store",
        ".gitkeep",
        ".V002__b.cypher.swp",
        "V001__a.cypher~",
        "#V001__a.cypher#",
        "V001__a.cypher.swp",
        "V001__a.cypher.orig",
        "V001__a.cypher.bak",
        "Icon\r",
        "Thumbs.db",
        "README.md",
        "LICENSE",
        "notes.txt",
        "books.csv",
        "run.sh",
        "__init__.py",
        "docs/model.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(strange)
    for folder in (".git", "__MACOSX", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "V003__c.cypher").write_bytes(strange)
    (tmp_path / ".#V001__a.cypher").symlink_to("nobody@host.1:1")
    (tmp_path / "V001__a.cypher").write_text("RETURN 1;")
    assert [file.name for file in load(tmp_path)] == ["V001__a.cypher"]


def test_a_link_back_to_the_folder_is_followed_once(tmp_path):
    (tmp_path / "V001__a.cypher").write_text("RETURN 1;")
    (tmp_path / "again").symlink_to(tmp_path)
    assert [file.name for file in load(tmp_path)] == ["V001__a.cypher"]


def test_a_folder_that_kubernetes_mounts_is_read_once(tmp_path):
    (tmp_path / "..2026_11_29").mkdir()
    (tmp_path / "..2026_11_29" / "V001__a.cypher").write_text("RETURN 1;")
    (tmp_path / "..data").symlink_to("..2026_11_29")
    (tmp_path / "V001__a.cypher").symlink_to("..data/V001__a.cypher")
    assert [file.name for file in load(tmp_path)] == ["V001__a.cypher"]


def test_a_folder_behind_a_link_is_looked_into(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "cypher").mkdir()
    elsewhere.mkdir()
    (elsewhere / "V001__a.cypher").write_text("RETURN 1;")
    (tmp_path / "cypher" / "linked").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match=r"linked/V001__a\.cypher is in a sub-folder"):
        load(tmp_path / "cypher")


def test_a_folder_named_like_a_file_and_a_link_to_nothing_are_named(tmp_path):
    (tmp_path / "V001__a.cypher").mkdir()
    with pytest.raises(ConfigurationError, match=r"V001__a\.cypher is a folder"):
        load(tmp_path)
    (tmp_path / "V001__a.cypher").rmdir()
    (tmp_path / "V001__a.cypher").symlink_to("nowhere.cypher")
    with pytest.raises(ConfigurationError, match=r"V001__a\.cypher is a link that leads nowhere"):
        load(tmp_path)


def test_a_named_pipe_is_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "V001__a.cypher")
    os.mkfifo(tmp_path / "notes.txt")
    code = (
        "from pathlib import Path; from is_db_bootstrap.stores.neo4j.cypher_file import load; "
        f"load(Path({str(tmp_path)!r}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "V001__a.cypher is a named pipe, socket or device" in ended.stderr
    assert "notes.txt is a named pipe, socket or device" in ended.stderr


@pytest.mark.parametrize("name", ["V1_1.2__a.cypher", "V001__größe.cypher", "V\u0661__a.cypher"])
def test_a_name_that_neo4j_migrations_would_pass_over_is_warned_about(name):
    assert "neo4j-migrations would pass over" in " ".join(
        CypherFile.parse(name, "RETURN 1;").lint()
    )


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "V001__a.cypher").write_bytes("RETURN 'Grüße';".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"V001__a\.cypher is not UTF-8"):
        load(tmp_path)


def test_a_cypher_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is not there"):
        load(tmp_path / "cypherr")


def test_a_version_that_neo4j_cannot_hold_is_refused(tmp_path):
    (tmp_path / "V20261129112233123456__a.cypher").write_text("CREATE (:A);")
    with pytest.raises(ConfigurationError, match=r"a version above 9223372036854775807"):
        load(tmp_path)
